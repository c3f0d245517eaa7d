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

impl Timing {
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
