//! A replica's share of a limit of concurrent Jobs. Pure.
//!
//! The units of the limit are spread evenly over the 256 slots, and a replica without a unit on its slots gets one from the replica with most.
//! So the shares of all replicas add up to the limit, or to one for each replica if that is more.

use kube_sharding::{SLOTS, Slot, SlotSet};

/// Number of units of a limit on these slots: unit `i` of `limit` is on slot `i · 256 / limit`.
fn units(limit: usize, slots: &SlotSet) -> usize {
    let all = (0..limit).map(|unit| unit * SLOTS / limit);
    all.filter(|slot| u8::try_from(*slot).is_ok_and(|slot| slots.contains(Slot::new(slot)))).count()
}

/// A replica's share of a limit: the units on its slots. A replica without a unit gets one from the first of those with most, or an
/// additional one if there are fewer units than replicas. All replicas compute the same shares, because they order replicas by slots.
pub fn share(limit: usize, mine: &SlotSet, others: &[SlotSet]) -> usize {
    let mut all: Vec<(&SlotSet, usize)> =
        others.iter().chain([mine]).filter(|it| !it.is_empty()).map(|slots| (slots, units(limit, slots))).collect();
    all.sort_unstable_by_key(|(slots, _)| slots.iter().next().map(Slot::number));
    while let Some(without) = all.iter().position(|(_, units)| *units == 0) {
        let most = all.iter().map(|(_, units)| *units).max().unwrap_or(0);
        if let Some(gives) = all.iter().position(|(_, units)| most > 1 && *units == most) {
            all[gives].1 -= 1;
        }
        all[without].1 = 1;
    }
    all.iter().find(|(slots, _)| *slots == mine).map_or(1, |(_, units)| *units)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// the shares of all replicas add up to the limit, or to one for each if that is more.
        #[test]
        fn shares_add_up(limit in 1_usize..600, owners in prop::collection::vec(0_usize..5, SLOTS)) {
            let of = |owner: usize| -> SlotSet {
                (0..SLOTS).filter(|slot| owners[*slot] == owner).map(|slot| Slot::new(u8::try_from(slot).unwrap_or(0))).collect()
            };
            let all: Vec<SlotSet> = (0..5).map(of).filter(|it| !it.is_empty()).collect();
            let without = |me: &SlotSet| -> Vec<SlotSet> { all.iter().rev().filter(|it| *it != me).copied().collect() };
            let shares: Vec<usize> = all.iter().map(|me| share(limit, me, &without(me))).collect();
            prop_assert_eq!(shares.iter().sum::<usize>(), limit.max(all.len()), "{:?}", shares);
            prop_assert!(shares.iter().all(|it| *it > 0), "{:?}", shares);
        }
    }
}
