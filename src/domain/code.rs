//! Why a step of a Job failed: the words that runner and transfer leave for the operator in their termination messages.

use strum::{Display, EnumString, VariantArray};

/// Why a step failed. The runner's list is `CODES` in `src/runner/runner_common.py`; docs/troubleshooting.md explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString, VariantArray)]
pub enum Code {
    /// The container left no code: it was killed, or its image is of another version.
    Unknown,
    /// The Job's request is wrong: a fault of the operator, or of another version.
    RequestInvalid,
    /// A Secret lacks a key, or holds what is none.
    SecretInvalid,
    /// Host, port or names of an existing database are wrong.
    ConnectionInvalid,
    /// The image lacks a program that is needed.
    ProgramMissing,
    /// The image's database client cannot be kept from running commands of a dump.
    ClientTooOld,
    /// The image lacks apps that the site has.
    AppsMissing,
    /// An app is to be removed that one requires which stays.
    AppRequired,
    /// The site's name is one that Frappe uses for itself.
    SiteNameReserved,
    /// The database server cannot be reached, refused the login, or a statement failed.
    DatabaseFailed,
    /// The database has tables that no FrappeSite made.
    DatabaseNotEmpty,
    /// The site's directory holds a site that no FrappeSite made.
    SiteDirectoryTaken,
    /// What is to be taken over is not the site of these Secrets and objects.
    SiteMismatch,
    /// The site's directory belongs to another FrappeSite.
    SiteNameTaken,
    /// A command of Frappe's, Git's or of an app's failed.
    CommandFailed,
    /// A file could not be read or written.
    FilesFailed,
    /// The site lacks a part, or is half restored.
    SiteIncomplete,
    /// Another pod works on the site.
    SiteLocked,
    /// Jobs of the site did not end in the time that a restore waits for them.
    JobsRunning,
    /// The Redis of the bench's queues cannot be reached.
    QueueUnreachable,
    /// The backup is of another database engine.
    BackupMisfit,
    /// The backup was made by a newer Frappe than the bench's.
    BackupNewer,
    /// What is stored is not what was made.
    BackupBroken,
    /// The backup unpacks to more than was made, or than the volume has room for.
    BackupTooLarge,
    /// There is no such backup.
    BackupNotFound,
    /// A backup of that name is of another site.
    BackupForeign,
    /// The backup was not made with this key.
    BackupNotAuthentic,
    /// The storage has a key, and the backup is in clear.
    BackupNotEncrypted,
    /// The bucket does not exist.
    BucketMissing,
    /// The service refused the credentials.
    CredentialsRefused,
    /// `ca.crt` holds no certificates.
    CertificateWrong,
    /// The endpoint is not the URL of a service.
    EndpointRefused,
    /// The backup is encrypted and the storage names no key.
    EncryptionKeyMissing,
    /// The key is none, or not the backup's.
    EncryptionKeyWrong,
    /// The storage names what is not the SiteBackup's to name, or what does not exist.
    StorageRefused,
    /// No room is left where backups are kept.
    StorageFull,
    /// The service cannot be reached.
    StorageUnreachable,
    /// The service answered with another error.
    StorageFailed,
    /// No room is left in the pod.
    StagingFull,
    /// The pod's own disk failed.
    StagingFailed,
}

impl Code {
    /// Whether no further try mends it: somebody must act.
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
            include_str!("../runner/runner_common.py"),
            include_str!("../runner/runner_database.py"),
            include_str!("../runner/runner_jobs.py"),
            include_str!("../runner/runner_site.py"),
        ];
        let raised = files.iter().flat_map(|text| text.split("raise Failure(\"").skip(1));
        let raised: BTreeSet<String> = raised.filter_map(|it| Some(it.split_once('"')?.0.to_owned())).collect();
        assert!(raised.len() > 10 && raised.is_subset(&codes), "{raised:?}");
    }
}
