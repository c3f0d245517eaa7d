//! Attacks of tenants on each other and on the platform, as users with the chart's roles. The API server accepts each of these
//! objects; each test checks the reported reason and that nothing else changed.
//!
//! `siteonly` may write FrappeSites and SiteBackups and nothing else, in `evil` and beside others in `platform`; `editor` has
//! the role edit in `evil`, `nsadmin` the role admin there. `victim` and `platform` are others'.

use std::time::Duration;

use frappe_crds::site::SitePhase;
use frappe_loadtest::cluster::Output;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::support::{World, ground, site};

const SITES: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: siteonly}
rules:
  - {apiGroups: [vyogo.tech], resources: [frappesites, sitebackups], verbs: [get, list, watch, create, update, patch, delete]}
";

/// The chart's roles, and which user has which role in which namespace.
fn roles() -> String {
    let rendered = include_str!("../../helm/install.yaml");
    let of_users = rendered.split("\n---").filter(|it| it.contains("aggregate-to-"));
    let mut all: Vec<String> = of_users.map(str::to_owned).collect();
    assert_eq!(all.len(), 3, "view, edit and admin");
    all.push(SITES.to_owned());
    let grants = [
        ("siteonly", "siteonly", "evil"),
        ("siteonly", "siteonly", "platform"),
        ("editor", "edit", "evil"),
        ("nsadmin", "admin", "evil"),
    ];
    for (user, role, namespace) in grants {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": format!("{user}-{role}"), "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
        });
        all.push(binding.to_string());
    }
    all.join("\n---\n")
}

/// Namespaces of a platform, a victim and a malicious tenant, each with a server and a bench; the platform's bench allows sites of
/// every namespace. The victim's site is Ready.
async fn start(purpose: &str) -> World {
    let world = World::start(purpose).await;
    for namespace in ["platform", "victim"] {
        world.with_bench(namespace).await;
    }
    world.cluster.apply(&ground("evil")).unwrap();
    world.cluster.apply(&roles()).unwrap();
    let open = json!({"spec": {
        "allowedSites": {"namespaces": {"from": "All"}}, "domainConfig": {"allowedSuffixes": ["example.com"]},
    }});
    let open = open.to_string();
    world.kubectl(&["patch", "frappebench", "bench", "-n", "platform", "--type", "merge", "-p", &open]);
    world.cluster.apply(&site("victim", "shop")).unwrap();
    world.wait_for_site_phase("victim", "shop", SitePhase::Ready).await;
    let may = || async {
        let ask = ["auth", "can-i", "create", "frappesites", "-n", "evil", "--as", "editor"];
        world.cluster.kubectl(&ask, "").ok()?.out.starts_with("yes").then_some(())
    };
    world.until("the roles exist", 60, may).await;
    world
}

/// Runs kubectl as a user.
fn by(world: &World, user: &str, arguments: &[&str], input: &str) -> Output {
    world.cluster.kubectl(&[&["--as", user], arguments].concat(), input).unwrap()
}

/// Applies objects as a user; the API server must accept them.
fn apply_as(world: &World, user: &str, objects: &[Value]) {
    for object in objects {
        let output = by(world, user, &["apply", "--server-side", "--force-conflicts", "-f", "-"], &object.to_string());
        assert!(output.success, "{user}: {}", output.errors);
    }
}

/// A site, with this spec merged into one on the platform's bench.
fn attack(namespace: &str, name: &str, more: &Value) -> Value {
    let mut whole = json!({
        "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "metadata": {"name": name, "namespace": namespace},
        "spec": {"siteName": format!("{name}.{namespace}.example.com"), "benchRef": {"name": "bench"}},
    });
    json_patch::merge(&mut whole["spec"], more);
    whole
}

fn look(world: &World, arguments: &[&str]) -> Value {
    let output = world.cluster.kubectl(&[arguments, &["-o", "json"]].concat(), "").unwrap();
    if output.success { serde_json::from_str(&output.out).unwrap() } else { Value::Null }
}

/// The fields of an object that must not change.
fn kept(world: &World, kind: &str, namespace: &str, name: &str) -> Value {
    let object = look(world, &["get", kind, name, "-n", namespace]);
    assert!(object["metadata"]["uid"].is_string(), "{kind} {namespace}/{name} exists");
    json!({
        "uid": object["metadata"]["uid"], "labels": object["metadata"]["labels"], "spec": object["spec"],
        "owners": object["metadata"]["ownerReferences"], "deleted": object["metadata"]["deletionTimestamp"],
    })
}

/// Every object of a site, in its namespace.
fn victims(world: &World, namespace: &str, stem: &str) -> Vec<Value> {
    let kinds = [
        ("databases.k8s.mariadb.com", "db"),
        ("users.k8s.mariadb.com", "user"),
        ("grants.k8s.mariadb.com", "grant"),
        ("secrets", "db-password"),
        ("ingresses", "ingress"),
    ];
    kinds.iter().map(|(kind, suffix)| kept(world, kind, namespace, &format!("{stem}-{suffix}"))).collect()
}

/// A site's Secret with the data of its database, as a tenant forges it.
fn forged(namespace: &str, name: &str, uid: &str, database: &str, user: &str, server: &str) -> Value {
    let slot = kube_sharding::Slot::of_uid(uid).to_string();
    json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"password": "of-my-choice", "identity": "forged"},
        "metadata": {
            "name": format!("{name}-db-password"), "namespace": namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "frappe-operator", "site": name, "bench": "bench", "k8s.mariadb.com/watch": "",
                "frappe.vyogo.tech/slot": slot, "frappe.vyogo.tech/site-uid": uid,
            },
            "annotations": {
                "frappe.vyogo.tech/identity": "forged", "frappe.vyogo.tech/database-kind": server,
                "frappe.vyogo.tech/database": database, "frappe.vyogo.tech/database-user": user,
            },
        },
    })
}

/// No object that the operator creates uses what a tenant wrote into a forged Secret..
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_secret_gives_no_access_to_a_database() {
    let world = start("ten-database").await;
    let victim = world.sites("victim").get("shop").await.unwrap().status.unwrap();
    let name = victim.database_name.clone().unwrap();
    let before = victims(&world, "victim", "shop");
    world.with_bench("evil").await;
    let variants = [
        ("root", "mysql", "root", "shared victim/shared"),
        ("account", "mysql", "mysql", "shared evil/shared"),
        ("name", &name, &name, "shared victim/shared"),
        ("named", &name, "x", "shared evil/shared"),
        ("own", "x", "x", "dedicated"),
        ("existing", "x", "x", "existing postgres"),
    ];
    for (variant, database, user, server) in variants {
        apply_as(&world, "editor", &[attack("evil", variant, &json!({"suspend": true}))]);
        let uid = world.sites("evil").get(variant).await.unwrap().uid().unwrap();
        apply_as(&world, "editor", &[forged("evil", variant, &uid, database, user, server)]);
        apply_as(&world, "editor", &[attack("evil", variant, &json!({"suspend": false}))]);
        let message = world.wait_for_site_reason("evil", variant, "SecretForeign").await;
        println!("C1 {variant} (database {database}, account {user}, {server}): SecretForeign: {message}");
        for kind in ["users.k8s.mariadb.com", "databases.k8s.mariadb.com", "grants.k8s.mariadb.com"] {
            let found = look(&world, &["get", kind, "-n", "evil"]);
            assert_eq!(found["items"], json!([]), "{variant}");
        }
    }
    // A Ready site keeps its decisions, whatever its Secret contains later.
    apply_as(&world, "editor", &[attack("evil", "served", &json!({}))]);
    world.wait_for_site_phase("evil", "served", SitePhase::Ready).await;
    let decided = world.sites("evil").get("served").await.unwrap().status.unwrap().database.unwrap();
    let annotate = |text: &str| {
        let said =
            by(&world, "editor", &["annotate", "--overwrite", "-n", "evil", "secret", "served-db-password", text], "");
        assert!(said.success, "{}", said.errors);
    };
    for (key, value, back) in [
        ("database", "mysql", decided.name.clone().unwrap()),
        ("database-kind", "shared victim/shared", "shared evil/shared".to_owned()),
        ("identity", victim.identity.as_deref().unwrap(), decided.identity.clone()),
    ] {
        annotate(&format!("frappe.vyogo.tech/{key}={value}"));
        let message = world.wait_for_site_reason("evil", "served", "SecretForeign").await;
        println!("C1 served, {key}: SecretForeign: {message}");
        annotate(&format!("frappe.vyogo.tech/{key}={back}"));
        world.wait_for_site_phase("evil", "served", SitePhase::Ready).await;
    }
    annotate("frappe.vyogo.tech/database-user=root");
    world.wait_for_site_reason("evil", "served", "SecretForeign").await;
    let user = look(&world, &["get", "users.k8s.mariadb.com", "served-user", "-n", "evil"]);
    assert_eq!(user["spec"]["name"], json!(decided.name), "the account is the decided one");
    assert_eq!(victims(&world, "victim", "shop"), before);
    statuses_are_protected(&world);
}

/// Decisions are recorded in the status, which tenants cannot write.
fn statuses_are_protected(world: &World) {
    let status = json!({"status": {"database": {"kind": "Shared", "identity": "x", "name": "mysql"}}}).to_string();
    for user in ["siteonly", "editor", "nsadmin"] {
        let patch = [
            "patch",
            "frappesite",
            "served",
            "-n",
            "evil",
            "--subresource",
            "status",
            "--type",
            "merge",
            "-p",
            &status,
        ];
        let refused = by(world, user, &patch, "");
        assert!(!refused.success && refused.errors.contains("forbidden"), "{user}: {refused:?}");
        let plain =
            by(world, user, &["patch", "frappesite", "served", "-n", "evil", "--type", "merge", "-p", &status], "");
        assert!(plain.success, "{}", plain.errors);
        let name = &look(world, &["get", "frappesite", "served", "-n", "evil"])["status"]["database"]["name"];
        assert_ne!(*name, json!("mysql"), "{user}: the API server ignores the status");
    }
    println!("status: siteonly, editor and nsadmin may not write it");
}

/// A site whose objects would have the names of existing objects is rejected, and its deletion removes none of them. R-23.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_gives_no_access_to_an_object() {
    let world = start("ten-name").await;
    let server = kept(&world, "mariadbs.k8s.mariadb.com", "platform", "shared");
    // C3: a shared server has the name of a site's dedicated server.
    for name in ["app-mariadb", "kept-mariadb"] {
        let labels = if name == "kept-mariadb" { json!({"site": "kept"}) } else { json!({}) };
        let server = json!({
            "apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "spec": {"storage": {"size": "1Gi"}, "image": "theirs"},
            "metadata": {"name": name, "namespace": "platform", "labels": labels},
        });
        world.cluster.apply(&server.to_string()).unwrap();
        let before = kept(&world, "mariadbs.k8s.mariadb.com", "platform", name);
        let attacker = name.trim_end_matches("-mariadb");
        let config = json!({"dbConfig": {"mode": "dedicated", "storageSize": "1Gi"}});
        apply_as(&world, "siteonly", &[attack("platform", attacker, &config)]);
        let message = world.wait_for_site_reason("platform", attacker, "WriteRejected").await;
        println!("C3 {name}: WriteRejected: {message}");
        by(&world, "siteonly", &["delete", "frappesite", attacker, "-n", "platform", "--wait=false"], "");
        world.wait_for_site_deletion("platform", attacker).await;
        assert_eq!(
            kept(&world, "mariadbs.k8s.mariadb.com", "platform", name),
            before,
            "unchanged, also after the deletion"
        );
        world.kubectl(&["delete", "mariadbs.k8s.mariadb.com", name, "-n", "platform"]);
    }
    assert_eq!(kept(&world, "mariadbs.k8s.mariadb.com", "platform", "shared"), server);
    identity_by_a_name(&world).await;
}

/// H1: sites of the bench's namespace whose names equal shortened names, or names of objects of sites of another namespace.
async fn identity_by_a_name(world: &World) {
    let foreign = json!({"benchRef": {"name": "bench", "namespace": "platform"}});
    world.cluster.apply(&attack("victim", "foreign", &foreign).to_string()).unwrap();
    world.wait_for_site_phase("victim", "foreign", SitePhase::Ready).await;
    let status = world.sites("victim").get("foreign").await.unwrap().status.unwrap();
    let stem = status.object_prefix.clone().unwrap();
    let before = victims(world, "platform", &stem);
    let refused = by(world, "siteonly", &["apply", "-f", "-"], &attack("platform", &stem, &json!({})).to_string());
    assert!(!refused.success && refused.errors.contains("must not end in -x and 24"), "{refused:?}");
    println!("H1 {stem}: {}", refused.errors.trim().split(": ").last().unwrap_or_default());

    // A long name, for which the names of objects are shortened, and a site with the shortened name.
    let long = "a-site-of-the-platform-whose-name-is-so-long-that-it-is-cut";
    world.cluster.apply(&attack("platform", long, &json!({"siteName": "long.example.com"})).to_string()).unwrap();
    world.wait_for_site_phase("platform", long, SitePhase::Ready).await;
    let secrets = look(world, &["get", "secrets", "-n", "platform"]);
    let names = secrets["items"].as_array().unwrap().iter().filter_map(|it| it["metadata"]["name"].as_str());
    let shortened =
        names.filter_map(|it| it.strip_suffix("-db-password")).find(|it| it.starts_with("a-site-of")).unwrap();
    let secret = kept(world, "secrets", "platform", &format!("{shortened}-db-password"));
    apply_as(world, "siteonly", &[attack("platform", shortened, &json!({"siteName": "thief.example.com"}))]);
    let message = world.wait_for_site_reason("platform", shortened, "SecretForeign").await;
    println!("H1 {shortened}: SecretForeign: {message}");
    let force = "frappe.vyogo.tech/force-delete=skip-job";
    by(world, "siteonly", &["annotate", "frappesite", shortened, "-n", "platform", force], "");
    by(world, "siteonly", &["delete", "frappesite", shortened, "-n", "platform", "--wait=false"], "");
    world.wait_for_site_deletion("platform", shortened).await;
    assert_eq!(kept(world, "secrets", "platform", &format!("{shortened}-db-password")), secret);
    assert_eq!(victims(world, "platform", &stem), before);
    world.wait_for_site_phase("victim", "foreign", SitePhase::Ready).await;
    world.wait_for_site_phase("platform", long, SitePhase::Ready).await;
}

/// H5: Jobs of sites of other namespaces release their job slots, and a tenant's own Jobs take none. R-15.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_jobs_take_no_job_slots_of_others() {
    let world = start("ten-budget").await;
    let one = json!({"spec": {"siteJobConcurrency": 1}}).to_string();
    world.kubectl(&["patch", "frappebench", "bench", "-n", "platform", "--type", "merge", "-p", &one]);
    let foreign = json!({"benchRef": {"name": "bench", "namespace": "platform"}});
    for name in ["f1", "f2", "f3"] {
        apply_as(&world, "siteonly", &[attack("evil", name, &foreign)]);
    }
    for name in ["f1", "f2", "f3"] {
        world.wait_for_site_phase("evil", name, SitePhase::Ready).await;
    }
    println!("H5: three sites of another namespace were created one after the other with one job slot");
    let mut jobs = Vec::new();
    for number in 0..64_u32 {
        let mut labels =
            json!({"app.kubernetes.io/managed-by": "frappe-operator", "bench": "bench", "site": format!("s{number}")});
        labels["frappe.vyogo.tech/slot"] = json!((number * 4).to_string());
        labels["frappe.vyogo.tech/site-namespace"] = json!("platform");
        labels["frappe.vyogo.tech/site-uid"] = json!(format!("uid-{number}"));
        let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
        jobs.push(json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": format!("flood-{number}"), "namespace": "evil", "labels": labels},
            "spec": {"suspend": true, "template": {"spec": pod}},
        }));
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": jobs});
    let flood = by(&world, "editor", &["create", "-f", "-"], &list.to_string());
    assert!(flood.success, "{}", flood.errors);
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.cluster.apply(&attack("platform", "after", &json!({})).to_string()).unwrap();
    world.wait_for_site_phase("platform", "after", SitePhase::Ready).await;
    println!("H5: 64 suspended Jobs of a tenant blocked no site of the platform");
    sites_that_are_not_allowed_do_not_block(&world).await;
}

/// M7: a site that the bench does not allow does not block the deletion of the bench.
async fn sites_that_are_not_allowed_do_not_block(world: &World) {
    world.kubectl(&["delete", "frappesite", "shop", "-n", "victim", "--wait=false"]);
    world.wait_for_site_deletion("victim", "shop").await;
    let foreign = json!({"benchRef": {"name": "bench", "namespace": "victim"}});
    let mut labelled = attack("evil", "squatter", &foreign);
    labelled["metadata"]["labels"] = json!({
        "frappe.vyogo.tech/bench": "bench", "frappe.vyogo.tech/bench-namespace": "victim", "frappe.vyogo.tech/slot": "7",
    });
    labelled["metadata"]["finalizers"] = json!(["vyogo.tech/site-finalizer"]);
    apply_as(world, "siteonly", &[labelled, attack("evil", "plain", &foreign)]);
    for name in ["squatter", "plain"] {
        let message = world.wait_for_site_reason("evil", name, "BenchNotPermitted").await;
        println!("M7 {name}: BenchNotPermitted: {message}");
    }
    world.kubectl(&["delete", "frappebench", "bench", "-n", "victim", "--wait=false"]);
    let gone = || async { look(world, &["get", "frappebench", "bench", "-n", "victim"]).is_null().then_some(()) };
    world.until("the bench is deleted", 60, gone).await;
    println!("M7: the bench was deleted while two sites that it does not allow referenced it");
}
