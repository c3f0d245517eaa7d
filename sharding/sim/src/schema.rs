//! An OpenAPI schema, as far as it validates writes.

use serde_json::Value;

/// Whether a value satisfies a schema's types, bounds, lengths and enums.
pub(crate) fn valid(schema: &Value, value: &Value) -> bool {
    let within = |number: f64, least: &str, most: &str| {
        schema[least].as_f64().is_none_or(|it| number >= it) && schema[most].as_f64().is_none_or(|it| number <= it)
    };
    let listed = schema["enum"].as_array().is_none_or(|words| words.contains(value));
    #[expect(clippy::cast_precision_loss, reason = "lengths are small")]
    let fits = match schema["type"].as_str() {
        _ if schema["x-kubernetes-int-or-string"] == true => value.is_string() || value.is_i64(),
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let additional = &schema["additionalProperties"];
            let inner = |key: &str, inner_value: &Value| match &schema["properties"][key] {
                Value::Null if additional.is_object() => valid(additional, inner_value),
                Value::Null => true,
                inner => valid(inner, inner_value),
            };
            value.as_object().is_some_and(|fields| {
                required.into_iter().all(|key| !value[key].is_null())
                    && fields.iter().all(|(key, field)| field.is_null() || inner(key, field))
            })
        }
        Some("array") => value.as_array().is_some_and(|items| {
            within(items.len() as f64, "minItems", "maxItems") && items.iter().all(|it| valid(&schema["items"], it))
        }),
        Some("integer") => value.is_i64() && value.as_f64().is_some_and(|it| within(it, "minimum", "maximum")),
        Some("boolean") => value.is_boolean(),
        Some("string") => value.as_str().is_some_and(|it| within(it.len() as f64, "minLength", "maxLength")),
        _ => true,
    };
    fits && listed
}

/// Sets a schema's defaults where the value has no field.
pub(crate) fn set_defaults(schema: &Value, value: &mut Value) {
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let Some(fields) = value.as_object_mut() else { return };
        if !fields.contains_key(key) && !inner["default"].is_null() {
            fields.insert(key.clone(), inner["default"].clone());
        }
        if let Some(field) = fields.get_mut(key) {
            set_defaults(inner, field);
        }
    }
    for item in value.as_array_mut().into_iter().flatten() {
        set_defaults(&schema["items"], item);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bounds_enums_and_required_fields_are_checked() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {
            "a": {"type": "integer", "minimum": 1}, "b": {"type": "string", "enum": ["x", "y"]},
            "c": {"type": "array", "maxItems": 1, "items": {"type": "string"}}, "d": {"type": "boolean", "default": true},
        }});
        let table = [
            (json!({"a": 1}), true),
            (json!({"a": 0}), false),
            (json!({}), false),
            (json!({"a": 1, "b": "x", "c": ["z"]}), true),
            (json!({"a": 1, "b": "z"}), false),
            (json!({"a": 1, "c": ["y", "z"]}), false),
            (json!({"a": 1, "unknown": {}}), true),
        ];
        for (value, wanted) in table {
            assert_eq!(valid(&schema, &value), wanted, "{value}");
        }
        let mut value = json!({"a": 1});
        set_defaults(&schema, &mut value);
        assert_eq!(value, json!({"a": 1, "d": true}));
    }
}
