//! Durations in specs. Pure.

use std::time::Duration;

use frappe_crds::bench;

/// A duration in a spec, at least a second, or the default.
pub fn of(asked: Option<&bench::Duration>, default: Duration) -> Duration {
    let parsed = asked.and_then(|it| it.0.parse::<jiff::SignedDuration>().ok());
    parsed.map_or(default, |it| Duration::try_from(it).unwrap_or_default().max(Duration::from_secs(1)))
}
