//! What is known of the world: a reflector's store, and on top of it what this process wrote and has not seen yet.
//!
//! Without the second part, a reconcile that runs before the watch delivers its own last write would write again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dashmap::{DashMap, Entry};
use kube::{
    Resource, ResourceExt,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::Event,
    },
};
use tokio::sync::watch;

use crate::domain::key::Key;

/// How long the answer to a write counts without the watch: longer than a watch is late.
const RECORD_LIFETIME: Duration = Duration::from_secs(30);
/// Records that are kept before old ones are dropped.
const RECORDS_KEPT: usize = 1024;

/// A write of this process that the watch has not delivered yet.
enum Written<K> {
    Object(Arc<K>),
    /// With the version at which it went; the highest where only this process knows of it.
    Deleted {
        uid: String,
        version: u64,
    },
}

/// Objects of one kind.
pub struct Cache<K: Resource + Clone + 'static>
where
    K::DynamicType: Clone + Eq + std::hash::Hash,
{
    store: Store<K>,
    kind: K::DynamicType,
    written: DashMap<Key, (Written<K>, Instant)>,
    synced: watch::Sender<bool>,
}

impl<K> Cache<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Clone + Eq + std::hash::Hash,
{
    /// A cache on a reflector's store.
    pub fn new(store: Store<K>, kind: K::DynamicType) -> Self {
        Self { store, kind, written: DashMap::new(), synced: watch::Sender::new(false) }
    }

    /// The object, as new as is known.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        let seen = self.store.get(&self.reference(key));
        let Some(entry) = self.written.get(key) else { return seen };
        match &entry.value().0 {
            Written::Object(written) => match &seen {
                Some(object) if !is_older(object.as_ref(), written.as_ref()) => seen,
                None if entry.value().1.elapsed() > RECORD_LIFETIME => None,
                _ => Some(Arc::clone(written)),
            },
            Written::Deleted { uid, version } => seen.filter(|object| !is_gone(object.as_ref(), uid, *version)),
        }
    }

    /// Every object that the watch delivered.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.store.state()
    }

    /// Number of objects that the watch delivered.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether the watch delivered nothing.
    pub fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    /// Waits until the first list is in and was told of.
    pub async fn synced(&self) {
        // It cannot fail: the sender is this cache's own.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// The first list is in and was told of.
    pub fn mark_synced(&self) {
        self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
    }

    /// Records the answer to a write of this process. The watch may have been faster: what it told of already as
    /// newer, or as gone, stays.
    pub fn wrote(&self, object: K) {
        let record = |object: K| (Written::Object(Arc::new(object)), Instant::now());
        match self.written.entry(Key::of(&object)) {
            Entry::Vacant(entry) => {
                entry.insert(record(object));
            }
            Entry::Occupied(mut entry) => {
                let known = match &entry.get().0 {
                    Written::Object(known) => is_older(&object, known.as_ref()),
                    Written::Deleted { uid, version } => is_gone(&object, uid, *version),
                };
                if !known {
                    entry.insert(record(object));
                }
            }
        }
    }

    /// Records that this process deleted an object for good.
    pub fn deleted(&self, key: &Key, uid: &str) {
        self.record_gone(key, uid, u64::MAX);
    }

    fn record_gone(&self, key: &Key, uid: &str, version: u64) {
        self.written.insert(key.clone(), (Written::Deleted { uid: uid.to_owned(), version }, Instant::now()));
        if self.written.len() > RECORDS_KEPT {
            self.written.retain(|_, (_, since)| since.elapsed() < RECORD_LIFETIME);
        }
    }

    /// The object that the watch delivered before, and forgets what the watch has now delivered.
    ///
    /// To be called for each event before the store takes it; `list_begun` is when the present list was asked for.
    pub fn before(&self, event: &Event<K>, list_begun: Instant) -> Option<Arc<K>> {
        match event {
            Event::Apply(object) | Event::InitApply(object) => {
                let key = Key::of(object);
                self.written.remove_if(&key, |_, (written, _)| match written {
                    Written::Object(written) => !is_older(object, written.as_ref()),
                    Written::Deleted { uid, version } => !is_gone(object, uid, *version),
                });
                self.store.get(&self.reference(&key))
            }
            Event::Delete(object) => {
                // The answer to a write of this object may still be on its way: it must not bring it back. An object
                // that only lost its label comes again with a higher version.
                let uid = object.meta().uid.as_deref().unwrap_or_default();
                self.record_gone(&Key::of(object), uid, version_of(object).unwrap_or(u64::MAX));
                None
            }
            Event::InitDone => {
                self.written.retain(|_, (_, since)| *since > list_begun);
                None
            }
            Event::Init => None,
        }
    }

    fn reference(&self, key: &Key) -> ObjectRef<K> {
        let reference = ObjectRef::new_with(&key.name, self.kind.clone());
        if key.namespace.is_empty() { reference } else { reference.within(&key.namespace) }
    }
}

/// Resource versions of one kind are comparable as numbers (KEP-5504, Kubernetes 1.35).
fn is_older<K: Resource>(object: &K, than: &K) -> bool {
    object.meta().uid == than.meta().uid && version_of(object) < version_of(than)
}

fn version_of<K: Resource>(object: &K) -> Option<u64> {
    object.resource_version().and_then(|version| version.parse().ok())
}

/// Whether the object is one that went at `version`.
fn is_gone<K: Resource>(object: &K, uid: &str, version: u64) -> bool {
    object.meta().uid.as_deref() == Some(uid) && version_of(object).is_none_or(|it| it <= version)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{api::ObjectMeta, runtime::reflector::store::Writer};

    use super::*;

    fn object(uid: &str, version: u64) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some("a".into()),
                namespace: Some("n".into()),
                uid: Some(uid.into()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn version(cache: &Cache<ConfigMap>) -> Option<String> {
        cache.get(&Key::new("n", "a")).and_then(|it| it.resource_version())
    }

    fn deliver(cache: &Cache<ConfigMap>, writer: &mut Writer<ConfigMap>, event: &Event<ConfigMap>) {
        cache.before(event, Instant::now());
        writer.apply_watcher_event(event);
    }

    #[test]
    fn an_own_write_is_seen_until_the_watch_delivers_it() {
        let mut writer = Writer::<ConfigMap>::new(());
        let cache = Cache::new(writer.as_reader(), ());
        deliver(&cache, &mut writer, &Event::Apply(object("u", 1)));
        cache.wrote(object("u", 3));
        assert_eq!(version(&cache).as_deref(), Some("3"));
        deliver(&cache, &mut writer, &Event::Apply(object("u", 2)));
        assert_eq!(version(&cache).as_deref(), Some("3"), "an older event does not hide the write");
        deliver(&cache, &mut writer, &Event::Apply(object("u", 3)));
        assert_eq!(version(&cache).as_deref(), Some("3"));
        assert!(cache.written.is_empty());
    }

    #[test]
    fn an_own_delete_is_seen_at_once_and_a_successor_is_not_hidden() {
        let mut writer = Writer::<ConfigMap>::new(());
        let cache = Cache::new(writer.as_reader(), ());
        deliver(&cache, &mut writer, &Event::Apply(object("u", 1)));
        cache.deleted(&Key::new("n", "a"), "u");
        assert_eq!(version(&cache), None);
        deliver(&cache, &mut writer, &Event::Apply(object("v", 5)));
        assert_eq!(version(&cache).as_deref(), Some("5"));
    }

    /// The answer to a delete may come after the watch has told that the object is gone.
    #[test]
    fn an_answer_that_comes_after_the_watch_brings_nothing_back() {
        let mut writer = Writer::<ConfigMap>::new(());
        let cache = Cache::new(writer.as_reader(), ());
        deliver(&cache, &mut writer, &Event::Apply(object("u", 1)));
        deliver(&cache, &mut writer, &Event::Delete(object("u", 3)));
        cache.wrote(object("u", 2));
        assert_eq!(version(&cache), None);
        cache.wrote(object("v", 4));
        assert_eq!(version(&cache).as_deref(), Some("4"), "a successor of the same name is seen");
    }

    /// To a watch by label, an object that loses the label is deleted; with the label it is there again.
    #[test]
    fn an_object_that_lost_its_label_comes_back_with_it() {
        let mut writer = Writer::<ConfigMap>::new(());
        let cache = Cache::new(writer.as_reader(), ());
        deliver(&cache, &mut writer, &Event::Apply(object("u", 1)));
        deliver(&cache, &mut writer, &Event::Delete(object("u", 2)));
        assert_eq!(version(&cache), None);
        cache.wrote(object("u", 3));
        assert_eq!(version(&cache).as_deref(), Some("3"));
        deliver(&cache, &mut writer, &Event::Delete(object("u", 4)));
        deliver(&cache, &mut writer, &Event::Apply(object("u", 5)));
        assert_eq!(version(&cache).as_deref(), Some("5"));
    }

    #[test]
    fn a_write_whose_object_was_deleted_meanwhile_is_forgotten() {
        let mut writer = Writer::<ConfigMap>::new(());
        let cache = Cache::new(writer.as_reader(), ());
        cache.wrote(object("u", 3));
        deliver(&cache, &mut writer, &Event::Delete(object("u", 4)));
        assert_eq!(version(&cache), None);
    }
}
