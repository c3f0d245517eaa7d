//! Server-side apply, and the managers of fields. Lists are atomic: nothing is merged by keys.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{call::Call, patch::set_or_remove};

/// Keys from the root to a field.
type Path = Vec<String>;

/// Fields without a manager: the object's identity, and those that the server sets.
const UNMANAGED: [&str; 9] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "managedFields",
    "selfLink",
];

/// The fields that one manager set by one kind of operation.
#[derive(Clone, Debug)]
struct Entry {
    manager: String,
    operation: String,
    subresource: String,
    fields: BTreeSet<Path>,
    time: String,
}

impl Entry {
    fn read(entry: &Value) -> Self {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let mut fields = BTreeSet::new();
        paths_of_set(&entry["fieldsV1"], &mut Path::new(), &mut fields);
        Self {
            manager: text("manager"),
            operation: text("operation"),
            subresource: text("subresource"),
            fields,
            time: text("time"),
        }
    }

    fn write(&self, version: &Value) -> Value {
        let mut set = json!({});
        for path in &self.fields {
            path.iter().fold(&mut set, |at, key| {
                at.as_object_mut().unwrap().entry(format!("f:{key}")).or_insert_with(|| json!({}))
            });
        }
        let mut entry = json!({"manager": self.manager, "operation": self.operation, "apiVersion": version,
                               "fieldsType": "FieldsV1", "fieldsV1": set, "time": self.time});
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }

    fn is_of(&self, manager: &str, operation: &str, subresource: &str) -> bool {
        self.manager == manager && self.operation == operation && self.subresource == subresource
    }
}

fn paths_of_set(set: &Value, at: &mut Path, found: &mut BTreeSet<Path>) {
    let fields = set.as_object().filter(|it| !it.is_empty());
    let Some(fields) = fields else {
        if !at.is_empty() {
            found.insert(at.clone());
        }
        return;
    };
    for (key, inner) in fields {
        // Fields below a list's items belong to the list.
        let Some(key) = key.strip_prefix("f:") else {
            found.insert(at.clone());
            continue;
        };
        at.push(key.to_owned());
        paths_of_set(inner, at, found);
        at.pop();
    }
}

/// Every field that can have a manager, with its value: values other than objects, and empty objects.
fn fields(object: &Value) -> BTreeMap<Path, Value> {
    fn walk(value: &Value, at: &mut Path, found: &mut BTreeMap<Path, Value>) {
        match value.as_object().filter(|it| !it.is_empty()) {
            Some(inner) => {
                for (key, value) in inner {
                    let skip = match at.as_slice() {
                        [] => key == "apiVersion" || key == "kind",
                        [root] if root == "metadata" => UNMANAGED.contains(&key.as_str()),
                        _ => false,
                    };
                    if !skip {
                        at.push(key.clone());
                        walk(value, at, found);
                        at.pop();
                    }
                }
            }
            None if !at.is_empty() && at.as_slice() != ["metadata"] => {
                found.insert(at.clone(), value.clone());
            }
            None => {}
        }
    }
    let mut found = BTreeMap::new();
    walk(object, &mut Path::new(), &mut found);
    found
}

fn at<'a>(object: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(object, |value, key| if value.is_object() { &value[key] } else { &Value::Null })
}

fn set(object: &mut Value, path: &[String], value: &Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut inner = object;
    for key in parents {
        inner = &mut inner[key];
        if !inner.is_object() {
            *inner = Value::Object(Map::new());
        }
    }
    if !(value.as_object().is_some_and(Map::is_empty) && inner[last].is_object()) {
        inner[last] = value.clone();
    }
}

/// Removes a field, and parents that become empty.
fn remove(object: &mut Value, path: &[String]) {
    match path {
        [] => {}
        [last] => {
            object.as_object_mut().and_then(|it| it.remove(last));
        }
        [first, rest @ ..] => {
            if let Some(inner) = object.get_mut(first) {
                remove(inner, rest);
                if inner.as_object().is_some_and(Map::is_empty) {
                    object.as_object_mut().and_then(|it| it.remove(first));
                }
            }
        }
    }
}

/// Whether one path equals or contains the other.
fn overlap(one: &[String], other: &[String]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// A field that another manager set to another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) manager: String,
    pub(crate) field: String,
}

/// The object after a server-side apply.
pub(crate) fn apply(before: Option<&Value>, call: &Call, now: &str) -> Result<Value, Vec<Conflict>> {
    let (manager, forced) = (call.manager(), call.parameter("force") == "true");
    let mut object = before.cloned().unwrap_or_else(|| {
        let metadata = json!({"name": call.body["metadata"]["name"], "namespace": call.body["metadata"]["namespace"]});
        json!({"apiVersion": call.body["apiVersion"], "kind": call.body["kind"], "metadata": metadata})
    });
    let mut entries = entries(&object);
    let wanted = fields(&call.body);
    let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
    let differs = |live: &Value, value: &Value| live != value && !(is_empty(value) && live.is_object());
    let changed: BTreeSet<Path> =
        wanted.iter().filter(|(path, value)| differs(at(&object, path), value)).map(|(path, _)| path.clone()).collect();
    let own = |entry: &Entry| entry.is_of(&manager, "Apply", "");
    let conflicts: Vec<Conflict> = entries
        .iter()
        .filter(|entry| !own(entry))
        .flat_map(|entry| {
            let contested = changed.iter().filter(|path| entry.fields.iter().any(|it| overlap(it, path)));
            contested.map(|path| Conflict { manager: entry.manager.clone(), field: format!(".{}", path.join(".")) })
        })
        .collect();
    if !forced && !conflicts.is_empty() {
        return Err(conflicts);
    }
    let former = entries.iter().find(|it| own(it)).map(|it| it.fields.clone()).unwrap_or_default();
    for path in former.iter().filter(|path| !wanted.keys().any(|it| it.starts_with(path))) {
        let shared = entries.iter().any(|entry| !own(entry) && entry.fields.iter().any(|it| it.starts_with(path)));
        if !shared {
            remove(&mut object, path);
        }
    }
    for (path, value) in &wanted {
        set(&mut object, path, value);
    }
    for entry in entries.iter_mut().filter(|it| !own(it)) {
        entry.fields.retain(|it| !changed.iter().any(|path| overlap(it, path)));
    }
    let applied: BTreeSet<Path> = wanted.into_keys().collect();
    let same = former == applied && changed.is_empty();
    let time = entries.iter().find(|it| own(it)).map(|it| it.time.clone()).filter(|_| same);
    let entry = Entry {
        manager: manager.clone(),
        operation: "Apply".to_owned(),
        subresource: String::new(),
        fields: applied,
        time: time.unwrap_or_else(|| now.to_owned()),
    };
    match entries.iter_mut().find(|it| own(it)) {
        Some(known) => *known = entry,
        None => entries.push(entry),
    }
    write(&mut object, &entries);
    Ok(object)
}

/// Records the manager of the fields that a write other than an apply set.
pub(crate) fn note(object: &mut Value, before: Option<&Value>, call: &Call, now: &str) {
    let said = &call.body["metadata"]["managedFields"];
    let base = if said.as_array().is_some_and(|it| !it.is_empty()) { &*object } else { before.unwrap_or(&Value::Null) };
    let mut entries = entries(base);
    let (then, after) = (before.map(fields).unwrap_or_default(), fields(object));
    let changed: BTreeSet<Path> =
        after.iter().filter(|(path, value)| then.get(*path) != Some(value)).map(|(path, _)| path.clone()).collect();
    for entry in &mut entries {
        entry.fields.retain(|it| after.contains_key(it) && !changed.contains(it));
    }
    if !changed.is_empty() {
        let (manager, subresource) = (call.manager(), call.subresource.clone().unwrap_or_default());
        let is_own = |it: &Entry| it.is_of(&manager, "Update", &subresource);
        match entries.iter_mut().find(|it| is_own(it)) {
            Some(known) => {
                known.fields.extend(changed);
                now.clone_into(&mut known.time);
            }
            None => entries.push(Entry {
                manager,
                operation: "Update".to_owned(),
                subresource,
                fields: changed,
                time: now.to_owned(),
            }),
        }
    }
    write(object, &entries);
}

fn entries(object: &Value) -> Vec<Entry> {
    object["metadata"]["managedFields"].as_array().into_iter().flatten().map(Entry::read).collect()
}

fn write(object: &mut Value, entries: &[Entry]) {
    let version = object["apiVersion"].clone();
    let shown: Vec<Value> =
        entries.iter().filter(|it| !it.fields.is_empty()).map(|entry| entry.write(&version)).collect();
    set_or_remove(&mut object["metadata"], "managedFields", &if shown.is_empty() { Value::Null } else { json!(shown) });
}
