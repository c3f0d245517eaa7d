//! What a bench's `componentTemplates` add to its pods. Pure.
//!
//! Nothing of a template replaces what the operator needs: such entries are left out, and [`refusal`] names them to the user.

use std::collections::BTreeMap;

use frappe_crds::{
    FrappeBench,
    bench::ComponentTemplate,
    pod_templates::{ALL, TemplateContainer, TemplateVolume},
};
use k8s_openapi::{
    api::core::v1::{Affinity, Container, EnvVar, PodSpec, PodTemplateSpec, TopologySpreadConstraint, VolumeMount},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::api::ObjectMeta;

use crate::{
    controllers::bench::model::{BENCH_PATH, WRITTEN},
    domain::{
        labels,
        pod::{merged, run_as, without_privileges},
    },
    runner,
    transfer::request::{CREDENTIALS, STAGING, VOLUME},
};

/// Volumes of the operator that containers of a template may mount too.
const SHARED_VOLUMES: [&str; 3] = ["sites", "logs", "tmp"];
/// Names of the operator's volumes, beside [`WRITTEN`].
const VOLUMES: [&str; 13] = [
    "sites",
    "logs",
    "tmp",
    "runner",
    "home",
    "secrets",
    "data",
    "password",
    "staging",
    "backups",
    "storage",
    "script",
    "site-folder",
];
/// Names of the operator's containers that are not those of a component.
const CONTAINERS: [&str; 12] =
    ["configure", "folder", "seed", "hold", "init", "apply", "update", "drop", "backup", "restore", "transfer", "run"];
/// Environment variables that the operator sets.
const VARIABLES: [&str; 15] = [
    "BACKEND",
    "CLIENT_MAX_BODY_SIZE",
    "FRAPPE_SITE_NAME_HEADER",
    "GUNICORN_THREADS",
    "GUNICORN_TIMEOUT",
    "GUNICORN_WORKERS",
    "HOME",
    "PROXY_READ_TIMEOUT",
    "SITE_RUNNER_RESULT",
    "SITE_RUNNER_REVISION",
    "SITE_RUNNER_VOLUME",
    "SOCKETIO",
    "UPSTREAM_REAL_IP_ADDRESS",
    "UPSTREAM_REAL_IP_HEADER",
    "UPSTREAM_REAL_IP_RECURSIVE",
];
/// Folders in which the operator mounts volumes, beside that of the bench.
const FOLDERS: [&str; 10] = [
    "/home/frappe/volume",
    "/opt/frappe-operator",
    runner::HOME,
    runner::SECRETS,
    runner::SCRIPTS,
    STAGING,
    VOLUME,
    CREDENTIALS,
    "/run/redis-password",
    "/data",
];
/// Paths at which the operator mounts volumes, in which others may be mounted.
const PATHS: [&str; 4] = ["/tmp", "/run", "/etc/nginx/conf.d", "/var/lib/nginx"];

/// The template of a component: that of `all`, with the component's own over it.
pub(super) fn template(bench: &FrappeBench, component: &str) -> ComponentTemplate {
    let of = |key: &str| bench.spec.component_templates.get(key).cloned().unwrap_or_default();
    in_one(of(ALL), of(component))
}

fn in_one(all: ComponentTemplate, own: ComponentTemplate) -> ComponentTemplate {
    ComponentTemplate {
        labels: over(all.labels, own.labels),
        annotations: over(all.annotations, own.annotations),
        node_selector: over(all.node_selector, own.node_selector),
        tolerations: [all.tolerations, own.tolerations].concat(),
        affinity: match (all.affinity, own.affinity) {
            (Some(all), Some(own)) => Some(Affinity {
                node_affinity: own.node_affinity.or(all.node_affinity),
                pod_affinity: own.pod_affinity.or(all.pod_affinity),
                pod_anti_affinity: own.pod_anti_affinity.or(all.pod_anti_affinity),
            }),
            (all, own) => own.or(all),
        },
        topology_spread_constraints: by(all.topology_spread_constraints, own.topology_spread_constraints, |it| {
            &it.topology_key
        }),
        priority_class_name: own.priority_class_name.or(all.priority_class_name),
        runtime_class_name: own.runtime_class_name.or(all.runtime_class_name),
        service_account_name: own.service_account_name.or(all.service_account_name),
        image_pull_policy: own.image_pull_policy.or(all.image_pull_policy),
        pod_security_context: merged(all.pod_security_context, Some(own.pod_security_context)),
        security_context: merged(all.security_context, Some(own.security_context)),
        env: by(all.env, own.env, |it| &it.name),
        env_from: [all.env_from, own.env_from].concat(),
        volumes: by(all.volumes, own.volumes, |it| &it.name),
        volume_mounts: by(all.volume_mounts, own.volume_mounts, |it| &it.mount_path),
        init_containers: by(all.init_containers, own.init_containers, |it| &it.name),
        sidecars: by(all.sidecars, own.sidecars, |it| &it.name),
    }
}

fn over(mut base: BTreeMap<String, String>, own: BTreeMap<String, String>) -> BTreeMap<String, String> {
    base.extend(own);
    base
}

/// Items of a list with those of another in place of items with the same key.
fn by<T>(base: Vec<T>, own: Vec<T>, key: impl Fn(&T) -> &String) -> Vec<T> {
    let kept = base.into_iter().filter(|it| own.iter().all(|other| key(other) != key(it))).collect::<Vec<_>>();
    kept.into_iter().chain(own).collect()
}

/// The pods of a component with what its template adds. `selector` matches them; None for Jobs, whose pods are not spread.
pub(super) fn with(
    template: ComponentTemplate,
    selector: Option<&LabelSelector>,
    mut pods: PodTemplateSpec,
) -> PodTemplateSpec {
    let mut metadata = pods.metadata.take().unwrap_or_default();
    add_metadata(&template, &mut metadata);
    let mut spec = pods.spec.take().unwrap_or_default();
    schedule(&template, selector, &mut spec);
    let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    containers.for_each(|it| add_to(&template, it));
    let volumes = template.volumes.into_iter().filter(|it| !is_ours(&it.name)).map(TemplateVolume::into_volume);
    extend(&mut spec.volumes, volumes);
    let names: Vec<String> = spec.volumes.iter().flatten().map(|it| it.name.clone()).collect();
    let sidecars = template
        .sidecars
        .into_iter()
        .map(|it| Container { restart_policy: Some("Always".to_owned()), ..beside(it, &names) });
    let first = sidecars.chain(template.init_containers.into_iter().map(|it| beside(it, &names)));
    let first: Vec<_> = first.chain(spec.init_containers.take().into_iter().flatten()).collect();
    spec.init_containers = (!first.is_empty()).then_some(first);
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

fn add_metadata(template: &ComponentTemplate, metadata: &mut ObjectMeta) {
    let own = |it: &(&String, &String)| !labels::is_own(it.0);
    extend_map(&mut metadata.labels, template.labels.iter().filter(own));
    extend_map(&mut metadata.annotations, template.annotations.iter().filter(own));
}

/// Where the pods run, and as whom.
fn schedule(template: &ComponentTemplate, selector: Option<&LabelSelector>, spec: &mut PodSpec) {
    extend_map(&mut spec.node_selector, template.node_selector.iter());
    extend(&mut spec.tolerations, template.tolerations.clone());
    if let Some(wanted) = template.affinity.clone() {
        spec.affinity = Some(beside_required(spec.affinity.take(), wanted));
    }
    let own = spec.topology_spread_constraints.take().unwrap_or_default();
    let wanted = template.topology_spread_constraints.iter().map(|it| TopologySpreadConstraint {
        label_selector: it.label_selector.clone().or_else(|| selector.cloned()),
        ..it.clone()
    });
    let constraints = by(own, wanted.collect(), |it| &it.topology_key);
    spec.topology_spread_constraints = (!constraints.is_empty()).then_some(constraints);
    let one = |wanted: &Option<String>, present: &mut Option<String>| {
        if let Some(name) = wanted {
            present.get_or_insert(name.clone());
        }
    };
    one(&template.priority_class_name, &mut spec.priority_class_name);
    one(&template.runtime_class_name, &mut spec.runtime_class_name);
    if let Some(account) = &template.service_account_name {
        run_as(spec, account);
    }
}

/// What a user wants, with the terms of pods that the operator requires.
fn beside_required(ours: Option<Affinity>, mut wanted: Affinity) -> Affinity {
    let required = ours.and_then(|it| it.pod_affinity).unwrap_or_default();
    if let Some(terms) = required.required_during_scheduling_ignored_during_execution {
        let of_user = wanted.pod_affinity.get_or_insert_default();
        let more = of_user.required_during_scheduling_ignored_during_execution.take();
        let all = terms.into_iter().chain(more.into_iter().flatten()).collect();
        of_user.required_during_scheduling_ignored_during_execution = Some(all);
    }
    wanted
}

/// Adds environment, mounts and pull policy to a container of the operator.
fn add_to(template: &ComponentTemplate, container: &mut Container) {
    let own: Vec<String> = container.env.iter().flatten().map(|it| it.name.clone()).collect();
    let env = template.env.iter().filter(|it| !is_variable(it) && !own.contains(&it.name));
    extend(&mut container.env, env.cloned());
    extend(&mut container.env_from, template.env_from.clone());
    let of_template = |it: &&VolumeMount| template.volumes.iter().any(|volume| volume.name == it.name);
    let mounts = template.volume_mounts.iter().filter(of_template).filter(|it| !is_covered(&it.mount_path));
    extend(&mut container.volume_mounts, mounts.cloned());
    if let Some(policy) = template.image_pull_policy {
        container.image_pull_policy.get_or_insert(policy.as_str().to_owned());
    }
}

/// A container of a template: by default under the restricted Pod Security Standard, and without the operator's Secrets.
fn beside(container: TemplateContainer, volumes: &[String]) -> Container {
    let may_mount = |it: &VolumeMount| {
        volumes.contains(&it.name) && (!is_ours(&it.name) || SHARED_VOLUMES.contains(&it.name.as_str()))
    };
    let mut container = container.into_container();
    let security = merged(without_privileges(), container.security_context.take());
    let mounts: Vec<_> = container.volume_mounts.into_iter().flatten().filter(may_mount).collect();
    Container { security_context: Some(security), volume_mounts: (!mounts.is_empty()).then_some(mounts), ..container }
}

fn extend<T>(list: &mut Option<Vec<T>>, more: impl IntoIterator<Item = T>) {
    let mut more = more.into_iter().peekable();
    if more.peek().is_some() {
        list.get_or_insert_default().extend(more);
    }
}

fn extend_map<'a>(map: &mut Option<BTreeMap<String, String>>, more: impl Iterator<Item = (&'a String, &'a String)>) {
    let mut more = more.map(|(key, value)| (key.clone(), value.clone())).peekable();
    if more.peek().is_some() {
        map.get_or_insert_default().extend(more);
    }
}

/// Whether a volume of the operator has this name.
pub(in crate::controllers) fn is_ours(volume: &str) -> bool {
    VOLUMES.contains(&volume) || WRITTEN.contains(&volume)
}

fn is_variable(variable: &EnvVar) -> bool {
    VARIABLES.contains(&variable.name.as_str())
}

/// Whether the operator mounts a volume there, or a volume there would hide one of the operator's.
fn is_covered(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let within =
        |path: &str, folder: &str| path.strip_prefix(folder).is_some_and(|it| it.is_empty() || it.starts_with('/'));
    let folders = FOLDERS.iter().copied().chain([BENCH_PATH]);
    PATHS.contains(&path)
        || folders.clone().any(|it| within(path, it))
        || folders.chain(PATHS).any(|it| within(it, path))
}

/// What of the templates cannot be had, in words for users; None if all of it can.
pub(in crate::controllers) fn refusal(bench: &FrappeBench) -> Option<String> {
    let templates = &bench.spec.component_templates;
    let found = templates.iter().find_map(|(key, it)| refused(it, &volumes(bench, key)).map(|why| (key, why)));
    found.map(|(key, why)| format!("componentTemplates.{key}.{why}"))
}

/// Names of the volumes that the templates give to the pods of a component.
fn volumes(bench: &FrappeBench, component: &str) -> Vec<String> {
    template(bench, component).volumes.into_iter().map(|it| it.name).collect()
}

fn refused(template: &ComponentTemplate, volumes: &[String]) -> Option<String> {
    let reserved = |field: &str, map: &BTreeMap<String, String>| {
        let key = map.keys().find(|it| labels::is_own(it))?;
        Some(format!("{field}: {key} is set by the operator: remove it"))
    };
    let variable = template.env.iter().find(|it| is_variable(it)).map(|it| &it.name);
    let volume = template.volumes.iter().find(|it| is_ours(&it.name)).map(|it| &it.name);
    let mount = template.volume_mounts.iter().find_map(|it| refused_mount(it, volumes));
    let containers = template.init_containers.iter().chain(&template.sidecars);
    let container = || containers.clone().find(|it| is_container(&it.name)).map(|it| &it.name);
    let of_container = || containers.clone().find_map(|it| refused_container(it, volumes));
    reserved("labels", &template.labels)
        .or_else(|| reserved("annotations", &template.annotations))
        .or_else(|| variable.map(|it| format!("env: {it} is set by the operator: remove it")))
        .or_else(|| volume.map(|it| format!("volumes: {it} is the name of a volume of the operator: rename it")))
        .or_else(|| mount.map(|it| format!("volumeMounts: {it}")))
        .or_else(|| {
            container().map(|it| format!("sidecars: {it} is the name of a container of the operator: rename it"))
        })
        .or_else(of_container)
}

fn refused_mount(mount: &VolumeMount, volumes: &[String]) -> Option<String> {
    if !volumes.contains(&mount.name) {
        return Some(format!("{} is not a volume of the template: add it to volumes", mount.name));
    }
    let why = || format!("{} is or hides a folder that the operator mounts: mount it elsewhere", mount.mount_path);
    is_covered(&mount.mount_path).then(why)
}

fn refused_container(container: &TemplateContainer, volumes: &[String]) -> Option<String> {
    let allowed = |name: &String| volumes.contains(name) || SHARED_VOLUMES.contains(&name.as_str());
    let mount = container.volume_mounts.iter().find(|it| !allowed(&it.name))?;
    Some(format!(
        "sidecars: {} mounts {}, which is neither a volume of the template nor one of {}",
        container.name,
        mount.name,
        SHARED_VOLUMES.join(", ")
    ))
}

/// Whether a container of the operator may have this name.
pub(in crate::controllers) fn is_container(name: &str) -> bool {
    let components = [
        "gunicorn",
        "nginx",
        "socketio",
        "scheduler",
        "worker-default",
        "worker-long",
        "worker-short",
        "redis-cache",
        "redis-queue",
    ];
    CONTAINERS.contains(&name) || components.contains(&name)
}

#[cfg(test)]
mod tests;
