//! Jobs that fail: how often each is tried, what is said, and that a final failure is neither forgotten nor keeps the Job slot.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use jiff::Timestamp;
use kube_sharding_sim::Change;
use serde_json::{Value, json};

use crate::{
    cluster::{Outcome, ends_well},
    world::{BACKUPS, BENCHES, Replica, SITES, World, backup, restore, run, site},
};

/// A Job that fails, and what it is part of.
struct Case {
    what: &'static str,
    /// Component of the Job.
    component: &'static str,
    /// Whether there is a site before.
    on_site: bool,
    begin: fn(&World),
    /// What says how it ended, and how it does.
    of: (&'static str, &'static str),
    retrying: &'static str,
    failed: &'static str,
    /// Whether it succeeded in the end.
    done: fn(&World) -> bool,
    /// What a user does about a final failure.
    again: fn(&World),
}

fn retry(world: &World) {
    world
        .server
        .change(SITES, "shop", |it| it["metadata"]["annotations"]["frappe.vyogo.tech/retry"] = json!("once more"));
}

fn made_again(world: &World, object: &Value) {
    world.server.remove(BACKUPS, object["metadata"]["name"].as_str().unwrap());
    world.server.create_by_hand(BACKUPS, object);
}

const CASES: [Case; 4] = [
    Case {
        what: "the creation",
        component: "site-init",
        on_site: false,
        begin: |world| {
            world.server.create_by_hand(SITES, &site("shop"));
        },
        of: (SITES, "shop"),
        retrying: "InitRetrying",
        failed: "InitFailed",
        done: |world| world.is_settled(SITES, "shop"),
        again: retry,
    },
    Case {
        what: "a change",
        component: "site-apply",
        on_site: true,
        begin: |world| world.server.change(SITES, "shop", |it| it["spec"]["maintenanceMode"] = json!(true)),
        of: (SITES, "shop"),
        retrying: "ConfigureRetrying",
        failed: "ConfigureFailed",
        done: |world| world.is_settled(SITES, "shop") && world.reason(SITES, "shop", "Progressing") == "Ready",
        again: retry,
    },
    Case {
        what: "a backup",
        component: "site-backup",
        on_site: true,
        begin: |world| {
            world.server.create_by_hand(BACKUPS, &backup("once", "shop"));
        },
        of: (BACKUPS, "once"),
        retrying: "BackupRetrying",
        failed: "BackupFailed",
        done: |world| world.phase(BACKUPS, "once") == "Succeeded",
        again: |world| made_again(world, &backup("once", "shop")),
    },
    Case {
        what: "a restore",
        component: "site-restore",
        on_site: true,
        begin: |world| {
            world.server.create_by_hand(BACKUPS, &restore("back", "shop"));
        },
        of: (BACKUPS, "back"),
        retrying: "RestoreRetrying",
        failed: "RestoreFailed",
        done: |world| world.phase(BACKUPS, "back") == "Succeeded",
        again: |world| made_again(world, &restore("back", "shop")),
    },
];

impl Case {
    /// A world in which one site Job runs at a time, and of these Jobs so many fail, with a code.
    async fn world(&self, seed: u64, failures: usize, code: &'static str) -> (World, Replica) {
        let (world, replica) = World::with_bench(seed).await;
        world.server.change(BENCHES, "bench", |it| it["spec"]["siteJobConcurrency"] = json!(1));
        if self.on_site {
            world.server.create_by_hand(SITES, &site("shop"));
            world.until("the site is Ready", |it| it.is_settled(SITES, "shop")).await;
        }
        world.rest().await;
        let (component, failed) = (self.component, AtomicUsize::new(0));
        world.cluster.jobs(move |job| {
            let labels = &job["metadata"]["labels"];
            let is_it =
                labels["component"] == component && job["metadata"]["name"].as_str().unwrap().starts_with("shop");
            if is_it && failed.fetch_add(1, Ordering::SeqCst) < failures {
                return Outcome::Fails(Duration::from_secs(2), code);
            }
            ends_well(job)
        });
        (self.begin)(&world);
        (world, replica)
    }

    /// When each of its Jobs was made.
    fn made(&self, world: &World) -> Vec<Timestamp> {
        let jobs = world.server.written().into_iter().filter(|it| {
            let job = &it.object["metadata"];
            it.change == Change::Added
                && it.place.plural() == "jobs"
                && job["labels"]["component"] == self.component
                && job["labels"]["site"] == "shop"
        });
        jobs.map(|it| it.object["metadata"]["creationTimestamp"].as_str().unwrap().parse().unwrap()).collect()
    }

    /// Whether its object says so.
    fn says(&self, world: &World, reason: &str) -> bool {
        let kinds = ["Ready", "Progressing", "Complete", "Succeeded", "Failed"];
        kinds.iter().any(|kind| world.reason(self.of.0, self.of.1, kind) == reason)
    }
}

/// A Job that failed is made again after a wait, with the next number; then all is as if it had never failed.
#[test]
fn a_job_that_failed_is_made_again_after_a_wait() {
    for (seed, case) in (1..).zip(&CASES) {
        run(seed, async {
            let (world, _replica) = case.world(seed, 2, "CommandFailed").await;
            world.until(&format!("{} is retried", case.what), |it| case.says(it, case.retrying)).await;
            world.until(&format!("{} succeeds", case.what), case.done).await;
            world.rest().await;
            let made = case.made(&world);
            let waits: Vec<i64> = made.windows(2).map(|it| it[1].duration_since(it[0]).as_secs()).collect();
            assert!(matches!(waits[..], [10..=15, 50..=55]), "{}: {waits:?}", case.what);
        });
    }
}

/// After three attempts, or a code that is final, it is over, however long one waits and whoever owns the site, and the Job
/// slot is free; a user begins it anew.
#[test]
fn a_final_failure_is_not_forgotten_and_keeps_no_slot() {
    for (seed, case) in (1..).zip(&CASES) {
        run(seed, async {
            let (world, replica) = case.world(seed, 3, "CommandFailed").await;
            world.server.create_by_hand(SITES, &site("other"));
            world.until("the other site is Ready meanwhile", |it| it.is_settled(SITES, "other")).await;
            world.until(&format!("{} failed", case.what), |it| case.says(it, case.failed)).await;
            assert_eq!(case.made(&world).len(), 3, "{}", case.what);
            world.server.create_by_hand(SITES, &site("later"));
            world.until("another site is Ready", |it| it.is_settled(SITES, "later")).await;
            // Meanwhile the Jobs go.
            tokio::time::sleep(Duration::from_hours(2)).await;
            assert!(!world.jobs().iter().any(|it| it.starts_with("shop")), "{:?}", world.jobs());
            replica.stop().await;
            let _next = world.replica(1, "one");
            tokio::time::sleep(Duration::from_mins(5)).await;
            assert!(case.says(&world, case.failed), "{}: {}", case.what, world.story());
            assert_eq!(case.made(&world).len(), 3, "{}", case.what);
            (case.again)(&world);
            world.until(&format!("{} succeeds", case.what), case.done).await;
            world.rest().await;
            assert_eq!(case.made(&world).len(), 4, "{}", case.what);
        });
    }
}

/// What no retry can mend is not tried again.
#[test]
fn a_backup_whose_code_is_final_is_tried_once() {
    for case in CASES.iter().filter(|it| it.of.0 == BACKUPS) {
        run(9, async {
            let (world, _replica) = case.world(9, usize::MAX, "BucketMissing").await;
            world.until(&format!("{} failed", case.what), |it| case.says(it, case.failed)).await;
            tokio::time::sleep(Duration::from_hours(1)).await;
            assert_eq!(case.made(&world).len(), 1, "{}", case.what);
            let status = world.server.get(case.of.0, case.of.1).unwrap()["status"].to_string();
            assert!(status.contains("BucketMissing"), "{status}");
        });
    }
}
