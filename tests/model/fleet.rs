//! Backups in every minute for many sites, with concurrent changes of the sites, while replicas are killed and added.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use kube_sharding_sim::{Change, Written};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    cluster::{Outcome, ended, succeeds_after_two_seconds},
    world::{BACKUPS, Replica, SITES, World, backup, in_parallel, run, site},
};

const SITE_COUNT: usize = 20;
/// Sites that are edited at the start of each minute, when their backups start; each such Job takes 5 s.
const EDITED: usize = 5;
const MINUTES: i64 = 10;

fn is_of_backup(write: &Written) -> bool {
    write.place.name.contains("-backup-")
}

fn is_of_site(write: &Written) -> bool {
    write.place.plural() == "jobs" && write.object["metadata"]["labels"]["site"].is_string()
}

/// Creates Ready sites, each with a SiteBackup that is due each minute.
async fn ground(world: &World) {
    for number in 0..SITE_COUNT {
        world.server.create_by_hand(SITES, &site(&format!("site-{number}")));
    }
    let ready = |it: &World| it.server.all(SITES).iter().all(|it| it["status"]["phase"] == "Ready");
    world.until("all sites are Ready", ready).await;
    for number in 0..SITE_COUNT {
        let mut object = backup(&format!("backup-{number}"), &format!("site-{number}"));
        object["spec"]["schedule"] = json!("* * * * *");
        world.server.create_by_hand(BACKUPS, &object);
    }
}

/// Waits until half a second before the next minute, and changes some sites.
async fn edit_as_the_minute_turns(world: &World, change: i64) {
    let in_minute = world.server.now().as_millisecond().rem_euclid(60_000);
    sleep(Duration::from_millis((59_500 - in_minute).rem_euclid(60_000).unsigned_abs())).await;
    for number in 0..EDITED {
        world.server.change(SITES, &format!("site-{number}"), |it| {
            it["spec"]["siteConfig"] = json!({"mute_emails": change % 2});
        });
    }
    sleep(Duration::from_secs(1)).await;
}

/// Runs the replicas: one is killed in minute 4, and two are added, one in minute 2 and one in minute 8.
async fn minutes(world: &World, one: Replica) -> Vec<Replica> {
    let mut replicas = vec![one, world.replica(1, "two")];
    for minute in 0..MINUTES {
        edit_as_the_minute_turns(world, minute).await;
        match minute {
            2 => replicas.push(world.replica(2, "three")),
            4 => replicas.remove(1).kill(world),
            8 => replicas.push(world.replica(3, "four")),
            _ => {}
        }
    }
    replicas
}

/// Job names by whether they are of backups. Each Job is created once, and a site never has two at a time.
fn jobs(world: &World) -> BTreeMap<bool, BTreeSet<String>> {
    let (mut made, mut running) = (BTreeMap::<bool, BTreeSet<String>>::new(), BTreeMap::<String, String>::new());
    for write in world.server.written().into_iter().filter(is_of_site) {
        let (name, site) = (write.place.name.clone(), write.object["metadata"]["labels"]["site"].to_string());
        if write.change == Change::Added {
            assert!(made.entry(is_of_backup(&write)).or_default().insert(name.clone()), "{name} was created twice");
            let beside = running.insert(site, name.clone());
            assert_eq!(beside, None, "{name} started while another Job ran");
        } else if ended(&write.object) || write.change == Change::Deleted {
            running.retain(|_, it| *it != name);
        }
    }
    made
}

/// Due times of all backups that were ever in the history of each SiteBackup; each must have succeeded.
fn runs(world: &World) -> BTreeMap<String, BTreeSet<Timestamp>> {
    let mut all = BTreeMap::<String, BTreeSet<Timestamp>>::new();
    for write in world.server.written().into_iter().filter(|it| it.place.plural() == "sitebackups") {
        for it in write.object["status"]["history"].as_array().into_iter().flatten() {
            assert_eq!(it["succeeded"], json!(true), "{it:#}");
            let due = it["scheduledAt"].as_str().unwrap().parse().unwrap();
            all.entry(write.place.name.clone()).or_default().insert(due);
        }
    }
    all
}

/// each site is backed up exactly once in each minute, and never during a change of the site.
#[test]
fn backups_are_made_exactly_once_while_replicas_are_killed_and_added() {
    in_parallel(1..=2, |number| {
        let seed = number as u64;
        run(seed, async move {
            let (world, one) = World::with_bench(seed).await;
            world.cluster.jobs(|job| match succeeds_after_two_seconds(job) {
                Outcome::Succeeds(_, result) => Outcome::Succeeds(Duration::from_secs(5), result),
                failed @ Outcome::Fails(..) => failed,
            });
            ground(&world).await;
            let begun = world.server.now();
            let _replicas = minutes(&world, one).await;
            for number in 0..SITE_COUNT {
                world.server.change(BACKUPS, &format!("backup-{number}"), |it| it["spec"]["suspend"] = json!(true));
            }
            world
                .until("no backup is running", |it| {
                    it.server.all(SITES).iter().all(|it| it["status"]["backup"].is_null())
                })
                .await;
            world.rest().await;
            let made = jobs(&world);
            let mut counted = 0;
            for (name, due) in runs(&world) {
                let pairs = due.iter().zip(due.iter().skip(1));
                let gap =
                    pairs.into_iter().find(|(one, next)| next.duration_since(**one) != SignedDuration::from_mins(1));
                assert_eq!(gap, None, "seed {seed}: {name} missed a minute: {due:?}");
                let first = due.first().unwrap().duration_since(begun);
                let last = due.last().unwrap().duration_since(begun);
                assert!(first <= SignedDuration::from_mins(1), "seed {seed}: {name} started late: {due:?}");
                assert!(last >= SignedDuration::from_mins(MINUTES - 2), "seed {seed}: {name} ended early: {due:?}");
                counted += due.len();
            }
            assert_eq!(made[&true].len(), counted, "seed {seed}: a Job for each backup, and a backup for each Job");
            let changed = made[&false].iter().filter(|it| it.contains("apply")).count();
            assert!(changed >= EDITED * usize::try_from(MINUTES).unwrap() / 2, "seed {seed}: {changed} changes");
            println!("seed {seed}: {counted} backups of {SITE_COUNT} sites, {changed} changes");
        });
    });
}
