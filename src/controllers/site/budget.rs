//! How many site Jobs of a bench run at once in the cluster: each replica has the share of the bench's limit that belongs
//! to its slots, and counts its own Jobs. Sites without a Job slot queue by age, and are woken when another's Job ends.
//!
//! The limit's units lie evenly over the 256 slots, so the shares of all replicas are the limit exactly; a replica has at
//! least 1. At most limit + replicas Jobs run, and those that moved in a rebalance.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use kube::ResourceExt;
use kube_sharding::{SLOTS, Slot, SlotSet};
use tokio::sync::{mpsc, watch};

use super::watch as site_watch;
use crate::{
    controllers::job::{self, State},
    domain::{key::Key, labels},
    io::compact::Compact,
};

/// A site that wants to start a Job.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Its bench.
    pub bench: Key,
    /// The site.
    pub site: Key,
    /// The site's slot.
    pub slot: Slot,
    /// Name of the Job.
    pub job: String,
    /// When the site was created: older ones come first.
    pub since: Timestamp,
}

/// One bench.
#[derive(Default)]
struct Lane {
    limit: usize,
    /// Sites whose Job runs, or is about to be made.
    busy: BTreeMap<Key, (Slot, String)>,
    /// Sites that wait, the oldest first.
    waiting: BTreeMap<(Timestamp, Key), Slot>,
}

/// The budgets of all benches, as far as this replica is concerned.
pub struct JobBudget {
    lanes: Mutex<BTreeMap<Key, Lane>>,
    /// Slots of which every Job is known.
    slots: watch::Receiver<SlotSet>,
    wake: mpsc::UnboundedSender<Key>,
}

/// Units of a limit that belong to some slots: unit `i` of `limit` lies on slot `i · 256 / limit`; at least 1.
pub fn share(limit: usize, slots: &SlotSet) -> usize {
    let units = (0..limit).map(|unit| unit * SLOTS / limit);
    let mine = units.filter(|slot| u8::try_from(*slot).is_ok_and(|slot| slots.contains(Slot::new(slot))));
    mine.count().max(1)
}

impl JobBudget {
    /// Budgets for the Jobs of `slots`; sites that may go on are sent to the receiver.
    pub fn new(slots: watch::Receiver<SlotSet>) -> (Self, mpsc::UnboundedReceiver<Key>) {
        let (wake, woken) = mpsc::unbounded_channel();
        (Self { lanes: Mutex::default(), slots, wake }, woken)
    }

    /// Takes room for a Job, or waits for it.
    pub fn take(&self, claim: &Claim, limit: usize) -> bool {
        let slots = *self.slots.borrow();
        self.with(&claim.bench, |lane| {
            lane.limit = limit;
            let has = lane.busy.contains_key(&claim.site);
            if !has && lane.room(&slots) == 0 {
                lane.waiting.insert((claim.since, claim.site.clone()), claim.slot);
                return (false, Vec::new());
            }
            lane.busy.insert(claim.site.clone(), (claim.slot, claim.job.clone()));
            lane.waiting.retain(|(_, site), _| *site != claim.site);
            (true, Vec::new())
        })
    }

    /// The Job could not be made.
    pub fn give_back(&self, claim: &Claim) {
        let slots = *self.slots.borrow();
        self.with(&claim.bench, |lane| {
            lane.busy.remove(&claim.site);
            ((), lane.next(&slots))
        });
    }

    /// The site wants no Job now: who waits behind it may go on.
    pub fn leave(&self, bench: &Key, site: &Key) {
        let slots = *self.slots.borrow();
        self.with(bench, |lane| {
            let before = lane.waiting.len();
            lane.waiting.retain(|(_, other), _| other != site);
            let left = before != lane.waiting.len();
            ((), if left { lane.next(&slots) } else { Vec::new() })
        });
    }

    /// The site is gone: it wants nothing any more, on whatever bench it was.
    pub fn forget(&self, site: &Key) {
        let slots = *self.slots.borrow();
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in lanes.values_mut() {
            lane.busy.remove(site);
            lane.waiting.retain(|(_, other), _| other != site);
            self.wake(lane.next(&slots));
        }
        lanes.retain(|_, lane| !lane.is_idle());
    }

    /// Takes in a Job of a site, or that it is gone.
    pub fn saw(&self, object: &Compact, is_there: bool) {
        let Some((bench, site, slot)) = about(object) else { return };
        let runs = is_there && job::state(&object.open()) == State::Running;
        let name = object.name_any();
        let slots = *self.slots.borrow();
        self.with(&bench, |lane| {
            if runs {
                lane.busy.insert(site, (slot, name));
                return ((), Vec::new());
            }
            let ended = lane.busy.get(&site).is_some_and(|(_, job)| *job == name);
            if ended {
                lane.busy.remove(&site);
            }
            ((), if ended { lane.next(&slots) } else { Vec::new() })
        });
    }

    /// Slots came or went: who has room now is woken.
    pub fn slots_changed(&self) {
        let slots = *self.slots.borrow();
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in lanes.values_mut() {
            lane.busy.retain(|_, (slot, _)| slots.contains(*slot));
            lane.waiting.retain(|_, slot| slots.contains(*slot));
            self.wake(lane.next(&slots));
        }
        lanes.retain(|_, lane| !lane.is_idle());
    }

    fn wake(&self, sites: Vec<Key>) {
        for site in sites {
            // Nobody listens any more when the process ends.
            let _ = self.wake.send(site);
        }
    }

    fn with<T>(&self, bench: &Key, change: impl FnOnce(&mut Lane) -> (T, Vec<Key>)) -> T {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.entry(bench.clone()).or_default();
        let (result, next) = change(lane);
        if lane.is_idle() {
            lanes.remove(bench);
        }
        self.wake(next);
        result
    }
}

impl Lane {
    fn is_idle(&self) -> bool {
        self.busy.is_empty() && self.waiting.is_empty()
    }

    fn room(&self, slots: &SlotSet) -> usize {
        let running = self.busy.values().filter(|(slot, _)| slots.contains(*slot)).count();
        share(self.limit, slots).saturating_sub(running)
    }

    /// As many of those that wait as there is room for: each asks again, so one that is gone costs its place only.
    fn next(&self, slots: &SlotSet) -> Vec<Key> {
        self.waiting.keys().take(self.room(slots)).map(|(_, site)| site.clone()).collect()
    }
}

/// Bench, site and slot of a site's Job.
fn about(job: &Compact) -> Option<(Key, Key, Slot)> {
    let site = site_watch::owner(job)?;
    let bench = Key::new(&site.namespace, job.label("bench")?);
    let slot = job.label(labels::SLOT)?.parse().ok()?;
    Some((bench, site, Slot::new(slot)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::io::compact::Cached;

    fn claim(site: &str, age: i64) -> Claim {
        Claim {
            bench: Key::new("a", "bench"),
            site: Key::new("a", site),
            slot: Slot::new(1),
            job: format!("{site}-init"),
            since: Timestamp::new(age, 0).expect("a time"),
        }
    }

    fn seen(budget: &JobBudget, site: &str, name: &str, is_done: bool) {
        let conditions = if is_done { json!([{"type": "Complete", "status": "True"}]) } else { json!([]) };
        let object: kube::core::DynamicObject = serde_json::from_value(json!({
            "apiVersion": "batch/v1", "kind": "Job", "status": {"conditions": conditions},
            "metadata": {"name": name, "namespace": "a", "labels": {"bench": "bench", "site": site, labels::SLOT: "1"}},
        }))
        .expect("a Job");
        budget.saw(&object.close(), true);
    }

    fn woken(receiver: &mut mpsc::UnboundedReceiver<Key>) -> Vec<String> {
        std::iter::from_fn(|| receiver.try_recv().ok()).map(|site| site.name).collect()
    }

    /// never more than the share, the oldest first, and each end wakes the next.
    #[test]
    fn who_finds_no_room_waits_in_order_of_age() {
        let (_held, slots) = watch::channel(SlotSet::ALL);
        let (budget, mut receiver) = JobBudget::new(slots);
        assert!(budget.take(&claim("one", 9), 2) && budget.take(&claim("two", 8), 2));
        assert!(budget.take(&claim("one", 9), 2), "who has room has it still");
        assert!(!budget.take(&claim("late", 5), 2) && !budget.take(&claim("early", 3), 2));
        seen(&budget, "one", "one-init", false);
        assert_eq!(woken(&mut receiver), [""; 0]);
        seen(&budget, "one", "one-init", true);
        assert_eq!(woken(&mut receiver), ["early"]);
        assert!(budget.take(&claim("early", 3), 2) && !budget.take(&claim("late", 5), 2));
        seen(&budget, "one", "one-init", true);
        assert_eq!(woken(&mut receiver), [""; 0], "it ended once");
        budget.give_back(&claim("early", 3));
        assert_eq!(woken(&mut receiver), ["late"], "its Job could not be made");
        budget.leave(&Key::new("a", "bench"), &Key::new("a", "late"));
        assert_eq!(woken(&mut receiver), [""; 0]);
    }

    /// A Job of a former attempt that is told of again gives nobody's room away.
    #[test]
    fn the_end_of_a_former_attempt_frees_nothing() {
        let (_held, slots) = watch::channel(SlotSet::ALL);
        let (budget, mut receiver) = JobBudget::new(slots);
        let second = Claim { job: "one-init-2".into(), ..claim("one", 1) };
        assert!(budget.take(&second, 1) && !budget.take(&claim("two", 2), 1));
        seen(&budget, "one", "one-init", true);
        assert_eq!(woken(&mut receiver), [""; 0]);
        seen(&budget, "one", "one-init-2", true);
        assert_eq!(woken(&mut receiver), ["two"]);
    }

    #[test]
    fn more_slots_are_more_room() {
        let (held, slots) = watch::channel(SlotSet::from_iter([Slot::new(1)]));
        let (budget, mut receiver) = JobBudget::new(slots);
        assert!(budget.take(&claim("one", 1), 4) && !budget.take(&claim("two", 2), 4));
        held.send_replace(SlotSet::ALL);
        budget.slots_changed();
        assert_eq!(woken(&mut receiver), ["two"]);
        assert!(
            budget.take(&claim("two", 2), 4) && budget.take(&claim("more", 2), 4) && budget.take(&claim("yet", 2), 4)
        );
        assert!(!budget.take(&claim("moves", 0), 4));
        held.send_replace(SlotSet::NONE);
        budget.slots_changed();
        held.send_replace(SlotSet::ALL);
        assert!(budget.take(&claim("three", 3), 1), "what was lost is not counted");
    }

    /// Who waits and goes, by whatever way, keeps nobody behind it waiting.
    #[test]
    fn a_site_that_is_gone_or_moved_is_passed_over() {
        let (held, slots) = watch::channel(SlotSet::ALL);
        let (budget, mut receiver) = JobBudget::new(slots);
        assert!(budget.take(&claim("one", 1), 1));
        let moves = Claim { slot: Slot::new(9), ..claim("moves", 2) };
        assert!(!budget.take(&moves, 1) && !budget.take(&claim("goes", 3), 1) && !budget.take(&claim("stays", 4), 1));
        held.send_replace(SlotSet::ALL.difference(&SlotSet::from_iter([Slot::new(9)])));
        budget.slots_changed();
        budget.forget(&Key::new("a", "goes"));
        seen(&budget, "one", "one-init", true);
        assert_eq!(woken(&mut receiver), ["stays"]);
    }

    proptest! {
        /// The shares of all replicas are the limit, as long as each has at least one unit.
        #[test]
        fn shares_add_up(limit in 1_usize..600, owners in prop::collection::vec(0_usize..5, SLOTS)) {
            let of = |owner: usize| -> SlotSet {
                (0..SLOTS).filter(|slot| owners[*slot] == owner).map(|slot| Slot::new(u8::try_from(slot).unwrap_or(0))).collect()
            };
            let sum: usize = (0..5).map(|owner| share(limit, &of(owner))).sum();
            prop_assert!(sum >= limit && sum <= limit + 5);
        }
    }
}
