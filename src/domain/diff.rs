//! Whether a live object already has every field that we want.
//!
//! Fields that only the live object has are another owner's (the API server's defaults, a user's annotation) and do
//! not count. A field that we wanted once and want no longer is found by the annotation with the applied hash, which
//! is part of what is compared.

use serde_json::Value;

use crate::domain::quantity;

/// Path of the first field of `desired` that `live` lacks or has with another value.
pub fn first_difference(desired: &Value, live: &Value) -> Option<String> {
    match (desired, live) {
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().find_map(|(key, value)| {
            let other = found.get(key).unwrap_or(&Value::Null);
            first_difference(value, other).map(|path| format!(".{key}{path}"))
        }),
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            let pairs = wanted.iter().zip(found).enumerate();
            pairs.into_iter().find_map(|(index, (value, other))| {
                first_difference(value, other).map(|path| format!("[{index}]{path}"))
            })
        }
        _ => (!same(desired, live)).then(String::new),
    }
}

/// Equal, or quantities of one value: the API server rewrites `1000m` to `1`. What is empty equals what is absent.
fn same(desired: &Value, live: &Value) -> bool {
    match (desired, live) {
        (Value::String(wanted), Value::String(found)) => {
            wanted == found || quantity::milli(wanted).is_some_and(|value| Some(value) == quantity::milli(found))
        }
        (Value::Object(wanted), Value::Null) => wanted.is_empty(),
        (Value::Array(wanted), Value::Null) => wanted.is_empty(),
        _ => desired == live,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_of_the_server_are_no_difference() {
        let desired = json!({"spec": {"ports": [{"port": 80}], "cpu": "1000m", "emptyDir": {}}});
        let live = json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}], "cpu": "1", "emptyDir": {}, "x": 1}});
        assert_eq!(first_difference(&desired, &live), None);
    }

    #[test]
    fn a_changed_field_is_named() {
        let desired = json!({"spec": {"ports": [{"port": 80}]}});
        let table = [
            (json!({"spec": {"ports": [{"port": 81}]}}), ".spec.ports[0].port"),
            (json!({"spec": {"ports": []}}), ".spec.ports"),
            (json!({"spec": {}}), ".spec.ports"),
            (json!({}), ".spec"),
        ];
        for (live, path) in table {
            assert_eq!(first_difference(&desired, &live).as_deref(), Some(path));
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z0-9.]{0,6}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_object_has_every_field_of_itself(value in tree()) {
            prop_assert_eq!(first_difference(&value, &value), None);
        }

        #[test]
        fn a_removed_field_is_a_difference(key in "[a-z]{1,3}", text in "[a-z]{1,6}") {
            let desired = json!({key.clone(): text});
            prop_assert_eq!(first_difference(&desired, &json!({})), Some(format!(".{key}")));
        }
    }
}
