//! Watches: one task for each kind updates a cache and reports changed objects.

use std::sync::{Arc, LazyLock};

use kube::Client;
use kube_sharding::{
    Slot, SlotSet,
    groups::{Groups, Selection, Sink},
    watch::{Query, Read},
};
use metrics::gauge;
use tokio::sync::watch;

use super::{cache::Change, cached::Cached};
use crate::io::cache::Cache;

/// Scope of a watch.
#[derive(Clone)]
pub struct Scope {
    /// Query.
    pub query: Query,
    /// Selection by slots.
    pub selection: Selection,
    /// Currently owned slots.
    pub owned: watch::Receiver<SlotSet>,
}

/// Slots of kinds that are not sharded.
static EVERYTHING: LazyLock<watch::Sender<SlotSet>> = LazyLock::new(|| watch::Sender::new(SlotSet::ALL));

impl Scope {
    /// All objects of `query`, in any slot.
    pub fn everything(query: Query) -> Self {
        Self { query, selection: Selection::Everything, owned: EVERYTHING.subscribe() }
    }
}

struct Feed<K: Cached, F> {
    cache: Arc<Cache<K>>,
    changed: F,
}

impl<K, F> Sink<K::Form> for Feed<K, F>
where
    K: Cached,
    F: Fn(Change<K::Form>) + Send,
{
    fn reader(&self) -> Read<K::Form> {
        K::read
    }

    fn slot_of(&self, object: &K::Form) -> Option<Slot> {
        self.cache.slot_of(object)
    }

    fn listed(&self, slots: &SlotSet, objects: Vec<K::Form>, version: &str) {
        self.cache.list(slots, objects, version).into_iter().for_each(&self.changed);
    }

    fn applied(&self, object: K::Form) {
        self.cache.apply(object).into_iter().for_each(&self.changed);
    }

    fn deleted(&self, object: K::Form) {
        self.cache.remove(object).into_iter().for_each(&self.changed);
    }

    fn dropped(&self, slots: &SlotSet) {
        self.cache.drop_slots(slots);
    }

    fn synced(&self, slots: SlotSet) {
        self.cache.mark_synced(slots);
    }
}

/// Watches objects of one kind, updates `cache` and calls `changed` for each change, until the task is dropped.
pub async fn run<K, F>(client: Client, scope: Scope, cache: Arc<Cache<K>>, changed: F)
where
    K: Cached,
    F: Fn(Change<K::Form>) + Send,
{
    gauge!("frappe_operator_watches").increment(1.0);
    let _end = Ended;
    Groups::new(client, scope.query, scope.selection, Feed { cache, changed }).run(scope.owned).await;
}

/// The same while the kind exists; its objects are dropped when it is removed.
pub async fn run_while_present<K, F>(
    mut present: watch::Receiver<bool>,
    client: Client,
    scope: Scope,
    cache: Arc<Cache<K>>,
    changed: F,
) where
    K: Cached,
    F: Fn(Change<K::Form>) + Send + Sync,
{
    while present.wait_for(|present| *present).await.is_ok() {
        tokio::select! {
            () = run(client.clone(), scope.clone(), Arc::clone(&cache), &changed) => return,
            _ = present.wait_for(|present| !*present) => {
                cache.mark_synced(SlotSet::NONE);
                cache.drop_slots(&SlotSet::ALL);
            }
        }
    }
}

struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        gauge!("frappe_operator_watches").decrement(1.0);
    }
}
