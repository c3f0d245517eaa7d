//! FrappeBench: the infrastructure that many sites share.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSecurityContext, SecurityContext};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::bench_parts::{
    ComponentScaling, Monitoring, NetworkPolicyConfig, QueueAutoscaling, ReplicasFrom, StorageAccessMode,
    WebAutoscaling, WebConfig, WorkerAutoscaling,
};
pub use crate::bench_sites::{
    AllowedBackups, AllowedDatabases, AllowedNamespaces, AllowedRoutes, AllowedSites, NamespacesFrom,
};
pub use crate::bench_status::{BenchPhase, ComponentStatus, ConfigureFailure, FrappeBenchStatus, WorkerScalingStatus};
pub use crate::bench_updates::{Revision, SafetyBackup, SafetyBackupMode, UpdateStrategy, UpdateType};
pub use crate::bench_waves::{Canary, FailedSite, PauseReason, Percentage, Promotion, Released, Rollout, RolloutPhase};
use crate::common::{DatabaseConfig, LocalReference, NamespacedReference, Quantity, Resources, SecretReference};
pub use crate::{
    duration::Duration,
    pod_templates::{ComponentTemplate, PullPolicy},
    window::{CronExpression, TimeZone, Window},
};

/// Desired state of the bench.
///
/// All sites of a bench share code, processes and a volume: they are one trust domain.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "vyogo.tech",
    version = "v1alpha1",
    kind = "FrappeBench",
    plural = "frappebenches",
    shortname = "fb",
    category = "frappe",
    namespaced,
    status = "FrappeBenchStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A FrappeBench is the infrastructure that many Frappe sites share: a volume, Redis, web servers, workers and a scheduler.",
    validation = Rule::new("(has(self.spec.storageClassName) ? self.spec.storageClassName : '') == (has(oldSelf.spec.storageClassName) ? oldSelf.spec.storageClassName : '')").message("storageClassName cannot be changed: a volume cannot move to another class; create a new bench"),
    validation = Rule::new("(has(self.spec.storageAccessMode) ? self.spec.storageAccessMode : 'ReadWriteMany') == (has(oldSelf.spec.storageAccessMode) ? oldSelf.spec.storageAccessMode : 'ReadWriteMany')").message("storageAccessMode cannot be changed: a volume keeps its access mode; create a new bench"),
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name of a bench may have at most 40 characters, because names of its Deployments and Services are derived from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name of a bench must begin with a letter and have only lower-case letters, digits and hyphens, because Services are named after it"),
    validation = Rule::new("!has(self.spec.webAutoscaling) || !has(self.spec.componentReplicas) || !(has(self.spec.webAutoscaling.gunicorn) && self.spec.webAutoscaling.gunicorn.?replicasFrom.orValue('Spec') == 'Autoscaler' && has(self.spec.componentReplicas.gunicorn)) && !(has(self.spec.webAutoscaling.nginx) && self.spec.webAutoscaling.nginx.?replicasFrom.orValue('Spec') == 'Autoscaler' && has(self.spec.componentReplicas.nginx))").message("componentReplicas must not set a component whose replicas an autoscaler sets: remove it there, or replicasFrom: Autoscaler from webAutoscaling"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.frappeVersion"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
    printcolumn(name = "Frappe", type_ = "string", json_path = ".status.frappeVersion", priority = 1),
    printcolumn(name = "Rollout", type_ = "string", json_path = ".status.rollout.phase", priority = 1),
    printcolumn(name = "Updated", type_ = "integer", json_path = ".status.rollout.updated", priority = 1),
    printcolumn(name = "Window", type_ = "string", json_path = ".status.rollout.windowOpensAt", priority = 1),
    printcolumn(name = "Apps", type_ = "string", json_path = ".status.installedApps", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FrappeBenchSpec {
    /// Frappe version, for example `"15"`. It is the image's tag unless `imageConfig.tag` is set; for the default image
    /// `docker.io/frappe/erpnext`, `15` means the tag `version-15` and `15.41.2` means `v15.41.2`.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_][A-Za-z0-9_.-]*$')").message("frappeVersion must be usable as an image tag, such as \"15\" or \"v15.41.2\""))]
    pub frappe_version: String,
    /// Apps available to the bench's sites. Frappe itself is always included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.name == a.name))").message("apps must not contain duplicates: remove the second entry"))]
    pub apps: Vec<AppSource>,
    /// Deprecated: apps as a JSON array in a string. Use `apps`.
    #[serde(default, rename = "appsJSON", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub apps_json: Option<String>,
    /// Image of every component of the bench.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_config: Option<ImageConfig>,
    /// Replicas of each component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_replicas: Option<ComponentReplicas>,
    /// Resource requests and limits of each component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_resources: Option<ComponentResources>,
    /// What the pods of each component have beside what the operator gives them. Keys: `all`, `jobs`, and the names of components.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 12))]
    #[x_kube(validation = Rule::new("self.all(k, k in ['all', 'jobs', 'gunicorn', 'nginx', 'socketio', 'scheduler', 'worker-default', 'worker-long', 'worker-short', 'redis-cache', 'redis-queue'])").message("keys of componentTemplates are all, jobs, gunicorn, nginx, socketio, scheduler, worker-default, worker-long, worker-short, redis-cache and redis-queue"))]
    pub component_templates: BTreeMap<String, ComponentTemplate>,
    /// Entries of the bench's `common_site_config.json`, for all its sites, such as `server_script_enabled`. Entries removed here are
    /// removed there; those of Frappe, or written by hand, are kept. Not allowed: Redis, database and encryption, which the operator sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::common::any_values")]
    pub common_site_config: BTreeMap<String, serde_json::Value>,
    /// Redis servers for the cache and for the job queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_config: Option<RedisConfig>,
    /// StorageClass of the sites volume; default: the cluster's default class. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Size of the sites volume. Default: `10Gi`. Can be increased, not decreased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_size: Option<Quantity>,
    /// Access mode of the sites volume. Default: `ReadWriteMany`. With `ReadWriteOnce` all pods that mount it are pinned to
    /// one node. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_access_mode: Option<StorageAccessMode>,
    /// What happens to the bench's volumes (sites, Redis queue) when the bench is deleted. Default: `Retain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_deletion_policy: Option<StorageDeletionPolicy>,
    /// Settings of gunicorn and nginx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web: Option<WebConfig>,
    /// NetworkPolicy for the bench's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicyConfig>,
    /// Monitoring of the bench by Prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Monitoring>,
    /// How the host names of sites are derived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_config: Option<DomainConfig>,
    /// Frappe package manager repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fpm_config: Option<FpmConfig>,
    /// Whether apps may be installed from Git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_config: Option<GitConfig>,
    /// Autoscaling of the workers of each queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_autoscaling: Option<WorkerAutoscaling>,
    /// Whether an autoscaler of yours sets the number of web servers and reverse proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_autoscaling: Option<WebAutoscaling>,
    /// Database settings for sites that have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db_config: Option<DatabaseConfig>,
    /// Security contexts, merged over defaults that meet the restricted Pod Security Standard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// Maximum concurrent reconciles of this bench's sites; the greater of this and the operator's
    /// `maxConcurrentSiteReconciles` applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub site_reconcile_concurrency: Option<i32>,
    /// Maximum concurrent site Jobs (create, configure, delete, back up) of this bench; default: the operator's
    /// `maxConcurrentSiteJobs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub site_job_concurrency: Option<i32>,
    /// How sites follow another image: each is migrated to its schema, after a dump of its database, and responds with 503 until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
    /// Which sites may use this bench, and what they may request beyond their own data. Default: sites of its own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_sites: Option<AllowedSites>,
}

/// Source of an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AppSourceKind {
    /// The app is in the bench's image.
    #[default]
    Image,
    /// The app is cloned from a Git repository.
    Git,
    /// The app is installed by the Frappe package manager.
    Fpm,
}

/// An app and its source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.source != 'git' || has(self.git) || has(self.gitUrl)").message("an app with source git needs git.repository: add it, or use source image"))]
pub struct AppSource {
    /// Name of the app in Frappe, for example `erpnext`.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z][a-z0-9_-]*$')").message("name of an app must begin with a letter and have only lower-case letters, digits, _ and -"))]
    pub name: String,
    /// `image`, `git` or `fpm`.
    pub source: AppSourceKind,
    /// Version, for source `fpm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub version: Option<String>,
    /// Organization, for source `fpm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub org: Option<String>,
    /// Repository, for source `git`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// Deprecated: repository URL, for source `git`. Use `git.repository`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^(https://|ssh://|git@)[^[:space:]]+$')").message("gitUrl must be an https://, ssh:// or git@ URL without spaces"))]
    pub git_url: Option<String>,
    /// Deprecated: branch, for source `git`. Use `git.branch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_][A-Za-z0-9_./-]*$')").message("gitBranch must be a Git branch or tag name, such as main or version-15"))]
    pub git_branch: Option<String>,
}

/// A Git repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct GitSource {
    /// URL of the repository.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^(https://|ssh://|git@)[^[:space:]]+$')").message("repository must be an https://, ssh:// or git@ URL without spaces"))]
    pub repository: String,
    /// Branch or tag. Default: the repository's default branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_][A-Za-z0-9_./-]*$')").message("branch must be a Git branch or tag name, such as main or version-15"))]
    pub branch: Option<String>,
}

/// Image of the bench. A repository without a tag gets `frappeVersion` as its tag, unchanged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageConfig {
    /// Repository without a tag, for example `docker.io/frappe/erpnext`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 400))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([A-Za-z0-9._/:-]*[A-Za-z0-9])?$') && !self.matches(':[^/]*$')").message("repository must be an image repository without a tag, such as docker.io/frappe/erpnext: put the tag into imageConfig.tag"))]
    pub repository: Option<String>,
    /// Tag of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_][A-Za-z0-9_.-]*$')").message("tag must be an image tag, such as v15.41.2"))]
    pub tag: Option<String>,
    /// When the image is pulled. Default: the kubelet's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
    /// Secrets with registry credentials, in the bench's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub pull_secrets: Vec<LocalReference>,
}

/// Replicas of each component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentReplicas {
    /// Web servers. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub gunicorn: Option<i32>,
    /// Reverse proxies. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub nginx: Option<i32>,
    /// Websocket servers. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub socketio: Option<i32>,
    /// The scheduler. Must be 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == 1").message("scheduler must be 1: two schedulers would queue every job twice"))]
    pub scheduler: Option<i32>,
    /// Workers of the default queue when they are not autoscaled. Deprecated: use `workerAutoscaling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub worker_default: Option<i32>,
    /// Workers of the long queue when they are not autoscaled. Deprecated: use `workerAutoscaling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub worker_long: Option<i32>,
    /// Workers of the short queue when they are not autoscaled. Deprecated: use `workerAutoscaling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub worker_short: Option<i32>,
}

/// Resource requests and limits of each component. Keys of workers may be written as `worker-default` or `workerDefault`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.workerDefault) && has(self.worker__dash__default)) && !(has(self.workerLong) && has(self.worker__dash__long)) && !(has(self.workerShort) && has(self.worker__dash__short))").message("componentResources must not set a worker under both keys: keep worker-default and remove workerDefault (the same for long and short)"))]
pub struct ComponentResources {
    /// Web servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gunicorn: Option<Resources>,
    /// Reverse proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nginx: Option<Resources>,
    /// Jobs that create, change, back up, restore and delete sites, and the bench's configure Job; not the transfer of backups. A change
    /// applies to Jobs that are created afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Resources>,
    /// The scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Resources>,
    /// Websocket servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socketio: Option<Resources>,
    /// Workers of the default queue.
    #[serde(default, rename = "worker-default", skip_serializing_if = "Option::is_none")]
    pub worker_default_dashed: Option<Resources>,
    /// Workers of the long queue.
    #[serde(default, rename = "worker-long", skip_serializing_if = "Option::is_none")]
    pub worker_long_dashed: Option<Resources>,
    /// Workers of the short queue.
    #[serde(default, rename = "worker-short", skip_serializing_if = "Option::is_none")]
    pub worker_short_dashed: Option<Resources>,
    /// Workers of the default queue; the same as `worker-default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_default: Option<Resources>,
    /// Workers of the long queue; the same as `worker-long`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_long: Option<Resources>,
    /// Workers of the short queue; the same as `worker-short`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_short: Option<Resources>,
}

/// Type of a Redis-compatible server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RedisType {
    /// Redis.
    #[default]
    Redis,
    /// Dragonfly.
    Dragonfly,
}

/// Redis for the cache and for the job queues: always two servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.connectionSecretRef) && has(self.passwordSecretRef))").message("connectionSecretRef is for existing servers, passwordSecretRef for the bench's own: set only one"),
    validation = Rule::new("has(self.connectionSecretRef) || !has(self.queueConnection)").message("queueConnection is for existing servers: set connectionSecretRef too, or remove it")
)]
pub struct RedisConfig {
    /// Server type. Default: `redis`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub redis_type: Option<RedisType>,
    /// Image. Default: the operator's `defaultRedisImage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// The cache: not persistent, evicts the least recently used keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<RedisSize>,
    /// The job queues: persistent, never evicts keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<RedisSize>,
    /// Deprecated: memory of the cache. Use `cache.memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<Quantity>,
    /// Resource requests and limits of both servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Volume size of the queue server. Default: `1Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_size: Option<Quantity>,
    /// Secret whose key `password` holds the password that the bench's own Redis servers require. Changing it restarts them and the
    /// components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<LocalReference>,
    /// Protects the Redis servers of a bench created by an earlier version with a generated password, and with a NetworkPolicy that
    /// admits only the bench's pods and KEDA. New benches are always protected. Cannot be unset: `true`, or omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self").message("protected must be true or omitted: protection of Redis cannot be removed"))]
    pub protected: Option<bool>,
    /// Secret with the URLs of existing Redis servers, in the keys `redis-cache` and `redis-queue`; autoscaling also needs
    /// `queue-address` (`host:port`) and `queue-password`, which may be empty. The bench then runs no Redis itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_secret_ref: Option<SecretReference>,
    /// How KEDA connects to the existing server of the queues, which it cannot read from the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_connection: Option<QueueConnection>,
}

/// Connection of KEDA to an existing Redis server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueConnection {
    /// Whether the server requires TLS, as with a `rediss://` URL. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Number of the database, the path of the URL. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub database_index: Option<i32>,
    /// Key of the Secret with the name of the Redis user. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._A-Za-z0-9]+$')").message("usernameKey must be letters, digits, -, _ and ."))]
    pub username_key: Option<String>,
}

/// Settings of one Redis server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct RedisSize {
    /// Memory for data (`maxmemory`); the container's limit is a quarter more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// What happens to a bench's volumes when the bench is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StorageDeletionPolicy {
    /// Volumes are kept; a new bench with the same name uses them again.
    #[default]
    Retain,
    /// Volumes are deleted.
    Delete,
}

/// How the host names of sites are derived.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainConfig {
    /// Suffix appended to a siteName without a dot, for example `.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = Rule::new("self.matches('^\\\\.?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("suffix must be a domain in lower case, such as .example.com"))]
    pub suffix: Option<String>,
    /// Whether to read the suffix from the ingress controller's Service when none is set. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_detect: Option<bool>,
    /// Service of the ingress controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_controller_ref: Option<NamespacedReference>,
    /// Domains that sites of this bench may use, including their subdomains. Default: sites of the bench's namespace may use any
    /// host; sites of other namespaces only siteName with `suffix`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 200)))]
    pub allowed_suffixes: Vec<String>,
}

/// Frappe package manager repositories.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FpmConfig {
    /// Repositories, ordered by descending priority.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub repositories: Vec<FpmRepository>,
    /// Repository for apps that set none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub default_repo: Option<String>,
}

/// One Frappe package manager repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FpmRepository {
    /// Name of the repository.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// URL of the repository.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^[:space:]]+$')").message("url must be an http:// or https:// URL"))]
    pub url: String,
    /// Priority; repositories with a higher priority are used first. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: Option<i32>,
    /// Secret with `username` and `password` of the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_secret_ref: Option<SecretReference>,
}

/// Whether apps may be installed from Git.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct GitConfig {
    /// Whether apps may be installed from Git. Default: the operator's `gitEnabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Security contexts of the bench's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// Security context of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_security_context: Option<PodSecurityContext>,
    /// Security context of the containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
}
