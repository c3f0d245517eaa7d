//! Synchronization of the gate: for each entry, whether work may start or write, and how much is in flight. Has no clock and no
//! map. `tests/threads` compiles this file with loom's atomics and explores every order of two threads.

use super::sync::{AtomicU64, AtomicUsize, Ordering, fence};

/// One entry of the gate.
#[derive(Debug)]
pub(crate) struct Door {
    /// Epoch under which work may start; 0 if it may not.
    epoch: AtomicU64,
    /// Epoch under which work that has started may write; 0 if the entry is not draining.
    ending: AtomicU64,
    in_flight: AtomicUsize,
}

impl Door {
    /// A closed door.
    pub(crate) fn new() -> Self {
        Self { epoch: AtomicU64::new(0), ending: AtomicU64::new(0), in_flight: AtomicUsize::new(0) }
    }

    /// Counts first and checks afterwards: a handover closes first and counts afterwards, so that one of the two sees the other.
    /// Whatever `judge` returns, [`Door::leave`] must follow.
    pub(crate) fn enter<T>(&self, judge: impl FnOnce(&Self) -> T) -> T {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        judge(self)
    }

    /// Ends what was entered.
    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// Epoch under which work may start; 0 if it may not.
    pub(crate) fn epoch(&self) -> i64 {
        i64::try_from(self.epoch.load(Ordering::SeqCst)).unwrap_or(i64::MAX)
    }

    /// Epoch under which work that has started may write; 0 if it may not.
    pub(crate) fn write_epoch(&self) -> i64 {
        // Asked for first, since it is closed last: between the two, one of them is open.
        let epoch = self.epoch();
        epoch.max(i64::try_from(self.ending.load(Ordering::SeqCst)).unwrap_or(i64::MAX))
    }

    /// Work in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Opens it with an epoch, or closes it with 0; work on a closed door may finish if it `drains`. Returns whether work must be
    /// cancelled.
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

/// Whether these doors have no work; then they are closed for writes. They are closed first and counted again afterwards, so
/// that a write in between is waited for.
pub(crate) fn settle<'a>(doors: &(impl Iterator<Item = &'a Door> + Clone)) -> bool {
    let idle = || doors.clone().all(|door| door.in_flight() == 0);
    if !idle() {
        return false;
    }
    doors.clone().for_each(|door| door.ending.store(0, Ordering::SeqCst));
    fence(Ordering::SeqCst);
    idle()
}
