//! What one incarnation of a replica works with.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use dashmap::DashMap;
use kube::Client;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    cache::{Cache, Change},
    client::scoped,
    feed::{self, Scope},
    gate::{self, Gate},
    gauges::{MetricNames, Watching},
    keep::Keep,
    key::Key,
    lanes::runner::Queue,
    member::Incarnation,
    ownership::Ownership,
    runtime::Handle,
    slot::SlotSet,
    wire::Names,
};

/// Background tasks of an incarnation; they end with it.
pub(crate) type Tasks = Mutex<JoinSet<()>>;

/// The tasks, while no other task can change them.
pub(crate) fn locked(tasks: &Tasks) -> MutexGuard<'_, JoinSet<()>> {
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one incarnation works with. Nothing of it may be used by the next one. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    pub(crate) client: Client,
    pub(crate) handle: Handle,
    pub(crate) incarnation: Incarnation,
    pub(crate) names: Arc<Names>,
    pub(crate) ownership: Ownership,
    pub(crate) queues: Arc<BTreeMap<&'static str, Queue<Key, Key>>>,
    pub(crate) selects_shards: bool,
    pub(crate) metrics: MetricNames,
    pub(crate) tasks: Weak<Tasks>,
    /// Clients by the scope of their writes, made at their first use.
    pub(crate) clients: Arc<DashMap<gate::Scope, Client>>,
}

impl Session {
    /// The client, whose writes pass the gate: each must carry its [`crate::gate::Scope`].
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A client whose writes carry this scope. Cheap after the first call.
    pub fn client_of(&self, scope: gate::Scope) -> Client {
        self.clients.entry(scope).or_insert_with(|| scoped(&self.client, scope)).clone()
    }

    /// The gate of this incarnation.
    pub fn gate(&self) -> &Gate {
        self.handle.gate()
    }

    /// The handle of the member.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Who this replica is in this incarnation.
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// Names that the fleet shares.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The slots that this replica owns, as watches follow them.
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// Whether the API server selects objects by the hash of their uid (KEP-5866).
    pub fn selects_shards(&self) -> bool {
        self.selects_shards
    }

    /// The queue of the controller of this name, if there is one.
    pub fn queue(&self, controller: &str) -> Option<Queue<Key, Key>> {
        self.queues.get(controller).cloned()
    }

    /// Runs a task until the incarnation ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = self.tasks.upgrade() {
            locked(&tasks).spawn(task);
        }
    }

    /// Starts a watch that feeds a cache and calls `changed` with each change; returns the slots that it has listed.
    pub fn feed<K, P>(
        &self,
        scope: Scope,
        cache: Arc<Cache<K, P>>,
        changed: impl Fn(Change<P::Form>) + Send + 'static,
    ) -> watch::Receiver<SlotSet>
    where
        K: Send + Sync + 'static,
        P: Keep<K>,
    {
        let (synced, client, metrics) = (cache.synced(), self.client.clone(), self.metrics);
        self.spawn(async move {
            let _counted = Watching::new(metrics);
            feed::run(client, scope, cache, changed).await;
        });
        synced
    }

    /// The same while the kind exists; its objects are dropped when it is removed.
    pub fn feed_while_present<K, P>(
        &self,
        present: watch::Receiver<bool>,
        scope: Scope,
        cache: Arc<Cache<K, P>>,
        changed: impl Fn(Change<P::Form>) + Send + Sync + 'static,
    ) -> watch::Receiver<SlotSet>
    where
        K: Send + Sync + 'static,
        P: Keep<K>,
    {
        let (synced, client, metrics) = (cache.synced(), self.client.clone(), self.metrics);
        self.spawn(async move {
            let watch = || async {
                let _counted = Watching::new(metrics);
                feed::run(client.clone(), scope.clone(), Arc::clone(&cache), &changed).await;
            };
            feed::run_while_present(present, Arc::clone(&cache), watch).await;
        });
        synced
    }
}
