//! Common parts of every pod of a bench: security, volumes, image.

use std::collections::BTreeMap;

use frappe_crds::{bench::Security, common::Resources};
use k8s_openapi::{
    api::{
        apps::v1::{DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Affinity, Container, EmptyDirVolumeSource, EnvVar, LocalObjectReference, PodAffinity, PodAffinityTerm,
            PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecurityContext,
            TopologySpreadConstraint, VolumeMount,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};

use super::{
    code::{self, SITES_VOLUME},
    template,
};
use crate::{
    controllers::bench::model::{BENCH_PATH, Input, WRITTEN},
    domain::{
        labels,
        names::child,
        pod::{self, Mounted, Pod, merged, variable, without_privileges},
        typed::{Object, entry},
    },
};

/// Volume with the runner's files.
pub(super) const RUNNER_VOLUME: &str = "runner";
/// Where the root of the volume is mounted in a bench with revisions.
const VOLUME_PATH: &str = "/home/frappe/volume";
/// Environment variables of the runner: that path, and the number of the pod's revision.
pub(in crate::controllers) const REVISION_VARIABLES: [&str; 2] = ["SITE_RUNNER_VOLUME", "SITE_RUNNER_REVISION"];
/// Components whose pods mount the sites.
const MOUNTING: [&str; 8] =
    ["gunicorn", "nginx", "socketio", "scheduler", "worker-default", "worker-short", "worker-long", "configure"];
/// uid and gid of the user `frappe` in frappe_docker's images.
const FRAPPE_USER: i64 = 1000;
/// Label of a node with its name.
const NODE: &str = "kubernetes.io/hostname";
/// Label of a node with its zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// One component that runs the bench's image.
pub(super) struct Component<'a> {
    /// Name of the component: its label, and the suffix of its objects' names.
    pub name: &'a str,
    /// The container: args, ports, probes, env.
    pub container: Container,
    /// Who sets the number of replicas.
    pub replicas: Replicas,
    /// Requests and limits; None for the default.
    pub resources: Option<&'a Resources>,
    /// Default requests and limits: cpu and memory of each.
    pub default_resources: [&'a str; 4],
    /// Termination grace period in seconds: at least the longest job of its queues.
    pub grace_seconds: i64,
    /// Whether the old pod must end before the new one starts.
    pub recreate: bool,
    /// Additional volumes.
    pub volumes: Vec<Mounted>,
}

/// Who sets the number of replicas of a component.
pub(super) enum Replicas {
    /// The spec, to this number.
    Fixed(i32),
    /// An autoscaler, by its name in the annotation [`labels::REPLICAS`], which records that.
    By(&'static str),
}

/// The Deployment of a component.
pub(super) fn deployment(input: &Input, component: Component) -> Object<DeploymentSpec> {
    let Component { name, replicas, grace_seconds, mut volumes, .. } = component;
    volumes.extend(written(input, name));
    let named = input.component(name);
    let own = Container {
        name: name.to_owned(),
        resources: Some(resources(component.resources, component.default_resources)),
        ..component.container
    };
    let selector =
        LabelSelector { match_labels: Some(labels::selector(&input.name(), &named)), ..LabelSelector::default() };
    let mut spec = bench_pod(input, name, grace_seconds, &volumes).then(container(input, name, own, &volumes)).build();
    spec.topology_spread_constraints =
        (!input.single_node()).then(|| [ZONE, NODE].map(|it| spread(it, &selector)).into());
    let pods = PodTemplateSpec { metadata: Some(input.pod_metadata(pod_labels(input, &named))), spec: Some(spec) };
    let spec = DeploymentSpec {
        replicas: if let Replicas::Fixed(number) = replicas { Some(number) } else { None },
        revision_history_limit: Some(3),
        strategy: Some(strategy(component.recreate)),
        template: template::with(template::template(input.bench, name), Some(&selector), pods),
        selector,
        ..DeploymentSpec::default()
    };
    let mut deployment = input.object(&named, &named, spec);
    if let Replicas::By(autoscaler) = replicas {
        deployment.metadata.annotations = Some(entry(labels::REPLICAS, autoscaler));
    }
    deployment
}

fn strategy(recreate: bool) -> DeploymentStrategy {
    if recreate {
        return DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None };
    }
    let number = |number| Some(IntOrString::Int(number));
    let rolling = RollingUpdateDeployment { max_unavailable: number(0), max_surge: number(1) };
    DeploymentStrategy { type_: Some("RollingUpdate".to_owned()), rolling_update: Some(rolling) }
}

/// Labels of a pod that mounts the volume.
pub(super) fn pod_labels(input: &Input, component: &str) -> BTreeMap<String, String> {
    let mut labels = labels::component(&input.name(), component);
    labels.extend(input.single_node().then(|| (labels::SINGLE_NODE.to_owned(), "true".to_owned())));
    labels
}

/// A ReadWriteOnce volume is mounted on one node: all pods that mount it are scheduled to the node of the first.
fn same_node(input: &Input) -> Affinity {
    let mut labels = labels::pods(&input.name());
    let mut expressions = None;
    if input.bench.status.as_ref().is_some_and(|status| status.adopted_volume.is_some()) {
        // Pods of another operator, which use the volume already, are recognized by their component.
        expressions = Some(vec![is_component(&MOUNTING)]);
    } else {
        labels.insert(labels::SINGLE_NODE.to_owned(), "true".to_owned());
    }
    let term = PodAffinityTerm {
        topology_key: NODE.to_owned(),
        label_selector: Some(LabelSelector { match_labels: Some(labels), match_expressions: expressions }),
        ..PodAffinityTerm::default()
    };
    let affinity =
        PodAffinity { required_during_scheduling_ignored_during_execution: Some(vec![term]), ..PodAffinity::default() };
    Affinity { pod_affinity: Some(affinity), ..Affinity::default() }
}

/// Pods of one of these components.
pub(super) fn is_component(components: &[&str]) -> LabelSelectorRequirement {
    LabelSelectorRequirement {
        key: "component".to_owned(),
        operator: "In".to_owned(),
        values: Some(components.iter().map(|it| (*it).to_owned()).collect()),
    }
}

/// Spreads pods over zones and nodes if possible. Pods of another revision do not count, so a rollout ends as evenly as it began.
fn spread(topology_key: &str, selector: &LabelSelector) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: topology_key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector.clone()),
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        ..TopologySpreadConstraint::default()
    }
}

/// Volumes that every container with the bench's image mounts.
fn volumes(input: &Input) -> [Mounted; 3] {
    let sites = Mounted::claim(SITES_VOLUME, &format!("{BENCH_PATH}/sites"), child(&input.name(), "sites"))
        .within(input.pods.folder());
    let [logs, tmp] = folders();
    [sites, logs, tmp]
}

/// The pod's own folders to which every component writes.
pub(super) fn folders() -> [Mounted; 2] {
    let empty = |name: &str, path: &str| Mounted::empty(name, path, EmptyDirVolumeSource::default());
    [empty("logs", &format!("{BENCH_PATH}/logs")), empty("tmp", "/tmp")]
}

/// A pod whose containers run the bench's image, with the sites volume and additional volumes.
pub(super) fn bench_pod(input: &Input, component: &str, grace_seconds: i64, extra: &[Mounted]) -> Pod {
    let volumes = volumes(input).into_iter().chain(extra.iter().cloned()).map(|it| it.volume);
    empty_pod(input, component, grace_seconds).with_volumes(volumes)
}

/// A pod of the bench, without containers and volumes.
pub(super) fn empty_pod(input: &Input, component: &str, grace_seconds: i64) -> Pod {
    Pod::new(PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace_seconds),
        security_context: Some(pod_security(&security(input, component), input.capabilities.openshift)),
        affinity: input.single_node().then(|| same_node(input)),
        image_pull_secrets: pull_secrets(input),
        ..PodSpec::default()
    })
}

/// Secrets with the credentials of registries.
pub(super) fn pull_secrets(input: &Input) -> Option<Vec<LocalObjectReference>> {
    let secrets = input.bench.spec.image_config.iter().flat_map(|it| &it.pull_secrets);
    let secrets: Vec<_> = secrets.map(|it| LocalObjectReference { name: it.name.clone() }).collect();
    (!secrets.is_empty()).then_some(secrets)
}

/// A container of a component with the bench's image, its sites, and additional volumes.
pub(super) fn container(input: &Input, component: &str, container: Container, extra: &[Mounted]) -> Container {
    let mounts = volumes(input).into_iter().map(|it| it.mount).chain(code::mounts(input));
    let runs_runner = extra.iter().any(|it| it.mount.name == RUNNER_VOLUME);
    let (root, environment) = of_revision(input).filter(|_| runs_runner).unzip();
    let mut env = container.env.clone().unwrap_or_default();
    env.extend(environment.into_iter().flatten());
    let mounts = mounts.chain(extra.iter().map(|it| it.mount.clone())).chain(root).collect();
    image_container(input, component, Container { env: (!env.is_empty()).then_some(env), ..container }, mounts)
}

/// A container with the bench's image and these mounts.
pub(super) fn image_container(
    input: &Input,
    component: &str,
    container: Container,
    mounts: Vec<VolumeMount>,
) -> Container {
    let policy = template::template(input.bench, component).image_pull_policy;
    let policy = policy.or(input.bench.spec.image_config.as_ref().and_then(|it| it.pull_policy));
    Container {
        image: Some(input.pinned_image()),
        volume_mounts: Some(mounts),
        security_context: Some(container_security(input, component)),
        image_pull_policy: policy.map(|it| it.as_str().to_owned()),
        ..container
    }
}

/// What the runner needs of a bench with revisions: the root of the volume, where it is mounted, and the number of the revision.
fn of_revision(input: &Input) -> Option<(VolumeMount, [EnvVar; 2])> {
    let number = input.pods.revision()?.number;
    let root =
        VolumeMount { name: SITES_VOLUME.to_owned(), mount_path: VOLUME_PATH.to_owned(), ..VolumeMount::default() };
    let [path, revision] = REVISION_VARIABLES;
    Some((root, [variable(path, VOLUME_PATH), variable(revision, number.to_string())]))
}

/// The user's security contexts for a component.
fn security(input: &Input, component: &str) -> Security {
    let of_bench = input.bench.spec.security.clone().unwrap_or_default();
    let own = template::template(input.bench, component);
    Security {
        pod_security_context: merged(of_bench.pod_security_context, Some(own.pod_security_context)),
        security_context: merged(of_bench.security_context, Some(own.security_context)),
    }
}

/// The folders of [`WRITTEN`] for a component.
pub(super) fn written(input: &Input, component: &str) -> Vec<Mounted> {
    if container_security(input, component).read_only_root_filesystem != Some(true) {
        return Vec::new();
    }
    let config = format!("{BENCH_PATH}/config");
    let pids = format!("{config}/pids");
    let paths = [&config, "/etc/nginx/conf.d", "/var/lib/nginx", "/run", &pids];
    let of_component: &[usize] = match component {
        "nginx" => &[0, 1, 2, 3],
        _ if component == "scheduler" || component.starts_with("worker-") => &[0, 4],
        _ => &[0],
    };
    let empty = |at: &usize| Mounted::empty(WRITTEN[*at], paths[*at], EmptyDirVolumeSource::default());
    of_component.iter().map(empty).collect()
}

/// The restricted Pod Security Standard and the image's user, overridden by the bench's settings.
fn pod_security(security: &Security, openshift: bool) -> PodSecurityContext {
    let defaults = PodSecurityContext {
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        ..restricted(FRAPPE_USER, openshift)
    };
    merged(defaults, security.pod_security_context.clone())
}

/// A pod security context that satisfies the restricted standard, with the image's user; OpenShift assigns ids and rejects fixed
/// ones.
pub(super) fn restricted(user: i64, openshift: bool) -> PodSecurityContext {
    let id = (!openshift).then_some(user);
    PodSecurityContext {
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        run_as_user: id,
        run_as_group: id,
        fs_group: id,
        ..PodSecurityContext::default()
    }
}

/// Security context of the containers of a component.
pub(in crate::controllers) fn container_security(input: &Input, component: &str) -> SecurityContext {
    let defaults = SecurityContext { read_only_root_filesystem: Some(false), ..without_privileges() };
    merged(defaults, security(input, component).security_context)
}

/// Environment of a container that runs `bench`, which asks for its user's name and fails if the user has none. Only the image's user
/// and root have one; where OpenShift assigns the user, the container runtime adds it.
pub(super) fn name_of_user(input: &Input, component: &str) -> Option<Vec<EnvVar>> {
    let of_pod = pod_security(&security(input, component), input.capabilities.openshift).run_as_user;
    let user = container_security(input, component).run_as_user.or(of_pod)?;
    (![0, FRAPPE_USER].contains(&user)).then(|| vec![pod::variable("USER", "frappe")])
}

/// Requests and limits: the user's, or the defaults `[cpu request, memory request, cpu limit, memory limit]`.
pub(super) fn resources(chosen: Option<&Resources>, defaults: [&str; 4]) -> ResourceRequirements {
    let Some(chosen) = chosen else { return pod::resources(defaults) };
    let amounts = |map: &BTreeMap<String, frappe_crds::common::Quantity>| {
        let amounts = map.iter().map(|(name, amount)| (name.clone(), Quantity(amount.0.clone())));
        (!map.is_empty()).then(|| amounts.collect())
    };
    ResourceRequirements { requests: amounts(&chosen.requests), limits: amounts(&chosen.limits), claims: None }
}
