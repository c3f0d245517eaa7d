//! Assignment of slots to members: sticky and balanced. Pure.
//!
//! From the current owners, the loads are balanced to within one slot with the fewest moves; rendezvous hashing breaks ties
//! and spreads the first map. During a rollout (two builds in the fleet), slots move only to members of the newest build, so
//! that a slot moves about once; the loads are balanced when one build is left.

use std::io::Write;

use crate::{
    hash::{fnv1a64, fnv1a64_after},
    member::Incarnation,
};

/// A member that may own slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The member.
    pub incarnation: Incarnation,
    /// Whether it is of the newest build in the fleet.
    pub newest: bool,
}

/// The desired owner of each slot, as an index into `candidates`; None only if there are no candidates.
///
/// `present` has the current owner of each slot in the same form; None if the slot is unowned or its owner may own nothing.
pub fn assign(present: &[Option<usize>], candidates: &[Candidate]) -> Vec<Option<usize>> {
    if candidates.is_empty() {
        return vec![None; present.len()];
    }
    let mut planner = Planner::new(present, candidates);
    planner.place_free();
    planner.balance();
    planner.owners
}

struct Planner<'a> {
    candidates: &'a [Candidate],
    /// Hash of each candidate's name and a slash.
    hashes: Vec<u64>,
    /// Indexes of members that may get slots.
    receivers: Vec<usize>,
    /// Indexes of members that give slots.
    donors: Vec<usize>,
    owners: Vec<Option<usize>>,
    loads: Vec<usize>,
}

impl<'a> Planner<'a> {
    fn new(present: &[Option<usize>], candidates: &'a [Candidate]) -> Self {
        let owners: Vec<_> = present.iter().map(|owner| owner.filter(|it| *it < candidates.len())).collect();
        let mut loads = vec![0; candidates.len()];
        owners.iter().flatten().for_each(|owner| loads[*owner] += 1);
        let all: Vec<usize> = (0..candidates.len()).collect();
        let newest: Vec<usize> = all.iter().copied().filter(|it| candidates[*it].newest).collect();
        let mixed = !newest.is_empty() && newest.len() < all.len();
        let older = all.iter().copied().filter(|it| !candidates[*it].newest).collect();
        let (receivers, donors) = if mixed { (newest, older) } else { (all.clone(), all) };
        let hashes = candidates.iter().map(|it| fnv1a64(format!("{}/", it.incarnation).as_bytes())).collect();
        Self { candidates, hashes, receivers, donors, owners, loads }
    }

    fn place_free(&mut self) {
        for slot in 0..self.owners.len() {
            if self.owners[slot].is_none() {
                let to = self.least_loaded(slot);
                self.owners[slot] = Some(to);
                self.loads[to] += 1;
            }
        }
    }

    /// Moves from the most to the least loaded until no move helps.
    fn balance(&mut self) {
        let share = self.owners.len() / self.candidates.len();
        let mixed = self.receivers.len() < self.candidates.len();
        loop {
            let Some(&to) = self.receivers.iter().min_by_key(|it| self.loads[**it]) else { return };
            let most = self.donors.iter().map(|it| self.loads[*it]).max().unwrap_or(0);
            // Between builds a receiver gets its share, whatever the donors have left; within one, a move must help.
            let helps = if mixed { self.loads[to] < share && most > 0 } else { most > self.loads[to] + 1 };
            if !helps {
                return;
            }
            let Some((slot, from)) = self.best_move(most, to) else { return };
            self.owners[slot] = Some(to);
            self.loads[from] -= 1;
            self.loads[to] += 1;
        }
    }

    /// The slot of the most loaded donors with the highest rendezvous hash for the receiver.
    fn best_move(&self, load: usize, to: usize) -> Option<(usize, usize)> {
        let movable = self.owners.iter().enumerate().filter_map(|(slot, owner)| Some((slot, (*owner)?)));
        movable
            .filter(|(_, owner)| self.loads[*owner] == load && self.donors.contains(owner))
            .max_by_key(|(slot, _)| self.affinity(*slot, to))
    }

    fn least_loaded(&self, slot: usize) -> usize {
        let best =
            self.receivers.iter().copied().min_by_key(|it| (self.loads[*it], u64::MAX - self.affinity(slot, *it)));
        best.unwrap_or(0)
    }

    /// Rendezvous hash of a slot and a member: FNV-1a-64 of `<member>/<slot>`. It is computed thousands of times for a plan, so
    /// nothing is allocated.
    fn affinity(&self, slot: usize, member: usize) -> u64 {
        let mut digits = [0; 20];
        let mut rest = &mut digits[..];
        // It cannot fail: no number of 64 bits has more digits.
        let _ = write!(rest, "{slot}");
        let left = rest.len();
        fnv1a64_after(self.hashes[member], &digits[..digits.len() - left])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fleet(builds: &[bool]) -> Vec<Candidate> {
        let member = |index: usize| Incarnation::new(&format!("pod-{index}"), "1");
        builds
            .iter()
            .enumerate()
            .map(|(index, newest)| Candidate { incarnation: member(index), newest: *newest })
            .collect()
    }

    fn loads(owners: &[Option<usize>], members: usize) -> Vec<usize> {
        (0..members).map(|member| owners.iter().filter(|it| **it == Some(member)).count()).collect()
    }

    fn moved(before: &[Option<usize>], after: &[Option<usize>]) -> usize {
        before.iter().zip(after).filter(|(before, after)| before.is_some() && before != after).count()
    }

    /// Replicas of two builds in one fleet must come to the same plan.
    #[test]
    fn a_slot_likes_a_member_by_the_hash_of_both_names() {
        let fleet = fleet(&[true, true]);
        let planner = Planner::new(&[], &fleet);
        assert_eq!(planner.affinity(0, 0), fnv1a64(b"pod-0_1/0"));
        assert_eq!(planner.affinity(255, 1), fnv1a64(b"pod-1_1/255"));
    }

    #[test]
    fn the_first_map_is_balanced() {
        for members in 1..=32 {
            let owners = assign(&vec![None; 256], &fleet(&vec![true; members]));
            let loads = loads(&owners, members);
            assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{members}: {loads:?}");
        }
    }

    /// A rollout of five members with one surge pod: each slot moves about once (at most 1.5 times on average).
    #[test]
    fn a_rollout_moves_each_slot_about_once() {
        let members = 5;
        let mut owners = assign(&vec![None; 256], &fleet(&vec![true; members]));
        let mut moves = 0;
        for step in 0..members {
            // Members 0..5 are old, 5..10 new; the surge pod joins, then an old one leaves.
            let joined: Vec<usize> = (step..members).chain(members..=members + step).collect();
            let left: Vec<usize> = joined.iter().copied().filter(|it| *it != step).collect();
            for alive in [joined, left] {
                let one_build = alive.iter().all(|it| *it >= members);
                let candidates: Vec<Candidate> = alive
                    .iter()
                    .map(|it| Candidate {
                        incarnation: Incarnation::new(&format!("pod-{it}"), "1"),
                        newest: one_build || *it >= members,
                    })
                    .collect();
                let present: Vec<_> =
                    owners.iter().map(|owner| owner.and_then(|it| alive.iter().position(|one| *one == it))).collect();
                let next: Vec<_> =
                    assign(&present, &candidates).iter().map(|it| it.map(|index| alive[index])).collect();
                moves += owners.iter().zip(&next).filter(|(before, after)| before != after).count();
                owners = next;
            }
        }
        assert!(moves <= 256 * 3 / 2, "{moves} moves");
        let loads: Vec<usize> =
            (members..2 * members).map(|it| owners.iter().filter(|owner| **owner == Some(it)).count()).collect();
        assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
    }

    proptest! {
        /// S-6: balance within one slot, by the fewest moves that any balanced assignment needs.
        #[test]
        fn loads_come_within_one_slot_by_the_fewest_moves(
            present in proptest::collection::vec(proptest::option::of(0..12usize), 1..300),
            members in 1..12usize,
        ) {
            let owners = assign(&present, &fleet(&vec![true; members]));
            prop_assert!(owners.iter().all(Option::is_some));
            let after = loads(&owners, members);
            prop_assert!(after.iter().max().unwrap() - after.iter().min().unwrap() <= 1, "{:?}", after);
            let kept: Vec<_> = present.iter().map(|owner| owner.filter(|it| *it < members)).collect();
            let before = loads(&kept, members);
            let (share, more) = (present.len() / members, present.len() % members);
            // The fullest members keep one slot more: what is above that must move in any balanced assignment.
            let mut fullest = before.clone();
            fullest.sort_unstable_by(|left, right| right.cmp(left));
            let fewest: usize = fullest
                .iter()
                .enumerate()
                .map(|(place, load)| load.saturating_sub(share + usize::from(place < more)))
                .sum();
            prop_assert_eq!(moved(&kept, &owners), fewest);
        }

        #[test]
        fn a_balanced_assignment_stays_as_it_is(members in 1..12usize, slots in 1..300usize) {
            let candidates = fleet(&vec![true; members]);
            let owners = assign(&vec![None; slots], &candidates);
            prop_assert_eq!(assign(&owners, &candidates), owners);
        }

        /// During a rollout nothing moves to an older build.
        #[test]
        fn older_builds_are_given_nothing(
            present in proptest::collection::vec(proptest::option::of(0..6usize), 256),
            builds in proptest::collection::vec(any::<bool>(), 2..6),
        ) {
            prop_assume!(builds.iter().any(|newest| *newest));
            let owners = assign(&present, &fleet(&builds));
            for (before, after) in present.iter().zip(&owners) {
                if before.filter(|it| *it < builds.len()) != *after {
                    prop_assert!(builds[after.unwrap()]);
                }
            }
        }
    }
}
