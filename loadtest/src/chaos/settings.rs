//! Settings of a chaos run.

use std::{path::PathBuf, time::Duration};

/// Settings.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// The program frappe-operator.
    pub operator: PathBuf,
    /// How long faults are injected.
    pub duration: Duration,
    /// Initial number of sites.
    pub sites: usize,
    /// Number of benches.
    pub benches: usize,
    /// Number of members.
    pub members: usize,
    /// Seed of the faults.
    pub seed: u64,
    /// Whether the map is edited, too.
    pub map_by_hand: bool,
    /// Edits of sites per second.
    pub edits_per_second: u32,
    /// Duration of the Leases, in seconds.
    pub lease_seconds: u64,
}
