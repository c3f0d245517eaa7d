//! The running backup, restore, removal of backups, or SiteJob. Pure.

use frappe_crds::{
    job::JobOperation,
    site::{BackupOperation, BackupOperationKind},
};
use kube::ResourceExt as _;

use super::{model::Observed, place::Place};
use crate::domain::{key::Key, names::hash_hex};

/// Hex digits of the hash in a Job's name.
const RUN_HASH_DIGITS: usize = 8;

/// Name of the Job of an operation.
pub fn job_key(place: &Place, operation: &BackupOperation) -> Key {
    let verb = match operation.kind {
        BackupOperationKind::Backup => "backup",
        BackupOperationKind::Restore => "restore",
        BackupOperationKind::Remove => "remove",
    };
    // Unique for each run, because the Job of a previous run may still exist.
    let run = hash_hex(
        &format!("{} {} {}", operation.site_backup_uid, operation.run, operation.scheduled_at.0),
        RUN_HASH_DIGITS,
    );
    place.job(&format!("{verb}-{run}"), operation.attempt)
}

/// Name of the Job of a SiteJob. The first one runs it; the others end the maintenance mode that it has left.
pub fn site_job_key(place: &Place, operation: &JobOperation) -> Key {
    place.job(&format!("job-{}", hash_hex(&operation.site_job_uid, RUN_HASH_DIGITS)), operation.attempt)
}

/// Message about the running operation, which blocks others.
pub fn under_way(observed: &Observed) -> Option<String> {
    if let Some(operation) = observed.site.status.as_ref().and_then(|it| it.job.as_ref()) {
        return Some(format!("SiteJob {} is running; other changes wait for it", operation.site_job));
    }
    let operation = observed.site.status.as_ref()?.backup.as_ref()?;
    let does = match operation.kind {
        BackupOperationKind::Backup => "backing up the site",
        BackupOperationKind::Restore => "restoring the site",
        BackupOperationKind::Remove => "removing backups of the site",
    };
    let name = &operation.site_backup;
    Some(match &observed.backup_job {
        Some(job) => format!("Job {} is {does}; other changes wait for it", job.name_any()),
        None => format!("SiteBackup {name} is about to start {does}; other changes wait for it"),
    })
}
