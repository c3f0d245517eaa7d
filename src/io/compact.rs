//! How objects lie in caches: typed ones as they are, others as compressed JSON.
//!
//! A `DynamicObject` is a tree of maps, each node of which takes hundreds of bytes however little it holds. The objects
//! of one kind are nearly alike, so that beside a sample each is a few hundred bytes.

use std::{borrow::Cow, collections::HashMap, fmt};

use kube::{
    Resource,
    api::ObjectMeta,
    core::{ApiResource, DynamicObject, DynamicResourceScope},
};
use kube_sharding::reading::Head;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::io::bound;

/// An object as text, with what a cache asks for at hand: name, namespace, uid and resourceVersion.
#[derive(Clone)]
pub struct Compact {
    metadata: ObjectMeta,
    pub(super) json: Box<[u8]>,
}

impl Compact {
    /// An object without what no one reads; of one that is too large, its metadata alone.
    pub(super) fn of(mut object: Value) -> Self {
        bound::prune(&mut object);
        let json = object.to_string();
        if json.len() <= bound::OBJECT_BYTES_MAX {
            return Self::with_metadata(json.into_bytes());
        }
        bound::leave_metadata(&mut object);
        Self::with_metadata(object.to_string().into_bytes())
    }

    /// Of an object of which nothing but this may be read.
    pub(super) fn of_head(head: &Head) -> Self {
        let mut object = json!(head);
        bound::prune(&mut object);
        bound::leave_metadata(&mut object);
        Self::with_metadata(object.to_string().into_bytes())
    }

    /// An object of this text.
    pub(super) fn with_metadata(json: Vec<u8>) -> Self {
        let Part { metadata: Identity { name, namespace, uid, resource_version } } = head(&json);
        let metadata = ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() };
        Self { metadata, json: json.into_boxed_slice() }
    }

    /// The whole object.
    ///
    /// # Panics
    /// Never: what was taken in is JSON with metadata.
    pub fn open(&self) -> DynamicObject {
        serde_json::from_slice(&self.json).expect("what was taken in is JSON with metadata")
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<String> {
        let mut found: Part<Labels> = head(&self.json);
        found.metadata.labels.remove(name)
    }
}

/// A part of an object.
#[derive(Default, Deserialize)]
struct Part<M> {
    metadata: M,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
}

#[derive(Default, Deserialize)]
struct Labels {
    #[serde(default)]
    labels: HashMap<String, String>,
}

fn head<M: DeserializeOwned + Default>(json: &[u8]) -> Part<M> {
    serde_json::from_slice(json).unwrap_or_default()
}

impl<'de> Deserialize<'de> for Compact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        if !object["metadata"].is_object() {
            return Err(serde::de::Error::missing_field("metadata"));
        }
        Ok(Self::of(object))
    }
}

impl fmt::Debug for Compact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.json))
    }
}

impl Resource for Compact {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(resource)
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(resource)
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(resource)
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(resource)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
