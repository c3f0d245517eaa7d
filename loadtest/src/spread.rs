//! Numbers of a sample: how they are spread.

use serde::{Deserialize, Serialize};

/// How long something took, in milliseconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Spread {
    /// How many were measured.
    pub count: usize,
    /// Half of them took no longer.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// Ninety-nine of a hundred.
    pub p99: f64,
    /// None took longer.
    pub max: f64,
}

impl Spread {
    /// Of measured times, in milliseconds: the smallest that is not below the share of them.
    pub fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |hundredths: usize| {
            let rank = (times.len() * hundredths).div_ceil(100);
            times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { count: times.len(), p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }
}

/// A count as a number with fractions.
#[allow(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub fn exact(count: usize) -> f64 {
    count as f64
}
