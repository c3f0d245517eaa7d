//! The slot map: who owns which slot. The truth of ownership.
//!
//! One small object holds it, and every change is a compare-and-swap on its resourceVersion, so that all changes are
//! in one order. How it is stored: [`crate::wire`].

use std::fmt;

use crate::{
    member::{Incarnation, Version},
    slot::Slot,
};

/// One thing of the map that is owned: a slot, or behind the last slot, the coordinator's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry(pub u16);

impl Entry {
    /// The coordinator's place, behind the last slot.
    pub const COORDINATOR: Self = Self(256);
}

impl From<Slot> for Entry {
    fn from(slot: Slot) -> Self {
        Self(u16::from(slot.number()))
    }
}

/// Who holds an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holding {
    /// The owner; None if it is free.
    pub owner: Option<Incarnation>,
    /// Rises with every owner; 0 where there was none yet.
    pub epoch: i64,
}

/// Highest epoch and generation: the highest integer that every reader of JSON reads exactly.
pub const NUMBER_MAX: i64 = (1 << 53) - 1;

/// Something in a stored map that no member writes, and what is read in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// It is not a map at all: everything is free.
    Unreadable,
    /// It has this number of entries: what is missing is free, what is too much is nothing.
    Length(usize),
    /// The owner of this entry is not a listed member: it is free.
    Owner(Entry),
    /// The epoch of this entry is out of bounds: the entry is free.
    Epoch(Entry, i64),
    /// The generation is out of bounds: it is the nearest that is not.
    Generation(i64),
}

impl fmt::Display for Correction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => write!(formatter, "not a slot map: all slots are unowned"),
            Self::Length(entries) => write!(formatter, "wrong number of entries: {entries}"),
            Self::Owner(Entry(entry)) => write!(formatter, "entry {entry} has an unknown owner: the slot is unowned"),
            Self::Epoch(Entry(entry), epoch) => {
                write!(formatter, "epoch {epoch} of entry {entry} is out of bounds: the slot is unowned")
            }
            Self::Generation(generation) => write!(formatter, "generation {generation} is out of bounds"),
        }
    }
}

/// What the map says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Content {
    /// Number of changes so far; 0 means that nothing was ever owned.
    pub generation: u64,
    /// The slots in order, and last the coordinator's place.
    pub holdings: Vec<Holding>,
}

impl Content {
    /// A map in which everything is free: `slots` and the coordinator's place.
    pub fn free(slots: u16) -> Self {
        Self { generation: 0, holdings: vec![Holding::default(); usize::from(slots) + 1] }
    }

    /// Entries in order.
    pub fn entries(&self) -> impl Iterator<Item = (Entry, &Holding)> {
        self.holdings.iter().enumerate().map(|(index, it)| (Entry(u16::try_from(index).unwrap_or(u16::MAX)), it))
    }

    /// Who holds an entry.
    pub fn holding(&self, entry: Entry) -> Option<&Holding> {
        self.holdings.get(usize::from(entry.0))
    }

    /// Gives an entry to another owner, with the next epoch.
    pub fn give(&mut self, entry: Entry, owner: Option<Incarnation>, created_seconds: i64) {
        let generation = self.generation;
        if let Some(holding) = self.holdings.get_mut(usize::from(entry.0)) {
            *holding = Holding { owner, epoch: next_epoch(holding.epoch, created_seconds, generation) };
        }
    }

    /// Counts a change.
    pub fn count_change(&mut self) {
        let most = NUMBER_MAX.unsigned_abs();
        self.generation = if self.generation < most { self.generation + 1 } else { 1 };
    }

    /// Frees what has an epoch that no member gives: with it, the gate would stay closed or the next epoch not be
    /// higher.
    pub(crate) fn correct_epochs(&mut self) -> Vec<Correction> {
        let mut corrections = Vec::new();
        for (index, holding) in self.holdings.iter_mut().enumerate() {
            let least = i64::from(holding.owner.is_some());
            if !(least..=NUMBER_MAX).contains(&holding.epoch) {
                corrections.push(Correction::Epoch(Entry(u16::try_from(index).unwrap_or(u16::MAX)), holding.epoch));
                *holding = Holding::default();
            }
        }
        corrections
    }
}

/// Bits that an epoch has for changes of owner, beneath the second in which its map was made: about a million.
const EPOCH_CHANGE_BITS: u32 = 20;

/// The epoch after `epoch` in a map that was created at `created_seconds` since 1970: epochs keep rising when a map
/// is lost and recreated.
///
/// A manual edit may leave no next epoch, or an invalid one. Then the next is above all epochs that members assigned in this
/// map, since each change of an epoch is also a generation.
fn next_epoch(epoch: i64, created_seconds: i64, generation: u64) -> i64 {
    let first = (created_seconds << EPOCH_CHANGE_BITS) + 1;
    if (1..NUMBER_MAX).contains(&epoch) {
        return (epoch + 1).max(first);
    }
    let changes = i64::try_from(generation).unwrap_or(i64::MAX).min((1 << EPOCH_CHANGE_BITS) - 2);
    first + changes
}

/// The map at one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SlotMap {
    /// Where it stands.
    pub version: Version,
    /// When the server created it, in seconds since 1970.
    pub created_seconds: i64,
    /// What it says.
    pub content: Content,
}

impl SlotMap {
    /// Entries that an incarnation owns, with their epochs.
    pub fn owned_by<'a>(&'a self, owner: &'a Incarnation) -> impl Iterator<Item = (Entry, i64)> + 'a {
        self.content
            .entries()
            .filter(move |(_, holding)| holding.owner.as_ref() == Some(owner))
            .map(|(entry, holding)| (entry, holding.epoch))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// S-5: epochs rise, also across a map that was lost and recreated a second or more later.
        #[test]
        fn epochs_rise_in_one_map_and_over_a_new_one(changes in 1..1000u16, again in 1..1000u16, seconds in 1..10_000i64) {
            let created = 1_760_000_000;
            let mut first = Content::free(2);
            let mut last = 0;
            for _ in 0..changes {
                first.give(Entry(1), None, created);
                let epoch = first.holdings[1].epoch;
                prop_assert!(epoch > last);
                last = epoch;
            }
            let mut second = Content::free(2);
            for _ in 0..again {
                second.give(Entry(1), None, created + seconds);
                prop_assert!(second.holdings[1].epoch > last);
                last = second.holdings[1].epoch;
            }
        }

        /// S-5: whatever a person writes for an epoch, the next is one that may be stored and is above all that members
        /// gave; a higher one that a person wrote is gone beyond only while there is room.
        #[test]
        fn an_epoch_written_by_hand_is_followed_by_one_that_rises(
            changes in 1..1000u16,
            written in prop_oneof![Just(0), Just(-1), Just(i64::MIN), Just(i64::MAX), Just(NUMBER_MAX), Just(NUMBER_MAX - 1), any::<i64>()],
        ) {
            let created = 1_760_000_000;
            let mut content = Content::free(2);
            let me = Incarnation::new("me", "1");
            for _ in 0..changes {
                content.give(Entry(1), Some(me.clone()), created);
                content.count_change();
            }
            let given = content.holdings[1].epoch;
            content.holdings[1].epoch = written;
            let corrections = content.correct_epochs();
            prop_assert_eq!(corrections.is_empty(), (1..=NUMBER_MAX).contains(&written));
            prop_assert_eq!(content.holdings[1].owner.is_some(), corrections.is_empty(), "what is owned has an epoch");
            content.give(Entry(1), Some(me), created);
            let next = content.holdings[1].epoch;
            prop_assert!((1..=NUMBER_MAX).contains(&next));
            let meant = (1..NUMBER_MAX).contains(&written);
            prop_assert!(if meant { next > written } else { next > given }, "{} after {}, {}", next, given, written);
            prop_assert!(content.correct_epochs().is_empty());
        }
    }

    #[test]
    fn a_generation_without_a_next_begins_anew_and_never_at_0() {
        let mut content = Content { generation: NUMBER_MAX.unsigned_abs(), ..Content::free(1) };
        content.count_change();
        assert_eq!(content.generation, 1);
    }
}
