//! What the operator sees of a FrappeBench.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bench::StorageAccessMode;

/// How far a bench is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BenchPhase {
    /// Nothing was made yet.
    #[default]
    Pending,
    /// Objects are made or pods are starting.
    Progressing,
    /// All pods are ready.
    Ready,
    /// It cannot go on without a change by a person.
    Failed,
}

/// What the operator sees of a bench.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrappeBenchStatus {
    /// How far the bench is.
    #[serde(default)]
    pub phase: BenchPhase,
    /// Ready, Progressing and others, each with the generation it was seen at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How the volume is mounted, where it was taken over from another operator. It counts instead of the spec's
    /// `storageAccessMode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted_volume: Option<StorageAccessMode>,
    /// Apps that were found in the bench's image, whether it names them or not.
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
    /// Revision of image and configuration that the components are to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_revision: Option<String>,
    /// Revision that every component runs; the former one while they change over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_revision: Option<String>,
    /// Revision whose image `installedApps` was seen in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspected_revision: Option<String>,
    /// Suffix of hosts that was found at the ingress controller's Service; see `domainConfig.autoDetect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected_domain_suffix: Option<String>,
    /// Image that the components are to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// How the workers of one queue are scaled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerScalingStatus {
    /// `static` or `autoscaled`.
    pub mode: String,
    /// Workers that run.
    pub current_replicas: i32,
    /// Workers that are wanted.
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
