//! Revisions of a bench: pods of two images beside each other, between which sites move one by one, whoever is killed meanwhile.

use std::{collections::BTreeMap, time::Duration};

use kube_sharding_sim::Change;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    cluster::{Outcome, succeeds_after_two_seconds},
    world::{BENCHES, DEPLOYMENTS, SITES, World, in_parallel, run, site},
};

const SITE_COUNT: usize = 24;
const LIMIT: usize = 4;
/// Virtual time of one move.
const MOVE: Duration = Duration::from_secs(30);
/// The site whose migration fails.
const FAILING: &str = "site-7";

/// A bench with Ready sites, of which one cannot be migrated.
async fn ground(world: &World) {
    world.server.change(BENCHES, "bench", |it| {
        it["spec"]["siteJobConcurrency"] = json!(LIMIT);
        it["spec"]["updateStrategy"] =
            json!({"type": "Revisions", "scaleDownDelay": "5m", "waves": ["100%"], "maxFailures": 1});
    });
    (0..SITE_COUNT).for_each(|number| {
        world.server.create_by_hand(SITES, &site(&format!("site-{number}")));
    });
    let ready = |it: &World| it.server.all(SITES).iter().all(|it| it["status"]["phase"] == "Ready");
    world.until("all sites are Ready", ready).await;
    world.cluster.jobs(|job| match job["metadata"]["labels"]["component"].as_str() {
        Some("site-update") if job["metadata"]["labels"]["site"] == FAILING => Outcome::Fails(MOVE, "UpdateFailed"),
        Some("site-update") => Outcome::Succeeds(MOVE, json!({"done": "updated", "revision": 2})),
        _ => succeeds_after_two_seconds(job),
    });
    world.rest().await;
}

fn set_tag(world: &World, tag: &str) {
    world.server.change(BENCHES, "bench", |it| it["spec"]["imageConfig"] = json!({"tag": tag}));
}

/// Number of sites by revision.
fn by_revision(world: &World) -> BTreeMap<i64, usize> {
    let mut counts = BTreeMap::new();
    for site in world.server.all(SITES) {
        *counts.entry(site["status"]["revision"].as_i64().unwrap_or(1)).or_insert(0) += 1;
    }
    counts
}

/// Names of the Deployments of earlier revisions.
fn older(world: &World) -> Vec<String> {
    let all = world.server.all(DEPLOYMENTS);
    let names = all.iter().filter_map(|it| it["metadata"]["name"].as_str().map(str::to_owned));
    names.filter(|it| it.contains("-r")).collect()
}

/// Jobs that move sites, by site, with the number of each.
fn moves(world: &World, after: u64) -> BTreeMap<String, usize> {
    let mut made = BTreeMap::new();
    for write in world.server.written_after(after) {
        let of_update = write.object["metadata"]["labels"]["component"] == "site-update";
        if write.place.plural() == "jobs" && write.change == Change::Added && of_update {
            let site = write.object["metadata"]["labels"]["site"].as_str().unwrap_or_default().to_owned();
            *made.entry(site).or_insert(0) += 1;
        }
    }
    made
}

/// R-25, R-5: each site moves once, and the one whose migration fails stays; pods of the former image serve it until it is gone. A member is
/// killed, the coordinator is killed, and another one joins.
#[test]
fn each_site_moves_once_while_replicas_are_killed_and_added() {
    in_parallel(1..=2, |number| {
        let seed = number as u64;
        run(seed, async move {
            let (world, one) = World::with_bench(seed).await;
            let two = world.replica(1, "two");
            world.until("both own slots", |it| it.owners() == 2).await;
            ground(&world).await;
            let before = world.version();
            set_tag(&world, "2");
            world.until("moves have begun", |it| moves(it, before).len() >= LIMIT).await;
            assert_eq!(older(&world).len(), 7, "every component of the former image");
            two.kill(&world);
            let _three = world.replica(2, "three");
            sleep(MOVE).await;
            one.kill(&world);
            let _again = world.replica(3, "one");
            let moved = |it: &World| by_revision(it) == [(1, 1), (2, SITE_COUNT - 1)].into();
            world.until("every site but one has moved", moved).await;
            // The coordinator looks at most every ten seconds.
            sleep(Duration::from_secs(15)).await;
            world.rest().await;
            let made = moves(&world, before);
            assert_eq!(made.len(), SITE_COUNT);
            assert!(made.values().all(|count| *count == 1), "{made:?}");
            let ready = world.server.all(SITES).iter().filter(|it| it["status"]["phase"] == "Ready").count();
            assert_eq!(ready, SITE_COUNT, "the failed one is served by the former image");
            let requests = world.work().len();
            sleep(Duration::from_hours(2)).await;
            assert_eq!((world.work().len(), older(&world).len()), (requests, 7), "at rest, with both images");
            world.server.remove(SITES, FAILING);
            world.until("the former image has no site", |it| by_revision(it).len() == 1).await;
            sleep(Duration::from_mins(6)).await;
            assert_eq!(older(&world), Vec::<String>::new(), "it goes after scaleDownDelay");
            let requests = world.work().len();
            sleep(Duration::from_hours(2)).await;
            assert_eq!(world.work().len(), requests, "at rest");
        });
    });
}

/// R-25: what a move costs, of one replica without faults. A waiting site costs nothing.
#[test]
fn a_move_needs_three_writes_per_site() {
    run(3, async {
        let (world, _one) = World::with_bench(3).await;
        ground(&world).await;
        world.server.change(BENCHES, "bench", |it| it["spec"]["updateStrategy"]["paused"] = json!(true));
        let before = world.work().len();
        set_tag(&world, "2");
        let complete = |it: &World| it.server.all(BENCHES)[0]["status"]["revisions"][1]["complete"] == true;
        world.until("the new image runs", complete).await;
        world.rest().await;
        assert_eq!(
            of_sites(&world, before),
            BTreeMap::from([("create jobs".to_owned(), 1), ("delete jobs".to_owned(), 1)]),
            "the configure Job replaces the former one; sites wait for free"
        );
        let before = world.work().len();
        world.server.change(BENCHES, "bench", |it| it["spec"]["updateStrategy"]["paused"] = Value::Null);
        world.until("every site but one has moved", |it| by_revision(it) == [(1, 1), (2, SITE_COUNT - 1)].into()).await;
        world.rest().await;
        let wanted = [("create jobs".to_owned(), SITE_COUNT), ("update frappesites/status".to_owned(), 2 * SITE_COUNT)];
        assert_eq!(of_sites(&world, before), BTreeMap::from(wanted), "the intent, the Job, the result");
    });
}

/// R-25: canary and waves, one signal each; a failure beyond `maxFailures` stops the rollout, and a user continues it. The coordinator is killed
/// in each phase.
#[test]
fn waves_go_on_after_their_time_and_stop_at_a_failure() {
    run(4, async {
        let (world, mut one) = World::with_bench(4).await;
        ground(&world).await;
        let strategy = json!({"type": "Revisions", "canary": {"selector": {"matchLabels": {"tier": "internal"}}}, "waves": ["25%", "100%"], "minSuccessTime": "30m"});
        world.server.change(BENCHES, "bench", |it| it["spec"]["updateStrategy"] = strategy);
        world.server.change(SITES, "site-3", |it| it["metadata"]["labels"]["tier"] = json!("internal"));
        world.rest().await;
        let before = world.version();
        set_tag(&world, "2");
        let phase = |it: &World| {
            it.server.all(BENCHES)[0]["status"]["rollout"]["phase"].as_str().unwrap_or_default().to_owned()
        };
        let mut moved = Vec::new();
        for process in 1..=2 {
            world.until("the wave has moved", |it| ["Soaking", "Paused"].contains(&phase(it).as_str())).await;
            moved.push(moves(&world, before));
            one.kill(&world);
            one = world.replica(process, "one");
            if phase(&world) == "Paused" {
                break;
            }
            sleep(Duration::from_mins(31)).await;
        }
        assert_eq!(moved[0].keys().collect::<Vec<_>>(), ["site-3"], "the canary");
        assert!((6..=7).contains(&moved[1].len()), "a quarter, in which the canary may be: {:?}", moved[1]);
        let failed = |it: &World| {
            let sites = it.server.all(SITES);
            sites
                .iter()
                .any(|it| it["metadata"]["name"] == FAILING && it["status"]["lastUpdate"]["result"] == "RolledBack")
        };
        world.until("the failing site has failed", failed).await;
        let until_then = moves(&world, before).len();
        world.until("the rollout is paused", |it| phase(it) == "Paused").await;
        let made = moves(&world, before).len();
        // The coordinator looks at most every ten seconds.
        assert!(made <= until_then + LIMIT, "{made} after {until_then}: what was about to start, and no more");
        sleep(Duration::from_hours(6)).await;
        assert_eq!((phase(&world).as_str(), moves(&world, before).len()), ("Paused", made), "until a user decides");
        let promote = json!({"frappe.vyogo.tech/promote": "2"});
        world.server.change(BENCHES, "bench", |it| it["metadata"]["annotations"] = promote);
        world.until("every site but one has moved", |it| by_revision(it) == [(1, 1), (2, SITE_COUNT - 1)].into()).await;
        world.until("it is completed", |it| phase(it) == "Completed").await;
        world.rest().await;
        let rollout = world.server.all(BENCHES)[0]["status"]["rollout"].clone();
        assert_eq!((&rollout["updated"], &rollout["failed"]), (&json!(SITE_COUNT - 1), &json!(1)), "{rollout}");
        assert_eq!(rollout["failures"][0]["site"], format!("shops/{FAILING}"));
    });
}

/// Writes for sites since, by verb and resource, and Jobs.
fn of_sites(world: &World, before: usize) -> BTreeMap<String, usize> {
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
