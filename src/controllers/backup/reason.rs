//! Why a backup is as it is: the fixed list of reasons in conditions and Events of SiteBackups.

use frappe_crds::{backup::BackupOutcomeState, site::BackupOperationKind};

use crate::controllers::reason::{self, Class};

/// A reason. Its name is what people and tools read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString)]
#[cfg_attr(test, derive(strum::VariantArray))]
pub enum Reason {
    /// It was made, and found to be whole where it is kept.
    BackupSucceeded,
    /// It waits for its next time.
    BackupScheduled,
    /// Its Job runs.
    BackupRunning,
    /// No pod of the Job can be made.
    JobNotStarting,
    /// It failed and is tried again.
    BackupRetrying,
    /// It failed for good.
    BackupFailed,
    /// The time for it passed before it could begin.
    BackupMissed,
    /// No further backup begins.
    BackupSuspended,
    /// The backup was restored.
    RestoreSucceeded,
    /// Its Job runs.
    RestoreRunning,
    /// It failed and is tried again.
    RestoreRetrying,
    /// It failed for good.
    RestoreFailed,
    /// The SiteBackup is being deleted, and the Job that removes its backups runs.
    BackupsRemoving,
    /// Its backups are gone, and so will it be.
    BackupsRemoved,
    /// The Job that removes its backups failed, and does so again later.
    BackupRemovalFailed,
    /// The site does not exist.
    SiteNotFound,
    /// The site was not created yet, is suspended, or something else is being done to it.
    SiteBusy,
    /// As many site Jobs of the bench run as may.
    WaitingForJobSlot,
    /// siteRef names a site of another namespace.
    SiteNamespaceRefused,
    /// The schedule or the time zone is none.
    ScheduleInvalid,
    /// Nothing says where the backup is kept.
    StorageMissing,
    /// The storage names what is not the SiteBackup's to name.
    StorageRefused,
    /// The Secret with the keys or the certificates of the storage does not exist.
    StorageSecretMissing,
    /// The operator does not know its own image, which carries backups.
    OperatorImageUnknown,
}

/// Reasons that an operation's end gives, with what ended how.
const ENDS: [(Reason, BackupOperationKind, BackupOutcomeState); 6] = [
    (Reason::BackupSucceeded, BackupOperationKind::Backup, BackupOutcomeState::Succeeded),
    (Reason::BackupFailed, BackupOperationKind::Backup, BackupOutcomeState::Failed),
    (Reason::BackupMissed, BackupOperationKind::Backup, BackupOutcomeState::Missed),
    (Reason::RestoreSucceeded, BackupOperationKind::Restore, BackupOutcomeState::Succeeded),
    (Reason::RestoreFailed, BackupOperationKind::Restore, BackupOutcomeState::Failed),
    (Reason::BackupRemovalFailed, BackupOperationKind::Remove, BackupOutcomeState::Failed),
];

impl Reason {
    /// What ended how, if the reason says that something did.
    pub fn end(self) -> Option<(BackupOperationKind, BackupOutcomeState)> {
        ENDS.into_iter().find(|it| it.0 == self).map(|(_, kind, state)| (kind, state))
    }

    /// The reason of something that ended.
    pub fn of_end(kind: BackupOperationKind, state: BackupOutcomeState) -> Option<Self> {
        ENDS.into_iter().find(|it| (it.1, it.2) == (kind, state)).map(|it| it.0)
    }

    /// What the word of a reason says to have ended, and how: for the counter.
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
