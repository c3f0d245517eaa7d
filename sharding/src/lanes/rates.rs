//! How many reconciles may start in a second: token buckets of the member and of each lane.

#[cfg(not(feature = "rates"))]
use std::marker::PhantomData;
#[cfg(feature = "rates")]
use std::num::NonZeroU32;
use std::{hash::Hash, time::Instant};

#[cfg(feature = "rates")]
use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed, keyed::DefaultKeyedStateStore},
};

/// Reconciles that may start in a second; 0 for as many as come. Twice as many may start at once after a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Over all lanes of this member.
    pub member_per_second: u32,
    /// In each lane.
    pub lane_per_second: u32,
}

/// Lanes that a limiter may know before those that are gone are swept.
#[cfg(feature = "rates")]
const SWEEP_ABOVE: usize = 1024;

/// The runtime's clock, as of everything else in the queue: in a simulation, rates are of virtual seconds.
#[cfg(feature = "rates")]
#[derive(Clone)]
struct RuntimeClock;

#[cfg(feature = "rates")]
impl Clock for RuntimeClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

#[cfg(feature = "rates")]
type Limiter<K, S> = RateLimiter<K, S, RuntimeClock, NoOpMiddleware<Instant>>;

/// Buckets that are full at the beginning.
#[cfg(feature = "rates")]
pub struct Buckets<L: Hash + Eq + Clone> {
    rates: Rates,
    member: Option<Limiter<NotKeyed, InMemoryState>>,
    lanes: Option<Limiter<L, DefaultKeyedStateStore<L>>>,
    /// Whether a token of the member was taken that no reconcile has used yet.
    token: bool,
}

#[cfg(feature = "rates")]
impl<L: Hash + Eq + Clone> Buckets<L> {
    /// Buckets for these rates.
    pub fn new(rates: Rates) -> Self {
        let quota = |rate: u32| {
            let rate = NonZeroU32::new(rate)?;
            Some(Quota::per_second(rate).allow_burst(rate.saturating_mul(NonZeroU32::MIN.saturating_add(1))))
        };
        let member = quota(rates.member_per_second).map(|quota| RateLimiter::direct_with_clock(quota, RuntimeClock));
        let lanes = quota(rates.lane_per_second);
        let lanes = lanes.map(|quota| RateLimiter::new(quota, DefaultKeyedStateStore::default(), RuntimeClock));
        Self { rates, member, lanes, token: false }
    }

    /// Changes the rates; where they are the same, nothing.
    pub fn change(&mut self, rates: Rates) {
        if self.rates != rates {
            *self = Self::new(rates);
        }
    }

    /// Until when the member must rest before it starts another; nothing where it need not.
    pub fn member_rest(&mut self) -> Option<Instant> {
        let member = self.member.as_ref().filter(|_| !self.token)?;
        match member.check() {
            Ok(()) => {
                self.token = true;
                None
            }
            Err(until) => Some(until.earliest_possible()),
        }
    }

    /// Until when a lane must rest; where it need not, its token is taken.
    pub fn lane_rest(&mut self, lane: &L) -> Option<Instant> {
        let lanes = self.lanes.as_ref()?;
        if lanes.len() > SWEEP_ABOVE {
            lanes.retain_recent();
            lanes.shrink_to_fit();
        }
        lanes.check_key(lane).err().map(|until| until.earliest_possible())
    }

    /// A reconcile has begun: the member's token is used.
    pub fn started(&mut self) {
        self.token = false;
    }
}

/// No buckets: as many may start as come.
#[cfg(not(feature = "rates"))]
pub struct Buckets<L>(PhantomData<fn(L)>);

#[cfg(not(feature = "rates"))]
impl<L: Hash + Eq + Clone> Buckets<L> {
    /// None.
    pub fn new(_: Rates) -> Self {
        Self(PhantomData)
    }

    /// Changes nothing.
    pub fn change(&mut self, _: Rates) {}

    /// The member need not rest.
    pub fn member_rest(&mut self) -> Option<Instant> {
        None
    }

    /// A lane need not rest.
    pub fn lane_rest(&mut self, _: &L) -> Option<Instant> {
        None
    }

    /// A reconcile has begun.
    pub fn started(&mut self) {}
}

#[cfg(all(test, feature = "rates"))]
mod tests {
    use super::*;

    #[test]
    fn without_rates_nothing_rests() {
        let mut buckets = Buckets::<u8>::new(Rates::default());
        assert!((0..10_000).all(|_| buckets.member_rest().is_none() && buckets.lane_rest(&1).is_none()));
    }

    #[test]
    fn a_lane_uses_up_its_own_bucket_only() {
        let mut buckets = Buckets::new(Rates { member_per_second: 0, lane_per_second: 5 });
        assert!((0..10).all(|_| buckets.lane_rest(&1).is_none()), "twice the rate at once");
        assert!(buckets.lane_rest(&1).is_some());
        assert!(buckets.lane_rest(&2).is_none());
    }

    #[test]
    fn a_token_of_the_member_is_kept_until_a_reconcile_uses_it() {
        let mut buckets = Buckets::<u8>::new(Rates { member_per_second: 1, lane_per_second: 0 });
        for _ in 0..2 {
            assert!(buckets.member_rest().is_none());
            assert!(buckets.member_rest().is_none(), "not another token for the same start");
            buckets.started();
        }
        assert!(buckets.member_rest().is_some());
        buckets.change(Rates { member_per_second: 100, lane_per_second: 0 });
        assert!(buckets.member_rest().is_none(), "a change counts at once");
    }
}
