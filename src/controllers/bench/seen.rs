//! What is seen of a bench's objects. Pure.

use std::{collections::BTreeMap, sync::Arc};

use frappe_crds::{FrappeBenchStatus, bench::ComponentStatus};
use kube::{ResourceExt, core::DynamicObject};
use serde_json::Value;

use super::model::Observed;
use crate::{
    controllers::job,
    domain::{labels, names::child, object::Kind, quantity},
};

/// The configure Job of a bench, if it is that of this revision.
pub fn configure_job<'a>(
    live: &'a BTreeMap<(Kind, String), Arc<DynamicObject>>,
    bench: &str,
    revision: &str,
) -> Option<&'a DynamicObject> {
    let job = live.get(&(Kind::Job, child(bench, "configure")))?;
    job.annotations().get(labels::APPLIED_HASH).is_some_and(|hash| hash == revision).then_some(&**job)
}

/// What the configure Job's pod is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Why it failed.
    Failure,
    /// Which apps the image has.
    Apps,
}

/// What of the end of a configure Job the status does not hold yet. Pure.
pub fn unread_end(job: Option<&DynamicObject>, status: &FrappeBenchStatus, revision: &str) -> Option<End> {
    match job::state(job?) {
        job::State::Failed(_) => {
            let unread = status.configure_failure.as_ref().is_none_or(|it| it.revision != revision);
            unread.then_some(End::Failure)
        }
        job::State::Complete => (status.inspected_revision.as_deref() != Some(revision)).then_some(End::Apps),
        job::State::Running => None,
    }
}

/// Bytes that a claim asks for.
pub fn size_bytes(claim: &Value) -> i128 {
    claim["spec"]["resources"]["requests"]["storage"].as_str().and_then(quantity::bytes).unwrap_or(0)
}

/// Whether pods of an old revision are left, or the workload's controller has not seen its spec.
pub fn is_rolling(observed: &Observed, component: &str) -> bool {
    workload(observed, component).is_some_and(|live| !is_seen(live) || has_old_pods(live))
}

/// Whether the workload's controller has seen its spec.
pub fn is_seen(workload: &DynamicObject) -> bool {
    number(workload, "observedGeneration") >= workload.metadata.generation.unwrap_or(0)
}

/// Whether pods of an old revision are left, as far as the workload's controller has seen its spec.
pub fn has_old_pods(workload: &DynamicObject) -> bool {
    number(workload, "updatedReplicas") < number(workload, "replicas")
}

fn number(workload: &DynamicObject, field: &str) -> i64 {
    workload.data["status"][field].as_i64().unwrap_or(0)
}

/// Whether fewer pods are ready than there should be.
pub fn lacks_pods(observed: &Observed, component: &str) -> bool {
    workload(observed, component).map(|it| count(it, false)).is_some_and(|it| it.ready < it.desired)
}

/// The Deployment or StatefulSet of a component.
pub fn workload<'a>(observed: &'a Observed, component: &str) -> Option<&'a DynamicObject> {
    let name = child(&observed.bench.name_any(), component);
    let live = |kind: Kind| observed.live.get(&(kind, name.clone()));
    live(Kind::Deployment).or_else(|| live(Kind::StatefulSet)).map(|it| &**it)
}

/// Pods that are available and of the present revision. Where the workload's controller has not seen its spec there are
/// none, unless nothing but their number can have changed (`settled`).
pub fn count(workload: &DynamicObject, settled: bool) -> ComponentStatus {
    let desired = workload.data["spec"]["replicas"].as_i64().unwrap_or(1);
    let available =
        if workload.data["spec"]["serviceName"].is_string() { "readyReplicas" } else { "availableReplicas" };
    let updated = number(workload, "updatedReplicas");
    // Pods of an old revision that still run beside the new ones are not ready ones.
    let old = (number(workload, "replicas") - updated).max(0);
    let ready = if settled || is_seen(workload) { number(workload, available).min(updated) - old } else { 0 };
    let narrow = |value: i64| i32::try_from(value.max(0)).unwrap_or(i32::MAX);
    ComponentStatus { ready: narrow(ready), desired: narrow(desired) }
}
