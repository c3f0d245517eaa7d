//! Whole lives of objects, step by step, and what each step leads to, whatever becomes of single requests on the way.

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

use crate::world::{BACKUPS, BENCHES, INGRESSES, SITES, World, backup, bench, counts, restore, run, site};

/// Time that a new process of the pod takes to start.
const RESTART: Duration = Duration::from_millis(300);

/// What a user does, and what comes of it.
#[derive(Clone)]
struct Act {
    what: &'static str,
    does: fn(&World),
    done: fn(&World) -> bool,
}

/// A whole life.
pub(crate) struct Life {
    /// What is there before.
    before: Vec<Act>,
    acts: Vec<Act>,
}

/// What is there after an act.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    what: &'static str,
    inventory: BTreeSet<String>,
    objects: Vec<String>,
}

/// What a life led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Led {
    pub(crate) stands: Vec<Stand>,
    /// Every Job that was made, sorted.
    pub(crate) jobs: Vec<String>,
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

impl Life {
    /// What it leads to, and how many requests it took, where this becomes of its requests, which are counted from 1. An act is
    /// over when nothing was asked for `quiet`.
    pub(crate) fn lead(
        &self,
        told: &str,
        quiet: Duration,
        becomes: impl Fn(usize) -> Fault + Send + Sync + 'static,
    ) -> (Led, usize) {
        run(7, async {
            let world = World::new(7);
            let supervisor = tokio::spawn(supervise(world.clone()));
            for act in &self.before {
                (act.does)(&world);
                world.until(act.what, act.done).await;
                world.rest().await;
            }
            let count = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&count);
            world.sky.intercept(move |call: &Call| {
                if counts(call) { becomes(counted.fetch_add(1, Ordering::SeqCst) + 1) } else { Fault::None }
            });
            let mut stands = Vec::new();
            for act in &self.acts {
                (act.does)(&world);
                world.until(&format!("{}, {told}", act.what), act.done).await;
                world.quiet(quiet).await;
                stands.push(stand(&world, act.what));
            }
            let mut jobs = world.jobs_made();
            jobs.sort();
            supervisor.abort();
            (Led { stands, jobs }, count.load(Ordering::SeqCst))
        })
    }
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

/// A site is made, edited, backed up and deleted.
pub(crate) fn of_site() -> Life {
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
    Life { before: vec![BENCH_IS_READY], acts: vec![SITE_IS_READY, edited, backed_up, SITE_IS_GONE] }
}

/// A bench is made, gets another image and is deleted.
pub(crate) fn of_bench() -> Life {
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
    Life { before: Vec::new(), acts: vec![BENCH_IS_READY, edited, gone] }
}

/// A SiteBackup makes a backup, which is restored; then it goes with its backups.
pub(crate) fn of_backup() -> Life {
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
            world.server.create_by_hand(BACKUPS, &restore("back", "shop"));
        },
        done: |world| world.phase(BACKUPS, "back") == "Succeeded" && world.is_settled(SITES, "shop"),
    };
    let removed = Act {
        what: "the SiteBackup is gone, and its backups",
        does: |world| world.server.remove(BACKUPS, "once"),
        done: |world| !world.exists(BACKUPS, "once"),
    };
    Life { before: vec![BENCH_IS_READY, SITE_IS_READY], acts: vec![backed_up, restored, removed] }
}
