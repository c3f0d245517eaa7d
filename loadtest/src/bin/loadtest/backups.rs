//! Backs up every site by one schedule while members are killed, added and stopped, and sites are changed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use frappe_crds::SiteBackup;
use frappe_loadtest::backups::{Backups, Occupancy, evaluate, minute_after};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::DynamicObject,
    runtime::watcher,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    run::{Mark, Run, now},
    tracker::{self, NAMESPACE},
};

/// Maximum number of concurrent requests.
const REQUESTS_MAX: usize = 16;
/// Time until the minute for `SOON`, in which SiteBackups are created and reconciled.
const SOON_SECONDS: i64 = 120;
/// Time limit for the operator to report when each is due, and to complete running backups at the end.
const PATIENCE: Duration = Duration::from_mins(5);

/// The results of a step.
pub(crate) struct Measured {
    pub(crate) mark: Mark,
    /// When a member was killed, and the uid of its pod.
    pub(crate) gone: (Timestamp, Vec<String>),
    pub(crate) backups: Backups,
}

/// Creates a SiteBackup for each site, starts and stops members, and compares due with completed backups.
pub(crate) async fn run(
    run: &mut Run<'_>,
    schedule: &str,
    seconds: u64,
    changes_per_minute: u32,
) -> anyhow::Result<Measured> {
    let schedule = schedule.replace("SOON", &minute_after(now(), SOON_SECONDS).to_string());
    run.begin(&format!("backups: {schedule}"));
    let mark = run.mark().await;
    let api: Api<SiteBackup> = Api::namespaced(run.client.clone(), NAMESPACE);
    let (jobs, watching) = watch(run);
    let sites: Vec<String> = tracker::sites(&run.client).list(&ListParams::default()).await?.iter().map(name).collect();
    create(&api, &sites, &schedule).await?;
    let due = promised(&api, sites.len()).await?;
    let changing = tokio::spawn(change(tracker::sites(&run.client), sites, changes_per_minute));
    let gone = change_members(run, Duration::from_secs(seconds)).await;
    changing.abort();
    let gone = gone?;
    let until = now();
    begun(&api, &due, until).await?;
    suspend(&api).await?;
    at_rest(run, &jobs).await?;
    let listed = api.list(&ListParams::default()).await?;
    let histories = listed.iter().map(|it| (it.name_any(), it.status.clone().unwrap_or_default().history)).collect();
    let backups = {
        let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        evaluate(&due, &histories, &jobs, until)
    };
    watching.abort();
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    Ok(Measured { mark, gone, backups })
}

fn name(object: &DynamicObject) -> String {
    object.name_any()
}

/// Starts a watch of running Jobs.
fn watch(run: &Run<'_>) -> (Arc<Mutex<Occupancy>>, JoinHandle<()>) {
    let jobs = Arc::new(Mutex::new(Occupancy::default()));
    let api: Api<Job> = Api::namespaced(run.client.clone(), NAMESPACE);
    let told = Arc::clone(&jobs);
    let watching = tokio::spawn(async move {
        let config = watcher::Config::default().labels("site").any_semantic();
        let mut events = watcher(api, config).boxed();
        while let Some(event) = events.next().await {
            let mut jobs = told.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(watcher::Event::Apply(job) | watcher::Event::InitApply(job)) => jobs.see(&job, false),
                Ok(watcher::Event::Delete(job)) => jobs.see(&job, true),
                Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => {}
            }
        }
    });
    (jobs, watching)
}

async fn create(api: &Api<SiteBackup>, sites: &[String], schedule: &str) -> anyhow::Result<()> {
    stream::iter(sites.iter().map(Ok::<_, anyhow::Error>))
        .try_for_each_concurrent(REQUESTS_MAX, async |site| {
            let backup = json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteBackup", "metadata": {"name": site},
                "spec": {"siteRef": {"name": site}, "schedule": schedule, "storage": {"s3": {"bucket": "loadtest"}}}});
            api.create(&PostParams::default(), &serde_json::from_value(backup)?).await?;
            Ok(())
        })
        .await
}

/// When each is due, according to its status.
async fn promised(api: &Api<SiteBackup>, sites: usize) -> anyhow::Result<BTreeMap<String, Timestamp>> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let listed = api.list(&ListParams::default()).await?;
        let next = |it: &SiteBackup| Some((it.name_any(), it.status.as_ref()?.next_schedule_time.as_ref()?.0));
        let due: BTreeMap<_, _> = listed.iter().filter_map(next).collect();
        if due.len() == sites {
            return Ok(due);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    bail!("not every SiteBackup reports when it is due")
}

/// Changes sites one after the other, such that each needs a Job.
async fn change(api: Api<DynamicObject>, sites: Vec<String>, per_minute: u32) {
    if per_minute == 0 {
        return;
    }
    let mut ticks = tokio::time::interval(Duration::from_mins(1) / per_minute);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for (number, site) in sites.iter().cycle().enumerate() {
        ticks.tick().await;
        let patch = json!({"spec": {"siteConfig": {"max_file_size": number}}});
        let _ = api.patch(site, &PatchParams::default(), &Patch::Merge(&patch)).await;
    }
}

/// Kills a member after a quarter of the time, adds one after half of it, stops the coordinator after three quarters, and restores the
/// number of members at the end. Returns when the first was killed, and its uid.
async fn change_members(run: &mut Run<'_>, time: Duration) -> anyhow::Result<(Timestamp, Vec<String>)> {
    let (begun, members) = (Instant::now(), run.members.running.len());
    let until = async |quarters: u32| {
        let at = time * quarters / 4;
        tokio::time::sleep(at.saturating_sub(begun.elapsed())).await;
    };
    until(1).await;
    let chief = run.members.coordinator().await?;
    let victim = run.members.running.keys().find(|name| **name != chief).cloned().context("another member")?;
    let mut member = run.members.running.remove(&victim).context("it runs")?;
    let killed_at = now();
    member.operator.kill()?;
    run.update_sampler()?;
    run.settled().await?;
    until(2).await;
    while run.members.running.len() <= members {
        run.start_one().await?;
    }
    run.settled().await?;
    until(3).await;
    let chief = run.members.coordinator().await?;
    run.members.stop(&chief).await?;
    run.update_sampler()?;
    run.settled().await?;
    until(4).await;
    Ok((killed_at, vec![member.uid]))
}

/// Waits until every backup that was due by then has started: a backup that is suspended before is neither made nor lost. A backup
/// that never starts is found by the evaluation.
async fn begun(api: &Api<SiteBackup>, due: &BTreeMap<String, Timestamp>, until: Timestamp) -> anyhow::Result<()> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let listed = api.list(&ListParams::default()).await?;
        let handled =
            |it: &SiteBackup| it.status.as_ref().and_then(|status| status.last_schedule_time.as_ref()).map(|at| at.0);
        let waits = |it: &SiteBackup| due.get(&it.name_any()).is_some_and(|at| *at <= until && handled(it) < Some(*at));
        if !listed.iter().any(waits) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn suspend(api: &Api<SiteBackup>) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"spec": {"suspend": true}}));
    stream::iter(api.list(&ListParams::default()).await?.items.into_iter().map(Ok::<_, anyhow::Error>))
        .try_for_each_concurrent(REQUESTS_MAX, async |backup| {
            api.patch(&backup.name_any(), &PatchParams::default(), &patch).await?;
            Ok(())
        })
        .await
}

/// Waits until no backup and no Job is running.
async fn at_rest(run: &Run<'_>, jobs: &Mutex<Occupancy>) -> anyhow::Result<()> {
    let (api, begun) = (tracker::sites(&run.client), Instant::now());
    while begun.elapsed() < PATIENCE {
        let idle = |it: &Value| it["status"]["backup"].is_null();
        let no_job = jobs.lock().unwrap_or_else(PoisonError::into_inner).is_idle();
        if no_job && api.list(&ListParams::default()).await?.iter().all(|it| idle(&it.data)) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    bail!("backups or Jobs did not end")
}
