//! How objects are read from what the API server sends: one that cannot be read never stops the others.
//!
//! A user who may write an object decides what is in it: values nested deeper than a parser follows, or so many that their
//! tree takes a hundred times the memory of the text. Therefore each object is taken from a list or an event as text,
//! scanned, and only then parsed. Of one that fails the scan, [`Head`] reads what the API server itself has validated:
//! apiVersion, kind and metadata.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Reads an object from its text when it arrives, and returns the parts to keep; the rest is never cached. None if not even
/// its metadata can be read, which the function logs.
pub type Read<K> = fn(&str) -> Option<K>;

/// Longest text of an object that is read whole, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most lists, maps and further entries of an object that is read whole. Each takes at most a node of a map, some 660
/// bytes: 13 MB for one object, one at a time. The largest spec that is kept has some thousands.
const NODES_MAX: usize = 20_000;
/// Most owners and finalizers that [`Head`] reads.
const REFERENCES_MAX: usize = 64;

/// Whether an object may be parsed into a tree, by its text alone.
pub fn is_moderate(text: &str) -> bool {
    // Each node is at least a byte of the text: most texts need not be scanned.
    text.len() <= NODES_MAX || (text.len() <= TEXT_BYTES_MAX && nodes(text) <= NODES_MAX)
}

/// Beginnings of lists and maps, and commas, that are not in strings.
fn nodes(text: &str) -> usize {
    let (mut count, mut in_string, mut is_escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' | b',' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// The object; its apiVersion, kind and metadata alone, without labels and annotations, if it is no moderate one or
/// cannot be read; nothing, with a warning, where that is no object of the kind either.
pub fn read<K: DeserializeOwned>(text: &str) -> Option<K> {
    whole(text).or_else(|| {
        let head = Head::of(text, |_| false)?;
        let object = serde_json::to_value(&head).and_then(serde_json::from_value);
        object.map_err(|error| head.left_out(&error)).ok()
    })
}

/// The object, if it is a moderate one and can be read.
pub fn whole<K: DeserializeOwned>(text: &str) -> Option<K> {
    is_moderate(text).then(|| serde_json::from_str(text).ok()).flatten()
}

/// What is read of an object that cannot be read whole.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Its apiVersion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its metadata without managedFields, which follow the object and are as deep as it is; of owners and finalizers,
    /// the first few.
    pub metadata: ObjectMeta,
}

impl Head {
    /// The head of an object, with those labels and annotations that are `wanted` by their names. Nothing, with a
    /// warning, if it has none.
    pub fn of(text: &str, wanted: fn(&str) -> bool) -> Option<Self> {
        let read = serde_json::from_str::<Parts>(text).and_then(|parts| parts.head(wanted));
        read.map_err(|error| {
            let name: Name = serde_json::from_str(text).unwrap_or_default();
            let Named { namespace, name } = name.metadata;
            tracing::warn!(%error, ?namespace, ?name, "object skipped: it cannot be parsed");
        })
        .ok()
    }

    fn left_out(&self, error: &serde_json::Error) {
        let ObjectMeta { namespace, name, .. } = &self.metadata;
        tracing::warn!(%error, ?namespace, ?name, "object skipped: it cannot be parsed");
    }
}

/// As much of an object as says its name.
#[derive(Default, Deserialize)]
struct Name {
    metadata: Named,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

/// An object as far as its head goes. All else is skipped, which takes no memory however deep it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parts<'a> {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    resource_version: Option<String>,
    #[serde(default)]
    generation: Option<i64>,
    #[serde(default)]
    creation_timestamp: Option<Time>,
    #[serde(default)]
    deletion_timestamp: Option<Time>,
    #[serde(default)]
    deletion_grace_period_seconds: Option<i64>,
    #[serde(borrow, default)]
    labels: Option<&'a RawValue>,
    #[serde(borrow, default)]
    annotations: Option<&'a RawValue>,
    #[serde(default)]
    owner_references: Option<First<OwnerReference>>,
    #[serde(default)]
    finalizers: Option<First<String>>,
}

impl Parts<'_> {
    fn head(self, wanted: fn(&str) -> bool) -> Result<Head, serde_json::Error> {
        let Self { api_version, kind, metadata: it } = self;
        let entries = |raw: Option<&RawValue>| {
            let read = raw.map(|raw| Entries(wanted).deserialize(&mut serde_json::Deserializer::from_str(raw.get())));
            Ok::<_, serde_json::Error>(read.transpose()?.filter(|entries| !entries.is_empty()))
        };
        let metadata = ObjectMeta {
            name: it.name,
            namespace: it.namespace,
            uid: it.uid,
            resource_version: it.resource_version,
            generation: it.generation,
            creation_timestamp: it.creation_timestamp,
            deletion_timestamp: it.deletion_timestamp,
            deletion_grace_period_seconds: it.deletion_grace_period_seconds,
            labels: entries(it.labels)?,
            annotations: entries(it.annotations)?,
            owner_references: it.owner_references.map(|first| first.0),
            finalizers: it.finalizers.map(|first| first.0),
            ..ObjectMeta::default()
        };
        Ok(Head { api_version, kind, metadata })
    }
}

/// Reads the entries of a map whose names are wanted.
struct Entries(fn(&str) -> bool);

impl<'de> DeserializeSeed<'de> for Entries {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut kept = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if (self.0)(&name) {
                kept.insert(name, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(kept)
    }
}

/// The first items of a list.
struct First<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FirstOf(std::marker::PhantomData)).map(First)
    }
}

struct FirstOf<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FirstOf<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while items.len() < REFERENCES_MAX {
            let Some(item) = seq.next_element()? else { return Ok(items) };
            items.push(item);
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use kube::{ResourceExt, core::DynamicObject};

    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}{}", "[".repeat(levels), "]".repeat(levels))
    }

    /// What the API server takes, a parser may not: neither the object nor its managedFields, which follow it.
    #[test]
    fn the_metadata_of_an_object_that_is_nested_too_deeply_is_read() {
        let (deep, fields) = (nested(200), format!("{}0{}", r#"{"f:a":"#.repeat(200), "}".repeat(200)));
        let text = format!(
            r#"{{"apiVersion": "v1", "kind": "A", "spec": {{"a": {deep}}}, "metadata": {{"name": "a", "uid": "u",
                "resourceVersion": "7", "labels": {{"mine": "1", "theirs": "2"}}, "finalizers": ["x"],
                "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{{"fieldsV1": {fields}}}]}}}}"#
        );
        assert!(serde_json::from_str::<DynamicObject>(&text).is_err(), "a parser gives up");
        let object: DynamicObject = read(&text).expect("a head");
        assert_eq!((object.name_any().as_str(), object.resource_version().as_deref()), ("a", Some("7")));
        assert_eq!(object.types.as_ref().map(|it| it.kind.as_str()), Some("A"));
        assert!(object.creation_timestamp().is_some() && object.labels().is_empty());
        let head = Head::of(&text, |name| name == "mine").expect("a head");
        assert_eq!(head.metadata.labels.unwrap_or_default().into_keys().collect::<Vec<_>>(), ["mine"]);
        assert_eq!(head.metadata.finalizers.unwrap_or_default(), ["x"]);
    }

    #[test]
    fn an_object_without_metadata_is_none() {
        for text in ["5", "[5]", r#"{"metadata": 5}"#, r#"{"metadata": {"name": "a", "uid": 5}}"#] {
            assert!(read::<DynamicObject>(text).is_none(), "{text}");
        }
    }

    /// An object whose tree would take many times its text is not parsed.
    #[test]
    fn an_object_of_many_or_long_values_is_not_read_whole() {
        assert_eq!(nodes(r#"{"a,[{\"\\": [1, {"": 0}], "\\": ","}"#), 5);
        let object = |spec: &str| format!(r#"{{"metadata": {{"name": "a"}}, "spec": {spec}}}"#);
        let many = |count: usize| object(&format!("[{}0]", r#"{"":0},"#.repeat(count)));
        let is_whole = |text: &str| read::<DynamicObject>(text).expect("an object").data["spec"].is_array();
        assert!(is_whole(&many(9_000)) && !is_whole(&many(11_000)));
        let long = |count: usize| object(&format!(r#"["{}"]"#, ",".repeat(count)));
        assert!(is_whole(&long(1_000_000)), "commas in a text are no values");
        assert!(!is_whole(&long(1 << 20)));
    }

    #[test]
    fn the_first_of_many_owners_and_finalizers_are_read() {
        let finalizers = serde_json::to_string(&vec!["a"; 30_000]).expect("JSON");
        let text = format!(r#"{{"metadata": {{"name": "a", "finalizers": {finalizers}}}}}"#);
        let object: DynamicObject = read(&text).expect("a head");
        assert_eq!(object.finalizers().len(), REFERENCES_MAX);
    }
}
