//! KEDA's objects and the owner of the number of workers; the other optional objects.

use super::*;

/// All optional objects.
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

/// A HorizontalPodAutoscaler of the user's is not fought over the number of web servers, which stays as it is when it takes over.
#[test]
fn the_number_of_web_servers_is_left_to_an_autoscaler_and_taken_back() {
    let mut world = observed(json!({"componentReplicas": {"gunicorn": 3}}));
    let key = (Kind::Deployment, "prod-gunicorn".to_owned());
    let set = |world: &mut Observed, spec: Value| {
        world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..bench(spec) });
    };
    converge(&mut world);
    set(&mut world, json!({"webAutoscaling": {"gunicorn": {"replicasFrom": "Autoscaler"}}}));
    let steps = plan(&world).steps;
    let handed = steps.iter().position(|it| matches!(it, Step::HandOver(live) if live.name_any() == key.1));
    let ensured = |it: &Step| matches!(it, Step::Ensure(desired) if desired.key.name == key.1 && desired.kind == key.0);
    assert!(handed.expect("handed over") < steps.iter().position(ensured).expect("ensured"));
    let Some(Step::Ensure(desired)) = steps.iter().find(|it| ensured(it)) else { panic!("ensured") };
    assert_eq!(desired.body["spec"].get("replicas"), None);
    converge(&mut world);
    assert!(!plan(&world).steps.iter().any(|it| matches!(it, Step::HandOver(_))), "once");
    set(&mut world, json!({}));
    converge(&mut world);
    assert_eq!(world.live[&key].data["spec"]["replicas"], 1);
}

/// Without KEDA, the number of workers is fixed and a condition reports why; once installed, KEDA takes over the current number; when
/// it is uninstalled or disabled, the bench sets the number again.
#[test]
fn the_number_of_workers_is_handed_over_to_keda_and_back() {
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
    assert!(
        handed.expect("handed over") < let_go.expect("ensured"),
        "the replicas are handed over before the field is removed"
    );
    converge(&mut world);
    assert!(!plan(&world).steps.iter().any(|it| matches!(it, Step::HandOver(_))), "once");

    let made_by_keda = world.live[&(Kind::ScaledObject, "prod-worker-default".to_owned())].clone();
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..bench(json!({})) });
    world.retired = vec![(Kind::ScaledObject, made_by_keda.clone())];
    let steps = plan(&world).steps;
    let gone = steps.iter().position(|it| *it == Step::Delete(Kind::ScaledObject, Arc::clone(&made_by_keda)));
    let taken = steps.iter().position(ensured).expect("ensured");
    assert!(gone.expect("deleted") < taken, "KEDA's object is deleted before the number is set");
    converge(&mut world);
    assert_eq!(world.live[&key].data["spec"]["replicas"], 1);
    assert_eq!(said(&world), None);
}

/// A bench stays Ready while KEDA starts a worker, but not while there is a worker of an old revision.
#[test]
fn scaling_does_not_make_a_bench_unready() {
    let mut world = observed(json!({"workerAutoscaling": {"default": {}}}));
    world.capabilities.keda = true;
    converge(&mut world);
    let key = (Kind::Deployment, "prod-worker-default".to_owned());
    let with = |replicas: i64, status: Value| {
        let mut deployment = DynamicObject::clone(&world.live[&key]);
        deployment.data["spec"]["replicas"] = json!(replicas);
        deployment.metadata.generation = Some(2);
        for (field, value) in status.as_object().into_iter().flatten() {
            deployment.data["status"][field] = value.clone();
        }
        Arc::new(deployment)
    };
    let one = json!({"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1});
    let starting = json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 1});
    let unseen = with(3, one.clone());
    let down = with(0, one);
    let starting = with(3, starting);
    let rolling = with(3, json!({"replicas": 3, "updatedReplicas": 1, "availableReplicas": 3}));
    for scaled in [unseen, down, starting] {
        world.live.insert(key.clone(), scaled);
        let next = plan(&world);
        assert_eq!(ready(&world).0, BenchPhase::Ready);
        assert!(next.notices.is_empty(), "{:?}", next.notices);
        let pods = next.status.expect("a status").components["worker-default"].ready;
        assert_eq!(pods, 1, "running pods are counted");
    }
    world.live.insert(key, rolling);
    assert_eq!(ready(&world).0, BenchPhase::Progressing);
}

/// A change of a workload is not complete before the workload's controller has observed it.
#[test]
fn a_changed_template_makes_a_bench_unready_until_it_is_observed() {
    let mut world = observed(json!({"workerAutoscaling": {"default": {}}}));
    world.capabilities.keda = true;
    converge(&mut world);
    let edited = bench(json!({"workerAutoscaling": {"default": {}},
                              "componentResources": {"worker-default": {"limits": {"memory": "3Gi"}}}}));
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..edited });
    let written = plan(&world);
    assert_eq!(ready(&world).1, "Starting");
    apply(&mut world, &written);
    let key = (Kind::Deployment, "prod-worker-default".to_owned());
    Arc::make_mut(world.live.get_mut(&key).expect("a condition")).metadata.generation = Some(2);
    assert_eq!(ready(&world).1, "Starting");
    Arc::make_mut(world.live.get_mut(&key).expect("a condition")).data["status"]["observedGeneration"] = json!(2);
    assert_eq!(ready(&world).1, "Ready");
}

fn told(world: &Observed) -> (String, String, Option<u64>) {
    let next = plan(world);
    let conditions = next.status.expect("a status").conditions;
    let scaled = condition::find(&conditions, "WorkersAutoscaled").expect("a condition");
    (scaled.status.clone(), scaled.reason.clone(), next.again_after.map(|it| it.as_secs()))
}

/// A bench with a ScaledObject of this age and status.
fn scaled(seconds_old: i64, status: Value) -> Observed {
    let mut world = observed(json!({"workerAutoscaling": {"default": {}}}));
    world.capabilities.keda = true;
    converge(&mut world);
    let live = world.live.get_mut(&(Kind::ScaledObject, "prod-worker-default".to_owned())).expect("a condition");
    let live = Arc::make_mut(live);
    let created = world.now - jiff::SignedDuration::from_secs(seconds_old);
    live.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(created));
    live.data["status"] = status;
    world
}

/// Conditions as KEDA 2.21 writes them: `Ready` stays True during most failures of the scaling.
#[test]
fn the_state_that_keda_reports_is_in_the_status() {
    let of = |kind: &str, status: &str| json!({"type": kind, "status": status, "message": "m", "reason": "r"});
    let with = |kind: &str, status: &str| json!({"conditions": [of("Ready", "True"), of(kind, status)]});
    let health = |status: &str| json!({"conditions": [of("Ready", "True")], "health": {"s0-redis": {"numberOfFailures": 1, "status": status}}});
    let table = [
        (json!({"conditions": [of("Ready", "True"), of("Active", "False")]}), "True", "Autoscaled"),
        (json!({"conditions": [of("Ready", "False")]}), "False", "ScalingFailed"),
        (json!({"conditions": [of("Ready", "Unknown")]}), "False", "ScalingFailed"),
        (with("HPAActive", "True"), "True", "Autoscaled"),
        (with("HPAActive", "False"), "False", "ScalingFailed"),
        (with("Fallback", "Unknown"), "True", "Autoscaled"),
        (with("Fallback", "True"), "False", "ScalingFallback"),
        (with("Paused", "False"), "True", "Autoscaled"),
        (with("Paused", "True"), "False", "ScalingPaused"),
        (health("Happy"), "True", "Autoscaled"),
        (health("Failing"), "False", "ScalingFailed"),
    ];
    for (status, works, reason) in table {
        let world = scaled(3600, status.clone());
        assert_eq!(told(&world), (works.to_owned(), reason.to_owned(), None), "{status}");
        assert_eq!(ready(&world).0, BenchPhase::Ready, "the bench stays Ready");
    }
}

/// There is no event if KEDA is installed but not running: the bench is reconciled again after a time.
#[test]
fn an_unresponsive_keda_is_reported_after_a_minute() {
    let unknown =
        json!({"conditions": [{"type": "Ready", "status": "Unknown"}, {"type": "Paused", "status": "False"}]});
    for status in [json!(null), json!({"conditions": []}), unknown] {
        let starting = ("Unknown".to_owned(), "ScalingStarting".to_owned(), Some(45));
        assert_eq!(told(&scaled(15, status.clone())), starting);
        assert_eq!(told(&scaled(60, status)), ("False".to_owned(), "KedaNotResponding".to_owned(), None));
    }
    let mut world = scaled(3600, json!({"conditions": [{"type": "Ready", "status": "True"}]}));
    assert_eq!(told(&world).1, "Autoscaled");
    let deleted = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now);
    let live = world.live.get_mut(&(Kind::ScaledObject, "prod-worker-default".to_owned())).expect("a condition");
    Arc::make_mut(live).metadata.deletion_timestamp = Some(deleted);
    assert_eq!(told(&world), ("Unknown".to_owned(), "ScalingStarting".to_owned(), Some(60)));
    world.now += jiff::SignedDuration::from_secs(61);
    assert_eq!(told(&world).1, "KedaNotResponding", "its finalizer is never removed");
}
