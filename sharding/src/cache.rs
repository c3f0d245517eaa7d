//! Cache of one kind: objects delivered by the watch, own writes that the watch has not delivered yet, and strays that the
//! watch does not show. Each may be outdated; reads return the newest.
//!
//! Without own writes, a reconcile that runs before the watch delivers the last write would write again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use dashmap::{DashMap, Entry};
use kube::{Resource, ResourceExt};
use tokio::{sync::watch, time::Instant};

use crate::{
    keep::{Keep, Whole},
    key::Key,
    slot::{Slot, SlotSet},
    strangers::Strangers,
};

/// How long the response to a write is kept: longer than a watch is silent before it is begun again, which takes a minute, and
/// a second one if the request that begins it is lost.
const RECORD_LIFETIME: Duration = Duration::from_secs(300);
/// Own writes that are kept before old ones are dropped.
const RECORDS_KEPT: usize = 1024;

/// An own write that the watch has not delivered yet.
enum Written<K> {
    Object(Arc<K>),
    /// Deleted at this version; the highest if only this process knows of it.
    Deleted {
        uid: String,
        version: u64,
    },
}

/// What becomes of an object that the watch delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is kept.
    Keep,
    /// It is not kept, whatever becomes known later.
    Drop,
    /// It is not kept, since its owner is not known; it is noted until [`Cache::strangers_of`] this owner are read.
    Note(String),
}

/// Decides about each object.
pub type Decide<F> = Box<dyn Fn(&F) -> Decision + Send + Sync>;

/// Objects of one kind.
pub struct Cache<K, P: Keep<K> = Whole> {
    objects: DashMap<Key, P::Held>,
    sample: P::Sample,
    written: DashMap<Key, (Written<P::Form>, Instant)>,
    /// Objects that the watch does not show, because a label is missing or wrong.
    strays: DashMap<Key, Arc<P::Form>>,
    /// Objects that the watch shows but that have no known owner, and are not kept.
    strangers: Strangers,
    synced: watch::Sender<SlotSet>,
    slot_of: fn(&P::Form) -> Option<Slot>,
    decide: Option<Decide<P::Form>>,
}

impl<K, P: Keep<K>> Cache<K, P> {
    /// An empty cache; `slot_of` returns an object's slot.
    pub fn new(slot_of: fn(&P::Form) -> Option<Slot>) -> Self {
        Self {
            objects: DashMap::new(),
            sample: P::Sample::default(),
            written: DashMap::new(),
            strays: DashMap::new(),
            strangers: Strangers::default(),
            synced: watch::Sender::default(),
            slot_of,
            decide: None,
        }
    }

    /// The same, which keeps only some objects.
    #[must_use]
    pub fn deciding(mut self, decide: Decide<P::Form>) -> Self {
        self.decide = Some(decide);
        self
    }

    /// The newest known version of an object.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.known(key).map(|form| P::open(&form))
    }

    /// The object as the watch delivered it.
    fn seen(&self, key: &Key) -> Option<Arc<P::Form>> {
        self.objects.get(key).map(|entry| P::form(entry.value()))
    }

    fn known(&self, key: &Key) -> Option<Arc<P::Form>> {
        // In this order: what the watch shows is put in before the record and the stray that it makes needless go.
        let record = self.written.get(key).map(|entry| match &entry.value().0 {
            Written::Object(written) => (Written::Object(Arc::clone(written)), entry.value().1),
            Written::Deleted { uid, version } => {
                (Written::Deleted { uid: uid.clone(), version: *version }, entry.value().1)
            }
        });
        let stray = self.strays.get(key).map(|entry| Arc::clone(entry.value()));
        let seen = self.seen(key);
        match record {
            None => newest(seen, stray),
            Some((Written::Object(written), since)) => match newest(seen, stray) {
                None if since.elapsed() > RECORD_LIFETIME => None,
                other => newest(other, Some(written)),
            },
            Some((Written::Deleted { uid, version }, _)) => newest(
                seen.filter(|object| !is_gone(object.as_ref(), &uid, version)),
                stray.filter(|object| !is_gone_stray(object.as_ref(), &uid, version)),
            ),
        }
    }

    /// All objects of the watch and all strays; the newer if it is both.
    pub fn all(&self) -> Vec<Arc<K>> {
        let mut strays: HashMap<Key, Arc<P::Form>> =
            self.strays.iter().map(|entry| (entry.key().clone(), Arc::clone(entry.value()))).collect();
        let mut all: Vec<Arc<K>> = Vec::with_capacity(self.objects.len() + strays.len());
        for entry in &self.objects {
            all.extend(newest(Some(P::form(entry.value())), strays.remove(entry.key())).map(|form| P::open(&form)));
        }
        all.extend(strays.values().map(P::open));
        all
    }

    /// Adds an existing object that the watch does not show.
    pub fn stray(&self, object: Arc<P::Form>) {
        let key = Key::of(object.as_ref());
        if self.seen(&key).is_some_and(|seen| !is_older(seen.as_ref(), object.as_ref())) {
            return;
        }
        match self.strays.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(object);
            }
            Entry::Occupied(mut entry) => {
                if !is_older(object.as_ref(), entry.get().as_ref()) {
                    entry.insert(object);
                }
            }
        }
    }

    /// Removes a stray that has its label again or was deleted at this version.
    pub fn no_stray(&self, object: &P::Form) {
        self.strays.remove_if(&Key::of(object), |_, stray| !is_older(object, stray.as_ref()));
    }

    /// Removes the stray with this uid.
    pub fn stray_gone(&self, key: &Key, uid: Option<&str>) {
        self.strays.remove_if(key, |_, stray| stray.meta().uid.as_deref() == uid);
    }

    /// Number of objects that the watch delivered.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether the watch has delivered no object.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The slots whose first list is complete.
    pub fn synced(&self) -> watch::Receiver<SlotSet> {
        self.synced.subscribe()
    }

    /// Waits until all lists are complete.
    pub async fn wholly_synced(&self) {
        // It cannot fail: the sender is this cache's own.
        let _ = self.synced().wait_for(|slots| *slots == SlotSet::ALL).await;
    }

    /// Marks the first lists of these slots as complete.
    pub fn mark_synced(&self, slots: SlotSet) {
        self.synced.send_if_modified(|known| std::mem::replace(known, slots) != slots);
    }

    /// The slot of an object.
    pub fn slot_of(&self, object: &P::Form) -> Option<Slot> {
        (self.slot_of)(object)
    }

    /// Records the response to an own write, unless the watch has already delivered a newer version or the deletion.
    pub fn wrote(&self, object: K) {
        let object = P::trim(P::close(object));
        let key = Key::of(&object);
        if self.accept(&key, &object).is_some() {
            return;
        }
        if self.seen(&key).is_some_and(|seen| !is_older(seen.as_ref(), &object)) {
            return;
        }
        let record = |object: P::Form| (Written::Object(Arc::new(object)), Instant::now());
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

    fn decide(&self, object: &P::Form) -> Decision {
        self.decide.as_ref().map_or(Decision::Keep, |decide| decide(object))
    }

    /// Objects that the watch delivered when this owner was not known: each is to be read and passed to [`Self::read`].
    pub fn strangers_of(&self, owner: &str) -> Vec<Key> {
        self.strangers.lock().of(owner)
    }

    /// Records that a stranger was read: the object, or that it does not exist.
    pub fn read(&self, key: &Key, found: Option<P::Form>) -> Option<Change<P::Form>> {
        let Some(object) = found else {
            self.strangers.lock().remove(key);
            return None;
        };
        self.accept(key, &object)
    }

    /// Caches an object that was a stranger at this version or before, if it is kept now.
    fn accept(&self, key: &Key, object: &P::Form) -> Option<Change<P::Form>> {
        // Locked to the end: a deletion that the watch delivers meanwhile comes after it.
        let mut strangers = self.strangers.lock();
        if strangers.version(key).is_none_or(|noted| version_of(object) < Some(noted)) {
            return None;
        }
        let decision = self.decide(object);
        if !matches!(decision, Decision::Note(_)) {
            strangers.remove(key);
        }
        if decision != Decision::Keep {
            return None;
        }
        let now = Arc::new(object.clone());
        self.objects.insert(key.clone(), P::hold(&now, &self.sample));
        Some(Change::Applied { now, before: None })
    }

    /// Whether an object that the watch delivers is kept; notes it if its owner is not known.
    fn admits(&self, object: &P::Form) -> bool {
        if self.decide.is_none() {
            return true;
        }
        let key = Key::of(object);
        // Decided while locked: if the owner becomes known after the decision, its reconcile finds the note.
        let mut strangers = self.strangers.lock();
        let decision = self.decide(object);
        if let Decision::Note(owner) = decision {
            strangers.note(key, version_of(object).unwrap_or(u64::MAX), self.slot_of(object), owner);
            return false;
        }
        strangers.remove(&key);
        decision == Decision::Keep
    }

    /// Removes an object that is not kept any more.
    fn reject(&self, object: &P::Form) -> Option<Change<P::Form>> {
        let key = Key::of(object);
        let before = self.seen(&key)?;
        if version_of(before.as_ref()) > version_of(object) {
            return None;
        }
        self.objects.remove(&key);
        Some(Change::Deleted(before))
    }

    /// Records a deletion by this process.
    pub fn deleted(&self, key: &Key, uid: &str) {
        self.record_gone(key, uid, u64::MAX);
    }

    fn record_gone(&self, key: &Key, uid: &str, version: u64) {
        let gone = (Written::Deleted { uid: uid.to_owned(), version }, Instant::now());
        match self.written.entry(key.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(gone);
            }
            Entry::Occupied(mut entry) => {
                // A successor of the same name, which was made since, is not gone.
                let is_successor = match &entry.get().0 {
                    Written::Object(written) => !is_gone(written.as_ref(), uid, version),
                    Written::Deleted { .. } => false,
                };
                if !is_successor {
                    entry.insert(gone);
                }
            }
        }
        if self.written.len() > RECORDS_KEPT {
            self.written.retain(|_, (_, since)| since.elapsed() < RECORD_LIFETIME);
        }
    }

    /// Records an object delivered by the watch; None if the same or a newer version is known, as after a resumed watch.
    pub fn apply(&self, object: P::Form) -> Option<Change<P::Form>> {
        if self.admits(&object) { self.put(object) } else { self.reject(&object) }
    }

    /// Puts in an object that is kept.
    fn put(&self, object: P::Form) -> Option<Change<P::Form>> {
        let key = Key::of(&object);
        let gone = |written: &Written<P::Form>| matches!(written, Written::Deleted { uid, version } if is_gone(&object, uid, *version));
        if self.written.get(&key).is_some_and(|entry| gone(&entry.value().0)) {
            return None;
        }
        let before = self.seen(&key);
        let known = before.as_ref().is_some_and(|before| version_of(before.as_ref()) >= version_of(&object));
        let now = Arc::new(object);
        if !known {
            self.objects.insert(key.clone(), P::hold(&now, &self.sample));
        }
        // Only now: who looks in between would find neither.
        self.strays.remove_if(&key, |_, stray| !is_older(now.as_ref(), stray.as_ref()));
        self.written.remove_if(&key, |_, (written, _)| match written {
            Written::Object(written) => !is_older(now.as_ref(), written.as_ref()),
            Written::Deleted { .. } => true,
        });
        (!known).then_some(Change::Applied { now, before })
    }

    /// Records a deletion delivered by the watch; None if a newer object is known.
    pub fn remove(&self, object: P::Form) -> Option<Change<P::Form>> {
        let key = Key::of(&object);
        let was_stranger = self.strangers.lock().remove(&key).is_some();
        let is_kept = || self.decide(&object) == Decision::Keep;
        if (was_stranger || !is_kept()) && !self.objects.contains_key(&key) {
            self.written.remove(&key);
            return None;
        }
        if self.seen(&key).is_some_and(|known| version_of(known.as_ref()) > version_of(&object)) {
            return None;
        }
        // The answer to a write of this object may still be on its way: it must not bring it back. An object that only
        // lost its label comes again with a higher version.
        let uid = object.meta().uid.as_deref().unwrap_or_default();
        self.record_gone(&key, uid, version_of(&object).unwrap_or(u64::MAX));
        self.objects.remove(&key);
        Some(Change::Deleted(Arc::new(object)))
    }

    /// Records a complete list of some slots at a version.
    pub fn list(&self, slots: &SlotSet, objects: Vec<P::Form>, version: &str) -> Vec<Change<P::Form>> {
        let (objects, strange): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| self.admits(object));
        let rejected: Vec<_> = strange.iter().filter_map(|object| self.reject(object)).collect();
        let listed: HashSet<Key> = objects.iter().map(Key::of).collect();
        let mine = |object: &P::Form| self.slot_of(object).is_some_and(|slot| slots.contains(slot));
        let at = version.parse::<u64>().ok();
        self.written.retain(|key, (written, _)| match written {
            Written::Object(object) => listed.contains(key) || !mine(object) || version_of(object.as_ref()) > at,
            Written::Deleted { .. } => true,
        });
        let (mut gone, mut removed) = (rejected, Vec::new());
        self.objects.retain(|key, held| {
            let object = (!listed.contains(key)).then(|| P::form(held)).filter(|object| mine(object));
            let keep = object.is_none();
            removed.extend(object);
            keep
        });
        // Always in the same order, so that a test can be repeated.
        removed.sort_by_cached_key(|object| Key::of(object.as_ref()));
        gone.extend(removed.into_iter().map(Change::Deleted));
        gone.extend(objects.into_iter().filter_map(|object| self.put(object)));
        gone
    }

    /// Forgets the objects of some slots.
    pub fn drop_slots(&self, slots: &SlotSet) {
        let lost = |object: &P::Form| self.slot_of(object).is_none_or(|slot| slots.contains(slot));
        self.strangers.lock().drop_slots(slots);
        let before = self.objects.len();
        self.objects.retain(|_, held| !lost(&P::form(held)));
        if before > 2 * self.objects.len() {
            self.defragment();
        }
        self.strays.retain(|_, object| !lost(object));
        self.written.retain(|_, (written, _)| !matches!(written, Written::Object(object) if lost(object)));
    }

    /// Copies the remaining objects next to each other: after many removals they are scattered over pages that could be
    /// freed. All copies are made before the first original is dropped, since the allocator would otherwise reuse its
    /// place. Called only by the watch, like everything that changes `objects`.
    fn defragment(&self) {
        let copies: Vec<(Key, P::Held)> =
            self.objects.iter().map(|entry| (entry.key().clone(), P::copy(entry.value()))).collect();
        for (key, copy) in copies {
            if let Some(mut held) = self.objects.get_mut(&key) {
                *held = copy;
            }
        }
        self.objects.shrink_to_fit();
    }
}

/// Resource versions of one kind are comparable as numbers (KEP-5504, Kubernetes 1.35), also of two objects of one name.
fn is_older<K: Resource>(object: &K, than: &K) -> bool {
    version_of(object) < version_of(than)
}

/// The newer of two objects; the first if equal.
fn newest<K: Resource>(one: Option<Arc<K>>, other: Option<Arc<K>>) -> Option<Arc<K>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if is_older(one.as_ref(), other.as_ref()) { other } else { one }),
        (one, other) => one.or(other),
    }
}

/// The version of an object, comparable with those of its kind.
pub fn version_of<K: Resource>(object: &K) -> Option<u64> {
    object.resource_version().and_then(|version| version.parse().ok())
}

/// Whether the object was deleted at `version`.
fn is_gone<K: Resource>(object: &K, uid: &str, version: u64) -> bool {
    object.meta().uid.as_deref() == Some(uid) && version_of(object).is_none_or(|it| it <= version)
}

/// The same for a stray: the version at which an object left its watch is the one at which it lost its label, and therefore
/// the stray's first version.
fn is_gone_stray<K: Resource>(object: &K, uid: &str, version: u64) -> bool {
    is_gone(object, uid, version) && (version == u64::MAX || version_of(object) != Some(version))
}

#[cfg(test)]
mod tests;

/// A change seen by the watch.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// The object is new or differs from `before`.
    Applied {
        /// The new object.
        now: Arc<K>,
        /// The previous object.
        before: Option<Arc<K>>,
    },
    /// The object was deleted.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The object, or its last version.
    pub fn object(&self) -> &K {
        match self {
            Self::Applied { now, .. } | Self::Deleted(now) => now,
        }
    }
}
