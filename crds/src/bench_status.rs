//! What the operator sees of a FrappeBench.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bench_parts::StorageAccessMode;

/// Phase of a bench.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BenchPhase {
    /// Nothing was created yet.
    #[default]
    Pending,
    /// Objects are being created, or pods are starting.
    Progressing,
    /// All pods are ready.
    Ready,
    /// A user must change something before it can continue.
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
    /// Access mode of a volume that was taken over from another operator; used instead of the spec's
    /// `storageAccessMode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted_volume: Option<StorageAccessMode>,
    /// Whether Redis has a generated password and a NetworkPolicy: decided when the bench was made, or by
    /// `redisConfig.protected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_protected: Option<bool>,
    /// Apps found in the bench's image, including those not listed in `spec.apps`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub installed_apps: Vec<String>,
    /// Whether apps may be installed from Git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_enabled: Option<bool>,
    /// Names of the Frappe package manager repositories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fpm_repositories: Vec<String>,
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How the workers of each queue are scaled.
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
    /// Revision whose image `installedApps` was read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspected_revision: Option<String>,
    /// How the configure Job failed last; missing where it did not, or another revision is wanted since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configure_failure: Option<ConfigureFailure>,
    /// Host suffix detected from the ingress controller's Service; see `domainConfig.autoDetect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected_domain_suffix: Option<String>,
    /// Image that the components should run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// How the workers of one queue are scaled.
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
    /// Pods that are ready and of the present revision.
    pub ready: i32,
    /// Pods that are wanted.
    pub desired: i32,
}

/// How the configure Job of a bench failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigureFailure {
    /// Revision that it was to configure.
    pub revision: String,
    /// Why it failed, as one of a fixed list of words, such as `CommandFailed`.
    pub code: String,
    /// The same for people.
    pub message: String,
}
