//! An object as it should be, and whose an object is.

use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

pub use crate::domain::kinds::Kind;
use crate::domain::{
    key::Key,
    labels::{APPLIED_HASH, IDENTITY, MANAGED_BY, MANAGER},
    names::hash_hex,
};

/// Hex digits of the hash of an applied object.
const APPLIED_HASH_DIGITS: usize = 16;

/// An object as it should be: exactly the fields that this operator owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: Key,
    /// The whole object, with apiVersion, kind and metadata.
    pub body: Value,
}

impl Desired {
    /// From a typed object of Kubernetes.
    ///
    /// # Panics
    /// Never: the types of k8s-openapi serialize.
    pub fn typed<K: Resource<DynamicType = ()> + Serialize>(kind: Kind, object: &K) -> Self {
        let body = serde_json::to_value(object).expect("a Kubernetes object serializes");
        Self { kind, key: Key::of(object), body }
    }

    /// From metadata (a JSON object with name, labels …) and a spec.
    pub fn untyped(kind: Kind, key: Key, mut metadata: Value, spec: &Value) -> Self {
        let resource = kind.resource();
        metadata["name"] = json!(key.name);
        if !key.namespace.is_empty() {
            metadata["namespace"] = json!(key.namespace);
        }
        let body = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec,
        });
        Self { kind, key, body }
    }

    /// The object as it is applied: with the hash of itself as an annotation.
    pub fn stamped(&self) -> Value {
        let mut body = self.body.clone();
        body["metadata"]["annotations"][APPLIED_HASH] = json!(self.applied_hash());
        body
    }

    /// Hash of what is applied, as the object carries it in `labels::APPLIED_HASH`.
    pub fn applied_hash(&self) -> String {
        hash_hex(&self.body.to_string(), APPLIED_HASH_DIGITS)
    }
}

/// Whether an object's controller has this uid.
pub fn is_controlled_by(object: &impl ResourceExt, uid: &str) -> bool {
    object.owner_references().iter().any(|it| it.controller == Some(true) && it.uid == uid)
}

/// The finalizers of an object without one of ours.
pub fn finalizers_without(object: &impl ResourceExt, ours: &str) -> Vec<String> {
    object.finalizers().iter().filter(|it| *it != ours).cloned().collect()
}

/// Whether a write let an object go that was being deleted: nothing holds it any more.
pub fn is_let_go(written: &impl ResourceExt) -> bool {
    written.meta().deletion_timestamp.is_some() && written.finalizers().is_empty()
}

/// Whether an object carries the identity of a site, which this operator writes on what it makes and keeps.
pub fn is_made(metadata: &kube::api::ObjectMeta) -> bool {
    metadata.annotations.as_ref().is_some_and(|it| it.contains_key(IDENTITY))
}

/// Whether an object carries this operator's mark.
pub fn is_ours(metadata: &kube::api::ObjectMeta) -> bool {
    metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|value| value == MANAGER)
}
