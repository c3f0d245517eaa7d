//! The wall clock, for times in objects.
#![allow(clippy::disallowed_methods, reason = "this is where the time is read")]

use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The system's.
pub fn system() -> WallClock {
    Arc::new(Timestamp::now)
}
