//! FrappeSite: one Frappe site on a bench.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::common::{DatabaseConfig, NamespacedReference, SecretKeyReference, SecretReference};

pub use crate::site_route::{
    GatewayReference, HttpRouteConfig, IngressConfig, RouteConfig, Tls, TlsTermination, WildcardPolicy,
};

/// Any JSON values by name.
fn any_values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 64, "additionalProperties": {"x-kubernetes-preserve-unknown-fields": true}})
}

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
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name of a site may have at most 63 characters, because its objects carry it in a label"),
    validation = Rule::new("!self.metadata.name.matches('-x[0-9a-f]{24}$')").message("metadata.name of a site must not end in -x and 24 hexadecimal digits: objects of sites of other namespaces have such names"),
    printcolumn(name = "Bench", type_ = "string", json_path = ".spec.benchRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.siteURL"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
    printcolumn(name = "Database", type_ = "string", json_path = ".status.databaseName", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.dbConfig) && has(self.dbConfig.provider) ? self.dbConfig.provider : 'mariadb') == (has(oldSelf.dbConfig) && has(oldSelf.dbConfig.provider) ? oldSelf.dbConfig.provider : 'mariadb')").message("dbConfig.provider cannot be changed: the site's data is in its database; create a new site and restore a backup into it"),
    validation = Rule::new("(has(self.dbConfig) && has(self.dbConfig.mode) ? self.dbConfig.mode : 'shared') == (has(oldSelf.dbConfig) && has(oldSelf.dbConfig.mode) ? oldSelf.dbConfig.mode : 'shared')").message("dbConfig.mode cannot be changed: the site's data is in its database; create a new site and restore a backup into it"),
    validation = Rule::new("(has(self.dbConfig) && has(self.dbConfig.mariadbRef)) == (has(oldSelf.dbConfig) && has(oldSelf.dbConfig.mariadbRef)) && (!(has(self.dbConfig) && has(self.dbConfig.mariadbRef)) || self.dbConfig.mariadbRef == oldSelf.dbConfig.mariadbRef)").message("dbConfig.mariadbRef cannot be changed: the site's data is on that server; create a new site and restore a backup into it"),
    validation = Rule::new("!has(self.dbConfig) || !has(self.dbConfig.provider) || self.dbConfig.provider == 'mariadb' || has(self.dbConfig.connectionSecretRef)").message("dbConfig.connectionSecretRef is required with provider external or postgres: name a Secret with username and password"),
    validation = Rule::new("!has(self.apps) || !has(self.removedApps) || self.apps.all(a, !(a in self.removedApps))").message("apps and removedApps name the same app: take it out of one of them")
)]
pub struct FrappeSiteSpec {
    /// Name of the site, which is also its default host name. Immutable.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$') && self.split('.').all(label, label.size() <= 63)").message("siteName must be a DNS name in lower case, such as shop.example.com"),
        validation = Rule::new("!(self in ['assets', 'archived', 'all', 'frappe', 'erpnext']) && !self.matches('[.](txt|json|lock)$')").message("siteName must not be assets, archived, all or an app's name, nor end with .txt, .json or .lock: Frappe and the bench's directory use these for themselves"),
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
    /// Where the database comes from. Default: the bench's `dbConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db_config: Option<DatabaseConfig>,
    /// Host name of the site, if different from `siteName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("domain must be a DNS name in lower case, such as shop.example.com"))]
    pub domain: Option<String>,
    /// Additional host names of the site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 15), inner(length(min = 1, max = 253)))]
    #[x_kube(
        validation = Rule::new("self.all(a, a.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'))").message("additionalDomains must be DNS names in lower case, such as www.example.com"),
        validation = Rule::new("self.all(a, self.exists_one(b, a == b))").message("additionalDomains must not name one host twice: remove the second entry")
    )]
    pub additional_domains: Vec<String>,
    /// TLS settings of the Ingress, HTTPRoute or Route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Ingress class; older spelling of `ingress.className`.
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
        validation = Rule::new("self.all(a, self.exists_one(b, a == b))").message("apps must not name one app twice: remove the second entry")
    )]
    pub apps: Option<Vec<String>>,
    /// Apps to uninstall, with all their data, after a verified backup of the site's database to the bench's volume. An app
    /// that is only removed from `apps` stays installed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    #[x_kube(
        validation = Rule::new("self.all(a, a.matches('^[a-z][a-z0-9_-]*$') && a != 'frappe')").message("removedApps must be app names, and not frappe: no site is without it"),
        validation = Rule::new("self.all(a, self.exists_one(b, a == b))").message("removedApps must not name one app twice: remove the second entry")
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
    #[schemars(schema_with = "any_values")]
    pub site_config: BTreeMap<String, serde_json::Value>,
    /// Entries of the site's `site_config.json` with secret values, each read from a key of a Secret in the site's namespace.
    /// Changes of the Secret are applied.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub site_config_secret_refs: BTreeMap<String, SecretKeyReference>,
    /// If true, no changes are applied to the site, whatever else the spec says; deletion still works. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
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
    /// Keep database, files and Secrets; a site created again under the same name uses them again.
    Retain,
    /// Like Delete, but only after a final backup by one of the site's SiteBackups has been verified.
    Backup,
}

/// Phase of a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SitePhase {
    /// Waiting for something else: the bench, its host name, a Secret.
    #[default]
    Pending,
    /// Database and files are being created.
    Provisioning,
    /// It is served.
    Ready,
    /// A user must change something before it can continue.
    Failed,
}

/// Observed state of the site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrappeSiteStatus {
    /// Phase of the site.
    #[serde(default)]
    pub phase: SitePhase,
    /// Ready, Progressing, BenchReady, DatabaseReady, SiteInitialized and RouteReady.
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
    /// Host name of the site in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_domain: Option<String>,
    /// Where the host name came from: `explicit`, `bench-suffix`, `default-suffix` (the operator's ConfigMap),
    /// `auto-detected` or `sitename-default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_source: Option<String>,
    /// What routes the host to the site: `Ingress`, `HTTPRoute` or `Route`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Hash of the configuration that the site has: settings, hosts, passwords and apps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// Version of the Secret whose password Administrator was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_password_version: Option<String>,
    /// Value of the annotation `frappe.vyogo.tech/reconcile` that was answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Value of the annotation `frappe.vyogo.tech/replace-secrets` that was answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_replaced_secrets_at: Option<String>,
    /// Apps installed in the site, as last verified in the site itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub installed_apps: Vec<String>,
    /// What was decided about the site's database when the site was made. It counts whatever defaults and Secrets say later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<SiteDatabase>,
    /// What the names of the site's objects begin with, where its bench is in another namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_prefix: Option<String>,
    /// Random identity of the site, by which its database and its directory on the volume are recognized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Current or last operation, recorded before its Job is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Last restored backup and when its restore started; the configuration is applied again after a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_restore: Option<String>,
    /// Running backup or restore, recorded before its Job is created. Never runs at the same time as an operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupOperation>,
    /// Whether the site was ever fully created. From then on its database is never wiped by a retry.
    #[serde(default)]
    pub initialized: bool,
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Where a site's database is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DatabaseKind {
    /// On a server of the site's own.
    Dedicated,
    /// On a server that sites share.
    #[default]
    Shared,
    /// It existed before, with an account whose Secret the site names.
    Existing,
}

/// What was decided about a site's database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteDatabase {
    /// Where it is.
    pub kind: DatabaseKind,
    /// Identity that it was made with.
    pub identity: String,
    /// The MariaDB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<NamespacedReference>,
    /// `mariadb` or `postgres`, where it existed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Its name, where this operator had it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of its account, where that is not the database's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What is done to a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OperationKind {
    /// The site is created.
    Init,
    /// Its settings, hosts, passwords or apps are brought to what is asked for.
    Configure,
    /// The site is dropped.
    Delete,
}

/// One operation on a site. At most one runs at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// What is done.
    pub kind: OperationKind,
    /// Which try it is, from 1. The Job of try 2 is named `SITE-init-2`.
    pub attempt: i32,
    /// First try that belongs to the present spec: failures before it do not count.
    pub first_attempt: i32,
    /// Generation of the spec that asked for it.
    pub generation: i64,
    /// Epoch of the slot's owner that recorded it.
    pub epoch: i64,
    /// Hash of the configuration that it brings about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// Version of the Secret with the password of Administrator when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_password_version: Option<String>,
    /// Value of the annotation `frappe.vyogo.tech/retry` that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// How this try ended; missing while its Job runs, and where it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// What becomes of an operation after a try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OutcomeState {
    /// It is tried again after a while.
    Retrying,
    /// It failed for good: it is tried again where the spec changes or somebody asks for it.
    Failed,
}

/// How a try of an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// What becomes of the operation.
    pub state: OutcomeState,
    /// Why it failed, as one of a fixed list of words, such as `CommandFailed`.
    pub code: String,
    /// The same for people.
    pub message: String,
    /// When its Job failed.
    pub finished_at: Time,
}

/// Whether a site is backed up or restored, or its backups are removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BackupOperationKind {
    /// A backup of it is made.
    #[default]
    Backup,
    /// A backup is restored into it.
    Restore,
    /// The backups of a SiteBackup are removed.
    Remove,
}

/// One backup of a site, or one restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupOperation {
    /// What is done.
    pub kind: BackupOperationKind,
    /// Name of the SiteBackup that asks for it.
    pub site_backup: String,
    /// uid of that SiteBackup.
    pub site_backup_uid: String,
    /// Name of the backup that is made, or restored.
    pub run: String,
    /// When it was due.
    pub scheduled_at: Time,
    /// When it was recorded.
    pub started_at: Time,
    /// Which try it is, from 1.
    pub attempt: i32,
    /// Epoch of the slot's owner that recorded it.
    pub epoch: i64,
}
