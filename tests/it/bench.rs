//! A bench against a real API server: what its spec adds and takes away, and what is changed by hand.

use frappe_crds::FrappeBench;
use k8s_openapi::api::{apps::v1::Deployment, policy::v1::PodDisruptionBudget};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::support::World;

/// A field of a bench adds an object, and its revert takes it away again; R-6 (drift) in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_comes_is_kept_and_goes_with_the_second_pod() {
    let world = World::start("bench").await;
    world.with_bench("ground").await;
    let benches: Api<FrappeBench> = Api::namespaced(world.client.clone(), "ground");
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(world.client.clone(), "ground");
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), "ground");
    let scale = async |replicas: serde_json::Value| {
        let patch = Patch::Merge(json!({"spec": {"componentReplicas": {"gunicorn": replicas}}}));
        benches.patch("bench", &PatchParams::default(), &patch).await.unwrap();
    };
    let present = || async { budgets.get_opt("bench-gunicorn").await.unwrap() };
    assert!(budgets.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty(), "one pod of each");

    scale(json!(2)).await;
    let budget = world.until("the budget is there", 20, present).await;
    let deployment = deployments.get("bench-gunicorn").await.unwrap();
    assert_eq!(budget.spec.unwrap().selector, Some(deployment.spec.unwrap().selector));

    budgets.delete("bench-gunicorn", &DeleteParams::default()).await.unwrap();
    world.until("it is there again", 20, present).await;

    scale(serde_json::Value::Null).await;
    let gone = || async { present().await.is_none().then_some(()) };
    world.until("the budget is gone", 20, gone).await;
}
