//! KEDA is installed, owns the number of workers, and is uninstalled, while the operator runs.

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
/// Seconds without a request while nothing changes.
const QUIET_SECONDS: u64 = 60;

/// KEDA's published CRDs, or stand-ins if they are absent.
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

    async fn wait_for_reason(&self, reason: Option<&str>) {
        self.wait_for_reason_within(reason, 30).await;
    }

    async fn wait_for_reason_within(&self, reason: Option<&str>, seconds: u64) {
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
        self.world.until("the ScaledObject exists", 30, found).await
    }

    /// Sets a condition as KEDA does.
    async fn set_keda_condition(&self, kind: &str, status: &str) {
        let conditions = json!([
            {"type": "Ready", "status": "True", "reason": "ScaledObjectReady", "message": "ready"},
            {"type": kind, "status": status, "reason": "Said", "message": "as KEDA has it"},
        ]);
        let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
        self.object().await;
        self.scaled.patch_status(WORKERS, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Deletes KEDA's CRDs after KEDA itself was removed: no controller removes the finalizers.
    async fn delete_crds_with_finalizers(&self) {
        let finalizer = |names: &Value| Patch::Merge(json!({"metadata": {"finalizers": names}}));
        self.scaled.patch(WORKERS, &PatchParams::default(), &finalizer(&json!(["finalizer.keda.sh"]))).await.unwrap();
        let crds = ["scaledobjects.keda.sh", "triggerauthentications.keda.sh"];
        for name in crds {
            self.world.kubectl(&["delete", "crd", name, "--wait=false"]);
        }
        self.wait_for_reason(Some("KedaMissing")).await;
        self.has_replicas(3).await;
        self.scaled.patch(WORKERS, &PatchParams::default(), &finalizer(&Value::Null)).await.unwrap();
        self.world.kubectl(&["wait", "--for=delete", "crd/scaledobjects.keda.sh", "--timeout=30s"]);
    }
}

///
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keda_is_installed_owns_the_workers_and_is_uninstalled() {
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
    bench.wait_for_reason(Some("KedaMissing")).await;
    bench.has_replicas(3).await;

    install(&world);
    bench.wait_for_reason(Some("ScalingStarting")).await;
    bench.set_keda_condition("Paused", "False").await;
    bench.wait_for_reason(Some("Autoscaled")).await;
    let object = bench.object().await;
    println!("{}", serde_json::to_string_pretty(&object.data["spec"]).unwrap());
    assert_eq!(bench.replicas().await, 3, "KEDA takes over the current number");

    bench.scale(7).await;
    bench.edit(json!({"componentResources": {"worker-default": {"limits": {"memory": "3Gi"}}}})).await;
    let written = || async {
        let pod = bench.deployments.get(WORKERS).await.ok()?.spec?.template.spec?;
        let limits = pod.containers[0].resources.clone()?.limits?;
        (limits.get("memory")?.0 == "3Gi").then_some(())
    };
    world.until("the edit is applied to the workers", 30, written).await;
    assert_eq!(bench.replicas().await, 7, "KEDA's number of replicas is kept");
    bench.scale(0).await;

    drift(&bench).await;
    bench.set_keda_condition("HPAActive", "False").await;
    bench.wait_for_reason(Some("ScalingFailed")).await;
    quiet(&world).await;
    assert_eq!(bench.replicas().await, 0);

    bench.delete_crds_with_finalizers().await;
    install(&world);
    bench.wait_for_reason(Some("ScalingStarting")).await;
    let begun = std::time::Instant::now();
    bench.object().await;
    bench.wait_for_reason_within(Some("KedaNotResponding"), 90).await;
    println!("a missing report by KEDA was reported after {:?}", begun.elapsed());
    bench.set_keda_condition("Paused", "True").await;
    bench.wait_for_reason(Some("ScalingPaused")).await;

    bench.scale(9).await;
    bench.edit(json!({"workerAutoscaling": null})).await;
    bench.wait_for_reason(None).await;
    bench.has_replicas(1).await;
    let gone = || async { bench.scaled.get_opt(WORKERS).await.ok()?.is_none().then_some(()) };
    world.until("the ScaledObject is deleted", 30, gone).await;
    let log = world.operator.log_tail();
    assert!(!log.contains("does not keep this field"), "the published CRD lacks a field: {log}");
}

/// a ScaledObject that was changed or deleted manually is restored.
async fn drift(bench: &Bench<'_>) {
    let before = bench.object().await;
    let patch = Patch::Merge(json!({"spec": {"maxReplicaCount": 99}}));
    bench.scaled.patch(WORKERS, &PatchParams::default(), &patch).await.unwrap();
    let repaired =
        || async { (bench.scaled.get(WORKERS).await.ok()?.data["spec"] == before.data["spec"]).then_some(()) };
    bench.world.until("the ScaledObject is restored", 30, repaired).await;
    bench.scaled.delete(WORKERS, &kube::api::DeleteParams::default()).await.unwrap();
    let again =
        || async { (bench.scaled.get_opt(WORKERS).await.ok()??.metadata.uid != before.metadata.uid).then_some(()) };
    bench.world.until("it is recreated", 30, again).await;
}

/// an unchanged bench costs no requests.
async fn quiet(world: &World) {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let begun = Timestamp::now();
    tokio::time::sleep(Duration::from_secs(QUIET_SECONDS)).await;
    let made: Vec<_> = audit::requests(&world.cluster.logs, begun).unwrap();
    let made: Vec<_> = made.iter().filter(|it| it.verb != "watch" && it.is_work()).collect();
    println!("an unchanged bench with KEDA: {} requests in {QUIET_SECONDS} s", made.len());
    assert!(made.is_empty(), "{made:?}");
}
