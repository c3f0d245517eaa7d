//! Objects whose owner is not known: a cache does not keep them, but notes them, so that they can be read once the owner is known.
//!
//! Watches of two kinds are not ordered: an object may be delivered before its owner, which the watch of the owner's kind
//! delivers later.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    key::Key,
    slot::{Slot, SlotSet},
};

/// Strangers that are noted of one namespace; more are forgotten. Whoever may create objects decides how many there are.
const NOTED_PER_NAMESPACE_MAX: usize = 1_000;

/// A stranger.
struct Note {
    version: u64,
    slot: Option<Slot>,
    owner: String,
}

/// The strangers of one kind, by key and by owner.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<Notes>);

/// Notes, while no other task can change them.
#[derive(Default)]
pub(crate) struct Notes {
    by_key: HashMap<Key, Note>,
    by_owner: HashMap<String, HashSet<Key>>,
    in_namespace: HashMap<String, usize>,
}

impl Strangers {
    /// Locks the notes.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    /// Notes a stranger at this version.
    pub(crate) fn note(&mut self, key: Key, version: u64, slot: Option<Slot>, owner: String) {
        self.remove(&key);
        let noted = self.in_namespace.entry(key.namespace.clone()).or_default();
        if *noted >= NOTED_PER_NAMESPACE_MAX {
            return;
        }
        *noted += 1;
        self.by_owner.entry(owner.clone()).or_default().insert(key.clone());
        self.by_key.insert(key, Note { version, slot, owner });
    }

    /// Removes a note; returns the version at which the stranger was noted.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<u64> {
        let note = self.by_key.remove(key)?;
        if let Some(keys) = self.by_owner.get_mut(&note.owner) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_owner.remove(&note.owner);
            }
        }
        if let Some(noted) = self.in_namespace.get_mut(&key.namespace) {
            *noted -= 1;
            if *noted == 0 {
                self.in_namespace.remove(&key.namespace);
            }
        }
        Some(note.version)
    }

    /// The version at which a stranger was noted.
    pub(crate) fn version(&self, key: &Key) -> Option<u64> {
        self.by_key.get(key).map(|note| note.version)
    }

    /// The strangers of an owner.
    pub(crate) fn of(&self, owner: &str) -> Vec<Key> {
        self.by_owner.get(owner).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// Removes the notes of these slots.
    pub(crate) fn drop_slots(&mut self, slots: &SlotSet) {
        let lost = |note: &Note| note.slot.is_none_or(|slot| slots.contains(slot));
        let keys: Vec<Key> = self.by_key.iter().filter(|(_, note)| lost(note)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(notes: &mut Notes, namespace: &str, name: &str, slot: u8, owner: &str) {
        notes.note(Key::new(namespace, name), 7, Some(Slot::new(slot)), owner.to_owned());
    }

    #[test]
    fn a_stranger_is_found_by_its_owner_until_it_is_removed() {
        let mut notes = Notes::default();
        note(&mut notes, "a", "one", 1, "x");
        note(&mut notes, "a", "two", 1, "y");
        note(&mut notes, "a", "two", 1, "x");
        assert_eq!((notes.of("x").len(), notes.of("y").len()), (2, 0), "the newest owner counts");
        assert_eq!((notes.remove(&Key::new("a", "one")), notes.remove(&Key::new("a", "one"))), (Some(7), None));
        assert_eq!(notes.of("x"), [Key::new("a", "two")]);
    }

    #[test]
    fn notes_of_lost_slots_go_and_others_stay() {
        let mut notes = Notes::default();
        note(&mut notes, "a", "one", 1, "x");
        note(&mut notes, "a", "two", 2, "x");
        notes.drop_slots(&[Slot::new(1)].into_iter().collect());
        assert_eq!(notes.of("x"), [Key::new("a", "two")]);
    }

    #[test]
    fn one_namespace_cannot_crowd_out_another() {
        let mut notes = Notes::default();
        for number in 0..NOTED_PER_NAMESPACE_MAX + 5 {
            note(&mut notes, "many", &number.to_string(), 1, "x");
        }
        note(&mut notes, "few", "one", 1, "y");
        assert_eq!((notes.of("x").len(), notes.of("y").len()), (NOTED_PER_NAMESPACE_MAX, 1));
        notes.drop_slots(&SlotSet::ALL);
        note(&mut notes, "many", "one", 1, "x");
        assert_eq!(notes.of("x").len(), 1, "what goes makes room");
    }
}
