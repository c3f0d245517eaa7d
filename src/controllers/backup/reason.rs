//! The fixed list of reasons in conditions and Events of SiteBackups.

use frappe_crds::{backup::BackupOutcomeState, site::BackupOperationKind};

use crate::controllers::reason::{self, Class};

/// A reason. Its name is shown to users and tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString)]
#[cfg_attr(test, derive(strum::VariantArray))]
pub enum Reason {
    /// The backup was completed and verified in storage.
    BackupSucceeded,
    /// No backup is due yet.
    BackupScheduled,
    /// The backup Job is running.
    BackupRunning,
    /// The Job's pod cannot be created, or does not start.
    JobNotStarting,
    /// The backup Job failed and is retried.
    BackupRetrying,
    /// The backup failed permanently.
    BackupFailed,
    /// The backup could not start before its deadline.
    BackupMissed,
    /// No backup starts while the SiteBackup is suspended.
    BackupSuspended,
    /// The backup was restored.
    RestoreSucceeded,
    /// The restore Job is running.
    RestoreRunning,
    /// The restore Job failed and is retried.
    RestoreRetrying,
    /// The restore failed permanently.
    RestoreFailed,
    /// The SiteBackup is being deleted, and a Job is removing its backups.
    BackupsRemoving,
    /// The backups were removed; the SiteBackup is deleted next.
    BackupsRemoved,
    /// The Job that removes the backups failed; it is retried later.
    BackupRemovalFailed,
    /// The site does not exist.
    SiteNotFound,
    /// The site is not initialized, is suspended, or has another operation.
    SiteBusy,
    /// The bench is at its limit of concurrent site Jobs.
    WaitingForJobSlot,
    /// `siteRef` is a site of another namespace.
    SiteNamespaceRefused,
    /// The schedule or the time zone is invalid.
    ScheduleInvalid,
    /// No storage is set.
    StorageMissing,
    /// The storage references an object that the SiteBackup may not use.
    StorageRefused,
    /// The Secret with the storage's keys or certificates does not exist.
    StorageSecretMissing,
    /// The operator does not know its own image, which backup Jobs need.
    OperatorImageUnknown,
}

/// Reasons of a finished operation, with its kind and result.
const ENDS: [(Reason, BackupOperationKind, BackupOutcomeState); 6] = [
    (Reason::BackupSucceeded, BackupOperationKind::Backup, BackupOutcomeState::Succeeded),
    (Reason::BackupFailed, BackupOperationKind::Backup, BackupOutcomeState::Failed),
    (Reason::BackupMissed, BackupOperationKind::Backup, BackupOutcomeState::Missed),
    (Reason::RestoreSucceeded, BackupOperationKind::Restore, BackupOutcomeState::Succeeded),
    (Reason::RestoreFailed, BackupOperationKind::Restore, BackupOutcomeState::Failed),
    (Reason::BackupRemovalFailed, BackupOperationKind::Remove, BackupOutcomeState::Failed),
];

impl Reason {
    /// The kind and result of the finished operation; None if the reason is not of one.
    pub fn end(self) -> Option<(BackupOperationKind, BackupOutcomeState)> {
        ENDS.into_iter().find(|it| it.0 == self).map(|(_, kind, state)| (kind, state))
    }

    /// The reason for a finished operation.
    pub fn of_end(kind: BackupOperationKind, state: BackupOutcomeState) -> Option<Self> {
        ENDS.into_iter().find(|it| (it.1, it.2) == (kind, state)).map(|it| it.0)
    }

    /// The metric labels `operation` and `result` for a reason's name.
    pub fn counted(word: &str) -> Option<(&'static str, &'static str)> {
        let known = [
            (Self::BackupSucceeded, ("backup", "succeeded")),
            (Self::BackupFailed, ("backup", "failed")),
            (Self::BackupMissed, ("backup", "missed")),
            (Self::RestoreSucceeded, ("restore", "succeeded")),
            (Self::RestoreFailed, ("restore", "failed")),
            (Self::BackupsRemoved, ("removal", "succeeded")),
            (Self::BackupRemovalFailed, ("removal", "failed")),
        ];
        known.into_iter().find(|(it, _)| it.to_string() == word).map(|(_, counted)| counted)
    }
}

impl reason::Reason for Reason {
    fn class(self) -> Class {
        match self {
            Self::BackupSucceeded | Self::RestoreSucceeded | Self::BackupsRemoved => Class::Done,
            Self::BackupRunning | Self::RestoreRunning | Self::BackupsRemoving => Class::Working,
            Self::BackupScheduled | Self::BackupSuspended | Self::SiteBusy | Self::WaitingForJobSlot => Class::Waiting,
            Self::SiteNotFound
            | Self::SiteNamespaceRefused
            | Self::ScheduleInvalid
            | Self::StorageMissing
            | Self::StorageRefused
            | Self::StorageSecretMissing
            | Self::OperatorImageUnknown => Class::Refused,
            Self::BackupRetrying
            | Self::BackupFailed
            | Self::JobNotStarting
            | Self::BackupMissed
            | Self::RestoreRetrying
            | Self::RestoreFailed
            | Self::BackupRemovalFailed => Class::Failed,
        }
    }
}
