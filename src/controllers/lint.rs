//! Rules for every rendered object; tests apply them to all snapshots.
#![cfg(test)]

use serde_json::Value;

use crate::controllers::bench::build::{is_container, is_ours};
use crate::domain::{
    labels::{MANAGED_BY, MANAGER},
    object::Desired,
};

/// Violations of a rendered object.
pub(crate) fn lint(desired: &Desired) -> Vec<String> {
    let mut wrong = Vec::new();
    let body = &desired.body;
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    if name.is_empty() || (name.len() > 63 && body["kind"] != "FrappeDomain") {
        wrong.push(format!("name {name:?}"));
    }
    if body["metadata"]["labels"][MANAGED_BY] != MANAGER {
        wrong.push("no managed-by label".to_owned());
    }
    let labels = body["metadata"]["labels"].as_object().into_iter().flatten();
    wrong.extend(
        labels.filter(|(_, it)| it.as_str().is_none_or(|it| it.len() > 63)).map(|(key, _)| format!("label {key}")),
    );
    let template = &body["spec"]["template"];
    for (key, value) in body["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten() {
        if template.is_object() && template["metadata"]["labels"][key] != *value {
            wrong.push(format!("selector {key} is not a label of the pods"));
        }
    }
    if template.is_object() {
        wrong.extend(pod(&template["spec"], body));
    }
    wrong.into_iter().map(|it| format!("{:?} {name}: {it}", desired.kind)).collect()
}

fn pod(pod: &Value, body: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let claims = body["spec"]["volumeClaimTemplates"].as_array().cloned().unwrap_or_default();
    let volumes = pod["volumes"].as_array().cloned().unwrap_or_default();
    let named = |name: &Value| {
        volumes.iter().any(|it| it["name"] == *name) || claims.iter().any(|it| it["metadata"]["name"] == *name)
    };
    for volume in volumes.iter().filter_map(|it| it["name"].as_str()).filter(|it| !is_ours(it)) {
        wrong.push(format!("volume {volume} could be one of a template"));
    }
    let security = &pod["securityContext"];
    if pod["automountServiceAccountToken"] != false {
        wrong.push("mounts a service account token".to_owned());
    }
    if security["runAsNonRoot"] != true || security["seccompProfile"]["type"] != "RuntimeDefault" {
        wrong.push("the pod does not pass the restricted Pod Security Standard".to_owned());
    }
    let containers = ["initContainers", "containers"].into_iter().filter_map(|it| pod[it].as_array()).flatten();
    for container in containers {
        if !is_container(container["name"].as_str().unwrap_or_default()) {
            wrong.push(format!("container {} could be one of a template", container["name"]));
        }
        let own = &container["securityContext"];
        if own["allowPrivilegeEscalation"] != false || own["capabilities"]["drop"] != serde_json::json!(["ALL"]) {
            wrong.push("a container does not pass the restricted Pod Security Standard".to_owned());
        }
        for mount in container["volumeMounts"].as_array().into_iter().flatten().filter(|it| !named(&it["name"])) {
            wrong.push(format!("mount {} has no volume", mount["name"]));
        }
        for variable in container["env"].as_array().into_iter().flatten() {
            if variable["valueFrom"]["secretKeyRef"].is_object() {
                wrong.push(format!("variable {} comes from a Secret", variable["name"]));
            }
        }
        if !container["resources"]["requests"]["memory"].is_string() && !container["resources"]["limits"].is_object() {
            wrong.push("a container has no resources".to_owned());
        }
    }
    wrong
}
