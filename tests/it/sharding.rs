//! Several replicas on a real API server: they share slots, take over and release them, and nothing is written twice.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use frappe_crds::{FrappeSite, site::SitePhase};
use frappe_loadtest::{
    audit,
    process::{NAMESPACE, Operator, Options},
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::DynamicObject,
};
use serde_json::{Value, json};

use crate::support::{World, kubectl, program, site, until};

/// Seconds of the Leases in these tests.
const LEASE_SECONDS: u64 = 4;
/// Sites that the replicas share.
const SITES: usize = 24;

fn member(name: &str) -> Options {
    Options { lease_seconds: Some(LEASE_SECONDS), pod_name: Some(name.to_owned()), ..Options::default() }
}

/// `frappe-operator shards` as JSON.
fn shards(world: &World) -> Value {
    serde_json::from_str(&command(world, &["shards", "--json", "--namespace", NAMESPACE])).unwrap()
}

fn command(world: &World, arguments: &[&str]) -> String {
    let output = Command::new(program()).args(arguments).env("KUBECONFIG", &world.cluster.kubeconfig).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Slots of each live member, by its pod.
fn loads(report: &Value) -> Vec<(String, u64)> {
    let members = report["members"].as_array().unwrap().iter();
    let alive = members.filter(|it| it["state"] != "gone" && it["slots"] != 0);
    alive.map(|it| (it["pod"].as_str().unwrap().to_owned(), it["slots"].as_u64().unwrap())).collect()
}

/// Waits until so many members own all slots evenly and there is a coordinator; returns how long it took.
async fn shared_by(world: &World, members: usize, most_seconds: u64) -> Duration {
    let begun = Instant::now();
    let what = format!("{members} members share all slots evenly");
    let found = until(&what, most_seconds, || async {
        let report = shards(world);
        let loads: Vec<u64> = loads(&report).into_iter().map(|(_, load)| load).collect();
        let even = loads.iter().max()? - loads.iter().min()? <= 1;
        (report["unownedSlots"] == 0 && loads.len() == members && even && !report["coordinator"].is_null())
            .then_some(())
    })
    .await;
    assert!(found.is_some(), "{what}: {}", shards(world));
    begun.elapsed()
}

async fn all_ready(world: &World) {
    for index in 0..SITES {
        world.wait_for_site_phase("fleet", &format!("site-{index}"), SitePhase::Ready).await;
    }
}

/// S-1, S-4, S-10: replicas share the sites, a handover writes to no site, and only the slot's owner writes a site's status.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_take_over_and_release_slots() {
    let mut world = World::start_with("sharding", &member("one")).await;
    world.with_bench("fleet").await;
    let growing = Timestamp::now();
    let mut second = Operator::start(program(), &world.cluster, &member("two")).unwrap();
    let mut third = Operator::start(program(), &world.cluster, &member("three")).unwrap();
    println!("1 -> 3 members: {:?}", shared_by(&world, 3, 30).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(lists_by(&world, "one", growing), [], "known objects are not listed again");
    let sites: String = (0..SITES).map(|index| site("fleet", &format!("site-{index}"))).collect();
    let begun = Timestamp::now();
    world.cluster.apply(&sites).unwrap();
    all_ready(&world).await;
    each_writes_its_own(&world, begun);
    shards_command_shows_owners(&world).await;

    labels_are_restored(&world).await;

    let killed = Timestamp::now();
    second.kill().unwrap();
    let took = shared_by(&world, 2, LEASE_SECONDS + 10).await;
    println!("kill -9: {took:?} until two share evenly (lease: {LEASE_SECONDS} s)");

    // Moved sites are reconciled without a write.
    lists_are_over(&world, killed).await;
    let begun = Timestamp::now();
    assert!(third.stop().await.unwrap().success(), "a clean stop succeeds: {}", third.log_tail());
    println!("clean stop: {:?} until one owns all", shared_by(&world, 1, 5).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let written: Vec<_> = audit::requests(&world.cluster.logs, begun)
        .unwrap()
        .into_iter()
        .filter(audit::Request::is_work_write)
        .collect();
    assert!(written.is_empty(), "a handover of settled sites wrote {written:?}");
    let lists = lists_by(&world, "one", begun);
    println!("lists by members that gained slots: {lists:?}");
    assert!(lists.iter().all(|(_, count)| *count == 1), "gained slots are listed once: {lists:?}");

    a_paused_member_rejoins(&world).await;
    a_lost_lease_ends_an_incarnation(&world).await;
    a_deleted_map_is_recreated(&world).await;
    world.cluster.apply("apiVersion: vyogo.tech/v1alpha1\nkind: FrappeSite\nmetadata: {name: late, namespace: fleet}\nspec: {siteName: late.example.com, benchRef: {name: bench}}\n").unwrap();
    world.wait_for_site_phase("fleet", "late", SitePhase::Ready).await;
    assert!(world.operator.stop().await.unwrap().success());
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), NAMESPACE);
    assert!(leases.get_opt("frappe-operator-one").await.unwrap().is_none(), "a clean stop deletes its Lease");
}

/// How often a member listed each kind: S-8.
fn lists_by(world: &World, pod: &str, begun: Timestamp) -> Vec<(String, usize)> {
    let requests = audit::requests(&world.cluster.logs, begun).unwrap();
    let lists: Vec<_> = requests.into_iter().filter(|it| it.pod == pod && it.verb == "list" && it.is_work()).collect();
    audit::count(&lists).into_iter().map(|((_, resource), count)| (resource, count)).collect()
}

/// Waits until both remaining members have listed the slots that they gained since then, and no list was sent for two seconds.
async fn lists_are_over(world: &World, gained: Timestamp) {
    let quiet = || async {
        let lately = Timestamp::now() - jiff::SignedDuration::from_secs(2);
        let over = |pod: &&str| !lists_by(world, pod, gained).is_empty() && lists_by(world, pod, lately).is_empty();
        ["one", "three"].iter().all(over).then_some(())
    };
    world.until("gained slots are listed", 60, quiet).await;
}

fn each_writes_its_own(world: &World, begun: Timestamp) {
    let requests = audit::requests(&world.cluster.logs, begun).unwrap();
    let mut writers = std::collections::BTreeMap::<String, usize>::new();
    for request in requests.iter().filter(|it| it.resource == "frappesites/status" && it.code == 200) {
        *writers.entry(request.pod.clone()).or_default() += 1;
    }
    println!("status writes of {SITES} sites by member: {writers:?}");
    assert_eq!(writers.len(), 3, "every member writes");
    let refused: Vec<_> = requests.iter().filter(|it| it.is_work_write() && it.code >= 400).collect();
    assert!(refused.is_empty(), "conflicting writes of members: {refused:?}");
}

/// S-7: a missing or wrong label delays a site, but no change is lost: its owner restores the label.
async fn labels_are_restored(world: &World) {
    let label = frappe_operator::parts::SLOT;
    for (name, change) in
        [("site-1", format!("{label}-")), ("site-2", format!("{label}=999")), ("site-3", format!("{label}=000"))]
    {
        let get = || world.kubectl(&["get", "frappesite", name, "-n", "fleet", "-o", "jsonpath={.metadata.labels}"]);
        let before = get();
        world.kubectl(&["label", "frappesite", name, "-n", "fleet", "--overwrite", &change]);
        let back =
            until(&format!("the label of {name} is restored"), 10, || async { (get() == before).then_some(()) }).await;
        assert!(back.is_some(), "{change}: {}", get());
        let edited = Instant::now();
        world.kubectl(&[
            "patch",
            "frappesite",
            name,
            "-n",
            "fleet",
            "--type=merge",
            "-p",
            r#"{"spec":{"deletionProtection":false}}"#,
        ]);
        world.wait_for_site_phase("fleet", name, SitePhase::Ready).await;
        assert!(edited.elapsed() < Duration::from_secs(10));
    }
}

async fn shards_command_shows_owners(world: &World) {
    let table = command(world, &["shards", "--namespace", NAMESPACE]);
    println!("{table}");
    assert!(table.contains("* coordinator: "), "{table}");
    let owner = command(world, &["shards", "--namespace", NAMESPACE, "owner", "fleet/site-0"]);
    assert!(["one", "two", "three"].contains(&owner.trim()), "{owner}");
    let answer = world.operator.http("/shards").await.unwrap();
    let report: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(report["unownedSlots"], 0);
    let metrics = world.operator.http("/metrics").await.unwrap();
    for name in
        ["frappe_operator_shard_slots ", "frappe_operator_fleet_unowned_slots 0", "frappe_operator_shard_stale_sites 0"]
    {
        assert!(metrics.contains(name), "{name}");
    }
    let events = world.kubectl(&["get", "events", "-n", NAMESPACE, "--field-selector", "reason=SlotsTakenOver"]);
    assert!(events.contains("slots over from"), "{events}");
}

/// M-3, M-4: a member that was paused for three lease durations is fenced, and joins again as a new incarnation.
async fn a_paused_member_rejoins(world: &World) {
    let paused = Operator::start(program(), &world.cluster, &member("four")).unwrap();
    shared_by(world, 2, 20).await;
    let before = incarnation(world, "four").await;
    paused.signal("STOP").unwrap();
    shared_by(world, 1, LEASE_SECONDS + 10).await;
    tokio::time::sleep(Duration::from_secs(2 * LEASE_SECONDS)).await;
    paused.signal("CONT").unwrap();
    shared_by(world, 2, 20).await;
    assert_ne!(incarnation(world, "four").await, before, "a fenced incarnation never acts again");
    drop(paused);
    shared_by(world, 1, LEASE_SECONDS + 10).await;
}

async fn incarnation(world: &World, pod: &str) -> String {
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), NAMESPACE);
    let lease = leases.get(&format!("frappe-operator-{pod}")).await.unwrap();
    lease.spec.unwrap().holder_identity.unwrap()
}

/// M-1: a PUT by its former holder does not recreate a deleted Lease; the process joins as a new incarnation.
async fn a_lost_lease_ends_an_incarnation(world: &World) {
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), NAMESPACE);
    let former = leases.get("frappe-operator-one").await.unwrap();
    leases.delete("frappe-operator-one", &DeleteParams::default()).await.unwrap();
    let revived = leases.replace("frappe-operator-one", &PostParams::default(), &former).await;
    assert!(matches!(revived, Err(kube::Error::Api(status)) if status.code == 409), "a PUT with a uid does not create");
    shared_by(world, 1, 3 * LEASE_SECONDS).await;
    assert_ne!(Some(incarnation(world, "one").await), former.spec.unwrap().holder_identity);
}

/// A slot map that was deleted despite its finalizer is recreated, and grants no slots for one lease duration.
async fn a_deleted_map_is_recreated(world: &World) {
    let names = frappe_operator::parts::names(NAMESPACE);
    let maps: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), NAMESPACE, &names.map_resource());
    let former = maps.get("frappe-operator").await.unwrap();
    maps.delete("frappe-operator", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let kept = maps.get("frappe-operator").await.unwrap();
    assert_eq!(kept.uid(), former.uid(), "its finalizer keeps it");
    let nothing = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("frappe-operator", &PatchParams::default(), &nothing).await.unwrap();
    let gone = Instant::now();
    shared_by(world, 1, 5 * LEASE_SECONDS).await;
    assert!(gone.elapsed() >= Duration::from_secs(LEASE_SECONDS), "ownership under the old map must have ended first");
    let next = maps.get("frappe-operator").await.unwrap();
    assert_ne!(next.uid(), former.uid());
    let epoch = |map: &DynamicObject| map.data["spec"]["epochs"][0].as_i64().unwrap();
    assert!(epoch(&next) > epoch(&former), "epochs keep rising");
    let listed = Api::<Lease>::namespaced(world.client.clone(), NAMESPACE).list(&ListParams::default()).await.unwrap();
    println!("leases at the end: {:?}", listed.iter().map(ResourceExt::name_any).collect::<Vec<_>>());
    assert!(Path::new(&world.operator.log).exists());
}

/// How many sites are edited twice in quick succession, unless the variable `STRAY_ROUNDS` is set. No watch by label covers them,
/// because their bench does not exist.
const STRAY_ROUNDS: usize = 10;

/// S-7: an edit soon after the operator's own status write is reconciled, also if no watch by label covers the site.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_soon_after_a_status_is_observed_of_a_site_without_a_label() {
    let mut world = World::start_with("strays", &member("one")).await;
    let mut second = Operator::start(program(), &world.cluster, &member("two")).unwrap();
    shared_by(&world, 2, 30).await;
    kubectl(&world.cluster, &["create", "namespace", "fleet"], "");
    let rounds = std::env::var("STRAY_ROUNDS").map_or(STRAY_ROUNDS, |it| it.parse().unwrap());
    let manifests: Vec<String> = (0..rounds).map(|round| site("fleet", &format!("stray-{round}"))).collect();
    world.cluster.apply(&manifests.concat()).unwrap();
    let sites = world.sites("fleet");
    let behind = || async {
        let sites = sites.list(&ListParams::default()).await.unwrap().items;
        let observed = |site: &FrappeSite| site.status.as_ref().and_then(|it| it.observed_generation);
        let behind = sites.iter().filter(|site| observed(site) != site.metadata.generation);
        behind.map(|site| format!("{}: {:?}", site.name_any(), observed(site))).collect::<Vec<_>>()
    };
    let all = async |what: &str| {
        let found = until(what, 60, || async { behind().await.is_empty().then_some(()) }).await;
        assert!(found.is_some(), "{} of {rounds} edits are not observed: {:?}", behind().await.len(), behind().await);
    };
    all("every site is observed").await;
    let edit = async |value: u32| {
        for round in 0..rounds {
            let config = json!({"spec": {"siteConfig": {"edited": value}}});
            let name = format!("stray-{round}");
            sites.patch(&name, &PatchParams::default(), &Patch::Merge(&config)).await.unwrap();
        }
    };
    edit(1).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    edit(2).await;
    all("the second edit of every site is observed").await;
    println!("{rounds} of {rounds} edits were observed");
    assert!(second.stop().await.unwrap().success());
    assert!(world.operator.stop().await.unwrap().success());
}
