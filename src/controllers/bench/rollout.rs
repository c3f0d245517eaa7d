//! In which order the components of a bench change over to another image. Pure.
//!
//! nginx first, since it serves the assets that pages of either image name; then what answers requests; then the workers;
//! the scheduler, of which there is never more than one, last. Whoever has not had its turn keeps its image, and is kept
//! as it should be otherwise. An image that does not come up stops there: what runs goes on running.

use serde_json::{Value, json};

use super::{
    build::Rendered,
    observe::Observed,
    status::{is_rolling, lacks_pods},
};
use crate::domain::object::{Desired, Kind};

/// The components, stage by stage.
const STAGES: [&[&str]; 5] =
    [&["nginx"], &["gunicorn"], &["socketio"], &["worker-default", "worker-short", "worker-long"], &["scheduler"]];

/// What changes over, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The image that some components still run.
    pub from: String,
    /// The image that they are to run.
    pub to: String,
    /// Components that do not run it wholly yet, in their order.
    pub left: Vec<String>,
}

/// The components as they should be now. While `held`, none changes its image.
pub fn staged(observed: &Observed, rendered: &Rendered, held: bool) -> Vec<Desired> {
    let mut components = rendered.components.clone();
    let mut wait = held;
    for stage in STAGES {
        let mut changing = false;
        for desired in components.iter_mut().filter(|it| is_of(it, stage)) {
            let Some(present) = image_now(observed, desired) else { continue };
            let wanted = desired.body["spec"]["template"]["spec"]["containers"][0]["image"].clone();
            let other = present != wanted;
            changing |= other || unready(observed, desired);
            if wait && other {
                desired.body["spec"]["template"]["spec"]["containers"][0]["image"] = present;
            }
        }
        wait |= changing;
    }
    components
}

/// What changes over, if anything does.
pub fn rollout(observed: &Observed, rendered: &Rendered) -> Option<Rollout> {
    let mut deployments: Vec<&Desired> = Vec::new();
    for stage in STAGES {
        deployments.extend(rendered.components.iter().filter(|it| is_of(it, stage)));
    }
    let wanted = |it: &Desired| it.body["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let others = |it: &&&Desired| image_now(observed, it).is_some_and(|present| present != wanted(it));
    let first = deployments.iter().find(others)?;
    let (from, to) = (image_now(observed, first)?, wanted(first));
    let left = deployments.iter().filter(|it| others(it) || unready(observed, it)).map(|it| component(it)).collect();
    let text = |image: Value| image.as_str().unwrap_or_default().to_owned();
    Some(Rollout { from: text(from), to: text(to), left })
}

fn component(desired: &Desired) -> String {
    desired.body["metadata"]["labels"]["component"].as_str().unwrap_or_default().to_owned()
}

fn is_of(desired: &Desired, stage: &[&str]) -> bool {
    desired.kind == Kind::Deployment && stage.contains(&component(desired).as_str())
}

fn image_now(observed: &Observed, desired: &Desired) -> Option<Value> {
    let live = observed.live.get(&(desired.kind, desired.key.name.clone()))?;
    Some(live.data["spec"]["template"]["spec"]["containers"][0]["image"].clone()).filter(|it| *it != json!(null))
}

fn unready(observed: &Observed, desired: &Desired) -> bool {
    let component = component(desired);
    is_rolling(observed, &component) || lacks_pods(observed, &component)
}
