//! State of a bench's objects: configure Job, claims and workloads. Pure.

use std::{collections::BTreeMap, sync::Arc};

use frappe_crds::{FrappeBench, FrappeBenchStatus, bench::ComponentStatus, common::AppCode};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, PersistentVolumeClaimStatus};
use kube::{ResourceExt, core::DynamicObject};
use serde::Deserialize;

use super::{model::Observed, reason::Reason};
use crate::{
    controllers::job,
    domain::{condition, labels, live, names::child, object::Kind, quantity},
};

/// Whether the bench's image lacks an app of the bench: none of its pods starts, and pods of the previous image continue.
pub fn lacks_app(bench: &FrappeBench) -> bool {
    let ready = bench.status.as_ref().and_then(|status| condition::find(&status.conditions, "Ready"));
    ready.is_some_and(|it| it.reason == Reason::AppMissing.to_string())
}

/// Whether pods of a previous revision may run: a rollout is not complete, or a change of the spec was not observed yet.
pub fn is_rolling_out(bench: &FrappeBench) -> bool {
    let Some(status) = &bench.status else { return false };
    let incomplete = status.running_revision.is_some() && status.running_revision != status.desired_revision;
    incomplete || (status.observed_generation.is_some() && status.observed_generation < bench.metadata.generation)
}

/// The configure Job of a bench, if it has this revision.
pub fn configure_job<'a>(
    live: &'a BTreeMap<(Kind, String), Arc<DynamicObject>>,
    bench: &str,
    revision: &str,
) -> Option<&'a DynamicObject> {
    job_of_revision(live, child(bench, "configure"), revision)
}

/// The Job of this name, if it has this revision.
pub fn job_of_revision<'a>(
    live: &'a BTreeMap<(Kind, String), Arc<DynamicObject>>,
    name: String,
    revision: &str,
) -> Option<&'a DynamicObject> {
    let job = live.get(&(Kind::Job, name))?;
    job.annotations().get(labels::APPLIED_HASH).is_some_and(|hash| hash == revision).then_some(&**job)
}

/// Whether the image of this revision was looked at.
pub fn is_inspected(observed: &Observed, revision: &str) -> bool {
    let recorded = observed.bench.status.as_ref().and_then(|status| status.inspected_revision.as_deref());
    observed.inspection.is_some() || recorded == Some(revision)
}

/// Versions and schemas of the apps of the image that was looked at last; empty if they are not known.
pub fn apps(observed: &Observed) -> &[AppCode] {
    let recorded = observed.bench.status.as_ref().map(|status| &status.apps);
    observed.inspection.as_ref().map(|found| &found.code).or(recorded).map_or(&[], Vec::as_slice)
}

/// What is read from the configure Job's pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Why it failed.
    Failure,
    /// The apps of the image.
    Apps,
}

/// The result of a configure Job that the status does not contain yet. Pure.
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

/// Requested bytes of a claim.
pub fn size_bytes(claim: &PersistentVolumeClaimSpec) -> i128 {
    let requests = claim.resources.as_ref().and_then(|it| it.requests.as_ref());
    requests.and_then(|it| quantity::bytes(&it.get("storage")?.0)).unwrap_or(0)
}

/// Phase of a claim: `Pending`, `Bound` or `Lost`.
fn phase(claim: &DynamicObject) -> Option<String> {
    live::status::<PersistentVolumeClaimStatus>(claim).phase
}

/// Whether a claim is bound.
pub fn is_bound(claim: &DynamicObject) -> bool {
    phase(claim).as_deref() == Some("Bound")
}

/// Whether a claim is pending.
pub fn is_pending(claim: &DynamicObject) -> bool {
    phase(claim).as_deref() == Some("Pending")
}

/// Status of a Deployment or StatefulSet; missing numbers are 0.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Progress {
    observed_generation: Option<i64>,
    replicas: Option<i64>,
    updated_replicas: Option<i64>,
    /// Field of a StatefulSet, whose pods are available once they are ready.
    ready_replicas: Option<i64>,
    available_replicas: Option<i64>,
}

impl Progress {
    /// Number of pods of an old revision.
    fn old(&self) -> i64 {
        self.replicas.unwrap_or(0) - self.updated_replicas.unwrap_or(0)
    }
}

/// Spec of a Deployment or StatefulSet.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wanted {
    replicas: Option<i64>,
    /// Only a StatefulSet has it.
    service_name: Option<String>,
}

/// Whether pods of an old revision remain, or the workload's controller has not observed its spec.
pub fn is_rolling(observed: &Observed, component: &str) -> bool {
    workload(observed, component).is_some_and(|live| !is_seen(live) || has_old_pods(live))
}

/// Whether the workload's controller has observed its spec.
pub fn is_seen(workload: &DynamicObject) -> bool {
    let progress: Progress = live::status(workload);
    progress.observed_generation.unwrap_or(0) >= workload.metadata.generation.unwrap_or(0)
}

/// Whether pods of an old revision remain, as far as the workload's controller has observed its spec.
pub fn has_old_pods(workload: &DynamicObject) -> bool {
    live::status::<Progress>(workload).old() > 0
}

/// Whether fewer pods are ready than desired.
pub fn lacks_pods(observed: &Observed, component: &str) -> bool {
    workload(observed, component).map(|it| count(it, false)).is_some_and(|it| it.ready < it.desired)
}

/// StatefulSets without any pod. Unlike a Deployment's, their controller reports only in Events that pods are rejected.
pub fn servers_without_pods(observed: &Observed) -> impl Iterator<Item = &DynamicObject> {
    let servers = observed.live.iter().filter(|((kind, _), _)| *kind == Kind::StatefulSet).map(|(_, it)| &**it);
    servers.filter(|it| live::status::<Progress>(it).replicas.unwrap_or(0) == 0 && count(it, true).desired > 0)
}

/// The Deployment or StatefulSet of a component.
pub fn workload<'a>(observed: &'a Observed, component: &str) -> Option<&'a DynamicObject> {
    let name = child(&observed.bench.name_any(), component);
    let live = |kind: Kind| observed.live.get(&(kind, name.clone()));
    live(Kind::Deployment).or_else(|| live(Kind::StatefulSet)).map(|it| &**it)
}

/// Available pods of the current revision. If the workload's controller has not observed its spec, there are none, unless only their
/// number can have changed (`settled`).
pub fn count(workload: &DynamicObject, settled: bool) -> ComponentStatus {
    let progress: Progress = live::status(workload);
    let wanted: Wanted = live::spec(workload);
    let available = if wanted.service_name.is_some() { progress.ready_replicas } else { progress.available_replicas };
    let updated = progress.updated_replicas.unwrap_or(0);
    // Pods of an old revision do not count as ready; as many of them as possible are among the available ones.
    let ready = (available.unwrap_or(0) - progress.old().max(0)).min(updated);
    let ready = if settled || is_seen(workload) { ready } else { 0 };
    let narrow = |value: i64| i32::try_from(value.max(0)).unwrap_or(i32::MAX);
    ComponentStatus { ready: narrow(ready), desired: narrow(wanted.replicas.unwrap_or(1)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// During a rollout an old pod may be available beside a new one that is not.
    #[test]
    fn pods_of_an_old_revision_are_not_counted_as_ready() {
        let ready = |pods: i64, updated: i64, available: i64| {
            let status = json!({"replicas": pods, "updatedReplicas": updated, "availableReplicas": available});
            let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "prod-nginx"},
                "spec": {"replicas": 3}, "status": status});
            count(&serde_json::from_value(deployment).expect("a Deployment"), false).ready
        };
        assert_eq!((ready(3, 3, 3), ready(4, 3, 3)), (3, 2));
        assert_eq!(ready(4, 3, 4), 3, "all are available, so the three new ones are ready");
        assert_eq!((ready(4, 1, 3), ready(4, 1, 4), ready(4, 2, 1)), (0, 1, 0));
    }
}
