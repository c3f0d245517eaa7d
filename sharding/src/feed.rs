//! Feeds caches from watches: one task for each kind updates a cache and reports changed objects.

use std::sync::{Arc, LazyLock};

use kube::Client;
use tokio::sync::watch;

use crate::{
    cache::{Cache, Change},
    groups::{Groups, Selection, Sink},
    keep::Keep,
    slot::{Slot, SlotSet},
    watch::{Query, Read},
};

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

struct Feed<K, P: Keep<K>, F> {
    cache: Arc<Cache<K, P>>,
    changed: F,
}

impl<K, P, F> Sink<P::Form> for Feed<K, P, F>
where
    K: Send + Sync + 'static,
    P: Keep<K>,
    F: Fn(Change<P::Form>) + Send,
{
    fn reader(&self) -> Read<P::Form> {
        P::read
    }

    fn slot_of(&self, object: &P::Form) -> Option<Slot> {
        self.cache.slot_of(object)
    }

    fn listed(&self, slots: &SlotSet, objects: Vec<P::Form>, version: &str) {
        self.cache.list(slots, objects, version).into_iter().for_each(&self.changed);
    }

    fn applied(&self, object: P::Form) {
        self.cache.apply(object).into_iter().for_each(&self.changed);
    }

    fn deleted(&self, object: P::Form) {
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
pub async fn run<K, P, F>(client: Client, scope: Scope, cache: Arc<Cache<K, P>>, changed: F)
where
    K: Send + Sync + 'static,
    P: Keep<K>,
    F: Fn(Change<P::Form>) + Send,
{
    Groups::new(client, scope.query, scope.selection, Feed { cache, changed }).run(scope.owned).await;
}

/// Runs the watch of a cache, as `watch` begins it, while the kind exists; its objects are dropped when it is removed.
pub async fn run_while_present<K, P, R>(
    mut present: watch::Receiver<bool>,
    cache: Arc<Cache<K, P>>,
    watch: impl Fn() -> R,
) where
    P: Keep<K>,
    R: Future<Output = ()>,
{
    while present.wait_for(|present| *present).await.is_ok() {
        tokio::select! {
            biased;
            () = watch() => return,
            _ = present.wait_for(|present| !*present) => {
                cache.mark_synced(SlotSet::NONE);
                cache.drop_slots(&SlotSet::ALL);
            }
        }
    }
}
