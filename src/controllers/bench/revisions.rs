//! Revisions of a bench's code, which run beside each other while its sites move to the newest one. Pure.
//!
//! With `updateStrategy.type: Revisions`, another image is another revision: it is recorded first, with a number, a folder of the volume and
//! a database of the cache. Then pods of the former code start beside the present ones, under names with their number, and serve the same
//! folder; once they are ready, the present pods are replaced, stage by stage, and serve the new folder. nginx of the newest revision leads
//! each site to the revision in whose folder it lies. A revision without sites is retired after a while.

use std::time::Duration;

use frappe_crds::{
    FrappeBench, FrappeBenchStatus,
    bench::{BenchPhase, PauseReason, Revision, Rollout, RolloutPhase, UpdateType},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    build,
    code::Code,
    model::{FIRST_REVISION, Input, Observed, Rendered, Report, redeploy},
    placed,
    reason::Reason,
    rollout,
    seen::{is_rolling, lacks_pods},
    waves::{self, Sight},
};
use crate::domain::object::{Desired, Kind};

/// Revisions that may have pods at once.
const LIVE_MAX: usize = 3;
/// Retired revisions that are remembered.
const RETIRED_MAX: usize = 5;

/// Whether another image is another revision.
pub fn is_enabled(observed: &Observed) -> bool {
    let strategy = observed.bench.spec.update_strategy.as_ref();
    strategy.and_then(|it| it.kind) == Some(UpdateType::Revisions)
}

/// The status that records another revision, if the spec has another image than the newest one.
pub fn record(observed: &Observed) -> Result<Option<FrappeBenchStatus>, Report> {
    let former = observed.bench.status.clone().unwrap_or_default();
    let input = observed.input();
    let Some(present) = present(observed, &former).filter(|_| is_enabled(observed)) else { return Ok(None) };
    if is_of(&present, &input) {
        return Ok(None);
    }
    let mut revisions = former.revisions.clone();
    if revisions.is_empty() {
        revisions.push(present.clone());
    }
    // Sites move only to a revision that was complete.
    revisions.retain(|it| it.complete || it.number != present.number);
    let live: Vec<&Revision> = revisions.iter().filter(|it| !it.retired).collect();
    if live.len() >= LIVE_MAX {
        let numbers: Vec<String> = live.iter().map(|it| it.number.to_string()).collect();
        let message = format!(
            "image {} waits: revisions {} have sites or pods, and at most {LIVE_MAX} revisions run at once",
            input.image(),
            numbers.join(", ")
        );
        return Err(Report::new(BenchPhase::Progressing, Reason::TooManyRevisions, message));
    }
    let used: Vec<i32> = live.iter().map(|it| it.cache_database).collect();
    let cache_database = (0..=i32::MAX).find(|it| !used.contains(it)).unwrap_or_default();
    revisions.push(Revision { number: present.number + 1, cache_database, ..asked(&input) });
    Ok(Some(FrappeBenchStatus { revisions, ..former }))
}

/// The newest revision; of a bench that has had only one, what it runs. None before it has run anything completely.
fn present(observed: &Observed, former: &FrappeBenchStatus) -> Option<Revision> {
    if let Some(newest) = former.revisions.last() {
        return Some(newest.clone());
    }
    let settled = former.running_revision.is_some() && former.running_revision == former.desired_revision;
    Some(Revision {
        number: FIRST_REVISION,
        image: former.image.clone().filter(|_| settled)?,
        image_digest: former.image_digest.clone(),
        copy: rollout::copy_now(observed),
        redeploy: former.last_handled_redeploy.clone(),
        apps: former.apps.clone(),
        complete: true,
        ..Revision::default()
    })
}

/// The code that the spec asks for.
fn asked(input: &Input) -> Revision {
    Revision {
        image: input.image(),
        copy: build::copy_of_code(input),
        redeploy: redeploy(input.bench).cloned(),
        ..Revision::default()
    }
}

/// Whether a revision has the code that the spec asks for.
fn is_of(revision: &Revision, input: &Input) -> bool {
    let asked = asked(input);
    (&revision.image, &revision.copy, &revision.redeploy) == (&asked.image, &asked.copy, &asked.redeploy)
}

/// The revisions for the status: the newest one as it was found, and others retired that have had no sites for a while.
pub fn revisions(observed: &Observed, rendered: &Rendered, code: &Code, is_complete: bool) -> Vec<Revision> {
    let mut revisions = observed.bench.status.clone().unwrap_or_default().revisions;
    let Some(newest) = revisions.last_mut() else { return revisions };
    if code.inspected_revision.as_deref() == Some(rendered.revision()) {
        let asked = asked(&observed.input());
        (newest.image, newest.copy, newest.redeploy) = (asked.image, asked.copy, asked.redeploy);
        newest.image_digest.clone_from(&code.digest);
        newest.apps.clone_from(&code.apps);
    }
    newest.complete |= is_complete;
    let (complete, number) = (newest.complete, newest.number);
    for earlier in revisions.iter_mut().filter(|it| it.number != number && !it.retired) {
        earlier.empty_since = empty_since(observed, earlier).filter(|_| complete);
        earlier.retired = left(observed, earlier).is_some_and(|left| left.is_zero());
    }
    let excess = revisions.iter().filter(|it| it.retired).count().saturating_sub(RETIRED_MAX);
    let oldest: Vec<i32> = revisions.iter().filter(|it| it.retired).take(excess).map(|it| it.number).collect();
    revisions.retain(|it| !oldest.contains(&it.number));
    revisions
}

/// Since when a revision has had no sites; what is recorded stays while their number is not known.
fn empty_since(observed: &Observed, revision: &Revision) -> Option<Time> {
    let Some(sites) = &observed.placed else { return revision.empty_since.clone() };
    let is_empty = sites.iter().all(|it| it.revision != revision.number && it.goes_to != Some(revision.number));
    is_empty.then(|| revision.empty_since.clone().unwrap_or(Time(observed.now)))
}

/// The rollout to the newest revision, and the value of the annotation promote that it handles. None for a bench that has had only one.
pub fn rollout(observed: &Observed, revisions: &[Revision]) -> Option<(Rollout, Option<String>)> {
    let newest = revisions.last()?;
    let sites = observed.placed.as_ref().map(|it| it.as_slice());
    let sight = Sight { bench: &observed.bench, complete: newest.complete, sites, now: observed.now };
    Some(waves::next(&sight, newest.number))
}

/// Whether all sites have moved: status, reason and message of the condition.
pub fn convergence(rollout: &Rollout) -> (bool, Reason, String) {
    let Rollout { to, total, updated, failed, held, .. } = rollout;
    let reason = match (rollout.phase, rollout.reason) {
        (RolloutPhase::Preparing, _) => Reason::RolloutPreparing,
        (RolloutPhase::Progressing, _) if rollout.window_opens_at.is_some() => Reason::RolloutOutsideWindow,
        (RolloutPhase::Progressing, _) => Reason::RolloutProgressing,
        (RolloutPhase::Soaking, _) => Reason::RolloutSoaking,
        (RolloutPhase::Paused, Some(PauseReason::FailuresExceeded)) => Reason::RolloutFailuresExceeded,
        (RolloutPhase::Paused, Some(PauseReason::AwaitingPromotion)) => Reason::RolloutAwaitingPromotion,
        (RolloutPhase::Paused, _) => Reason::RolloutPaused,
        (RolloutPhase::Aborted, _) => Reason::RolloutAborted,
        (RolloutPhase::Completed, _) => Reason::RolloutCompleted,
    };
    let waits =
        rollout.window_opens_at.as_ref().map(|it| format!("; others wait for the window that opens at {}", it.0));
    let message = format!(
        "{updated} of {total} sites have moved to revision {to}, {failed} failed, {held} must not move{}",
        waits.unwrap_or_default()
    );
    (rollout.phase == RolloutPhase::Completed && failed + held == 0, reason, message)
}

fn left(observed: &Observed, revision: &Revision) -> Option<Duration> {
    placed::retires_in(&observed.bench, revision, observed.now)
}

/// Time until the next revision is retired.
pub fn again_after(observed: &Observed) -> Option<Duration> {
    let retires = placed::revisions(&observed.bench).iter().filter_map(|it| left(observed, it)).min();
    retires.into_iter().chain(waves::again_after(&observed.bench, observed.now)).min()
}

/// Whether the sites of a bench must be counted: several revisions have pods.
pub fn counts_sites(bench: &FrappeBench) -> bool {
    placed::revisions(bench).iter().filter(|it| !it.retired).count() > 1
}

/// Objects of earlier revisions that may exist now. A scheduler starts only when the former pods have ended: there must never be two in
/// one folder.
pub fn older(observed: &Observed, rendered: &Rendered) -> Vec<Desired> {
    let scheduler_left =
        |it: &&Desired| !is_scheduler(it) || there(observed, it) || has_scheduler_left(observed, rendered);
    rendered.older.iter().filter(scheduler_left).cloned().collect()
}

fn is_scheduler(desired: &Desired) -> bool {
    desired.component().starts_with(SCHEDULER)
}

/// Whether the scheduler of the newest revision has replaced that of the former one.
fn has_scheduler_left(observed: &Observed, rendered: &Rendered) -> bool {
    let plain = rendered.components.iter().find(|it| it.kind == Kind::Deployment && it.component() == SCHEDULER);
    plain.is_some_and(|it| rollout::runs_desired(observed, it)) && !is_rolling(observed, SCHEDULER)
}

const SCHEDULER: &str = "scheduler";

fn there(observed: &Observed, desired: &Desired) -> bool {
    observed.live.contains_key(&(desired.kind, desired.key.name.clone()))
}

/// Components of earlier revisions that do not run yet, the schedulers aside. Until they run, the present pods stay.
pub fn awaited<'a>(observed: &Observed, rendered: &'a Rendered) -> Vec<&'a str> {
    let deployments = rendered.older.iter().filter(|it| it.kind == Kind::Deployment && !is_scheduler(it));
    let missing = |it: &&Desired| !there(observed, it) || lacks_pods(observed, it.component());
    deployments.filter(missing).map(Desired::component).collect()
}
