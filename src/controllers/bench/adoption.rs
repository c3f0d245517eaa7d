//! Adoption of another operator's bench. Pure.
//!
//! A workload is kept unchanged until the bench's spec changes. Redis servers and volumes are kept permanently: most of their
//! fields are immutable.

use std::sync::Arc;

use frappe_crds::bench::StorageAccessMode;
use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use kube::{ResourceExt, core::DynamicObject};

use super::{
    model::{Observed, Step},
    seen::is_rolling,
};
use crate::{
    controllers::adoption::{is_adoption_requested, is_unchanged_since_adoption},
    domain::{
        labels,
        live::spec,
        names::child,
        object::{Desired, Kind},
    },
};

/// Applies an object; one of another operator is adopted first, and kept unchanged for a while.
pub(super) fn ensure(observed: &Observed, desired: Desired) -> Option<Step> {
    if is_kept(observed, &desired) {
        return None;
    }
    // Another operator's volume may equal the desired one, but have an owner whose deletion deletes it.
    let theirs = is_adoption_requested(&observed.bench) || desired.kind == Kind::PersistentVolumeClaim;
    let taken = theirs && live(observed, desired.kind, &desired.key.name).is_none();
    Some(if taken { Step::Adopt(desired) } else { Step::Ensure(desired) })
}

/// Creates an object once the node of its pod is known, which depends on the volume.
pub(super) fn create(observed: &Observed, desired: Desired) -> Option<Step> {
    let waits = is_adoption_requested(&observed.bench) && !knows_volume(observed);
    (!waits).then_some(Step::Create(desired))
}

/// Keeps the replicas of a Deployment, unless it is kept unchanged.
pub(super) fn hand_over(observed: &Observed, live: &Arc<DynamicObject>) -> Option<Step> {
    let stays = is_unchanged_since_adoption(live) && is_of_current_spec(observed, live);
    (!stays).then(|| Step::HandOver(Arc::clone(live)))
}

/// Access mode of an adopted volume; the recorded one if the volume is not observed.
pub(super) fn volume(observed: &Observed) -> Option<StorageAccessMode> {
    let Some(claim) = live(observed, Kind::PersistentVolumeClaim, &claim_name(observed)) else {
        return observed.bench.status.as_ref()?.adopted_volume;
    };
    if !is_unchanged_since_adoption(claim) {
        return None;
    }
    let modes = spec::<PersistentVolumeClaimSpec>(claim).access_modes.unwrap_or_default();
    let many = modes.iter().any(|it| it == "ReadWriteMany");
    Some(if many { StorageAccessMode::ReadWriteMany } else { StorageAccessMode::ReadWriteOnce })
}

/// Whether the volume exists, and its access mode is recorded if it was adopted.
fn knows_volume(observed: &Observed) -> bool {
    let said = observed.bench.status.as_ref().and_then(|status| status.adopted_volume);
    live(observed, Kind::PersistentVolumeClaim, &claim_name(observed)).is_some() && volume(observed) == said
}

fn claim_name(observed: &Observed) -> String {
    child(&observed.bench.name_any(), "sites")
}

/// Whether an object is kept unchanged.
pub(super) fn is_kept(observed: &Observed, desired: &Desired) -> bool {
    let name = &desired.key.name;
    let Some(object) = live(observed, desired.kind, name).filter(|it| is_unchanged_since_adoption(it)) else {
        return false;
    };
    match desired.kind {
        Kind::StatefulSet | Kind::PersistentVolumeClaim => true,
        // It routes to named ports of this operator's pods: it must not change before they run.
        Kind::Service => {
            let workload =
                [Kind::Deployment, Kind::StatefulSet].into_iter().find_map(|kind| live(observed, kind, name));
            let component = desired.component();
            workload.is_none_or(is_unchanged_since_adoption) || is_rolling(observed, component)
        }
        _ => is_of_current_spec(observed, object),
    }
}

/// Whether a workload was adopted and has not been applied since.
pub(super) fn is_unchanged_workload(observed: &Observed, desired: &Desired) -> bool {
    live(observed, desired.kind, &desired.key.name).is_some_and(is_unchanged_since_adoption)
}

/// Whether the bench's spec is unchanged since an object was adopted.
fn is_of_current_spec(observed: &Observed, object: &DynamicObject) -> bool {
    let generation = observed.bench.metadata.generation.unwrap_or_default().to_string();
    object.annotations().get(labels::ADOPTED) == Some(&generation)
}

fn live<'a>(observed: &'a Observed, kind: Kind, name: &str) -> Option<&'a DynamicObject> {
    observed.live.get(&(kind, name.to_owned())).map(|it| &**it)
}
