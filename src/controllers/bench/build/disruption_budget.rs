//! PodDisruptionBudgets: while nodes are drained, one pod of a component is evicted at a time.

use k8s_openapi::{
    api::{apps::v1::DeploymentSpec, policy::v1::PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::domain::{object::Desired, typed::Object};

/// A PodDisruptionBudget for each Deployment with several pods or with a number set by KEDA. A single pod has none, so that its node
/// can be drained. Pods that are not ready may always be evicted.
pub(super) fn budgets(deployments: &[Object<DeploymentSpec>]) -> impl Iterator<Item = Desired> {
    let several = deployments.iter().filter(|it| it.spec.replicas.is_none_or(|number| number > 1));
    several.map(|deployment| budget(deployment).into())
}

/// The PodDisruptionBudget has the name, labels and owner of its Deployment.
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
