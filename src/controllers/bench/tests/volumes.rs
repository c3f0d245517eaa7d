//! Problems of volumes, images and pods, and the order of an image's rollout.

use std::collections::BTreeSet;

use super::*;
use crate::controllers::{
    bench::{
        model::{Class, PodProblem},
        reason::Reason,
    },
    job::Inspection,
};

#[test]
fn a_bench_on_one_node_keeps_its_pods_together() {
    let made =
        converge(&mut observed(json!({"storageAccessMode": "ReadWriteOnce", "storageDeletionPolicy": "Delete"})));
    let claim = find(&made, Kind::PersistentVolumeClaim, "prod-sites");
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(claim["metadata"]["ownerReferences"][0]["name"], "prod", "the volume is deleted with the bench");
    let together = json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {
        "app": "frappe", "bench": "prod", "frappe.vyogo.tech/single-node": "true"}}}]);
    let pods = made.iter().filter(|it| matches!(it.kind, Kind::Deployment | Kind::Job));
    for template in pods.map(|it| &it.body["spec"]["template"]) {
        assert_eq!(template["metadata"]["labels"]["frappe.vyogo.tech/single-node"], "true");
        let affinity = &template["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(*affinity, together);
        assert!(template["spec"].get("topologySpreadConstraints").is_none());
    }
    let many = converge(&mut observed(json!({})));
    let claim = find(&many, Kind::PersistentVolumeClaim, "prod-sites");
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteMany"]));
    assert_eq!(claim["metadata"].get("ownerReferences"), None, "the volume is kept after the bench");
}

/// All pods of one node must leave it before the first can start on another: a budget would block the drain for ever.
#[test]
fn a_bench_on_one_node_has_no_budget_that_blocks_its_drain() {
    let budgets = |mode: &str| {
        let spec = json!({"storageAccessMode": mode, "componentReplicas": {"gunicorn": 2, "nginx": 2}});
        let made = converge(&mut observed(spec));
        made.iter()
            .filter(|it| it.kind == Kind::PodDisruptionBudget)
            .map(|it| it.key.name.clone())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(budgets("ReadWriteMany"), ["prod-gunicorn", "prod-nginx"].map(str::to_owned).into());
    assert_eq!(budgets("ReadWriteOnce"), BTreeSet::new());
}

#[test]
fn on_openshift_no_id_is_fixed() {
    let mut world = observed(json!({}));
    world.capabilities.openshift = true;
    for desired in converge(&mut world).iter().filter(|it| it.body["spec"]["template"].is_object()) {
        assert_eq!(lint(desired), Vec::<String>::new());
        let security = &desired.body["spec"]["template"]["spec"]["securityContext"];
        for field in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert_eq!(security.get(field), None, "{}", desired.key);
        }
    }
}

fn image(world: &Observed, component: &str) -> String {
    let live = &world.live[&(Kind::Deployment, format!("prod-{component}"))];
    live.data["spec"]["template"]["spec"]["containers"][0]["image"].as_str().expect("an image").to_owned()
}

/// The Deployment's controller has observed the change, but not replaced the pods yet.
fn rolling(world: &mut Observed, component: &str) {
    let key = (Kind::Deployment, format!("prod-{component}"));
    let mut live = DynamicObject::clone(&world.live[&key]);
    live.data["status"]["updatedReplicas"] = json!(0);
    world.live.insert(key, Arc::new(live));
}

fn rolled(world: &mut Observed, component: &str) {
    let key = (Kind::Deployment, format!("prod-{component}"));
    let mut live = DynamicObject::clone(&world.live[&key]);
    live.data["status"]["updatedReplicas"] = live.data["status"]["replicas"].clone();
    world.live.insert(key, Arc::new(live));
}

/// stage by stage, the scheduler last; each stage waits until the previous one is complete.
#[test]
fn an_image_changes_in_order() {
    let mut world = observed(json!({}));
    converge(&mut world);
    let before = world.bench.status.clone().expect("a status").running_revision.expect("a Deployment");
    let next = bench(json!({"imageConfig": {"tag": "16"}}));
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..next });
    let stages: [&[&str]; 5] =
        [&["nginx"], &["gunicorn"], &["socketio"], &["worker-default", "worker-short", "worker-long"], &["scheduler"]];
    for (turn, stage) in stages.iter().enumerate() {
        // In each reconcile while the stage is rolled out.
        for _ in 0..4 {
            let steps = plan(&world);
            apply(&mut world, &steps);
            stage.iter().for_each(|component| rolling(&mut world, component));
        }
        for component in stages[..=turn].concat() {
            assert!(image(&world, component).ends_with(":16"), "{component} at stage {stage:?}");
        }
        for component in stages[turn + 1..].concat() {
            assert!(image(&world, component).ends_with(":version-15"), "{component} at stage {stage:?}");
        }
        let status = world.bench.status.clone().expect("a status");
        assert_eq!(status.running_revision.as_ref(), Some(&before));
        assert_ne!(status.desired_revision, status.running_revision);
        let (phase, reason, message) = ready(&world);
        assert_eq!(phase, BenchPhase::Progressing);
        if turn < 4 {
            assert_eq!(reason, "Rolling");
            assert!(
                message
                    .starts_with("rolling out from docker.io/frappe/erpnext:version-15 to docker.io/frappe/erpnext:16"),
                "{message}"
            );
        }
        stage.iter().for_each(|component| rolled(&mut world, component));
    }
    converge(&mut world);
    assert_eq!(ready(&world).0, BenchPhase::Ready);
    let status = world.bench.status.clone().expect("a status");
    assert_eq!(status.desired_revision, status.running_revision);
}

/// An image without an app of the bench is not rolled out.
#[test]
fn an_app_that_is_not_in_the_image_stops_the_rollout() {
    let spec = json!({"apps": [{"name": "erpnext", "source": "image"}]});
    let mut world = observed(spec.clone());
    world.inspection =
        Some(Inspection { apps: vec!["erpnext".to_owned(), "frappe".to_owned()], ..Inspection::default() });
    converge(&mut world);
    assert_eq!(world.bench.status.as_ref().expect("a status").installed_apps, ["erpnext", "frappe"]);
    let mut next = spec;
    next["imageConfig"] = json!({"tag": "slim"});
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..bench(next) });
    world.inspection = Some(Inspection { apps: vec!["frappe".to_owned()], ..Inspection::default() });
    converge(&mut world);
    let (phase, reason, message) = ready(&world);
    assert_eq!((phase, reason.as_str()), (BenchPhase::Failed, "AppMissing"));
    assert!(message.contains("image docker.io/frappe/erpnext:slim does not contain erpnext"), "{message}");
    for component in ["nginx", "gunicorn", "scheduler", "worker-long"] {
        assert!(image(&world, component).ends_with(":version-15"), "{component} is not changed");
    }
    assert_eq!(world.bench.status.as_ref().expect("a status").installed_apps, ["frappe"], "as observed");
}

/// Apps from Git: every pod runs a copy of the image's code, which the configure Job creates and to which it adds the apps.
#[test]
fn an_app_from_git_is_installed_into_the_code_of_the_pods() {
    let app = json!({"name": "custom-app", "source": "git", "git": {"repository": "https://example.com/app", "branch": "main"}});
    let spec = json!({"apps": [app], "gitConfig": {"enabled": true}});
    let mut world = observed(spec.clone());
    let made = converge(&mut world);
    let pod = &find(&made, Kind::Job, "prod-configure")["spec"]["template"]["spec"];
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let seed: Value = serde_json::from_str(&text(&pod["initContainers"][0]["args"][1])).expect("JSON");
    let request: Value = serde_json::from_str(&text(&pod["containers"][0]["args"][1])).expect("JSON");
    assert_eq!(pod["initContainers"][0]["args"][0], "seed");
    assert_eq!(seed, request["code"]);
    let clone = json!([{"name": "custom-app", "repository": "https://example.com/app", "branch": "main"}]);
    assert_eq!(seed["clone"], clone);
    let copies = |container: &Value| -> Vec<Value> {
        container["volumeMounts"]
            .as_array()
            .expect("mounts")
            .iter()
            .filter(|it| it["subPath"].is_string())
            .cloned()
            .collect()
    };
    assert_eq!(copies(&pod["initContainers"][0]), Vec::<Value>::new(), "the image's code is copied");
    let revision = text(&seed["revision"]);
    let wanted: Vec<Value> = ["apps", "env", "assets"]
        .map(|part| json!({"name": "sites", "mountPath": format!("/home/frappe/frappe-bench/{part}"), "subPath": format!(".apps/{revision}/{part}")}))
        .into();
    assert_eq!(copies(&pod["containers"][0]), wanted);
    for name in ["gunicorn", "nginx", "socketio", "scheduler", "worker-long"] {
        let deployment = find(&made, Kind::Deployment, &format!("prod-{name}"));
        assert_eq!(copies(&deployment["spec"]["template"]["spec"]["containers"][0]), wanted, "{name}");
        assert_eq!(
            lint(&Desired { kind: Kind::Deployment, key: Key::new("default", name), body: deployment.clone() }),
            [""; 0]
        );
    }
    // Another branch has another copy; pods with the previous one continue with it.
    let mut other = spec;
    other["apps"][0]["git"]["branch"] = json!("next");
    edit(&mut world, other);
    for _ in 0..3 {
        let steps = plan(&world);
        apply(&mut world, &steps);
    }
    let container = |world: &Observed, name: &str| {
        let live = &world.live[&(Kind::Deployment, format!("prod-{name}"))];
        live.data["spec"]["template"]["spec"]["containers"][0].clone()
    };
    assert_ne!(copies(&container(&world, "nginx")), wanted, "first");
    assert_eq!(copies(&container(&world, "scheduler")), wanted, "its stage has not started");
    converge(&mut world);
    assert_eq!(copies(&container(&world, "scheduler")), copies(&container(&world, "nginx")));
}

fn claim(world: &Observed, name: &str) -> Value {
    world.live[&(Kind::PersistentVolumeClaim, name.to_owned())].data["spec"]["resources"]["requests"]["storage"].clone()
}

fn sized(world: &Observed) -> Option<(String, String)> {
    let status = plan(world).status.expect("a status");
    condition::find(&status.conditions, "VolumesSized").map(|it| (it.reason.clone(), it.message.clone()))
}

fn edit(world: &mut Observed, spec: Value) {
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..bench(spec) });
}

#[test]
fn a_volume_is_expanded_if_possible_and_never_shrunk() {
    let mut world = observed(json!({"storageSize": "20Gi"}));
    converge(&mut world);
    for (size, grows, wanted, reason) in [
        ("50Gi", false, "20Gi", Some("VolumeCannotGrow")),
        ("10Gi", true, "20Gi", Some("VolumeCannotShrink")),
        ("20480Mi", true, "20480Mi", None),
        ("50Gi", true, "50Gi", None),
    ] {
        edit(&mut world, json!({"storageSize": size}));
        world.classes = [("prod-sites".to_owned(), Class::Found { grows })].into();
        converge(&mut world);
        assert_eq!(claim(&world, "prod-sites"), wanted, "{size}");
        assert_eq!(sized(&world).map(|it| it.0).as_deref(), reason, "{size}");
        assert_eq!(ready(&world).0, BenchPhase::Ready, "running pods continue: {size}");
    }
}

/// The queue's claim is created by its StatefulSet, whose template never changes.
#[test]
fn the_queues_volume_is_expanded_without_its_stateful_set() {
    let mut world = observed(json!({}));
    converge(&mut world);
    let name = "data-prod-redis-queue-0";
    let key = (Kind::PersistentVolumeClaim, name.to_owned());
    assert!(!world.live.contains_key(&key), "the StatefulSet's controller creates it");
    let mut made = build::render(&world.input()).claims[0].clone();
    made.body["spec"]["accessModes"] = json!(["ReadWriteOnce"]);
    world.live.insert(key, live(&made));
    let template = |world: &Observed| {
        let live = &world.live[&(Kind::StatefulSet, "prod-redis-queue".to_owned())];
        live.data["spec"]["volumeClaimTemplates"].clone()
    };
    let before = template(&world);
    edit(&mut world, json!({"redisConfig": {"storageSize": "4Gi"}}));
    world.classes = [(name.to_owned(), Class::Found { grows: true })].into();
    converge(&mut world);
    assert_eq!(claim(&world, name), "4Gi");
    assert_eq!(template(&world), before);
}

#[test]
fn obstacles_of_a_bench_are_reported() {
    let pending = |class: Class| {
        let mut world = observed(json!({}));
        converge(&mut world);
        let key = (Kind::PersistentVolumeClaim, "prod-sites".to_owned());
        let mut claim = DynamicObject::clone(&world.live[&key]);
        claim.data["status"]["phase"] = json!("Pending");
        world.live.insert(key, Arc::new(claim));
        world.classes = [("prod-sites".to_owned(), class)].into();
        ready(&world)
    };
    let (phase, reason, message) = pending(Class::Missing(Some("fast".into())));
    assert_eq!((phase, reason.as_str()), (BenchPhase::Progressing, "StorageClassMissing"));
    assert_eq!(message, "volume prod-sites: StorageClass fast does not exist: create it, or create a new bench");
    assert_eq!(pending(Class::Missing(None)).1, "StorageClassMissing");
    assert_eq!(pending(Class::Found { grows: true }).1, "VolumePending");

    let mut world = observed(json!({}));
    converge(&mut world);
    rolling(&mut world, "nginx");
    let problem = |pod: &str| PodProblem {
        pod: Key::new("default", pod),
        component: "nginx".into(),
        reason: Reason::ImagePullFailed,
        message: "ErrImagePull: not found".into(),
    };
    world.pod_problems = vec![problem("prod-nginx-1"), problem("prod-nginx-2")];
    let (_, reason, message) = ready(&world);
    assert_eq!(reason, "ImagePullFailed");
    assert_eq!(message, "nginx: pod prod-nginx-1: ErrImagePull: not found; 1 more pods are failing");
    let key = (Kind::Deployment, "prod-nginx".to_owned());
    let mut deployment = DynamicObject::clone(&world.live[&key]);
    deployment.data["status"]["conditions"] =
        json!([{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]);
    world.live.insert(key, Arc::new(deployment));
    let (_, reason, message) = ready(&world);
    assert_eq!(reason, "PodsNotStarting");
    assert_eq!(message, "Deployment prod-nginx: its pods are rejected: exceeded quota");
}
