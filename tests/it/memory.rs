//! Large objects of any user do not exhaust the operator's memory, neither while it runs nor when it starts.
//!
//! HOSTILE_OBJECTS is the number of ConfigMaps, sites and Jobs each, HOSTILE_SITES another number of sites, OPERATOR_PROGRAM the
//! measured build. etcd is limited to ETCD_BYTES_MAX, by default 2 GiB.

use std::{path::PathBuf, sync::LazyLock};

use frappe_crds::FrappeSite;
use frappe_loadtest::process::{Operator, Options};
use futures::{StreamExt, stream};
use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};
use kube::{Api, Client, Resource, api::PostParams, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::support::{World, kubectl, program, until};

const SPACE: &str = "crowd";
/// Objects of each kind unless HOSTILE_OBJECTS is set.
const OBJECTS: usize = 60;
/// From this number on, only the API server, etcd and the operator hold copies of the objects.
const MANY: usize = 500;
/// Characters of each object: an API server accepts one and a half million.
const CHARACTERS: usize = 900_000;
/// How much the resident memory may grow, in kB.
const GROWTH_MAX_KB: u64 = 20 << 10;
/// The chart's limit, in kB.
const LIMIT_KB: u64 = 256 << 10;

/// Text that does not compress, another one for each seed: a part of one long text.
fn noise(seed: usize, characters: usize) -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
        let letter = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap_or(0)).to_ascii_lowercase()
        };
        (0_u64..).map(letter).filter(char::is_ascii_alphanumeric).take(2 * CHARACTERS).collect()
    });
    let from = seed * 997 % CHARACTERS;
    &TEXT[from..from + characters]
}

fn memory_kb(operator: &Operator, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The resident memory once it no longer changes, in kB.
async fn settled_kb(operator: &Operator) -> u64 {
    let mut last = 0;
    for _ in 0..60 {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let now = memory_kb(operator, "VmRSS");
        if now.abs_diff(last) < 256 {
            return now;
        }
        last = now;
    }
    last
}

async fn make<K>(client: &Client, count: usize, object: impl Fn(usize) -> Value)
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), SPACE);
    let create = |number: usize| {
        let (api, object): (Api<K>, K) = (api.clone(), serde_json::from_value(object(number)).unwrap());
        async move {
            // etcd is sometimes late while it stores gigabytes: a request without a response is retried.
            while let Err(error) = api.create(&PostParams::default(), &object).await {
                match error {
                    kube::Error::Api(status) if status.code == 409 => break,
                    kube::Error::Api(status) if status.code < 500 && status.code != 429 => panic!("{status:?}"),
                    _ => tokio::time::sleep(std::time::Duration::from_secs(1)).await,
                }
            }
        }
    };
    stream::iter(0..count).for_each_concurrent(4, create).await;
}

/// Objects as a tenant may write them: with the labels of this operator, of a bench that does not exist, and of one that does.
async fn crowd(client: &Client, count: usize, sites: usize) {
    let labels = |bench: &str| json!({"app.kubernetes.io/managed-by": "frappe-operator", "bench": bench});
    make::<ConfigMap>(client, count, |number| {
        let bench = if number % 2 == 0 { "bench" } else { "nobody" };
        json!({"metadata": {"name": format!("map-{number}"), "labels": labels(bench)},
               "data": {"text": noise(number, CHARACTERS)}})
    })
    .await;
    make::<FrappeSite>(client, sites, |number| {
        json!({"metadata": {"name": format!("site-{number}"), "annotations": {"text": noise(number, 200_000)}},
               "spec": {"siteName": format!("site-{number}.example.com"), "benchRef": {"name": "nobody"},
                        "siteConfig": {"nested": {"text": noise(7 + number, CHARACTERS)}}}})
    })
    .await;
    make::<Job>(client, count, |number| {
        let mut labels = labels("bench");
        for (name, value) in [("frappe.vyogo.tech/slot", "7"), ("frappe.vyogo.tech/site-uid", "u"), ("site", "shop")] {
            labels[name] = json!(value);
        }
        let container = json!({"name": "a", "image": "a", "args": [noise(number, CHARACTERS)]});
        json!({"metadata": {"name": format!("job-{number}"), "labels": labels,
                            "annotations": {"text": noise(number, 200_000)}},
               "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}})
    })
    .await;
}

/// A site whose configuration is nested deeper than a parser allows. No typed client can create or read it.
fn make_deep(world: &World) {
    let (open, close) = ("[".repeat(130), "]".repeat(130));
    let object = format!(
        r#"{{"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "metadata": {{"name": "deep"}},
             "spec": {{"siteName": "deep.example.com", "benchRef": {{"name": "nobody"}},
                       "siteConfig": {{"mute_emails": {open}{close}}}}}}}"#
    );
    kubectl(&world.cluster, &["create", "-n", SPACE, "-f", "-"], &object);
}

/// A namespace cannot exhaust the memory of the cluster's operator, nor prevent its start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_objects_do_not_exhaust_the_operators_memory() {
    let asked = |name: &str| std::env::var(name).ok().and_then(|it| it.parse().ok());
    let count = asked("HOSTILE_OBJECTS").unwrap_or(OBJECTS);
    let sites = asked("HOSTILE_SITES").unwrap_or(count);
    let mut world = World::start("memory").await;
    if let Ok(chosen) = std::env::var("OPERATOR_PROGRAM") {
        world.operator.stop().await.unwrap();
        world.operator = started(&world, PathBuf::from(chosen)).await;
    }
    world.with_bench(SPACE).await;
    let before = settled_kb(&world.operator).await;
    make_deep(&world);
    if count >= MANY {
        world.cluster.end_controllers().unwrap();
    }
    crowd(&world.client, count, sites).await;
    let during = memory_kb(&world.operator, "VmRSS");
    let after = settled_kb(&world.operator).await;
    let highest = memory_kb(&world.operator, "VmHWM");
    println!(
        "{count} ConfigMaps, {sites} sites, {count} Jobs: {before} kB before, {during} just after, {after} later, {highest} at most"
    );
    world.operator.stop().await.unwrap();
    let chosen = std::env::var("OPERATOR_PROGRAM").map_or_else(|_| program().to_owned(), PathBuf::from);
    world.operator = started(&world, chosen).await;
    let restarted = settled_kb(&world.operator).await;
    let highest_of_start = memory_kb(&world.operator, "VmHWM");
    println!("after a restart: {restarted} kB, {highest_of_start} at most");
    assert!(after < before + GROWTH_MAX_KB, "{before} kB became {after}");
    assert!(restarted < before + GROWTH_MAX_KB, "{before} kB became {restarted} with a restart");
    assert!(highest.max(highest_of_start) < LIMIT_KB, "{highest} kB, {highest_of_start} kB at the start");
    let told = until("a site reports that it is too large", 60, || async {
        let site = world.sites(SPACE).get("site-0").await.ok()?;
        let ready = site.status?.conditions.into_iter().find(|it| it.type_ == "Ready")?;
        (ready.reason == "SpecTooLarge").then_some(())
    });
    assert!(told.await.is_some());
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].reason}"#;
    let told = until("a site reports that it is nested too deeply", 60, || async {
        (world.kubectl(&["get", "frappesite", "deep", "-n", SPACE, "-o", path]) == "SpecTooLarge").then_some(())
    });
    assert!(told.await.is_some());
}

async fn started(world: &World, program: PathBuf) -> Operator {
    let mut operator = Operator::start(&program, &world.cluster, &Options::default()).unwrap();
    operator.ready().await.unwrap();
    operator
}
