//! `deletionPolicy: Delete`: a Job removes the backups of a SiteBackup before it is deleted. It has the finalizer while the
//! policy is set and the site exists: without a site nothing is removed. Pure.

use std::{sync::Arc, time::Duration};

use frappe_crds::{
    SiteBackup,
    backup::{BackupDeletionPolicy, BackupPhase},
    site::{BackupOperation, BackupOperationKind},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{
    draft::Draft,
    model::{Due, Report, Step},
    reason::Reason,
    status::{self, Times, recorded},
    storage::{image_unknown, is_unseen, storage},
};
use crate::{
    controllers::{
        job::{AGAIN_AFTER, left_until_again},
        site::model::Observed,
    },
    domain::{code::Code, labels, metadata::MetadataPatch, object::finalizers_without, uid},
};

/// How to delete a SiteBackup whose backups cannot be removed.
const OTHERWISE: &str = "to delete the SiteBackup and keep its backups, set deletionPolicy to Retain";

/// Whether the SiteBackup's backups are deleted with it. Before the site exists there are none.
pub(super) fn wanted(observed: &Observed, backup: &SiteBackup) -> bool {
    let created = observed.site.status.as_ref().is_some_and(|it| it.initialized);
    created && backup.spec.deletion_policy == Some(BackupDeletionPolicy::Delete)
}

/// Whether our finalizer is set.
pub fn has_finalizer(backup: &SiteBackup) -> bool {
    backup.finalizers().iter().any(|it| it == labels::BACKUP_FINALIZER)
}

/// Finalizers of a SiteBackup without ours.
pub fn other_finalizers(backup: &SiteBackup) -> Vec<String> {
    finalizers_without(backup, labels::BACKUP_FINALIZER)
}

/// Removes the finalizer of a SiteBackup that is being deleted. No finalizer can be added then, so the version does not matter.
fn release(backup: &Arc<SiteBackup>) -> Step {
    Step::Patch(
        backup.clone(),
        MetadataPatch::at_any_version(backup.as_ref()).with_finalizers(other_finalizers(backup)),
    )
}

/// Time until the retry after a permanent failure. A changed spec is retried at once.
fn failed(observed: &Observed, backup: &SiteBackup) -> Option<Duration> {
    let status = backup.status.as_ref().filter(|it| it.observed_generation == backup.metadata.generation)?;
    let outcome = recorded(status).filter(|it| it.kind == BackupOperationKind::Remove)?;
    left_until_again(outcome.finished_at.0, observed.now)
}

impl Draft<'_> {
    /// SiteBackups that are being deleted and whose backups must be removed; the others are released.
    pub(super) fn removals(&mut self, under_way: Option<&str>) -> Vec<Due> {
        let leaves = |it: &&Arc<SiteBackup>| it.metadata.deletion_timestamp.is_some() && has_finalizer(it);
        let mut due = Vec::new();
        for backup in self.observed.backups.iter().filter(leaves).filter(|it| it.uid().as_deref() != under_way) {
            if !wanted(self.observed, backup) {
                self.plan.prepare.push(release(backup));
            } else if let Some(left) = failed(self.observed, backup) {
                self.again_after(left);
            } else {
                due.extend(self.removal(backup));
            }
        }
        due
    }

    fn removal(&mut self, backup: &Arc<SiteBackup>) -> Option<Due> {
        let stored = storage(self.observed, backup).map(|_| ());
        self.plan.missing |= stored.as_ref().is_err_and(|it| is_unseen(self.observed, backup, it));
        let able = stored.and_then(|()| self.observed.operator_image.as_ref().map(|_| ()).ok_or_else(image_unknown));
        if let Err((reason, message)) = able {
            let message = format!("backups cannot be removed: {message}; {OTHERWISE}");
            self.step(backup, &Report::new(BackupPhase::Failed, reason, message), &Times::default(), None);
            return None;
        }
        let operation = BackupOperation {
            kind: BackupOperationKind::Remove,
            site_backup: backup.name_any(),
            site_backup_uid: uid::of(backup.as_ref()).to_owned(),
            // A changed spec has other Jobs: those of the previous spec may have failed.
            run: format!("removal-{}", backup.metadata.generation.unwrap_or_default()),
            scheduled_at: backup.metadata.deletion_timestamp.clone()?,
            started_at: Time(self.observed.now),
            attempt: 1,
            epoch: self.observed.epoch,
        };
        Some(Due { backup: backup.clone(), operation })
    }

    /// The running removal; None if it is no longer requested.
    pub(super) fn being_removed(&self, operation: &BackupOperation) -> Option<Arc<SiteBackup>> {
        let of = |it: &&Arc<SiteBackup>| it.uid().as_deref() == Some(operation.site_backup_uid.as_str());
        self.observed.backups.iter().find(of).filter(|it| has_finalizer(it) && wanted(self.observed, it)).cloned()
    }

    /// The Job succeeded: the finalizer is removed.
    pub(super) fn removed(&mut self, backup: &Arc<SiteBackup>) {
        let count = self.observed.backup_succeeded().removed.len();
        let message = format!("backups removed: {count}");
        let report = Report::new(BackupPhase::Succeeded, Reason::BackupsRemoved, message);
        self.record_result(backup, &report);
        self.plan.steps.push(release(backup));
        self.record(None);
    }

    /// The Job failed permanently: other operations of the site may run until the retry.
    pub(super) fn not_removed(&mut self, backup: &Arc<SiteBackup>, code: Code, why: &str) {
        let minutes = AGAIN_AFTER.as_secs() / 60;
        let message = format!("{why}; retried after {minutes} min, and when the spec changes; {OTHERWISE}");
        let report = Report::new(BackupPhase::Failed, Reason::BackupRemovalFailed, message);
        self.record_result(backup, &Report { detail: Some(code), ..report });
        self.record(None);
    }

    /// Records the result before it is removed from the site's status.
    fn record_result(&mut self, backup: &Arc<SiteBackup>, report: &Report) {
        let next = status::status(backup, report, &Times::default(), None, self.observed.now);
        if backup.status.as_ref() != Some(&next) {
            let notice = status::notice(backup, report, true);
            self.plan.steps.push(Step::Status(backup.clone(), Box::new(next), notice));
        }
    }
}
