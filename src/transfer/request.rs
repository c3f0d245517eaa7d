//! What a transfer is asked for, and where it finds its files.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Folder of the backup on its way, in the Job's pod.
pub const STAGING: &str = "/run/frappe-backup";

/// Folder with `accessKey`, `secretKey`, `sessionToken`, `ca.crt` and `identity`, as far as they are given.
pub const CREDENTIALS: &str = "/run/frappe-storage";

/// Where the volume that backups are kept on is mounted.
pub const VOLUME: &str = "/run/frappe-backups";

/// What is to be done, in this order: a backup is stored, old ones are removed, one is fetched; or all of a SiteBackup are
/// removed. Has no secret.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Where backups are kept.
    pub place: Place,
    /// Folder of the site's backups there.
    pub folder: String,
    /// What is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Storing>,
    /// What is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Name of the backup that is fetched, or the beginning of its name: then the newest of those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<String>,
    /// Folder that it is fetched from, where it is another site's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_folder: Option<String>,
    /// Whether an encrypted backup is fetched whose manifest the key does not authenticate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unauthenticated: bool,
    /// Whose backups are removed, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<Maker>,
}

/// Who made backups: a SiteBackup, of a site.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Maker {
    /// The SiteBackup.
    pub site_backup: String,
    /// The site's identity.
    pub identity: String,
}

/// A backup that is stored.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Storing {
    /// Its name.
    pub name: String,
    /// The SiteBackup that asks for it.
    pub site_backup: String,
    /// The site: namespace/name.
    pub site: String,
    /// The site's identity.
    pub identity: String,
    /// When it was due.
    pub scheduled_at: Timestamp,
    /// Whether the pod may have made none because the backup is stored already.
    #[serde(default)]
    pub may_be_stored: bool,
}

/// Which backups of a SiteBackup go.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Who made them.
    #[serde(flatten)]
    pub maker: Maker,
    /// Days that one is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<i32>,
    /// How many of the newest are kept in any case.
    pub keep_last: usize,
}

/// Folders of the pod.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Of the backup on its way.
    pub staging: PathBuf,
    /// Of keys.
    pub credentials: PathBuf,
    /// Of the volume that backups are kept on.
    pub volume: PathBuf,
}

/// A place.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// A bucket.
    S3(Bucket),
    /// The volume that is mounted.
    Volume,
}

/// A bucket that speaks S3's protocol.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// Its name.
    #[serde(rename = "bucket")]
    pub name: String,
    /// Its region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// URL of the service, if it is not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether the bucket is in the path instead of the host name.
    #[serde(default)]
    pub path_style: bool,
}
