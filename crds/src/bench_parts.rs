//! Parts of a FrappeBench: how it answers, what may reach it, how it is measured and how its workers scale, and how its volume is mounted.

use k8s_openapi::{
    api::networking::v1::{NetworkPolicyEgressRule, NetworkPolicyIngressRule},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of gunicorn and nginx.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebConfig {
    /// Worker processes per gunicorn pod. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub gunicorn_workers: Option<i32>,
    /// Threads per worker process. Default: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub gunicorn_threads: Option<i32>,
    /// Request timeout of gunicorn and nginx, in seconds. Default: 120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub request_timeout_seconds: Option<i32>,
    /// Maximum request body size, in nginx syntax. Default: `50m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]+[kmg]?$')").message("maxBodySize must be a size as nginx writes it, such as 50m"))]
    pub max_body_size: Option<String>,
    /// IP address or CIDR of the ingress controller, whose `X-Forwarded-For` header is trusted. Default: `127.0.0.1` (none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-fA-F.:]+(/[0-9]{1,3})?$')").message("trustedProxy must be an address or a network, such as 10.0.0.0/8"))]
    pub trusted_proxy: Option<String>,
}

/// NetworkPolicy that restricts ingress to web traffic from the ingress controller, and egress to what the bench needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicyConfig {
    /// Whether to create the NetworkPolicy. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Labels of the ingress controller's namespace. Default: the namespace in the operator's `ingressControllerNamespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_namespace_selector: Option<LabelSelector>,
    /// Labels of the namespaces of database servers. Default: any namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_namespace_selector: Option<LabelSelector>,
    /// Additional ingress rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub ingress: Vec<NetworkPolicyIngressRule>,
    /// Additional egress rules, for example for mail or webhooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub egress: Vec<NetworkPolicyEgressRule>,
}

/// Monitoring of the bench. Requires the Prometheus operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// Whether to create a ServiceMonitor for the gunicorn pods. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Path at which an app of the bench serves metrics. Default: `/metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("path must begin with /"))]
    pub path: Option<String>,
    /// Scrape interval in seconds. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub interval_seconds: Option<i32>,
}

/// Who decides how many pods of a component run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplicasFrom {
    /// The spec: `componentReplicas`.
    #[default]
    Spec,
    /// An autoscaler of yours (a HorizontalPodAutoscaler or a ScaledObject): the operator leaves the number as it is.
    Autoscaler,
}

/// Components whose number of pods an autoscaler of yours sets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebAutoscaling {
    /// Web servers, the Deployment `BENCH-gunicorn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gunicorn: Option<ComponentScaling>,
    /// Reverse proxies, the Deployment `BENCH-nginx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nginx: Option<ComponentScaling>,
}

/// Scaling of one component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentScaling {
    /// Who sets the number of pods: `Spec` (default) or `Autoscaler`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas_from: Option<ReplicasFrom>,
}

/// Autoscaling of the workers of each queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct WorkerAutoscaling {
    /// Queue `short`: jobs of up to 300 s that users wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<QueueAutoscaling>,
    /// Queue `long`: jobs of up to 1500 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<QueueAutoscaling>,
    /// Queue `default`: all other jobs, up to 300 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<QueueAutoscaling>,
}

/// Autoscaling of the workers of one queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.minReplicas) || (has(self.maxReplicas) ? self.minReplicas <= self.maxReplicas : self.minReplicas <= 10)").message("minReplicas must not be greater than maxReplicas (default: 10): raise maxReplicas or lower minReplicas"),
    validation = Rule::new("!(has(self.targetQueueLength) && has(self.queueLength))").message("targetQueueLength and queueLength are the same setting: keep targetQueueLength")
)]
pub struct QueueAutoscaling {
    /// Whether KEDA scales these workers. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Number of workers if autoscaling is disabled or KEDA is not installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub static_replicas: Option<i32>,
    /// Minimum number of workers; 0 scales to zero. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: Option<i32>,
    /// Maximum number of workers. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: Option<i32>,
    /// Target number of waiting jobs per worker. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub target_queue_length: Option<i32>,
    /// Deprecated: use `targetQueueLength`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub queue_length: Option<i32>,
    /// Seconds without a job after which workers scale down to zero. Default: 120.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub cooldown_period: Option<i32>,
    /// Seconds between two checks of the queue. Default: 15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub polling_interval: Option<i32>,
}

/// Access mode of the sites volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StorageAccessMode {
    /// Pods on any node can mount the volume.
    #[default]
    ReadWriteMany,
    /// Pods on one node can mount the volume: all of them run there.
    ReadWriteOnce,
}

impl StorageAccessMode {
    /// The value in the Kubernetes API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteMany => "ReadWriteMany",
            Self::ReadWriteOnce => "ReadWriteOnce",
        }
    }
}
