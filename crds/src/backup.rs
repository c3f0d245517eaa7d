//! SiteBackup: one backup, a schedule of backups, or a restore.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{NamespacedReference, Quantity, SecretReference};

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
    validation = Rule::new("!has(self.restore) || !has(self.restore.sourceSite) || has(self.storage)").message("restore.sourceSite needs storage: set spec.storage to where the other site's backups are kept"),
    validation = Rule::new("!has(self.deletionPolicy) || self.deletionPolicy != 'Delete' || has(self.storage)").message("deletionPolicy Delete needs storage: set spec.storage to where the backups are kept"),
    validation = Rule::new("!has(self.retention) || has(self.schedule)").message("retention needs a schedule: add spec.schedule or remove spec.retention")
)]
pub struct SiteBackupSpec {
    /// The site. Cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("siteRef cannot be changed: create another SiteBackup"))]
    pub site_ref: NamespacedReference,
    /// When to back up, in cron's five fields, for example `0 2 * * *`. `H` in place of a number is one that is chosen by
    /// the site, so that many sites with one schedule do not all begin at once: `H 2 * * *`. Left out: once, now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[0-9*,/H-]+ +[0-9*,/H-]+ +[0-9*,/?LWH-]+ +[0-9A-Za-z*,/-]+ +[0-9A-Za-z*,/?#L-]+)$')").message("schedule must have the five fields of cron, such as \"0 2 * * *\" for every night at two"))]
    pub schedule: Option<String>,
    /// Time zone of the schedule, as the IANA database names it, for example `Europe/Berlin`. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_+/-]+$')").message("timeZone must be a name of the IANA database, such as Europe/Berlin"))]
    pub time_zone: Option<String>,
    /// How late a backup that was missed may still begin, in seconds. Default: until the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub starting_deadline_seconds: Option<i64>,
    /// Whether no further backup begins. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// How long backups are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Where backups are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<BackupStorage>,
    /// What becomes of the backups when the SiteBackup is deleted while its site exists. Default: Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<BackupDeletionPolicy>,
    /// Restore this backup into the site instead of making one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
}

/// What becomes of backups without their SiteBackup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupDeletionPolicy {
    /// They stay.
    #[default]
    Retain,
    /// All that it made of the site are removed, the last good one too, and then it goes.
    Delete,
}

/// How long backups are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.days) || has(self.keepLast)").message("retention must say something: set days or keepLast"))]
pub struct Retention {
    /// Days that a backup is kept. Left out: as long as it is one of the newest `keepLast`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36_500))]
    pub days: Option<i32>,
    /// How many of the newest backups are kept, however old they are. Default: 1, so that the last good one never goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_last: Option<i32>,
}

/// Where backups are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.s3) != has(self.persistentVolumeClaim)").message("storage must be one of s3 and persistentVolumeClaim"))]
pub struct BackupStorage {
    /// An S3 bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Storage>,
    /// A volume other than the sites'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimStorage>,
    /// Secret whose key `identity` has an age identity (`age-keygen`). With it each part is encrypted before it leaves the pod,
    /// and the keys by which the site's stored passwords are read go with the backup. Keep it elsewhere than the backups:
    /// without it they cannot be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_key_secret_ref: Option<SecretReference>,
    /// Largest size of a backup while it is on its way, on the disk of a node. Default: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging_size_limit: Option<Quantity>,
    /// ServiceAccount of the Jobs, where the cloud knows them by it instead of by keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
}

/// A volume in the namespace of the bench.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimStorage {
    /// Name of the PersistentVolumeClaim.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// Path inside the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9!_.*()-]+(/[A-Za-z0-9!_.*()-]+)*$') && !self.split('/').exists(it, it == '..' || it == '.')").message("path must be names with slashes between, without . and .."))]
    pub path: Option<String>,
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
    /// Path inside the bucket. Two clusters that share a bucket need two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9!_.*()-]+(/[A-Za-z0-9!_.*()-]+)*$') && !self.split('/').exists(it, it == '..' || it == '.')").message("prefix must be names with slashes between, without . and .."))]
    pub prefix: Option<String>,
    /// Secret with the keys `accessKey` and `secretKey`, and `sessionToken` where the keys are temporary. Left out: the
    /// Jobs' ServiceAccount is what the cloud knows them by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretReference>,
    /// Whether the bucket is a part of the path instead of the host name. Default: true where endpoint is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_path_style: Option<bool>,
    /// Secret whose key `ca.crt` has the certificates that the service's own is checked with, where they are not the
    /// public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretReference>,
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
    /// Name of the FrappeSite whose backup it is, of the same namespace, where it is another one: the site becomes a copy of
    /// it. That one need not exist any more. Needs `storage`. Default: the site itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message("sourceSite must be the name of a FrappeSite"))]
    pub source_site: Option<String>,
    /// Whether the database is restored. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_database: Option<bool>,
    /// Whether public and private files are restored. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_files: Option<bool>,
    /// Whether the site as it is is backed up first, to the same storage, as `NAME-before-…`. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_backup: Option<bool>,
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
    /// When the last backup that succeeded was due, which is the state of the site that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<Time>,
    /// The last backup that was found to be whole where it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_backup: Option<BackupRun>,
    /// What was done, the newest first: at most 10 that succeeded and 5 that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub history: Vec<BackupRun>,
    /// Until when the schedule was looked at: what was due until then was done, or was missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When the next backup is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
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

/// One backup that was made, or one restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRun {
    /// Name of the backup: what `restore.backupName` asks for. Of a restore: what was restored.
    pub name: String,
    /// Whether it succeeded.
    pub succeeded: bool,
    /// When it was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Time>,
    /// When its Job began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When its Job ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Size of all parts, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
