//! Desired objects, and owners of objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

pub use crate::domain::kinds::Kind;
use crate::domain::{
    key::Key,
    labels::{APPLIED_HASH, IDENTITY, MANAGED_BY, MANAGER},
    names::hash_hex,
    wire,
};

/// Hex digits of the hash of an applied object.
const APPLIED_HASH_DIGITS: usize = 16;

/// A desired object: exactly the fields that this operator owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The kind.
    pub kind: Kind,
    /// Namespace and name.
    pub key: Key,
    /// The whole object, with apiVersion, kind and metadata.
    pub body: Value,
}

impl Desired {
    /// From a typed object that has the key's name: see [`super::typed`].
    pub(super) fn of(kind: Kind, key: Key, object: &impl Serialize) -> Self {
        Self { kind, key, body: wire::json(object) }
    }

    /// Its spec as this type.
    pub fn spec<S: DeserializeOwned>(&self) -> Option<S> {
        S::deserialize(&self.body["spec"]).ok()
    }

    /// The same with another spec.
    #[must_use]
    pub fn with_spec(mut self, spec: &impl Serialize) -> Self {
        self.body["spec"] = wire::json(spec);
        self
    }

    /// Its labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::deserialize(&self.body["metadata"]["labels"]).unwrap_or_default()
    }

    /// Value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.body["metadata"]["labels"][name].as_str()
    }

    /// Value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.body["metadata"]["annotations"][name].as_str()
    }

    /// Its owner references.
    pub fn owners(&self) -> Vec<OwnerReference> {
        Vec::deserialize(&self.body["metadata"]["ownerReferences"]).unwrap_or_default()
    }

    /// Component of the bench.
    pub fn component(&self) -> &str {
        self.label("component").unwrap_or_default()
    }

    /// The object with its hash as an annotation, as applied.
    pub fn stamped(&self) -> Value {
        let mut body = self.body.clone();
        body["metadata"]["annotations"][APPLIED_HASH] = json!(self.applied_hash());
        body
    }

    /// Hash of the applied object, in the annotation `labels::APPLIED_HASH`.
    pub fn applied_hash(&self) -> String {
        hash_hex(&self.body.to_string(), APPLIED_HASH_DIGITS)
    }
}

/// Whether an object's controller has this uid.
pub fn is_controlled_by(object: &impl ResourceExt, uid: &str) -> bool {
    object.owner_references().iter().any(|it| it.controller == Some(true) && it.uid == uid)
}

/// The finalizers of an object without ours.
pub fn finalizers_without(object: &impl ResourceExt, ours: &str) -> Vec<String> {
    object.finalizers().iter().filter(|it| *it != ours).cloned().collect()
}

/// Whether a write removed the last finalizer of an object that was being deleted.
pub fn is_released(written: &impl ResourceExt) -> bool {
    written.meta().deletion_timestamp.is_some() && written.finalizers().is_empty()
}

/// Whether an object has the annotation with this site's identity.
pub fn is_made(metadata: &kube::api::ObjectMeta) -> bool {
    metadata.annotations.as_ref().is_some_and(|it| it.contains_key(IDENTITY))
}

/// Whether an object has this operator's managed-by label.
pub fn is_ours(metadata: &kube::api::ObjectMeta) -> bool {
    metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|value| value == MANAGER)
}
