//! Pods, put together from their parts. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    DeepMerge,
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
        EphemeralVolumeSource, KeyToPath, PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate,
        PersistentVolumeClaimVolumeSource, PodSpec, Probe, ProjectedVolumeSource, ResourceRequirements,
        SecretProjection, SecretVolumeSource, SecurityContext, TCPSocketAction, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::typed::quantities;

/// Mode of the files of Secrets: the group of the pod reads them.
const SECRET_MODE: i32 = 0o440;

/// A pod whose containers run one after the other: the last is the pod's own, those before it are its init containers.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Everything but containers and volumes.
    spec: PodSpec,
    containers: Vec<Container>,
    volumes: Vec<Volume>,
}

impl Pod {
    /// A pod without containers and volumes.
    pub fn new(spec: PodSpec) -> Self {
        Self { spec, ..Self::default() }
    }

    /// With more volumes.
    #[must_use]
    pub fn with_volumes(mut self, volumes: impl IntoIterator<Item = Volume>) -> Self {
        self.volumes.extend(volumes);
        self
    }

    /// With one more container, which runs after those that it has.
    #[must_use]
    pub fn then(mut self, container: Container) -> Self {
        self.containers.push(container);
        self
    }

    /// The whole.
    pub fn build(self) -> PodSpec {
        let Self { spec, mut containers, volumes } = self;
        let own = containers.pop();
        PodSpec {
            init_containers: (!containers.is_empty()).then_some(containers),
            containers: own.into_iter().collect(),
            volumes: (!volumes.is_empty()).then_some(volumes),
            ..spec
        }
    }
}

/// A volume, and where a container has it.
#[derive(Clone, Debug)]
pub struct Mounted {
    /// The volume.
    pub volume: Volume,
    /// Its mount.
    pub mount: VolumeMount,
}

impl Mounted {
    /// A volume that may be written.
    fn new(volume: Volume, path: &str) -> Self {
        let mount = VolumeMount { name: volume.name.clone(), mount_path: path.to_owned(), ..VolumeMount::default() };
        Self { volume, mount }
    }

    fn read_only(mut self) -> Self {
        self.mount.read_only = Some(true);
        self
    }

    /// A volume of the pod's own that is empty when it starts.
    pub fn empty(name: &str, path: &str, source: EmptyDirVolumeSource) -> Self {
        Self::new(Volume { empty_dir: Some(source), ..named(name) }, path)
    }

    /// The volume of a claim.
    pub fn claim(name: &str, path: &str, claim_name: String) -> Self {
        let source = PersistentVolumeClaimVolumeSource { claim_name, ..PersistentVolumeClaimVolumeSource::default() };
        Self::new(Volume { persistent_volume_claim: Some(source), ..named(name) }, path)
    }

    /// A volume that is created for the pod, and deleted with it.
    pub fn ephemeral(name: &str, path: &str, claim: PersistentVolumeClaimSpec) -> Self {
        let template = PersistentVolumeClaimTemplate { metadata: None, spec: claim };
        let source = EphemeralVolumeSource { volume_claim_template: Some(template) };
        Self::new(Volume { ephemeral: Some(source), ..named(name) }, path)
    }

    /// The same, of which only a folder is mounted; all of it without one.
    #[must_use]
    pub fn within(mut self, folder: Option<String>) -> Self {
        self.mount.sub_path = folder;
        self
    }

    /// The files of a ConfigMap.
    pub fn config_map(name: &str, path: &str, config_map: String) -> Self {
        let source = ConfigMapVolumeSource { name: config_map, ..ConfigMapVolumeSource::default() };
        Self::new(Volume { config_map: Some(source), ..named(name) }, path).read_only()
    }

    /// A key of a user's ConfigMap as a file. The pod starts without it, and its program reports that: the kubelet would only wait for it.
    pub fn config_map_key_if_there(name: &str, path: &str, config_map: String, key: KeyToPath) -> Self {
        let items = Some(vec![key]);
        let source =
            ConfigMapVolumeSource { name: config_map, items, optional: Some(true), ..ConfigMapVolumeSource::default() };
        Self::new(Volume { config_map: Some(source), ..named(name) }, path).read_only()
    }

    /// Keys of a Secret as files, without which the pod does not start.
    pub fn secret(name: &str, path: &str, secret: String, items: Vec<KeyToPath>) -> Self {
        let source = SecretVolumeSource {
            secret_name: Some(secret),
            items: Some(items),
            default_mode: Some(SECRET_MODE),
            ..SecretVolumeSource::default()
        };
        Self::new(Volume { secret: Some(source), ..named(name) }, path).read_only()
    }

    /// Several Secrets as the files of one folder.
    pub fn secrets(name: &str, path: &str, sources: Vec<VolumeProjection>) -> Self {
        let source = ProjectedVolumeSource { default_mode: Some(SECRET_MODE), sources: Some(sources) };
        Self::new(Volume { projected: Some(source), ..named(name) }, path).read_only()
    }
}

fn named(name: &str) -> Volume {
    Volume { name: name.to_owned(), ..Volume::default() }
}

/// A key of a Secret or ConfigMap, and the file that it becomes.
pub fn item(key: &str, path: impl Into<String>) -> KeyToPath {
    KeyToPath { key: key.to_owned(), path: path.into(), mode: None }
}

/// These keys of a Secret, or all, among others in one folder. The pod does not start without them.
pub fn projected(secret: String, items: Option<Vec<KeyToPath>>) -> VolumeProjection {
    let secret = SecretProjection { name: secret, items, optional: None };
    VolumeProjection { secret: Some(secret), ..VolumeProjection::default() }
}

/// Keys of a user's Secret, among others in one folder. The pod starts without them, and its program reports a missing one: the kubelet
/// would only wait for it.
pub fn projected_if_there(secret: String, items: Vec<KeyToPath>) -> VolumeProjection {
    let secret = SecretProjection { name: secret, items: Some(items), optional: Some(true) };
    VolumeProjection { secret: Some(secret), ..VolumeProjection::default() }
}

/// Where the files of a folder with Secrets are from: Secret and key, by file.
pub fn origins(sources: &[VolumeProjection]) -> BTreeMap<String, [String; 2]> {
    let secrets = sources.iter().filter_map(|it| it.secret.as_ref());
    let files = secrets.flat_map(|secret| {
        let items = secret.items.iter().flatten();
        items.map(|item| (item.path.clone(), [secret.name.clone(), item.key.clone()]))
    });
    files.collect()
}

/// An environment variable.
pub fn variable(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), value_from: None }
}

/// A TCP port of a container, by name.
pub fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// Whether a port, by its name, takes connections.
pub fn answers(port: &str, period_seconds: i32, failure_threshold: Option<i32>) -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction { host: None, port: IntOrString::String(port.to_owned()) }),
        period_seconds: Some(period_seconds),
        failure_threshold,
        ..Probe::default()
    }
}

/// Requests and limits: `[cpu request, memory request, cpu limit, memory limit]`.
pub fn resources([cpu, memory, cpu_limit, memory_limit]: [&str; 4]) -> ResourceRequirements {
    ResourceRequirements {
        requests: Some(quantities([("cpu", cpu), ("memory", memory)])),
        limits: Some(quantities([("cpu", cpu_limit), ("memory", memory_limit)])),
        claims: None,
    }
}

/// Lets a pod run as a ServiceAccount. The API server copies the name into the deprecated field, and back when only the other one is removed.
pub fn run_as(spec: &mut PodSpec, account: &str) {
    let account = Some(account.to_owned());
    (spec.service_account, spec.service_account_name) = (account.clone(), account);
}

/// Security context of a container by the restricted Pod Security Standard.
pub fn without_privileges() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

/// Merges field by field; `over` has precedence.
pub fn merged<T: DeepMerge>(mut base: T, over: Option<T>) -> T {
    if let Some(over) = over {
        base.merge_from(over);
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str) -> Container {
        Container { name: name.to_owned(), ..Container::default() }
    }

    #[test]
    fn the_last_container_is_the_pods_own_and_those_before_it_run_first() {
        let pod = ["seed", "backup", "transfer"].map(container).into_iter().fold(Pod::default(), Pod::then).build();
        let names = |all: &[Container]| all.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&pod.containers), ["transfer"]);
        assert_eq!(names(&pod.init_containers.unwrap_or_default()), ["seed", "backup"]);
        let alone = Pod::default().then(container("gunicorn")).build();
        assert_eq!((alone.containers.len(), alone.init_containers, alone.volumes), (1, None, None));
    }

    #[test]
    fn a_volume_is_mounted_by_its_name() {
        let secret = Mounted::secret("password", "/run/password", "of-redis".to_owned(), vec![item("a", "b")]);
        assert_eq!((secret.mount.name.as_str(), secret.mount.read_only), ("password", Some(true)));
        let source = secret.volume.secret.expect("a Secret");
        assert_eq!((source.secret_name.as_deref(), source.default_mode), (Some("of-redis"), Some(0o440)));
    }

    #[test]
    fn the_users_security_is_merged_over_the_defaults() {
        let own = SecurityContext {
            privileged: Some(false),
            allow_privilege_escalation: Some(true),
            capabilities: Some(Capabilities { add: Some(vec!["CHOWN".to_owned()]), drop: None }),
            ..SecurityContext::default()
        };
        let expected = SecurityContext {
            privileged: Some(false),
            allow_privilege_escalation: Some(true),
            capabilities: Some(Capabilities {
                add: Some(vec!["CHOWN".to_owned()]),
                drop: Some(vec!["ALL".to_owned()]),
            }),
            ..SecurityContext::default()
        };
        assert_eq!(merged(without_privileges(), Some(own)), expected);
        assert_eq!(merged(without_privileges(), None), without_privileges());
    }
}
