//! KEDA's objects, and whose the number of workers is; the other optional objects.

use super::*;

/// The whole fleet of optional objects, as they look.
#[test]
fn optional_objects_look_like_this() {
    let mut world = observed(json!({
        "workerAutoscaling": {"default": {"minReplicas": 0, "maxReplicas": 10, "targetQueueLength": 5},
                              "long": {"minReplicas": 1, "maxReplicas": 5, "queueLength": 2, "staticReplicas": 3,
                                       "cooldownPeriod": 600, "pollingInterval": 30},
                              "short": {"enabled": false, "staticReplicas": 2}},
        "networkPolicy": {"enabled": true, "egress": [{"ports": [{"protocol": "TCP", "port": 587}]}]},
        "monitoring": {"enabled": true},
    }));
    world.capabilities = Capabilities { keda: true, service_monitors: true, ..Capabilities::default() };
    let made = converge(&mut world);
    for desired in &made {
        assert_eq!(lint(desired), Vec::<String>::new());
    }
    for (kind, name) in [
        (Kind::ScaledObject, "prod-worker-default"),
        (Kind::ScaledObject, "prod-worker-long"),
        (Kind::NetworkPolicy, "prod-pods"),
        (Kind::ServiceMonitor, "prod-gunicorn"),
    ] {
        insta::assert_yaml_snapshot!(format!("{kind:?}-{name}"), find(&made, kind, name));
    }
    let scaled = made.iter().filter(|it| it.kind == Kind::ScaledObject && it.key.name == "prod-worker-short");
    assert_eq!(scaled.count(), 0, "short has a fixed number");
    let replicas = |name: &str| find(&made, Kind::Deployment, name)["spec"].get("replicas").cloned();
    assert_eq!(replicas("prod-worker-default"), None, "KEDA's");
    assert_eq!(replicas("prod-worker-short"), Some(json!(2)));
    let status = world.bench.status.clone().expect("a status");
    let modes = |queue: &str| (status.worker_scaling[queue].mode.clone(), status.worker_scaling[queue].keda_managed);
    assert_eq!(modes("default"), ("autoscaled".to_owned(), true));
    assert_eq!(modes("short"), ("static".to_owned(), false));
    let scaled = condition::find(&status.conditions, "WorkersAutoscaled").expect("a condition");
    assert_eq!((scaled.status.as_str(), scaled.reason.as_str()), ("True", "Autoscaled"));
}

/// Without KEDA workers run at a fixed number and a condition says why; once it is there it gets them as they are, and
/// when it goes, or is no longer wanted, the number is the bench's again.
#[test]
fn the_number_of_workers_is_handed_over_and_taken_back() {
    let spec = json!({"workerAutoscaling": {"default": {"staticReplicas": 4}}});
    let mut world = observed(spec.clone());
    let key = (Kind::Deployment, "prod-worker-default".to_owned());
    converge(&mut world);
    assert_eq!(world.live[&key].data["spec"]["replicas"], 4);
    let said = |world: &Observed| {
        let status = world.bench.status.clone().expect("a status");
        condition::find(&status.conditions, "WorkersAutoscaled").map(|it| it.reason.clone())
    };
    assert_eq!(said(&world).as_deref(), Some("KedaMissing"));

    world.capabilities.keda = true;
    let steps = plan(&world).steps;
    let handed = steps.iter().position(|it| matches!(it, Step::HandOver(live) if live.name_any() == key.1));
    let ensured =
        |it: &Step| matches!(it, Step::Ensure(desired) if (desired.kind, &desired.key.name) == (key.0, &key.1));
    let let_go = steps.iter().position(ensured);
    assert!(handed.expect("handed over") < let_go.expect("ensured"), "first handed over, then let go");
    converge(&mut world);
    assert!(!plan(&world).steps.iter().any(|it| matches!(it, Step::HandOver(_))), "once");

    let made_by_keda = world.live[&(Kind::ScaledObject, "prod-worker-default".to_owned())].clone();
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..bench(json!({})) });
    world.retired = vec![(Kind::ScaledObject, made_by_keda.clone())];
    let steps = plan(&world).steps;
    let gone = steps.iter().position(|it| *it == Step::Delete(Kind::ScaledObject, Arc::clone(&made_by_keda)));
    let taken = steps.iter().position(ensured).expect("ensured");
    assert!(gone.expect("deleted") < taken, "first KEDA's object goes, then the number is set");
    converge(&mut world);
    assert_eq!(world.live[&key].data["spec"]["replicas"], 1);
    assert_eq!(said(&world), None);
}

/// A worker that KEDA starts makes a bench no less ready; one of an old revision does.
#[test]
fn scaling_does_not_make_a_bench_unready() {
    let mut world = observed(json!({"workerAutoscaling": {"default": {}}}));
    world.capabilities.keda = true;
    converge(&mut world);
    let key = (Kind::Deployment, "prod-worker-default".to_owned());
    let with = |status: Value| {
        let mut deployment = DynamicObject::clone(&world.live[&key]);
        deployment.data["spec"]["replicas"] = json!(3);
        for (field, value) in status.as_object().into_iter().flatten() {
            deployment.data["status"][field] = value.clone();
        }
        Arc::new(deployment)
    };
    let starting = with(json!({"replicas": 3, "updatedReplicas": 3, "availableReplicas": 1}));
    let rolling = with(json!({"replicas": 3, "updatedReplicas": 1, "availableReplicas": 3}));
    world.live.insert(key.clone(), starting);
    assert_eq!(ready(&world).0, BenchPhase::Ready);
    world.live.insert(key, rolling);
    assert_eq!(ready(&world).0, BenchPhase::Progressing);
}
