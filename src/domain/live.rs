//! Typed access to fields of live objects. A field that is missing or has another form is None. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::core::DynamicObject;
use serde::{Deserialize, de::DeserializeOwned};

/// The spec of an object.
pub fn spec<S: DeserializeOwned + Default>(object: &DynamicObject) -> S {
    S::deserialize(&object.data["spec"]).unwrap_or_default()
}

/// The status of an object.
pub fn status<S: DeserializeOwned + Default>(object: &DynamicObject) -> S {
    S::deserialize(&object.data["status"]).unwrap_or_default()
}

/// One field of an object by its JSON pointer, such as `/spec/name`, even if other fields cannot be parsed.
pub fn field<T: DeserializeOwned>(object: &DynamicObject, pointer: &str) -> Option<T> {
    T::deserialize(object.data.pointer(pointer)?).ok()
}

/// A condition of an object of any kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    type_: Option<String>,
    status: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    last_transition_time: Option<String>,
}

impl Condition {
    /// Whether it is of this type.
    pub fn is(&self, type_: &str) -> bool {
        self.type_.as_deref() == Some(type_)
    }

    /// Whether it is of this type and True.
    pub fn holds(&self, type_: &str) -> bool {
        self.is(type_) && self.status.as_deref() == Some("True")
    }

    /// Whether it is of this type and False.
    pub fn fails(&self, type_: &str) -> bool {
        self.is(type_) && self.status.as_deref() == Some("False")
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or_default()
    }

    /// The message, if any.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Last transition time.
    pub fn since(&self) -> Option<Timestamp> {
        self.last_transition_time.as_ref()?.parse().ok()
    }
}

/// A list of conditions in a status.
#[derive(Default, Deserialize)]
struct Conditions {
    #[serde(default)]
    conditions: Vec<Condition>,
}

/// The conditions of an object.
pub fn conditions(object: &DynamicObject) -> Vec<Condition> {
    status::<Conditions>(object).conditions
}

/// Conditions of a route, per parent.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parents {
    parents: Vec<Conditions>,
    ingress: Vec<Conditions>,
}

/// Conditions that the Gateways of an HTTPRoute, or the routers of a Route, have set.
pub fn conditions_of_parents(route: &DynamicObject) -> impl Iterator<Item = Condition> {
    let Parents { parents, ingress } = status(route);
    parents.into_iter().chain(ingress).flat_map(|it| it.conditions)
}

/// A spec with a pod template.
#[derive(Default, Deserialize)]
struct Workload {
    #[serde(default)]
    template: PodTemplateSpec,
}

/// The pod template of a workload.
pub fn template(workload: &DynamicObject) -> PodTemplateSpec {
    spec::<Workload>(workload).template
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(data: serde_json::Value) -> DynamicObject {
        let mut object = DynamicObject::new("a", &crate::domain::object::Kind::Job.resource());
        object.data = data;
        object
    }

    #[test]
    fn a_missing_or_malformed_field_is_none() {
        for data in [json!(null), json!({"status": 1}), json!({"status": {"conditions": {}}})] {
            assert_eq!(conditions(&object(data)), []);
        }
        let said = object(json!({"status": {"conditions": [{"type": "Ready", "status": "False", "message": null}]}}));
        let found = conditions(&said);
        assert!(found[0].fails("Ready") && !found[0].holds("Ready"));
        assert_eq!((found[0].message(), found[0].since()), (None, None));
    }

    #[test]
    fn a_field_is_read_whatever_is_beside_it() {
        let found = object(json!({"spec": {"galera": null, "replicas": 3, "port": "x"}}));
        assert_eq!(field(&found, "/spec/replicas"), Some(3));
        assert_eq!(field::<i64>(&found, "/spec/port"), None);
        assert_eq!(field::<bool>(&found, "/spec/galera/enabled"), None);
    }

    #[test]
    fn both_kinds_of_parents_are_read() {
        let refusal = json!([{"conditions": [{"type": "Accepted", "status": "False", "reason": "No"}]}, {}]);
        for list in ["parents", "ingress"] {
            let route = object(json!({"status": {list: refusal}}));
            let found: Vec<_> = conditions_of_parents(&route).collect();
            assert_eq!(found.len(), 1, "{list}");
            assert_eq!(found[0].reason(), "No");
        }
    }
}
