//! For tests: the leaves of a CRD's spec, and the effects of changing one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Every leaf of a CRD's spec, by its path; `[]` stands for the items of a list; the keys of a map are left out. Fields in `whole` are leaves.
pub(super) fn leaves_of(definition: &Value, whole: &[&str]) -> BTreeSet<String> {
    fn walk(schema: &Value, path: &str, whole: &[&str], leaves: &mut BTreeSet<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let here = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let (items, values) = (&field["items"], &field["additionalProperties"]);
            let below = [field, items, values].into_iter().any(|it| it["properties"].is_object());
            if whole.contains(&name.as_str()) || !below {
                leaves.insert(here);
            } else if values["properties"].is_object() {
                walk(values, &here, whole, leaves);
            } else if items["properties"].is_object() {
                walk(items, &format!("{here}[]"), whole, leaves);
            } else {
                walk(field, &here, whole, leaves);
            }
        }
    }
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut found = BTreeSet::new();
    walk(schema, "", whole, &mut found);
    found
}

/// Fields of objects and statuses: path and value.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture(pub(super) BTreeMap<String, String>);

impl Picture {
    /// Adds the fields of a value. Items of a list are identified by their name, if they have one.
    pub(super) fn add(&mut self, path: &str, value: &Value) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| self.add(&format!("{path}.{key}"), value)),
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    let name = value["mountPath"].as_str().or(value["name"].as_str());
                    let name = name.map_or(index.to_string(), ToOwned::to_owned);
                    self.add(&format!("{path}[{name}]"), value);
                }
            }
            Value::Null => {}
            other => drop(self.0.insert(path.to_owned(), other.to_string())),
        }
    }

    /// Adds status and reason of each condition, and the other fields of a status, except those in `without`.
    pub(super) fn add_status(&mut self, status: &Value, without: &[&str]) {
        for (part, value) in status.as_object().into_iter().flatten() {
            if part == "conditions" {
                for it in value.as_array().into_iter().flatten() {
                    let text = |field: &str| it[field].as_str().unwrap_or_default().to_owned();
                    let said = format!("{} {}", text("status"), text("reason"));
                    self.0.insert(format!("status: {}", text("type")), said);
                }
            } else if !without.contains(&part.as_str()) {
                self.add(&format!("status: {part}"), value);
            }
        }
    }

    /// Fields that differ, with their previous and current values.
    pub(super) fn against(&self, former: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(former.0.keys()).collect();
        let shown = |it: Option<&String>| it.map_or("-".to_owned(), |it| it.chars().take(60).collect());
        names
            .into_iter()
            .filter(|name| self.0.get(*name) != former.0.get(*name))
            .map(|name| format!("{name}: {} => {}", shown(former.0.get(name)), shown(self.0.get(name))))
            .collect()
    }
}

/// The first changes, and the number of others.
pub(super) fn brief(changes: &[String]) -> Vec<String> {
    let some = changes.iter().take(3).cloned();
    let more = changes.len().saturating_sub(3);
    some.chain((more > 0).then(|| format!("and {more} more"))).collect()
}
