//! Redis with a password, and an external Redis.

use super::*;
use crate::domain::labels;

fn secret(name: &str, version: &str, watched: bool) -> Arc<DynamicObject> {
    let labels = if watched { json!({labels::WATCHED: "true"}) } else { json!({}) };
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": "default", "uid": "s", "resourceVersion": version, "labels": labels},
    });
    Arc::new(serde_json::from_value(secret).expect("a Secret"))
}

fn give(world: &mut Observed, secret: Arc<DynamicObject>) {
    world.redis_secret_version = secret.metadata.resource_version.clone();
    world.redis_secret = Some(secret);
}

#[test]
fn a_missing_secret_is_reported_and_changes_nothing() {
    let mut world = observed(json!({}));
    converge(&mut world);
    let spec = json!({"redisConfig": {"passwordSecretRef": {"name": "redis"}}});
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..bench(spec) });
    let next = plan(&world);
    assert!(next.steps.is_empty() && next.missing);
    let (_, reason, message) = ready(&world);
    assert_eq!(reason, "RedisSecretMissing");
    assert_eq!(message, "Secret redis does not exist: create it with the key password");
    give(&mut world, secret("redis", "1", false));
    assert_eq!(
        plan(&world).steps,
        [Step::WatchSecret(secret("redis", "1", false))],
        "first the Secret must be watched"
    );
}

/// A password is in no argument and no variable; another version of the Secret restarts pods with a connection.
#[test]
fn the_benchs_redis_requires_its_password() {
    let mut world = observed(json!({
        "redisConfig": {"passwordSecretRef": {"name": "redis"}}, "workerAutoscaling": {"default": {}},
    }));
    world.capabilities.keda = true;
    give(&mut world, secret("redis", "1", true));
    let made = converge(&mut world);
    for desired in &made {
        assert_eq!(lint(desired), Vec::<String>::new());
    }
    for (kind, name) in [
        (Kind::StatefulSet, "prod-redis-queue"),
        (Kind::TriggerAuthentication, "prod-redis-queue"),
        (Kind::ScaledObject, "prod-worker-default"),
    ] {
        insta::assert_yaml_snapshot!(format!("{kind:?}-{name}"), find(&made, kind, name));
    }
    let request =
        find(&made, Kind::Job, "prod-configure")["spec"]["template"]["spec"]["containers"][0]["args"][1].clone();
    let request: Value = serde_json::from_str(request.as_str().expect("text")).expect("JSON");
    assert_eq!(request["password_urls"], json!(["redis_cache", "redis_queue", "redis_socketio"]));
    let version = |made: &[Desired], kind: Kind, name: &str| {
        find(made, kind, name)["spec"]["template"]["metadata"]["annotations"][labels::REDIS_SECRET].clone()
    };
    give(&mut world, secret("redis", "2", true));
    let next = converge(&mut world);
    for (kind, name) in [
        (Kind::StatefulSet, "prod-redis-cache"),
        (Kind::StatefulSet, "prod-redis-queue"),
        (Kind::Deployment, "prod-gunicorn"),
        (Kind::Deployment, "prod-worker-long"),
        (Kind::Deployment, "prod-socketio"),
    ] {
        assert_eq!((version(&made, kind, name), version(&next, kind, name)), (json!("1"), json!("2")), "{name}");
    }
    assert!(next.iter().any(|it| it.kind == Kind::Job), "the URLs are written again");
}

/// A server whose Secret lacks the key would not start again: the Job reads it first.
#[test]
fn a_changed_secret_reaches_redis_after_the_configure_job() {
    let mut world = observed(json!({"redisConfig": {"passwordSecretRef": {"name": "redis"}}}));
    give(&mut world, secret("redis", "1", true));
    converge(&mut world);
    give(&mut world, secret("redis", "2", true));
    let job = (Kind::Job, "prod-configure".to_owned());
    let version = |world: &Observed, name: &str| {
        let live = &world.live[&(Kind::StatefulSet, name.to_owned())];
        live.data["spec"]["template"]["metadata"]["annotations"][labels::REDIS_SECRET].clone()
    };
    let failed =
        json!({"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"}]});
    for _ in 0..4 {
        let next = plan(&world);
        apply(&mut world, &next);
        if let Some(job) = world.live.get_mut(&job) {
            Arc::make_mut(job).data["status"] = failed.clone();
        }
    }
    assert_eq!(ready(&world).1, "ConfigureFailed");
    for name in ["prod-redis-cache", "prod-redis-queue"] {
        assert_eq!(version(&world, name), json!("1"), "{name} runs on");
    }
    give(&mut world, secret("redis", "3", true));
    converge(&mut world);
    for name in ["prod-redis-cache", "prod-redis-queue"] {
        assert_eq!(version(&world, name), json!("3"), "{name}");
    }
    assert_eq!(ready(&world).1, "Ready");
}

/// The bench's Redis is deleted only when every pod has other URLs.
#[test]
fn a_server_is_deleted_when_no_component_uses_it() {
    let mut world = observed(json!({}));
    converge(&mut world);
    let server = world.live[&(Kind::StatefulSet, "prod-redis-queue".to_owned())].clone();
    let spec = json!({"redisConfig": {"connectionSecretRef": {"name": "urls"}}});
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..bench(spec) });
    give(&mut world, secret("urls", "1", true));
    world.retired = vec![(Kind::StatefulSet, server.clone())];
    let goes = |world: &Observed| plan(world).steps.contains(&Step::Delete(Kind::StatefulSet, server.clone()));
    let mut turns = 0;
    while !goes(&world) {
        let next = plan(&world);
        apply(&mut world, &next);
        turns += 1;
        assert!(turns < 10, "Redis is never deleted");
    }
    assert!(turns >= 3, "the configure Job ran and the components changed first: {turns}");
    for name in ["gunicorn", "socketio", "worker-long", "scheduler"] {
        let live = &world.live[&(Kind::Deployment, format!("prod-{name}"))];
        assert_eq!(live.data["spec"]["template"]["metadata"]["annotations"][labels::REDIS_SECRET], "1", "{name}");
    }
}

#[test]
fn an_external_redis_is_used_and_none_is_created() {
    let mut world = observed(json!({
        "redisConfig": {"connectionSecretRef": {"name": "urls"}}, "workerAutoscaling": {"default": {}},
    }));
    world.capabilities.keda = true;
    give(&mut world, secret("urls", "1", true));
    let made = converge(&mut world);
    assert!(!made.iter().any(|it| it.kind == Kind::StatefulSet || it.key.name.contains("redis-cache")));
    let retired = build::render(&world.input()).retired(&world.input());
    for kind in [Kind::StatefulSet, Kind::Service] {
        for server in ["redis-cache", "redis-queue"] {
            assert!(retired.contains(&(kind, Key::new("default", format!("prod-{server}")))), "{kind:?} {server}");
        }
    }
    let request =
        find(&made, Kind::Job, "prod-configure")["spec"]["template"]["spec"]["containers"][0]["args"][1].clone();
    let request: Value = serde_json::from_str(request.as_str().expect("text")).expect("JSON");
    let urls = json!({"redis_cache": "redis-cache", "redis_queue": "redis-queue", "redis_socketio": "redis-queue"});
    assert_eq!(request["secret_urls"], urls);
    assert_eq!(request["common_site_config"].get("redis_cache"), None);
    let trigger = &find(&made, Kind::ScaledObject, "prod-worker-default")["spec"]["triggers"][0];
    assert_eq!(trigger["metadata"].get("address"), None, "the URL is in the Secret");
    let authentication = &find(&made, Kind::TriggerAuthentication, "prod-redis-queue")["spec"]["secretTargetRef"];
    assert_eq!(authentication[0], json!({"parameter": "address", "name": "urls", "key": "queue-address"}));
    assert_eq!(
        (&trigger["metadata"]["enableTLS"], &trigger["metadata"]["databaseIndex"]),
        (&json!("false"), &json!("0"))
    );
    let connection = json!({"tls": true, "databaseIndex": 2, "usernameKey": "user"});
    let spec = json!({"redisConfig": {"connectionSecretRef": {"name": "urls"}, "queueConnection": connection}, "workerAutoscaling": {"default": {}}});
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..bench(spec) });
    let made = converge(&mut world);
    for trigger in
        find(&made, Kind::ScaledObject, "prod-worker-default")["spec"]["triggers"].as_array().expect("triggers")
    {
        assert_eq!(
            (&trigger["metadata"]["enableTLS"], &trigger["metadata"]["databaseIndex"]),
            (&json!("true"), &json!("2"))
        );
    }
    let authentication = &find(&made, Kind::TriggerAuthentication, "prod-redis-queue")["spec"]["secretTargetRef"];
    assert_eq!(authentication[2], json!({"parameter": "username", "name": "urls", "key": "user"}));
}
