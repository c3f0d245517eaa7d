//! What the operator sees of a FrappeBench.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    bench_parts::StorageAccessMode,
    bench_updates::Revision,
    bench_waves::Rollout,
    common::{AppCode, ReadSecret},
};

/// Phase of a bench.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BenchPhase {
    /// Nothing has been created yet.
    #[default]
    Pending,
    /// Objects are being created, or pods are starting.
    Progressing,
    /// All pods are ready.
    Ready,
    /// A change by a user is required to continue.
    Failed,
}

/// Observed state of the bench.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrappeBenchStatus {
    /// Phase of the bench.
    #[serde(default)]
    pub phase: BenchPhase,
    /// Ready, Progressing, Degraded and others, each with the generation it was observed at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Access mode of a volume taken over from another operator; used instead of `spec.storageAccessMode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted_volume: Option<StorageAccessMode>,
    /// Whether Redis has a generated password and a NetworkPolicy. Set when the bench is created, or by
    /// `redisConfig.protected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_protected: Option<bool>,
    /// Secrets that were read, with the versions that count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_secrets: Vec<ReadSecret>,
    /// Apps found in the bench's image, including those not listed in `spec.apps`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub installed_apps: Vec<String>,
    /// Version of Frappe in the bench's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frappe_version: Option<String>,
    /// Versions and schemas of the apps in the bench's image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<AppCode>,
    /// Schemas that sites of earlier versions of the operator are assumed to have, which did not record them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumed_apps: Vec<AppCode>,
    /// Whether apps may be installed from Git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_enabled: Option<bool>,
    /// Names of the Frappe package manager repositories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fpm_repositories: Vec<String>,
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Scaling of the workers of each queue.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub worker_scaling: BTreeMap<String, WorkerScalingStatus>,
    /// Ready and desired pods of each component.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub components: BTreeMap<String, ComponentStatus>,
    /// Revision of image and configuration that the components should run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_revision: Option<String>,
    /// Revision that every component runs; the previous one during a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_revision: Option<String>,
    /// Revision that nginx runs completely. From then on, nginx responds with 503 for sites whose schema is not that of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front_revision: Option<String>,
    /// Last revision whose hold Job ran, which stops the background jobs of sites with another schema, and releases the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_revision: Option<String>,
    /// Revision of the image from which `installedApps` and `apps` were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspected_revision: Option<String>,
    /// Failure of the configure Job; unset if it has not failed for the desired revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configure_failure: Option<ConfigureFailure>,
    /// Host suffix detected from the ingress controller's Service; see `domainConfig.autoDetect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected_domain_suffix: Option<String>,
    /// Revisions of the bench's code, by number. Empty while it has had only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<Revision>,
    /// The way of the sites to the newest revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Last handled value of the annotation `frappe.vyogo.tech/promote`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_promote: Option<String>,
    /// Image that the components should run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Digest of the image, to which new pods are pinned. Unset if the container runtime does not report one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// Last handled value of the annotation `frappe.vyogo.tech/redeploy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_redeploy: Option<String>,
}

/// Scaling of the workers of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerScalingStatus {
    /// `static` or `autoscaled`.
    pub mode: String,
    /// Number of running workers.
    pub current_replicas: i32,
    /// Desired number of workers.
    pub desired_replicas: i32,
    /// Whether KEDA sets the number.
    pub keda_managed: bool,
}

/// Pods of one component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ComponentStatus {
    /// Ready pods of the current revision.
    pub ready: i32,
    /// Desired pods.
    pub desired: i32,
}

/// Failure of a bench's configure Job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigureFailure {
    /// Revision that the Job configured.
    pub revision: String,
    /// Code of the failure, from a fixed list, such as `CommandFailed`.
    pub code: String,
    /// Message of the failure.
    pub message: String,
}
