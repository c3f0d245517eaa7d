//! Site Jobs of one bench, run by three replicas: never more at once than the budget, and whoever waits says so.

use std::{fmt::Write, time::Duration};

use frappe_crds::{FrappeBench, site::SitePhase};
use frappe_loadtest::process::{Operator, Options};
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::support::{World, program, site};

/// Sites that are made at once; each one's Job takes five seconds.
const SITES: usize = 500;
const LIMIT: usize = 10;
const MEMBERS: usize = 3;

fn member(name: &str) -> Options {
    Options { pod_name: Some(name.to_owned()), lease_seconds: Some(5), ..Options::default() }
}

/// Site Jobs that are not done.
async fn running(jobs: &Api<Job>) -> usize {
    let all = jobs.list(&ListParams::default().labels("site")).await.unwrap();
    let done = |job: &Job| {
        let conditions = job.status.clone().unwrap_or_default().conditions.unwrap_or_default();
        conditions.iter().any(|it| it.status == "True" && (it.type_ == "Complete" || it.type_ == "Failed"))
    };
    all.items.iter().filter(|job| !done(job)).count()
}

/// Counts until so many sites are Ready; answers the most Jobs that were seen at once.
async fn most_at_once(world: &World, jobs: &Api<Job>, ready: usize) -> usize {
    let mut most = 0;
    for _ in 0..3000 {
        most = most.max(running(jobs).await);
        let sites = world.sites("budget").list(&ListParams::default()).await.unwrap();
        let phases = sites.items.iter().map(|site| site.status.clone().unwrap_or_default().phase);
        if phases.filter(|phase| *phase == SitePhase::Ready).count() >= ready {
            return most;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{ready} sites did not become Ready\n{}", world.operator.log_tail())
}

/// R-15.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_sites_at_once_start_ten_jobs_at_a_time() {
    let world = World::start_with("budget", &member("one")).await;
    let mut others = Vec::new();
    for name in ["two", "three"] {
        let mut operator = Operator::start(program(), &world.cluster, &member(name)).unwrap();
        operator.ready().await.unwrap();
        others.push(operator);
    }
    assert_eq!(others.len() + 1, MEMBERS);
    let share = || async {
        let shards = world.operator.http("/shards").await.ok()?;
        (shards.matches("\"slots\":85").count() + shards.matches("\"slots\":86").count() >= 2).then_some(())
    };
    world.until("the three share the slots", 60, share).await;
    world.with_bench("budget").await;
    let benches: Api<FrappeBench> = Api::namespaced(world.client.clone(), "budget");
    let limit = async |limit: usize| {
        let patch = Patch::Merge(json!({"spec": {"siteJobConcurrency": limit}}));
        benches.patch("bench", &PatchParams::default(), &patch).await.unwrap();
    };
    limit(LIMIT).await;
    let mut manifest = String::new();
    for number in 0..SITES {
        write!(manifest, "{}", site("budget", &format!("slow-{number}"))).unwrap();
    }
    world.cluster.apply(&manifest).unwrap();
    let jobs: Api<Job> = Api::namespaced(world.client.clone(), "budget");
    let begun = std::time::Instant::now();
    let first = most_at_once(&world, &jobs, SITES / 5).await;
    let waiting = world.sites("budget").list(&ListParams::default()).await.unwrap();
    let said = waiting.items.iter().filter_map(|site| {
        let ready = site.status.clone()?.conditions.into_iter().find(|it| it.type_ == "Ready")?;
        (ready.reason == "WaitingForJobSlot").then_some(ready.message)
    });
    let said: Vec<String> = said.collect();
    println!("{} sites wait: {}", said.len(), said.first().unwrap());
    limit(4 * LIMIT).await;
    let second = most_at_once(&world, &jobs, SITES).await;
    println!(
        "{SITES} sites, {MEMBERS} replicas: at most {first} Jobs at once with a limit of {LIMIT}, at most {second} with {}; \
         {:.0} s",
        4 * LIMIT,
        begun.elapsed().as_secs_f64()
    );
    assert!(first <= LIMIT + MEMBERS, "{first}");
    assert!(first >= LIMIT - 2, "the budget is used: {first}");
    assert!(second > LIMIT + MEMBERS && second <= 4 * LIMIT + MEMBERS, "{second}");
}

/// A Job that is out of the operator's sight, because its label was taken by hand, gets it back: it is neither lost nor made
/// twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_lost_its_label_is_found_again() {
    let world = World::start("label").await;
    world.with_bench("shops").await;
    // No node takes a pod: the Job stays under way.
    let nodes = world.kubectl(&["get", "nodes", "-o", "name"]);
    for node in nodes.lines() {
        world.kubectl(&["cordon", node]);
    }
    world.cluster.apply(&site("shops", "shop")).unwrap();
    let look = |path: &str| {
        let output = format!("jsonpath={{{path}}}");
        let found = world.cluster.kubectl(&["get", "job", "shop-init", "-n", "shops", "-o", &output], "").unwrap();
        Some(found.out).filter(|it| found.success && !it.is_empty())
    };
    let label = r".metadata.labels.frappe\.vyogo\.tech/slot";
    let slot = world.until("the Job is there", 60, || async { look(label) }).await;
    let uid = look(".metadata.uid");
    world.kubectl(&["label", "job", "shop-init", "-n", "shops", "frappe.vyogo.tech/slot-"]);
    let back = world.until("the Job has its label again", 60, || async { look(label) }).await;
    assert_eq!((back, look(".metadata.uid")), (slot, uid));
    for node in nodes.lines() {
        world.kubectl(&["uncordon", node]);
    }
    world.site_in("shops", "shop", SitePhase::Ready).await;
    let jobs = world.kubectl(&["get", "jobs", "-n", "shops", "-o", "name"]);
    assert_eq!(jobs.lines().filter(|it| it.contains("shop")).count(), 1, "{jobs}");
}
