//! Where threads meet in the gate: for each entry, whether work may begin or write, and how much is in flight. Knows no
//! clock and no map. `tests/threads` compiles this file with loom's atomics and tries every order of two threads.

use super::sync::{AtomicU64, AtomicUsize, Ordering, fence};

/// One entry of the gate.
#[derive(Debug)]
pub(crate) struct Door {
    /// Epoch under which work may begin; 0 where it may not.
    epoch: AtomicU64,
    /// Epoch under which work that has begun may write; 0 where nothing is coming to its end.
    ending: AtomicU64,
    in_flight: AtomicUsize,
}

impl Door {
    /// A closed one.
    pub(crate) fn new() -> Self {
        Self { epoch: AtomicU64::new(0), ending: AtomicU64::new(0), in_flight: AtomicUsize::new(0) }
    }

    /// Counted first and judged after: a handover closes first and counts after, so one of the two sees the other.
    /// Whatever `judge` says, [`Door::leave`] must follow.
    pub(crate) fn enter<T>(&self, judge: impl FnOnce(&Self) -> T) -> T {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        judge(self)
    }

    /// What was entered has ended.
    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// Epoch under which work may begin; 0 where it may not.
    pub(crate) fn epoch(&self) -> i64 {
        i64::try_from(self.epoch.load(Ordering::SeqCst)).unwrap_or(i64::MAX)
    }

    /// Epoch under which work that has begun may write; 0 where it may not.
    pub(crate) fn write_epoch(&self) -> i64 {
        // Asked for first, since it is closed last: between the two, one of them is open.
        let epoch = self.epoch();
        epoch.max(i64::try_from(self.ending.load(Ordering::SeqCst)).unwrap_or(i64::MAX))
    }

    /// Work in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Opens it with an epoch, or closes it with 0; work on what is closed may come to its end if it `drains`. Answers
    /// whether work must be cancelled.
    pub(crate) fn set(&self, next: u64, drains: bool) -> bool {
        let before = self.epoch.load(Ordering::SeqCst);
        // Set before the other is closed: work that has begun must not meet a closed door between the two.
        if before != 0 && next == 0 && drains {
            self.ending.store(before, Ordering::SeqCst);
        }
        self.epoch.store(next, Ordering::SeqCst);
        let ended = !drains && self.ending.swap(0, Ordering::SeqCst) != 0;
        fence(Ordering::SeqCst);
        next == 0 && !drains && (before != 0 || ended)
    }
}

/// Whether no work is left behind these doors; then none writes any more. Closed first and counted again after: a write
/// that came between is waited for.
pub(crate) fn settle<'a>(doors: &(impl Iterator<Item = &'a Door> + Clone)) -> bool {
    let idle = || doors.clone().all(|door| door.in_flight() == 0);
    if !idle() {
        return false;
    }
    doors.clone().for_each(|door| door.ending.store(0, Ordering::SeqCst));
    fence(Ordering::SeqCst);
    idle()
}
