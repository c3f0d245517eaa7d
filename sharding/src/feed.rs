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

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Mutex, time::Duration};

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;
    use crate::key::Key;

    fn map(name: &str) -> ConfigMap {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            uid: Some(name.into()),
            resource_version: Some("1".into()),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    fn cache() -> Arc<Cache<ConfigMap>> {
        Arc::new(Cache::new(|it: &ConfigMap| it.metadata.uid.as_deref().map(Slot::of_uid)))
    }

    /// A list after a gap, and each event, tell what changed, and nothing else.
    #[test]
    fn what_changed_is_told() {
        let told = Mutex::new(Vec::new());
        let note = |change: Change<ConfigMap>| told.lock().unwrap().push(change.object().metadata.name.clone());
        let feed = Feed { cache: cache(), changed: note };
        feed.listed(&SlotSet::ALL, vec![map("a"), map("b")], "1");
        feed.listed(&SlotSet::ALL, vec![map("a"), map("c")], "2");
        feed.applied(map("a"));
        feed.applied(map("d"));
        feed.deleted(map("d"));
        let told: Vec<String> = told.lock().unwrap().iter().flatten().cloned().collect();
        assert_eq!(told, ["a", "b", "b", "c", "d", "d"]);
    }

    /// O-4: what is another's is not kept.
    #[test]
    fn objects_of_lost_slots_leave_the_cache() {
        let feed = Feed { cache: cache(), changed: |_| {} };
        feed.listed(&SlotSet::ALL, vec![map("u"), map("other")], "1");
        feed.dropped(&[Slot::of_uid("u")].into_iter().collect());
        let left = |name| feed.cache.get(&Key::new("", name)).is_some();
        assert_eq!((left("u"), left("other")), (false, true));
    }

    #[tokio::test]
    async fn a_kind_that_is_removed_leaves_nothing_and_its_watch_begins_again_with_it() {
        let (cache, (present, exists)) = (cache(), watch::channel(true));
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let kept = Arc::clone(&cache);
        let watching = move || {
            cache.list(&SlotSet::ALL, vec![map("a")], "1");
            cache.mark_synced(SlotSet::ALL);
            let _ = begun.send(());
            pending()
        };
        let run = tokio::spawn(run_while_present(exists, Arc::clone(&kept), watching));
        begins.recv().await.expect("it begins");
        assert_eq!((kept.len(), *kept.synced().borrow()), (1, SlotSet::ALL));
        let mut synced = kept.synced();
        present.send_replace(false);
        let unlisted = synced.wait_for(|it| *it == SlotSet::NONE);
        tokio::time::timeout(Duration::from_secs(5), unlisted).await.expect("in time").expect("it is no longer listed");
        tokio::task::yield_now().await;
        assert_eq!(kept.len(), 0);
        present.send_replace(true);
        begins.recv().await.expect("it begins again");
        run.abort();
    }
}
