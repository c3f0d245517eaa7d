//! A bench on a real API server: objects that its spec adds and removes, and manual changes.

use frappe_crds::FrappeBench;
use frappe_loadtest::audit;
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, events::v1::Event, policy::v1::PodDisruptionBudget};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::support::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_a_bench_follow_its_spec_and_its_image() {
    let world = World::start("bench").await;
    a_pod_disruption_budget_exists_while_a_component_has_two_pods(&world).await;
    an_image_rolls_out_in_order_and_volumes_outlive_the_bench(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bench_recovers_from_errors_and_from_changes_by_hand() {
    let world = World::start("below").await;
    errors_of_a_benchs_objects_are_reported_and_recovered_from(&world).await;
    every_manually_changed_object_is_restored(&world).await;
}

/// A field of a bench adds an object, and reverting the field removes it; R-6 (drift) in between.
async fn a_pod_disruption_budget_exists_while_a_component_has_two_pods(world: &World) {
    world.with_bench("ground").await;
    let benches: Api<FrappeBench> = Api::namespaced(world.client.clone(), "ground");
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(world.client.clone(), "ground");
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), "ground");
    let scale = async |replicas: serde_json::Value| {
        let patch = Patch::Merge(json!({"spec": {"componentReplicas": {"gunicorn": replicas}}}));
        benches.patch("bench", &PatchParams::default(), &patch).await.unwrap();
    };
    let present = || async { budgets.get_opt("bench-gunicorn").await.unwrap() };
    assert!(
        budgets.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty(),
        "each component has one pod"
    );

    scale(json!(2)).await;
    let budget = world.until("the PodDisruptionBudget exists", 20, present).await;
    let deployment = deployments.get("bench-gunicorn").await.unwrap();
    assert_eq!(budget.spec.unwrap().selector, Some(deployment.spec.unwrap().selector));

    budgets.delete("bench-gunicorn", &DeleteParams::default()).await.unwrap();
    world.until("it is restored", 20, present).await;

    scale(serde_json::Value::Null).await;
    let gone = || async { present().await.is_none().then_some(()) };
    world.until("the PodDisruptionBudget is deleted", 20, gone).await;
}

/// Benches with errors: their conditions and Events are checked.
struct Wrong<'a> {
    world: &'a World,
    benches: Api<FrappeBench>,
}

impl Wrong<'_> {
    async fn edit(&self, name: &str, spec: serde_json::Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.benches.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    fn make(&self, name: &str, spec: &serde_json::Value) {
        let mut whole = json!({"frappeVersion": "15"});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let bench = json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "spec": whole,
            "metadata": {"name": name, "namespace": "wrong"},
        });
        self.world.cluster.apply(&bench.to_string()).unwrap();
    }

    async fn wait_for_reason(&self, name: &str, kind: &str, reason: &str) {
        let said = || async {
            let conditions = self.benches.get(name).await.ok()?.status?.conditions;
            let found = conditions.into_iter().find(|it| it.type_ == kind)?;
            (found.reason == reason).then_some(found.message)
        };
        let message = self.world.until(&format!("{name} has reason {reason}"), 90, said).await;
        let events: Api<Event> = Api::namespaced(self.world.client.clone(), "wrong");
        let told = || async {
            let list = events.list(&kube::api::ListParams::default()).await.ok()?;
            let about = |it: &Event| it.regarding.as_ref().and_then(|to| to.name.as_deref()) == Some(name);
            list.items.into_iter().find(|it| about(it) && it.reason.as_deref() == Some(reason))
        };
        let event = self.world.until(&format!("an Event {reason} about {name}"), 30, told).await;
        println!("{kind} of {name}: {reason}: {message}\n  Event {}: {}", event.type_.unwrap(), event.note.unwrap());
    }

    async fn ready(&self, name: &str) {
        let ready = || async {
            let bench = self.benches.get(name).await.ok()?;
            let status = bench.status?;
            let seen = status.observed_generation == bench.metadata.generation;
            (seen && status.phase == frappe_crds::bench::BenchPhase::Ready).then_some(())
        };
        self.world.until(&format!("{name} is Ready"), 90, ready).await;
    }
}

/// R-8, for errors in a bench's objects: each is reported by a condition and an Event, and the bench recovers once its cause is
/// removed.
async fn errors_of_a_benchs_objects_are_reported_and_recovered_from(world: &World) {
    world.cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: wrong}\n").unwrap();
    let wrong = Wrong { world, benches: Api::namespaced(world.client.clone(), "wrong") };
    let nobodys = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "nobodys"},
                         "provisioner": "example.com/none"});
    world.cluster.apply(&nobodys.to_string()).unwrap();

    let default = |is: &str| {
        let annotation = format!("storageclass.kubernetes.io/is-default-class={is}");
        world.kubectl(&["annotate", "--overwrite", "storageclass", "kwok-volume", &annotation]);
    };
    default("false");
    wrong.make("classless", &json!({}));
    wrong.make("nowhere", &json!({"storageClassName": "nowhere"}));
    wrong.wait_for_reason("classless", "Ready", "StorageClassMissing").await;
    wrong.wait_for_reason("nowhere", "Ready", "StorageClassMissing").await;
    default("true");
    wrong.ready("classless").await;

    wrong.make("pending", &json!({"storageClassName": "nobodys"}));
    wrong.make("pulls", &json!({"imageConfig": {"repository": "example.com/unpullable"}}));
    wrong.make("lacks", &json!({"apps": [{"name": "absent", "source": "image"}]}));
    wrong.make("runs", &json!({"storageSize": "20Gi"}));
    wrong.wait_for_reason("pending", "Ready", "VolumePending").await;
    wrong.wait_for_reason("pulls", "Ready", "ImagePullFailed").await;
    wrong.wait_for_reason("lacks", "Ready", "AppMissing").await;
    wrong.ready("runs").await;

    wrong.edit("pulls", json!({"imageConfig": {"repository": "example.com/pullable"}})).await;
    wrong.edit("lacks", json!({"apps": [{"name": "erpnext", "source": "image"}]})).await;
    for name in ["pulls", "lacks"] {
        wrong.ready(name).await;
    }

    wrong.edit("runs", json!({"redisConfig": {"image": "example.com/crashing"}})).await;
    wrong.wait_for_reason("runs", "Ready", "ContainerFailing").await;
    wrong.edit("runs", json!({"redisConfig": null, "storageSize": "10Gi"})).await;
    wrong.ready("runs").await;
    wrong.wait_for_reason("runs", "VolumesSized", "VolumeCannotShrink").await;
    wrong.edit("runs", json!({"storageSize": "30Gi"})).await;
    wrong.wait_for_reason("runs", "VolumesSized", "VolumeCannotGrow").await;
}

/// R-12 on a real API server, and the objects that remain after a bench is deleted.
async fn an_image_rolls_out_in_order_and_volumes_outlive_the_bench(world: &World) {
    world.cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: wrong}\n").unwrap();
    let bench = Wrong { world, benches: Api::namespaced(world.client.clone(), "wrong") };
    bench.make("kept", &json!({}));
    bench.make("gone", &json!({"storageDeletionPolicy": "Delete"}));
    bench.ready("kept").await;
    bench.ready("gone").await;
    let begun = Timestamp::now();
    bench.edit("kept", json!({"imageConfig": {"tag": "16"}})).await;
    bench.wait_for_reason("kept", "Ready", "Rolling").await;
    let rolled = || async {
        let status = bench.benches.get("kept").await.ok()?.status?;
        let over = status.running_revision == status.desired_revision && status.image?.ends_with(":16");
        over.then_some(())
    };
    world.until("every component runs the new image", 90, rolled).await;
    bench.ready("kept").await;
    let requests = audit::requests(&world.cluster.logs, begun).unwrap();
    let changed: Vec<&str> =
        requests.iter().filter(|it| it.verb == "patch" && it.resource == "deployments").map(|it| &*it.name).collect();
    println!("changed over in this order: {changed:?}");
    let place = |name: &str| changed.iter().position(|it| *it == name).unwrap();
    let order = ["nginx", "gunicorn", "socketio", "worker-default", "scheduler"].map(|it| place(&format!("kept-{it}")));
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(changed.last(), Some(&"kept-scheduler"));

    for name in ["kept", "gone"] {
        world.kubectl(&["delete", "frappebench", name, "-n", "wrong"]);
    }
    let kinds = "deployments,statefulsets,services,jobs,configmaps,poddisruptionbudgets,persistentvolumeclaims";
    let left = || async {
        let listed = world.kubectl(&["get", kinds, "-n", "wrong", "-o", "name", "-l", "app=frappe"]);
        let mut names: Vec<String> = listed.lines().map(ToOwned::to_owned).collect();
        names.sort();
        let kept = ["persistentvolumeclaim/data-kept-redis-queue-0", "persistentvolumeclaim/kept-sites"];
        (names == kept).then_some(())
    };
    world.until("only the retained volumes are left", 90, left).await;
}

/// R-6, for every object of a bench: it is restored after it was deleted, relabelled or scaled manually.
async fn every_manually_changed_object_is_restored(world: &World) {
    world.cluster.apply(include_str!("../../loadtest/controlplane/optional/keda.yaml")).unwrap();
    let bench = Wrong { world, benches: Api::namespaced(world.client.clone(), "wrong") };
    let on = json!({"enabled": true});
    bench.make(
        "whole",
        &json!({"componentReplicas": {"gunicorn": 2}, "networkPolicy": on, "monitoring": on, "workerAutoscaling": {"long": on}}),
    );
    bench.ready("whole").await;
    let kinds = "services,deployments,statefulsets,configmaps,poddisruptionbudgets,networkpolicies,jobs,scaledobjects,\
                 servicemonitors";
    let listed = world.kubectl(&["get", kinds, "-n", "wrong", "-l", "bench=whole", "-o", "name"]);
    let names: Vec<&str> = listed.lines().collect();
    let get = |name: &str, path: &str| {
        let output = format!("jsonpath={{{path}}}");
        world.cluster.kubectl(&["get", name, "-n", "wrong", "-o", &output], "").ok().map(|it| it.out)
    };
    for name in &names {
        // A finished Job is not recreated.
        if !name.starts_with("job") {
            let component = get(name, ".metadata.labels.component");
            world.kubectl(&["label", name, "-n", "wrong", "--overwrite", "component=edited"]);
            let back = || async { (get(name, ".metadata.labels.component") == component).then_some(()) };
            world.until(&format!("the label of {name} is restored"), 30, back).await;
        }
        let uid = get(name, ".metadata.uid");
        world.kubectl(&["delete", name, "-n", "wrong", "--wait=false"]);
        let anew = || async {
            let now = get(name, ".metadata.uid").filter(|it| !it.is_empty());
            (now.is_some() && now != uid).then_some(())
        };
        world.until(&format!("{name} is recreated"), 60, anew).await;
    }
    for name in names.iter().filter(|it| it.starts_with("deployment")) {
        let before = get(name, ".spec.replicas");
        world.kubectl(&["scale", name, "-n", "wrong", "--replicas=9"]);
        if name.ends_with("worker-long") {
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
            assert_eq!(get(name, ".spec.replicas").as_deref(), Some("9"), "KEDA's number of replicas is kept");
            continue;
        }
        let back = || async { (get(name, ".spec.replicas") == before).then_some(()) };
        world.until(&format!("the replicas of {name} are restored"), 30, back).await;
    }
    bench.ready("whole").await;
    println!("{} objects were relabelled, deleted and scaled manually, and restored", names.len());
    assert!(names.len() >= 20, "{names:?}");
}
