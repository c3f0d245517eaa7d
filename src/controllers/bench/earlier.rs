//! Pods as versions before this one made them. They stay as they are while nothing else of them changes, so that an upgrade
//! of the operator starts no pod anew. Pure.

use serde_json::Value;

use crate::domain::diff::first_difference;

/// The template as an earlier version made it, if the live one is just that.
pub(super) fn still(template: &Value, live: &Value) -> Option<Value> {
    let earlier = earlier(template);
    (first_difference(template, live).is_some() && first_difference(&earlier, live).is_none()).then_some(earlier)
}

/// The program was an argument of the image's entrypoint, and gunicorn's the image's own command; pods were stopped whether
/// they listened or not; and what has no port started as seldom as it is looked at later.
pub(super) fn earlier(template: &Value) -> Value {
    let mut template = template.clone();
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
