//! Redis of a bench on a real API server: protected from the start, and on a bench that was made before that.

use std::{collections::BTreeMap, time::Duration};

use frappe_crds::{FrappeBench, bench::BenchPhase};
use frappe_loadtest::process::{Operator, Options};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::support::{World, ground, program};

const WORKLOADS: &str = "deployments,statefulsets,networkpolicies";

/// Generation of each workload and policy of a namespace.
fn generations(world: &World, namespace: &str) -> BTreeMap<String, i64> {
    let text = world.kubectl(&["get", WORKLOADS, "-n", namespace, "-o", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    let items = list["items"].as_array().unwrap().iter();
    let name =
        |item: &Value| format!("{} {}", item["kind"].as_str().unwrap(), item["metadata"]["name"].as_str().unwrap());
    items.map(|item| (name(item), item["metadata"]["generation"].as_i64().unwrap())).collect()
}

async fn says(world: &World, namespace: &str, reason: &str) {
    let benches: Api<FrappeBench> = Api::namespaced(world.client.clone(), namespace);
    let said = || async {
        let status = benches.get("bench").await.ok()?.status?;
        let found = status.conditions.iter().find(|it| it.type_ == "RedisProtected")?;
        (found.reason == reason && status.phase == BenchPhase::Ready).then_some(())
    };
    world.until(&format!("the bench is Ready and says {reason}"), 120, said).await;
}

/// A bench that is made now has its password before it has anything else, and the password is in no other object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bench_is_made_with_a_password_that_is_in_its_secret_only() {
    let world = World::start("redis").await;
    world.with_bench("guarded").await;
    says(&world, "guarded", "RedisProtected").await;
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
    world.until("a lost password is made anew", 30, another).await;
    says(&world, "guarded", "RedisProtected").await;
}

/// A bench of a version before goes on as it is. When it asks, its components change one stage after the other, and its
/// servers last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bench_that_was_made_before_takes_its_password_in_stages() {
    let mut world = World::start("redis-later").await;
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
    says(&world, "open", "RedisOpen").await;
    let first = generations(&world, "open");
    assert!(!first.keys().any(|it| it.starts_with("NetworkPolicy")));

    let benches: Api<FrappeBench> = Api::namespaced(world.client.clone(), "open");
    let ask = Patch::Merge(json!({"spec": {"redisConfig": {"protected": true}}}));
    benches.patch("bench", &PatchParams::default(), &ask).await.unwrap();
    let mut order: Vec<String> = Vec::new();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_mins(2) {
        for (name, generation) in generations(&world, "open") {
            if first.get(&name) != Some(&generation) && !order.contains(&name) {
                println!("{:5.1} s  {name} changes", begun.elapsed().as_secs_f64());
                order.push(name);
            }
        }
        let status = benches.get("bench").await.unwrap().status.unwrap_or_default();
        let done = status.conditions.iter().any(|it| it.reason == "RedisProtected");
        if done && status.phase == BenchPhase::Ready {
            break;
        }
    }
    says(&world, "open", "RedisProtected").await;
    println!("{order:#?}");
    let place = |name: &str| order.iter().position(|it| it == name).unwrap_or_else(|| panic!("{name} in {order:?}"));
    let stages =
        ["nginx", "gunicorn", "socketio", "worker-long", "scheduler"].map(|it| format!("Deployment bench-{it}"));
    assert!(stages.windows(2).all(|pair| place(&pair[0]) < place(&pair[1])), "{order:?}");
    for server in ["redis-cache", "redis-queue"] {
        assert!(place("Deployment bench-scheduler") < place(&format!("StatefulSet bench-{server}")), "{order:?}");
    }
    place("NetworkPolicy bench-redis");
}
