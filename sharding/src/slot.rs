//! Slots: 256 equal ranges of the hash, and sets of them.

use std::fmt;

use crate::hash::fnv1a64;

/// Number of slots, fixed for the life of an installation: good for about 32 members.
pub const SLOTS: usize = 256;

/// One of [`SLOTS`] equal ranges of the 64-bit hash of an object's uid.
///
/// Slot k is the range `[k·2^56, (k+1)·2^56)`. A uid never changes, so an object's slot never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u8);

impl Slot {
    /// The slot with this number.
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// The slot of the object with this uid: the top 8 bits of FNV-1a-64 over the uid's bytes.
    pub const fn of_uid(uid: &str) -> Self {
        Self((fnv1a64(uid.as_bytes()) >> 56) as u8)
    }

    /// Number of the slot, 0 to 255.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// Three digits, the form of the slot in a label: `007`.
impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:03}", self.0)
    }
}

/// A set of slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotSet([u64; SLOTS / 64]);

impl SlotSet {
    /// Every slot.
    pub const ALL: Self = Self([u64::MAX; SLOTS / 64]);
    /// No slot.
    pub const NONE: Self = Self([0; SLOTS / 64]);

    /// Whether the slot is in the set.
    pub const fn contains(&self, slot: Slot) -> bool {
        self.0[(slot.0 / 64) as usize] & (1 << (slot.0 % 64)) != 0
    }

    /// Puts the slot into the set.
    pub const fn insert(&mut self, slot: Slot) {
        self.0[(slot.0 / 64) as usize] |= 1 << (slot.0 % 64);
    }

    /// Takes the slot out of the set.
    pub const fn remove(&mut self, slot: Slot) {
        self.0[(slot.0 / 64) as usize] &= !(1 << (slot.0 % 64));
    }

    /// Slots of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// Slots of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// Slots of this set that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// Number of slots in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no slot is in the set.
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    /// The slots of the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..=u8::MAX).map(Slot).filter(|slot| self.contains(*slot))
    }

    /// Label selector for the objects of these slots, by a label that holds the slot as three digits.
    ///
    /// All slots give the selector "the label exists", so that a sole member needs no list.
    pub fn label_selector(&self, label: &str) -> String {
        if *self == Self::ALL {
            return label.to_owned();
        }
        let numbers: Vec<String> = self.iter().map(|slot| slot.to_string()).collect();
        format!("{label} in ({})", numbers.join(","))
    }
}

impl SlotSet {
    /// Selector of the hash ranges of these slots, for servers with sharded list and watch (KEP-5866): neighbours are
    /// one range. Empty for all slots: nothing need be selected.
    pub fn shard_selector(&self) -> String {
        if *self == Self::ALL {
            return String::new();
        }
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for slot in self.iter().map(|slot| u16::from(slot.number())) {
            match ranges.last_mut() {
                Some((_, end)) if *end == slot => *end += 1,
                _ => ranges.push((slot, slot + 1)),
            }
        }
        let bound = |slot: u16| {
            if slot == 256 { "0x10000000000000000".to_owned() } else { format!("0x{slot:02x}00000000000000") }
        };
        let shown = ranges
            .iter()
            .map(|(start, end)| format!("shardRange(object.metadata.uid,'{}','{}')", bound(*start), bound(*end)));
        shown.collect::<Vec<_>>().join(" || ")
    }
}

/// Neighbours as ranges: `0-50,77`.
impl fmt::Display for SlotSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut slots = self.iter().map(Slot::number).peekable();
        while let Some(first) = slots.next() {
            let mut last = first;
            while let Some(next) = slots.next_if(|next| u16::from(*next) == u16::from(last) + 1) {
                last = next;
            }
            write!(formatter, "{separator}{first}")?;
            if last > first {
                write!(formatter, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = Self::NONE;
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_are_shown_as_ranges() {
        let shown = |numbers: &[u8]| numbers.iter().map(|it| Slot::new(*it)).collect::<SlotSet>().to_string();
        assert_eq!(shown(&[0, 1, 2, 7, 9, 10]), "0-2,7,9-10");
        assert_eq!(shown(&[254, 255]), "254-255");
        assert_eq!((shown(&[]), SlotSet::ALL.to_string()), (String::new(), "0-255".to_owned()));
    }

    /// Pinned: a change of these would move every site of every installation.
    #[test]
    fn slots_of_known_uids_never_change() {
        let known = [
            ("00000000-0000-0000-0000-000000000000", 0x7c),
            ("11111111-2222-3333-4444-555555555555", 0x5f),
            ("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", 0xbd),
        ];
        for (uid, number) in known {
            assert_eq!(Slot::of_uid(uid).number(), number, "{uid}");
        }
    }

    #[test]
    fn a_slot_is_written_with_three_digits() {
        assert_eq!(Slot::new(7).to_string(), "007");
    }

    #[test]
    fn all_slots_are_selected_by_the_label_alone() {
        assert_eq!(SlotSet::ALL.label_selector("example.com/slot"), "example.com/slot");
        let few = SlotSet::from_iter([Slot::new(200), Slot::new(3)]);
        assert_eq!(few.label_selector("example.com/slot"), "example.com/slot in (003,200)");
    }

    #[test]
    fn neighbours_are_one_hash_range() {
        let some = SlotSet::from_iter([0, 1, 2, 9, 254, 255].map(Slot::new));
        assert_eq!(
            some.shard_selector(),
            "shardRange(object.metadata.uid,'0x0000000000000000','0x0300000000000000') || \
             shardRange(object.metadata.uid,'0x0900000000000000','0x0a00000000000000') || \
             shardRange(object.metadata.uid,'0xfe00000000000000','0x10000000000000000')"
        );
        assert_eq!(SlotSet::ALL.shard_selector(), "");
    }

    #[test]
    fn sets_are_combined() {
        let (left, right) = (SlotSet::from_iter([1, 2, 200].map(Slot::new)), SlotSet::from_iter([2, 3].map(Slot::new)));
        assert_eq!(left.union(&right).len(), 4);
        assert_eq!(left.intersection(&right), SlotSet::from_iter([Slot::new(2)]));
        assert_eq!(left.difference(&right), SlotSet::from_iter([1, 200].map(Slot::new)));
    }

    proptest! {
        #[test]
        fn a_set_holds_what_was_put_in(numbers in proptest::collection::btree_set(any::<u8>(), 0..256)) {
            let set: SlotSet = numbers.iter().copied().map(Slot::new).collect();
            prop_assert_eq!(set.len(), numbers.len());
            prop_assert_eq!(set.iter().map(Slot::number).collect::<Vec<_>>(), numbers.into_iter().collect::<Vec<_>>());
        }
    }
}
