//! Disruption budgets: draining nodes evicts one pod of a component at a time.

use k8s_openapi::{
    api::{apps::v1::DeploymentSpec, policy::v1::PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::domain::{object::Desired, typed::Object};

/// A budget for each Deployment of several pods, or of as many as KEDA sets. A single pod has none:
/// draining its node evicts it. Pods that are not ready may always be evicted.
pub(super) fn budgets(deployments: &[Object<DeploymentSpec>]) -> impl Iterator<Item = Desired> {
    let several = deployments.iter().filter(|it| it.spec.replicas.is_none_or(|number| number > 1));
    several.map(|deployment| budget(deployment).into())
}

/// It has the name, the labels and the owner of its Deployment.
fn budget(deployment: &Object<DeploymentSpec>) -> Object<PodDisruptionBudgetSpec> {
    let mut metadata = deployment.metadata.clone();
    metadata.annotations = None;
    let spec = PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(1)),
        selector: Some(deployment.spec.selector.clone()),
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        ..PodDisruptionBudgetSpec::default()
    };
    Object { key: deployment.key.clone(), metadata, spec }
}
