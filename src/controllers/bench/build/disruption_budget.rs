//! Disruption budgets: whoever drains nodes takes one pod of a component at a time.

use serde_json::json;

use crate::{
    controllers::bench::model::Input,
    domain::object::{Desired, Kind},
};

/// A budget for each Deployment of several pods, or of as many as KEDA sets. One of a single pod needs none: whoever drains
/// its node takes that pod. Pods that are not ready anyway may always go.
pub(super) fn budgets(input: &Input, components: &[Desired]) -> Vec<Desired> {
    let of = |deployment: &Desired| {
        let component = deployment.body["metadata"]["labels"]["component"].as_str().unwrap_or_default();
        let spec = json!({
            "maxUnavailable": 1, "selector": deployment.body["spec"]["selector"],
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        });
        input.object(Kind::PodDisruptionBudget, component, component, &spec)
    };
    components.iter().filter(|it| has_several(it)).map(of).collect()
}

fn has_several(deployment: &Desired) -> bool {
    deployment.kind == Kind::Deployment && deployment.body["spec"]["replicas"].as_i64().is_none_or(|number| number > 1)
}
