//! What is known of the world: what the watches delivered, and on top of it what this process wrote and has not seen
//! yet.
//!
//! Without the second part, a reconcile that runs before the watch delivers its own last write would write again.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use dashmap::{DashMap, Entry};
use kube::{Resource, ResourceExt};
use kube_sharding::{Slot, SlotSet};
use tokio::sync::watch;

use crate::{
    domain::key::Key,
    io::{
        compact::{Cached, Sample},
        watch::Change,
    },
};

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
pub struct Cache<K: Cached> {
    objects: DashMap<Key, K::Held>,
    sample: Sample,
    written: DashMap<Key, (Written<K::Form>, Instant)>,
    /// Objects that the watch does not show, because a label is missing or wrong.
    strays: DashMap<Key, Arc<K::Form>>,
    synced: watch::Sender<SlotSet>,
    slot_of: fn(&K::Form) -> Option<Slot>,
}

impl<K: Cached> Cache<K> {
    /// An empty cache of objects whose slots `slot_of` tells.
    pub fn new(slot_of: fn(&K::Form) -> Option<Slot>) -> Self {
        Self {
            objects: DashMap::new(),
            sample: Sample::default(),
            written: DashMap::new(),
            strays: DashMap::new(),
            synced: watch::Sender::default(),
            slot_of,
        }
    }

    /// The object, as new as is known.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        let form = self.known(key).or_else(|| {
            let stray = self.strays.get(key).map(|entry| Arc::clone(entry.value()))?;
            let deleted = self.written.get(key).is_some_and(|entry| {
                matches!(&entry.value().0, Written::Deleted { uid, version: u64::MAX } if stray.meta().uid.as_ref() == Some(uid))
            });
            (!deleted).then_some(stray)
        })?;
        Some(K::open(&form))
    }

    /// The object as the watch delivered it.
    fn seen(&self, key: &Key) -> Option<Arc<K::Form>> {
        self.objects.get(key).map(|entry| K::form(entry.value()))
    }

    fn known(&self, key: &Key) -> Option<Arc<K::Form>> {
        // In this order: the watch puts an object in before it drops the record of the write that it shows.
        let record = self.written.get(key).map(|entry| match &entry.value().0 {
            Written::Object(written) => (Written::Object(Arc::clone(written)), entry.value().1),
            Written::Deleted { uid, version } => {
                (Written::Deleted { uid: uid.clone(), version: *version }, entry.value().1)
            }
        });
        let seen = self.seen(key);
        match record {
            None => seen,
            Some((Written::Object(written), since)) => match &seen {
                Some(object) if !is_older(object.as_ref(), written.as_ref()) => seen,
                None if since.elapsed() > RECORD_LIFETIME => None,
                _ => Some(written),
            },
            Some((Written::Deleted { uid, version }, _)) => {
                seen.filter(|object| !is_gone(object.as_ref(), &uid, version))
            }
        }
    }

    /// Every object that the watch delivered, and the strays.
    pub fn all(&self) -> Vec<Arc<K>> {
        let strays = self.strays.iter().filter(|entry| !self.objects.contains_key(entry.key()));
        let strays: Vec<_> = strays.map(|entry| Arc::clone(entry.value())).collect();
        self.objects.iter().map(|entry| K::open(&K::form(entry.value()))).chain(strays.iter().map(K::open)).collect()
    }

    /// Takes in an object that is there although the watch does not show it.
    pub fn stray(&self, object: Arc<K::Form>) {
        self.strays.insert(Key::of(object.as_ref()), object);
    }

    /// The object is no stray any more: it has its label, or is gone.
    pub fn no_stray(&self, key: &Key) {
        self.strays.remove(key);
    }

    /// Number of objects that the watch delivered.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether the watch delivered nothing.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The slots whose first list is in and was told of.
    pub fn synced(&self) -> watch::Receiver<SlotSet> {
        self.synced.subscribe()
    }

    /// Waits until everything is listed.
    pub async fn wholly_synced(&self) {
        // It cannot fail: the sender is this cache's own.
        let _ = self.synced().wait_for(|slots| *slots == SlotSet::ALL).await;
    }

    pub(super) fn mark_synced(&self, slots: SlotSet) {
        self.synced.send_if_modified(|known| std::mem::replace(known, slots) != slots);
    }

    /// The slot of an object.
    pub fn slot_of(&self, object: &K::Form) -> Option<Slot> {
        (self.slot_of)(object)
    }

    /// Records the answer to a write of this process. The watch may have been faster: what it told of already as
    /// newer, or as gone, stays.
    pub fn wrote(&self, object: K) {
        let object = trimmed(object.close());
        let key = Key::of(&object);
        let as_new = |seen: &K::Form| seen.meta().uid == object.meta().uid && version_of(seen) >= version_of(&object);
        if self.seen(&key).is_some_and(|seen| as_new(&seen)) {
            return;
        }
        let record = |object: K::Form| (Written::Object(Arc::new(object)), Instant::now());
        match self.written.entry(key) {
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

    /// Takes in what a watch delivered; nothing where something as new was known. A watch that went on from an older
    /// version tells things again.
    pub(super) fn apply(&self, object: K::Form) -> Option<Change<K::Form>> {
        let object = trimmed(object);
        let key = Key::of(&object);
        let gone = |written: &Written<K::Form>| matches!(written, Written::Deleted { uid, version } if is_gone(&object, uid, *version));
        if self.written.get(&key).is_some_and(|entry| gone(&entry.value().0)) {
            return None;
        }
        let before = self.seen(&key);
        let known = before.as_ref().is_some_and(|before| version_of(before.as_ref()) >= version_of(&object));
        let now = Arc::new(object);
        if !known {
            self.strays.remove(&key);
            self.objects.insert(key.clone(), K::hold(&now, &self.sample));
        }
        // Only now: who looks in between would find neither.
        self.written.remove_if(&key, |_, (written, _)| match written {
            Written::Object(written) => !is_older(now.as_ref(), written.as_ref()),
            Written::Deleted { .. } => true,
        });
        (!known).then_some(Change::Applied { now, before })
    }

    /// Takes in that an object is gone; nothing where a newer one is known.
    pub(super) fn remove(&self, object: K::Form) -> Option<Change<K::Form>> {
        let key = Key::of(&object);
        if self.seen(&key).is_some_and(|known| version_of(known.as_ref()) > version_of(&object)) {
            return None;
        }
        // The answer to a write of this object may still be on its way: it must not bring it back. An object that only
        // lost its label comes again with a higher version.
        let uid = object.meta().uid.as_deref().unwrap_or_default();
        self.record_gone(&key, uid, version_of(&object).unwrap_or(u64::MAX));
        self.objects.remove(&key);
        Some(Change::Deleted(Arc::new(trimmed(object))))
    }

    /// Takes in everything there is of some slots at a version.
    pub(super) fn list(&self, slots: &SlotSet, objects: Vec<K::Form>, version: &str) -> Vec<Change<K::Form>> {
        let listed: HashSet<Key> = objects.iter().map(Key::of).collect();
        let mine = |object: &K::Form| self.slot_of(object).is_some_and(|slot| slots.contains(slot));
        let at = version.parse::<u64>().ok();
        self.written.retain(|key, (written, _)| match written {
            Written::Object(object) => listed.contains(key) || !mine(object) || version_of(object.as_ref()) > at,
            Written::Deleted { .. } => true,
        });
        let mut gone = Vec::new();
        self.objects.retain(|key, held| {
            let object = (!listed.contains(key)).then(|| K::form(held)).filter(|object| mine(object));
            let keep = object.is_none();
            gone.extend(object.map(Change::Deleted));
            keep
        });
        gone.extend(objects.into_iter().filter_map(|object| self.apply(object)));
        gone
    }

    /// Forgets the objects of some slots.
    pub(super) fn drop_slots(&self, slots: &SlotSet) {
        let lost = |object: &K::Form| self.slot_of(object).is_none_or(|slot| slots.contains(slot));
        let before = self.objects.len();
        self.objects.retain(|_, held| !lost(&K::form(held)));
        if before > 2 * self.objects.len() {
            self.move_together();
        }
        self.strays.retain(|_, object| !lost(object));
        self.written.retain(|_, (written, _)| !matches!(written, Written::Object(object) if lost(object)));
    }

    /// What is kept of many lies scattered over the pages of all of them: copied together, it leaves those pages free.
    /// All copies are made before the first original goes, since the allocator would put a copy where the last original
    /// was. Called by the watch only, like everything that changes `objects`.
    fn move_together(&self) {
        let copies: Vec<(Key, K::Held)> =
            self.objects.iter().map(|entry| (entry.key().clone(), K::copy(entry.value()))).collect();
        for (key, copy) in copies {
            if let Some(mut held) = self.objects.get_mut(&key) {
                *held = copy;
            }
        }
        self.objects.shrink_to_fit();
    }
}

/// Drops what no reconcile reads: managedFields are half of most objects.
fn trimmed<F: Resource>(mut object: F) -> F {
    object.meta_mut().managed_fields = None;
    object
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
    use kube::api::ObjectMeta;

    use super::*;

    fn named(name: &str, uid: &str, version: u64) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("n".into()),
                uid: Some(uid.into()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn object(uid: &str, version: u64) -> ConfigMap {
        named("a", uid, version)
    }

    fn cache() -> Cache<ConfigMap> {
        Cache::new(|it: &ConfigMap| it.metadata.uid.as_deref().map(Slot::of_uid))
    }

    fn version(cache: &Cache<ConfigMap>) -> Option<String> {
        cache.get(&Key::new("n", "a")).and_then(|it| it.resource_version())
    }

    #[test]
    fn an_own_write_is_seen_until_the_watch_delivers_it() {
        let cache = cache();
        cache.apply(object("u", 1));
        cache.wrote(object("u", 3));
        assert_eq!(version(&cache).as_deref(), Some("3"));
        cache.apply(object("u", 2));
        assert_eq!(version(&cache).as_deref(), Some("3"), "an older event does not hide the write");
        cache.apply(object("u", 3));
        assert_eq!(version(&cache).as_deref(), Some("3"));
        assert!(cache.written.is_empty());
    }

    /// A record of what the watch has told already would stay for good.
    #[test]
    fn an_answer_that_comes_after_the_watch_is_not_recorded() {
        let cache = cache();
        cache.apply(object("u", 3));
        cache.wrote(object("u", 3));
        cache.wrote(object("u", 2));
        assert!(cache.written.is_empty());
        cache.wrote(object("v", 4));
        assert_eq!(cache.written.len(), 1, "a successor is");
    }

    #[test]
    fn an_own_delete_is_seen_at_once_and_a_successor_is_not_hidden() {
        let cache = cache();
        cache.apply(object("u", 1));
        cache.deleted(&Key::new("n", "a"), "u");
        assert_eq!(version(&cache), None);
        cache.apply(object("v", 5));
        assert_eq!(version(&cache).as_deref(), Some("5"));
    }

    /// The answer to a write may come after the watch has told that the object is gone.
    #[test]
    fn an_answer_that_comes_after_the_watch_brings_nothing_back() {
        let cache = cache();
        cache.apply(object("u", 1));
        cache.remove(object("u", 3));
        cache.wrote(object("u", 2));
        assert_eq!(version(&cache), None);
        cache.wrote(object("v", 4));
        assert_eq!(version(&cache).as_deref(), Some("4"), "a successor of the same name is seen");
    }

    /// To a watch by label, an object that loses the label is deleted; with the label it is there again.
    #[test]
    fn an_object_that_lost_its_label_comes_back_with_it() {
        let cache = cache();
        cache.apply(object("u", 1));
        cache.remove(object("u", 2));
        assert_eq!(version(&cache), None);
        cache.wrote(object("u", 3));
        assert_eq!(version(&cache).as_deref(), Some("3"));
        cache.remove(object("u", 4));
        cache.apply(object("u", 5));
        assert_eq!(version(&cache).as_deref(), Some("5"));
    }

    #[test]
    fn a_write_whose_object_was_deleted_meanwhile_is_forgotten() {
        let cache = cache();
        cache.wrote(object("u", 3));
        cache.remove(object("u", 4));
        assert_eq!(version(&cache), None);
    }

    /// S-8: the watch by label says that it is gone; another shows that it is there.
    #[test]
    fn a_stray_is_seen_until_it_has_its_label_or_was_deleted() {
        let cache = cache();
        cache.apply(object("u", 1));
        cache.stray(Arc::new(object("u", 2)));
        cache.remove(object("u", 2));
        assert_eq!(version(&cache).as_deref(), Some("2"));
        assert_eq!(cache.all().len(), 1);
        cache.wrote(object("u", 3));
        cache.apply(object("u", 3));
        cache.remove(object("u", 4));
        assert_eq!(version(&cache), None, "it had its label again");
        cache.stray(Arc::new(object("v", 5)));
        cache.deleted(&Key::new("n", "a"), "v");
        assert_eq!(version(&cache), None);
    }

    /// S-8: a merged watch goes on from the oldest version of its parts.
    #[test]
    fn what_is_told_again_changes_nothing() {
        let cache = cache();
        assert!(cache.apply(object("u", 2)).is_some());
        assert!(cache.apply(object("u", 1)).is_none());
        assert!(cache.apply(object("u", 2)).is_none());
        assert!(cache.remove(object("old", 1)).is_none(), "a namesake that went before");
        assert!(cache.remove(object("u", 3)).is_some());
        assert!(cache.apply(object("u", 2)).is_none(), "it went after that");
        assert_eq!(version(&cache), None);
    }

    /// A list after a lost watch: what changed, what went and what came is told; what stayed the same is not.
    #[test]
    fn a_list_tells_what_the_watch_missed_in_its_slots_only() {
        let cache = cache();
        let other = named("other", "other", 3);
        for it in [named("same", "s", 1), named("changed", "c", 2), named("gone", "g", 3), other.clone()] {
            cache.apply(it);
        }
        let slots: SlotSet = ["s", "c", "g", "n"].map(Slot::of_uid).into_iter().collect();
        assert!(!slots.contains(Slot::of_uid("other")), "the test needs another slot");
        let told = cache.list(&slots, vec![named("same", "s", 1), named("changed", "c", 4), named("new", "n", 5)], "6");
        let mut told: Vec<String> = told
            .iter()
            .map(|change| {
                let verb = if matches!(change, Change::Deleted(_)) { "-" } else { "+" };
                format!("{verb}{}", change.object().name_any())
            })
            .collect();
        told.sort();
        assert_eq!(told, ["+changed", "+new", "-gone"]);
        assert_eq!(cache.len(), 4);
        cache.drop_slots(&slots);
        assert_eq!(cache.all().len(), 1, "lost slots are forgotten, others are not");
    }
}
