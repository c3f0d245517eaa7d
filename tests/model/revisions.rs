//! Revisions of a bench: pods of two images beside each other, between which sites move one by one, whoever is killed meanwhile.

use std::{collections::BTreeMap, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use kube_sharding::Slot;
use kube_sharding_sim::Change;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    handover::owner,
    updates::{FAILING, LIMIT, SITE_COUNT, ground, replace_both, set_tag, updates, writes_of_sites},
    world::{BENCHES, DEPLOYMENTS, SITES, World, in_parallel, run, site},
};

/// A bench with Ready sites, whose next image is another revision.
async fn revisions(world: &World) {
    ground(world).await;
    let strategy = json!({"type": "Revisions", "scaleDownDelay": "5m", "waves": ["100%"], "maxFailures": 1});
    world.server.change(BENCHES, "bench", |it| it["spec"]["updateStrategy"] = strategy);
    world.rest().await;
}

/// Number of sites by revision.
fn by_revision(world: &World) -> BTreeMap<i64, usize> {
    let mut counts = BTreeMap::new();
    for site in world.server.all(SITES) {
        *counts.entry(site["status"]["revision"].as_i64().unwrap_or(1)).or_insert(0) += 1;
    }
    counts
}

/// Whether every site but one has moved, and that one has failed.
fn has_moved(world: &World) -> bool {
    let failing = world.server.get(SITES, FAILING);
    let has_failed = failing.is_some_and(|it| it["status"]["operation"]["outcome"]["state"] == "Failed");
    has_failed && by_revision(world) == [(1, 1), (2, SITE_COUNT - 1)].into()
}

/// Names of the Deployments of earlier revisions.
fn older(world: &World) -> Vec<String> {
    let all = world.server.all(DEPLOYMENTS);
    let names = all.iter().filter_map(|it| it["metadata"]["name"].as_str().map(str::to_owned));
    names.filter(|it| it.contains("-r")).collect()
}

/// Jobs that move sites, by site, with the number of each.
fn moves(world: &World, after: u64) -> BTreeMap<String, usize> {
    updates(world, after).0
}

/// S-3: since that version each write for a site was by the owner of its slot, in the slot map of that moment. Returns their number.
fn only_owners_wrote(world: &World, after: u64) -> usize {
    // Process 3 took the name of the first one.
    let pods = ["uid-of-one", "uid-of-two", "uid-of-three", "uid-of-one"];
    let uids: BTreeMap<String, String> = world
        .server
        .all(SITES)
        .iter()
        .map(|it| {
            let text = |field: &str| it["metadata"][field].as_str().expect("a text").to_owned();
            (text("name"), text("uid"))
        })
        .collect();
    let first = world.server.written().len() - world.server.written_after(after).len();
    let (mut map, mut looked) = (std::sync::Arc::new(Value::Null), 0);
    for (index, write) in world.server.written().into_iter().enumerate() {
        if write.place.plural() == "slotmaps" && write.change != Change::Deleted {
            map = write.object;
            continue;
        }
        let label = write.object["metadata"]["labels"]["site"].as_str();
        let name = if write.place.plural() == "frappesites" { Some(write.place.name.as_str()) } else { label };
        let Some(uid) = name.and_then(|it| uids.get(it)).filter(|_| index >= first) else { continue };
        if write.sender >= pods.len() || write.place.plural() == "pods" || write.place.plural() == "events" {
            continue;
        }
        let slot = Slot::of_uid(uid).to_string().parse().expect("a number");
        assert_eq!(
            owner(&map, slot).as_deref(),
            Some(pods[write.sender]),
            "{} {}",
            write.place.plural(),
            write.place.name
        );
        looked += 1;
    }
    looked
}

/// U-10: an update of a bench writes no object of another one, and none of its sites.
#[test]
fn an_update_writes_nothing_of_another_bench() {
    run(6, async {
        let (world, _one) = World::with_bench(6).await;
        revisions(&world).await;
        let other = world.server.get(BENCHES, "bench").expect("a bench");
        let spec = other["spec"].clone();
        let bench = json!({"apiVersion": other["apiVersion"], "kind": other["kind"], "metadata": {"name": "other", "namespace": "shops"}, "spec": spec});
        world.server.create_by_hand(BENCHES, &bench);
        let mut site = site("other-site");
        site["spec"]["benchRef"]["name"] = json!("other");
        world.server.create_by_hand(SITES, &site);
        world.until("its site is Ready", |it| it.phase(SITES, "other-site") == "Ready").await;
        world.rest().await;
        let before = world.version();
        set_tag(&world, "2");
        let moved = |it: &World| by_revision(it) == [(1, 2), (2, SITE_COUNT - 1)].into();
        world.until("every site but one, and that of the other bench, has moved", moved).await;
        world.rest().await;
        let written = world.server.written_after(before);
        assert!(written.len() > 3 * SITE_COUNT);
        for write in written {
            let labels = &write.object["metadata"]["labels"];
            let others =
                write.place.name.starts_with("other") || labels["bench"] == "other" || labels["site"] == "other-site";
            assert!(!others, "{} {}", write.place.plural(), write.place.name);
        }
    });
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
            revisions(&world).await;
            let before = world.version();
            set_tag(&world, "2");
            world.until("moves have begun", |it| moves(it, before).len() >= LIMIT).await;
            assert_eq!(older(&world).len(), 7, "every component of the former image");
            let _others = replace_both(&world, &one, &two).await;
            world.until("every site but one has moved", has_moved).await;
            // The coordinator looks at most every ten seconds.
            sleep(Duration::from_secs(15)).await;
            world.rest().await;
            let made = moves(&world, before);
            assert_eq!(made.len(), SITE_COUNT);
            assert!(made.values().all(|count| *count == 1), "{made:?}");
            let looked = only_owners_wrote(&world, before);
            assert!(looked >= 3 * SITE_COUNT, "every write was looked at: {looked}");
            let ready = world.server.all(SITES).iter().filter(|it| it["status"]["phase"] == "Ready").count();
            assert_eq!(ready, SITE_COUNT, "the failed one is served by the former image");
            world.stays_at_rest().await;
            assert_eq!(older(&world).len(), 7, "both images");
            world.server.remove(SITES, FAILING);
            world.until("the former image has no site", |it| by_revision(it).len() == 1).await;
            sleep(Duration::from_mins(6)).await;
            assert_eq!(older(&world), Vec::<String>::new(), "it goes after scaleDownDelay");
            world.stays_at_rest().await;
        });
    });
}

/// R-25: what a move costs, of one replica without faults. A waiting site costs nothing.
#[test]
fn a_move_needs_three_writes_per_site() {
    run(3, async {
        let (world, _one) = World::with_bench(3).await;
        revisions(&world).await;
        world.server.change(BENCHES, "bench", |it| it["spec"]["updateStrategy"]["paused"] = json!(true));
        let before = world.work().len();
        set_tag(&world, "2");
        let complete = |it: &World| it.server.all(BENCHES)[0]["status"]["revisions"][1]["complete"] == true;
        world.until("the new image runs", complete).await;
        world.rest().await;
        assert_eq!(
            writes_of_sites(&world, before),
            BTreeMap::from([("create jobs".to_owned(), 1), ("delete jobs".to_owned(), 1)]),
            "the configure Job replaces the former one; sites wait for free"
        );
        let before = world.work().len();
        world.server.change(BENCHES, "bench", |it| it["spec"]["updateStrategy"]["paused"] = Value::Null);
        world.until("every site but one has moved", has_moved).await;
        world.rest().await;
        let wanted = [("create jobs".to_owned(), SITE_COUNT), ("update frappesites/status".to_owned(), 2 * SITE_COUNT)];
        assert_eq!(writes_of_sites(&world, before), BTreeMap::from(wanted), "the intent, the Job, the result");
    });
}

/// R-25: canary and waves, one signal each; a failure beyond `maxFailures` stops the rollout, and a user continues it. The coordinator is killed
/// in each phase.
#[test]
fn waves_go_on_after_their_time_and_stop_at_a_failure() {
    run(4, async {
        let (world, mut one) = World::with_bench(4).await;
        revisions(&world).await;
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
        world.until("every site but one has moved", has_moved).await;
        world.until("it is completed", |it| phase(it) == "Completed").await;
        world.rest().await;
        let rollout = world.server.all(BENCHES)[0]["status"]["rollout"].clone();
        assert_eq!((&rollout["updated"], &rollout["failed"]), (&json!(SITE_COUNT - 1), &json!(1)), "{rollout}");
        assert_eq!(rollout["failures"][0]["site"], format!("shops/{FAILING}"));
    });
}

/// Minutes of the hour in which the Jobs that move sites were made.
fn minutes(world: &World, after: u64) -> Vec<i8> {
    let jobs = world.server.written_after(after).into_iter().filter(|it| {
        let is_job = it.place.plural() == "jobs" && it.object["metadata"]["labels"]["component"] == "site-update";
        is_job && it.change == Change::Added
    });
    let time = |text: &str| text.parse::<Timestamp>().expect("a time").to_zoned(TimeZone::UTC).minute();
    jobs.map(|it| time(it.object["metadata"]["creationTimestamp"].as_str().expect("a time"))).collect()
}

/// R-25, R-5, R-15: sites move only in the windows of their bench, at most as many at once as it allows, and waiting for a window costs
/// nothing. Its owner is killed while it waits.
#[test]
fn sites_move_in_windows_and_few_at_once() {
    run(5, async {
        let (world, one) = World::with_bench(5).await;
        revisions(&world).await;
        world.server.change(BENCHES, "bench", |it| {
            it["spec"]["updateStrategy"]["windows"] = json!([{"schedule": "30 * * * *", "duration": "3m"}]);
            it["spec"]["updateStrategy"]["maxConcurrency"] = json!(2);
        });
        world.rest().await;
        let before = world.version();
        set_tag(&world, "2");
        let complete = |it: &World| it.server.all(BENCHES)[0]["status"]["revisions"][1]["complete"] == true;
        world.until("the new image runs", complete).await;
        one.kill(&world);
        let _next = world.replica(1, "one");
        let moved = |it: &World| by_revision(it) == [(1, 1), (2, SITE_COUNT - 1)].into();
        let mut hours = 0;
        while !moved(&world) {
            hours += 1;
            assert!(hours < 10, "{:?}", by_revision(&world));
            // Until the next minute 25, and over the window.
            let now = world.server.now().as_second().rem_euclid(3600);
            sleep(Duration::from_secs(u64::try_from((25 * 60 - now).rem_euclid(3600)).expect("a time") + 1)).await;
            let seen = world.work().len();
            sleep(Duration::from_mins(4)).await;
            assert_eq!(world.work().len(), seen, "nobody looks before it opens");
            sleep(Duration::from_mins(10)).await;
            let minutes = minutes(&world, before);
            assert!(minutes.len() > (hours - 1) * 10 && minutes.iter().all(|it| (30..33).contains(it)), "{minutes:?}");
        }
        let (made, most) = updates(&world, before);
        assert_eq!((made.len(), most), (SITE_COUNT, 2));
        assert!(made.values().all(|count| *count == 1), "{made:?}");
        assert!(hours >= 2, "in one window of three minutes, twelve sites fit");
        world.stays_at_rest().await;
    });
}
