//! Job slots: the limit of concurrent site Jobs of a bench in the cluster. Each replica has the share of the bench's limit that
//! belongs to its slots, and counts its own Jobs. Sites without a job slot queue by age, and are reconciled when one is released.
//!
//! The shares of all replicas add up to the limit, or to one for each replica if that is more (`job_share.rs`). Jobs of sites that moved in a
//! rebalance are additional.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use kube::ResourceExt;
use kube_sharding::{Slot, SlotSet};
use tokio::sync::{mpsc, watch};

use super::{job_share::share, watch as site_watch};
use crate::{
    controllers::job::{self, State},
    domain::{key::Key, labels, object::Desired},
    io::compact::Compact,
};

/// The controller of a site that needs a job slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wants {
    /// The site controller.
    Site,
    /// The SiteBackup controller.
    Backup,
    /// The SiteJob controller.
    Job,
}

/// A request for a job slot.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Its bench.
    pub bench: Key,
    /// The site.
    pub site: Key,
    /// Its uid.
    pub uid: String,
    /// The requesting controller.
    pub wants: Wants,
    /// Name of the Job.
    pub job: String,
    /// Creation time of the site; older sites come first.
    pub since: Timestamp,
    /// Whether the Job updates the site.
    pub updates: bool,
}

/// Limits of a bench's site Jobs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Jobs at once.
    pub all: usize,
    /// Those of them that update sites.
    pub updates: Option<usize>,
}

/// Component of a Job that updates a site.
const UPDATE: &str = "site-update";

/// Whether a Job updates a site.
pub fn is_update(job: &Desired) -> bool {
    job.component() == UPDATE
}

/// A site with its uid.
type Holder = (Key, String);

/// Whether a site with this key and uid is on a bench.
type Known = dyn Fn(&Key, &str, &Key) -> bool + Send + Sync;

/// Job slots of one bench.
#[derive(Default)]
struct Lane {
    limits: Limits,
    /// Running and starting Jobs, by the site in their labels, which is not trusted.
    busy: BTreeMap<Holder, Busy>,
    /// Waiting sites, oldest first.
    waiting: BTreeMap<(Timestamp, Key, Wants), Waiting>,
}

/// A Job that has a job slot.
#[derive(PartialEq)]
struct Busy {
    job: String,
    updates: bool,
}

/// A request that waits.
struct Waiting {
    slot: Slot,
    updates: bool,
}

/// Free job slots.
#[derive(Clone, Copy)]
struct Free {
    all: usize,
    /// At most so many of them for updates.
    updates: usize,
}

impl Free {
    /// Takes one, if there is one.
    fn take(&mut self, updates: bool) -> bool {
        let free = self.all > 0 && (!updates || self.updates > 0);
        if free {
            self.all -= 1;
            self.updates -= usize::from(updates);
        }
        free
    }
}

/// Job slots of all benches in this replica.
pub struct JobBudget {
    lanes: Mutex<BTreeMap<Key, Lane>>,
    /// Slots whose Jobs are all known.
    slots: watch::Receiver<SlotSet>,
    /// Slots of each other replica.
    others: watch::Receiver<Vec<SlotSet>>,
    wake: mpsc::UnboundedSender<Key>,
    known: Box<Known>,
}

impl JobBudget {
    /// Budgets for the Jobs of `slots`, beside replicas that own those of `others`; sites that may continue are sent to the receiver. A Job takes room only where `known`
    /// has its site on the bench beside it.
    pub fn new(
        slots: watch::Receiver<SlotSet>,
        others: watch::Receiver<Vec<SlotSet>>,
        known: impl Fn(&Key, &str, &Key) -> bool + Send + Sync + 'static,
    ) -> (Self, mpsc::UnboundedReceiver<Key>) {
        let (wake, woken) = mpsc::unbounded_channel();
        (Self { lanes: Mutex::default(), slots, others, wake, known: Box::new(known) }, woken)
    }

    /// Takes a job slot, or waits for one.
    pub fn acquire(&self, claim: &Claim, limits: Limits) -> bool {
        let holder = (claim.site.clone(), claim.uid.clone());
        self.with(&claim.bench, |lane| {
            lane.limits = limits;
            let has = lane.busy.contains_key(&holder);
            if !has && !self.free(&claim.bench, lane).take(claim.updates) {
                let waiting = Waiting { slot: Slot::of_uid(&claim.uid), updates: claim.updates };
                lane.waiting.insert((claim.since, claim.site.clone(), claim.wants), waiting);
                return (false, Vec::new());
            }
            lane.busy.insert(holder, Busy { job: claim.job.clone(), updates: claim.updates });
            lane.waiting.retain(|(_, site, wants), _| *site != claim.site || *wants != claim.wants);
            (true, Vec::new())
        })
    }

    /// Releases the job slot of a Job that could not be created.
    pub fn release(&self, claim: &Claim) {
        self.with(&claim.bench, |lane| {
            let holder = (claim.site.clone(), claim.uid.clone());
            // Another Job of the site may hold the job slot now.
            if lane.busy.get(&holder).is_some_and(|it| it.job == claim.job) {
                lane.busy.remove(&holder);
            }
            ((), self.next(&claim.bench, lane))
        });
    }

    /// Withdraws a request, so that the next site may continue.
    pub fn withdraw(&self, bench: &Key, site: &Key, wants: Wants) {
        self.with(bench, |lane| {
            let before = lane.waiting.len();
            lane.waiting.retain(|(_, other, for_what), _| other != site || *for_what != wants);
            let left = before != lane.waiting.len();
            ((), if left { self.next(bench, lane) } else { Vec::new() })
        });
    }

    /// Withdraws all requests of an unknown site. A running Job of it counts again if the site becomes known again.
    pub fn forget(&self, site: &Key) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        for (bench, lane) in &mut *lanes {
            let before = lane.waiting.len();
            lane.waiting.retain(|(_, other, _), _| other != site);
            if lane.waiting.len() != before || lane.busy.keys().any(|(other, _)| other == site) {
                self.wake(self.next(bench, lane));
            }
        }
        lanes.retain(|_, lane| !lane.is_idle());
    }

    /// Records a change or the deletion of a site's Job.
    pub fn update(&self, object: &Compact, is_there: bool) {
        let Some((bench, holder)) = about(object) else { return };
        let runs = is_there && job::state(&object.open()) == State::Running;
        let name = object.name_any();
        self.with(&bench, |lane| {
            if runs {
                lane.busy.insert(holder, Busy { job: name, updates: object.label("component") == Some(UPDATE) });
                return ((), Vec::new());
            }
            let ended = lane.busy.get(&holder).is_some_and(|it| it.job == name);
            if ended {
                lane.busy.remove(&holder);
            }
            ((), if ended { self.next(&bench, lane) } else { Vec::new() })
        });
    }

    /// Updates the slots of this replica and of others; sites that get a job slot are reconciled.
    pub fn slots_changed(&self) {
        let slots = *self.slots.borrow();
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        for (bench, lane) in &mut *lanes {
            lane.busy.retain(|(_, uid), _| slots.contains(Slot::of_uid(uid)));
            lane.waiting.retain(|_, it| slots.contains(it.slot));
            self.wake(self.next(bench, lane));
        }
        lanes.retain(|_, lane| !lane.is_idle());
    }

    fn free(&self, bench: &Key, lane: &Lane) -> Free {
        let (slots, others) = (*self.slots.borrow(), self.others.borrow());
        let counts = |(site, uid): &Holder| slots.contains(Slot::of_uid(uid)) && (self.known)(site, uid, bench);
        let busy: Vec<&Busy> = lane.busy.iter().filter(|(holder, _)| counts(holder)).map(|(_, it)| it).collect();
        let left = |limit: usize, busy: usize| share(limit, &slots, &others).saturating_sub(busy);
        let all = left(lane.limits.all, busy.len());
        let updates = lane.limits.updates.map(|limit| left(limit, busy.iter().filter(|it| it.updates).count()));
        Free { all, updates: updates.unwrap_or(all) }
    }

    /// Waiting sites that get a free job slot: each requests it again, so that one that no longer exists only loses its place.
    fn next(&self, bench: &Key, lane: &Lane) -> Vec<Key> {
        if lane.waiting.is_empty() {
            return Vec::new();
        }
        let mut free = self.free(bench, lane);
        let next = lane.waiting.iter().filter(|(_, waiting)| free.take(waiting.updates));
        next.map(|((_, site, _), _)| site.clone()).collect()
    }

    fn wake(&self, sites: Vec<Key>) {
        for site in sites {
            // The receiver is dropped when the process ends.
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
}

/// Bench and site of a site's Job. The bench is in the Job's own namespace, wherever the site is.
fn about(job: &Compact) -> Option<(Key, Holder)> {
    let site = site_watch::owner(job)?;
    let bench = Key::new(job.namespace()?, job.label("bench")?);
    Some((bench, (site, job.label(labels::SITE_UID)?.to_owned())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::io::cached::Cached;

    /// A uid whose slot is this.
    fn uid_in(slot: u8) -> String {
        let mut uids = (0..).map(|number| format!("uid-{number}"));
        uids.find(|uid| Slot::of_uid(uid) == Slot::new(slot)).expect("every slot has uids")
    }

    /// No other replica.
    fn alone() -> watch::Receiver<Vec<SlotSet>> {
        watch::channel(Vec::new()).1
    }

    fn claim(site: &str, age: i64) -> Claim {
        Claim {
            bench: Key::new("a", "bench"),
            site: Key::new("a", site),
            uid: uid_in(1),
            wants: Wants::Site,
            job: format!("{site}-init"),
            since: Timestamp::new(age, 0).expect("a time"),
            updates: false,
        }
    }

    /// A limit of all Jobs.
    fn limit(all: usize) -> Limits {
        Limits { all, updates: None }
    }

    fn seen(budget: &JobBudget, site: &str, name: &str, is_done: bool) {
        seen_as(budget, name, is_done, json!({"bench": "bench", "site": site, labels::SITE_UID: uid_in(1)}));
    }

    fn seen_as(budget: &JobBudget, name: &str, is_done: bool, mut all: serde_json::Value) {
        all[labels::SLOT] = json!("1");
        let conditions = if is_done { json!([{"type": "Complete", "status": "True"}]) } else { json!([]) };
        let object: kube::core::DynamicObject = serde_json::from_value(json!({
            "apiVersion": "batch/v1", "kind": "Job", "status": {"conditions": conditions},
            "metadata": {"name": name, "namespace": "a", "labels": all},
        }))
        .expect("a Job");
        budget.update(&object.close(), true);
    }

    fn woken(receiver: &mut mpsc::UnboundedReceiver<Key>) -> Vec<String> {
        std::iter::from_fn(|| receiver.try_recv().ok()).map(|site| site.name).collect()
    }

    /// never more Jobs than the share, the oldest site first, and the end of a Job triggers the next site.
    #[test]
    fn sites_without_a_job_slot_wait_in_order_of_age() {
        let (_held, slots) = watch::channel(SlotSet::ALL);
        let (budget, mut receiver) = JobBudget::new(slots, alone(), |_, uid, _| uid != "unknown");
        assert!(budget.acquire(&claim("one", 9), limit(2)) && budget.acquire(&claim("two", 8), limit(2)));
        assert!(budget.acquire(&claim("one", 9), limit(2)), "a site keeps its job slot");
        assert!(!budget.acquire(&claim("late", 5), limit(2)) && !budget.acquire(&claim("early", 3), limit(2)));
        seen(&budget, "one", "one-init", false);
        assert_eq!(woken(&mut receiver), [""; 0]);
        seen(&budget, "one", "one-init", true);
        assert_eq!(woken(&mut receiver), ["early"]);
        assert!(budget.acquire(&claim("early", 3), limit(2)) && !budget.acquire(&claim("late", 5), limit(2)));
        seen(&budget, "one", "one-init", true);
        assert_eq!(woken(&mut receiver), [""; 0], "one Job ended");
        budget.release(&claim("early", 3));
        assert_eq!(woken(&mut receiver), ["late"], "its Job could not be created");
        budget.withdraw(&Key::new("a", "bench"), &Key::new("a", "late"), Wants::Site);
        assert_eq!(woken(&mut receiver), [""; 0]);
    }

    /// a site that no longer wants its Job lets the next one continue; a request for its backups stays in the queue.
    #[test]
    fn a_withdrawn_request_lets_the_next_site_continue() {
        let (_held, slots) = watch::channel(SlotSet::ALL);
        let (budget, mut receiver) = JobBudget::new(slots, alone(), |_, uid, _| uid != "unknown");
        let bench = Key::new("a", "bench");
        assert!(budget.acquire(&claim("one", 1), limit(1)));
        let backup = Claim { wants: Wants::Backup, ..claim("two", 3) };
        for waiting in [claim("two", 2), backup, claim("three", 4)] {
            assert!(!budget.acquire(&waiting, limit(1)));
        }
        budget.release(&claim("one", 1));
        assert_eq!(woken(&mut receiver), ["two"]);
        budget.withdraw(&bench, &Key::new("a", "two"), Wants::Site);
        assert_eq!(woken(&mut receiver), ["two"], "its backup is next");
        budget.withdraw(&bench, &Key::new("a", "two"), Wants::Backup);
        assert_eq!(woken(&mut receiver), ["three"]);
    }

    /// the Job of a site of another namespace releases its job slot like any other.
    #[test]
    fn a_job_counts_for_the_bench_in_its_namespace() {
        let (_held, slots) = watch::channel(SlotSet::ALL);
        let (budget, mut receiver) = JobBudget::new(slots, alone(), |_, uid, _| uid != "unknown");
        let foreign = Claim { site: Key::new("tenant", "one"), job: "one-x-init".into(), ..claim("one", 1) };
        assert!(budget.acquire(&foreign, limit(1)) && !budget.acquire(&claim("two", 2), limit(1)));
        let of =
            json!({"bench": "bench", "site": "one", labels::SITE_UID: uid_in(1), labels::SITE_NAMESPACE: "tenant"});
        seen_as(&budget, "one-x-init", false, of.clone());
        assert!(!budget.acquire(&claim("two", 2), limit(1)));
        seen_as(&budget, "one-x-init", true, of);
        assert_eq!(woken(&mut receiver), ["two"]);
    }

    /// Jobs of a tenant take no job slots, neither in the bench's namespace nor elsewhere, also for a site that does not exist.
    #[test]
    fn a_job_of_an_unknown_site_takes_no_job_slot() {
        let (_held, slots) = watch::channel(SlotSet::ALL);
        let (budget, _receiver) = JobBudget::new(slots, alone(), |_, uid, _| uid != "unknown");
        for number in 0..256 {
            let name = format!("forged-{number}");
            let of = json!({"bench": "bench", "site": name, labels::SITE_UID: "unknown"});
            seen_as(&budget, &name, false, of);
        }
        assert!(budget.acquire(&claim("one", 1), limit(1)));
        // The labels are of an existing site: only the site's own Job counts, and its end.
        seen_as(&budget, "forged", false, json!({"bench": "bench", "site": "one", labels::SITE_UID: "unknown"}));
        seen(&budget, "one", "one-init", true);
        assert!(budget.acquire(&claim("two", 1), limit(1)));
    }

    /// A repeated event of the Job of an earlier attempt releases no job slot.
    #[test]
    fn the_end_of_an_earlier_attempt_releases_no_job_slot() {
        let (_held, slots) = watch::channel(SlotSet::ALL);
        let (budget, mut receiver) = JobBudget::new(slots, alone(), |_, uid, _| uid != "unknown");
        let second = Claim { job: "one-init-2".into(), ..claim("one", 1) };
        assert!(budget.acquire(&second, limit(1)) && !budget.acquire(&claim("two", 2), limit(1)));
        seen(&budget, "one", "one-init", true);
        assert_eq!(woken(&mut receiver), [""; 0]);
        seen(&budget, "one", "one-init-2", true);
        assert_eq!(woken(&mut receiver), ["two"]);
    }

    #[test]
    fn more_slots_give_more_job_slots() {
        let (held, slots) = watch::channel(SlotSet::from_iter([Slot::new(1)]));
        let (budget, mut receiver) = JobBudget::new(slots, alone(), |_, uid, _| uid != "unknown");
        assert!(budget.acquire(&claim("one", 1), limit(4)) && !budget.acquire(&claim("two", 2), limit(4)));
        held.send_replace(SlotSet::ALL);
        budget.slots_changed();
        assert_eq!(woken(&mut receiver), ["two"]);
        assert!(
            budget.acquire(&claim("two", 2), limit(4))
                && budget.acquire(&claim("more", 2), limit(4))
                && budget.acquire(&claim("yet", 2), limit(4))
        );
        assert!(!budget.acquire(&claim("moves", 0), limit(4)));
        held.send_replace(SlotSet::NONE);
        budget.slots_changed();
        held.send_replace(SlotSet::ALL);
        assert!(budget.acquire(&claim("three", 3), limit(1)), "Jobs in lost slots are not counted");
    }

    /// A waiting site that is deleted or moves does not block sites behind it.
    #[test]
    fn a_deleted_or_moved_site_is_skipped() {
        let (held, slots) = watch::channel(SlotSet::ALL);
        let (budget, mut receiver) = JobBudget::new(slots, alone(), |_, uid, _| uid != "unknown");
        assert!(budget.acquire(&claim("one", 1), limit(1)));
        let moves = Claim { uid: uid_in(9), ..claim("moves", 2) };
        assert!(
            !budget.acquire(&moves, limit(1))
                && !budget.acquire(&claim("goes", 3), limit(1))
                && !budget.acquire(&claim("stays", 4), limit(1))
        );
        held.send_replace(SlotSet::ALL.difference(&SlotSet::from_iter([Slot::new(9)])));
        budget.slots_changed();
        budget.forget(&Key::new("a", "goes"));
        seen(&budget, "one", "one-init", true);
        assert_eq!(woken(&mut receiver), ["stays"]);
    }

    /// Two controllers of a site request Jobs: a Job that one could not create takes no job slot from the other.
    #[test]
    fn only_the_job_slot_of_that_job_is_released() {
        let (_held, slots) = watch::channel(SlotSet::ALL);
        let (budget, _receiver) = JobBudget::new(slots, alone(), |_, _, _| true);
        let backup = Claim { wants: Wants::Backup, job: "one-backup".to_owned(), ..claim("one", 1) };
        assert!(budget.acquire(&backup, limit(1)) && budget.acquire(&claim("one", 1), limit(1)));
        budget.release(&backup);
        budget.forget(&backup.site);
        assert!(!budget.acquire(&claim("two", 2), limit(1)), "the Job of the site has its job slot");
        budget.release(&claim("one", 1));
        assert!(budget.acquire(&claim("two", 2), limit(1)));
    }

    /// updates have a limit of their own among all Jobs, and others are not delayed by one that waits for it.
    #[test]
    fn updates_have_a_limit_of_their_own() {
        let (_held, slots) = watch::channel(SlotSet::ALL);
        let (budget, mut receiver) = JobBudget::new(slots, alone(), |_, _, _| true);
        let limits = Limits { all: 3, updates: Some(1) };
        let update = |site: &str, age| Claim { updates: true, job: format!("{site}-update"), ..claim(site, age) };
        assert!(budget.acquire(&update("one", 1), limits) && !budget.acquire(&update("two", 2), limits));
        assert!(!budget.acquire(&update("three", 3), limits), "a second one");
        assert!(budget.acquire(&claim("new", 4), limits), "another Job");
        let of = json!({"bench": "bench", "site": "known", labels::SITE_UID: uid_in(1), "component": UPDATE});
        seen_as(&budget, "known-update", false, of.clone());
        assert!(!budget.acquire(&claim("newer", 5), limits), "three Jobs run");
        seen(&budget, "new", "new-init", true);
        assert_eq!(woken(&mut receiver), ["newer"], "not an update, which is older");
        seen(&budget, "one", "one-update", true);
        assert_eq!(woken(&mut receiver), ["newer"], "one update runs, which another process of this replica started");
        seen_as(&budget, "known-update", true, of);
        assert_eq!(woken(&mut receiver), ["two", "newer"]);
    }
}
