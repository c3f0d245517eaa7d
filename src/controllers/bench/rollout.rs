//! In which order the components of a bench change over to another image, or another copy of its code. Pure.
//!
//! nginx first, since it serves the assets that pages of either image name; then what answers requests; then the workers;
//! the scheduler, of which there is never more than one, last. Whoever has not had its turn keeps its image, and is kept
//! as it should be otherwise. An image that does not come up stops there: what runs goes on running.

use std::fmt;

use serde_json::{Value, json};

use super::{
    earlier,
    found::{is_found, stays},
    model::{Observed, Rendered},
    seen::{is_rolling, lacks_pods},
};
use crate::domain::{
    labels,
    object::{Desired, Kind},
};

/// The components, stage by stage.
const STAGES: [&[&str]; 5] =
    [&["nginx"], &["gunicorn"], &["socketio"], &["worker-default", "worker-short", "worker-long"], &["scheduler"]];

/// What changes over, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// What some components still run.
    pub from: Code,
    /// What they are to run.
    pub to: Code,
    /// Components that do not run it wholly yet, in their order.
    pub left: Vec<String>,
}

/// What a pod runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    image: String,
    /// Revision of the copy of the code that is mounted over the image's, where there is one.
    copy: Option<String>,
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.image)?;
        self.copy.as_ref().map_or(Ok(()), |copy| write!(formatter, " with apps of revision {copy}"))
    }
}

/// The components as they should be now. While `held`, none changes its image.
pub fn staged(observed: &Observed, rendered: &Rendered, held: bool) -> Vec<Desired> {
    let mut components = rendered.components.clone();
    let (mut wait, mut left) = (held, Vec::new());
    for stage in STAGES {
        let mut changing = false;
        for desired in components.iter_mut().filter(|it| is_of(it, stage)) {
            let Some(present) = template_now(observed, desired).filter(|_| !stays(observed, desired)) else { continue };
            let other = revision(&present) != revision(&desired.body["spec"]["template"]);
            changing |= other || unready(observed, desired);
            if wait && other && is_found(observed, desired) {
                // Its template is another's: no part of it fits into ours.
                left.push(desired.key.clone());
                continue;
            }
            let template = &mut desired.body["spec"]["template"];
            if wait && other {
                keep(template, &present);
            }
            if let Some(earlier) = earlier::still(template, &present) {
                *template = earlier;
            }
        }
        wait |= changing;
    }
    components.retain(|it| it.kind != Kind::Deployment || !left.contains(&it.key));
    components
}

/// What changes over, if anything does.
pub fn rollout(observed: &Observed, rendered: &Rendered) -> Option<Rollout> {
    let mut deployments: Vec<&Desired> = Vec::new();
    for stage in STAGES {
        deployments.extend(rendered.components.iter().filter(|it| is_of(it, stage)));
    }
    deployments.retain(|it| !stays(observed, it));
    let others = |it: &&&Desired| {
        template_now(observed, it).is_some_and(|now| revision(&now) != revision(&it.body["spec"]["template"]))
    };
    let first = deployments.iter().find(others)?;
    let (from, to) = (code(&template_now(observed, first)?), code(&first.body["spec"]["template"]));
    let left = deployments.iter().filter(|it| others(it) || unready(observed, it)).map(|it| component(it)).collect();
    Some(Rollout { from, to, left })
}

/// What makes pods other pods: their code, and the version of the Redis Secret, whose URLs the configure Job writes first.
fn revision(template: &Value) -> (Code, &Value) {
    (code(template), &template["metadata"]["annotations"][labels::REDIS_SECRET])
}

/// Leaves a template as it is in that.
fn keep(template: &mut Value, present: &Value) {
    for field in ["image", "volumeMounts"] {
        template["spec"]["containers"][0][field] = present["spec"]["containers"][0][field].clone();
    }
    let version = present["metadata"]["annotations"][labels::REDIS_SECRET].clone();
    if version.is_null() {
        template["metadata"].as_object_mut().map(|metadata| metadata.remove("annotations"));
    } else {
        template["metadata"]["annotations"] = json!({labels::REDIS_SECRET: version});
    }
}

fn code(template: &Value) -> Code {
    let container = &template["spec"]["containers"][0];
    let mut mounts = container["volumeMounts"].as_array().into_iter().flatten();
    let copy = mounts.find_map(|mount| mount["subPath"].as_str()).and_then(|path| path.split('/').nth(1));
    let image = container["image"].as_str().unwrap_or_default();
    Code { image: image.to_owned(), copy: copy.map(str::to_owned) }
}

fn component(desired: &Desired) -> String {
    desired.body["metadata"]["labels"]["component"].as_str().unwrap_or_default().to_owned()
}

fn is_of(desired: &Desired, stage: &[&str]) -> bool {
    desired.kind == Kind::Deployment && stage.contains(&component(desired).as_str())
}

fn template_now(observed: &Observed, desired: &Desired) -> Option<Value> {
    let live = observed.live.get(&(desired.kind, desired.key.name.clone()))?;
    Some(live.data["spec"]["template"].clone()).filter(|it| it["spec"]["containers"][0]["image"].is_string())
}

fn unready(observed: &Observed, desired: &Desired) -> bool {
    let component = component(desired);
    is_rolling(observed, &component) || lacks_pods(observed, &component)
}
