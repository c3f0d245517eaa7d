//! FrappeBench: the infrastructure that many sites share.

use k8s_openapi::api::core::v1::{PodSecurityContext, SecurityContext};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::bench_parts::{
    Monitoring, NetworkPolicyConfig, QueueAutoscaling, StorageAccessMode, WebConfig, WorkerAutoscaling,
};
pub use crate::bench_sites::{
    AllowedBackups, AllowedDatabases, AllowedNamespaces, AllowedRoutes, AllowedSites, NamespacesFrom,
};
pub use crate::bench_status::{BenchPhase, ComponentStatus, ConfigureFailure, FrappeBenchStatus, WorkerScalingStatus};
use crate::common::{DatabaseConfig, LocalReference, NamespacedReference, Quantity, Resources, SecretReference};

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
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name of a bench may have at most 40 characters, because the names of its Deployments and Services are made from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name of a bench must begin with a letter and have only lower-case letters, digits and hyphens, because Services are named after it"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.frappeVersion"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
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
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.name == a.name))").message("apps must not name one app twice: remove the second entry"))]
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
    /// Requests and limits of each component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component_resources: Option<ComponentResources>,
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
    /// Which sites this bench takes, and what they may ask for beyond their own data. Default: those of its own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_sites: Option<AllowedSites>,
}

/// Where an app comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AppSourceKind {
    /// Already in the bench's image.
    #[default]
    Image,
    /// Cloned from a Git repository.
    Git,
    /// Installed by the Frappe package manager.
    Fpm,
}

/// An app and where it comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.source != 'git' || has(self.git) || has(self.gitUrl)").message("an app with source git needs git.repository: add it, or use source image"))]
pub struct AppSource {
    /// Name of the app as Frappe knows it, for example `erpnext`.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z][a-z0-9_-]*$')").message("name of an app must begin with a letter and have only lower-case letters, digits, _ and -"))]
    pub name: String,
    /// `image`, `git` or `fpm`.
    pub source: AppSourceKind,
    /// Version, for source `fpm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub version: Option<String>,
    /// Organisation, for source `fpm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub org: Option<String>,
    /// Repository, for source `git`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// Repository URL, for source `git`; older spelling of `git.repository`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^(https://|ssh://|git@)[^[:space:]]+$')").message("gitUrl must be an https://, ssh:// or git@ URL without spaces"))]
    pub git_url: Option<String>,
    /// Branch, for source `git`; older spelling of `git.branch`.
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
    /// Branch or tag; the repository's default if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_][A-Za-z0-9_./-]*$')").message("branch must be a Git branch or tag name, such as main or version-15"))]
    pub branch: Option<String>,
}

/// When the kubelet pulls an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At every start of a container.
    Always,
    /// Never: the image must be on the node.
    Never,
    /// When the node lacks it.
    IfNotPresent,
}

impl PullPolicy {
    /// The name that Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::Never => "Never",
            Self::IfNotPresent => "IfNotPresent",
        }
    }
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
    /// When the image is pulled; the kubelet's default if left out.
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
    /// Always 1.
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

/// Requests and limits of each component. Workers may be spelled `worker-default` or `workerDefault`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.workerDefault) && has(self.worker__dash__default)) && !(has(self.workerLong) && has(self.worker__dash__long)) && !(has(self.workerShort) && has(self.worker__dash__short))").message("componentResources must not spell one worker both ways: keep worker-default and remove workerDefault (likewise long, short)"))]
pub struct ComponentResources {
    /// Web servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gunicorn: Option<Resources>,
    /// Reverse proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nginx: Option<Resources>,
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
    /// Workers of the default queue, other spelling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_default: Option<Resources>,
    /// Workers of the long queue, other spelling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_long: Option<Resources>,
    /// Workers of the short queue, other spelling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_short: Option<Resources>,
}

/// Which server speaks the Redis protocol.
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
#[x_kube(validation = Rule::new("!(has(self.connectionSecretRef) && has(self.passwordSecretRef))").message("connectionSecretRef names servers of yours, passwordSecretRef is for the bench's own: keep one"))]
pub struct RedisConfig {
    /// Server type. Default: `redis`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub redis_type: Option<RedisType>,
    /// Image; the operator's `defaultRedisImage` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// The cache: bounded, evicts the least recently used keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<RedisSize>,
    /// The queues: persistent, never evicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<RedisSize>,
    /// Memory of the cache; older spelling of `cache.memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<Quantity>,
    /// Resource requests and limits of both servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Volume size of the queue server. Default: `1Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_size: Option<Quantity>,
    /// Secret with the key `password`, required by the bench's own Redis servers. Changing it restarts them and the
    /// components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<LocalReference>,
    /// Gives a bench that was made without them a generated password of its Redis servers and a NetworkPolicy that lets in only
    /// its own pods and KEDA. Benches that are made now have both. It cannot be taken back: `true`, or left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self").message("protected must be true or left out: what protects Redis is not taken away again"))]
    pub protected: Option<bool>,
    /// Secret with the URLs of existing Redis servers, in the keys `redis-cache` and `redis-queue`; autoscaling also needs
    /// `queue-address` (`host:port`) and `queue-password`, which may be empty. The bench then runs no Redis itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_secret_ref: Option<SecretReference>,
}

/// Size of one Redis server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct RedisSize {
    /// Memory for data (`maxmemory`); the container's limit is a quarter more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// What happens to a bench's volumes when the bench is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StorageDeletionPolicy {
    /// They are kept; a bench created again under the same name uses them again.
    #[default]
    Retain,
    /// They are deleted.
    Delete,
}

/// How the host names of sites are derived.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainConfig {
    /// Suffix that is appended to a siteName without a dot, for example `.example.com`.
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
    /// Only these hosts, and those below them, may be used by sites of this bench. Empty: sites of the bench's namespace may
    /// use any, sites of others only what `suffix` makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 200)))]
    pub allowed_suffixes: Vec<String>,
}

/// Frappe package manager repositories.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FpmConfig {
    /// Repositories, the one with the highest priority first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub repositories: Vec<FpmRepository>,
    /// Repository for apps that name none.
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
    /// Higher is asked first. Default: 50.
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
    /// The operator's `gitEnabled` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Security contexts of the bench's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// For the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_security_context: Option<PodSecurityContext>,
    /// For the containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
}
