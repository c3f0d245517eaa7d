//! Fields of a bench's spec that apply to existing sites: each leaf is changed, and the effect on a site is checked. Defaults of
//! new sites: `src/controllers/site/tests/leaves.rs`.

use frappe_crds::FrappeBench;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::site_fields::{object, settled, shown, spec, world};

/// Namespace of the site in another namespace than the bench.
const TENANT: &str = "tenant";

/// A leaf, and the specs that it is changed from and to, each merged into the bench's spec.
type Row = (&'static str, Value, Value);

/// Leaves that apply to existing sites.
#[rustfmt::skip]
fn of_existing() -> Vec<Row> {
    let detected = json!({"domainConfig": {"ingressControllerRef": {"name": "controller", "namespace": "fields"}}});
    let with = |more: Value| {
        let mut whole = detected.clone();
        json_patch::merge(&mut whole, &json!({"domainConfig": more}));
        whole
    };
    // Hosts of sites in other namespaces use it too.
    let tenants = |namespaces: Value| {
        json!({"domainConfig": {"allowedSuffixes": ["example.com"]}, "allowedSites": {"namespaces": namespaces}})
    };
    vec![
        ("domainConfig.suffix", json!({}), json!({"domainConfig": {"suffix": ".example.org"}})),
        ("domainConfig.autoDetect", detected.clone(), with(json!({"autoDetect": false}))),
        ("domainConfig.ingressControllerRef.name", detected.clone(), with(json!({"ingressControllerRef": {"name": "another"}}))),
        ("domainConfig.ingressControllerRef.namespace", detected.clone(), with(json!({"ingressControllerRef": {"namespace": TENANT}}))),
        ("domainConfig.allowedSuffixes", json!({}), json!({"domainConfig": {"allowedSuffixes": ["example.org"]}})),
        ("allowedSites.namespaces.from", tenants(json!({})), tenants(json!({"from": "All"}))),
        ("allowedSites.namespaces.selector",
            tenants(json!({"from": "Selector", "selector": {"matchLabels": {"tier": "silver"}}})),
            tenants(json!({"from": "Selector", "selector": {"matchLabels": {"tier": "gold"}}}))),
    ]
}

struct Bench {
    benches: Api<FrappeBench>,
    base: Value,
}

impl Bench {
    async fn set(&self, more: &Value) {
        let mut whole = self.base.clone();
        json_patch::merge(&mut whole, more);
        let patch = json!([{"op": "replace", "path": "/spec", "value": whole}]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
        self.benches.patch("bench", &PatchParams::default(), &patch).await.unwrap();
    }
}

fn service(name: &str, namespace: &str, host: &str) -> String {
    let annotations = json!({"external-dns.alpha.kubernetes.io/hostname": host});
    let metadata = json!({"name": name, "namespace": namespace, "annotations": annotations});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}).to_string()
}

/// fields of a bench that concern sites have an effect on them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_leaf_of_a_bench_that_concerns_sites_has_an_effect_on_them() {
    let world = world("defaults").await;
    let tenant = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {TENANT}, labels: {{tier: gold}}}}\n");
    world.cluster.apply(&tenant).unwrap();
    for (name, namespace, host) in [
        ("controller", "fields", "*.apps.com"),
        ("another", "fields", "apps.net"),
        ("controller", TENANT, "apps.org,b.org"),
    ] {
        world.cluster.apply(&service(name, namespace, host)).unwrap();
    }
    let benches: Api<FrappeBench> = Api::namespaced(world.client.clone(), "fields");
    let base = serde_json::to_value(benches.get("bench").await.unwrap().spec).unwrap();
    let bench = Bench { benches, base };
    let mut wrong = Vec::new();
    bench.set(&json!({"dbConfig": {"mariadbRef": {"name": "shared", "namespace": "fields"}}})).await;
    let dotless = json!({"siteName": "dotless"});
    world.cluster.apply(&object("dotless", &spec("dotless", &dotless))).unwrap();
    let foreign = object("foreign", &spec("foreign", &json!({"benchRef": {"namespace": "fields"}})));
    let mut foreign: Value = serde_json::from_str(&foreign).unwrap();
    foreign["metadata"]["namespace"] = json!(TENANT);
    world.cluster.apply(&foreign.to_string()).unwrap();
    let database = json!({"dbConfig": {"mariadbRef": {"name": "shared", "namespace": "fields"}}});
    for (leaf, from, to) in of_existing() {
        let (namespace, name) = if leaf.starts_with("allowed") { (TENANT, "foreign") } else { ("fields", "dotless") };
        let mut pictures = Vec::new();
        for more in [&from, &to, &from] {
            let mut whole = database.clone();
            json_patch::merge(&mut whole, more);
            bench.set(&whole).await;
            // The bench is reconciled first, then the site.
            tokio::time::sleep(std::time::Duration::from_millis(700)).await;
            pictures.push(settled(&world, &world.sites(namespace), name, leaf).await);
        }
        let changed = pictures[1].against(&pictures[0]);
        println!("{leaf}: {}", shown(&changed));
        if changed.is_empty() {
            wrong.push(format!("{leaf} has no effect on a site"));
        }
        // A site keeps what it was granted after the permission is withdrawn.
        let mut left = pictures[2].against(&pictures[0]);
        // The first Job, which creates the site, also mounts the Administrator's password, and names its Secret.
        let of_first = ["newest Job: volumes", "newest Job: request.secrets.admin-password"];
        left.retain(|it| !of_first.iter().any(|part| it.starts_with(part)));
        if !left.is_empty() && !leaf.starts_with("allowedSites") {
            wrong.push(format!("{leaf}: its revert left {left:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
