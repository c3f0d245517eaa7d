//! Life cycles of objects, step by step, and their results, with faults of single requests.

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

use crate::{
    cluster::{Outcome, succeeds_after_two_seconds},
    world::{
        BACKUPS, BENCHES, DEPLOYMENTS, INGRESSES, SECRETS, SITE_JOBS, SITES, World, backup, bench, is_counted, restore,
        run, site, site_job,
    },
};

/// Time that a new process of the pod needs to start.
const RESTART: Duration = Duration::from_millis(300);

/// A user's action, and when its effect is complete.
#[derive(Clone)]
struct Step {
    what: &'static str,
    does: fn(&World),
    done: fn(&World) -> bool,
}

/// A life cycle.
pub(crate) struct Life {
    /// Steps before the tested ones.
    before: Vec<Step>,
    steps: Vec<Step>,
}

/// The cluster's objects after a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    what: &'static str,
    inventory: BTreeSet<String>,
    objects: Vec<String>,
}

/// The results of a life cycle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Results {
    pub(crate) snapshots: Vec<Snapshot>,
    /// Every Job that was created, sorted.
    pub(crate) jobs: Vec<String>,
}

/// The fields of a site, bench, SiteBackup or SiteJob that must be the same in each run.
fn essence(object: &Value) -> String {
    let status = &object["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let conditions: Vec<_> = conditions.map(|it| format!("{}={} {}", it["type"], it["status"], it["reason"])).collect();
    let operation = &status["operation"];
    format!(
        "{} {} {:?} {} {} {} {} {} {} {}",
        object["metadata"]["name"],
        status["phase"],
        conditions,
        operation["kind"],
        operation["attempt"],
        operation["outcome"]["state"],
        status["backup"],
        status["job"]["siteJob"],
        status["outcome"]["code"],
        status["observedGeneration"] == object["metadata"]["generation"],
    )
}

fn snapshot(world: &World, what: &'static str) -> Snapshot {
    let all = [SITES, BENCHES, BACKUPS, SITE_JOBS].into_iter().flat_map(|it| world.server.all(it));
    Snapshot { what, inventory: world.inventory(), objects: all.map(|it| essence(&it)).collect() }
}

/// Restarts the pod's process whenever it dies.
async fn supervise(world: World) {
    for process in 0.. {
        let replica = world.replica(process, "one");
        world.injector.death_of(process).await;
        replica.kill(&world);
        tokio::time::sleep(RESTART).await;
    }
}

impl Life {
    /// Runs the life cycle and returns its results and the number of its requests, which are counted from 1 and have these faults. A
    /// step is complete when no request was sent for `quiet`.
    pub(crate) fn run(
        &self,
        label: &str,
        quiet: Duration,
        fault_of: impl Fn(usize) -> Fault + Send + Sync + 'static,
    ) -> (Results, usize) {
        self.run_counting(is_counted, label, quiet, fault_of)
    }

    /// The same, with the requests that count.
    pub(crate) fn run_counting(
        &self,
        counts: fn(&Call) -> bool,
        label: &str,
        quiet: Duration,
        fault_of: impl Fn(usize) -> Fault + Send + Sync + 'static,
    ) -> (Results, usize) {
        run(7, async {
            let world = World::new(7);
            let supervisor = tokio::spawn(supervise(world.clone()));
            for step in &self.before {
                (step.does)(&world);
                world.until(step.what, step.done).await;
                world.rest().await;
            }
            let count = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&count);
            world.injector.intercept(move |call: &Call| {
                if counts(call) { fault_of(counted.fetch_add(1, Ordering::SeqCst) + 1) } else { Fault::None }
            });
            let mut snapshots = Vec::new();
            for step in &self.steps {
                (step.does)(&world);
                world.until(&format!("{}, {label}", step.what), step.done).await;
                world.quiet(quiet).await;
                snapshots.push(snapshot(&world, step.what));
            }
            let mut jobs = world.jobs_made();
            jobs.sort();
            supervisor.abort();
            (Results { snapshots, jobs }, count.load(Ordering::SeqCst))
        })
    }
}

const BENCH_IS_READY: Step = Step {
    what: "the bench is Ready",
    does: |world| {
        world.server.create_by_hand(BENCHES, &bench());
    },
    done: |world| world.phase(BENCHES, "bench") == "Ready",
};
const SITE_IS_READY: Step = Step {
    what: "the site is Ready",
    does: |world| {
        world.server.create_by_hand(SITES, &site("shop"));
    },
    done: |world| world.phase(SITES, "shop") == "Ready",
};
const SITE_IS_GONE: Step = Step {
    what: "the site is deleted",
    does: |world| world.server.remove(SITES, "shop"),
    done: |world| !world.exists(SITES, "shop"),
};

/// A site is created, edited, backed up and deleted.
pub(crate) fn of_site() -> Life {
    let edited = Step {
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
    let backed_up = Step {
        what: "the backup succeeded",
        does: |world| {
            world.server.create_by_hand(BACKUPS, &backup("once", "shop"));
        },
        done: |world| world.phase(BACKUPS, "once") == "Succeeded",
    };
    Life { before: vec![BENCH_IS_READY], steps: vec![SITE_IS_READY, edited, backed_up, SITE_IS_GONE] }
}

/// A Secret that Redis and a site read gets an annotation, and then another password.
pub(crate) fn of_secret() -> Life {
    let begun = Step {
        what: "bench and site are Ready",
        does: |world| {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shared"},
                                "data": {"password": "Zmlyc3Q="}});
            world.server.create_by_hand(SECRETS, &secret);
            let (mut bench, mut site) = (bench(), site("shop"));
            bench["spec"]["redisConfig"] = json!({"passwordSecretRef": {"name": "shared"}});
            site["spec"]["adminPasswordSecretRef"] = json!({"name": "shared"});
            world.server.create_by_hand(BENCHES, &bench);
            world.server.create_by_hand(SITES, &site);
        },
        done: |world| world.phase(SITES, "shop") == "Ready" && world.phase(BENCHES, "bench") == "Ready",
    };
    let annotated = Step {
        what: "the annotation changes nothing",
        does: |world| {
            world.server.change(SECRETS, "shared", |it| it["metadata"]["annotations"] = json!({"example.com/at": "1"}));
        },
        done: |_| true,
    };
    let changed = Step {
        what: "the other password is set",
        does: |world| world.server.change(SECRETS, "shared", |it| it["data"]["password"] = json!("c2Vjb25k")),
        done: |world| {
            let set = world.jobs_made().iter().any(|it| it == "shop-apply");
            set && world.is_settled(SITES, "shop") && world.is_settled(BENCHES, "bench")
        },
    };
    Life { before: Vec::new(), steps: vec![begun, annotated, changed] }
}

/// A bench is created, gets another image and is deleted.
pub(crate) fn of_bench() -> Life {
    let edited = Step {
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
    let gone = Step {
        what: "the bench is deleted",
        does: |world| world.server.remove(BENCHES, "bench"),
        done: |world| !world.exists(BENCHES, "bench"),
    };
    Life { before: Vec::new(), steps: vec![BENCH_IS_READY, edited, gone] }
}

/// A SiteBackup makes a backup, which is restored; then it is deleted with its backups.
pub(crate) fn of_backup() -> Life {
    let backed_up = Step {
        what: "the backup succeeded",
        does: |world| {
            let mut once = backup("once", "shop");
            once["spec"]["deletionPolicy"] = json!("Delete");
            world.server.create_by_hand(BACKUPS, &once);
        },
        done: |world| world.phase(BACKUPS, "once") == "Succeeded",
    };
    let restored = Step {
        what: "the backup is restored",
        does: |world| {
            world.server.create_by_hand(BACKUPS, &restore("back", "shop"));
        },
        done: |world| world.phase(BACKUPS, "back") == "Succeeded" && world.is_settled(SITES, "shop"),
    };
    let removed = Step {
        what: "the SiteBackup and its backups are deleted",
        does: |world| world.server.remove(BACKUPS, "once"),
        done: |world| !world.exists(BACKUPS, "once"),
    };
    Life { before: vec![BENCH_IS_READY, SITE_IS_READY], steps: vec![backed_up, restored, removed] }
}

/// Two SiteJobs run one after the other, one fails without a word and its maintenance mode is ended, one is deleted after its time, and one
/// while it runs.
pub(crate) fn of_site_job() -> Life {
    let ran = Step {
        what: "both have run",
        does: |world| {
            for name in ["first", "second"] {
                world.server.create_by_hand(SITE_JOBS, &site_job(name, "shop"));
            }
        },
        done: |world| ["first", "second"].iter().all(|it| world.phase(SITE_JOBS, it) == "Succeeded"),
    };
    let cut = Step {
        what: "one was cut short",
        does: |world| {
            world.cluster.jobs(|job| {
                let settles = job.to_string().contains("\\\"settle\\\":true");
                if settles { succeeds_after_two_seconds(job) } else { Outcome::Fails(Duration::from_secs(2), "") }
            });
            world.server.create_by_hand(SITE_JOBS, &site_job("cut", "shop"));
        },
        done: |world| {
            let site = world.server.get(SITES, "shop").unwrap_or_default();
            world.phase(SITE_JOBS, "cut") == "Failed" && site["status"]["job"].is_null()
        },
    };
    let expired = Step {
        what: "one is deleted after its time",
        does: |world| {
            world.cluster.jobs(succeeds_after_two_seconds);
            world.server.change(SITE_JOBS, "first", |it| it["spec"]["ttlSecondsAfterFinished"] = json!(0));
        },
        done: |world| !world.exists(SITE_JOBS, "first"),
    };
    let stopped = Step {
        what: "one is deleted while it runs",
        does: |world| {
            world.cluster.jobs(|_| Outcome::Succeeds(Duration::from_hours(1), json!({})));
            world.server.create_by_hand(SITE_JOBS, &site_job("last", "shop"));
        },
        done: |world| world.phase(SITE_JOBS, "last") == "Running",
    };
    let deleted = Step {
        what: "its Job is gone",
        does: |world| world.server.remove(SITE_JOBS, "last"),
        done: |world| {
            let site = world.server.get(SITES, "shop").unwrap_or_default();
            site["status"]["job"].is_null()
        },
    };
    Life { before: vec![BENCH_IS_READY, SITE_IS_READY], steps: vec![ran, cut, expired, stopped, deleted] }
}

/// A bench with a site gets an image with another schema.
pub(crate) fn of_update() -> Life {
    let updated = Step {
        what: "the site has the schema of the other image",
        does: |world| {
            world.server.change(BENCHES, "bench", |it| it["spec"]["imageConfig"] = json!({"tag": "2"}));
        },
        done: |world| {
            let site = world.server.get(SITES, "shop").unwrap_or_default();
            site["status"]["apps"].to_string().contains(":2")
                && world.is_settled(SITES, "shop")
                && world.is_settled(BENCHES, "bench")
        },
    };
    Life { before: vec![BENCH_IS_READY, SITE_IS_READY], steps: vec![updated] }
}

/// A site that moves to another revision of its bench, whose former one goes.
pub(crate) fn of_revision() -> Life {
    let moved = Step {
        what: "the other revision serves the site, and the former one has no pods",
        does: |world| {
            world.server.change(BENCHES, "bench", |it| {
                it["spec"]["imageConfig"] = json!({"tag": "2"});
                it["spec"]["updateStrategy"] = json!({"type": "Revisions", "scaleDownDelay": "5s"});
            });
        },
        done: |world| {
            let site = world.server.get(SITES, "shop").unwrap_or_default();
            site["status"]["revision"] == 2
                && world
                    .server
                    .get(DEPLOYMENTS, "bench-nginx")
                    .is_some_and(|it| it.to_string().contains(".revisions/2"))
                && world.server.all(DEPLOYMENTS).iter().all(|it| !it["metadata"]["name"].to_string().contains("-r1"))
                && world.is_settled(SITES, "shop")
                && world.is_settled(BENCHES, "bench")
        },
    };
    Life { before: vec![BENCH_IS_READY, SITE_IS_READY], steps: vec![moved] }
}
