//! Which member owns which slot.

use crate::{Incarnation, SlotSet};

/// Slots and their owners, at one epoch.
///
/// With one member there is nothing to balance: it owns every slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    owner: Incarnation,
    epoch: i64,
}

impl Assignment {
    /// The assignment of a fleet of one.
    pub fn sole(owner: Incarnation, epoch: i64) -> Self {
        Self { owner, epoch }
    }

    /// Slots that a member owns.
    pub fn slots_of(&self, member: &Incarnation) -> SlotSet {
        if *member == self.owner { SlotSet::ALL } else { SlotSet::NONE }
    }

    /// Epoch of every slot: it rises whenever a slot gets another owner.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sole_member_owns_every_slot_and_another_none() {
        let first = Incarnation { pod: "a".into(), nonce: "1".into() };
        let second = Incarnation { pod: "b".into(), nonce: "2".into() };
        let assignment = Assignment::sole(first.clone(), 1);
        assert_eq!(assignment.slots_of(&first), SlotSet::ALL);
        assert!(assignment.slots_of(&second).is_empty());
    }
}
