//! Updates of a bench with many sites: each is migrated once, whoever is killed meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kube_sharding_sim::Change;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    cluster::{Outcome, ended, succeeds_after_two_seconds},
    world::{BENCHES, Replica, SITES, World, in_parallel, run, site},
};

pub(crate) const SITE_COUNT: usize = 24;
pub(crate) const LIMIT: usize = 4;
/// Virtual time of one migration.
const MIGRATION: Duration = Duration::from_secs(30);
/// The site whose migration fails.
pub(crate) const FAILING: &str = "site-7";

/// A bench with Ready sites, of which one cannot be migrated.
pub(crate) async fn ground(world: &World) {
    world.server.change(BENCHES, "bench", |it| it["spec"]["siteJobConcurrency"] = json!(LIMIT));
    (0..SITE_COUNT).for_each(|number| {
        world.server.create_by_hand(SITES, &site(&format!("site-{number}")));
    });
    let ready = |it: &World| it.server.all(SITES).iter().all(|it| it["status"]["phase"] == "Ready");
    world.until("all sites are Ready", ready).await;
    world.cluster.jobs(|job| match job["metadata"]["labels"]["component"].as_str() {
        Some("site-update") if job["metadata"]["labels"]["site"] == FAILING => {
            Outcome::Fails(MIGRATION, "UpdateFailed")
        }
        Some("site-update") => Outcome::Succeeds(MIGRATION, json!({"done": "updated"})),
        _ => succeeds_after_two_seconds(job),
    });
    world.rest().await;
}

pub(crate) fn set_tag(world: &World, tag: &str) {
    world.server.change(BENCHES, "bench", |it| it["spec"]["imageConfig"] = json!({"tag": tag}));
}

/// Status and reason of a site's condition UpToDate.
fn up_to_date(site: &Value) -> (String, String) {
    let all = site["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|it| it["type"] == "UpToDate").unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

fn schema(site: &Value) -> String {
    let app = site["status"]["apps"].as_array().and_then(|apps| apps.iter().find(|it| it["name"] == "frappe").cloned());
    app.unwrap_or_default()["schema"].as_str().unwrap_or_default().to_owned()
}

fn all_are(world: &World, tag: &str) -> bool {
    world.server.all(SITES).iter().all(|site| {
        let fails = site["metadata"]["name"] == FAILING;
        let wanted = if fails { ("False", "UpdateFailed") } else { ("True", "UpToDate") };
        up_to_date(site) == (wanted.0.to_owned(), wanted.1.to_owned()) && (fails || schema(site).ends_with(tag))
    })
}

/// The Jobs that migrate sites, by site, and the largest number of concurrent ones.
pub(crate) fn updates(world: &World, after: u64) -> (BTreeMap<String, usize>, usize) {
    let (mut made, mut running, mut most) = (BTreeMap::new(), BTreeSet::new(), 0);
    let of_sites = |it: &kube_sharding_sim::Written| {
        it.place.plural() == "jobs" && it.object["metadata"]["labels"]["component"] == "site-update"
    };
    for write in world.server.written_after(after).into_iter().filter(of_sites) {
        if write.change == Change::Added {
            let site = write.object["metadata"]["labels"]["site"].as_str().unwrap().to_owned();
            *made.entry(site).or_insert(0) += 1;
            running.insert(write.place.name.clone());
        } else if write.change == Change::Deleted || ended(&write.object) {
            running.remove(&write.place.name);
        }
        most = most.max(running.len());
    }
    (made, most)
}

/// Kills a member, and after a while the coordinator; others take their places.
pub(crate) async fn replace_both(world: &World, coordinator: &Replica, member: &Replica) -> [Replica; 2] {
    member.kill(world);
    let other = world.replica(2, "three");
    sleep(MIGRATION).await;
    coordinator.kill(world);
    [other, world.replica(3, "one")]
}

/// Writes for sites since, and of Jobs, by verb and resource.
pub(crate) fn writes_of_sites(world: &World, before: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for asked in world.work()[before..].iter().filter(|it| it.verb != "get" && it.verb != "list") {
        let of_bench = asked.place.name.starts_with("bench") && asked.place.plural() != "jobs";
        if !of_bench {
            let status = asked.subresource.as_ref().map_or("", |_| "/status");
            *counts.entry(format!("{} {}{status}", asked.verb, asked.place.plural())).or_default() += 1;
        }
    }
    counts
}

/// each site is migrated exactly once, at most as many at a time as the limit; the one that fails is not retried. A member is killed,
/// the coordinator is killed, and another one joins.
#[test]
fn each_site_is_migrated_once_while_replicas_are_killed_and_added() {
    in_parallel(1..=2, |number| {
        let seed = number as u64;
        run(seed, async move {
            let (world, one) = World::with_bench(seed).await;
            let two = world.replica(1, "two");
            world.until("both own slots", |it| it.owners() == 2).await;
            ground(&world).await;
            let before = world.version();
            set_tag(&world, "2");
            let begun = |it: &World| updates(it, before).0.len() >= LIMIT;
            world.until("migrations have begun", begun).await;
            let _others = replace_both(&world, &one, &two).await;
            world.until("every site is updated or has failed", |it| all_are(it, ":2")).await;
            world.rest().await;
            let (made, most) = updates(&world, before);
            assert_eq!(made.len(), SITE_COUNT);
            assert!(made.values().all(|count| *count == 1), "{made:?}");
            // After each of the rebalances the Jobs of sites that moved may exceed the limit.
            assert!(most <= 2 * LIMIT, "{most} at once");
            world.stays_at_rest().await;
        });
    });
}

/// What an update costs: writes of sites' statuses and Jobs, of one replica without faults.
#[test]
fn an_update_needs_four_writes_per_site() {
    run(3, async {
        let (world, _one) = World::with_bench(3).await;
        ground(&world).await;
        let before = world.work().len();
        set_tag(&world, "2");
        world.until("every site is updated or has failed", |it| all_are(it, ":2")).await;
        world.rest().await;
        let mut counts = writes_of_sites(&world, before);
        println!("{counts:?}");
        // Of each site: nginx holds it, its Job is recorded and created, and it is served again. Of the bench: configure and hold Job.
        assert_eq!(counts.remove("create jobs"), Some(SITE_COUNT + 2));
        assert_eq!(counts.remove("delete jobs"), Some(1), "the former configure Job");
        assert_eq!(counts.remove("update frappesites/status"), Some(3 * SITE_COUNT));
        assert_eq!(counts, BTreeMap::new());
    });
}

/// An image that is set back while sites wait: those that were not migrated are served again without a Job, and the others say what they are.
#[test]
fn an_image_that_is_set_back_leaves_waiting_sites_alone() {
    run(4, async {
        let (world, _one) = World::with_bench(4).await;
        ground(&world).await;
        set_tag(&world, "2");
        let migrated = |it: &World| it.server.all(SITES).iter().filter(|it| schema(it).ends_with(":2")).count();
        world.until("some sites are migrated", |it| migrated(it) >= LIMIT).await;
        let before = world.version();
        world.server.change(BENCHES, "bench", |it| {
            it["spec"]["imageConfig"] = Value::Null;
            it["spec"]["updateStrategy"] = json!({"paused": true});
        });
        let settled = |it: &World| {
            it.server.all(SITES).iter().all(|site| {
                let wanted = if schema(site).ends_with(":2") { "UpdateRequired" } else { "UpToDate" };
                up_to_date(site).1 == wanted && site["status"]["operation"]["outcome"].is_null()
                    || site["metadata"]["name"] == FAILING
            }) && it.is_settled(BENCHES, "bench")
        };
        world.until("every site has the schema of the image, or says that it has not", settled).await;
        world.rest().await;
        let (made, _) = updates(&world, before);
        assert!(made.len() <= LIMIT, "{made:?}");
        let served = world.server.all(SITES).iter().filter(|it| it["status"]["phase"] == "Ready").count();
        assert!(served >= SITE_COUNT - 3 * LIMIT, "{served} are served");
    });
}
