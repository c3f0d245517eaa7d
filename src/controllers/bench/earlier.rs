//! Pod templates of earlier versions. They are kept while nothing else changes, so that an upgrade of the operator restarts no
//! pod. Pure.

use serde_json::{Value, json};

use super::{
    build::{DRAIN, DRAIN_SECONDS},
    model::WRITTEN,
};
use crate::domain::diff::first_difference;

/// An earlier form of a template, derived from the next newer one, and whether a live template lacks what the newer one added:
/// a comparison ignores additional fields of the live one.
type Form = (fn(&Value) -> Value, fn(&Value) -> bool);

/// The earlier forms, the newest first.
const FORMS: [Form; 2] = [(stopped_at_once, lacks_pause), (run_by_entrypoint, lacks_command)];

/// The template of an earlier version, if the live one equals it.
pub(super) fn unchanged_since(template: &Value, live: &Value) -> Option<Value> {
    first_difference(template, live)?;
    let lacks = FORMS.iter().map(|(_, lacks)| lacks(live));
    let mut found = forms(template).into_iter().zip(lacks);
    found.find_map(|(form, lacks)| (lacks && first_difference(&form, live).is_none()).then_some(form))
}

/// The template in each earlier form, the newest first.
pub(super) fn forms(template: &Value) -> [Value; FORMS.len()] {
    let mut form = template.clone();
    FORMS.map(|(earlier, _)| {
        form = earlier(&form);
        form.clone()
    })
}

/// Before that, pods were stopped while requests were still routed to them.
fn stopped_at_once(template: &Value) -> Value {
    let mut template = template.clone();
    let spec = &mut template["spec"];
    let name = spec["containers"][0]["name"].as_str().unwrap_or_default();
    if !["gunicorn", "nginx"].contains(&name) {
        return template;
    }
    if let Some(seconds) = spec["terminationGracePeriodSeconds"].as_i64() {
        spec["terminationGracePeriodSeconds"] = json!(seconds - DRAIN_SECONDS);
    }
    let Some(container) = spec["containers"][0].as_object_mut() else { return template };
    let script = container.get("lifecycle").and_then(|it| it.pointer("/preStop/exec/command/2")?.as_str());
    match script.and_then(|it| it.strip_prefix(DRAIN)).map(str::to_owned) {
        Some(rest) => container["lifecycle"]["preStop"]["exec"]["command"][2] = json!(rest),
        None => drop(container.remove("lifecycle")),
    }
    template
}

fn lacks_pause(live: &Value) -> bool {
    let container = &live["spec"]["containers"][0];
    container["name"] != "nginx" || container["lifecycle"].is_null()
}

/// Before that, the program was an argument of the image's entrypoint, and gunicorn's was the image's command; pods were stopped even
/// before they handled SIGTERM; components without a port were probed as rarely at their start as later; and a read-only root file
/// system had no writable folders.
fn run_by_entrypoint(template: &Value) -> Value {
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

/// The template of a Redis server without the Secrets for registries, which earlier versions did not set, if the live one is that.
pub(super) fn of_server(template: &Value, live: &Value) -> Option<Value> {
    let mut former = template.clone();
    former["spec"].as_object_mut()?.remove("imagePullSecrets")?;
    let lacks = live["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty);
    (lacks && first_difference(&former, live).is_none()).then_some(former)
}

fn lacks_command(live: &Value) -> bool {
    let container = &live["spec"]["containers"][0];
    !container["command"].is_array() && !container["lifecycle"].is_object()
}
