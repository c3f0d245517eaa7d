//! Pods as versions before this one made them. They stay as they are while nothing else of them changes, so that an upgrade
//! of the operator starts no pod anew. Pure.

use serde_json::Value;

use super::model::WRITTEN;
use crate::domain::diff::first_difference;

/// The template as an earlier version made it, if the live one is just that. One that has what only this version gives is
/// not: a comparison does not see what the live one has beyond it.
pub(super) fn still(template: &Value, live: &Value) -> Option<Value> {
    let container = &live["spec"]["containers"][0];
    if container["command"].is_array() || container["lifecycle"].is_object() {
        return None;
    }
    let earlier = earlier(template);
    (first_difference(template, live).is_some() && first_difference(&earlier, live).is_none()).then_some(earlier)
}

/// The program was an argument of the image's entrypoint, and gunicorn's the image's own command; pods were stopped whether
/// they listened or not; what has no port started as seldom as it is looked at later; and a root that is read-only had no
/// folders to write in.
pub(super) fn earlier(template: &Value) -> Value {
    let mut template = template.clone();
    let lacked = |it: &Value| WRITTEN.iter().any(|name| it["name"] == **name);
    for list in ["/spec/volumes", "/spec/containers/0/volumeMounts"] {
        if let Some(list) = template.pointer_mut(list).and_then(Value::as_array_mut) {
            list.retain(|it| !lacked(it));
        }
    }
    let Some(container) = template["spec"]["containers"][0].as_object_mut() else { return template };
    container.remove("lifecycle");
    let command = container.remove("command");
    if container.get("name").is_some_and(|name| name == "gunicorn") {
        container.remove("workingDir");
    } else if let Some(command) = command {
        container.insert("args".to_owned(), command);
    }
    if let Some(probe) = container.get("livenessProbe").filter(|probe| probe["exec"].is_object()).cloned() {
        container.insert("startupProbe".to_owned(), probe);
    }
    template
}
