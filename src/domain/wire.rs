//! Data of this program as JSON, as it is sent, compared and hashed; and objects of the API server from and to JSON. Pure.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::{
    api::ObjectMeta,
    core::{DynamicObject, TypeMeta},
};
use kube_sharding::reading::is_moderate;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor},
};
use serde_json::{Map, Value};

/// Data of this program as JSON.
///
/// # Panics
/// Never: the keys of its maps are text. Nothing is sent in its place.
pub fn json(data: &impl Serialize) -> Value {
    serde_json::to_value(data).expect("data of this program serializes")
}

/// The same as text whose keys are sorted: what is equal is equal text.
pub fn text(data: &impl Serialize) -> String {
    json(data).to_string()
}

/// The same with the keys in their own order.
///
/// # Panics
/// Never, as [`json`].
pub fn in_order(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("data of this program serializes")
}

/// An object from its text, in one pass and without managedFields, which are half of most objects. (`DynamicObject` itself
/// copies every field into a buffer before it reads the first.)
pub fn object(text: &[u8]) -> serde_json::Result<DynamicObject> {
    serde_json::from_slice(text).map(|Object(object)| object)
}

/// The same of a text that may be of any size or depth; None if it is too large, too deep or no object.
pub fn moderate_object(text: &str) -> Option<DynamicObject> {
    is_moderate(text).then(|| object(text.as_bytes()).ok()).flatten()
}

/// An object as JSON.
pub fn tree(object: DynamicObject) -> Value {
    let DynamicObject { types, metadata, data } = object;
    let mut fields = if let Value::Object(fields) = data { fields } else { Map::new() };
    fields.insert("metadata".to_owned(), json(&metadata));
    if let Some(TypeMeta { api_version, kind }) = types {
        fields.insert("apiVersion".to_owned(), api_version.into());
        fields.insert("kind".to_owned(), kind.into());
    }
    fields.into()
}

/// Reads an object.
struct Object(DynamicObject);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

/// Reads the fields of an object.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Object;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let (mut api_version, mut kind, mut metadata, mut data) = (None, None, None, Map::new());
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "apiVersion" => api_version = map.next_value()?,
                "kind" => kind = map.next_value()?,
                "metadata" => metadata = Some(map.next_value::<Metadata>()?),
                _ => {
                    data.insert(field, map.next_value()?);
                }
            }
        }
        let metadata = metadata.ok_or_else(|| de::Error::missing_field("metadata"))?;
        let types = Option::zip(api_version, kind).map(|(api_version, kind)| TypeMeta { api_version, kind });
        Ok(Object(DynamicObject { types, metadata: metadata.into(), data: data.into() }))
    }
}

/// The metadata that is read of an object.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(it: Metadata) -> Self {
        Self {
            name: it.name,
            namespace: it.namespace,
            uid: it.uid,
            resource_version: it.resource_version,
            generation: it.generation,
            creation_timestamp: it.creation_timestamp,
            deletion_timestamp: it.deletion_timestamp,
            deletion_grace_period_seconds: it.deletion_grace_period_seconds,
            labels: it.labels,
            annotations: it.annotations,
            owner_references: it.owner_references,
            finalizers: it.finalizers,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Serialize)]
    struct Data {
        second: u8,
        first: u8,
    }

    #[test]
    fn equal_objects_have_equal_text() {
        let data = Data { second: 2, first: 1 };
        assert_eq!(text(&data), r#"{"first":1,"second":2}"#);
        assert_eq!(in_order(&data), r#"{"second":2,"first":1}"#);
    }

    #[test]
    fn an_object_is_read_as_it_reads_itself_but_for_its_managed_fields() {
        let metadata = json!({
            "name": "shop", "namespace": "a", "uid": "u", "resourceVersion": "7", "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z",
            "deletionGracePeriodSeconds": 0, "labels": {"site": "shop"}, "annotations": {"a": "b"}, "finalizers": ["x"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "b", "uid": "c", "controller": true}],
        });
        let whole =
            json!({"apiVersion": "v1", "kind": "A", "metadata": metadata, "spec": {"a": [1, null]}, "status": {}});
        let mut managed = whole.clone();
        managed["metadata"]["managedFields"] = json!([{"manager": "x", "fieldsV1": {"f:spec": {}}}]);
        let nameless = json!({"metadata": {"name": "shop"}, "data": {"a": "b"}});
        for (sent, kept) in [(&whole, &whole), (&managed, &whole), (&nameless, &nameless)] {
            let read = object(sent.to_string().as_bytes()).expect("an object");
            assert_eq!(read, serde_json::from_value(kept.clone()).expect("an object"));
            assert_eq!(tree(read), *kept);
        }
        assert!(object(br#"{"kind": "Status"}"#).is_err(), "it has no metadata");
    }
}
