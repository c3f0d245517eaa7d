//! Fields of a site, as far as a test needs a real API server: changes that it rejects, and a reverted edit of many fields at
//! once, which must restore every object. Effects of single fields: `src/controllers/site/tests/leaves.rs`.

use std::collections::{BTreeMap, BTreeSet};

use frappe_crds::FrappeSite;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{fields::flatten, support::World};

const SPACE: &str = "fields";
/// Kinds of a site's objects; of Secrets only the names are compared.
const KINDS: &str = "ingresses,httproutes,routes,databases.k8s.mariadb.com,users.k8s.mariadb.com,grants.k8s.mariadb.com,\
                     mariadbs.k8s.mariadb.com,frappedomains,secrets";

/// Changes of a site that are rejected, with the field in the message.
fn rejected() -> [(&'static str, Value); 7] {
    let database = |config: Value| json!({"dbConfig": config});
    [
        ("siteName", json!({"siteName": "other.example.com"})),
        ("benchRef", json!({"benchRef": {"name": "other"}})),
        ("benchRef", json!({"benchRef": {"namespace": "other"}})),
        ("dbConfig", database(json!({"provider": "postgres", "connectionSecretRef": {"name": "first"}}))),
        ("dbConfig", database(json!({"mode": "dedicated"}))),
        ("dbConfig", database(json!({"mariadbRef": {"name": "other"}}))),
        ("dbConfig", database(json!({"mariadbRef": {"name": "shared", "namespace": "other"}}))),
    ]
}

/// Sites: base, change, and the fields that a revert cannot restore.
fn sites() -> Vec<(&'static str, Value, Value, &'static str)> {
    let parent = |name: &str| json!([{"name": name, "namespace": "gateways", "sectionName": "https"}]);
    let external = json!({"provider": "external", "host": "a.example.com", "connectionSecretRef": {"name": "first"}});
    let cpu = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}});
    vec![
        (
            "plain",
            json!({}),
            json!({
                "domain": "shop.com", "additionalDomains": ["www.shop.com"], "maintenanceMode": true, "schedulerPaused": true,
                "ingress": {"className": "traefik", "annotations": {"nginx.ingress.kubernetes.io/limit-rps": "9"}},
                "siteConfig": {"max_file_size": 1, "rate_limit": null},
                "siteConfigSecretRefs": {"mail_password": {"name": "first", "key": "password"}},
            }),
            "",
        ),
        ("hidden", json!({}), json!({"ingress": {"enabled": false}}), ""),
        // The Job that sets the Administrator's first password again mounts it.
        (
            "admin",
            json!({"adminPasswordSecretRef": {"name": "first"}}),
            json!({"adminPasswordSecretRef": {"name": "second"}}),
            "newest Job",
        ),
        // A site without `apps` keeps its current apps: a removed app is not installed again.
        ("removed", json!({}), json!({"removedApps": ["hrms"]}), "pps"),
        (
            "own",
            json!({"dbConfig": {"mode": "dedicated"}}),
            json!({"dbConfig": {"resources": cpu, "image": "example.com/mariadb:11"}}),
            "",
        ),
        (
            "ext",
            json!({"dbConfig": external}),
            json!({"dbConfig": {"host": "b.example.com", "port": "3307", "connectionSecretRef": {"name": "second"}}}),
            "",
        ),
        (
            "ocp",
            json!({"routeConfig": {"enabled": true}}),
            json!({"routeConfig": {
                "host": "route.example.com", "tlsTermination": "reencrypt", "wildcardPolicy": "subdomain",
                "annotations": {"haproxy.router.openshift.io/timeout": "300s"},
            }}),
            "",
        ),
        (
            "gate",
            json!({"httpRoute": {"enabled": true, "parentRefs": parent("public")}}),
            json!({"httpRoute": {
                "parentRefs": parent("private"), "annotations": {"external-dns.alpha.kubernetes.io/ttl": "60"},
            }}),
            "",
        ),
        (
            "former",
            json!({"httpRoute": {"enabled": true, "parentRefs": parent("public")}}),
            json!({"httpRoute": {"enabled": false}}),
            "",
        ),
        (
            "tls",
            json!({"tls": {"enabled": true, "secretName": "cert"}}),
            json!({"tls": {"secretName": "other", "issuer": "letsencrypt-prod"}}),
            "",
        ),
    ]
}

/// The fields of a site's objects, newest Job and status.
#[derive(Clone)]
pub(crate) struct Picture(pub(crate) BTreeMap<String, String>);

impl Picture {
    fn of(world: &World, site: &FrappeSite) -> Self {
        let label = format!("frappe.vyogo.tech/site-uid={}", site.uid().unwrap());
        let list = |kinds: &str| -> Vec<Value> {
            let listed = world.kubectl(&["get", kinds, "-A", "-l", &label, "-o", "json"]);
            serde_json::from_str::<Value>(&listed).unwrap()["items"].as_array().unwrap().clone()
        };
        let mut fields = BTreeMap::new();
        for item in list(KINDS) {
            let name = format!("{} {}", item["kind"].as_str().unwrap(), item["metadata"]["name"].as_str().unwrap());
            fields.insert(name.clone(), String::new());
            flatten(&item["spec"], &format!("{name}: spec"), &mut fields);
            for (key, value) in item["metadata"]["annotations"].as_object().into_iter().flatten() {
                if !key.contains("frappe.vyogo.tech/") {
                    fields.insert(format!("{name}: annotations.{key}"), value.to_string());
                }
            }
        }
        let mut jobs = list("jobs");
        jobs.sort_by_key(|job| job["metadata"]["creationTimestamp"].to_string());
        if let Some(job) = jobs.iter().max_by_key(|job| attempt(job)) {
            let pod = &job["spec"]["template"]["spec"];
            flatten(&pod["volumes"], "newest Job: volumes", &mut fields);
            let request: Value = serde_json::from_str(pod["containers"][0]["args"][1].as_str().unwrap()).unwrap();
            flatten(&request, "newest Job: request", &mut fields);
        }
        let status = serde_json::to_value(site.status.clone().unwrap_or_default()).unwrap();
        for (part, value) in status.as_object().unwrap() {
            match part.as_str() {
                "observedGeneration" | "operation" | "configuration" => {}
                "conditions" => value.as_array().unwrap().iter().for_each(|it| {
                    let text = |field: &str| it[field].as_str().unwrap_or_default().to_owned();
                    fields
                        .insert(format!("status: {}", text("type")), format!("{} {}", text("status"), text("reason")));
                }),
                _ => flatten(value, &format!("status: {part}"), &mut fields),
            }
        }
        let of_one_life = ["identity", "request.set_admin_password", "site.uid", "PasswordVersion"];
        fields.retain(|name, _| !of_one_life.iter().any(|it| name.ends_with(it)));
        Self(fields)
    }

    pub(crate) fn against(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.into_iter().filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect()
    }
}

/// The number of a Job's attempt, by which a site's Jobs are ordered.
fn attempt(job: &Value) -> usize {
    let name = job["metadata"]["name"].as_str().unwrap();
    let number = name.rsplit('-').next().and_then(|it| it.parse().ok()).unwrap_or(1);
    if name.contains("-apply") { 1000 + number } else { number }
}

/// Replaces a site's spec, or checks by a dry run whether it would be accepted; fails with the API server's message.
async fn set(sites: &Api<FrappeSite>, name: &str, spec: &Value, dry_run: bool) -> Result<(), String> {
    let patch = json!([{"op": "replace", "path": "/spec", "value": spec}]);
    let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
    let parameters = PatchParams { dry_run, ..PatchParams::default() };
    sites.patch(name, &parameters, &patch).await.map(drop).map_err(|it| it.to_string())
}

/// Waits until the operator has finished, and reads the fields.
pub(crate) async fn settled(world: &World, sites: &Api<FrappeSite>, name: &str, what: &str) -> Picture {
    let mut before: Option<BTreeMap<String, String>> = None;
    for _ in 0..150 {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let Ok(site) = sites.get(name).await else { continue };
        let Some(status) = &site.status else { continue };
        let of = |kind: &str| status.conditions.iter().find(|it| it.type_ == kind);
        let moving = of("Progressing").is_none_or(|it| it.status == "True");
        let seen = of("Ready").and_then(|it| it.observed_generation) == site.metadata.generation
            || of("Progressing").is_some_and(|it| it.reason == "Suspended");
        let picture = Picture::of(world, &site);
        if !moving && seen && before.as_ref() == Some(&picture.0) {
            return picture;
        }
        before = Some(picture.0);
    }
    panic!("not settled: {what}: {:#?}\n{}", sites.get(name).await.map(|it| it.status), world.operator.log_tail());
}

pub(crate) fn shown(changed: &[String]) -> String {
    let some: Vec<_> = changed.iter().take(3).cloned().collect();
    let more = changed.len().saturating_sub(some.len());
    format!("{}{}", some.join("; "), if more > 0 { format!(" and {more} more") } else { String::new() })
}

pub(crate) async fn world(purpose: &str) -> World {
    let world = World::start(purpose).await;
    world.cluster.apply(include_str!("../../loadtest/controlplane/optional/routes.yaml")).unwrap();
    world.with_bench(SPACE).await;
    let apps = json!({"spec": {"apps": [{"name": "erpnext", "source": "image"}, {"name": "hrms", "source": "image"}],
                               "allowedSites": {"databases": {"images": ["example.com/mariadb:11"]}}}});
    world.kubectl(&["patch", "frappebench", "bench", "-n", SPACE, "--type", "merge", "-p", &apps.to_string()]);
    for name in ["first", "second"] {
        let data = json!({"username": "u", "password": "p", "host": "h"});
        let metadata = json!({"name": name, "namespace": SPACE});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data});
        world.cluster.apply(&secret.to_string()).unwrap();
    }
    world
}

pub(crate) fn spec(name: &str, more: &Value) -> Value {
    let mut spec = json!({"siteName": format!("{name}.example.com"), "benchRef": {"name": "bench"}});
    json_patch::merge(&mut spec, more);
    spec
}

pub(crate) fn object(name: &str, spec: &Value) -> String {
    let metadata = json!({"name": name, "namespace": SPACE, "annotations": {"frappe.vyogo.tech/reconcile": "0"}});
    json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "metadata": metadata, "spec": spec}).to_string()
}

fn merged(base: &Value, change: &Value) -> Value {
    let mut whole = base.clone();
    json_patch::merge(&mut whole, change);
    whole
}

/// a rejection names the field, and a reverted edit of many fields at once restores every object exactly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reverted_edit_of_a_site_restores_every_object() {
    let world = world("sitefields").await;
    // A Route for all hosts of a domain needs the permission for that domain.
    let hosts = json!({"spec": {"domainConfig": {"allowedSuffixes": ["example.com", "shop.com"]}}});
    world.kubectl(&["patch", "frappebench", "bench", "-n", SPACE, "--type", "merge", "-p", &hosts.to_string()]);
    let api = world.sites(SPACE);
    let bases: BTreeMap<&str, Value> = sites().into_iter().map(|it| (it.0, spec(it.0, &it.1))).collect();
    for (name, spec) in &bases {
        world.cluster.apply(&object(name, spec)).unwrap();
    }
    let mut before = BTreeMap::new();
    for name in bases.keys() {
        settled(&world, &api, name, name).await;
        // A second Job of the same kind runs first, because the first one has other fields.
        world.kubectl(&["annotate", "frappesite", name, "-n", SPACE, "--overwrite", "frappe.vyogo.tech/reconcile=1"]);
    }
    for name in bases.keys() {
        let done = || async { (api.get(name).await.ok()?.status?.last_handled_reconcile_at? == "1").then_some(()) };
        world.until("the base is applied again", 60, done).await;
        before.insert(*name, settled(&world, &api, name, name).await);
    }
    for (field, change) in rejected() {
        let message = set(&api, "plain", &merged(&bases["plain"], &change), true).await.expect_err(field);
        assert!(message.contains(field), "{field}: {message}");
    }
    let mut wrong = Vec::new();
    for (name, _, change, _) in sites() {
        set(&api, name, &merged(&bases[name], &change), false).await.unwrap();
    }
    for (name, ..) in sites() {
        let changed = settled(&world, &api, name, "the change").await.against(&before[name]);
        println!("{name}: {}", shown(&changed));
        if changed.is_empty() {
            wrong.push(format!("the change of {name} has no effect"));
        }
        set(&api, name, &bases[name], false).await.unwrap();
    }
    for (name, _, _, kept) in sites() {
        let mut left = settled(&world, &api, name, "the revert").await.against(&before[name]);
        left.retain(|it| kept.is_empty() || !it.contains(kept));
        if !left.is_empty() {
            wrong.push(format!("the revert of {name} left {left:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
