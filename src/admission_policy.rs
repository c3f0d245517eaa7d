//! The admission fence: a ValidatingAdmissionPolicy that rejects writes of a replica that does not own the object. Pure.
//!
//! It rejects what no client can prevent: a write that was sent in time and arrives late. It compares the pod in the request's
//! token with the slot map's owner of the object's slot label; objects without one belong to the coordinator. Its parameter is the
//! slot map; the binding must never be deleted, because the API server would continue with an old copy (kubernetes#130887). Without
//! a slot map no replica acts, and the policy allows all writes: the API server evaluates the parameter before the user, so a
//! rejection would block all users.

use kube_sharding::SLOTS;
use serde_json::{Value, json};

use crate::{
    domain::{labels, rights},
    fleet_report::names,
};

/// Name of policy and binding.
const NAME: &str = "frappe-operator-owns-what-it-writes";

/// Resources that replicas write, with the checked operations.
fn rules() -> Vec<Value> {
    let rule = |(group, resources): (String, Vec<String>)| {
        json!({"apiGroups": [group], "apiVersions": ["*"], "resources": resources, "scope": "*",
               "operations": ["CREATE", "UPDATE", "DELETE"]})
    };
    rights::written().into_iter().map(rule).collect()
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
                // A user's Secret, which gets a label so that its changes are watched; the replica that reads it sets the label.
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
    fn the_policy_names_the_namespace_and_the_service_account() {
        let [policy, binding] = policy("platform", "operator");
        let condition = policy["spec"]["matchConditions"][0]["expression"].as_str().unwrap();
        assert!(condition.ends_with("'system:serviceaccount:platform:operator'"), "{condition}");
        assert_eq!(binding["spec"]["paramRef"]["namespace"], "platform");
        assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    }

    #[test]
    fn the_charts_policy_is_this_one() {
        let file = include_str!("../helm/frappe-operator/files/admission-fence.yaml");
        let documents = policy("NAMESPACE-OF-THE-RELEASE", "ACCOUNT-OF-THE-RELEASE");
        let text: Vec<String> = documents
            .iter()
            .map(|it| format!("---\n{}\n", serde_json::to_string_pretty(it).expect("JSON is text")))
            .collect();
        assert!(file == text.concat(), "helm/frappe-operator/files/admission-fence.yaml is out of date: make crds");
    }
}
