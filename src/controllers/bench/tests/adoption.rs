//! Adoption of another operator's bench.

use super::*;
use crate::domain::labels;

/// An object as another operator created it: without this operator's annotation, and with another template.
fn as_found(desired: &Desired) -> Arc<DynamicObject> {
    let mut object = DynamicObject::clone(&live(desired));
    object.metadata.annotations = None;
    object.annotations_mut().insert(labels::ADOPTED.to_owned(), "1".to_owned());
    let image = object.data["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    if image.is_string() {
        object.data["spec"]["template"]["spec"] =
            json!({"containers": [{"name": "theirs", "image": image, "volumeMounts": []}]});
    }
    Arc::new(object)
}

fn requested(spec: Value) -> Observed {
    let mut world = observed(spec);
    Arc::make_mut(&mut world.bench).annotations_mut().insert(labels::ADOPT.to_owned(), "true".to_owned());
    world
}

/// An adopted bench.
fn adopted() -> Observed {
    adopt(requested(json!({})))
}

fn adopt(mut world: Observed) -> Observed {
    for _ in 0..6 {
        let next = plan(&world);
        assert!(!next.steps.iter().any(|it| matches!(it, Step::Delete(..))), "{:?}", next.steps);
        for step in &next.steps {
            match step {
                Step::Adopt(it) => drop(world.live.insert((it.kind, it.key.name.clone()), as_found(it))),
                Step::Ensure(it) => panic!("{:?} {} is changed", it.kind, it.key.name),
                _ => {}
            }
        }
        let others = next.steps.into_iter().filter(|it| !matches!(it, Step::Adopt(_))).collect();
        apply(&mut world, &Plan { steps: others, ..next });
    }
    world
}

fn ensured(world: &Observed, kind: Kind) -> Vec<String> {
    let plan = plan(world);
    let steps = plan.steps.iter().filter_map(|step| match step {
        Step::Ensure(it) if it.kind == kind => Some(it.key.name.clone()),
        _ => None,
    });
    steps.collect()
}

fn edit(world: &mut Observed, change: impl FnOnce(&mut FrappeBench)) {
    let bench = Arc::make_mut(&mut world.bench);
    bench.metadata.generation = Some(2);
    change(bench);
}

///
#[test]
fn a_bench_is_adopted_unchanged() {
    let world = adopted();
    assert_eq!(ready(&world).0, BenchPhase::Ready, "{:?}", ready(&world));
    let kinds: std::collections::BTreeSet<_> = world.live.keys().map(|(kind, _)| format!("{kind:?}")).collect();
    for kind in ["Deployment", "StatefulSet", "Service", "PersistentVolumeClaim"] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
    assert!(!plan(&world).steps.iter().any(|it| matches!(it, Step::Ensure(_) | Step::Adopt(_))));
}

/// without a request, nothing is adopted.
#[test]
fn a_bench_is_not_adopted_without_a_request() {
    let steps = plan(&observed(json!({}))).steps;
    let looked_at = |it: &&Step| matches!(it, Step::Adopt(_));
    let names: Vec<_> = steps.iter().filter(looked_at).collect();
    assert!(matches!(&names[..], [Step::Adopt(it)] if it.kind == Kind::PersistentVolumeClaim), "{names:?}");
}

/// the first change of the spec applies everything except immutable fields.
#[test]
fn the_first_change_applies_the_spec() {
    let mut world = adopted();
    edit(&mut world, |_| {});
    assert_eq!(ensured(&world, Kind::Deployment).len(), 7);
    assert_eq!(ensured(&world, Kind::StatefulSet), [""; 0]);
    assert_eq!(ensured(&world, Kind::PersistentVolumeClaim), [""; 0]);
    assert_eq!(ensured(&world, Kind::Service), [""; 0], "Services route to the running pods until new ones run");
    let next = plan(&world);
    apply(&mut world, &next);
    let services = ensured(&world, Kind::Service);
    assert_eq!(services, ["prod-gunicorn", "prod-nginx", "prod-socketio"], "Services of Redis are kept");
}

/// objects that are kept unchanged do not block a deletion.
#[test]
fn an_adopted_bench_can_be_deleted() {
    let mut world = adopted();
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now);
    Arc::make_mut(&mut world.bench).metadata.deletion_timestamp = Some(now);
    assert!(matches!(&plan(&world).steps[..], [Step::Patch(..)]), "{:?}", plan(&world).steps);
}

/// another image is rolled out stage by stage; until its stage, a component's template is not changed.
#[test]
fn another_image_goes_stage_by_stage() {
    let mut world = adopted();
    edit(&mut world, |it| it.spec.frappe_version = "16".to_owned());
    // The configure Job of the other image runs first.
    for _ in 0..3 {
        let next = plan(&world);
        if !ensured(&world, Kind::Deployment).is_empty() {
            break;
        }
        apply(&mut world, &next);
    }
    assert_eq!(ensured(&world, Kind::Deployment), ["prod-nginx"]);
}

/// the number of workers that KEDA set is kept when the Deployment is applied.
#[test]
fn workers_that_keda_scales_keep_their_number() {
    let mut world = requested(json!({"workerAutoscaling": {"short": {"minReplicas": 0, "maxReplicas": 10}}}));
    world.capabilities = Capabilities { keda: true, ..Capabilities::default() };
    let mut world = adopt(world);
    assert!(plan(&world).steps.is_empty(), "writes without changes: {:?}", plan(&world).steps);
    edit(&mut world, |_| {});
    let steps = plan(&world).steps;
    let of_short = |step: &Step| match step {
        Step::HandOver(it) => it.name_any() == "prod-worker-short",
        Step::Ensure(it) => it.kind == Kind::Deployment && it.key.name == "prod-worker-short",
        _ => false,
    };
    let found: Vec<_> = steps.iter().filter(|step| of_short(step)).collect();
    assert!(matches!(&found[..], [Step::HandOver(_), Step::Ensure(_)]), "{found:?}");
}

/// Jobs are scheduled to the node of a ReadWriteOnce volume, by the pods of either operator.
#[test]
fn jobs_are_scheduled_to_the_node_of_the_volume() {
    let mut world = requested(json!({}));
    let first = plan(&world);
    assert!(!first.steps.iter().any(|it| matches!(it, Step::Create(_))), "the volume is not observed yet");
    for step in &first.steps {
        if let Step::Adopt(it) = step {
            let mut found = DynamicObject::clone(&as_found(it));
            if it.kind == Kind::PersistentVolumeClaim {
                found.data["spec"]["accessModes"] = json!(["ReadWriteOnce"]);
            }
            world.live.insert((it.kind, it.key.name.clone()), Arc::new(found));
        }
    }
    for _ in 0..2 {
        let next = plan(&world);
        let job = next.steps.iter().find_map(|it| match it {
            Step::Create(job) => Some(job.clone()),
            _ => None,
        });
        if let Some(job) = job {
            let affinity = &job.body["spec"]["template"]["spec"]["affinity"]["podAffinity"];
            let selector = &affinity["requiredDuringSchedulingIgnoredDuringExecution"][0]["labelSelector"];
            assert_eq!(selector["matchLabels"], json!({"app": "frappe", "bench": "prod"}));
            assert_eq!(selector["matchExpressions"][0]["values"][0], "gunicorn");
            return;
        }
        apply(&mut world, &next);
    }
    panic!("no Job is created");
}
