//! How objects lie in caches: typed ones as they are, others as compressed JSON.
//!
//! A `DynamicObject` is a tree of maps, each node of which takes hundreds of bytes however little it holds. The objects
//! of one kind are nearly alike, so that beside a sample each is a few hundred bytes.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::OnceLock};

use kube::{
    Resource,
    api::ObjectMeta,
    core::{ApiResource, DynamicObject, DynamicResourceScope},
};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::{domain::wire, io::bound};

/// The kind of what is delivered without its content.
const PARTIAL: &str = "PartialObjectMetadata";

/// An object as text, with what a cache asks for at hand: name, namespace, uid, resourceVersion and labels.
#[derive(Clone)]
pub struct Compact {
    /// Read from the text when it is first asked for.
    metadata: OnceLock<ObjectMeta>,
    pub(super) json: Box<[u8]>,
}

impl Compact {
    /// An object as it arrives, if it is a moderate one and can be read.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut object = wire::moderate_object(text)?;
        if object.types.as_ref().is_some_and(|it| it.kind == PARTIAL)
            && let Some(owned) = bound::owned_data(text)
        {
            object.data["data"] = owned;
        }
        Some(Self::of(object))
    }

    /// An object without what no one reads; of one that is too large, its metadata alone.
    pub(super) fn of(mut object: DynamicObject) -> Self {
        bound::prune(&mut object);
        let json = wire::in_order(&object);
        if json.len() <= bound::OBJECT_BYTES_MAX {
            Self::with_metadata(object.metadata, json)
        } else {
            Self::bare(object)
        }
    }

    /// The metadata alone of an object, without labels and annotations of others.
    pub(super) fn bare(mut object: DynamicObject) -> Self {
        bound::prune(&mut object);
        bound::leave_metadata(&mut object);
        let json = wire::in_order(&object);
        Self::with_metadata(object.metadata, json)
    }

    fn with_metadata(metadata: ObjectMeta, json: String) -> Self {
        let ObjectMeta { name, namespace, uid, resource_version, labels, .. } = metadata;
        let metadata = ObjectMeta { name, namespace, uid, resource_version, labels, ..ObjectMeta::default() };
        Self { metadata: metadata.into(), json: json.into_bytes().into_boxed_slice() }
    }

    /// An object that had this text.
    pub(super) fn again(json: Vec<u8>) -> Self {
        Self { metadata: OnceLock::new(), json: json.into_boxed_slice() }
    }

    /// The whole object.
    ///
    /// # Panics
    /// Never: what was taken in is JSON with metadata.
    pub fn open(&self) -> DynamicObject {
        wire::object(&self.json).expect("what was taken in is JSON with metadata")
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.meta().labels.as_ref()?.get(name).map(String::as_str)
    }
}

/// An object as far as a cache asks for it.
#[derive(Default, Deserialize)]
struct Part {
    metadata: Identity,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

fn identity(json: &[u8]) -> ObjectMeta {
    let Part { metadata } = serde_json::from_slice(json).unwrap_or_default();
    let Identity { name, namespace, uid, resource_version, labels } = metadata;
    ObjectMeta { name, namespace, uid, resource_version, labels, ..ObjectMeta::default() }
}

impl<'de> Deserialize<'de> for Compact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        Self::read(&object.to_string()).ok_or_else(|| de::Error::custom("an object that cannot be read"))
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
        self.metadata.get_or_init(|| identity(&self.json))
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.meta();
        self.metadata.get_mut().expect("it was read just now")
    }
}
