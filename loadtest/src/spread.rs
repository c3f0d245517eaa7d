//! Percentiles of a sample.

use serde::{Deserialize, Serialize};

/// Percentiles of durations, in milliseconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Spread {
    /// Number of measurements.
    pub count: usize,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Maximum.
    pub max: f64,
}

impl Spread {
    /// Percentiles of times in milliseconds: each is a measured value.
    pub fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |hundredths: usize| {
            let rank = (times.len() * hundredths).div_ceil(100);
            times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { count: times.len(), p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }
}

/// A count as a floating-point number.
#[allow(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub fn exact(count: usize) -> f64 {
    count as f64
}
