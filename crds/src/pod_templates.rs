//! What pods of a FrappeBench have beside what the operator gives them, by component.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, CSIVolumeSource, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvFromSource,
    EnvVar, PersistentVolumeClaimVolumeSource, PodSecurityContext, Probe, ProjectedVolumeSource, ResourceRequirements,
    SecretVolumeSource, SecurityContext, Toleration, TopologySpreadConstraint, Volume, VolumeMount,
};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Key of the template of every pod.
pub const ALL: &str = "all";
/// Key of the template of the pods of Jobs.
pub const JOBS: &str = "jobs";
/// Most characters of the name of an image, a class or an account.
const NAME_CHARACTERS_MAX: u32 = 253;

/// When the kubelet pulls an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// Pull at every start of a container.
    Always,
    /// Never pull; the image must be on the node.
    Never,
    /// Pull if the image is not on the node.
    IfNotPresent,
}

impl PullPolicy {
    /// The value in the Kubernetes API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::Never => "Never",
            Self::IfNotPresent => "IfNotPresent",
        }
    }
}

/// Additions to the pods of a component, merged over the operator's: maps by key, lists by name or path, single values replaced. The template
/// of the component has precedence over that of `all`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentTemplate {
    /// Labels of the pods. Labels that the operator sets cannot be replaced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Rules about nodes and other pods. With a ReadWriteOnce volume, that all pods run on one node is required beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How pods are spread, in place of the operator's rule for the same `topologyKey`. Without `labelSelector` it counts the pods of the
    /// component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_CHARACTERS_MAX))]
    pub priority_class_name: Option<String>,
    /// RuntimeClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_CHARACTERS_MAX))]
    pub runtime_class_name: Option<String>,
    /// ServiceAccount of the pods. Its token is not mounted: mount a projected volume where a container needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_CHARACTERS_MAX))]
    pub service_account_name: Option<String>,
    /// When images are pulled, in place of `imageConfig.pullPolicy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Security context of the pods, over `security.podSecurityContext`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_security_context: Option<PodSecurityContext>,
    /// Security context of the operator's containers, over `security.securityContext`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
    /// Environment variables of the operator's containers. Those that the operator sets cannot be replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
    /// ConfigMaps and Secrets whose entries become environment variables of the operator's containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<EnvFromSource>,
    /// Volumes of the pods. Names of the operator's volumes cannot be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub volumes: Vec<TemplateVolume>,
    /// Mounts of these volumes in the operator's containers, outside the folders that the operator mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub volume_mounts: Vec<VolumeMount>,
    /// Containers that run before the operator's, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub init_containers: Vec<TemplateContainer>,
    /// Containers that run beside the operator's, from before the first to after the last, also in Jobs, which they do not keep from finishing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub sidecars: Vec<TemplateContainer>,
}

/// A volume of a pod, of a type that the restricted Pod Security Standard allows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.configMap), has(self.secret), has(self.projected), has(self.emptyDir), has(self.persistentVolumeClaim), has(self.csi)].exists_one(it, it)").message("a volume must have exactly one of configMap, secret, projected, emptyDir, persistentVolumeClaim and csi"))]
pub struct TemplateVolume {
    /// Name of the volume.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Entries of a ConfigMap as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapVolumeSource>,
    /// Entries of a Secret as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretVolumeSource>,
    /// Several sources in one folder, among them tokens of the ServiceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projected: Option<ProjectedVolumeSource>,
    /// A folder that is empty when the pod starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDirVolumeSource>,
    /// A PersistentVolumeClaim of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
    /// A volume of a CSI driver that lives as long as the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csi: Option<CSIVolumeSource>,
}

impl TemplateVolume {
    /// The volume of a pod.
    pub fn into_volume(self) -> Volume {
        Volume {
            name: self.name,
            config_map: self.config_map,
            secret: self.secret,
            projected: self.projected,
            empty_dir: self.empty_dir,
            persistent_volume_claim: self.persistent_volume_claim,
            csi: self.csi,
            ..Volume::default()
        }
    }
}

/// A container beside the operator's. Without a security context it has that of the restricted Pod Security Standard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateContainer {
    /// Name of the container.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Image of the container.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// When the image is pulled. Default: the kubelet's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Command, in place of the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub command: Vec<String>,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
    /// ConfigMaps and Secrets whose entries become environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub env_from: Vec<EnvFromSource>,
    /// Ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub ports: Vec<ContainerPort>,
    /// Resource requests and limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Mounts of the template's volumes, and of the operator's volumes `sites`, `logs` and `tmp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub volume_mounts: Vec<VolumeMount>,
    /// Security context, over that of the restricted Pod Security Standard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
    /// When a sidecar has started: the next container starts afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<Probe>,
    /// When a sidecar is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,
    /// When a sidecar is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Probe>,
}

impl TemplateContainer {
    /// The container of a pod.
    pub fn into_container(self) -> Container {
        Container {
            name: self.name,
            image: Some(self.image),
            image_pull_policy: self.image_pull_policy.map(|it| it.as_str().to_owned()),
            command: some(self.command),
            args: some(self.args),
            env: some(self.env),
            env_from: some(self.env_from),
            ports: some(self.ports),
            resources: self.resources,
            volume_mounts: some(self.volume_mounts),
            security_context: self.security_context,
            startup_probe: self.startup_probe,
            readiness_probe: self.readiness_probe,
            liveness_probe: self.liveness_probe,
            ..Container::default()
        }
    }
}

/// A list as Kubernetes has it: none where it is empty.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
