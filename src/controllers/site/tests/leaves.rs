//! every leaf of a site's spec has an effect, every leaf of a bench that concerns sites has one on them, and a reverted edit
//! restores everything. The effects are in the snapshots.

use std::collections::BTreeSet;

use kube::CustomResourceExt;

use super::*;
use crate::controllers::leaves::{Picture, brief, leaves_of};

/// Where the effect of a leaf is tested.
#[derive(Clone, Copy, PartialEq)]
enum Effect {
    /// In the site's objects, its newest Job or its status.
    Seen,
    /// The API server rejects the change: tested by `tests/it/fields.rs`.
    Refused,
    /// When the site is deleted: tested by the tests of deletion.
    Deletion,
    /// When the site is migrated: tested by the tests of updates.
    Update,
}
use Effect::{Deletion, Refused, Seen, Update};

/// A leaf, the site on which it is changed, its value over that site's spec, and where its effect is tested.
type Row = (&'static str, &'static str, Value, Effect);

/// The sites on which leaves are changed.
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
        ("update.policy", "plain", json!({"update": {"policy": "Manual"}}), Update),
        ("update.windows[].schedule", "plain", json!({"update": {"windows": [{"schedule": "0 1 * * *", "duration": "1h"}]}}), Update),
        ("update.windows[].duration", "plain", json!({"update": {"windows": [{"schedule": "0 1 * * *", "duration": "2h"}]}}), Update),
        ("update.windows[].timeZone", "plain", json!({"update": {"windows": [{"schedule": "0 1 * * *", "duration": "1h", "timeZone": "Europe/Berlin"}]}}), Update),
        ("update.skipFailingPatches", "plain", json!({"update": {"skipFailingPatches": true}}), Update),
        ("deletionPolicy", "plain", json!({"deletionPolicy": "Retain"}), Deletion),
        ("deletionProtection", "plain", json!({"deletionProtection": true}), Deletion),
    ]
}

fn merged(base: &Value, change: &Value) -> Value {
    let mut whole = base.clone();
    json_patch::merge(&mut whole, change);
    whole
}

/// A bench with permissions for its sites, and `more`.
fn bench_with(more: &Value) -> Arc<FrappeBench> {
    let bench = serde_json::to_value(bench()).expect("JSON");
    let spec = json!({"spec": {
        "apps": [{"name": "erpnext", "source": "image"}, {"name": "hrms", "source": "image"}],
        "allowedSites": {"databases": {"images": ["example.com/mariadb:11"]}},
        "domainConfig": {"allowedSuffixes": ["example.com", "shop.com"]},
    }});
    let whole = merged(&merged(&bench, &spec), &json!({"spec": more}));
    Arc::new(serde_json::from_value(whole).expect("a bench"))
}

/// A site of this name on that bench, with Secrets and servers that it may reference, reconciled until nothing changes.
fn world(name: &str, spec: &Value, bench: &Arc<FrappeBench>) -> Observed {
    let mut world = observed(merged(&json!({"siteName": format!("{name}.example.com")}), spec));
    world.capabilities =
        crate::domain::capabilities::Capabilities { routes: true, gateway: true, ..world.capabilities };
    world.bench = Some(bench.clone());
    for (secret, version) in [("first", "101"), ("second", "102")] {
        user_secret(&mut world, secret);
        let mut made = DynamicObject::clone(&world.secrets[secret]);
        made.metadata.resource_version = Some(version.to_owned());
        world.secrets.insert(secret.to_owned(), Arc::new(made));
    }
    let named = bench.spec.db_config.as_ref().is_some_and(|it| it.mariadb_ref.is_some());
    let servers = [("shared", "default"), ("second", "default"), ("shared", "tenant")];
    for (server, namespace) in servers.into_iter().filter(|_| named) {
        let server = json!({
            "apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "spec": {},
            "metadata": {"name": server, "namespace": namespace, "uid": format!("{server}-of-{namespace}")},
        });
        world.servers.push(object(server));
    }
    look_again(&mut world);
    converge(&mut world, "Complete");
    world
}

fn set(world: &mut Observed, spec: &Value) {
    let site = Arc::make_mut(&mut world.site);
    site.spec = serde_json::from_value(spec.clone()).expect("a spec");
    site.metadata.generation = site.metadata.generation.map(|it| it + 1);
    look_again(world);
    converge(world, "Complete");
}

/// The number of a Job's attempt, by which a site's Jobs are ordered.
fn turn(name: &str) -> usize {
    let number = name.rsplit('-').next().and_then(|it| it.parse().ok()).unwrap_or(1);
    if name.contains("-apply") { 1000 + number } else { number }
}

fn picture(world: &Observed) -> Picture {
    let mut picture = Picture::default();
    let claims = world.claims.iter().filter_map(|it| it.object.as_ref()).map(|it| (Kind::Domain, it));
    let sql = [Kind::Database, Kind::User, Kind::Grant].into_iter().zip(&world.sql);
    let sql = sql.filter_map(|(kind, it)| Some((kind, it.as_ref()?)));
    let server = world.own_server().map(|it| (Kind::MariaDb, it));
    for (kind, object) in world.routes.objects().chain(claims).chain(sql).chain(server) {
        let name = format!("{kind:?} {}", object.name_any());
        picture.0.insert(name.clone(), String::new());
        picture.add(&format!("{name}: spec"), &object.data["spec"]);
        for (key, value) in object.annotations().iter().filter(|(key, _)| !key.contains("frappe.vyogo.tech/")) {
            picture.0.insert(format!("{name}: annotations.{key}"), value.clone());
        }
    }
    if let Some((_, job)) = world.jobs.iter().max_by_key(|(name, _)| turn(name)) {
        let pod = &job.data["spec"]["template"]["spec"];
        picture.add("newest Job: volumes", &pod["volumes"]);
        let request = pod["containers"][0]["args"][1].as_str().expect("a request");
        picture.add("newest Job: request", &serde_json::from_str(request).expect("JSON"));
    }
    let status = serde_json::to_value(&world.site.status).expect("JSON");
    picture.add_status(&status, &["observedGeneration", "operation", "configuration"]);
    let of_one_life = ["identity", "request.set_admin_password", "site.uid", "PasswordVersion"];
    picture.0.retain(|name, _| !of_one_life.iter().any(|it| name.ends_with(it)));
    picture
}

/// A site without pending changes, whose newest Job is of the kind that later edits create.
fn settled(name: &str, spec: &Value, bench: &Arc<FrappeBench>) -> Observed {
    let mut world = world(name, spec, bench);
    assert_eq!(reason(&plan(&world)), "Ready", "{name}");
    Arc::make_mut(&mut world.site).annotations_mut().insert("frappe.vyogo.tech/reconcile".into(), "1".into());
    converge(&mut world, "Complete");
    world
}

#[test]
fn every_leaf_of_a_site_has_an_effect_and_its_revert_restores_everything() {
    let table = rows();
    let known: BTreeSet<String> = table.iter().map(|row| row.0.to_owned()).collect();
    let definition = serde_json::to_value(FrappeSite::crd()).expect("JSON");
    let leaves = leaves_of(&definition, &["requests", "limits"]);
    // A map from names to objects: the leaves are those of the objects.
    assert_eq!(known, leaves, "a leaf of the spec has no row here, or a row has no leaf");
    let bench = bench_with(&json!({}));
    let bases = bases().into_iter().map(|(name, spec)| (name, settled(name, &spec, &bench)));
    let mut worlds: BTreeMap<&str, Observed> = bases.collect();
    let (mut shown, mut wrong) = (BTreeMap::new(), Vec::new());
    for (leaf, name, change, effect) in &table {
        let world = worlds.get_mut(name).expect("a base");
        let (before, spec) = (picture(world), serde_json::to_value(&world.site.spec).expect("JSON"));
        match effect {
            Refused => drop(shown.insert(*leaf, vec!["refused".to_owned()])),
            Update => drop(shown.insert(*leaf, vec!["at a migration".to_owned()])),
            Deletion => drop(shown.insert(*leaf, vec!["at the deletion".to_owned()])),
            Seen => {
                set(world, &merged(&spec, change));
                let changed = picture(world).against(&before);
                if changed.is_empty() {
                    wrong.push(format!("{leaf} has no effect"));
                }
                shown.insert(*leaf, brief(&changed));
            }
        }
        set(world, &spec);
        let mut left = picture(world).against(&before);
        match *leaf {
            // The Job that sets the Administrator's first password again mounts it.
            "adminPasswordSecretRef.name" => left.retain(|it| !it.starts_with("newest Job")),
            // An installed app is kept: removing its name is rejected.
            "apps" => left.retain(|it| it.starts_with("newest Job")),
            // A site without `apps` keeps its current apps: a removed app is not installed again.
            "removedApps" => left.retain(|it| !it.contains("apps") && !it.contains("installedApps")),
            _ => {}
        }
        if !left.is_empty() {
            wrong.push(format!("{leaf}: its revert left {left:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    insta::assert_yaml_snapshot!("effects", shown);
}

/// Leaves of a bench that are defaults for sites' databases, with the values before and after.
#[rustfmt::skip]
fn of_databases() -> Vec<(&'static str, Value, Value)> {
    let database = |config: Value| json!({"dbConfig": config});
    let shared = database(json!({"mariadbRef": {"name": "shared", "namespace": "default"}}));
    let own = database(json!({"mode": "dedicated", "storageSize": "5Gi"}));
    let external = database(json!({"provider": "external", "host": "a.example.com", "port": "3306", "connectionSecretRef": {"name": "first"}}));
    let with = |base: &Value, more: Value| merged(base, &database(more));
    vec![
        ("dbConfig.provider", external.clone(), with(&external, json!({"provider": "postgres"}))),
        ("dbConfig.mode", shared.clone(), own.clone()),
        ("dbConfig.mariadbRef.name", shared.clone(), with(&shared, json!({"mariadbRef": {"name": "second"}}))),
        ("dbConfig.mariadbRef.namespace", shared.clone(), with(&shared, json!({"mariadbRef": {"namespace": "tenant"}}))),
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

#[test]
fn each_default_of_a_benchs_databases_has_an_effect_on_a_new_site() {
    let (mut shown, mut wrong) = (BTreeMap::new(), Vec::new());
    for (leaf, from, to) in of_databases() {
        let [before, after] = [from, to].map(|it| picture(&world("probe", &json!({}), &bench_with(&it))));
        let changed = after.against(&before);
        if changed.is_empty() {
            wrong.push(format!("{leaf} has no effect on a new site"));
        }
        shown.insert(leaf, brief(&changed));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    insta::assert_yaml_snapshot!("defaults", shown);
}
