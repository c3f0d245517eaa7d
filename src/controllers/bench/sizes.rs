//! Sizes of a bench's volumes: expanded if their StorageClass allows it, never shrunk. Pure.

use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, VolumeResourceRequirements};
use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    earlier,
    model::{Class, Observed, Rendered},
    reason::Reason,
    seen::{is_bound, lacks_pods, size_bytes},
};
use crate::domain::{
    live,
    object::{Desired, Kind},
    quantity,
    typed::storage,
};

/// Claims with possible sizes, and the problem of one that cannot have its size.
pub struct Sized {
    /// The claims, in the order of the rendered objects.
    pub claims: Vec<Desired>,
    /// Why a claim does not have the requested size.
    pub problem: Option<(Reason, String)>,
}

/// Adapts the rendered claims to what can be applied. A claim of a StatefulSet is omitted until it exists.
pub fn sized(observed: &Observed, rendered: &Rendered) -> Sized {
    let mut problem = None;
    let mut claims = Vec::new();
    for desired in rendered.foundation.iter().filter(|it| it.kind == Kind::PersistentVolumeClaim) {
        claims.push(fit(observed, desired, &mut problem));
    }
    let made = |it: &&Desired| live_claim(observed, it).is_some();
    claims.extend(rendered.claims.iter().filter(made).map(|desired| fit(observed, desired, &mut problem)));
    Sized { claims, problem }
}

fn live_claim<'a>(observed: &'a Observed, desired: &Desired) -> Option<&'a DynamicObject> {
    observed.live.get(&(desired.kind, desired.key.name.clone())).map(|it| &**it)
}

fn fit(observed: &Observed, desired: &Desired, problem: &mut Option<(Reason, String)>) -> Desired {
    let (Some(claim), Some(mut spec)) = (live_claim(observed, desired), desired.spec::<PersistentVolumeClaimSpec>())
    else {
        return desired.clone();
    };
    let found: PersistentVolumeClaimSpec = live::spec(claim);
    let (wanted, present) = (size_bytes(&spec), size_bytes(&found));
    let name = &desired.key.name;
    let size = |bytes: i128| format!("{} MiB", bytes >> 20);
    let stands = if wanted < present {
        let message = format!(
            "volume {name} has {} and cannot shrink to {}: revert the size, or move to a new bench",
            size(present),
            size(wanted)
        );
        Some((Reason::VolumeCannotShrink, message))
    } else if wanted > present && observed.classes.get(name) == Some(&Class::Found { grows: false }) {
        let class = found.storage_class_name.as_deref().unwrap_or_default();
        let message = format!(
            "volume {name} has {} and cannot grow to {}: StorageClass {class} does not set allowVolumeExpansion",
            size(present),
            size(wanted)
        );
        Some((Reason::VolumeCannotGrow, message))
    } else {
        None
    };
    let granted = granted(claim, present);
    if stands.is_some() {
        spec.resources = requested(&found).or(spec.resources);
    } else if problem.is_none() && wanted > granted && is_bound(claim) {
        let message = format!("expanding volume {name} from {} to {}", size(granted), size(wanted));
        *problem = Some((Reason::VolumePending, message));
    }
    *problem = stands.or(problem.take());
    desired.clone().with_spec(&spec)
}

/// Only the storage request of a claim.
fn requested(claim: &PersistentVolumeClaimSpec) -> Option<VolumeResourceRequirements> {
    let requests = claim.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(|size| storage(&size.0))
}

/// Capacity of a bound claim in bytes; its request if the volume does not report it.
fn granted(claim: &DynamicObject, asked: i128) -> i128 {
    let status: PersistentVolumeClaimStatus = live::status(claim);
    status.capacity.and_then(|it| quantity::bytes(&it.get("storage")?.0)).unwrap_or(asked)
}

/// The immutable and mutable parts of a StatefulSet's spec.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Template {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume_claim_templates: Option<Vec<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod_management_policy: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Keeps the immutable fields of an existing StatefulSet, and the template of its pods if only the version of the operator changed it and
/// they run.
pub fn keep_template(observed: &Observed, desired: Desired) -> Desired {
    if desired.kind != Kind::StatefulSet {
        return desired;
    }
    let (Some(made), Some(spec)) = (live_claim(observed, &desired), desired.spec::<Template>()) else { return desired };
    let former: Template = live::spec(made);
    let mut others = spec.others;
    let kept = earlier::of_server(&desired.body["spec"]["template"], &made.data["spec"]["template"]);
    if let Some(template) = kept.filter(|_| !lacks_pods(observed, desired.component())) {
        others.insert("template".to_owned(), template);
    }
    desired.with_spec(&Template {
        volume_claim_templates: former.volume_claim_templates.or(spec.volume_claim_templates),
        pod_management_policy: former.pod_management_policy.or(spec.pod_management_policy),
        others,
    })
}
