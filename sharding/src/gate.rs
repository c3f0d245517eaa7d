//! The gate: whether this member may act on an entry, checked before the queue, at dequeue, and before each write.
//!
//! Cheap to check from any thread. [`crate::runtime`] sets it from the protocol's state; work on an entry holds a [`Permit`], so
//! that a handover can wait for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    doors::{Door, settle},
    map::Entry,
    slot::{SLOTS, Slot, SlotSet},
};

/// Entries of a map: the slots and the coordinator.
const ENTRIES: usize = SLOTS + 1;

/// Map entry a request belongs to: carried from where the request is made to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The owner of a slot.
    Slot(Slot),
    /// The coordinator.
    Coordinator,
}

impl Scope {
    /// The entry of the map.
    pub fn entry(self) -> Entry {
        match self {
            Self::Slot(slot) => slot.into(),
            Self::Coordinator => Entry::COORDINATOR,
        }
    }
}

/// Why the gate is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The Lease was not renewed, or the map not read, in time; the gate may open again.
    #[error("the member's Lease was not renewed in time")]
    Suspended,
    /// Another member owns the entry, or it is being handed over.
    #[error("this member does not own the slot")]
    NotOwner,
}

/// State of the gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// Until when, in `possible` time; None if the member may not act.
    pub until: Option<Duration>,
    /// Entries on which work may start, with their epochs.
    pub entries: BTreeMap<Entry, i64>,
    /// Draining entries: work that has started may still write.
    pub draining: BTreeSet<Entry>,
}

impl Opening {
    /// The slots on which work may start.
    pub fn slots(&self) -> SlotSet {
        self.entries.keys().copied().filter_map(slot).collect()
    }

    /// The slots whose objects are still needed: those, and draining ones.
    pub fn held_slots(&self) -> SlotSet {
        self.entries.keys().chain(&self.draining).copied().filter_map(slot).collect()
    }

    /// Whether this member is the coordinator.
    pub fn coordinates(&self) -> bool {
        self.entries.contains_key(&Entry::COORDINATOR)
    }

    /// Whether the coordinator's objects are still needed, also while draining.
    pub fn holds_coordination(&self) -> bool {
        self.coordinates() || self.draining.contains(&Entry::COORDINATOR)
    }
}

/// Number of openings of each entry. A reader learns from it that an open entry was closed in between, so that work may have
/// been rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openings(BTreeMap<Entry, u64>);

impl Openings {
    /// The slots that were opened since.
    pub fn since(&self, before: &Self) -> SlotSet {
        self.0
            .iter()
            .filter(|(entry, count)| before.0.get(entry) != Some(count))
            .filter_map(|(it, _)| slot(*it))
            .collect()
    }

    /// Whether the coordinator's entry was opened since.
    pub fn coordination_since(&self, before: &Self) -> bool {
        self.0.get(&Entry::COORDINATOR) != before.0.get(&Entry::COORDINATOR)
    }
}

fn slot(entry: Entry) -> Option<Slot> {
    u8::try_from(entry.0).ok().map(Slot::new)
}

struct Shared {
    clock: Arc<dyn Clock>,
    until_millis: AtomicU64,
    /// By entry.
    doors: Vec<Door>,
    idle: Notify,
    cancels: Mutex<BTreeMap<Entry, CancellationToken>>,
    /// The state, for receivers of changes; without `until`, which changes with every renewal.
    opening: watch::Sender<Arc<Opening>>,
    /// Openings of each entry.
    openings: watch::Sender<Arc<Openings>>,
    /// Whether the member may act at all; sent when it changes.
    acts: watch::Sender<bool>,
}

/// The gate of one incarnation. Cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

impl Gate {
    /// A closed gate.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            clock,
            until_millis: AtomicU64::new(0),
            doors: (0..ENTRIES).map(|_| Door::new()).collect(),
            idle: Notify::new(),
            cancels: Mutex::default(),
            opening: watch::Sender::default(),
            openings: watch::Sender::default(),
            acts: watch::Sender::new(false),
        }))
    }

    /// A gate that is always open for everything, for a process without other members.
    pub fn open_for_all(clock: Arc<dyn Clock>) -> Self {
        let gate = Self::new(clock);
        let entries = (0..=Entry::COORDINATOR.0).map(|entry| (Entry(entry), 1)).collect();
        gate.set(&Opening { until: Some(Duration::MAX), entries, draining: BTreeSet::new() });
        gate
    }

    /// Starts work on an entry, if allowed.
    pub fn admit(&self, scope: Scope) -> Result<Permit, Refusal> {
        self.count_in(scope, Door::epoch)
    }

    /// Starts a write for work that has started.
    pub fn admit_write(&self, scope: Scope) -> Result<(Permit, Duration), Refusal> {
        let permit = self.count_in(scope, Door::write_epoch)?;
        Ok((permit, self.left().ok_or(Refusal::Suspended)?))
    }

    fn count_in(&self, scope: Scope, epoch: impl Fn(&Door) -> i64) -> Result<Permit, Refusal> {
        let entry = scope.entry();
        self.door(entry).enter(|door| {
            let mut permit = Permit { gate: self.clone(), entry, epoch: 0, cancelled: self.cancel_token(entry) };
            self.left().ok_or(Refusal::Suspended)?;
            permit.epoch = epoch(door);
            if permit.epoch == 0 { Err(Refusal::NotOwner) } else { Ok(permit) }
        })
    }

    /// Whether the member may act on the entry now, and for how long at most.
    pub fn check(&self, scope: Scope) -> Result<Duration, Refusal> {
        let left = self.left().ok_or(Refusal::Suspended)?;
        if self.door(scope.entry()).write_epoch() == 0 { Err(Refusal::NotOwner) } else { Ok(left) }
    }

    /// Whether the member owns the entry, also while suspended.
    pub fn owns(&self, scope: Scope) -> bool {
        self.door(scope.entry()).epoch() != 0
    }

    /// Whether the member may act at all.
    pub fn acts(&self) -> bool {
        self.left().is_some()
    }

    /// The state; a receiver gets every change.
    pub fn opening(&self) -> watch::Receiver<Arc<Opening>> {
        self.0.opening.subscribe()
    }

    /// Openings of each entry; a receiver gets every change.
    pub fn openings(&self) -> watch::Receiver<Arc<Openings>> {
        self.0.openings.subscribe()
    }

    /// Whether the member may act; a receiver gets suspension and resumption.
    pub fn acting(&self) -> watch::Receiver<bool> {
        self.0.acts.subscribe()
    }

    /// Sets the state. Work on closed entries may finish if they drain; else it is cancelled.
    pub(crate) fn set(&self, opening: &Opening) {
        let mut opened = Vec::new();
        for (entry, door) in (0..=Entry::COORDINATOR.0).map(Entry).zip(&self.0.doors) {
            let next = opening.entries.get(&entry).copied().unwrap_or(0).max(0);
            let before = door.epoch();
            opened.extend((before != next && next != 0).then_some(entry));
            if door.set(next.unsigned_abs(), opening.draining.contains(&entry)) {
                self.cancel(entry);
            }
        }
        let millis = opening.until.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
        self.0.until_millis.store(millis, Ordering::SeqCst);
        let next = Opening { until: None, ..opening.clone() };
        self.0.opening.send_if_modified(|known| {
            let changed = **known != next;
            if changed {
                *known = Arc::new(next);
            }
            changed
        });
        if !opened.is_empty() {
            self.0.openings.send_modify(|known| {
                let counts = &mut Arc::make_mut(known).0;
                for entry in &opened {
                    *counts.entry(*entry).or_default() += 1;
                }
            });
        }
        let acts = self.acts();
        self.0.acts.send_if_modified(|known| std::mem::replace(known, acts) != acts);
    }

    /// Closes permanently; all work is cancelled.
    pub(crate) fn close(&self) {
        self.set(&Opening::default());
    }

    /// Cancels the work on an entry: it ends at its next await.
    pub(crate) fn cancel(&self, entry: Entry) {
        let token = self.cancels().remove(&entry);
        if let Some(token) = token {
            token.cancel();
        }
    }

    /// Waits until these entries have no work, and closes them for writes.
    pub(crate) async fn idle(&self, entries: &BTreeSet<Entry>) {
        loop {
            let ended = self.0.idle.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if settle(&entries.iter().map(|entry| self.door(*entry))) {
                return;
            }
            ended.await;
        }
    }

    /// Work and writes in flight on one entry.
    pub fn in_flight_on(&self, scope: Scope) -> usize {
        self.door(scope.entry()).in_flight()
    }

    /// Work in flight, over all entries.
    pub fn in_flight(&self) -> usize {
        self.0.doors.iter().map(Door::in_flight).sum()
    }

    fn left(&self) -> Option<Duration> {
        let until = Duration::from_millis(self.0.until_millis.load(Ordering::SeqCst));
        until.checked_sub(self.0.clock.now().possible).filter(|left| !left.is_zero())
    }

    fn door(&self, entry: Entry) -> &Door {
        &self.0.doors[usize::from(entry.0).min(ENTRIES - 1)]
    }

    fn cancels(&self) -> std::sync::MutexGuard<'_, BTreeMap<Entry, CancellationToken>> {
        self.0.cancels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel_token(&self, entry: Entry) -> CancellationToken {
        self.cancels().entry(entry).or_default().clone()
    }
}

/// Work on one entry. A handover waits until every permit is dropped.
#[must_use = "the work is permitted while it is held"]
pub struct Permit {
    gate: Gate,
    entry: Entry,
    epoch: i64,
    cancelled: CancellationToken,
}

impl Permit {
    /// The epoch under which the work started.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Completes when the work must end.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        self.cancelled.clone().cancelled_owned()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.door(self.entry).leave();
        self.gate.0.idle.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::Now;

    struct Fixed(AtomicU64);

    impl Clock for Fixed {
        fn now(&self) -> Now {
            let now = Duration::from_secs(self.0.load(Ordering::SeqCst));
            Now { certain: now, possible: now }
        }
    }

    const SLOT: Scope = Scope::Slot(Slot::new(7));

    fn open(gate: &Gate, until_seconds: u64) {
        let entries = [(SLOT.entry(), 3)].into();
        let until = Some(Duration::from_secs(until_seconds));
        gate.set(&Opening { until, entries, draining: BTreeSet::new() });
    }

    #[test]
    fn it_is_open_for_what_is_owned_until_the_deadline() {
        let clock = Arc::new(Fixed(AtomicU64::new(0)));
        let gate = Gate::new(clock.clone());
        assert_eq!(gate.check(SLOT), Err(Refusal::Suspended));
        open(&gate, 12);
        assert_eq!(gate.admit(SLOT).map(|permit| permit.epoch()).ok(), Some(3));
        assert_eq!(gate.check(Scope::Coordinator), Err(Refusal::NotOwner));
        clock.0.store(12, Ordering::SeqCst);
        assert_eq!(gate.check(SLOT), Err(Refusal::Suspended));
        assert!(gate.owns(SLOT), "a suspended member keeps what it has");
        open(&gate, 30);
        assert_eq!(gate.check(SLOT), Ok(Duration::from_secs(18)));
    }

    /// S-3: what drains may still write, so that its objects are needed.
    #[test]
    fn draining_entries_are_held() {
        let draining = [SLOT.entry(), Entry::COORDINATOR].into();
        let opening = Opening { until: None, entries: BTreeMap::new(), draining };
        assert_eq!((opening.slots(), opening.held_slots()), (SlotSet::NONE, SlotSet::from_iter([Slot::new(7)])));
        assert_eq!((opening.coordinates(), opening.holds_coordination()), (false, true));
    }

    /// S-7: who looks only after it is over sees that it was closed.
    #[test]
    fn slots_that_were_closed_and_reopened_are_counted() {
        let gate = Gate::new(Arc::new(Fixed(AtomicU64::new(0))));
        let openings = gate.openings();
        open(&gate, 12);
        let before = openings.borrow().clone();
        open(&gate, 15);
        assert_eq!(openings.borrow().since(&before), SlotSet::NONE, "a renewal opens nothing");
        let until = Some(Duration::from_secs(15));
        gate.set(&Opening { until, entries: BTreeMap::new(), draining: [SLOT.entry()].into() });
        open(&gate, 15);
        let now = openings.borrow().clone();
        assert_eq!(now.since(&before), SlotSet::from_iter([Slot::new(7)]));
        assert!(!now.coordination_since(&before));
        let before = now;
        gate.set(&Opening { until, entries: [(SLOT.entry(), 5)].into(), draining: BTreeSet::new() });
        let now = openings.borrow().clone();
        assert_eq!(
            now.since(&before),
            SlotSet::from_iter([Slot::new(7)]),
            "at another epoch it was another's meanwhile"
        );
    }

    #[tokio::test]
    async fn a_handover_waits_for_work_and_what_is_lost_is_cancelled() {
        let gate = Gate::new(Arc::new(Fixed(AtomicU64::new(0))));
        open(&gate, 12);
        let (first, second) = (gate.admit(SLOT).unwrap(), gate.admit(SLOT).unwrap());
        let entries = BTreeSet::from([SLOT.entry()]);
        let until = Some(Duration::from_secs(12));
        gate.set(&Opening { until, entries: BTreeMap::new(), draining: entries.clone() });
        assert!(gate.admit(SLOT).is_err(), "no new work begins");
        assert!(gate.admit_write(SLOT).is_ok(), "what has begun comes to its end");
        assert!(futures::FutureExt::now_or_never(first.cancelled()).is_none(), "work that drains goes on");
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.idle(&entries).await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert!(gate.admit_write(SLOT).is_ok(), "work that is waited for still writes");
        drop(second);
        waiting.await.unwrap();
        assert!(gate.admit_write(SLOT).is_err(), "after that nothing writes");
        for drains in [false, true] {
            open(&gate, 12);
            let third = gate.admit(SLOT).unwrap();
            if drains {
                let draining = [SLOT.entry()].into();
                gate.set(&Opening { until, entries: BTreeMap::new(), draining });
            }
            gate.close();
            let cancelled = tokio::time::timeout(Duration::from_secs(5), third.cancelled()).await;
            assert!(cancelled.is_ok(), "work on what is lost is cancelled, draining: {drains}");
        }
    }
}
