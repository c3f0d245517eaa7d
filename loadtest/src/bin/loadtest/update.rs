//! Moves the sites of a bench to other images while members are killed and the rollout is paused.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use frappe_loadtest::report::Updates;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    core::DynamicObject,
    runtime::watcher,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    faults,
    run::{Mark, Run, now},
    tracker::{NAMESPACE, benches},
};

/// The bench.
const BENCH: &str = "bench-0";
/// Component of the Jobs that move a site.
const COMPONENT: &str = "site-update";
/// Time without any move in which sites wait.
const WAITS: Duration = Duration::from_secs(20);
/// How long a pause lasts.
const PAUSE: Duration = Duration::from_secs(15);
/// Between two looks at the bench.
const LOOK: Duration = Duration::from_millis(500);

/// What happens when this percentage of the sites has moved.
const EVENTS: [(usize, Event); 4] =
    [(5, Event::KillMember), (10, Event::Pause), (30, Event::KillCoordinator), (50, Event::SecondImage)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    KillMember,
    Pause,
    KillCoordinator,
    SecondImage,
}

/// One measured part of the step.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) mark: Mark,
    pub(crate) updates: Updates,
    /// When the first member was killed, and the uids of the pods of those that were.
    pub(crate) gone: Option<(Timestamp, Vec<String>)>,
}

/// The uids of the Jobs that move sites, and how many of them run.
#[derive(Default)]
struct Seen {
    all: BTreeSet<String>,
    running: BTreeSet<String>,
    most: usize,
}

/// The sites wait for a paused rollout.
pub(crate) async fn wait(run: &mut Run<'_>, strategy: &Value) -> anyhow::Result<Part> {
    run.begin("update: sites wait");
    let mut paused = strategy.clone();
    paused["paused"] = json!(true);
    change(run, json!({"spec": {"updateStrategy": paused, "imageConfig": {"tag": "2"}}})).await?;
    until(run, Duration::from_mins(10), |status| status["revisions"][1]["complete"] == true).await?;
    tokio::time::sleep(WAITS).await;
    let mark = run.mark().await;
    tokio::time::sleep(WAITS).await;
    Ok(Part { name: "update: sites wait".to_owned(), mark, updates: Updates::default(), gone: None })
}

/// The sites move to two other images, the second while the first is on its way.
pub(crate) async fn forth(run: &mut Run<'_>, limit: Duration) -> anyhow::Result<Part> {
    run.begin("update: two images, kills, a pause");
    let (seen, watching) = watch(run);
    let mark = run.mark().await;
    let begun = Instant::now();
    set_paused(run, false).await?;
    let mut events = EVENTS.to_vec();
    let (mut gone, mut promotions) = (None::<(Timestamp, Vec<String>)>, 0);
    loop {
        let status = status_of(run).await?;
        let rollout = &status["rollout"];
        let count = |field: &str| usize::try_from(rollout[field].as_u64().unwrap_or(0)).unwrap_or(0);
        let second = rollout["to"] == 3;
        if second && rollout["phase"] == "Completed" && count("updated") == count("total") {
            break;
        }
        if rollout["phase"] == "Paused" && rollout["reason"] == "FailuresExceeded" {
            promotions += 1;
            let value = format!("{}//{promotions}", rollout["to"]);
            change(run, json!({"metadata": {"annotations": {"frappe.vyogo.tech/promote": value}}})).await?;
        }
        let percent = 100 * (count("updated") + count("failed")) / count("total").max(1);
        if !second && let Some((_, event)) = events.first().copied().filter(|(at, _)| percent >= *at) {
            events.remove(0);
            println!("at {percent} %: {event:?}");
            if let Some((at, uid)) = happen(run, event).await? {
                gone.get_or_insert((at, Vec::new())).1.push(uid);
            }
        }
        if begun.elapsed() > limit {
            bail!("after {} s the rollout is {rollout}", limit.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    anyhow::ensure!(events.is_empty(), "{events:?} did not happen");
    let failed = failures(run).await?;
    let updates = Updates { promotions, failed, ..counted(&seen, watching, seconds) };
    Ok(Part { name: "update: two images, kills, a pause".to_owned(), mark, updates, gone })
}

/// The sites move back to the first image.
pub(crate) async fn back(run: &mut Run<'_>, limit: Duration) -> anyhow::Result<Part> {
    run.begin("update: back");
    // The revisions without sites go first.
    let empty = |status: &Value| {
        let all = status["revisions"].as_array().cloned().unwrap_or_default();
        all.iter().filter(|it| it["retired"] != true).count() == 1
    };
    until(run, Duration::from_mins(5), empty).await?;
    let (seen, watching) = watch(run);
    let mark = run.mark().await;
    let begun = Instant::now();
    change(run, json!({"spec": {"imageConfig": {"tag": null}}})).await?;
    let ended = |status: &Value| {
        let rollout = &status["rollout"];
        rollout["to"] == 4 && rollout["phase"] == "Completed" && rollout["updated"] == rollout["total"]
    };
    until(run, limit, ended).await?;
    let updates = counted(&seen, watching, begun.elapsed().as_secs_f64());
    Ok(Part { name: "update: back".to_owned(), mark, updates, gone: None })
}

async fn happen(run: &mut Run<'_>, event: Event) -> anyhow::Result<Option<(Timestamp, String)>> {
    match event {
        Event::KillMember | Event::KillCoordinator => {
            let at = now();
            let name = faults::victim(run, event == Event::KillCoordinator).await?;
            let mut member = run.members.running.remove(&name).context("it runs")?;
            member.operator.kill()?;
            run.update_sampler()?;
            run.start_one().await?;
            Ok(Some((at, member.uid)))
        }
        Event::Pause => {
            set_paused(run, true).await?;
            tokio::time::sleep(PAUSE).await;
            set_paused(run, false).await?;
            Ok(None)
        }
        Event::SecondImage => {
            change(run, json!({"spec": {"imageConfig": {"tag": "3"}}})).await?;
            Ok(None)
        }
    }
}

async fn set_paused(run: &Run<'_>, paused: bool) -> anyhow::Result<()> {
    change(run, json!({"spec": {"updateStrategy": {"paused": paused}}})).await
}

async fn change(run: &Run<'_>, change: Value) -> anyhow::Result<()> {
    benches(&run.client).patch(BENCH, &PatchParams::default(), &Patch::Merge(change)).await?;
    Ok(())
}

async fn status_of(run: &Run<'_>) -> anyhow::Result<Value> {
    let bench: DynamicObject = benches(&run.client).get(BENCH).await?;
    Ok(bench.data["status"].clone())
}

async fn until(run: &Run<'_>, limit: Duration, is: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let status = status_of(run).await?;
        if is(&status) {
            return Ok(());
        }
        if begun.elapsed() > limit {
            bail!("after {} s: revisions {}, rollout {}", limit.as_secs(), status["revisions"], status["rollout"]);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Number of sites whose last update did not succeed at first.
async fn failures(run: &Run<'_>) -> anyhow::Result<usize> {
    let jobs: Api<Job> = Api::namespaced(run.client.clone(), NAMESPACE);
    let listed = jobs.list(&kube::api::ListParams::default().labels(&format!("component={COMPONENT}"))).await?;
    Ok(listed.iter().filter(|it| ended(it) == Some(false)).count())
}

/// Whether a Job succeeded; None while it runs.
fn ended(job: &Job) -> Option<bool> {
    let conditions = job.status.as_ref().and_then(|it| it.conditions.as_ref())?;
    let is = |kind: &str| conditions.iter().any(|it| it.type_ == kind && it.status == "True");
    if is("Complete") { Some(true) } else { is("Failed").then_some(false) }
}

/// Starts a watch of the Jobs that move sites.
fn watch(run: &Run<'_>) -> (Arc<Mutex<Seen>>, JoinHandle<()>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let api: Api<Job> = Api::namespaced(run.client.clone(), NAMESPACE);
    let told = Arc::clone(&seen);
    let since = now();
    let watching = tokio::spawn(async move {
        let config = watcher::Config::default().labels(&format!("component={COMPONENT}")).any_semantic();
        let mut events = watcher(api, config).boxed();
        while let Some(event) = events.next().await {
            let mut seen = told.lock().unwrap_or_else(PoisonError::into_inner);
            let (job, gone) = match event {
                Ok(watcher::Event::Apply(job) | watcher::Event::InitApply(job)) => (job, false),
                Ok(watcher::Event::Delete(job)) => (job, true),
                Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => continue,
            };
            let Some(uid) = job.uid().filter(|_| job.creation_timestamp().is_some_and(|it| it.0 >= since)) else {
                continue;
            };
            seen.all.insert(uid.clone());
            if gone || ended(&job).is_some() {
                seen.running.remove(&uid);
            } else {
                seen.running.insert(uid);
            }
            seen.most = seen.most.max(seen.running.len());
        }
    });
    (seen, watching)
}

fn counted(seen: &Mutex<Seen>, watching: JoinHandle<()>, seconds: f64) -> Updates {
    watching.abort();
    drop(watching);
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    Updates { moves: seen.all.len(), at_once_most: seen.most, seconds, ..Updates::default() }
}
