//! Time that goes by only while everything waits.

use std::time::Duration;

use kube_sharding::{clock::Clock, timing::Now};
use tokio::time::Instant;

/// Runs a future on one thread with Tokio's clock paused: it jumps to the next timer whenever nothing else is to be done.
///
/// Who draws from `fastrand` draws from this seed.
pub fn in_virtual_time<T>(seed: u64, what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    fastrand::seed(seed);
    let result = runtime.block_on(what);
    runtime.shutdown_background();
    result
}

/// A member's clock that shows virtual time since it was made.
#[derive(Clone, Debug)]
pub struct VirtualClock(Instant);

impl Default for VirtualClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Now {
        // Nothing counts from zero: a Lease that was renewed at once is renewed at another time than never.
        let gone = self.0.elapsed() + Duration::from_millis(1);
        Now { certain: gone, possible: gone }
    }
}
