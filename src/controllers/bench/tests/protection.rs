//! Redis with a generated password and a NetworkPolicy: of a new bench, and of one that enables them later.

use super::*;
use crate::{controllers::bench::build::SERVERS, domain::labels};

/// A bench that was never reconciled.
fn new(spec: Value) -> Observed {
    let mut world = observed(spec);
    Arc::make_mut(&mut world.bench).status = None;
    world.capabilities.keda = true;
    world
}

/// A running bench of a version without protection.
fn old(spec: Value) -> Observed {
    let mut world = observed(spec);
    world.capabilities.keda = true;
    converge(&mut world);
    let bench = Arc::make_mut(&mut world.bench);
    bench.status.as_mut().expect("a status").redis_protected = None;
    world
}

fn ask(world: &mut Observed) {
    let bench = Arc::make_mut(&mut world.bench);
    bench.spec.redis_config.get_or_insert_default().protected = Some(true);
    bench.metadata.generation = Some(2);
}

fn said(world: &Observed) -> (String, String) {
    let status = world.bench.status.clone().expect("a status");
    let found = condition::find(&status.conditions, "RedisProtected").expect("RedisProtected").clone();
    (found.status, found.reason)
}

/// The objects that a plan changes.
fn changed(world: &Observed, next: &Plan) -> Vec<String> {
    let differs = |desired: &Desired| {
        world.live.get(&(desired.kind, desired.key.name.clone())).is_none_or(|it| {
            first_difference(&desired.stamped(), &serde_json::to_value(it.as_ref()).expect("JSON")).is_some()
        })
    };
    let name = |desired: &Desired| format!("{:?} {}", desired.kind, desired.key.name);
    let steps = next.steps.iter().filter_map(|step| match step {
        Step::Ensure(desired) => differs(desired).then(|| name(desired)),
        Step::Create(desired) => Some(name(desired)),
        Step::Delete(kind, object) => Some(format!("-{kind:?} {}", object.name_any())),
        _ => None,
    });
    steps.collect()
}

#[test]
fn a_new_bench_is_protected_before_anything_is_created() {
    let mut world = new(json!({"workerAutoscaling": {"default": {}}}));
    let first = plan(&world);
    assert!(matches!(first.steps.as_slice(), [Step::Patch(..)]), "{:?}", first.steps);
    assert_eq!(first.status.as_ref().and_then(|it| it.redis_protected), Some(true));
    apply(&mut world, &first);
    let second = plan(&world);
    assert_eq!(changed(&world, &second), ["Secret prod-redis-password"]);
    let Some(Step::Create(secret)) = second.steps.first() else { panic!("the Secret") };
    assert_eq!(secret.body["stringData"], json!({"username": "default", "password": "generated"}));
    let made = converge(&mut world);
    for desired in made.iter().filter(|it| it.kind != Kind::Secret) {
        assert_eq!(lint(desired), Vec::<String>::new());
        assert!(!desired.body.to_string().contains("generated"), "the password is in {:?}", desired.key);
    }
    for (kind, name) in [
        (Kind::StatefulSet, "prod-redis-queue"),
        (Kind::NetworkPolicy, "prod-redis"),
        (Kind::TriggerAuthentication, "prod-redis-queue"),
        (Kind::Job, "prod-configure"),
    ] {
        insta::assert_yaml_snapshot!(format!("{kind:?}-{name}"), find(&made, kind, name));
    }
    assert_eq!(said(&world), ("True".to_owned(), "RedisProtected".to_owned()));
}

/// Redis of another operator has no password, and is adopted unchanged.
#[test]
fn an_adopted_bench_stays_unprotected() {
    let mut world = new(json!({}));
    Arc::make_mut(&mut world.bench).annotations_mut().insert(labels::ADOPT.to_owned(), "true".to_owned());
    let first = plan(&world);
    assert_eq!(first.status.as_ref().and_then(|it| it.redis_protected), Some(false));
    assert!(!changed(&world, &first).contains(&"Secret prod-redis-password".to_owned()));
}

/// An upgrade of the operator restarts nothing: existing objects are not changed, and the bench reports it.
#[test]
fn an_unprotected_bench_is_reported_and_not_changed() {
    let mut world = old(json!({"workerAutoscaling": {"default": {}}}));
    let next = plan(&world);
    assert_eq!(changed(&world, &next), Vec::<String>::new());
    apply(&mut world, &next);
    assert_eq!(world.bench.status.as_ref().and_then(|it| it.redis_protected), Some(false));
    assert_eq!(said(&world), ("False".to_owned(), "RedisOpen".to_owned()));
    assert_eq!(changed(&world, &plan(&world)), Vec::<String>::new());
}

/// Redis requires the password only when every component has it.
#[test]
fn a_bench_gets_the_password_stage_by_stage_and_its_servers_last() {
    let mut world = old(json!({}));
    ask(&mut world);
    let mut order = Vec::new();
    for _ in 0..30 {
        let next = plan(&world);
        let now = changed(&world, &next);
        apply(&mut world, &next);
        let rolled: Vec<String> =
            now.iter().filter_map(|it| it.strip_prefix("Deployment ")).map(str::to_owned).collect();
        for name in &rolled {
            roll(&mut world, name, 0);
            let waits = changed(&world, &plan(&world));
            assert!(waits.iter().all(|it| !it.starts_with("StatefulSet")), "{name} is not ready, but {waits:?}");
        }
        for name in &rolled {
            roll(&mut world, name, 1);
        }
        order.extend(now);
    }
    let place = |name: &str| order.iter().position(|it| it == name).unwrap_or_else(|| panic!("{name} in {order:?}"));
    let stages = [
        "Secret prod-redis-password",
        "Job prod-configure",
        "Deployment prod-nginx",
        "Deployment prod-gunicorn",
        "Deployment prod-socketio",
        "Deployment prod-worker-long",
        "Deployment prod-scheduler",
        "StatefulSet prod-redis-queue",
    ];
    assert!(stages.windows(2).all(|pair| place(pair[0]) < place(pair[1])), "{order:?}");
    for server in SERVERS {
        let name = format!("StatefulSet prod-{server}");
        assert_eq!(order.iter().filter(|it| **it == name).count(), 1, "{server} restarts once");
    }
    assert!(order.contains(&"NetworkPolicy prod-redis".to_owned()));
    assert_eq!(said(&world), ("True".to_owned(), "RedisProtected".to_owned()));
    let settled = plan(&world);
    Arc::make_mut(&mut world.bench).spec.redis_config = None;
    assert_eq!(changed(&world, &plan(&world)), Vec::<String>::new(), "the protection is not removed again");
    assert!(settled.notices.is_empty());
}

/// Sets the number of ready pods of a Deployment.
fn roll(world: &mut Observed, name: &str, ready: i64) {
    let live = world.live.get_mut(&(Kind::Deployment, name.to_owned())).expect("a Deployment");
    Arc::make_mut(live).data["status"]["availableReplicas"] = json!(ready);
}

#[test]
fn a_foreign_secret_of_that_name_is_rejected() {
    let mut world = new(json!({}));
    let first = plan(&world);
    apply(&mut world, &first);
    let foreign = |owner: &str, identity: &str| {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "prod-redis-password", "namespace": "default", "uid": "s", "resourceVersion": "1",
                "labels": {labels::WATCHED: "true"}, "annotations": {labels::IDENTITY: identity},
                "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner, "controller": true}]},
        });
        serde_json::from_value::<DynamicObject>(secret).expect("a Secret")
    };
    for (owner, identity) in [("other", "bench-uid"), ("bench-uid", "other")] {
        world.redis_secret = Some(Arc::new(foreign(owner, identity)));
        let next = plan(&world);
        assert!(next.steps.is_empty());
        assert_eq!(ready(&world).1, "RedisSecretForeign");
    }
}
