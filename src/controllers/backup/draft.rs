//! Builds the plan of a site's SiteBackups, one SiteBackup after the other. Pure.

use std::{sync::Arc, time::Duration};

use frappe_crds::{
    FrappeSiteStatus, SiteBackup,
    backup::{BackupPhase, BackupRun},
    site::BackupOperation,
};

use super::{
    model::{Plan, Report, Step},
    reason::Reason,
    status::{self, Times},
};
use crate::controllers::site::{
    model::{Observed, Subject},
    operation::waits_message,
};

/// The plan of a site's SiteBackups while it is being built.
pub(super) struct Draft<'a> {
    /// The site and what it depends on.
    pub observed: &'a Observed,
    /// The plan so far.
    pub plan: Plan,
    /// Input of Jobs; None if the site's spec is refused.
    pub input: Option<Subject<'a>>,
    /// Whether no operation may start.
    pub busy: bool,
}

impl Draft<'_> {
    /// Adds the report of a SiteBackup, with a finished run in `ended`.
    pub(super) fn step(
        &mut self,
        backup: &Arc<SiteBackup>,
        report: &Report,
        times: &Times,
        ended: Option<(BackupRun, Option<String>)>,
    ) {
        // A result is written before it is removed from the site's status; a start is written after the site's status.
        if ended.is_some() {
            self.plan.steps.extend(self.status_step(backup, report, times, ended));
        } else {
            self.plan.last.extend(self.status_step(backup, report, times, None));
        }
    }

    /// The write of that status; None if it does not differ.
    pub(super) fn status_step(
        &self,
        backup: &Arc<SiteBackup>,
        report: &Report,
        times: &Times,
        ended: Option<(BackupRun, Option<String>)>,
    ) -> Option<Step> {
        let over = ended.is_some();
        let next = status::status(backup, report, times, ended, self.observed.now);
        let differs = backup.status.as_ref() != Some(&next);
        let notice = status::notice(backup, report, over);
        differs.then(|| Step::Status(backup.clone(), Box::new(next), notice))
    }

    /// Records the running operation, or that there is none.
    pub(super) fn record(&mut self, operation: Option<BackupOperation>) {
        self.plan.status = Some(self.recorded(operation));
    }

    /// The site's status with this operation.
    pub(super) fn recorded(&self, operation: Option<BackupOperation>) -> FrappeSiteStatus {
        let current = || self.observed.site.status.clone().unwrap_or_default();
        FrappeSiteStatus { backup: operation, ..self.plan.status.clone().unwrap_or_else(current) }
    }

    /// Reconciles the site again after this time, or sooner.
    pub(super) fn again_after(&mut self, wait: Duration) {
        self.plan.again_after = Some(self.plan.again_after.map_or(wait, |known| known.min(wait)));
    }
}

/// Report: the SiteBackup waits for the site.
pub(super) fn busy() -> Report {
    let message = "waiting: site not initialized, suspended, or busy with another operation";
    Report::new(BackupPhase::Pending, Reason::SiteBusy, message)
}

/// Report: the SiteBackup waits for a job slot.
pub(super) fn no_job_slot(observed: &Observed) -> Report {
    Report::new(BackupPhase::Pending, Reason::WaitingForJobSlot, waits_message(observed))
}
