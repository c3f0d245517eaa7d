//! How large the volumes of a bench may become: they grow where their class can, and never shrink. Pure.

use kube::core::DynamicObject;

use super::{
    model::{Class, Observed, Rendered},
    reason::Reason,
    seen::size_bytes,
};
use crate::domain::{
    object::{Desired, Kind},
    quantity,
};

/// The claims as they can be, with what stands in the way of one that cannot be as it should.
pub struct Sized {
    /// The claims, in the order of the rendered objects.
    pub claims: Vec<Desired>,
    /// Why one is not as large as the bench asks for.
    pub problem: Option<(Reason, String)>,
}

/// Brings the rendered claims to what can be applied. A claim that a StatefulSet makes is left out until it is there.
pub fn sized(observed: &Observed, rendered: &Rendered) -> Sized {
    let mut problem = None;
    let mut claims = Vec::new();
    for desired in rendered.foundation.iter().filter(|it| it.kind == Kind::PersistentVolumeClaim) {
        claims.push(fit(observed, desired, &mut problem));
    }
    let made = |it: &&Desired| live(observed, it).is_some();
    claims.extend(rendered.claims.iter().filter(made).map(|desired| fit(observed, desired, &mut problem)));
    Sized { claims, problem }
}

fn live<'a>(observed: &'a Observed, desired: &Desired) -> Option<&'a DynamicObject> {
    observed.live.get(&(desired.kind, desired.key.name.clone())).map(|it| &**it)
}

fn fit(observed: &Observed, desired: &Desired, problem: &mut Option<(Reason, String)>) -> Desired {
    let mut desired = desired.clone();
    let Some(claim) = live(observed, &desired) else { return desired };
    let (wanted, present) = (size_bytes(&desired.body), size_bytes(&claim.data));
    let name = &desired.key.name;
    let size = |bytes: i128| format!("{} MiB", bytes >> 20);
    let stands = if wanted < present {
        let message = format!(
            "volume {name} has {} and cannot shrink to {}: set the size back, or move to a new bench",
            size(present),
            size(wanted)
        );
        Some((Reason::VolumeCannotShrink, message))
    } else if wanted > present && observed.classes.get(name) == Some(&Class::Found { grows: false }) {
        let class = claim.data["spec"]["storageClassName"].as_str().unwrap_or_default();
        let message = format!(
            "volume {name} has {} and cannot grow to {}: StorageClass {class} does not set allowVolumeExpansion",
            size(present),
            size(wanted)
        );
        Some((Reason::VolumeCannotGrow, message))
    } else {
        None
    };
    if stands.is_some() {
        desired.body["spec"]["resources"]["requests"]["storage"] =
            claim.data["spec"]["resources"]["requests"]["storage"].clone();
    } else if problem.is_none() && wanted > granted(claim) && claim.data["status"]["phase"] == "Bound" {
        let message = format!("volume {name} grows from {} to {}", size(granted(claim)), size(wanted));
        *problem = Some((Reason::VolumePending, message));
    }
    *problem = stands.or(problem.take());
    desired
}

/// Bytes that a bound claim has; all that it asks for where its volume does not say.
fn granted(claim: &DynamicObject) -> i128 {
    let capacity = claim.data["status"]["capacity"]["storage"].as_str().and_then(quantity::bytes);
    capacity.unwrap_or(size_bytes(&claim.data))
}

/// What of a StatefulSet cannot be changed stays as it was made.
pub fn keep_template(observed: &Observed, mut desired: Desired) -> Desired {
    if desired.kind == Kind::StatefulSet
        && let Some(live) = live(observed, &desired)
    {
        for field in ["volumeClaimTemplates", "podManagementPolicy"] {
            if !live.data["spec"][field].is_null() {
                desired.body["spec"][field] = live.data["spec"][field].clone();
            }
        }
    }
    desired
}
