//! KEDA comes, owns the number of workers, and goes, while the operator runs.

use std::time::Duration;

use frappe_crds::FrappeBench;
use frappe_loadtest::audit;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use crate::support::{World, shared};

const SPACE: &str = "scaled";
const WORKERS: &str = "bench-worker-default";
/// Seconds without a request of a world that does not change.
const QUIET_SECONDS: u64 = 60;

/// KEDA's definitions as they are published, or stand-ins where those are absent.
fn definitions() -> Vec<String> {
    let published =
        ["scaledobjects", "triggerauthentications"].map(|kind| shared(&format!("crds/keda.sh_{kind}.yaml")));
    let read = |path: &std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    let found: Vec<String> = published.iter().flatten().map(read).collect();
    let stand_ins = include_str!("../../loadtest/controlplane/optional/keda.yaml");
    if found.len() < 2 { vec![stand_ins.to_owned()] } else { found }
}

fn install(world: &World) {
    for text in definitions() {
        world.cluster.apply(&text).unwrap();
    }
}

struct Bench<'a> {
    world: &'a World,
    benches: Api<FrappeBench>,
    deployments: Api<Deployment>,
    scaled: Api<DynamicObject>,
}

impl Bench<'_> {
    async fn edit(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.benches.patch("bench", &PatchParams::default(), &patch).await.unwrap();
    }

    async fn says(&self, reason: Option<&str>) {
        self.says_within(reason, 30).await;
    }

    async fn says_within(&self, reason: Option<&str>, seconds: u64) {
        let said = || async {
            let conditions = self.benches.get("bench").await.ok()?.status?.conditions;
            let found = conditions.into_iter().find(|it| it.type_ == "WorkersAutoscaled").map(|it| it.reason);
            (found.as_deref() == reason).then_some(())
        };
        self.world.until(&format!("WorkersAutoscaled has the reason {reason:?}"), seconds, said).await;
    }

    async fn replicas(&self) -> i32 {
        self.deployments.get(WORKERS).await.unwrap().spec.unwrap().replicas.unwrap()
    }

    async fn has_replicas(&self, number: i32) {
        let has = || async { (self.replicas().await == number).then_some(()) };
        self.world.until(&format!("{number} workers"), 30, has).await;
    }

    /// Scales as KEDA's HPA does.
    async fn scale(&self, number: i32) {
        let params = PatchParams { field_manager: Some("keda-operator".into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({"spec": {"replicas": number}}));
        self.deployments.patch_scale(WORKERS, &params, &patch).await.unwrap();
    }

    async fn object(&self) -> DynamicObject {
        let found = || async { self.scaled.get_opt(WORKERS).await.ok().flatten() };
        self.world.until("the ScaledObject is there", 30, found).await
    }

    /// Says what KEDA says of an object that it scales.
    async fn keda_says(&self, kind: &str, status: &str) {
        let conditions = json!([
            {"type": "Ready", "status": "True", "reason": "ScaledObjectReady", "message": "ready"},
            {"type": kind, "status": status, "reason": "Said", "message": "as KEDA has it"},
        ]);
        let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
        self.object().await;
        self.scaled.patch_status(WORKERS, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Removes KEDA's definitions as those are removed whose operator went first: nobody takes the finalizer off.
    async fn definitions_hang(&self) {
        let finalizer = |names: &Value| Patch::Merge(json!({"metadata": {"finalizers": names}}));
        self.scaled.patch(WORKERS, &PatchParams::default(), &finalizer(&json!(["finalizer.keda.sh"]))).await.unwrap();
        let crds = ["scaledobjects.keda.sh", "triggerauthentications.keda.sh"];
        for name in crds {
            self.world.kubectl(&["delete", "crd", name, "--wait=false"]);
        }
        self.says(Some("KedaMissing")).await;
        self.has_replicas(3).await;
        self.scaled.patch(WORKERS, &PatchParams::default(), &finalizer(&Value::Null)).await.unwrap();
        self.world.kubectl(&["wait", "--for=delete", "crd/scaledobjects.keda.sh", "--timeout=30s"]);
    }
}

///
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keda_comes_owns_the_workers_and_goes() {
    let world = World::start("keda").await;
    world.with_bench(SPACE).await;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject"));
    let bench = Bench {
        world: &world,
        benches: Api::namespaced(world.client.clone(), SPACE),
        deployments: Api::namespaced(world.client.clone(), SPACE),
        scaled: Api::namespaced_with(world.client.clone(), SPACE, &resource),
    };
    bench
        .edit(json!({"workerAutoscaling": {"default": {"minReplicas": 0, "maxReplicas": 10, "staticReplicas": 3}}}))
        .await;
    bench.says(Some("KedaMissing")).await;
    bench.has_replicas(3).await;

    install(&world);
    bench.says(Some("ScalingStarting")).await;
    bench.keda_says("Paused", "False").await;
    bench.says(Some("Autoscaled")).await;
    let object = bench.object().await;
    println!("{}", serde_json::to_string_pretty(&object.data["spec"]).unwrap());
    assert_eq!(bench.replicas().await, 3, "handed over as they were");

    bench.scale(7).await;
    bench.edit(json!({"componentResources": {"worker-default": {"limits": {"memory": "3Gi"}}}})).await;
    let written = || async {
        let pod = bench.deployments.get(WORKERS).await.ok()?.spec?.template.spec?;
        let limits = pod.containers[0].resources.clone()?.limits?;
        (limits.get("memory")?.0 == "3Gi").then_some(())
    };
    world.until("the edit reached the workers", 30, written).await;
    assert_eq!(bench.replicas().await, 7, "what KEDA set is left alone");
    bench.scale(0).await;

    drift(&bench).await;
    bench.keda_says("HPAActive", "False").await;
    bench.says(Some("ScalingFailed")).await;
    quiet(&world).await;
    assert_eq!(bench.replicas().await, 0);

    bench.definitions_hang().await;
    install(&world);
    bench.says(Some("ScalingStarting")).await;
    let begun = std::time::Instant::now();
    bench.object().await;
    bench.says_within(Some("KedaNotResponding"), 90).await;
    println!("KEDA's silence was told after {:?}", begun.elapsed());
    bench.keda_says("Paused", "True").await;
    bench.says(Some("ScalingPaused")).await;

    bench.scale(9).await;
    bench.edit(json!({"workerAutoscaling": null})).await;
    bench.says(None).await;
    bench.has_replicas(1).await;
    let gone = || async { bench.scaled.get_opt(WORKERS).await.ok()?.is_none().then_some(()) };
    world.until("the ScaledObject is gone", 30, gone).await;
    let log = world.operator.log_tail();
    assert!(!log.contains("does not keep this field"), "the published definition lacks a field: {log}");
}

/// changed or deleted by hand, it comes back.
async fn drift(bench: &Bench<'_>) {
    let before = bench.object().await;
    let patch = Patch::Merge(json!({"spec": {"maxReplicaCount": 99}}));
    bench.scaled.patch(WORKERS, &PatchParams::default(), &patch).await.unwrap();
    let repaired =
        || async { (bench.scaled.get(WORKERS).await.ok()?.data["spec"] == before.data["spec"]).then_some(()) };
    bench.world.until("the ScaledObject is as it was", 30, repaired).await;
    bench.scaled.delete(WORKERS, &kube::api::DeleteParams::default()).await.unwrap();
    let again =
        || async { (bench.scaled.get_opt(WORKERS).await.ok()??.metadata.uid != before.metadata.uid).then_some(()) };
    bench.world.until("it is there again", 30, again).await;
}

/// an unchanged bench costs nothing.
async fn quiet(world: &World) {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let begun = Timestamp::now();
    tokio::time::sleep(Duration::from_secs(QUIET_SECONDS)).await;
    let made: Vec<_> = audit::requests(&world.cluster.logs, begun).unwrap();
    let made: Vec<_> = made.iter().filter(|it| it.verb != "watch" && it.is_work()).collect();
    println!("an unchanged bench with KEDA: {} requests in {QUIET_SECONDS} s", made.len());
    assert!(made.is_empty(), "{made:?}");
}
