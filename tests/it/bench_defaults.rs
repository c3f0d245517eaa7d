//! What of a bench's spec governs its sites: each leaf is changed, and a site shows it.

use std::collections::{BTreeMap, btree_map::Entry};

use frappe_crds::FrappeBench;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    site_fields::{Picture, object, settled, shown, spec, world},
    support::World,
};

/// Namespace of the site that is placed on the bench from outside.
const TENANT: &str = "tenant";

/// What a leaf is changed from and to, both over the bench's own spec.
type Row = (&'static str, Value, Value);

/// Leaves that are defaults for databases: they count for a site that is made.
#[rustfmt::skip]
fn of_databases() -> Vec<Row> {
    let database = |config: Value| json!({"dbConfig": config});
    let shared = database(json!({"mariadbRef": {"name": "shared", "namespace": "fields"}}));
    let own = database(json!({"mode": "dedicated", "storageSize": "5Gi"}));
    let external = database(json!({"provider": "external", "host": "a.example.com", "port": "3306", "connectionSecretRef": {"name": "first"}}));
    let with = |base: &Value, more: Value| {
        let mut whole = base.clone();
        json_patch::merge(&mut whole, &database(more));
        whole
    };
    vec![
        ("dbConfig.provider", external.clone(), with(&external, json!({"provider": "postgres"}))),
        ("dbConfig.mode", shared.clone(), own.clone()),
        ("dbConfig.mariadbRef.name", shared.clone(), with(&shared, json!({"mariadbRef": {"name": "second"}}))),
        ("dbConfig.mariadbRef.namespace", shared.clone(), with(&shared, json!({"mariadbRef": {"namespace": TENANT}}))),
        ("dbConfig.host", external.clone(), with(&external, json!({"host": "b.example.com"}))),
        ("dbConfig.port", external.clone(), with(&external, json!({"port": "3307"}))),
        ("dbConfig.connectionSecretRef.name", external.clone(), with(&external, json!({"connectionSecretRef": {"name": "second"}}))),
        ("dbConfig.connectionSecretRef.namespace", external.clone(), with(&external, json!({"connectionSecretRef": {"namespace": "other"}}))),
        ("dbConfig.storageSize", own.clone(), with(&own, json!({"storageSize": "6Gi"}))),
        ("dbConfig.resources.requests", own.clone(), with(&own, json!({"resources": {"requests": {"cpu": "1"}}}))),
        ("dbConfig.resources.limits", own.clone(), with(&own, json!({"resources": {"limits": {"cpu": "1"}}}))),
        ("dbConfig.image", own.clone(), with(&own, json!({"image": "example.com/mariadb:11"}))),
    ]
}

/// Leaves that count for sites that exist.
#[rustfmt::skip]
fn of_existing() -> Vec<Row> {
    let detected = json!({"domainConfig": {"ingressControllerRef": {"name": "controller", "namespace": "fields"}}});
    let with = |more: Value| {
        let mut whole = detected.clone();
        json_patch::merge(&mut whole, &json!({"domainConfig": more}));
        whole
    };
    // Hosts of other namespaces' sites are named too.
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

struct Bench<'a> {
    world: &'a World,
    benches: Api<FrappeBench>,
    base: Value,
}

impl Bench<'_> {
    async fn set(&self, more: &Value) {
        let mut whole = self.base.clone();
        json_patch::merge(&mut whole, more);
        let patch = json!([{"op": "replace", "path": "/spec", "value": whole}]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
        self.benches.patch("bench", &PatchParams::default(), &patch).await.unwrap();
    }

    /// A site that is made on the bench as it is now, and removed again.
    async fn probe(&self, what: &str) -> Picture {
        self.world.cluster.apply(&object("probe", &spec("probe", &json!({})))).unwrap();
        let sites = self.world.sites("fields");
        let picture = settled(self.world, &sites, "probe", what).await;
        self.world.kubectl(&[
            "annotate",
            "frappesite",
            "probe",
            "-n",
            "fields",
            "frappe.vyogo.tech/force-delete=skip-job",
        ]);
        self.world.kubectl(&["delete", "frappesite", "probe", "-n", "fields", "--wait=false"]);
        self.world.site_gone("fields", "probe").await;
        picture
    }
}

fn service(name: &str, namespace: &str, host: &str) -> String {
    let annotations = json!({"external-dns.alpha.kubernetes.io/hostname": host});
    let metadata = json!({"name": name, "namespace": namespace, "annotations": annotations});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}).to_string()
}

/// what a bench says about sites reaches them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_leaf_of_a_bench_about_sites_reaches_them() {
    let world = world("defaults").await;
    let tenant = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {TENANT}, labels: {{tier: gold}}}}\n");
    world.cluster.apply(&tenant).unwrap();
    for (name, namespace) in [("second", "fields"), ("shared", TENANT)] {
        let metadata = json!({"name": name, "namespace": namespace});
        let server =
            json!({"apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "metadata": metadata, "spec": {}});
        world.cluster.apply(&server.to_string()).unwrap();
    }
    for (name, namespace, host) in [
        ("controller", "fields", "*.apps.com"),
        ("another", "fields", "apps.net"),
        ("controller", TENANT, "apps.org,b.org"),
    ] {
        world.cluster.apply(&service(name, namespace, host)).unwrap();
    }
    let benches: Api<FrappeBench> = Api::namespaced(world.client.clone(), "fields");
    let base = serde_json::to_value(benches.get("bench").await.unwrap().spec).unwrap();
    let bench = Bench { world: &world, benches, base };
    let mut wrong = Vec::new();
    let mut known: BTreeMap<String, Picture> = BTreeMap::new();
    for (leaf, from, to) in of_databases() {
        if let Entry::Vacant(entry) = known.entry(from.to_string()) {
            bench.set(&from).await;
            entry.insert(bench.probe(leaf).await);
        }
        bench.set(&to).await;
        let changed = bench.probe(leaf).await.against(&known[&from.to_string()]);
        println!("{leaf}: {}", shown(&changed));
        if changed.is_empty() {
            wrong.push(format!("{leaf} has no effect on a new site"));
        }
    }
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
            // The bench is seen first, then the site.
            tokio::time::sleep(std::time::Duration::from_millis(700)).await;
            pictures.push(settled(&world, &world.sites(namespace), name, leaf).await);
        }
        let changed = pictures[1].against(&pictures[0]);
        println!("{leaf}: {}", shown(&changed));
        if changed.is_empty() {
            wrong.push(format!("{leaf} has no effect on a site"));
        }
        // What a site was once given it keeps where the right to more is withdrawn.
        let mut left = pictures[2].against(&pictures[0]);
        // The first Job, which creates the site, also mounts the password of Administrator.
        left.retain(|it| !it.starts_with("newest Job: volumes"));
        if !left.is_empty() && !leaf.starts_with("allowedSites") {
            wrong.push(format!("{leaf}: its revert left {left:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
