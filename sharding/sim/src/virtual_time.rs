//! Virtual time, which passes only while every task waits.

use std::time::Duration;

use kube_sharding::{clock::Clock, timing::Now};
use tokio::time::Instant;

/// Runs a future on one thread with Tokio's clock paused: the clock jumps to the next timer when no task can run.
///
/// `fastrand` uses this seed; so does Tokio, which chooses between tasks at random, if it is built with `--cfg tokio_unstable`.
pub fn in_virtual_time<T>(seed: u64, what: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    fastrand::seed(seed);
    let result = runtime.block_on(what);
    runtime.shutdown_background();
    result
}

/// A member's clock, which shows the virtual time since it was created.
#[derive(Clone, Debug)]
pub struct VirtualClock(Instant);

impl Default for VirtualClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Now {
        // Time does not start at zero, which means "never renewed".
        let gone = self.0.elapsed() + Duration::from_millis(1);
        Now { certain: gone, possible: gone }
    }
}
