//! A bench that another operator made.

use super::*;
use crate::domain::labels;

/// As another operator made it: without the mark of an apply, and with a template of its own.
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

fn asked(spec: Value) -> Observed {
    let mut world = observed(spec);
    Arc::make_mut(&mut world.bench).annotations_mut().insert(labels::ADOPT.to_owned(), "true".to_owned());
    world
}

/// A bench that was taken over.
fn taken_over() -> Observed {
    take_over(asked(json!({})))
}

fn take_over(mut world: Observed) -> Observed {
    for _ in 0..6 {
        let next = plan(&world);
        assert!(!next.steps.iter().any(|it| matches!(it, Step::Delete(..))), "{:?}", next.steps);
        for step in &next.steps {
            match step {
                Step::TakeOver(it) => drop(world.live.insert((it.kind, it.key.name.clone()), as_found(it))),
                Step::Ensure(it) => panic!("{:?} {} is changed", it.kind, it.key.name),
                _ => {}
            }
        }
        let others = next.steps.into_iter().filter(|it| !matches!(it, Step::TakeOver(_))).collect();
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
fn a_bench_is_taken_over_unchanged() {
    let world = taken_over();
    assert_eq!(ready(&world).0, BenchPhase::Ready, "{:?}", ready(&world));
    let kinds: std::collections::BTreeSet<_> = world.live.keys().map(|(kind, _)| format!("{kind:?}")).collect();
    for kind in ["Deployment", "StatefulSet", "Service", "PersistentVolumeClaim"] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
    assert!(!plan(&world).steps.iter().any(|it| matches!(it, Step::Ensure(_) | Step::TakeOver(_))));
}

/// unasked, nothing is taken over.
#[test]
fn a_bench_is_not_taken_over_without_a_request() {
    let steps = plan(&observed(json!({}))).steps;
    let looked_at = |it: &&Step| matches!(it, Step::TakeOver(_));
    let names: Vec<_> = steps.iter().filter(looked_at).collect();
    assert!(matches!(&names[..], [Step::TakeOver(it)] if it.kind == Kind::PersistentVolumeClaim), "{names:?}");
}

/// the first change of its spec brings it to what it should be, but for what can be set only once.
#[test]
fn the_first_change_brings_it_to_its_spec() {
    let mut world = taken_over();
    edit(&mut world, |_| {});
    assert_eq!(ensured(&world, Kind::Deployment).len(), 7);
    assert_eq!(ensured(&world, Kind::StatefulSet), [""; 0]);
    assert_eq!(ensured(&world, Kind::PersistentVolumeClaim), [""; 0]);
    assert_eq!(ensured(&world, Kind::Service), [""; 0], "they lead to the pods that run until others do");
    let next = plan(&world);
    apply(&mut world, &next);
    let services = ensured(&world, Kind::Service);
    assert_eq!(services, ["prod-gunicorn", "prod-nginx", "prod-socketio"], "what leads to Redis stays");
}

/// what is kept as it was found holds no deletion up.
#[test]
fn a_bench_that_was_taken_over_can_be_deleted() {
    let mut world = taken_over();
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now);
    Arc::make_mut(&mut world.bench).metadata.deletion_timestamp = Some(now);
    assert!(matches!(&plan(&world).steps[..], [Step::Patch(..)]), "{:?}", plan(&world).steps);
}

/// of another image each component has its turn; until then no part of its template is changed.
#[test]
fn another_image_goes_stage_by_stage() {
    let mut world = taken_over();
    edit(&mut world, |it| it.spec.frappe_version = "16".to_owned());
    // The configure Job of the other image comes first.
    for _ in 0..3 {
        let next = plan(&world);
        if !ensured(&world, Kind::Deployment).is_empty() {
            break;
        }
        apply(&mut world, &next);
    }
    assert_eq!(ensured(&world, Kind::Deployment), ["prod-nginx"]);
}

/// the number of workers that KEDA set is kept when the Deployment is brought to its spec.
#[test]
fn workers_that_keda_scales_keep_their_number() {
    let mut world = asked(json!({"workerAutoscaling": {"short": {"minReplicas": 0, "maxReplicas": 10}}}));
    world.capabilities = Capabilities { keda: true, ..Capabilities::default() };
    let mut world = take_over(world);
    assert!(plan(&world).steps.is_empty(), "at rest nothing is written: {:?}", plan(&world).steps);
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

/// a volume that only one node can mount is found by the pods that have it, whatever operator made them.
#[test]
fn jobs_go_where_the_volume_is() {
    let mut world = asked(json!({}));
    let first = plan(&world);
    assert!(!first.steps.iter().any(|it| matches!(it, Step::Create(_))), "the volume is not known yet");
    for step in &first.steps {
        if let Step::TakeOver(it) = step {
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
    panic!("no Job is made");
}
