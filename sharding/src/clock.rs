//! The clock of a member.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use crate::timing::Now;

/// Tells a member the time. Must never go back.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Now;
}

/// The machine's clocks.
///
/// What may have gone by is the largest advance of the monotonic, the boot-time and the wall clock since the last look:
/// a suspended machine stops the first, a paused virtual machine can stop the first two. A wall clock that is set back
/// counts as standing still.
pub struct SystemClock(Mutex<Reading>);

struct Reading {
    clocks: [Duration; 3],
    now: Now,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self(Mutex::new(Reading { clocks: read(), now: Now::default() }))
    }
}

fn read() -> [Duration; 3] {
    [ClockId::Monotonic, ClockId::Boottime, ClockId::Realtime].map(|clock| {
        let time = clock_gettime(clock);
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanoseconds)
    })
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let clocks = read();
        reading.now = advance(reading.now, reading.clocks, clocks);
        reading.clocks = clocks;
        reading.now
    }
}

/// The time after the clocks went from `before` to `after`; the first of them is monotonic.
fn advance(now: Now, before: [Duration; 3], after: [Duration; 3]) -> Now {
    let advances = [0, 1, 2].map(|index| after[index].saturating_sub(before[index]));
    let most = advances.into_iter().max().unwrap_or_default();
    Now { certain: now.certain + advances[0], possible: now.possible + most }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_advance_may_have_gone_by_and_the_monotonic_certainly_did() {
        let seconds = |three: [u64; 3]| three.map(Duration::from_secs);
        let start = Now::default();
        let suspended = advance(start, seconds([10, 10, 1000]), seconds([11, 71, 1060]));
        assert_eq!(suspended, Now { certain: Duration::from_secs(1), possible: Duration::from_secs(61) });
        let set_back = advance(suspended, seconds([11, 71, 1060]), seconds([14, 74, 500]));
        assert_eq!(set_back, Now { certain: Duration::from_secs(4), possible: Duration::from_secs(64) });
    }

    #[test]
    fn the_machines_clock_goes_on() {
        let clock = SystemClock::default();
        let first = clock.now();
        std::thread::sleep(Duration::from_millis(5));
        let second = clock.now();
        assert!(second.certain >= first.certain + Duration::from_millis(5) && second.possible >= second.certain);
    }
}
