//! SiteBackup: one backup, a schedule of backups, or a restore.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    backup_storage::BackupStorage,
    common::NamespacedReference,
    site::BackupOperationKind,
    window::{CronExpression, TimeZone},
};

/// What to back up, when, and where to store it; or what to restore.
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
    validation = Rule::new("!(has(self.restore) && has(self.schedule))").message("schedule and restore are mutually exclusive: a restore runs once; remove spec.schedule"),
    validation = Rule::new("!has(self.restore) || !has(self.restore.sourceSite) || has(self.storage)").message("restore.sourceSite requires storage: set spec.storage to where the other site's backups are stored"),
    validation = Rule::new("!has(self.deletionPolicy) || self.deletionPolicy != 'Delete' || has(self.storage)").message("deletionPolicy Delete requires storage: set spec.storage to where the backups are stored"),
    validation = Rule::new("!has(self.retention) || has(self.schedule)").message("retention requires a schedule: add spec.schedule or remove spec.retention")
)]
pub struct SiteBackupSpec {
    /// The site. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("siteRef cannot be changed: create another SiteBackup"))]
    pub site_ref: NamespacedReference,
    /// When to back up, as a cron expression with five fields, for example `0 2 * * *`. `H` stands for a number derived from the
    /// site, so that sites with the same schedule start at different times: `H 2 * * *`. Default: once, immediately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<CronExpression>,
    /// IANA time zone of the schedule, for example `Europe/Berlin`. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<TimeZone>,
    /// Deadline in seconds for starting a backup that missed its time. Default: until the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub starting_deadline_seconds: Option<i64>,
    /// If true, no further backups start. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// How long to keep backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Where to store backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<BackupStorage>,
    /// What happens to the backups when the SiteBackup is deleted while its site exists. Default: Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<BackupDeletionPolicy>,
    /// Restore a backup into the site instead of making one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
}

/// What happens to backups when their SiteBackup is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupDeletionPolicy {
    /// Keep the backups.
    #[default]
    Retain,
    /// Remove all backups made by the SiteBackup, including the newest, before it is deleted.
    Delete,
}

/// How long to keep backups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.days) || has(self.keepLast)").message("retention must set days or keepLast"))]
pub struct Retention {
    /// Days to keep a backup. Default: as long as it is one of the newest `keepLast`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36_500))]
    pub days: Option<i32>,
    /// Number of newest backups to keep, however old. Default: 1; the newest successful backup is never removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_last: Option<i32>,
}

/// What to restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.restoreDatabase) && !self.restoreDatabase && has(self.restoreFiles) && !self.restoreFiles)").message("restoreDatabase and restoreFiles must not both be false"))]
pub struct Restore {
    /// Name of the backup.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9_.-]*$')").message("backupName must be the name of a backup, without a path"))]
    pub backup_name: String,
    /// FrappeSite in the same namespace whose backup to restore; the site then becomes a copy of it. That site need not exist
    /// any more. Requires `storage`. Default: the site itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message("sourceSite must be the name of a FrappeSite"))]
    pub source_site: Option<String>,
    /// Whether to restore the database. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_database: Option<bool>,
    /// Whether to restore public and private files. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_files: Option<bool>,
    /// Whether to restore a backup whose parts are encrypted with the storage's key, but whose manifest is not authenticated: a backup
    /// made by an earlier version of the operator. Anyone who can write to the storage could have assembled it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_unauthenticated: Option<bool>,
    /// Whether to back up the site's current state first, to the same storage, as `NAME-before-…`. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_backup: Option<bool>,
}

/// Phase of a backup or restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupPhase {
    /// The operation has not started.
    #[default]
    Pending,
    /// A Job is running.
    Running,
    /// The operation has succeeded.
    Succeeded,
    /// The operation has failed.
    Failed,
    /// Waiting for its next scheduled time.
    Scheduled,
}

/// Observed state of the SiteBackup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteBackupStatus {
    /// Phase.
    #[serde(default)]
    pub phase: BackupPhase,
    /// Conditions, each with the generation it was observed at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Scheduled time of the newest successful backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<Time>,
    /// Newest backup that was completed and verified in storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_backup: Option<BackupRun>,
    /// Past runs, newest first: at most 10 successful and 5 failed ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub history: Vec<BackupRun>,
    /// Time up to which the schedule was handled: earlier backups were made or missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When the next backup is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// Result of the last operation, until the next one ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<BackupOutcome>,
    /// Name of the newest backup's Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup_job: Option<String>,
    /// Message about the last operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Result state of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupOutcomeState {
    /// The operation succeeded.
    Succeeded,
    /// The operation failed permanently.
    Failed,
    /// The operation could not start in time.
    Missed,
}

/// Result of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupOutcome {
    /// Type of the operation.
    pub kind: BackupOperationKind,
    /// Result state.
    pub state: BackupOutcomeState,
    /// Code of the failure, from a fixed list, such as `StorageUnreachable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Message of the result.
    pub message: String,
    /// Time at which the operation ended.
    pub finished_at: Time,
}

/// A past backup or restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRun {
    /// Name of the backup, as used in `restore.backupName`.
    pub name: String,
    /// Whether the operation succeeded.
    pub succeeded: bool,
    /// Scheduled time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Time>,
    /// Start time of the Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// End time of the Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Size of all parts, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Code of the failure, from a fixed list, such as `StorageUnreachable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Message of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
