//! Codes of failed Jobs, which the site runner and `transfer` write into their termination messages.

use strum::{Display, EnumString, VariantArray};

/// Code of a failure. The runner's list is `CODES` in `src/runner/runner_common.py`; docs/troubleshooting.md explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantArray)]
pub enum Code {
    /// The container wrote no code: it was killed, or its image is of another version.
    Unknown,
    /// The container needed more memory than its limit.
    OutOfMemory,
    /// The Job's request is invalid: a bug of the operator, or another version.
    RequestInvalid,
    /// A Secret lacks a key or has an invalid value.
    SecretInvalid,
    /// Host, port or names of an existing database are invalid.
    ConnectionInvalid,
    /// The ConfigMap with a SiteJob's script does not exist, or lacks the key.
    ScriptMissing,
    /// The script is not the one that `sha256` names.
    ScriptChanged,
    /// The image lacks a required program.
    ProgramMissing,
    /// The image's database client cannot disable client commands in a dump.
    ClientTooOld,
    /// The image lacks apps of the site.
    AppsMissing,
    /// An app to be removed is required by another installed app.
    AppRequired,
    /// The site's name is reserved by Frappe.
    SiteNameReserved,
    /// The database server is unreachable or rejected the login, or a statement failed.
    DatabaseFailed,
    /// The database has tables that no FrappeSite created.
    DatabaseNotEmpty,
    /// The site's directory contains a site that no FrappeSite created.
    SiteDirectoryTaken,
    /// The site to be taken over is not the one of the Secrets and objects.
    SiteMismatch,
    /// The site's directory belongs to another FrappeSite.
    SiteNameTaken,
    /// The site's directory is in the folder of another revision of the bench.
    SiteElsewhere,
    /// Two folders of the bench's revisions have a directory of the site.
    SiteTwice,
    /// A command of Frappe, Git or an app failed.
    CommandFailed,
    /// A file could not be read or written.
    FilesFailed,
    /// Part of the site is missing, or a restore did not complete.
    SiteIncomplete,
    /// The site must be migrated to the schema of the image first.
    UpdateRequired,
    /// The migration failed; the database is as it was before.
    UpdateFailed,
    /// The migration failed, and the database could not be restored.
    RollbackFailed,
    /// The dump of the update that is to be undone is not on the volume.
    DumpMissing,
    /// The Job took longer than its deadline.
    DeadlineExceeded,
    /// The pod was stopped while the command ran.
    JobStopped,
    /// Another pod is working on the site, or on files that the bench's sites share.
    SiteLocked,
    /// Background jobs of the site did not finish while a restore waited for them; the restore changed nothing.
    JobsRunning,
    /// The bench's queue Redis is unreachable.
    QueueUnreachable,
    /// The backup is of another database engine.
    BackupMisfit,
    /// The backup was made with a newer version of Frappe.
    BackupNewer,
    /// The stored backup is corrupt.
    BackupBroken,
    /// The unpacked backup is larger than its manifest says, or than the free space of the volume.
    BackupTooLarge,
    /// The backup does not exist.
    BackupNotFound,
    /// A backup with that name belongs to another site.
    BackupForeign,
    /// The backup was not made with the storage's key.
    BackupNotAuthentic,
    /// The storage has an encryption key, but the backup is not encrypted.
    BackupNotEncrypted,
    /// The bucket does not exist.
    BucketMissing,
    /// The storage denied access.
    CredentialsRefused,
    /// `ca.crt` contains no certificates.
    CertificateWrong,
    /// The endpoint is not an allowed URL.
    EndpointRefused,
    /// The backup is encrypted, but the storage has no key.
    EncryptionKeyMissing,
    /// The key is invalid, or not the backup's.
    EncryptionKeyWrong,
    /// The storage references an object that does not exist or may not be used.
    StorageRefused,
    /// The storage is full.
    StorageFull,
    /// The storage is unreachable.
    StorageUnreachable,
    /// The storage returned another error.
    StorageFailed,
    /// The pod's temporary volume is full.
    StagingFull,
    /// The pod's temporary volume failed.
    StagingFailed,
}

impl Code {
    /// Whether a retry cannot succeed, so that a user must act.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::BackupNewer
                | Self::BackupMisfit
                | Self::BackupBroken
                | Self::BackupNotFound
                | Self::BackupForeign
                | Self::BackupNotAuthentic
                | Self::BackupNotEncrypted
                | Self::BackupTooLarge
                | Self::CertificateWrong
                | Self::ClientTooOld
                | Self::EndpointRefused
                | Self::JobsRunning
                | Self::AppsMissing
                | Self::AppRequired
                | Self::BucketMissing
                | Self::CredentialsRefused
                | Self::StorageFull
                | Self::EncryptionKeyMissing
                | Self::EncryptionKeyWrong
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Words between quotes at the beginning of the lines of a Python dictionary.
    fn runner_codes() -> BTreeSet<String> {
        let text = include_str!("../runner/runner_common.py");
        let begin = text.split_once("CODES = {").map(|(_, rest)| rest).and_then(|rest| rest.split_once('}'));
        let lines = begin.map(|(lines, _)| lines.lines()).expect("the runner has a list");
        lines.filter_map(|line| Some(line.trim().strip_prefix('"')?.split_once('"')?.0.to_owned())).collect()
    }

    #[test]
    fn the_runner_leaves_no_code_that_is_unknown_here() {
        let codes = runner_codes();
        assert!(codes.len() > 10, "{codes:?}");
        for code in &codes {
            assert!(code.parse::<Code>().is_ok(), "{code}");
        }
        let files = [
            include_str!("../runner/runner_apps.py"),
            include_str!("../runner/runner_backup.py"),
            include_str!("../runner/runner_bench.py"),
            include_str!("../runner/runner_code.py"),
            include_str!("../runner/runner_common.py"),
            include_str!("../runner/runner_database.py"),
            include_str!("../runner/runner_hold.py"),
            include_str!("../runner/runner_jobs.py"),
            include_str!("../runner/runner_maintenance.py"),
            include_str!("../runner/runner_revisions.py"),
            include_str!("../runner/runner_run.py"),
            include_str!("../runner/runner_site.py"),
            include_str!("../runner/runner_update.py"),
        ];
        let raised = files.iter().flat_map(|text| text.split("raise Failure(\"").skip(1));
        let raised: BTreeSet<String> = raised.filter_map(|it| Some(it.split_once('"')?.0.to_owned())).collect();
        assert!(raised.len() > 10 && raised.is_subset(&codes), "{raised:?}");
    }
}
