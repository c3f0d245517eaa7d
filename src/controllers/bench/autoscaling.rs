//! State of the autoscaling of a bench's workers, from the conditions of its ScaledObjects. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::core::DynamicObject;
use serde_json::Value;

use super::{
    build,
    model::{Observed, Rendered},
    reason::Reason,
};
use crate::domain::object::{Desired, Kind};

/// Time within which KEDA processes a new ScaledObject, or removes its finalizer from a deleted one.
const SILENCE_MAX: SignedDuration = SignedDuration::from_secs(60);

/// State of the autoscaling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autoscaling {
    /// Whether KEDA scales; None while unknown.
    pub works: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// Message for users.
    pub message: String,
    /// Time until it is known, if nothing changes before.
    pub again_after: Option<Duration>,
}

/// State of one ScaledObject.
enum State {
    Scales,
    /// Not processed yet; with the time until it counts as not responding, or None if it does not exist yet.
    Starts(Option<Duration>),
    Fails(Reason, String),
}

/// State of the autoscaling; None if the bench has no autoscaled workers.
pub fn autoscaling(observed: &Observed, rendered: &Rendered) -> Option<Autoscaling> {
    let wanted: Vec<_> = build::worker_scaling(&observed.bench.spec).iter().filter_map(|it| it.wanted).collect();
    let said = |works, reason, message, again_after| Some(Autoscaling { works, reason, message, again_after });
    if wanted.is_empty() {
        return None;
    }
    if !observed.capabilities.keda {
        let message = "KEDA is not installed (ScaledObject and TriggerAuthentication of keda.sh are missing): the number of \
                       workers is fixed";
        return said(Some(false), Reason::KedaMissing, message.to_owned(), None);
    }
    let scaled: Vec<&Desired> = rendered.components.iter().filter(|it| it.kind == Kind::ScaledObject).collect();
    let mut starts = None;
    let mut waits: Vec<Duration> = Vec::new();
    for desired in &scaled {
        let live = observed.live.get(&(desired.kind, desired.key.name.clone()));
        match live.map_or(State::Starts(None), |live| state(live, observed.now)) {
            State::Scales => {}
            State::Starts(wait) => {
                starts = starts.or(Some(&desired.key.name));
                waits.extend(wait);
            }
            State::Fails(reason, why) => {
                return said(Some(false), reason, format!("ScaledObject {}: {why}", desired.key.name), None);
            }
        }
    }
    if let Some(name) = starts {
        let message = format!("ScaledObject {name}: KEDA has not processed it yet");
        return said(None, Reason::ScalingStarting, message, waits.into_iter().min());
    }
    let most: i32 = wanted.iter().map(|it| it.most).sum();
    let message = format!("KEDA scales {} worker Deployments, to at most {most} pods in total", scaled.len());
    said(Some(true), Reason::Autoscaled, message, None)
}

fn state(live: &DynamicObject, now: Timestamp) -> State {
    let status = &live.data["status"];
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let find = |kind: &str| conditions.iter().find(|it| it["type"] == kind);
    let is = |kind: &str, wanted: &str| find(kind).filter(|it| it["status"] == wanted);
    let words = |condition: &Value| condition["message"].as_str().unwrap_or_default().to_owned();
    if let Some(deleted) = &live.metadata.deletion_timestamp {
        let why = "it is being deleted, but KEDA does not remove its finalizer: check that KEDA's operator runs";
        return silent(deleted.0, now, why);
    }
    // Before it has processed the object, KEDA writes Unknown without a reason.
    let looked =
        |ready: &&Value| ready["status"] != "Unknown" || ready["reason"].as_str().is_some_and(|it| !it.is_empty());
    let Some(ready) = find("Ready").filter(looked) else {
        let created = live.metadata.creation_timestamp.as_ref().map_or(now, |it| it.0);
        let why = "KEDA has not processed it: check that KEDA's operator runs and watches this namespace";
        return silent(created, now, why);
    };
    if is("Paused", "True").is_some() {
        let why = "it is paused: remove its annotations autoscaling.keda.sh/paused to resume scaling";
        return State::Fails(Reason::ScalingPaused, why.to_owned());
    }
    if ready["status"] != "True" {
        let words = words(ready);
        return State::Fails(Reason::ScalingFailed, if words.is_empty() { "not ready".to_owned() } else { words });
    }
    if let Some(fallback) = is("Fallback", "True") {
        let why = format!("KEDA cannot query Redis, and the number of workers is fixed: {}", words(fallback));
        return State::Fails(Reason::ScalingFallback, why);
    }
    let health = status["health"].as_object().into_iter().flatten();
    if let Some((trigger, _)) = health.into_iter().find(|(_, it)| it["status"] == "Failing") {
        let why = format!("KEDA cannot query Redis (trigger {trigger}), and does not scale up from zero");
        return State::Fails(Reason::ScalingFailed, why);
    }
    match is("HPAActive", "False") {
        Some(idle) => State::Fails(Reason::ScalingFailed, words(idle)),
        None => State::Scales,
    }
}

/// Whether KEDA has not responded since then.
fn silent(since: Timestamp, now: Timestamp, why: &str) -> State {
    let left = SILENCE_MAX - now.duration_since(since);
    match Duration::try_from(left) {
        Ok(left) if !left.is_zero() => State::Starts(Some(left)),
        _ => State::Fails(Reason::KedaNotResponding, why.to_owned()),
    }
}
