//! The crash sweep: the replica is killed after its n-th request, for every n of an object's whole life; each time all comes
//! to the same end.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kube_sharding_sim::{Call, Fault};
use serde_json::{Value, json};

use crate::world::{BACKUPS, BENCHES, INGRESSES, SITES, World, backup, bench, counts, in_parallel, run, site};

/// Time that a new process of the pod takes to start.
const RESTART: Duration = Duration::from_millis(300);
/// More requests than any way has: the sweep must end before.
const REQUESTS_MAX: usize = 250;

/// What a user does, and what comes of it.
struct Act {
    what: &'static str,
    does: fn(&World),
    done: fn(&World) -> bool,
}

/// A whole life.
struct Way {
    /// What is there before.
    before: &'static [Act],
    acts: &'static [Act],
    /// What is written of the way: at least so many requests.
    least: usize,
}

/// What is there after an act.
#[derive(Debug, PartialEq, Eq)]
struct Stand {
    what: &'static str,
    inventory: BTreeSet<String>,
    objects: Vec<String>,
}

/// A site, a bench or a SiteBackup, as far as it must be the same each time.
fn essence(object: &Value) -> String {
    let status = &object["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let conditions: Vec<_> = conditions.map(|it| format!("{}={} {}", it["type"], it["status"], it["reason"])).collect();
    let operation = &status["operation"];
    format!(
        "{} {} {:?} {} {} {} {} {}",
        object["metadata"]["name"],
        status["phase"],
        conditions,
        operation["kind"],
        operation["attempt"],
        operation["outcome"]["state"],
        status["backup"],
        status["observedGeneration"] == object["metadata"]["generation"],
    )
}

fn stand(world: &World, what: &'static str) -> Stand {
    let all = [SITES, BENCHES, BACKUPS].into_iter().flat_map(|it| world.server.all(it));
    Stand { what, inventory: world.inventory(), objects: all.map(|it| essence(&it)).collect() }
}

/// Replaces the process of the pod each time that it dies.
async fn supervise(world: World) {
    for process in 0.. {
        let replica = world.replica(process, "one");
        world.sky.death_of(process).await;
        replica.kill(&world);
        tokio::time::sleep(RESTART).await;
    }
}

/// What the way leads to, and how many requests it took, where the replica dies after one of them.
fn walk(way: &Way, dies_after: Option<usize>) -> (Vec<Stand>, Vec<String>, usize) {
    run(7, async {
        let world = World::new(7);
        let supervisor = tokio::spawn(supervise(world.clone()));
        for act in way.before {
            (act.does)(&world);
            world.until(act.what, act.done).await;
            world.rest().await;
        }
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        world.sky.intercept(move |call: &Call| {
            let number = counts(call).then(|| counted.fetch_add(1, Ordering::SeqCst) + 1);
            if number.is_some() && number == dies_after { Fault::Crash } else { Fault::None }
        });
        let mut stands = Vec::new();
        for act in way.acts {
            (act.does)(&world);
            world.until(&format!("{}, killed after {dies_after:?}", act.what), act.done).await;
            world.rest().await;
            stands.push(stand(&world, act.what));
        }
        let mut jobs = world.jobs_made();
        jobs.sort();
        supervisor.abort();
        (stands, jobs, count.load(Ordering::SeqCst))
    })
}

fn sweep(way: &Way) {
    let (wanted, jobs, requests) = walk(way, None);
    println!("{requests} requests, Jobs {jobs:?}");
    assert!((way.least..REQUESTS_MAX).contains(&requests), "{requests} requests");
    in_parallel(1..=requests, |number| {
        let (found, made, _) = walk(way, Some(number));
        assert_eq!(found, wanted, "killed after request {number} of {requests}");
        assert_eq!(made, jobs, "killed after request {number} of {requests}: a Job was made twice, or not at all");
    });
}

const BENCH_IS_READY: Act = Act {
    what: "the bench is Ready",
    does: |world| {
        world.server.create_by_hand(BENCHES, &bench());
    },
    done: |world| world.phase(BENCHES, "bench") == "Ready",
};
const SITE_IS_READY: Act = Act {
    what: "the site is Ready",
    does: |world| {
        world.server.create_by_hand(SITES, &site("shop"));
    },
    done: |world| world.phase(SITES, "shop") == "Ready",
};
const SITE_IS_GONE: Act = Act {
    what: "the site is gone",
    does: |world| world.server.remove(SITES, "shop"),
    done: |world| !world.exists(SITES, "shop"),
};

/// a site is made, edited, backed up and deleted.
#[test]
fn a_site_survives_a_crash_after_any_request() {
    let edited = Act {
        what: "the edit is applied",
        does: |world| {
            world.server.change(SITES, "shop", |it| it["spec"]["additionalDomains"] = json!(["www.shop.example.com"]));
        },
        done: |world| {
            let served =
                world.server.get(INGRESSES, "shop-ingress").is_some_and(|it| it.to_string().contains("www.shop"));
            served && world.is_settled(SITES, "shop")
        },
    };
    let backed_up = Act {
        what: "the backup succeeded",
        does: |world| {
            world.server.create_by_hand(BACKUPS, &backup("once", "shop"));
        },
        done: |world| world.phase(BACKUPS, "once") == "Succeeded",
    };
    let acts: &'static [Act] = Box::leak(Box::new([SITE_IS_READY, edited, backed_up, SITE_IS_GONE]));
    sweep(&Way { before: &[BENCH_IS_READY], acts, least: 30 });
}

/// a bench is made, gets another image and is deleted.
#[test]
fn a_bench_survives_a_crash_after_any_request() {
    let edited = Act {
        what: "the other image runs",
        does: |world| {
            world.server.change(BENCHES, "bench", |it| {
                it["spec"]["imageConfig"] = json!({"repository": "example.com/other", "tag": "2"});
            });
        },
        done: |world| {
            let deployments = world.server.all("/apis/apps/v1/namespaces/shops/deployments");
            let image = |it: &Value| it["spec"]["template"]["spec"]["containers"][0]["image"].to_string();
            !deployments.is_empty()
                && deployments.iter().all(|it| image(it).contains("other:2"))
                && world.is_settled(BENCHES, "bench")
        },
    };
    let gone = Act {
        what: "the bench is gone",
        does: |world| world.server.remove(BENCHES, "bench"),
        done: |world| !world.exists(BENCHES, "bench"),
    };
    let acts: &'static [Act] = Box::leak(Box::new([BENCH_IS_READY, edited, gone]));
    sweep(&Way { before: &[], acts, least: 30 });
}

/// a SiteBackup makes a backup, which is restored; then it goes with its backups.
#[test]
fn a_backup_survives_a_crash_after_any_request() {
    let backed_up = Act {
        what: "the backup succeeded",
        does: |world| {
            let mut once = backup("once", "shop");
            once["spec"]["deletionPolicy"] = json!("Delete");
            world.server.create_by_hand(BACKUPS, &once);
        },
        done: |world| world.phase(BACKUPS, "once") == "Succeeded",
    };
    let restored = Act {
        what: "the backup is restored",
        does: |world| {
            let mut restore = backup("back", "shop");
            restore["spec"]["restore"] = json!({"backupName": "once-20251009-085320"});
            world.server.create_by_hand(BACKUPS, &restore);
        },
        done: |world| world.phase(BACKUPS, "back") == "Succeeded" && world.is_settled(SITES, "shop"),
    };
    let removed = Act {
        what: "the SiteBackup is gone, and its backups",
        does: |world| world.server.remove(BACKUPS, "once"),
        done: |world| !world.exists(BACKUPS, "once"),
    };
    let acts: &'static [Act] = Box::leak(Box::new([backed_up, restored, removed]));
    let before: &'static [Act] = Box::leak(Box::new([BENCH_IS_READY, SITE_IS_READY]));
    sweep(&Way { before, acts, least: 15 });
}
