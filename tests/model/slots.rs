//! Job slots: never more site Jobs than the limit, counted after each write.

use std::collections::BTreeSet;

use kube_sharding_sim::Change;
use serde_json::json;

use crate::{
    cluster::ended,
    world::{BENCHES, SITES, World, run, site},
};

const SITE_COUNT: usize = 40;
const LIMIT: usize = 4;

/// The largest number of concurrent site Jobs, counted after each write, and the number of Jobs that were created.
fn most_at_once(world: &World, after: u64) -> (usize, usize) {
    let (mut running, mut most, mut made) = (BTreeSet::new(), 0, 0);
    for write in world.server.written_after(after).into_iter().filter(|it| it.place.plural() == "jobs") {
        if write.object["metadata"]["labels"]["site"].is_null() {
            continue;
        }
        if write.change == Change::Deleted || ended(&write.object) {
            running.remove(&write.place.name);
        } else {
            made += usize::from(running.insert(write.place.name.clone()));
        }
        most = most.max(running.len());
    }
    (most, made)
}

async fn all_ready(world: &World, replicas: &str) {
    let ready = |it: &World| it.server.all(SITES).iter().all(|it| it["status"]["phase"] == "Ready");
    world.until(&format!("{SITE_COUNT} sites are Ready, {replicas}"), ready).await;
}

/// one replica runs exactly as many Jobs as the limit, and waiting sites report it.
#[test]
fn one_replica_runs_as_many_jobs_as_the_limit() {
    run(1, async {
        let (world, _replica) = World::with_bench(1).await;
        world.server.change(BENCHES, "bench", |it| it["spec"]["siteJobConcurrency"] = json!(LIMIT));
        world.rest().await;
        let before = world.version();
        (0..SITE_COUNT).for_each(|number| {
            world.server.create_by_hand(SITES, &site(&format!("site-{number}")));
        });
        let waits = |it: &World| {
            let waiting = (0..SITE_COUNT).map(|number| it.reason(SITES, &format!("site-{number}"), "Ready"));
            waiting.filter(|it| it == "WaitingForJobSlot").count() >= SITE_COUNT / 2
        };
        world.until("most sites report that they wait", waits).await;
        all_ready(&world, "one replica").await;
        assert_eq!(most_at_once(&world, before), (LIMIT, SITE_COUNT));
    });
}

/// a limit that is raised while sites wait takes effect at once.
#[test]
fn a_raised_limit_takes_effect_at_once() {
    run(2, async {
        let (world, _replica) = World::with_bench(2).await;
        world.server.change(BENCHES, "bench", |it| it["spec"]["siteJobConcurrency"] = json!(1));
        world.rest().await;
        let before = world.version();
        (0..SITE_COUNT).for_each(|number| {
            world.server.create_by_hand(SITES, &site(&format!("site-{number}")));
        });
        world
            .until("some are Ready", |it| it.server.all(SITES).iter().any(|it| it["status"]["phase"] == "Ready"))
            .await;
        assert_eq!(most_at_once(&world, before).0, 1);
        let raised = world.version();
        world.server.change(BENCHES, "bench", |it| it["spec"]["siteJobConcurrency"] = json!(LIMIT));
        all_ready(&world, "after the limit was raised").await;
        assert_eq!(most_at_once(&world, raised).0, LIMIT);
    });
}

/// a Job that the API server rejects keeps no slot from others.
#[test]
fn a_rejected_job_keeps_no_slot() {
    run(4, async {
        let (world, _replica) = World::with_bench(4).await;
        world.server.change(BENCHES, "bench", |it| it["spec"]["siteJobConcurrency"] = json!(1));
        world.rest().await;
        world.refuse_writes(("jobs", "bad-init"), 403, || true);
        world.server.create_by_hand(SITES, &site("bad"));
        world.until("the Job is rejected", |it| it.reason(SITES, "bad", "Ready") == "WriteRejected").await;
        world.server.create_by_hand(SITES, &site("good"));
        let ready =
            world.holds_within(std::time::Duration::from_mins(2), |it| it.phase(SITES, "good") == "Ready").await;
        assert!(ready, "{}", world.report());
        world.injector.stop_intercepting();
        world.until("the other is Ready too", |it| it.phase(SITES, "bad") == "Ready").await;
    });
}

/// three replicas together run as many as the limit, or one each if that is more.
#[test]
fn three_replicas_share_the_limit() {
    for limit in [2, 6] {
        run(limit as u64, async {
            let (world, _one) = World::with_bench(3).await;
            let _others = [world.replica(1, "two"), world.replica(2, "three")];
            world.until("three share the slots", |it| it.owners() == 3).await;
            world.server.change(BENCHES, "bench", |it| it["spec"]["siteJobConcurrency"] = json!(limit));
            world.rest().await;
            let before = world.version();
            (0..SITE_COUNT).for_each(|number| {
                world.server.create_by_hand(SITES, &site(&format!("site-{number}")));
            });
            all_ready(&world, "three replicas").await;
            let (most, made) = most_at_once(&world, before);
            println!("limit {limit}: at most {most} at once");
            assert!(most <= limit.max(3), "{most} Jobs at once with a limit of {limit}");
            assert_eq!(made, SITE_COUNT);
        });
    }
}
