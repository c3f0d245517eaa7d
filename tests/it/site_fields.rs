//! The field-effect report of sites: every leaf of a site's spec, and every leaf of a bench's that governs sites, is changed
//! on a real API server; what it changed is written down, and its revert must restore everything.

use std::collections::{BTreeMap, BTreeSet};

use frappe_crds::FrappeSite;
use kube::{
    Api, CustomResourceExt, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    fields::{flatten, leaves_of},
    support::World,
};

const SPACE: &str = "fields";
/// Kinds that a site has; of Secrets the names.
const KINDS: &str = "ingresses,httproutes,routes,databases.k8s.mariadb.com,users.k8s.mariadb.com,grants.k8s.mariadb.com,\
                     mariadbs.k8s.mariadb.com,frappedomains,secrets";

/// Where the effect of a leaf is to be seen.
#[derive(Clone, Copy, PartialEq)]
enum Effect {
    /// In the site's objects, its newest Job or its status.
    Seen,
    /// The API server refuses the change.
    Refused,
    /// When the site is deleted: `removal.rs` and `journey.rs` show it.
    Deletion,
}
use Effect::{Deletion, Refused, Seen};

/// A leaf, the site that it is changed on, what it is set to over that site's spec, and where its effect is to be seen.
type Row = (&'static str, &'static str, Value, Effect);

/// The sites that leaves are changed on.
fn bases() -> Vec<(&'static str, Value)> {
    let parent = json!([{"name": "public", "namespace": "gateways", "sectionName": "https"}]);
    vec![
        ("plain", json!({})),
        ("admin", json!({"adminPasswordSecretRef": {"name": "first"}})),
        ("apps", json!({"apps": ["erpnext"]})),
        ("removed", json!({})),
        ("own", json!({"dbConfig": {"mode": "dedicated"}})),
        (
            "ext",
            json!({"dbConfig": {"provider": "external", "host": "a.example.com", "connectionSecretRef": {"name": "first"}}}),
        ),
        ("ocp", json!({"routeConfig": {"enabled": true}})),
        ("gate", json!({"httpRoute": {"enabled": true, "parentRefs": parent}})),
        ("tls", json!({"tls": {"enabled": true, "secretName": "cert"}})),
    ]
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let gateway = |more: Value| {
        let mut parent = json!({"name": "public", "namespace": "gateways", "sectionName": "https"});
        json_patch::merge(&mut parent, &more);
        json!({"httpRoute": {"parentRefs": [parent]}})
    };
    vec![
        ("siteName", "plain", json!({"siteName": "other.example.com"}), Refused),
        ("benchRef.name", "plain", json!({"benchRef": {"name": "other"}}), Refused),
        ("benchRef.namespace", "plain", json!({"benchRef": {"namespace": "other"}}), Refused),
        ("adminPasswordSecretRef.namespace", "admin", json!({"adminPasswordSecretRef": {"namespace": "other"}}), Seen),
        ("adminPasswordSecretRef.name", "admin", json!({"adminPasswordSecretRef": {"name": "second"}}), Seen),
        ("dbConfig.provider", "plain", json!({"dbConfig": {"provider": "postgres", "connectionSecretRef": {"name": "first"}}}), Refused),
        ("dbConfig.mode", "plain", json!({"dbConfig": {"mode": "dedicated"}}), Refused),
        ("dbConfig.mariadbRef.name", "plain", json!({"dbConfig": {"mariadbRef": {"name": "other"}}}), Refused),
        ("dbConfig.mariadbRef.namespace", "plain", json!({"dbConfig": {"mariadbRef": {"name": "shared", "namespace": "other"}}}), Refused),
        ("dbConfig.host", "ext", json!({"dbConfig": {"host": "b.example.com"}}), Seen),
        ("dbConfig.port", "ext", json!({"dbConfig": {"port": "3307"}}), Seen),
        ("dbConfig.connectionSecretRef.name", "ext", json!({"dbConfig": {"connectionSecretRef": {"name": "second"}}}), Seen),
        ("dbConfig.connectionSecretRef.namespace", "ext", json!({"dbConfig": {"connectionSecretRef": {"namespace": "other"}}}), Seen),
        ("dbConfig.storageSize", "own", json!({"dbConfig": {"storageSize": "20Gi"}}), Seen),
        ("dbConfig.resources.requests", "own", json!({"dbConfig": {"resources": {"requests": {"cpu": "1"}}}}), Seen),
        ("dbConfig.resources.limits", "own", json!({"dbConfig": {"resources": {"limits": {"cpu": "1"}}}}), Seen),
        ("dbConfig.image", "own", json!({"dbConfig": {"image": "example.com/mariadb:11"}}), Seen),
        ("domain", "plain", json!({"domain": "shop.com"}), Seen),
        ("additionalDomains", "plain", json!({"additionalDomains": ["www.shop.com"]}), Seen),
        ("tls.enabled", "tls", json!({"tls": {"enabled": false}}), Seen),
        ("tls.secretName", "tls", json!({"tls": {"secretName": "other"}}), Seen),
        ("tls.issuer", "tls", json!({"tls": {"issuer": "letsencrypt-prod"}}), Seen),
        ("ingressClassName", "plain", json!({"ingressClassName": "nginx"}), Seen),
        ("ingress.enabled", "plain", json!({"ingress": {"enabled": false}}), Seen),
        ("ingress.className", "plain", json!({"ingress": {"className": "traefik"}}), Seen),
        ("ingress.annotations", "plain", json!({"ingress": {"annotations": {"nginx.ingress.kubernetes.io/limit-rps": "9"}}}), Seen),
        ("httpRoute.enabled", "gate", json!({"httpRoute": {"enabled": false}}), Seen),
        ("httpRoute.parentRefs[].name", "gate", gateway(json!({"name": "private"})), Seen),
        ("httpRoute.parentRefs[].namespace", "gate", gateway(json!({"namespace": "others"})), Seen),
        ("httpRoute.parentRefs[].sectionName", "gate", gateway(json!({"sectionName": "http"})), Seen),
        ("httpRoute.annotations", "gate", json!({"httpRoute": {"annotations": {"external-dns.alpha.kubernetes.io/ttl": "60"}}}), Seen),
        ("routeConfig.enabled", "ocp", json!({"routeConfig": {"enabled": false}}), Seen),
        ("routeConfig.host", "ocp", json!({"routeConfig": {"host": "route.example.com"}}), Seen),
        ("routeConfig.tlsTermination", "ocp", json!({"routeConfig": {"tlsTermination": "reencrypt"}}), Seen),
        ("routeConfig.wildcardPolicy", "ocp", json!({"routeConfig": {"wildcardPolicy": "subdomain"}}), Seen),
        ("routeConfig.annotations", "ocp", json!({"routeConfig": {"annotations": {"haproxy.router.openshift.io/timeout": "300s"}}}), Seen),
        ("apps", "apps", json!({"apps": ["erpnext", "hrms"]}), Seen),
        ("removedApps", "removed", json!({"removedApps": ["hrms"]}), Seen),
        ("maintenanceMode", "plain", json!({"maintenanceMode": true}), Seen),
        ("schedulerPaused", "plain", json!({"schedulerPaused": true}), Seen),
        ("siteConfig", "plain", json!({"siteConfig": {"max_file_size": 1}}), Seen),
        ("siteConfigSecretRefs.name", "plain", json!({"siteConfigSecretRefs": {"mail_password": {"name": "first", "key": "password"}}}), Seen),
        ("siteConfigSecretRefs.key", "plain", json!({"siteConfigSecretRefs": {"mail_password": {"name": "first", "key": "username"}}}), Seen),
        ("suspend", "plain", json!({"suspend": true}), Seen),
        ("deletionPolicy", "plain", json!({"deletionPolicy": "Retain"}), Deletion),
        ("deletionProtection", "plain", json!({"deletionProtection": true}), Deletion),
    ]
}

/// What a site's objects, its newest Job and its status are, field by field.
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

/// Jobs of a site in the order in which they were made.
fn attempt(job: &Value) -> usize {
    let name = job["metadata"]["name"].as_str().unwrap();
    let number = name.rsplit('-').next().and_then(|it| it.parse().ok()).unwrap_or(1);
    if name.contains("-apply") { 1000 + number } else { number }
}

async fn set(sites: &Api<FrappeSite>, name: &str, base: &Value, change: &Value) -> Result<(), String> {
    let mut whole = base.clone();
    json_patch::merge(&mut whole, change);
    let patch = json!([{"op": "replace", "path": "/spec", "value": whole}]);
    let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
    sites.patch(name, &PatchParams::default(), &patch).await.map(drop).map_err(|it| it.to_string())
}

/// Waits until the operator has done all that it can now, and looks.
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

/// no leaf without an effect, and a reverted edit restores every object exactly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_leaf_of_a_site_has_an_effect_and_its_revert_restores_everything() {
    let table = rows();
    let known: BTreeSet<String> = table.iter().map(|row| row.0.to_owned()).collect();
    let mut leaves = leaves_of(&serde_json::to_value(FrappeSite::crd()).unwrap(), &["requests", "limits"]);
    // A map from names to objects: its leaves are those of the objects.
    leaves.remove("siteConfigSecretRefs");
    leaves.extend(["siteConfigSecretRefs.name", "siteConfigSecretRefs.key"].map(str::to_owned));
    assert_eq!(known, leaves, "a leaf of the spec has no row here, or a row has no leaf");
    let world = world("sitefields").await;
    // A Route for all hosts of a domain is for who may have the domain.
    let hosts = json!({"spec": {"domainConfig": {"allowedSuffixes": ["example.com", "shop.com"]}}});
    world.kubectl(&["patch", "frappebench", "bench", "-n", SPACE, "--type", "merge", "-p", &hosts.to_string()]);
    let sites = world.sites(SPACE);
    let bases: BTreeMap<&str, Value> = bases().into_iter().map(|(name, more)| (name, spec(name, &more))).collect();
    let mut before = BTreeMap::new();
    for (name, spec) in &bases {
        world.cluster.apply(&object(name, spec)).unwrap();
        settled(&world, &sites, name, name).await;
        // What comes after the first Job is compared with what comes after another of its kind.
        world.kubectl(&["annotate", "frappesite", name, "-n", SPACE, "--overwrite", "frappe.vyogo.tech/reconcile=1"]);
        let done = || async { (sites.get(name).await.ok()?.status?.last_handled_reconcile_at? == "1").then_some(()) };
        world.until("the base is applied anew", 60, done).await;
        before.insert(*name, settled(&world, &sites, name, name).await);
    }
    let mut wrong = Vec::new();
    for (leaf, name, change, effect) in &table {
        let refused = set(&sites, name, &bases[name], change).await;
        let line = match (effect, refused) {
            (Refused, Err(message)) => {
                format!("refused: {}", message.split("Invalid value: ").nth(1).unwrap_or(&message))
            }
            (Deletion, Ok(())) => "at the deletion".to_owned(),
            (Seen, Ok(())) => {
                let changed = settled(&world, &sites, name, leaf).await.against(&before[name]);
                if changed.is_empty() {
                    wrong.push(format!("{leaf} has no effect"));
                }
                shown(&changed)
            }
            (_, other) => {
                wrong.push(format!("{leaf}: {other:?}"));
                continue;
            }
        };
        set(&sites, name, &bases[name], &json!({})).await.unwrap();
        let after = settled(&world, &sites, name, &format!("{leaf} reverted")).await;
        let mut left = after.against(&before[name]);
        match *leaf {
            // The Job that gives Administrator the first password again mounts it.
            "adminPasswordSecretRef.name" => left.retain(|it| !it.starts_with("newest Job")),
            // An app that is installed stays: taking its name away is refused.
            "apps" => left.retain(|it| it.starts_with("newest Job")),
            // A site that names no apps keeps those that it has: what was removed does not come again.
            "removedApps" => left.retain(|it| !it.contains("apps") && !it.contains("installedApps")),
            _ => {}
        }
        if !left.is_empty() {
            wrong.push(format!("{leaf}: its revert left {left:?}"));
        }
        println!("{leaf}: {line}");
    }
    println!("{} leaves", table.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
