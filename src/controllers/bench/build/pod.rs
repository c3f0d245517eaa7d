//! What every pod of a bench has in common: security, volumes, image.

use std::collections::BTreeMap;

use frappe_crds::{bench::Security, common::Resources};
use serde_json::{Value, json};

use super::code;
use crate::{
    controllers::bench::model::{BENCH_PATH, Input},
    domain::{
        labels,
        names::child,
        object::{Desired, Kind},
    },
};

/// Components whose pods mount the sites.
const MOUNTING: [&str; 8] =
    ["gunicorn", "nginx", "socketio", "scheduler", "worker-default", "worker-short", "worker-long", "configure"];
/// uid and gid of the user `frappe` in frappe_docker's images.
const FRAPPE_USER: i64 = 1000;

/// One component that runs the bench's image.
pub(super) struct Component<'a> {
    /// Name of the component, its label and the end of its objects' names.
    pub name: &'a str,
    /// The container: args, ports, probes, env.
    pub container: Value,
    /// Replicas.
    pub replicas: i32,
    /// Requests and limits; the default if none.
    pub resources: Option<&'a Resources>,
    /// Default requests and limits: cpu and memory of each.
    pub default_resources: [&'a str; 4],
    /// Seconds that a pod has to end: at least the longest job of its queues.
    pub grace_seconds: i64,
    /// Whether the old pod must be gone before the new one starts.
    pub recreate: bool,
    /// Volumes of its own, with their mounts.
    pub volumes: Vec<(Value, Value)>,
}

/// The Deployment of a component.
pub(super) fn deployment(input: &Input, component: &Component) -> Desired {
    let mut container = component.container.clone();
    container["name"] = json!(component.name);
    container["resources"] = resources(component.resources, component.default_resources);
    let strategy = if component.recreate {
        json!({"type": "Recreate"})
    } else {
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
    };
    let selector = json!({"matchLabels": labels::selector(&input.name(), component.name)});
    let mut pod = pod_spec(input, container, component.grace_seconds, &component.volumes);
    if !input.single_node() {
        pod["topologySpreadConstraints"] = spread(&selector);
    }
    let spec = json!({
        "replicas": component.replicas,
        "revisionHistoryLimit": 3,
        "strategy": strategy,
        "selector": selector,
        "template": {
            "metadata": input.pod_metadata(&pod_labels(input, component.name)),
            "spec": pod,
        },
    });
    input.object(Kind::Deployment, component.name, component.name, &spec)
}

/// Labels of a pod that mounts the volume.
pub(super) fn pod_labels(input: &Input, component: &str) -> BTreeMap<String, String> {
    let mut labels = labels::component(&input.name(), component);
    labels.extend(input.single_node().then(|| (labels::SINGLE_NODE.to_owned(), "true".to_owned())));
    labels
}

/// A ReadWriteOnce volume is on one node: pods that mount it go where the first of them went.
fn together(input: &Input) -> Value {
    let mut labels = labels::pods(&input.name());
    let mut selector = json!({});
    if input.bench.status.as_ref().is_some_and(|status| status.adopted_volume.is_some()) {
        // Another operator's pods, which have it already, are known by their component.
        let expression = json!({"key": "component", "operator": "In", "values": MOUNTING});
        selector["matchExpressions"] = json!([expression]);
    } else {
        labels.insert(labels::SINGLE_NODE.to_owned(), "true".to_owned());
    }
    selector["matchLabels"] = json!(labels);
    json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector},
    ]}})
}

/// Over zones and nodes where there are several, and never at the price of not running. Pods of another revision do not
/// count, so a rollout ends as even as it began.
fn spread(selector: &Value) -> Value {
    let over = |topology_key: &str| {
        json!({
            "maxSkew": 1, "topologyKey": topology_key, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": selector, "matchLabelKeys": ["pod-template-hash"],
        })
    };
    json!([over("topology.kubernetes.io/zone"), over("kubernetes.io/hostname")])
}

/// A pod that runs the bench's image with the sites volume, and volumes (with mounts) of its own.
pub(super) fn pod_spec(input: &Input, mut container: Value, grace_seconds: i64, extra: &[(Value, Value)]) -> Value {
    let security = input.bench.spec.security.clone().unwrap_or_default();
    let image_config = input.bench.spec.image_config.clone().unwrap_or_default();
    let mut volumes = vec![
        json!({"name": "sites", "persistentVolumeClaim": {"claimName": child(&input.name(), "sites")}}),
        json!({"name": "logs", "emptyDir": {}}),
        json!({"name": "tmp", "emptyDir": {}}),
    ];
    let mut mounts = vec![
        json!({"name": "sites", "mountPath": format!("{BENCH_PATH}/sites")}),
        json!({"name": "logs", "mountPath": format!("{BENCH_PATH}/logs")}),
        json!({"name": "tmp", "mountPath": "/tmp"}),
    ];
    mounts.extend(code::mounts(input));
    for (volume, mount) in extra {
        volumes.push(volume.clone());
        mounts.push(mount.clone());
    }
    container["securityContext"] = container_security(&security);
    if container["securityContext"]["readOnlyRootFilesystem"] == true {
        for (name, path) in written(&container["name"]) {
            volumes.push(json!({"name": name, "emptyDir": {}}));
            mounts.push(json!({"name": name, "mountPath": path}));
        }
    }
    container["image"] = json!(input.image());
    container["volumeMounts"] = json!(mounts);
    if let Some(policy) = image_config.pull_policy {
        container["imagePullPolicy"] = json!(policy.as_str());
    }
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": grace_seconds,
        "securityContext": pod_security(&security, input.capabilities.openshift),
        "containers": [container],
        "volumes": volumes,
    });
    if input.single_node() {
        spec["affinity"] = together(input);
    }
    if !image_config.pull_secrets.is_empty() {
        spec["imagePullSecrets"] = json!(image_config.pull_secrets);
    }
    spec
}

/// Folders of the image in which a component writes, beside those that are volumes anyway: locks of Frappe's scheduler, and
/// what nginx is configured with and keeps of large requests.
fn written(component: &Value) -> Vec<(&'static str, String)> {
    let mut folders = vec![("config", format!("{BENCH_PATH}/config"))];
    if component == "nginx" {
        let own = [("nginx-configuration", "/etc/nginx/conf.d"), ("nginx-state", "/var/lib/nginx"), ("run", "/run")];
        folders.extend(own.map(|(name, path)| (name, path.to_owned())));
    }
    folders
}

/// The restricted Pod Security Standard and the image's user, with the bench's own settings over them.
fn pod_security(security: &Security, openshift: bool) -> Value {
    let mut defaults = ids(FRAPPE_USER, openshift);
    defaults["fsGroupChangePolicy"] = json!("OnRootMismatch");
    merge(defaults, &json!(security.pod_security_context))
}

/// A pod security context that passes the restricted standard, with the image's user; OpenShift gives ids of its own and
/// refuses fixed ones.
pub(super) fn ids(user: i64, openshift: bool) -> Value {
    let mut security = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    if !openshift {
        for field in ["runAsUser", "runAsGroup", "fsGroup"] {
            security[field] = json!(user);
        }
    }
    security
}

fn container_security(security: &Security) -> Value {
    let defaults = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": false, "capabilities": {"drop": ["ALL"]},
    });
    merge(defaults, &json!(security.security_context))
}

/// `over` wins; objects are merged field by field.
fn merge(mut base: Value, over: &Value) -> Value {
    if let (Some(fields), Some(others)) = (base.as_object_mut(), over.as_object()) {
        for (key, value) in others.iter().filter(|(_, value)| !value.is_null()) {
            let merged = match fields.remove(key) {
                Some(former) if former.is_object() => merge(former, value),
                _ => value.clone(),
            };
            fields.insert(key.clone(), merged);
        }
    }
    base
}

/// Requests and limits: the user's, or the defaults `[cpu request, memory request, cpu limit, memory limit]`.
pub(super) fn resources(chosen: Option<&Resources>, defaults: [&str; 4]) -> Value {
    if let Some(chosen) = chosen {
        return json!(chosen);
    }
    let [cpu, memory, cpu_limit, memory_limit] = defaults;
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu_limit, "memory": memory_limit}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_security_is_merged_over_the_defaults() {
        let merged = merge(json!({"a": 1, "b": {"c": 2, "d": 3}}), &json!({"b": {"c": 4}, "e": 5, "a": null}));
        assert_eq!(merged, json!({"a": 1, "b": {"c": 4, "d": 3}, "e": 5}));
    }
}
