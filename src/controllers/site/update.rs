//! Migration of a site to the schema of its bench's image. Pure.
//!
//! nginx responds with 503 for a site whose schema, as recorded on the volume, is not that of the image (`runner_nginx.py`). This phase runs the
//! Job that migrates it, once the bench runs the image completely.

use std::time::Duration;

use frappe_crds::{
    FrappeBench, FrappeSite, FrappeSiteStatus,
    site::{LastUpdate, Move, Operation, OperationKind, SitePhase, UpdateGoal, UpdatePolicy, UpdateResult},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{
    attempts, build,
    model::{Observed, Plan, Progress, Report, Stage, verb},
    operation::{self, waits_message},
    reason::Reason,
    revision,
    schema::{Fit, fit, is_held, of_revision, of_site, why_not_moved},
    steady_state::settled,
    under_way::under_way,
    undo::{self, Asked},
    valid_site::ValidSite,
};
use crate::{
    controllers::{
        bench::{
            model::FIRST_REVISION,
            seen::{is_rolling_out, lacks_app},
        },
        phase::Next,
    },
    domain::{code::Code, labels, names::hash_hex},
};

/// Migrates the site if its schema is not that of the image, or if a user requests it.
pub(super) fn update(site: &ValidSite) -> Next<FrappeSite> {
    let observed = site.observed;
    let status = observed.site.status.clone().unwrap_or_default();
    let Some(bench) = observed.bench.as_deref().filter(|_| status.initialized) else { return Next::go() };
    if let Some(goal) = unfinished(&status) {
        return Next::End(progress(site, bench, goal.clone(), None));
    }
    if undo::is_broken(&status) && !attempts::retries(observed, &status) {
        let message = status.last_update.and_then(|it| it.message).unwrap_or_default();
        return Next::End(Plan::report(observed, &failed(UpdateResult::RollbackFailed, message), None));
    }
    if let Asked::Return { undoes, way } = undo::asked(observed, &status, bench) {
        return returning(site, bench, undoes, way);
    }
    if let Some(moves) = revision::destination(&status, Some(bench)) {
        return moving(site, bench, moves);
    }
    let requested = requested(observed, &status);
    let differs = match fit(&status, Some(bench)) {
        // Until nginx runs the image, the previous one serves the site.
        Fit::Differs(apps) if is_held(bench) => Some(apps.join(", ")),
        Fit::Differs(_) | Fit::Unknown | Fit::Fits => None,
    };
    if differs.is_none() && requested.is_none() {
        return Next::go();
    }
    let goal = goal(observed, bench);
    if let Some(last) = failed_before(&status, &goal).filter(|_| !attempts::retries(observed, &status)) {
        let report = failed(last.result, last.message.clone().unwrap_or_default());
        return Next::End(Plan::report(observed, &report, None));
    }
    if let Some(report) = waits(observed, bench, requested.is_some(), differs.as_deref()) {
        return Next::End(Plan::report(observed, &report, None));
    }
    Next::End(progress(site, bench, goal, differs.as_deref()))
}

/// Moves the site to the newest revision, unless it waits for that. Until then the present revision serves it as before.
fn moving(site: &ValidSite, bench: &FrappeBench, moves: Move) -> Next<FrappeSite> {
    let observed = site.observed;
    let status = observed.site.status.clone().unwrap_or_default();
    let is_requested = requested(observed, &status).is_some();
    let is_asked = is_requested || revision::is_asked_now(&observed.site, moves);
    let broken = revision::failed(&status, moves).filter(|it| it.result == UpdateResult::RollbackFailed);
    if let Some(last) = broken.filter(|_| !attempts::retries(observed, &status)) {
        let report = failed(last.result, last.message.clone().unwrap_or_default());
        return Next::End(Plan::report(observed, &report, None));
    }
    let refused = why_not_moved(observed, &status, moves).is_some_and(|(reason, _)| match reason {
        Reason::UpdateFailed | Reason::UpdateUndone => !attempts::retries(observed, &status) && !is_requested,
        Reason::UpdateManual => !is_asked,
        _ => true,
    });
    let is_released = is_asked || revision::is_released(&observed.site, bench, moves);
    let waits = is_rolling_out(bench) || lacks_app(bench) || !is_released;
    if refused || waits || is_busy(site) {
        return Next::go();
    }
    let opening = revision::opening(&observed.site, bench, observed.now);
    if opening.is_closed() && !is_asked {
        let again_after =
            opening.changes_at().map(|at| Duration::try_from(at.duration_since(observed.now)).unwrap_or_default());
        return Next::Go(Plan { again_after, ..Plan::default() });
    }
    let goal = UpdateGoal { moves: Some(moves), ..goal(observed, bench) };
    Next::End(progress(site, bench, goal, None))
}

/// Moves the site back to the revision that it left.
fn returning(site: &ValidSite, bench: &FrappeBench, undoes: String, way: Move) -> Next<FrappeSite> {
    if is_busy(site) {
        return Next::go();
    }
    Next::End(progress(site, bench, undo::goal(site.observed, undoes, way), None))
}

/// Whether something else is done to the site first. What a user changed comes first.
fn is_busy(site: &ValidSite) -> bool {
    let observed = site.observed;
    let applied = observed.site.status.as_ref().and_then(|it| it.configuration.as_ref());
    applied != Some(&site.wanted.hash) || under_way(observed).is_some() || operation::running_job(observed).is_some()
}

/// The recorded update, while its result is not recorded.
fn unfinished(status: &FrappeSiteStatus) -> Option<&UpdateGoal> {
    let operation = status.operation.as_ref().filter(|it| it.kind == OperationKind::Update)?;
    let goal = operation.update.as_ref()?;
    status.last_update.as_ref().is_none_or(|last| last.id != goal.id).then_some(goal)
}

/// The new value of the annotation by which a user requests a migration.
fn requested(observed: &Observed, status: &FrappeSiteStatus) -> Option<String> {
    let asked = observed.site.annotations().get(labels::MIGRATE)?;
    (status.last_handled_migrate.as_ref() != Some(asked)).then(|| asked.clone())
}

/// The migration to the schema of the image.
fn goal(observed: &Observed, bench: &FrappeBench) -> UpdateGoal {
    let status = observed.site.status.clone().unwrap_or_default();
    let migrate = requested(observed, &status);
    let newest = revision::destination(&status, Some(bench)).map_or_else(|| revision::present(&status), |it| it.to);
    let apps = of_revision(newest, Some(&status), Some(bench), None);
    let schemas: Vec<String> =
        apps.iter().map(|app| format!("{}={}", app.name, app.schema.as_deref().unwrap_or_default())).collect();
    let to = if newest == FIRST_REVISION { String::new() } else { format!("{newest} ") };
    let target = hash_hex(&format!("{to}{} {}", schemas.join(" "), migrate.as_deref().unwrap_or_default()), 16);
    let again = attempts::retry(observed).unwrap_or_default();
    let id = attempts::new_id(observed, &format!("{target} {again}"));
    UpdateGoal { id, target, back_only: false, migrate, moves: None, undoes: None }
}

/// The last update, if it failed and was for the same schema.
fn failed_before<'a>(status: &'a FrappeSiteStatus, goal: &UpdateGoal) -> Option<&'a LastUpdate> {
    let last = status.last_update.as_ref()?;
    (last.result != UpdateResult::Updated && last.target == goal.target).then_some(last)
}

/// Report for an update that failed.
fn failed(result: UpdateResult, message: String) -> Report {
    let reason = match result {
        UpdateResult::RollbackFailed => Reason::RollbackFailed,
        _ => Reason::UpdateFailed,
    };
    held(SitePhase::Failed, reason, message, false)
}

/// Why the migration does not start yet.
fn waits(observed: &Observed, bench: &FrappeBench, requested: bool, differs: Option<&str>) -> Option<Report> {
    if is_rolling_out(bench) || lacks_app(bench) {
        let rollout = || {
            let message = "site is available; its migration waits for the rollout of its bench".to_owned();
            Report::ready(Reason::UpdateRequired, message).moving()
        };
        return Some(differs.map_or_else(rollout, awaits_turn));
    }
    if let Some(message) = under_way(observed) {
        return Some(match differs {
            Some(apps) => unavailable(Reason::WaitingForBackup, apps, &message),
            None => Report::ready(Reason::WaitingForBackup, format!("site is available; {message}")).moving(),
        });
    }
    let status = observed.site.status.clone().unwrap_or_default();
    let present = of_site(&status, Some(bench));
    if let (Some(apps), Some(app)) =
        (differs, revision::downgrade(&present, revision::code(Some(bench), revision::present(&status))))
    {
        let version = app.version.as_deref().unwrap_or_default();
        let why = format!(
            "{} has version {version} in the image, and a database cannot be migrated to an earlier schema: set the image to the later \
             version again, or restore a backup",
            app.name
        );
        return Some(unavailable(Reason::UpdateRefused, apps, &why));
    }
    let apps = differs.filter(|_| !requested)?;
    let policy = observed.site.spec.update.as_ref().and_then(|it| it.policy).unwrap_or_default();
    if policy == UpdatePolicy::Manual {
        let why =
            format!("set the annotation {} to a new value to migrate it (update.policy is Manual)", labels::MIGRATE);
        return Some(unavailable(Reason::UpdateManual, apps, &why));
    }
    is_paused(bench).then(|| unavailable(Reason::UpdatePaused, apps, "updateStrategy.paused of its bench is true"))
}

fn is_paused(bench: &FrappeBench) -> bool {
    bench.spec.update_strategy.as_ref().and_then(|it| it.paused) == Some(true)
}

/// Report from when nginx holds the site until its Job starts: one for all of that time, so that it is written once.
fn awaits_turn(apps: &str) -> Report {
    unavailable(
        Reason::UpdateRequired,
        apps,
        "it is migrated when all pods of its bench run the image, and a job slot is free",
    )
}

/// Report for a site that responds with 503.
fn unavailable(reason: Reason, apps: &str, why: &str) -> Report {
    let message =
        format!("the schema of {apps} is not that of the bench's image, so that the site responds with 503: {why}");
    held(SitePhase::Provisioning, reason, message, true)
}

/// Report for a site that nginx does not lead requests to. Everything that was completed stays so.
fn held(phase: SitePhase, reason: Reason, message: String, moving: bool) -> Report {
    let report = Report { phase, ..Report::pending(Stage::Done, Stage::Done, reason, message) };
    if moving { report.moving() } else { report }
}

/// What the Job of an update does, for its message.
fn doing(operation: &Operation) -> String {
    let goal = operation.update.as_ref();
    let goes_back = goal.is_some_and(|it| it.back_only);
    match (revision::moves(operation), goal.and_then(|it| it.undoes.as_ref())) {
        (Some(moves), Some(undone)) => {
            format!("undoing its update {undone}: it returns to revision {} of its bench", moves.to)
        }
        (Some(moves), None) if !goes_back => {
            format!("updating it from revision {} to revision {} of its bench", moves.from, moves.to)
        }
        _ if goes_back => "restoring its database of before the migration".to_owned(),
        _ => "migrating it to the schema of the bench's image".to_owned(),
    }
}

/// Runs the Job of the update, and records its result.
fn progress(site: &ValidSite, bench: &FrappeBench, goal: UpdateGoal, differs: Option<&str>) -> Plan {
    let (observed, input) = (site.observed, &site.input);
    let former = observed.site.status.clone().unwrap_or_default();
    match operation::progress_of_update(observed, goal) {
        Progress::Done => {
            let mut plan = Plan::report(observed, &Report::available(), None);
            finish(observed, &mut plan, UpdateResult::Updated, None);
            plan
        }
        Progress::Run(operation) => {
            let moves = revision::moves(&operation);
            let waits = match differs {
                Some(apps) => awaits_turn(apps),
                // Served as before, it says nothing while it waits: a write for each site.
                None if moves.is_some() => settled(observed, input),
                None => Report::ready(Reason::WaitingForJobSlot, waits_message(observed)).moving(),
            };
            let name = input.valid.place.job(verb(OperationKind::Update), operation.attempt).name;
            let does = doing(&operation);
            let runs = held(
                SitePhase::Provisioning,
                Reason::Updating,
                format!("Job {name} is {does}; it responds with 503 meanwhile"),
                true,
            );
            let revision = moves.map_or_else(|| revision::present(&former), |it| it.to);
            let job = build::update_job(input, &observed.bench_input_of(bench, revision), &operation);
            Plan::start(observed, &waits, &runs, operation, job)
        }
        Progress::Retry { operation, after, message } => {
            let is_served = operation.outcome.as_ref().is_some_and(|it| attempts::waits_for_jobs(&operation, it))
                && revision::moves(&operation).is_some();
            let report = if is_served {
                Report::ready(Reason::UpdateRetrying, format!("site is available; {message}")).moving()
            } else {
                held(SitePhase::Provisioning, Reason::UpdateRetrying, message, true)
            };
            Plan { again_after: Some(after), ..Plan::report(observed, &report, Some(operation)) }
        }
        Progress::Failed { operation, message } => {
            let code = operation.outcome.as_ref().and_then(|it| it.code.parse::<Code>().ok());
            let result = match code {
                Some(Code::UpdateFailed) => UpdateResult::RolledBack,
                Some(Code::RollbackFailed) => UpdateResult::RollbackFailed,
                _ => UpdateResult::Failed,
            };
            // After a move that failed, the former revision serves the site, unless there was no dump to return to.
            let moved = revision::moves(&operation);
            let lies_in = operation.outcome.as_ref().and_then(|it| it.revision);
            let stays = moved.is_some_and(|it| lies_in == Some(it.to));
            let report = match moved.filter(|_| result != UpdateResult::RollbackFailed && !stays) {
                Some(_) => Report::available(),
                None => failed(result, message.clone()),
            };
            let mut plan = Plan::report(observed, &report, Some(operation));
            finish(observed, &mut plan, result, Some(message));
            if stays {
                plan.statuses().for_each(|status| status.revision = moved.map(|it| it.to));
            }
            plan
        }
    }
}

/// Records the result of the update.
fn finish(observed: &Observed, plan: &mut Plan, result: UpdateResult, message: Option<String>) {
    let Some(status) = plan.status.as_mut() else { return };
    let Some(operation) = status.operation.clone() else { return };
    let Some(goal) = operation.update else { return };
    if result == UpdateResult::Updated {
        status.apps = operation.apps;
        status.revision = goal.moves.map(|it| it.to).or(status.revision);
    }
    status.last_handled_migrate = goal.migrate.or(status.last_handled_migrate.take());
    let finished_at = Time(observed.now);
    let is_undone = result == UpdateResult::Updated && goal.undoes.is_some();
    let (result, moves) = match goal.moves.filter(|_| is_undone).map(undo::undone) {
        Some((undone, moves)) => (undone, Some(moves)),
        None => (result, goal.moves),
    };
    status.last_update =
        Some(LastUpdate { id: goal.id, result, target: goal.target, moves, undoes: goal.undoes, finished_at, message });
}
