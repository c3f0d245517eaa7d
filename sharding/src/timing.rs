//! The times of the protocol, and the two clocks that they are counted on.

use std::time::Duration;

/// A point in a member's own time. Times of two members are never compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Now {
    /// Time that certainly went by (a monotonic clock): what a member waits before it judges another.
    pub certain: Duration,
    /// Time that may have gone by (the largest advance of the monotonic, boot-time and wall clock, since a suspended
    /// machine stops the first): what a member counts its own right by. Never less than `certain`.
    pub possible: Duration,
}

/// Times of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// How long others wait, without a renewal, before they fence a member.
    pub lease_duration: Duration,
    /// Time from one renewal to the next.
    pub renew_interval: Duration,
    /// How long an answer is waited for before its outcome is asked for another way.
    pub attempt_timeout: Duration,
    /// How long the work on slots that are given away may take to end before it is cancelled.
    pub drain_max: Duration,
    /// How long the fleet must stay the same before slots move for balance.
    pub debounce: Duration,
    /// How long a coordinator stays at least, unless it leaves.
    pub coordinator_tenure: Duration,
}

/// Times with which no member could keep its right to act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTiming {
    /// A Lease has a duration in whole seconds.
    #[error("a Lease lasts one second or more, not {0:?}")]
    Lease(Duration),
    /// The right would end before it is renewed.
    #[error("a renewal every {renewal:?}, each awaited for {attempt:?}, is too seldom for a right of {right:?}")]
    Renewal {
        /// Time from one renewal to the next.
        renewal: Duration,
        /// How long an answer is waited for.
        attempt: Duration,
        /// How long a member may act after a renewal.
        right: Duration,
    },
}

impl Timing {
    /// Whether a member can keep its right to act with these times.
    pub fn check(&self) -> Result<(), InvalidTiming> {
        let (renewal, attempt, right) = (self.renew_interval, self.attempt_timeout, self.right());
        if self.lease_duration < Duration::from_secs(1) {
            return Err(InvalidTiming::Lease(self.lease_duration));
        }
        let is_renewed = !renewal.is_zero() && !attempt.is_zero() && renewal.saturating_add(attempt) <= right;
        is_renewed.then_some(()).ok_or(InvalidTiming::Renewal { renewal, attempt, right })
    }

    /// How long a member may act after it sent its last successful renewal: 12/15 of the duration, which tolerates
    /// clocks that run up to 11 % apart, since (15/12) > 1.11².
    pub fn right(&self) -> Duration {
        self.lease_duration * 12 / 15
    }
}

impl Default for Timing {
    /// Lease 15 s, renewed every 3 s, an answer waited for 2 s, drain 20 s, debounce 1 s, tenure 30 s.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_interval: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(2),
            drain_max: Duration::from_secs(20),
            debounce: Duration::from_secs(1),
            coordinator_tenure: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_end_the_right_before_its_renewal_are_rejected() {
        let (seconds, good) = (Duration::from_secs, Timing::default());
        assert_eq!(good.check(), Ok(()));
        let short = Timing { lease_duration: Duration::from_millis(999), ..good.clone() };
        assert_eq!(short.check(), Err(InvalidTiming::Lease(Duration::from_millis(999))));
        let bad = |renew_interval, attempt_timeout| Timing { renew_interval, attempt_timeout, ..good.clone() }.check();
        assert_eq!(bad(seconds(10), seconds(2)), Ok(()));
        for (renewal, attempt) in [(11, 2), (12, 1), (0, 1), (1, 0), (u64::MAX, 1)] {
            assert!(matches!(bad(seconds(renewal), seconds(attempt)), Err(InvalidTiming::Renewal { .. })), "{renewal}");
        }
    }
}
