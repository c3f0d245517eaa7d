//! The slot map: who owns which slot. The truth of ownership.
//!
//! One small object holds it, and every change is a compare-and-swap on its resourceVersion, so that all changes are
//! in one order. How it is stored: [`crate::wire`].

use crate::{Incarnation, Slot, member::Version};

/// One thing of the map that is owned: a slot, or behind the last slot, the coordinator's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry(pub u16);

impl From<Slot> for Entry {
    fn from(slot: Slot) -> Self {
        Self(u16::from(slot.number()))
    }
}

/// Who holds an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holding {
    /// The owner; nobody where it is free.
    pub owner: Option<Incarnation>,
    /// Rises with every owner.
    pub epoch: i64,
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
        if let Some(holding) = self.holdings.get_mut(usize::from(entry.0)) {
            *holding = Holding { owner, epoch: next_epoch(holding.epoch, created_seconds) };
        }
    }
}

/// Bits that an epoch has for changes of owner, beneath the second in which its map was made: about a million.
const EPOCH_CHANGE_BITS: u32 = 20;

/// The epoch after `epoch` in a map that was created at `created_seconds` since 1970: epochs go on rising when a map
/// is lost and made anew.
fn next_epoch(epoch: i64, created_seconds: i64) -> i64 {
    (epoch + 1).max((created_seconds << EPOCH_CHANGE_BITS) + 1)
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
        /// S-5: epochs rise, also over a map that was lost and made anew a second or more later.
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
    }
}
