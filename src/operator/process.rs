//! What outlives an incarnation of this replica.

use tokio::sync::watch;

use crate::{cli::RunArguments, fleet_report::Report, io::clock::WallClock};

/// Name of the controller of sites, as in metrics.
pub(super) const SITE_CONTROLLER: &str = "frappesite";
/// The same of SiteBackups.
pub(super) const BACKUP_CONTROLLER: &str = "sitebackup";
/// The same of SiteJobs.
pub(super) const JOB_CONTROLLER: &str = "sitejob";
/// The same of benches.
pub(super) const BENCH_CONTROLLER: &str = "frappebench";

/// What outlives an incarnation.
pub(super) struct Process {
    pub(super) arguments: RunArguments,
    pub(super) wall_clock: WallClock,
    pub(super) pod_name: String,
    pub(super) ready: watch::Sender<Result<(), String>>,
    pub(super) report: watch::Sender<Report>,
}
