//! SiteBackup: one backup, a schedule of backups, or a restore.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{NamespacedReference, SecretReference};

/// What is backed up, when, and where it is kept; or what is restored.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "vyogo.tech",
    version = "v1alpha1",
    kind = "SiteBackup",
    plural = "sitebackups",
    shortname = "sb",
    category = "frappe",
    namespaced,
    status = "SiteBackupStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A SiteBackup is one backup of a site, a schedule of backups, or a restore of one.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name of a SiteBackup may have at most 63 characters"),
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.siteRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "LastBackup", type_ = "date", json_path = ".status.lastBackup"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.restore) && has(self.schedule))").message("schedule and restore exclude each other: a restore runs once; remove spec.schedule"),
    validation = Rule::new("!has(self.retention) || has(self.schedule)").message("retention needs a schedule: add spec.schedule or remove spec.retention")
)]
pub struct SiteBackupSpec {
    /// The site. Cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("siteRef cannot be changed: create another SiteBackup"))]
    pub site_ref: NamespacedReference,
    /// When to back up, in cron's five fields, UTC, for example `0 2 * * *`. Left out: once, now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[0-9*,/-]+ +[0-9*,/-]+ +[0-9*,/?LW-]+ +[0-9A-Za-z*,/-]+ +[0-9A-Za-z*,/?#L-]+)$')").message("schedule must have the five fields of cron, such as \"0 2 * * *\" for every night at two"))]
    pub schedule: Option<String>,
    /// How long backups are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Where backups are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<BackupStorage>,
    /// Restore this backup into the site instead of making one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
}

/// How long backups are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Retention {
    /// Days that a backup is kept.
    #[schemars(range(min = 1, max = 36_500))]
    pub days: i32,
}

/// Where backups are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct BackupStorage {
    /// An S3 bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Storage>,
}

/// An S3 bucket, or one that speaks its protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Storage {
    /// Name of the bucket.
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-z0-9.-]*[a-z0-9]$')").message("bucket must be an S3 bucket name: lower-case letters, digits, dots and hyphens"))]
    pub bucket: String,
    /// Region of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// URL of the service, if it is not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^[:space:]]+$')").message("endpoint must be an http:// or https:// URL"))]
    pub endpoint: Option<String>,
    /// Path inside the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub prefix: Option<String>,
    /// Secret with the keys `accessKey` and `secretKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretReference>,
}

/// What is restored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.restoreDatabase) && !self.restoreDatabase && has(self.restoreFiles) && !self.restoreFiles)").message("a restore must restore something: set restoreDatabase or restoreFiles to true"))]
pub struct Restore {
    /// Name of the backup.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9_.-]*$')").message("backupName must be the name of a backup, without a path"))]
    pub backup_name: String,
    /// Whether the database is restored. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_database: Option<bool>,
    /// Whether public and private files are restored. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_files: Option<bool>,
}

/// How far a backup or restore is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupPhase {
    /// Not begun.
    #[default]
    Pending,
    /// A Job runs.
    Running,
    /// Done.
    Succeeded,
    /// It did not work.
    Failed,
    /// It waits for its next time.
    Scheduled,
}

/// What the operator sees of a backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteBackupStatus {
    /// How far it is.
    #[serde(default)]
    pub phase: BackupPhase,
    /// Conditions, each with the generation it was seen at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// When the last backup succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<Time>,
    /// Name of the last backup's Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup_job: Option<String>,
    /// What happened, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
