//! Redis of a bench on a real API server: protected from the start, and on a bench that was created by a version without
//! protection.

use frappe_crds::{FrappeBench, bench::BenchPhase};
use frappe_loadtest::{
    audit,
    process::{Operator, Options},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::support::{World, ground, program};

/// The objects of a namespace that were written since then, in the order of their first write.
fn changed(world: &World, namespace: &str, since: Timestamp) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let requests = audit::requests(&world.cluster.logs, since).unwrap();
    for request in requests.iter().filter(|it| it.is_work_write() && it.namespace == namespace) {
        let name = format!("{} {}", request.resource, request.name);
        if !order.contains(&name) {
            order.push(name);
        }
    }
    order
}

async fn wait_for_reason(world: &World, namespace: &str, reason: &str) {
    let benches: Api<FrappeBench> = Api::namespaced(world.client.clone(), namespace);
    let said = || async {
        let status = benches.get("bench").await.ok()?.status?;
        let found = status.conditions.iter().find(|it| it.type_ == "RedisProtected")?;
        (found.reason == reason && status.phase == BenchPhase::Ready).then_some(())
    };
    world.until(&format!("the bench is Ready and has reason {reason}"), 120, said).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_of_new_and_earlier_benches_is_protected() {
    let mut world = World::start("redis").await;
    a_new_benchs_redis_password_is_only_in_its_secret(&world).await;
    a_bench_of_an_earlier_version_gets_its_redis_password_in_stages(&mut world).await;
}

/// The Secret with the password is a new bench's first object, and no other object contains the password.
async fn a_new_benchs_redis_password_is_only_in_its_secret(world: &World) {
    world.with_bench("guarded").await;
    wait_for_reason(world, "guarded", "RedisProtected").await;
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), "guarded");
    let data = secrets.get("bench-redis-password").await.unwrap().data.unwrap();
    let password = String::from_utf8(data["password"].0.clone()).unwrap();
    assert!(password.len() >= 32);
    let kinds = "jobs,pods,events,configmaps,deployments,statefulsets,frappebenches,networkpolicies";
    let everything = world.kubectl(&["get", kinds, "-A", "-o", "yaml"]);
    assert!(!everything.contains(&password) && !world.operator.log_tail().contains(&password));
    let policy =
        world.kubectl(&["get", "networkpolicy", "bench-redis", "-n", "guarded", "-o", "jsonpath={.spec.ingress}"]);
    println!("what may reach Redis: {policy}");
    secrets.delete("bench-redis-password", &kube::api::DeleteParams::default()).await.unwrap();
    let another = || async {
        let data = secrets.get_opt("bench-redis-password").await.ok()??.data?;
        (data["password"].0 != password.as_bytes()).then_some(())
    };
    world.until("a lost password is regenerated", 30, another).await;
    wait_for_reason(world, "guarded", "RedisProtected").await;
}

/// A bench of an earlier version is not changed. If it enables protection, its components change stage by stage, and its Redis
/// servers last.
async fn a_bench_of_an_earlier_version_gets_its_redis_password_in_stages(world: &mut World) {
    world.operator.stop().await.unwrap();
    world.cluster.apply(&ground("open")).unwrap();
    let before = r#"{"status": {"redisProtected": false}}"#;
    world.kubectl(&[
        "patch",
        "frappebench",
        "bench",
        "-n",
        "open",
        "--subresource=status",
        "--type=merge",
        "-p",
        before,
    ]);
    world.operator = Operator::start(program(), &world.cluster, &Options::default()).unwrap();
    world.operator.ready().await.unwrap();
    wait_for_reason(world, "open", "RedisOpen").await;
    assert_eq!(world.kubectl(&["get", "networkpolicies", "-n", "open", "-o", "name"]), "");

    let benches: Api<FrappeBench> = Api::namespaced(world.client.clone(), "open");
    let ask = Patch::Merge(json!({"spec": {"redisConfig": {"protected": true}}}));
    let begun = Timestamp::now();
    benches.patch("bench", &PatchParams::default(), &ask).await.unwrap();
    wait_for_reason(world, "open", "RedisProtected").await;
    let order = changed(world, "open", begun);
    println!("{order:#?}");
    let place = |name: &str| order.iter().position(|it| it == name).unwrap_or_else(|| panic!("{name} in {order:?}"));
    let stages =
        ["nginx", "gunicorn", "socketio", "worker-long", "scheduler"].map(|it| format!("deployments bench-{it}"));
    assert!(stages.windows(2).all(|pair| place(&pair[0]) < place(&pair[1])), "{order:?}");
    for server in ["redis-cache", "redis-queue"] {
        assert!(place("deployments bench-scheduler") < place(&format!("statefulsets bench-{server}")), "{order:?}");
    }
    place("networkpolicies bench-redis");
}
