//! The admission fence: a ValidatingAdmissionPolicy by which the API server itself refuses writes of a replica that does
//! not own what it writes. Pure.
//!
//! It closes what no client can: a write that was sent in time and arrives late. It compares the pod in the token of the
//! request with the slot map's owner of the object's slot label; objects without one are the coordinator's. Its parameter
//! is the slot map; the binding must never be deleted, since the server would go on by an old copy (kubernetes#130887). While there is no map
//! nobody acts, so the server lets pass what comes: it asks for the map before it asks who writes, and a refusal would
//! stop everybody's writes.

use kube_sharding::SLOTS;
use serde_json::{Value, json};

use crate::{domain::labels, fleet_report::names};

/// Name of policy and binding.
const NAME: &str = "frappe-operator-owns-what-it-writes";

/// Groups and resources that replicas write, with the operations that are judged.
fn rules() -> Value {
    let rule = |group: &str, resources: &[&str]| {
        json!({"apiGroups": [group], "apiVersions": ["*"], "resources": resources, "scope": "*",
               "operations": ["CREATE", "UPDATE", "DELETE"]})
    };
    json!([
        rule(
            "vyogo.tech",
            &[
                "frappesites",
                "frappesites/status",
                "frappebenches",
                "frappebenches/status",
                "frappedomains",
                "sitebackups",
                "sitebackups/status"
            ]
        ),
        rule("batch", &["jobs"]),
        rule("networking.k8s.io", &["ingresses", "networkpolicies"]),
        rule("gateway.networking.k8s.io", &["httproutes"]),
        rule("route.openshift.io", &["routes"]),
        rule("apps", &["deployments", "statefulsets"]),
        rule("policy", &["poddisruptionbudgets"]),
        rule("", &["secrets", "services", "configmaps", "persistentvolumeclaims"]),
        rule("keda.sh", &["scaledobjects", "triggerauthentications"]),
        rule("monitoring.coreos.com", &["servicemonitors"]),
        rule("k8s.mariadb.com", &["databases", "users", "grants", "mariadbs"]),
    ])
}

/// The policy and its binding, for the operator's ServiceAccount.
pub fn policy(namespace: &str, service_account: &str) -> [Value; 2] {
    let names = names(namespace);
    let api_version = "admissionregistration.k8s.io/v1";
    let pod = "authentication.kubernetes.io/pod-uid";
    let slot = labels::SLOT;
    let policy = json!({
        "apiVersion": api_version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": NAME},
        "spec": {
            "failurePolicy": "Fail",
            "paramKind": {"apiVersion": format!("{}/v1alpha1", names.group), "kind": "SlotMap"},
            "matchConstraints": {"resourceRules": rules()},
            "matchConditions": [{
                "name": "by-the-operator",
                "expression": format!("request.userInfo.username == 'system:serviceaccount:{namespace}:{service_account}'"),
            }],
            "variables": [
                // Who takes the label off is who had it.
                {"name": "subject", "expression": format!(
                    "request.operation == 'DELETE' || (request.operation == 'UPDATE' && \
                     !(has(object.metadata.labels) && '{slot}' in object.metadata.labels)) ? oldObject : object")},
                {"name": "slot", "expression": format!(
                    "has(variables.subject.metadata.labels) && '{slot}' in variables.subject.metadata.labels \
                     ? int(variables.subject.metadata.labels['{slot}']) : {SLOTS}")},
                // A Secret of a user's, which gets a label so that its changes are seen: whoever reads it gives it.
                {"name": "of_a_user", "expression": format!(
                    "request.resource.resource == 'secrets' && request.operation == 'UPDATE' && \
                     !(has(oldObject.metadata.labels) && '{}' in oldObject.metadata.labels)", labels::MANAGED_BY)},
                {"name": "owner", "expression": "params.spec.owners[variables.slot]"},
                {"name": "pod", "expression": format!(
                    "'{pod}' in request.userInfo.extra ? string(request.userInfo.extra['{pod}'][0]) : ''")},
            ],
            "validations": [{
                "expression": "variables.of_a_user || variables.owner >= 0 && variables.pod != '' && \
                               params.spec.members[variables.owner].startsWith(variables.pod + '_')",
                "messageExpression": "'this replica does not own entry ' + string(variables.slot) + ' of the slot map'",
                "reason": "Forbidden",
            }],
        },
    });
    let binding = json!({
        "apiVersion": api_version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": NAME},
        "spec": {
            "policyName": NAME,
            "validationActions": ["Deny"],
            "paramRef": {"name": names.name, "namespace": namespace, "parameterNotFoundAction": "Allow"},
        },
    });
    [policy, binding]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_of_the_namespace_and_the_service_account() {
        let [policy, binding] = policy("platform", "operator");
        let condition = policy["spec"]["matchConditions"][0]["expression"].as_str().unwrap();
        assert!(condition.ends_with("'system:serviceaccount:platform:operator'"), "{condition}");
        assert_eq!(binding["spec"]["paramRef"]["namespace"], "platform");
        assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    }
}
