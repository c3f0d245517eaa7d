//! FrappeSite: one Frappe site on a bench.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    common::{AppCode, DatabaseConfig, NamespacedReference, ReadSecret, SecretKeyReference, SecretReference},
    job::JobOperation,
};

pub use crate::site_route::{
    GatewayReference, HttpRouteConfig, IngressConfig, RouteConfig, Tls, TlsTermination, WildcardPolicy,
};
pub use crate::site_updates::{SiteUpdatePolicy, UpdatePolicy};

/// Desired state of the site.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "vyogo.tech",
    version = "v1alpha1",
    kind = "FrappeSite",
    plural = "frappesites",
    shortname = "fs",
    category = "frappe",
    namespaced,
    status = "FrappeSiteStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A FrappeSite is one Frappe site on a bench: its database, its secrets, its files and its route.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name of a site may have at most 63 characters, because it is the value of a label"),
    validation = Rule::new("!self.metadata.name.matches('-x[0-9a-f]{24}$')").message("metadata.name of a site must not end in -x and 24 hexadecimal digits: such names are reserved for objects of sites in other namespaces"),
    printcolumn(name = "Bench", type_ = "string", json_path = ".spec.benchRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.siteURL"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
    printcolumn(name = "UpToDate", type_ = "string", json_path = ".status.conditions[?(@.type==\"UpToDate\")].status", priority = 1),
    printcolumn(name = "Database", type_ = "string", json_path = ".status.databaseName", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.dbConfig) && has(self.dbConfig.provider) ? self.dbConfig.provider : 'mariadb') == (has(oldSelf.dbConfig) && has(oldSelf.dbConfig.provider) ? oldSelf.dbConfig.provider : 'mariadb')").message("dbConfig.provider cannot be changed: the site's data is in its database; create a new site and restore a backup into it"),
    validation = Rule::new("(has(self.dbConfig) && has(self.dbConfig.mode) ? self.dbConfig.mode : 'shared') == (has(oldSelf.dbConfig) && has(oldSelf.dbConfig.mode) ? oldSelf.dbConfig.mode : 'shared')").message("dbConfig.mode cannot be changed: the site's data is in its database; create a new site and restore a backup into it"),
    validation = Rule::new("(has(self.dbConfig) && has(self.dbConfig.mariadbRef)) == (has(oldSelf.dbConfig) && has(oldSelf.dbConfig.mariadbRef)) && (!(has(self.dbConfig) && has(self.dbConfig.mariadbRef)) || self.dbConfig.mariadbRef == oldSelf.dbConfig.mariadbRef)").message("dbConfig.mariadbRef cannot be changed: the site's data is on that server; create a new site and restore a backup into it"),
    validation = Rule::new("!has(self.dbConfig) || !has(self.dbConfig.provider) || self.dbConfig.provider == 'mariadb' || has(self.dbConfig.connectionSecretRef)").message("dbConfig.connectionSecretRef is required with provider external or postgres: reference a Secret with the keys username and password"),
    validation = Rule::new("!has(self.apps) || !has(self.removedApps) || self.apps.all(a, !(a in self.removedApps))").message("apps and removedApps must not contain the same app: remove it from one of them")
)]
pub struct FrappeSiteSpec {
    /// Name of the site, which is also its default host name. Immutable.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$') && self.split('.').all(label, label.size() <= 63)").message("siteName must be a DNS name in lower case, such as shop.example.com"),
        validation = Rule::new("!(self in ['assets', 'archived', 'all', 'frappe', 'erpnext']) && !self.matches('[.](txt|json|lock)$')").message("siteName must not be assets, archived, all or an app's name, nor end with .txt, .json or .lock: these names are reserved by Frappe and the bench"),
        validation = Rule::new("self == oldSelf").message("siteName cannot be changed: create a new site and restore a backup into it")
    )]
    pub site_name: String,
    /// The bench that runs the site. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("benchRef cannot be changed: create a new site on the other bench and restore a backup into it"))]
    pub bench_ref: NamespacedReference,
    /// Secret in the site's namespace whose key `password` holds the password of the user Administrator. Default: a password
    /// is generated and stored in the Secret `SITE-admin-password`, where SITE is the name of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_password_secret_ref: Option<SecretReference>,
    /// Database of the site. Default: the bench's `dbConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db_config: Option<DatabaseConfig>,
    /// Host name of the site. Default: derived from `siteName`, see the bench's `domainConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("domain must be a DNS name in lower case, such as shop.example.com"))]
    pub domain: Option<String>,
    /// Additional host names of the site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 15), inner(length(min = 1, max = 253)))]
    #[x_kube(
        validation = Rule::new("self.all(a, a.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'))").message("additionalDomains must be DNS names in lower case, such as www.example.com"),
        validation = Rule::new("self.all(a, self.exists_one(b, a == b))").message("additionalDomains must not contain duplicates: remove the second entry")
    )]
    pub additional_domains: Vec<String>,
    /// TLS settings of the Ingress, HTTPRoute or Route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Deprecated: ingress class. Use `ingress.className`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ingress_class_name: Option<String>,
    /// Ingress of the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressConfig>,
    /// HTTPRoute (Gateway API) of the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRouteConfig>,
    /// OpenShift Route of the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_config: Option<RouteConfig>,
    /// Apps to install in the site, in this order. Default: the bench's apps. Frappe itself is always included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    #[x_kube(
        validation = Rule::new("self.all(a, a.matches('^[a-z][a-z0-9_-]*$'))").message("apps must be app names: a letter, then lower-case letters, digits, _ and -"),
        validation = Rule::new("self.all(a, self.exists_one(b, a == b))").message("apps must not contain duplicates: remove the second entry")
    )]
    pub apps: Option<Vec<String>>,
    /// Apps to uninstall, with all their data, after a verified backup of the site's database to the bench's volume. An app
    /// that is only removed from `apps` stays installed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    #[x_kube(
        validation = Rule::new("self.all(a, a.matches('^[a-z][a-z0-9_-]*$') && a != 'frappe')").message("removedApps must be app names, and not frappe, which every site needs"),
        validation = Rule::new("self.all(a, self.exists_one(b, a == b))").message("removedApps must not contain duplicates: remove the second entry")
    )]
    pub removed_apps: Vec<String>,
    /// If true, the site answers requests with 503 and the scheduler queues no jobs. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_mode: Option<bool>,
    /// If true, the scheduler skips the site. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_paused: Option<bool>,
    /// Entries to set in the site's `site_config.json`. Entries removed here are removed there; entries written by Frappe or by
    /// hand are kept. Not allowed: database, encryption key, `host_name`, `maintenance_mode` and `pause_scheduler`, which have
    /// their own fields or are managed by the operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::common::any_values")]
    pub site_config: BTreeMap<String, serde_json::Value>,
    /// Entries of the site's `site_config.json` with secret values, each read from a key of a Secret in the site's namespace.
    /// Changes of the Secret are applied.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub site_config_secret_refs: BTreeMap<String, SecretKeyReference>,
    /// If true, no changes are applied to the site, whatever else the spec says; deletion still works. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// How the site follows another image of its bench.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<SiteUpdatePolicy>,
    /// What happens to the database and the files when the site is deleted. Default: `Delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// If true, deletion is blocked and nothing is removed. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection: Option<bool>,
}

/// What happens to a site's data when the site is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Remove database, files and Secrets.
    #[default]
    Delete,
    /// Keep database, files and Secrets; a new site with the same name uses them again.
    Retain,
    /// Like Delete, but only after a final backup by one of the site's SiteBackups has been verified.
    Backup,
}

/// Phase of a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SitePhase {
    /// Waiting, for example for the bench, the host name or a Secret.
    #[default]
    Pending,
    /// Database and files are being created.
    Provisioning,
    /// The site is available.
    Ready,
    /// A change by a user is required to continue.
    Failed,
}

/// Observed state of the site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrappeSiteStatus {
    /// Phase of the site.
    #[serde(default)]
    pub phase: SitePhase,
    /// Ready, Progressing, BenchReady, DatabaseReady, SiteInitialized, RouteReady and UpToDate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Whether the bench is ready.
    #[serde(default)]
    pub bench_ready: bool,
    /// Whether the database and its account are ready.
    #[serde(default)]
    pub database_ready: bool,
    /// Name of the database and of its account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_name: Option<String>,
    /// Secret with the account's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_credentials_secret: Option<String>,
    /// URL of the site.
    #[serde(default, rename = "siteURL", skip_serializing_if = "Option::is_none")]
    pub site_url: Option<String>,
    /// Host name in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_domain: Option<String>,
    /// Source of the host name: `explicit`, `bench-suffix`, `default-suffix` (the operator's ConfigMap),
    /// `auto-detected` or `sitename-default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_source: Option<String>,
    /// Kind of the route: `Ingress`, `HTTPRoute` or `Route`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Hash of the applied configuration: settings, hosts, passwords and apps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// Version of the Secret whose password was set for Administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_password_version: Option<String>,
    /// Secrets that were read, with the versions that count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_secrets: Vec<ReadSecret>,
    /// Last handled value of the annotation `frappe.vyogo.tech/reconcile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Last handled value of the annotation `frappe.vyogo.tech/replace-secrets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_replaced_secrets_at: Option<String>,
    /// Apps installed in the site, as last verified in the site itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub installed_apps: Vec<String>,
    /// Versions and schemas of the installed apps, as of the last operation that changed them. Empty for a site of an earlier version of
    /// the operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<AppCode>,
    /// Last migration to the schema of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update: Option<LastUpdate>,
    /// Number of the bench's revision that serves the site; 1 if it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i32>,
    /// Last handled value of the annotation `frappe.vyogo.tech/migrate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_migrate: Option<String>,
    /// Location of the site's database, decided when the site was created. Later changes of defaults and Secrets do not affect it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<SiteDatabase>,
    /// Prefix of the names of the site's objects, if its bench is in another namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_prefix: Option<String>,
    /// Random identity of the site, which identifies its database and its directory on the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Current or last operation, recorded before its Job is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Last restored backup and when its restore started; the configuration is applied again after a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_restore: Option<String>,
    /// Running backup, restore or removal of backups, recorded before its Job is created. Never runs at the same time as an operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupOperation>,
    /// Running SiteJob, recorded before its Job is created. Never runs at the same time as an operation or a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobOperation>,
    /// Whether the site was fully created. A retry then never wipes its database.
    #[serde(default)]
    pub initialized: bool,
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Kind of database server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DatabaseKind {
    /// A dedicated server.
    Dedicated,
    /// A server shared by sites.
    #[default]
    Shared,
    /// An existing database, with the account in the referenced Secret.
    Existing,
}

/// Location of a site's database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteDatabase {
    /// Kind of the server.
    pub kind: DatabaseKind,
    /// Identity of the site when the database was created.
    pub identity: String,
    /// MariaDB object of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<NamespacedReference>,
    /// `mariadb` or `postgres`, for an existing database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Name of the database, if this operator created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of the account, if different from the database's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// Type of an operation on a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OperationKind {
    /// Create the site.
    Init,
    /// Apply settings, hosts, passwords and apps.
    Configure,
    /// Migrate the database to the schema of the bench's image.
    Update,
    /// Delete the site.
    Delete,
}

/// A migration to the schema of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateGoal {
    /// Identifies the update and its dump on the volume.
    pub id: String,
    /// Hash of the schemas that the site will have, and of the annotation that requested it.
    pub target: String,
    /// Whether this attempt only restores the dump, because earlier ones did not complete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub back_only: bool,
    /// Value of the annotation `frappe.vyogo.tech/migrate` that requested it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrate: Option<String>,
    /// Revisions of the bench from which and to which the site moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<Move>,
    /// Id of the update that it undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<String>,
}

/// Move of a site from one revision of its bench to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Move {
    /// Number of the revision that it leaves.
    pub from: i32,
    /// Number of the revision that serves it afterwards.
    pub to: i32,
}

/// Result of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdateResult {
    /// The site has the schema of the image.
    Updated,
    /// The migration failed, and the database is as it was before.
    RolledBack,
    /// The migration failed, and the database could not be restored.
    RollbackFailed,
    /// The update failed before anything was changed.
    Failed,
    /// A user undid the update: the site has returned to the revision that it left, with the database of before.
    Undone,
}

/// The last update of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastUpdate {
    /// Its id, which names the dump on the volume.
    pub id: String,
    /// Its result.
    pub result: UpdateResult,
    /// Schemas that it was for.
    pub target: String,
    /// Revisions of the bench from which and to which the site moved; of an update that was undone, those of that update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<Move>,
    /// Id of the update that it undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<String>,
    /// Time at which it finished.
    pub finished_at: Time,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// One operation on a site. At most one runs at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Type of the operation.
    pub kind: OperationKind,
    /// Number of the attempt, from 1. The Job of attempt 2 is named `SITE-init-2`.
    pub attempt: i32,
    /// First attempt for the current spec; earlier failures do not count.
    pub first_attempt: i32,
    /// Generation of the spec that requested the operation.
    pub generation: i64,
    /// Epoch of the slot's owner that recorded the operation.
    pub epoch: i64,
    /// Hash of the configuration that the operation applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// Version of the Secret with Administrator's password at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_password_version: Option<String>,
    /// Value of the annotation `frappe.vyogo.tech/retry` that requested the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// Code of the image that its Job runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<AppCode>,
    /// The update, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateGoal>,
    /// Result of this attempt; unset while its Job runs and after success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// State of an operation after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OutcomeState {
    /// The operation will be retried.
    Retrying,
    /// The operation has failed permanently. It is retried only if the spec changes or a user requests it.
    Failed,
}

/// Result of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// State of the operation.
    pub state: OutcomeState,
    /// Code of the failure, from a fixed list, such as `CommandFailed`.
    pub code: String,
    /// Message of the failure.
    pub message: String,
    /// Number of the bench's revision in whose folder the site lies, if the Job reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i32>,
    /// Time at which the Job failed.
    pub finished_at: Time,
}

/// Type of a backup operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BackupOperationKind {
    /// Back up the site.
    #[default]
    Backup,
    /// Restore a backup into the site.
    Restore,
    /// Remove the backups of a SiteBackup.
    Remove,
}

/// A running backup, restore or removal of backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupOperation {
    /// Type of the operation.
    pub kind: BackupOperationKind,
    /// Name of the SiteBackup.
    pub site_backup: String,
    /// UID of the SiteBackup.
    pub site_backup_uid: String,
    /// Name of the backup.
    pub run: String,
    /// Scheduled time.
    pub scheduled_at: Time,
    /// Time at which the operation was recorded.
    pub started_at: Time,
    /// Number of the attempt, from 1.
    pub attempt: i32,
    /// Epoch of the slot's owner that recorded the operation.
    pub epoch: i64,
}
