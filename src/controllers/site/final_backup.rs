//! The final backup of `deletionPolicy: Backup`: made after the routes are deleted, and before anything else is removed. Its
//! success is recorded in the history of the SiteBackup that made it. Pure.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use frappe_crds::{
    SiteBackup,
    backup::BackupRun,
    site::{BackupOperation, BackupOperationKind},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{
    model::{Observed, Plan, Report, Stage},
    operation,
    reason::Reason,
    under_way::under_way,
};
use crate::controllers::{
    backup::{
        reason::Reason as BackupReason,
        storage::{Refusal, image_unknown, is_unseen, storage},
    },
    job::{AGAIN_AFTER, left_until_again},
};
use crate::domain::uid;

/// The plan until the final backup has succeeded; None afterwards.
pub(super) fn final_backup(observed: &Observed) -> Option<Plan> {
    let deleted_at = observed.site.metadata.deletion_timestamp.as_ref()?.0;
    if observed.backups.iter().any(|it| last_run(it, deleted_at).is_some_and(|run| run.succeeded)) {
        return None;
    }
    if let Some(does) = under_way(observed) {
        return Some(waits(observed, &format!("{does}: nothing else is removed before it has finished")));
    }
    // While a Job creates or changes the site, no dump is made.
    if let Some(job) = operation::running_job(observed) {
        return Some(waits(observed, &format!("waiting for Job {} before the final backup", job.name_any())));
    }
    let maker = match maker(observed, deleted_at) {
        Ok(maker) => maker,
        Err((reason, message)) => {
            let unseen = |it: &Arc<SiteBackup>| storage(observed, it).is_err_and(|why| is_unseen(observed, it, &why));
            let missing = observed.backups.iter().any(unseen);
            return Some(Plan { missing, ..blocked(observed, &format!("{reason}: {message}")) });
        }
    };
    if let Some((why, after)) = failed(observed, &maker, deleted_at) {
        return Some(Plan { again_after: Some(after), ..blocked(observed, &why) });
    }
    Some(begin(observed, &maker, deleted_at))
}

/// Records the final backup: the SiteBackup controller executes it, and the site waits.
fn begin(observed: &Observed, maker: &SiteBackup, deleted_at: Timestamp) -> Plan {
    let operation = BackupOperation {
        kind: BackupOperationKind::Backup,
        site_backup: maker.name_any(),
        site_backup_uid: uid::of(maker).to_owned(),
        run: name(maker, deleted_at),
        scheduled_at: Time(deleted_at),
        started_at: Time(observed.now),
        attempt: 1,
        epoch: observed.epoch,
    };
    let message = format!(
        "SiteBackup {} is making the final backup {}: nothing else is removed before it has finished",
        operation.site_backup, operation.run
    );
    let mut plan = waits(observed, &message);
    if let Some(status) = plan.status.as_mut() {
        status.backup = Some(operation);
    }
    plan
}

fn waits(observed: &Observed, message: &str) -> Plan {
    let report = Report::pending(Stage::Done, Stage::Done, Reason::Deleting, message.to_owned());
    Plan::report(observed, &report, None)
}

/// Pauses the deletion until a user acts.
pub(super) fn blocked(observed: &Observed, why: &str) -> Plan {
    let message = format!(
        "final backup failed: {why}; deletion is paused: correct the cause, or set deletionPolicy to Delete or Retain"
    );
    Plan::report(observed, &Report::failed(Stage::Done, Stage::Done, Reason::FinalBackupFailed, message), None)
}

/// Name of the final backup: `NAME-final-2024-01-15-0200`, UTC, after the time at which the site was deleted.
fn name(maker: &SiteBackup, deleted_at: Timestamp) -> String {
    format!("{}-final-{}", maker.name_any(), deleted_at.strftime("%Y-%m-%d-%H%M"))
}

fn last_run(backup: &SiteBackup, deleted_at: Timestamp) -> Option<&BackupRun> {
    let (name, at) = (name(backup, deleted_at), Some(Time(deleted_at)));
    backup.status.as_ref()?.history.iter().find(|run| run.name == name && run.scheduled_at == at)
}

/// The SiteBackup that makes it: one with a usable storage, preferably one that has not failed and has a schedule.
fn maker(observed: &Observed, deleted_at: Timestamp) -> Result<Arc<SiteBackup>, Refusal> {
    if observed.operator_image.is_none() {
        return Err(image_unknown());
    }
    let own = observed.site.namespace();
    let may = |it: &&Arc<SiteBackup>| {
        it.spec.restore.is_none()
            && it.metadata.deletion_timestamp.is_none()
            && (it.spec.site_ref.namespace.is_none() || it.spec.site_ref.namespace == own)
    };
    let mut makers: Vec<_> = observed.backups.iter().filter(may).collect();
    makers.sort_by_key(|it| (last_run(it, deleted_at).is_some(), Reverse(it.spec.schedule.is_some()), it.name_any()));
    let mut refused = None;
    for it in makers {
        match storage(observed, it) {
            Ok(_) => return Ok(it.clone()),
            Err((reason, message)) => {
                refused.get_or_insert((reason, format!("SiteBackup {}: {message}", it.name_any())));
            }
        }
    }
    Err(refused.unwrap_or_else(|| {
        let message = "no SiteBackup of the site has spec.storage: create one";
        (BackupReason::StorageMissing, message.to_owned())
    }))
}

/// Why it failed permanently, and the time until its retry.
fn failed(observed: &Observed, maker: &SiteBackup, deleted_at: Timestamp) -> Option<(String, Duration)> {
    let run = last_run(maker, deleted_at)?;
    let left = left_until_again(run.finished_at.as_ref()?.0, observed.now)?;
    let why = format!(
        "{}; retried {} min after the failure, or at once if SiteBackup {} is deleted and created again",
        run.message.clone().unwrap_or_else(|| format!("{} failed", run.name)),
        AGAIN_AFTER.as_secs() / 60,
        maker.name_any()
    );
    Some((why, left))
}
