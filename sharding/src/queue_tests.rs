//! The queue of a member that is suspended, drains slots, keeps or loses them, and fails.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
};

use super::*;
use crate::{clock::Clock, gate::Opening, slot::Slot, timing::Now};

struct Fixed(AtomicU64);

impl Clock for Fixed {
    fn now(&self) -> Now {
        let now = Duration::from_secs(self.0.load(Ordering::SeqCst));
        Now { certain: now, possible: now }
    }
}

const SLOT: Scope = Scope::Slot(Slot::new(7));

struct World {
    clock: Arc<Fixed>,
    gate: Gate,
    queue: Queue<&'static str>,
    runs: RefCell<Vec<&'static str>>,
    /// Results of the next reconciles.
    fails: Cell<usize>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(Fixed(AtomicU64::new(0)));
        let gate = Gate::new(clock.clone());
        let this = Self { queue: Queue::new(gate.clone()), clock, gate, runs: RefCell::default(), fails: Cell::new(0) };
        this.open();
        this.queue.synced(slots());
        this
    }

    fn open(&self) {
        let until = Some(Duration::from_secs(self.clock.0.load(Ordering::SeqCst) + 12));
        self.gate.set(&Opening { until, entries: [(SLOT.entry(), 3)].into(), draining: BTreeSet::new() });
    }

    fn drain(&self) {
        let until = Some(Duration::from_secs(12));
        self.gate.set(&Opening { until, entries: BTreeMap::new(), draining: [SLOT.entry()].into() });
    }

    /// Works for so many seconds; each key takes `each_seconds`.
    async fn work(&self, seconds: u64, each_seconds: u64) {
        let work = |key| async move {
            tokio::time::sleep(Duration::from_secs(each_seconds)).await;
            self.runs.borrow_mut().push(key);
            let fails = self.fails.get();
            self.fails.set(fails.saturating_sub(1));
            if fails > 0 { Err("refused") } else { Ok(()) }
        };
        let _ = tokio::time::timeout(Duration::from_secs(seconds), self.queue.run(2, work)).await;
    }

    fn runs(&self) -> Vec<&'static str> {
        self.runs.take()
    }
}

fn slots() -> SlotSet {
    SlotSet::from_iter([Slot::new(7)])
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_pushed_several_times_runs_once() {
    let world = World::new();
    for key in ["a", "b", "a"] {
        world.queue.push(SLOT, key);
    }
    world.work(5, 0).await;
    assert_eq!(world.runs(), ["a", "b"]);
    assert!(world.queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_pushed_while_it_runs_runs_again() {
    let world = World::new();
    world.queue.push(SLOT, "a");
    let pushes = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.queue.push(SLOT, "a");
    };
    tokio::join!(world.work(10, 2), pushes);
    assert_eq!(world.runs(), ["a", "a"]);
}

/// S-7: a suspension only costs time.
#[tokio::test(start_paused = true)]
async fn keys_pushed_while_the_member_may_not_act_run_later() {
    let world = World::new();
    world.clock.0.store(13, Ordering::SeqCst);
    world.queue.push(SLOT, "a");
    world.work(5, 0).await;
    assert_eq!(world.runs(), [""; 0]);
    world.clock.0.store(14, Ordering::SeqCst);
    // The Lease was renewed, and nothing else changed: the gate's receivers are not notified.
    world.open();
    world.work(5, 0).await;
    assert_eq!(world.runs(), ["a"]);
}

/// S-7: keys that were rejected while a slot drained are reconciled if the slot is kept.
#[tokio::test(start_paused = true)]
async fn keys_pushed_while_a_slot_drains_run_when_it_reopens() {
    let world = World::new();
    world.drain();
    world.queue.push(SLOT, "a");
    let opens = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.open();
    };
    tokio::join!(world.work(5, 0), opens);
    assert_eq!(world.runs(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn cancelled_work_is_restarted_if_the_slot_is_kept() {
    let world = World::new();
    world.queue.push(SLOT, "a");
    let cancels = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.drain();
        world.gate.cancel(SLOT.entry());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(world.queue.len() == 1 && world.runs.borrow().is_empty(), "it was cancelled, and waits");
        world.open();
    };
    tokio::join!(world.work(20, 3), cancels);
    assert_eq!(world.runs(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_key_is_retried() {
    let world = World::new();
    world.fails.set(3);
    world.queue.push(SLOT, "a");
    world.work(30, 0).await;
    assert_eq!(world.runs(), ["a"; 4]);
    assert!(world.queue.is_empty());
}

/// O-4: keys are not reconciled before every kind of their slot is listed.
#[tokio::test(start_paused = true)]
async fn keys_of_unlisted_slots_wait_and_of_lost_slots_are_dropped() {
    let world = World::new();
    world.queue.synced(SlotSet::NONE);
    world.queue.push(SLOT, "a");
    world.work(5, 0).await;
    assert_eq!(world.runs(), [""; 0]);
    world.queue.synced(slots());
    world.work(5, 0).await;
    assert_eq!(world.runs(), ["a"]);
    world.drain();
    world.queue.push(SLOT, "b");
    world.work(1, 0).await;
    world.queue.dropped(&slots());
    assert!(world.queue.is_empty());
    world.open();
    world.queue.synced(slots());
    world.work(5, 0).await;
    assert_eq!(world.runs(), [""; 0], "a list of the slot would queue it");
}
