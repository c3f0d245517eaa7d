//! The clock of a member.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use crate::timing::Now;

/// Clock of a member. Must never go back.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Now;
}

/// The machine's clocks.
///
/// The elapsed time is at most the largest advance of the monotonic, the boot-time and the wall clock since the last reading: a
/// suspended machine stops the first, a paused virtual machine may stop the first two. A wall clock that is set back counts as
/// stopped.
pub struct SystemClock(Mutex<Elapsed>);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Mutex::new(Elapsed::since(read())))
    }
}

/// One reading of the three clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Monotonic clock: stops while the machine is suspended.
    pub monotonic: Duration,
    /// Boot-time clock: continues while the machine is suspended, but not while a hypervisor pauses it.
    pub boot: Duration,
    /// Wall clock: may be set forward and back.
    pub wall: Duration,
}

/// Time since a first reading of the three clocks. Pure, so that suspended machines and changed clocks can be tested.
#[derive(Clone, Debug)]
pub struct Elapsed {
    last: Reading,
    now: Now,
}

impl Elapsed {
    /// Starts at this reading.
    pub fn since(first: Reading) -> Self {
        Self { last: first, now: Now::default() }
    }

    /// The time at another reading.
    pub fn at(&mut self, next: Reading) -> Now {
        let last = std::mem::replace(&mut self.last, next);
        let certain = next.monotonic.saturating_sub(last.monotonic);
        let possible = certain.max(next.boot.saturating_sub(last.boot)).max(next.wall.saturating_sub(last.wall));
        self.now = Now { certain: self.now.certain + certain, possible: self.now.possible + possible };
        self.now
    }
}

fn read() -> Reading {
    let read = |clock| {
        let time = clock_gettime(clock);
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanoseconds)
    };
    Reading { monotonic: read(ClockId::Monotonic), boot: read(ClockId::Boottime), wall: read(ClockId::Realtime) }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let mut elapsed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        elapsed.at(read())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_advance_may_have_gone_by_and_the_monotonic_certainly_did() {
        let reading = |monotonic, boot, wall| {
            let [monotonic, boot, wall] = [monotonic, boot, wall].map(Duration::from_secs);
            Reading { monotonic, boot, wall }
        };
        let seconds = |now: Now| (now.certain.as_secs(), now.possible.as_secs());
        let mut elapsed = Elapsed::since(reading(10, 10, 1000));
        assert_eq!(seconds(elapsed.at(reading(13, 13, 1003))), (3, 3), "all is well");
        assert_eq!(seconds(elapsed.at(reading(14, 74, 1063))), (4, 64), "suspended to memory for a minute");
        assert_eq!(seconds(elapsed.at(reading(15, 75, 1124))), (5, 125), "the hypervisor paused it for a minute");
        assert_eq!(seconds(elapsed.at(reading(18, 78, 500))), (8, 128), "the wall clock was set back");
        assert_eq!(seconds(elapsed.at(reading(19, 79, 1131))), (9, 759), "and forward: time may have gone by");
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
