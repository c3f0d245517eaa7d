//! What the SiteBackups of a site lead to. They are looked at by the reconcile of their site, so that a backup never runs
//! beside another operation: what runs is recorded in the site's status (`backup`) before its Job is made. Pure.

mod build;
pub mod index;
mod last;
pub mod reason;
pub mod removal;
mod running;
pub mod schedule;
mod status;
pub mod storage;
mod waiting;

use std::{sync::Arc, time::Duration};

use frappe_crds::{
    FrappeSiteStatus, SiteBackup, SiteBackupStatus,
    backup::{BackupPhase, BackupRun},
    site::{BackupOperation, BackupOperationKind, OperationKind},
};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

pub(super) use self::last::{blocked, last};
use self::status::Times;
pub(crate) use self::waiting::ended_once;
pub use self::{reason::Reason, status::Report};
use super::{
    build::Input,
    observe::Observed,
    operation,
    place::Place,
    plan::{Plan, Step},
};
use crate::domain::labels;

/// Time from what failed for good to the next try of it. Its Jobs, which are kept for an hour, are gone by then.
const AGAIN_AFTER: Duration = Duration::from_mins(70);

/// Time left until then; nothing once it is over.
fn left_until_again(failed_at: Timestamp, now: Timestamp) -> Option<Duration> {
    let elapsed = Duration::try_from(now.duration_since(failed_at)).unwrap_or_default();
    AGAIN_AFTER.checked_sub(elapsed).filter(|left| !left.is_zero())
}

/// Key of the Job of an operation.
pub use build::job_key;

/// Adds to the plan of a site what its SiteBackups lead to. `input` is there where the site could be given a Job.
pub(super) fn add(observed: &Observed, mut plan: Plan, input: Option<&Input>) -> Plan {
    let former = observed.site.status.clone().unwrap_or_default();
    if observed.backups.is_empty() && former.backup.is_none() {
        return plan;
    }
    let mut scene = Scene { observed, plan: &mut plan, input, busy: false };
    scene.busy = !scene.is_free();
    let under_way = former.backup.clone();
    if let Some(operation) = under_way.clone() {
        scene.go_on(operation);
    }
    let ended = under_way.is_some() && scene.recorded().is_none_or(|status| status.backup.is_none());
    scene.others(under_way.as_ref().map(|it| it.site_backup_uid.as_str()), ended);
    plan
}

/// One look at a site and its SiteBackups.
struct Scene<'a> {
    observed: &'a Observed,
    plan: &'a mut Plan,
    input: Option<&'a Input<'a>>,
    busy: bool,
}

impl Scene<'_> {
    fn recorded(&self) -> Option<&FrappeSiteStatus> {
        self.plan.status.as_ref()
    }

    /// Whether the site exists and nothing else is being done to it.
    fn is_free(&self) -> bool {
        let status = self.observed.site.status.clone().unwrap_or_default();
        let idle = self.recorded().is_some_and(|next| next.operation == status.operation || next.operation.is_none());
        let runs = operation::running_job(self.observed).is_some();
        let suspended = self.observed.site.spec.suspend == Some(true);
        let created = status.initialized && status.operation.as_ref().is_none_or(|it| it.kind != OperationKind::Delete);
        created && idle && !runs && !suspended && self.plan.job.is_none() && self.input.is_some()
    }

    fn step(
        &mut self,
        backup: &Arc<SiteBackup>,
        report: &Report,
        times: &Times,
        ended: Option<(BackupRun, Option<String>)>,
    ) {
        let over = ended.is_some();
        let next = status::status(backup, report, times, ended, self.observed.now);
        if backup.status.as_ref() == Some(&next) {
            return;
        }
        let notice = status::notice(backup, report, over);
        let step = Step::BackupStatus(backup.clone(), Box::new(next), notice);
        // What ended is written down before the site forgets it; what begins, after the site has it.
        if over { self.plan.steps.push(step) } else { self.plan.last.push(step) }
    }

    fn record(&mut self, operation: Option<BackupOperation>) {
        let current = self.observed.site.status.clone().unwrap_or_default();
        self.plan.status.get_or_insert(current).backup = operation;
    }

    fn again_after(&mut self, wait: Duration) {
        self.plan.again_after = Some(self.plan.again_after.map_or(wait, |known| known.min(wait)));
    }
}

/// What a reason says to have ended, and how: for the counter.
pub(super) fn ended(reason: &str) -> Option<(&'static str, &'static str)> {
    let known = [
        (Reason::BackupSucceeded, ("backup", "succeeded")),
        (Reason::BackupFailed, ("backup", "failed")),
        (Reason::BackupMissed, ("backup", "missed")),
        (Reason::RestoreSucceeded, ("restore", "succeeded")),
        (Reason::RestoreFailed, ("restore", "failed")),
        (Reason::BackupsRemoved, ("removal", "succeeded")),
        (Reason::BackupRemovalFailed, ("removal", "failed")),
    ];
    known.into_iter().find(|(it, _)| it.to_string() == reason).map(|(_, said)| said)
}

/// The status of a SiteBackup that has no site.
#[expect(clippy::disallowed_methods, reason = "there is no site, and so no reconcile that observed the time")]
pub fn without_site(backup: &SiteBackup, report: &Report) -> SiteBackupStatus {
    status::status(backup, report, &Times::default(), None, Timestamp::now())
}

fn busy() -> Report {
    let message = "waiting: site not initialized, suspended, or busy with another operation";
    Report::new(BackupPhase::Pending, Reason::SiteBusy, message)
}

fn no_room(observed: &Observed) -> Report {
    Report::new(BackupPhase::Pending, Reason::WaitingForJobSlot, super::plan::waits_message(observed))
}

/// The site goes: its SiteBackups are of no site any more, until there is one of its name again.
pub(super) fn release(observed: &Observed) -> Vec<Step> {
    let known = observed.backups.iter().filter(|it| it.labels().contains_key(labels::SLOT) || removal::holds(it));
    known
        .map(|backup| {
            let labels = json!({labels::SLOT: null, "site": null});
            let mut metadata =
                json!({"uid": backup.uid(), "resourceVersion": backup.resource_version(), "labels": labels});
            if removal::holds(backup) {
                metadata["finalizers"] = json!(removal::others(backup));
            }
            Step::PatchBackup(backup.clone(), metadata)
        })
        .collect()
}

/// Whether a backup or restore of the site is under way: nothing else begins meanwhile.
pub(super) fn under_way(observed: &Observed) -> Option<String> {
    let operation = observed.site.status.as_ref()?.backup.as_ref()?;
    let name = build::job_key(&Place::of(&observed.site), operation).name;
    let does = match operation.kind {
        BackupOperationKind::Backup => "is backing up the site",
        BackupOperationKind::Restore => "is restoring the site",
        BackupOperationKind::Remove => "is removing backups of the site",
    };
    Some(format!("Job {name} {does}; other changes wait for it"))
}
