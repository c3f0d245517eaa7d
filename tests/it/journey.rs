//! The whole life of a site: creation, no changes, drift, deletion. The requests that each costs, and that no secret is exposed.

use std::{collections::BTreeMap, fs, time::Duration};

use frappe_crds::site::SitePhase;
use frappe_loadtest::{
    audit::{self, Request},
    process::{Operator, Options},
};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, ResourceExt, api::ListParams};

use crate::support::{World, inventory, program, site, until};

/// Seconds without a request while nothing changes.
const QUIET_SECONDS: u64 = 10;
/// Requests of a site from creation to Ready on shared MariaDB, Events aside. R-4 in ARCHITECTURE.md lists them.
const REQUESTS_PER_SITE_MAX: usize = 12;

fn print(title: &str, requests: &[Request]) {
    println!("{title}: {} requests", requests.len());
    for ((verb, resource), count) in audit::count(requests) {
        println!("  {count:>4} {verb} {resource}");
    }
}

/// Waits until the operator has sent no request for a second.
async fn settled(world: &World) {
    let mut last = usize::MAX;
    for _ in 0..60 {
        let work = audit::requests(&world.cluster.logs, Timestamp::UNIX_EPOCH).unwrap();
        let now = work.iter().filter(|it| it.is_work_write() || (it.is_work() && it.verb != "watch")).count();
        if now == last {
            return;
        }
        last = now;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("the operator does not stop sending requests");
}

/// R-4 (requests to Ready), R-5 (no changes), R-6 (drift), R-9 (secrets), R-10 (deletion).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_is_created_kept_and_deleted() {
    let mut world = World::start("journey").await;
    world.with_bench("life").await;
    settled(&world).await;

    let begun = Timestamp::now();
    let names = ["shop", "news", "blog"];
    for name in names {
        world.cluster.apply(&site("life", name)).unwrap();
    }
    for name in names {
        let ready = world.wait_for_site_phase("life", name, SitePhase::Ready).await;
        let status = ready.status.unwrap();
        assert_eq!(status.site_url.as_deref(), Some(format!("http://{name}.life.example.com").as_str()));
        assert!(status.bench_ready && status.database_ready && status.initialized);
        assert_eq!(status.observed_generation, ready.metadata.generation);
        assert!(status.conditions.iter().filter(|it| it.type_ != "Progressing").all(|it| it.status == "True"));
    }
    settled(&world).await;
    requests_to_ready(&world, begun, &names);
    at_rest(&world).await;
    a_restart_writes_nothing(&mut world).await;
    no_secret_shows(&world).await;
    drift(&world).await;
    deletion_with_a_kill(&mut world).await;
}

fn requests_to_ready(world: &World, begun: Timestamp, names: &[&str]) {
    let requests = audit::requests(&world.cluster.logs, begun).unwrap();
    for name in names {
        let own = |it: &&Request| {
            it.resource != "events" && (it.name.starts_with(name) || (it.verb == "create" && it.name.is_empty()))
        };
        let of_site: Vec<Request> = requests.iter().filter(own).filter(|it| it.verb != "watch").cloned().collect();
        print(&format!("site {name} from creation to Ready"), &of_site);
        assert!(of_site.iter().all(|it| it.code < 400), "a request failed: {of_site:?}");
        assert!(of_site.len() <= REQUESTS_PER_SITE_MAX, "{name} took {} requests", of_site.len());
    }
}

async fn at_rest(world: &World) {
    let begun = Timestamp::now();
    tokio::time::sleep(Duration::from_secs(QUIET_SECONDS)).await;
    let requests = audit::requests(&world.cluster.logs, begun).unwrap();
    print(&format!("{QUIET_SECONDS} s without a change"), &requests);
    let rest: Vec<_> = requests.iter().filter(|it| it.verb != "watch" && it.is_work()).collect();
    assert!(rest.is_empty(), "requests without a change: {rest:?}");
}

/// R-5: a new process lists once and writes nothing.
async fn a_restart_writes_nothing(world: &mut World) {
    assert!(world.operator.stop().await.unwrap().success());
    let begun = Timestamp::now();
    world.operator = Operator::start(program(), &world.cluster, &Options::default()).unwrap();
    world.operator.ready().await.unwrap();
    settled(world).await;
    let requests = audit::requests(&world.cluster.logs, begun).unwrap();
    print("a restart", &requests);
    let writes: Vec<_> = requests.iter().filter(|it| it.is_work_write()).collect();
    assert!(writes.is_empty(), "a restart wrote {writes:?}");
}

/// Searches for every generated password everywhere except in Secrets.
async fn no_secret_shows(world: &World) {
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), "life");
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for secret in secrets.list(&ListParams::default()).await.unwrap() {
        for (key, ByteString(bytes)) in secret.data.clone().unwrap_or_default() {
            if ["password", "encryption-key"].contains(&key.as_str()) {
                values.insert(format!("{}/{key}", secret.name_any()), String::from_utf8(bytes).unwrap());
            }
        }
    }
    let what = "password, encryption key and admin password of each site, and the bench's password of Redis";
    assert_eq!(values.len(), 3 * 3 + 1, "{what}");
    let kinds = "jobs,pods,events,events.v1.events.k8s.io,configmaps,ingresses,deployments,statefulsets,frappesites,frappebenches,\
                 databases.k8s.mariadb.com,users.k8s.mariadb.com,grants.k8s.mariadb.com";
    let mut places = vec![
        ("objects of every kind but Secrets".to_owned(), world.kubectl(&["get", kinds, "-A", "-o", "yaml"])),
        ("the operator's logs".to_owned(), logs(world)),
        ("the operator's metrics".to_owned(), world.operator.http("/metrics").await.unwrap()),
    ];
    for file in ["environ", "cmdline"] {
        let bytes = fs::read(format!("/proc/{}/{file}", world.operator.id())).unwrap();
        places.push((format!("/proc/PID/{file} of the operator"), String::from_utf8_lossy(&bytes).into_owned()));
    }
    places.push(("the audit log".to_owned(), fs::read_to_string(world.cluster.logs.join("audit.log")).unwrap()));
    for (place, text) in &places {
        assert!(!text.is_empty(), "{place} is empty: nothing was searched");
        let encoded = |value: &str| base64(value);
        let found: Vec<_> = values
            .iter()
            .filter(|(_, value)| text.contains(*value) || text.contains(&encoded(value)))
            .map(|it| it.0)
            .collect();
        assert!(found.is_empty(), "{place} shows {found:?}");
        println!("searched {:>8} bytes of {place} for {} passwords and keys: none found", text.len(), values.len());
    }
}

/// Logs of every operator that ran in the cluster.
fn logs(world: &World) -> String {
    let files = fs::read_dir(&world.cluster.logs).unwrap().filter_map(Result::ok);
    let ours = files.filter(|it| it.file_name().to_string_lossy().starts_with("operator-"));
    ours.map(|it| fs::read_to_string(it.path()).unwrap()).collect()
}

fn base64(text: &str) -> String {
    serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap().as_str().unwrap().to_owned()
}

/// Objects in namespace `life` that are edited: kind and name, patch, and whether the object is deleted too.
const EDITS: [(&str, &str, bool); 13] = [
    ("ingress/shop-ingress", r#"{"spec":{"rules":[{"host":"evil.example.com"}]}}"#, true),
    ("databases.k8s.mariadb.com/shop-db", r#"{"spec":{"cleanupPolicy":"Delete"}}"#, true),
    ("users.k8s.mariadb.com/shop-user", r#"{"spec":{"maxUserConnections":1}}"#, true),
    ("grants.k8s.mariadb.com/shop-grant", r#"{"spec":{"grantOption":true}}"#, true),
    ("frappedomain/shop.life.example.com", r#"{"metadata":{"labels":{"frappe.vyogo.tech/slot":null}}}"#, true),
    ("secret/shop-db-password", r#"{"metadata":{"labels":{"frappe.vyogo.tech/slot":null}}}"#, false),
    ("frappesite/shop", r#"{"metadata":{"labels":{"frappe.vyogo.tech/slot":"999"}}}"#, false),
    ("service/bench-nginx", r#"{"spec":{"ports":[{"port":8080,"name":"other"}]}}"#, true),
    ("deployment/bench-gunicorn", r#"{"spec":{"replicas":5}}"#, true),
    ("statefulset/bench-redis-queue", r#"{"spec":{"replicas":2}}"#, true),
    ("configmap/bench-site-runner", r#"{"data":{"site_runner.py":"import evil"}}"#, true),
    ("pvc/bench-sites", r#"{"metadata":{"labels":{"app":"other"}}}"#, false),
    ("job/bench-configure", r#"{"metadata":{"annotations":{"frappe.vyogo.tech/applied":"other"}}}"#, true),
];

/// One object of each kind is edited, then deleted; each is restored.
async fn drift(world: &World) {
    for (object, patch, delete) in EDITS {
        let look = |what: &'static str| world.cluster.kubectl(&["get", object, "-n", "life", "-o", what], "").unwrap();
        let whole = "jsonpath={.spec}{.data}{.metadata.labels}";
        let writes = |since| {
            audit::requests(&world.cluster.logs, since)
                .unwrap()
                .into_iter()
                .filter(Request::is_work_write)
                .collect::<Vec<_>>()
        };
        let (before, uid) = (look(whole).out, look("jsonpath={.metadata.uid}").out);
        let edited = Timestamp::now();
        world.kubectl(&["patch", object, "-n", "life", "--type", "merge", "-p", patch]);
        let same = || async { (normal(&look(whole).out) == normal(&before)).then_some(()) };
        let back = until(object, 20, same).await;
        assert!(
            back.is_some(),
            "{object} was edited and not restored: {}\n{}",
            look(whole).out,
            world.operator.log_tail()
        );
        settled(world).await;
        println!("drift {object}: edited, restored with {}", listed(&writes(edited)));
        assert!(!writes(edited).is_empty(), "{object}: the edit was not observed");
        if !delete {
            continue;
        }
        let uid = if object.starts_with("job/") { look("jsonpath={.metadata.uid}").out } else { uid };
        let deleted = Timestamp::now();
        world.kubectl(&["delete", object, "-n", "life", "--wait=false"]);
        let made_anew = || async {
            let found = look("jsonpath={.metadata.uid}");
            (found.success && !found.out.is_empty() && found.out != uid && normal(&look(whole).out) == normal(&before))
                .then_some(())
        };
        assert!(
            until(object, 30, made_anew).await.is_some(),
            "{object} was deleted and not recreated\n{}",
            world.operator.log_tail()
        );
        settled(world).await;
        println!("drift {object}: deleted, recreated with {}", listed(&writes(deleted)));
    }
    let site = world.wait_for_site_phase("life", "shop", SitePhase::Ready).await;
    assert!(site.status.unwrap().initialized);
    lost_secret(world).await;
}

fn listed(writes: &[Request]) -> String {
    let table: Vec<String> = audit::count(writes)
        .into_iter()
        .map(|((verb, resource), count)| format!("{count} {verb} {resource}"))
        .collect();
    format!("{} writes ({})", writes.len(), table.join(", "))
}

/// Without the fields that the cluster sets in each new Service or Job.
fn normal(spec: &str) -> String {
    if let Some((head, rest)) = spec.split_once("\"clusterIP\"") {
        return format!("{head}{}", rest.split_once("\"internalTrafficPolicy\"").map_or(rest, |it| it.1));
    }
    // The uid of a Job is in its selector and in its pods' labels.
    let uid = spec.split_once("controller-uid\":\"").and_then(|it| it.1.split_once('"')).map(|it| it.0);
    uid.map_or_else(|| spec.to_owned(), |uid| spec.replace(uid, "UID"))
}

/// A lost password is not replaced; the site continues once it is restored.
async fn lost_secret(world: &World) {
    let saved = world.kubectl(&["get", "secret", "news-db-password", "-n", "life", "-o", "json"]);
    let mut secret: serde_json::Value = serde_json::from_str(&saved).unwrap();
    for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        secret["metadata"].as_object_mut().unwrap().remove(field);
    }
    world.kubectl(&["delete", "secret", "news-db-password", "-n", "life"]);
    let message = world.wait_for_site_reason("life", "news", "SecretLost").await;
    assert!(message.contains("news-db-password") && message.contains("restore the Secret"), "{message}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let again = world.cluster.kubectl(&["get", "secret", "news-db-password", "-n", "life"], "").unwrap();
    assert!(!again.success, "a lost password was replaced");
    let restored = world.cluster.kubectl(&["apply", "-f", "-"], &secret.to_string()).unwrap();
    assert!(restored.success, "{}", restored.errors);
    world.wait_for_site_phase("life", "news", SitePhase::Ready).await;
    println!("drift secret/news-db-password: SecretLost, and Ready again when it was restored");
}

/// The operator is killed during the deletion; another completes it; other sites are not changed.
async fn deletion_with_a_kill(world: &mut World) {
    let untouched =
        |lines: Vec<String>| -> Vec<String> { lines.into_iter().filter(|it| !it.contains(" shop")).collect() };
    let before = untouched(inventory(world, "life"));
    world.kubectl(&["delete", "frappesite", "shop", "-n", "life", "--wait=false"]);
    let job_made = || async {
        world.cluster.kubectl(&["get", "job", "shop-delete", "-n", "life"], "").ok()?.success.then_some(())
    };
    assert!(until("the delete Job", 20, job_made).await.is_some());
    world.operator.kill().unwrap();
    println!("killed the operator while the delete Job ran");
    world.operator =
        Operator::start(program(), &world.cluster, &Options { lease_seconds: Some(3), ..Options::default() }).unwrap();
    world.operator.ready().await.unwrap();
    world.wait_for_site_deletion("life", "shop").await;
    let settled = || async { inventory(world, "life").iter().all(|it| !it.contains(" shop")).then_some(()) };
    assert!(until("nothing is left of shop", 30, settled).await.is_some(), "left: {:#?}", inventory(world, "life"));
    assert_eq!(before, untouched(inventory(world, "life")), "an object of another site was changed");
    println!("deletion: {} objects of other sites unchanged, none of shop left", before.len());
}
