//! What a chaos run is.

use std::{path::PathBuf, time::Duration};

/// What is run.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// The program frappe-operator.
    pub operator: PathBuf,
    /// How long faults come.
    pub duration: Duration,
    /// Sites at the beginning.
    pub sites: usize,
    /// Benches that they are on.
    pub benches: usize,
    /// Members.
    pub members: usize,
    /// Where the faults come from.
    pub seed: u64,
    /// Whether the map is edited by hand too.
    pub map_by_hand: bool,
    /// Edits of sites in a second.
    pub edits_per_second: u32,
    /// Duration of the Leases, in seconds.
    pub lease_seconds: u64,
}
