//! Sites of every provider and every route: the guide's sites, their requests, races for hosts, other namespaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use frappe_crds::{FrappeDomain, FrappeSite, site::SitePhase};
use frappe_loadtest::audit;
use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use crate::{
    crds::guide_documents,
    support::{World, inventory, shared, site},
};

/// Hosts that two sites of two namespaces claim.
const RACES: usize = 100;
/// Requests from creation to Ready, by provider.
const REQUESTS_MAX: [(&str, usize); 4] = [("shared", 12), ("dedicated", 14), ("external", 11), ("postgres", 11)];

/// A Secret with an account.
fn account(namespace: &str, name: &str) -> String {
    let data = json!({"username": "frappe", "password": "secure", "host": "db.example.com"});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": data})
        .to_string()
}

/// Every site and Secret of the guide, unchanged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guides_sites_become_ready() {
    let Some(guide) = shared("guide/frappe-operator-guide.txt") else { return };
    let world = World::start("guidesites").await;
    world.cluster.apply(include_str!("../../loadtest/controlplane/optional/routes.yaml")).unwrap();
    let server = "apiVersion: k8s.mariadb.com/v1alpha1\nkind: MariaDB\nmetadata: {name: shared-mariadb, namespace: default}\n\
                  spec: {storage: {size: 1Gi}}\n";
    world.cluster.apply(server).unwrap();
    let mut applied = BTreeMap::new();
    let mut secrets = BTreeSet::new();
    let wanted = |it: &serde_yaml_ng::Value| it["kind"] == "FrappeSite" || it["metadata"]["name"] == "rds-credentials";
    for block in guide_documents(&fs::read_to_string(guide).unwrap(), wanted) {
        let value: Value = serde_yaml_ng::from_str(&block).unwrap();
        if value["kind"] == "FrappeSite" {
            applied.insert(value["metadata"]["name"].as_str().unwrap().to_owned(), value);
        } else {
            secrets.insert(value.to_string());
        }
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let benches: BTreeSet<String> = applied.values().filter_map(|it| text(&it["spec"]["benchRef"]["name"])).collect();
    for bench in benches {
        let spec = json!({"frappeVersion": "15", "apps": [{"name": "erpnext", "source": "image"}]});
        let metadata = json!({"name": bench, "namespace": "default"});
        let object =
            json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "metadata": metadata, "spec": spec});
        world.cluster.apply(&object.to_string()).unwrap();
    }
    let apply = |object: &str| world.cluster.kubectl(&["apply", "-n", "default", "-f", "-"], object).unwrap();
    for secret in secrets {
        assert!(apply(&secret).success);
    }
    for site in applied.values() {
        assert!(apply(&site.to_string()).success);
        let references = [&site["spec"]["adminPasswordSecretRef"], &site["spec"]["dbConfig"]["connectionSecretRef"]];
        for name in references.iter().filter_map(|it| text(&it["name"])) {
            if !world.cluster.kubectl(&["get", "secret", &name], "").unwrap().success {
                world.cluster.apply(&account("default", &name)).unwrap();
            }
        }
    }
    for name in applied.keys() {
        let status = world.wait_for_site_phase("default", name, SitePhase::Ready).await.status.unwrap();
        println!("{name}: {} by {}", status.site_url.unwrap_or_default(), status.route.unwrap_or_default());
    }
    let routed = world.kubectl(&["get", "routes.route.openshift.io", "-n", "default", "-o", "name"]);
    assert!(routed.contains("ocp-site-route"), "{routed}");
    assert!(applied.len() >= 9, "{} sites", applied.len());
}

/// R-4: the requests of a site of each provider from creation to Ready, and none afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_each_provider_are_limited_and_none_without_changes() {
    let world = World::start("providers").await;
    world.with_bench("cost").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let database = |name: &str| match name {
        "dedicated" => "  dbConfig: {mode: dedicated}\n".to_owned(),
        "external" | "postgres" => {
            format!("  dbConfig: {{provider: {name}, connectionSecretRef: {{name: account-{name}}}}}\n")
        }
        _ => String::new(),
    };
    for (name, most) in REQUESTS_MAX {
        world.cluster.apply(&account("cost", &format!("account-{name}"))).unwrap();
        let begun = Timestamp::now();
        world.cluster.apply(&format!("{}{}", site("cost", name), database(name))).unwrap();
        world.wait_for_site_phase("cost", name, SitePhase::Ready).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let requests = audit::requests(&world.cluster.logs, begun).unwrap();
        let work: Vec<_> = requests.iter().filter(|it| it.is_work() && it.verb != "watch").collect();
        println!("{name} from creation to Ready: {} requests", work.len());
        for ((verb, resource), count) in audit::count(work.iter().copied()) {
            println!("  {count:>4} {verb} {resource}");
        }
        assert!(work.iter().all(|it| it.code < 400), "a request failed: {work:?}");
        assert!(work.len() <= most, "{name} took {} requests", work.len());
    }
    let begun = Timestamp::now();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let requests = audit::requests(&world.cluster.logs, begun).unwrap();
    let rest: Vec<_> = requests.iter().filter(|it| it.verb != "watch" && it.is_work()).collect();
    assert!(rest.is_empty(), "requests in 10 s without a change: {rest:?}");
    for (name, _) in REQUESTS_MAX {
        world.kubectl(&["delete", "frappesite", name, "-n", "cost", "--wait=false"]);
        world.wait_for_site_deletion("cost", name).await;
    }
    every_permission_is_listed(&world);
}

/// Compares the operator's requests with the documented table of permissions.
fn every_permission_is_listed(world: &World) {
    let (_, table) =
        include_str!("../../docs/permissions.md").split_once("## Permissions").expect("a table of permissions");
    let mut listed: BTreeSet<(String, String)> = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let verbs: Vec<&str> = cells[2].split(", ").collect();
        for resource in cells[1].split(", ") {
            listed.extend(verbs.iter().map(|verb| ((*verb).to_owned(), resource.to_owned())));
        }
    }
    let requests = audit::requests(&world.cluster.logs, Timestamp::UNIX_EPOCH).unwrap();
    let asked: BTreeSet<(String, String)> = audit::count(&requests).into_keys().collect();
    let missing: Vec<_> = asked.difference(&listed).collect();
    assert!(asked.len() > 40 && missing.is_empty(), "{} permissions were used; not listed: {missing:?}", asked.len());
    println!("{} of {} listed permissions were used, and no others", asked.len(), listed.len());
}

/// R-16: one site claims each host, the other reports it and claims the host once the first is deleted, and no claim is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sites_claim_the_same_host() {
    let world = World::start("races").await;
    for namespace in ["left", "right"] {
        world.with_bench(namespace).await;
        let one = json!({"spec": {"siteJobConcurrency": 1}}).to_string();
        world.kubectl(&["patch", "frappebench", "bench", "-n", namespace, "--type", "merge", "-p", &one]);
        world.cluster.apply(&account(namespace, "account")).unwrap();
    }
    let racer = |namespace: &str, number: usize| {
        // The sites only claim hosts: no deletion waits for a Job.
        let annotations = json!({"frappe.vyogo.tech/force-delete": "skip-job"});
        let metadata = json!({"name": format!("racer-{number}"), "namespace": namespace, "annotations": annotations});
        let database = json!({"provider": "external", "connectionSecretRef": {"name": "account"}});
        let spec =
            json!({"siteName": format!("h{number}.example.com"), "benchRef": {"name": "bench"}, "dbConfig": database});
        json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "metadata": metadata, "spec": spec})
    };
    let items: Vec<Value> = (0..RACES).flat_map(|it| ["left", "right"].map(|namespace| racer(namespace, it))).collect();
    for some in items.chunks(200) {
        world.cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": some}).to_string()).unwrap();
    }
    let (domains, sites): (Api<FrappeDomain>, Api<FrappeSite>) =
        (Api::all(world.client.clone()), Api::all(world.client.clone()));
    let standing = || async {
        let all = sites.list(&ListParams::default()).await.ok()?.items;
        let held = domains.list(&ListParams::default()).await.ok()?.items;
        Some((all, held))
    };
    let reason = |site: &FrappeSite| {
        let conditions = site.status.clone().unwrap_or_default().conditions;
        conditions.into_iter().find(|it| it.type_ == "Ready").map(|it| it.reason).unwrap_or_default()
    };
    let settled = || async {
        let (all, held) = standing().await?;
        let losers = all.iter().filter(|site| reason(site) == "HostClaimed").count();
        (losers == RACES && held.len() == RACES).then_some((all, held))
    };
    let (all, held) = world.until("one winner for each host", 400, settled).await;
    let holders: BTreeSet<String> = held.iter().map(|it| it.spec.site.uid.clone()).collect();
    let (losers, winners): (Vec<_>, Vec<_>) = all.iter().partition(|site| reason(site) == "HostClaimed");
    assert!(losers.iter().all(|site| !holders.contains(&site.uid().unwrap())), "a loser holds a claim");
    let hosts: BTreeSet<&String> = winners.iter().map(|site| &site.spec.site_name).collect();
    assert_eq!((winners.len(), hosts.len(), holders.len()), (RACES, RACES, RACES));
    let left = winners.iter().filter(|site| site.namespace().as_deref() == Some("left")).count();
    println!("{RACES} races: one winner each, {left} of them in the first namespace");

    for site in &winners {
        let of_namespace: Api<FrappeSite> = Api::namespaced(world.client.clone(), &site.namespace().unwrap());
        of_namespace.delete(&site.name_any(), &DeleteParams::default()).await.unwrap();
    }
    let losers: BTreeSet<String> = losers.iter().map(|site| site.uid().unwrap()).collect();
    let followed = || async {
        let held = domains.list(&ListParams::default()).await.ok()?.items;
        let ours = held.iter().filter(|it| losers.contains(&it.spec.site.uid)).count();
        (ours == RACES && held.len() == RACES).then_some(())
    };
    world.until("every loser is Ready", 400, followed).await;
    for namespace in ["left", "right"] {
        let of_namespace: Api<FrappeSite> = Api::namespaced(world.client.clone(), namespace);
        of_namespace.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    }
    let gone = || async {
        let (all, held) = standing().await?;
        (all.is_empty() && held.is_empty()).then_some(())
    };
    world.until("nothing is left", 400, gone).await;
    println!("{RACES} hosts released, claimed by the losers, and released again: no claim left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_need_permission_and_jobs_their_label() {
    let world = World::start("tenants").await;
    a_site_of_another_namespace_needs_the_benchs_permission(&world).await;
    a_job_without_its_label_is_found_again(&world).await;
}

/// A site of another namespace: the bench must allow it; its objects are in the bench's namespace and are deleted with it.
async fn a_site_of_another_namespace_needs_the_benchs_permission(world: &World) {
    world.with_bench("platform").await;
    let tenants = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {tier: gold}}\n---\n\
                   apiVersion: v1\nkind: Namespace\nmetadata: {name: b, labels: {tier: gold}}\n";
    world.cluster.apply(tenants).unwrap();
    let before = inventory(world, "platform");
    let tenant = |namespace: &str| {
        let bench = "{name: bench, namespace: platform}";
        format!(
            "{}  adminPasswordSecretRef: {{name: admin}}\n",
            site(namespace, "shop").replace("{name: bench}", bench)
        )
    };
    for namespace in ["a", "b"] {
        world.cluster.apply(&account(namespace, "admin")).unwrap();
        let to_the_bench = "frappe.vyogo.tech/allowed-namespaces=platform";
        world.kubectl(&["annotate", "secret", "admin", "-n", namespace, to_the_bench]);
        world.cluster.apply(&tenant(namespace)).unwrap();
        let message = world.wait_for_site_reason(namespace, "shop", "BenchNotPermitted").await;
        assert!(message.contains("does not exist, or does not allow"), "{message}");
    }
    assert_eq!(inventory(world, "platform"), before, "an object was created for a site that is not allowed");
    let allow = json!({"spec": {"domainConfig": {"allowedSuffixes": ["example.com"]}, "allowedSites": {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"tier": "gold"}}}}}});
    world.kubectl(&["patch", "frappebench", "bench", "-n", "platform", "--type", "merge", "-p", &allow.to_string()]);
    for namespace in ["a", "b"] {
        world.wait_for_site_phase(namespace, "shop", SitePhase::Ready).await;
        let own = world.kubectl(&["get", "jobs,secrets,ingresses", "-n", namespace, "-o", "name"]);
        assert_eq!(own.trim(), "secret/admin", "the tenant's namespace has only the tenant's objects");
    }
    println!("in the bench's namespace: {:#?}", inventory(world, "platform"));
    world.kubectl(&["delete", "frappebench", "bench", "-n", "platform", "--wait=false"]);
    let held = || async {
        let told = world
            .cluster
            .kubectl(&["get", "frappebench", "bench", "-n", "platform", "-o", "jsonpath={.status}"], "")
            .ok()?;
        told.out.contains("shop").then_some(())
    };
    world.until("the bench waits for its sites of other namespaces", 60, held).await;
    world.kubectl(&["label", "namespace", "a", "tier=silver", "--overwrite"]);
    world.wait_for_site_reason("a", "shop", "BenchNotPermitted").await;
    let served = world.kubectl(&["get", "ingresses", "-n", "platform", "-o", "name"]);
    assert_eq!(served.lines().count(), 2, "a withdrawn permission deletes nothing: {served}");
    for namespace in ["a", "b"] {
        world.kubectl(&["delete", "frappesite", "shop", "-n", namespace, "--wait=false"]);
        world.wait_for_site_deletion(namespace, "shop").await;
        world.kubectl(&["get", "secret", "admin", "-n", namespace]);
    }
    let gone = || async { inventory(world, "platform").iter().all(|line| !line.contains("shop")).then_some(()) };
    world.until("nothing of the sites is left", 60, gone).await;
}

/// A Job that the operator does not see because a user removed its label gets the label back: it is neither lost nor created
/// twice. Only this case needs the permission to read a single Job.
async fn a_job_without_its_label_is_found_again(world: &World) {
    world.with_bench("shops").await;
    // No node runs a pod: the Job stays active.
    let nodes = world.kubectl(&["get", "nodes", "-o", "name"]);
    for node in nodes.lines() {
        world.kubectl(&["cordon", node]);
    }
    world.cluster.apply(&site("shops", "shop")).unwrap();
    let look = |path: &str| {
        let output = format!("jsonpath={{{path}}}");
        let found = world.cluster.kubectl(&["get", "job", "shop-init", "-n", "shops", "-o", &output], "").unwrap();
        Some(found.out).filter(|it| found.success && !it.is_empty())
    };
    let label = r".metadata.labels.frappe\.vyogo\.tech/slot";
    let slot = world.until("the Job exists", 60, || async { look(label) }).await;
    let uid = look(".metadata.uid");
    world.kubectl(&["label", "job", "shop-init", "-n", "shops", "frappe.vyogo.tech/slot-"]);
    let back = world.until("the Job's label is restored", 60, || async { look(label) }).await;
    assert_eq!((back, look(".metadata.uid")), (slot, uid));
    for node in nodes.lines() {
        world.kubectl(&["uncordon", node]);
    }
    world.wait_for_site_phase("shops", "shop", SitePhase::Ready).await;
    let jobs = world.kubectl(&["get", "jobs", "-n", "shops", "-o", "name"]);
    assert_eq!(jobs.lines().filter(|it| it.contains("shop")).count(), 1, "{jobs}");
}
