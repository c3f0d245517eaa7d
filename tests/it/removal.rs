//! Deletion of a site while something that it needs does not exist, and which objects remain.

use frappe_crds::site::SitePhase;
use serde_json::json;

use crate::support::{World, ground, inventory, site, until};

/// The objects of a site in the cluster, Events aside.
fn left(world: &World, namespace: &str, name: &str) -> Vec<String> {
    inventory(world, namespace).into_iter().filter(|line| line.contains(name)).collect()
}

/// Waits until only these objects of a site remain: the garbage collector deletes the Jobs of a deleted site later.
async fn wait_until_left(world: &World, namespace: &str, name: &str, expected: &[&str]) {
    let settled = || async { (left(world, namespace, name) == expected).then_some(()) };
    if until("the garbage collector has finished", 90, settled).await.is_none() {
        assert_eq!(left(world, namespace, name), expected);
    }
}

fn delete(world: &World, namespace: &str, name: &str) {
    world.kubectl(&["delete", "frappesite", name, "-n", namespace, "--wait=false"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_completes_or_reports_what_to_do() {
    let world = World::start("removal").await;
    a_deletion_completes_whatever_is_missing(&world).await;
    a_deletion_whose_job_fails_waits_for_the_user(&world).await;
}

/// R-10: whatever is missing, a deletion completes or reports what to do, and removes exactly what it may.
async fn a_deletion_completes_whatever_is_missing(world: &World) {
    world.with_bench("gone").await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "account", "namespace": "gone"},
                        "stringData": {"username": "u", "password": "p", "host": "h"}});
    world.cluster.apply(&secret.to_string()).unwrap();
    let external = "  dbConfig: {provider: external, connectionSecretRef: {name: account}}\n";
    let sites = [
        ("plain", ""),
        ("foreground", ""),
        ("kept", "  deletionPolicy: Retain\n"),
        ("dedicated", "  dbConfig: {mode: dedicated}\n"),
        ("serverless", "  dbConfig: {mode: dedicated}\n"),
        ("external", external),
        ("keyless", external),
        ("secretless", ""),
    ];
    for (name, spec) in sites {
        world.cluster.apply(&format!("{}{spec}", site("gone", name))).unwrap();
    }
    for (name, _) in sites {
        world.wait_for_site_phase("gone", name, SitePhase::Ready).await;
    }
    for name in ["plain", "dedicated", "external"] {
        delete(world, "gone", name);
        world.wait_for_site_deletion("gone", name).await;
        wait_until_left(world, "gone", name, &[]).await;
        println!("{name}: nothing is left");
    }
    world.kubectl(&["delete", "frappesite", "foreground", "-n", "gone", "--wait=false", "--cascade=foreground"]);
    world.wait_for_site_deletion("gone", "foreground").await;
    wait_until_left(world, "gone", "foreground", &[]).await;
    let events = world.kubectl(&["get", "events", "-n", "gone", "-o", "name"]);
    println!("foreground: nothing is left");
    assert!(!events.contains("foreground-delete-2"), "one Job is enough: {events}");
    let servers = world.kubectl(&["get", "mariadbs.k8s.mariadb.com", "-n", "gone", "-o", "name"]);
    assert!(!servers.contains("dedicated-mariadb") && servers.contains("/shared"), "{servers}");

    delete(world, "gone", "kept");
    world.wait_for_site_deletion("gone", "kept").await;
    println!("kept (Retain): {:?}", left(world, "gone", "kept"));
    let expected = [
        "Database kept-db",
        "Grant kept-grant",
        "Secret kept-admin-password",
        "Secret kept-db-password",
        "User kept-user",
    ];
    wait_until_left(world, "gone", "kept", &expected).await;

    world.kubectl(&["delete", "mariadbs.k8s.mariadb.com", "serverless-mariadb", "-n", "gone", "--wait=false"]);
    delete(world, "gone", "serverless");
    // The operator recreates the server until it observes the deletion; then the files and the server are removed.
    world.wait_for_site_deletion("gone", "serverless").await;
    wait_until_left(world, "gone", "serverless", &[]).await;
    println!("serverless: nothing is left");

    lost_secrets(world, &secret.to_string()).await;
}

/// Without the account no Job can log in: the deletion waits for the account or for the annotation.
async fn lost_secrets(world: &World, account: &str) {
    world.kubectl(&["delete", "secret", "account", "-n", "gone"]);
    delete(world, "gone", "keyless");
    println!("keyless: {}", world.wait_for_site_reason("gone", "keyless", "DeletionBlocked").await);
    world.cluster.apply(account).unwrap();
    world.wait_for_site_deletion("gone", "keyless").await;
    wait_until_left(world, "gone", "keyless", &[]).await;

    world.kubectl(&["delete", "secret", "secretless-db-password", "-n", "gone"]);
    world.wait_for_site_reason("gone", "secretless", "SecretLost").await;
    delete(world, "gone", "secretless");
    println!("secretless: {}", world.wait_for_site_reason("gone", "secretless", "DeletionBlocked").await);
    world.kubectl(&[
        "annotate",
        "frappesite",
        "secretless",
        "-n",
        "gone",
        "frappe.vyogo.tech/force-delete=skip-database",
    ]);
    world.wait_for_site_deletion("gone", "secretless").await;
    wait_until_left(world, "gone", "secretless", &[]).await;
}

/// R-10: a failed delete Job blocks the deletion, and the site reports what to do; a missing bench or a deleted namespace does not
/// block it.
async fn a_deletion_whose_job_fails_waits_for_the_user(world: &World) {
    world.cluster.apply(&ground("forced")).unwrap();
    world.with_bench("forced").await;
    world.cluster.apply(&site("forced", "failing-stuck")).unwrap();
    world.cluster.apply(&site("forced", "orphan")).unwrap();
    world.wait_for_site_phase("forced", "orphan", SitePhase::Ready).await;
    // Every Job of this site fails.
    world.wait_for_site_reason("forced", "failing-stuck", "InitRetrying").await;
    delete(world, "forced", "failing-stuck");
    let failed = || async {
        let jobs = world.kubectl(&["get", "jobs", "-n", "forced", "-o", "name"]);
        let site = world.sites("forced").get("failing-stuck").await.ok()?.status?;
        (jobs.contains("failing-stuck-delete") && site.conditions.iter().any(|it| it.reason.starts_with("Deletion")))
            .then_some(())
    };
    world.until("the delete Job fails", 120, failed).await;
    let kept = left(world, "forced", "failing-stuck");
    assert!(
        kept.iter().any(|it| it == "Database failing-stuck-db")
            && kept.iter().any(|it| it == "Secret failing-stuck-db-password"),
        "{kept:?}"
    );
    world.kubectl(&[
        "annotate",
        "frappesite",
        "failing-stuck",
        "-n",
        "forced",
        "frappe.vyogo.tech/force-delete=skip-job",
    ]);
    world.wait_for_site_deletion("forced", "failing-stuck").await;
    let after =
        || async { left(world, "forced", "failing-stuck").iter().all(|it| it.starts_with("Job")).then_some(()) };
    world.until("nothing but finished Jobs is left", 60, after).await;
    println!("stuck, forced: {:?}", left(world, "forced", "failing-stuck"));

    without_bench(world).await;

    world.cluster.apply(&ground("forced")).unwrap();
    world.with_bench("forced").await;
    world.cluster.apply(&site("forced", "last")).unwrap();
    world.wait_for_site_phase("forced", "last", SitePhase::Ready).await;
    world.kubectl(&["delete", "namespace", "forced", "--wait=false"]);
    let gone = || async { (!world.cluster.kubectl(&["get", "namespace", "forced"], "").ok()?.success).then_some(()) };
    world.until("the namespace and its site are deleted", 120, gone).await;
    let domains = world.kubectl(&["get", "frappedomains", "-o", "name"]);
    assert_eq!(domains.trim(), "", "a claim is left");
    println!("a deleted namespace: its site is deleted, no claim is left");
}

/// A bench whose finalizer a user removed: no Job can run, so the MariaDB operator drops the database.
async fn without_bench(world: &World) {
    world.cluster.apply(&site("forced", "benchless")).unwrap();
    world.kubectl(&["delete", "frappebench", "bench", "-n", "forced", "--wait=false"]);
    world.kubectl(&[
        "patch",
        "frappebench",
        "bench",
        "-n",
        "forced",
        "--type",
        "merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ]);
    world.wait_for_site_reason("forced", "benchless", "BenchNotFound").await;
    for name in ["benchless", "orphan"] {
        delete(world, "forced", name);
        world.wait_for_site_deletion("forced", name).await;
        let gone = || async { left(world, "forced", name).iter().all(|it| it.starts_with("Job")).then_some(()) };
        world.until("nothing but finished Jobs is left", 60, gone).await;
    }
    println!("without their bench: nothing is left");
}
