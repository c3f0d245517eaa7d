//! Request and file paths of a transfer.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::report::Failure;
use crate::domain::code::Code;

/// Staging directory in the Job's pod.
pub const STAGING: &str = "/run/frappe-backup";

/// Directory with the keys of the storage's Secrets, `ca.crt` and `identity`, if given.
pub const CREDENTIALS: &str = "/run/frappe-storage";

/// Mount path of the backup volume.
pub const VOLUME: &str = "/run/frappe-backups";

/// Request, in this order: upload a backup, remove old ones, download one; or remove all of a SiteBackup. Contains no secret.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Storage.
    pub place: Place,
    /// Folder of the site's backups in the storage.
    pub folder: String,
    /// Backup to upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Storing>,
    /// Backups to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Name or name prefix of the backup to download; the newest if several match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<String>,
    /// Folder to download from, if it is another site's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_folder: Option<String>,
    /// Whether an encrypted backup with an unauthenticated manifest is accepted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unauthenticated: bool,
    /// Owner whose backups are all removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<Maker>,
    /// Files in the directory of credentials that must exist, with Secret and key of each: without the key, a backup would not be
    /// encrypted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<String, [String; 2]>,
}

impl Request {
    /// Fails if a key of the storage's Secrets is missing or empty.
    pub fn check_credentials(&self, folder: &Path) -> Result<(), Failure> {
        let lacks = |file: &String| {
            let content = std::fs::read(folder.join(file)).unwrap_or_default();
            content.trim_ascii().is_empty()
        };
        let Some((_, [secret, key])) = self.needs.iter().find(|(file, _)| lacks(file)) else { return Ok(()) };
        let message = format!("Secret {secret} has no key {key}, or it is empty");
        Err(Failure { step: "secrets", code: Code::SecretInvalid, message })
    }
}

/// Owner of backups: a SiteBackup of a site.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Maker {
    /// The SiteBackup.
    pub site_backup: String,
    /// The site's identity.
    pub identity: String,
}

/// A backup to upload.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Storing {
    /// Its name.
    pub name: String,
    /// The SiteBackup that makes it.
    pub site_backup: String,
    /// The site: namespace/name.
    pub site: String,
    /// The site's identity.
    pub identity: String,
    /// Scheduled time.
    pub scheduled_at: Timestamp,
    /// Whether the parts may be missing because the backup is already uploaded.
    #[serde(default)]
    pub may_be_stored: bool,
}

/// Retention of a SiteBackup's backups.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Owner.
    #[serde(flatten)]
    pub maker: Maker,
    /// Days to keep a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<i32>,
    /// Number of newest backups to keep.
    pub keep_last: usize,
}

/// Directories of the pod.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Staging directory.
    pub staging: PathBuf,
    /// Keys.
    pub credentials: PathBuf,
    /// Backup volume.
    pub volume: PathBuf,
}

/// A storage.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// A bucket of Amazon S3 or a compatible service.
    S3(Bucket),
    /// A container of Azure Blob Storage.
    Azure(Container),
    /// A bucket of Google Cloud Storage.
    Gcs(GcsBucket),
    /// The mounted volume.
    Volume,
}

/// A bucket of Amazon S3 or a compatible service.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// Its name.
    #[serde(rename = "bucket")]
    pub name: String,
    /// Its region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// URL of the service. Default: Amazon S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether the bucket is in the path instead of the host name.
    #[serde(default)]
    pub path_style: bool,
    /// Whether objects and parts are sent without a checksum.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_checksum: bool,
}

/// A container of Azure Blob Storage.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The storage account.
    pub account: String,
    /// Its name.
    #[serde(rename = "container")]
    pub name: String,
    /// URL of the Blob service. Default: the account's in the public cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The Secret of its keys. Default: the identity of the pod's ServiceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// A bucket of Google Cloud Storage.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GcsBucket {
    /// Its name.
    #[serde(rename = "bucket")]
    pub name: String,
    /// URL of the service. Default: Google's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The Secret of its key. Default: the identity of the pod's ServiceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}
