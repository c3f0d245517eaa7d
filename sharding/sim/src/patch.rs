//! Merge patches, and the fields that writers of an object cannot change.

use serde_json::{Map, Value};

/// Fields of the metadata that only the server sets.
const OWN: [&str; 5] = ["uid", "creationTimestamp", "deletionTimestamp", "generation", "resourceVersion"];

/// RFC 7386.
pub(crate) fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Value::Object(fields) = into else { return };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Copies the fields that only the server sets from `before`.
pub(crate) fn keep_own(object: &mut Value, before: &Value) {
    for field in OWN {
        set_or_remove(&mut object["metadata"], field, &before["metadata"][field]);
    }
}

/// Sets a field of an object, or removes it if the value is null.
pub(crate) fn set_or_remove(object: &mut Value, field: &str, value: &Value) {
    if !value.is_null() {
        object[field] = value.clone();
    } else if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

/// Whether an object changed in anything but metadata and status.
pub(crate) fn is_other_spec(object: &Value, before: &Value) -> bool {
    let fields = |it: &Value| it.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let mut keys = fields(object);
    keys.extend(fields(before));
    keys.iter().filter(|key| !["metadata", "status"].contains(&key.as_str())).any(|key| object[key] != before[key])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn null_removes_and_the_rest_is_merged() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "d": [1, 2]});
        merge(&mut object, &json!({"a": {"b": null, "e": {"f": null, "g": 3}}, "d": [3]}));
        assert_eq!(object, json!({"a": {"c": 2, "e": {"g": 3}}, "d": [3]}));
    }
}
