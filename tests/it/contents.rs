//! On a real API server, only a changed value of a Secret restarts pods and runs Jobs.

use frappe_crds::{FrappeBench, bench::BenchPhase, site::SitePhase};
use kube::Api;

use crate::support::{World, ground, site};

const NAMESPACE: &str = "contents";
const SECRET: &str =
    "apiVersion: v1\nkind: Secret\nmetadata: {name: shared, namespace: contents}\nstringData: {password: first}\n---\n";

/// Names and generations of the bench's workloads.
fn workloads(world: &World) -> String {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.metadata.generation}{'\\n'}{end}";
    world.kubectl(&["get", "deployments,statefulsets", "-n", NAMESPACE, "-o", path])
}

fn jobs(world: &World) -> Vec<String> {
    let names = world.kubectl(&["get", "jobs", "-n", NAMESPACE, "-o", "name"]);
    names.lines().map(str::to_owned).collect()
}

fn created(name: &str) -> String {
    format!("{}  adminPasswordSecretRef: {{name: shared}}\n", site(NAMESPACE, name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_changed_value_of_a_secret_restarts_anything() {
    let world = World::start("contents").await;
    let bench = format!("{}  redisConfig: {{passwordSecretRef: {{name: shared}}}}\n", ground(NAMESPACE));
    world.cluster.apply(&bench.replacen("---\n", &format!("---\n{SECRET}"), 1)).unwrap();
    world.cluster.apply(&created("shop")).unwrap();
    world.wait_for_site_phase(NAMESPACE, "shop", SitePhase::Ready).await;
    let ready = || async {
        let benches: Api<FrappeBench> = Api::namespaced(world.client.clone(), NAMESPACE);
        (benches.get("bench").await.ok()?.status?.phase == BenchPhase::Ready).then_some(())
    };
    world.until("the bench is Ready", 60, ready).await;
    let before = (workloads(&world), jobs(&world));
    world.kubectl(&["annotate", "secret", "shared", "-n", NAMESPACE, "example.com/synced=1"]);
    world.kubectl(&["label", "secret", "shop-db-password", "-n", NAMESPACE, "example.com/seen=1"]);
    // By the time at which a second site that reads the Secret is Ready, its watch has told of the annotation.
    world.cluster.apply(&created("news")).unwrap();
    world.wait_for_site_phase(NAMESPACE, "news", SitePhase::Ready).await;
    world.until("the bench is Ready", 60, ready).await;
    let of_others: Vec<String> = jobs(&world).into_iter().filter(|it| !it.contains("news-")).collect();
    assert_eq!((workloads(&world), of_others), before);
    world.cluster.apply(&SECRET.replace("first", "second")).unwrap();
    let rolled = || async {
        let set = |name: &str| jobs(&world).iter().any(|it| it.ends_with(name));
        (workloads(&world) != before.0 && set("/shop-apply") && set("/news-apply")).then_some(())
    };
    world.until("pods and sites get the changed password", 120, rolled).await;
}
