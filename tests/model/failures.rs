//! Failing Jobs: the number of attempts, the reported reason, and that a permanent failure is not forgotten and releases the job slot.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use jiff::Timestamp;
use kube_sharding_sim::Change;
use serde_json::{Value, json};

use crate::{
    cluster::{Outcome, succeeds_after_two_seconds},
    world::{BACKUPS, BENCHES, Replica, SITES, World, backup, restore, run, site},
};

/// A failing Job, and the operation that it belongs to.
struct Case {
    what: &'static str,
    /// Component of the Job.
    component: &'static str,
    /// Whether the site exists before.
    on_site: bool,
    begin: fn(&World),
    /// The object that reports the operation, and the reasons.
    of: (&'static str, &'static str),
    retrying: &'static str,
    failed: &'static str,
    /// Whether it succeeded.
    done: fn(&World) -> bool,
    /// What a user does after a permanent failure.
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
    /// A cluster in which one site Job runs at a time, and this number of the case's Jobs fails, with this code.
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
            succeeds_after_two_seconds(job)
        });
        (self.begin)(&world);
        (world, replica)
    }

    /// When each of its Jobs was created.
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

    /// Whether its object has this reason.
    fn says(&self, world: &World, reason: &str) -> bool {
        let kinds = ["Ready", "Progressing", "Complete", "Succeeded", "Failed"];
        kinds.iter().any(|kind| world.reason(self.of.0, self.of.1, kind) == reason)
    }
}

/// A failed Job is retried after a delay, with the next number; afterwards everything is as if it had never failed.
#[test]
fn a_failed_job_is_retried_after_a_delay() {
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

/// After three attempts or a permanent error code, the operation is not retried, even after hours or by another replica, and the job
/// slot is released; a user can start it again.
#[test]
fn a_permanent_failure_is_not_forgotten_and_releases_the_job_slot() {
    for (seed, case) in (1..).zip(&CASES) {
        run(seed, async {
            let (world, replica) = case.world(seed, 3, "CommandFailed").await;
            world.server.create_by_hand(SITES, &site("other"));
            world.until("another site is Ready in between", |it| it.is_settled(SITES, "other")).await;
            world.until(&format!("{} failed", case.what), |it| case.says(it, case.failed)).await;
            assert_eq!(case.made(&world).len(), 3, "{}", case.what);
            world.server.create_by_hand(SITES, &site("later"));
            world.until("another site is Ready", |it| it.is_settled(SITES, "later")).await;
            // The finished Jobs are removed.
            tokio::time::sleep(Duration::from_hours(2)).await;
            assert!(!world.jobs().iter().any(|it| it.starts_with("shop")), "{:?}", world.jobs());
            replica.stop().await;
            let _next = world.replica(1, "one");
            tokio::time::sleep(Duration::from_mins(5)).await;
            assert!(case.says(&world, case.failed), "{}: {}", case.what, world.report());
            assert_eq!(case.made(&world).len(), 3, "{}", case.what);
            (case.again)(&world);
            world.until(&format!("{} succeeds", case.what), case.done).await;
            world.rest().await;
            assert_eq!(case.made(&world).len(), 4, "{}", case.what);
        });
    }
}

/// A permanent error is not retried.
#[test]
fn a_backup_with_a_permanent_error_is_tried_once() {
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
