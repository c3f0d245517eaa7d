//! State of an operation: recorded in the status, executed by a Job, with a few attempts. Pure.

use std::{sync::Arc, time::Duration};

use frappe_crds::site::{Operation, OperationKind, Outcome, OutcomeState, UpdateGoal};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::DynamicObject;

use super::{
    adoption::is_adopting,
    attempts,
    model::{Configuration, Observed, Progress, verb},
    place::Place,
    reason::Reason,
    revision, schema,
};
use crate::{
    controllers::job::{self, Failure, State},
    domain::{condition, labels},
};

/// Next action for the operation that applies `wanted`.
pub fn progress(observed: &Observed, kind: OperationKind, wanted: Option<&Configuration>) -> Progress {
    progress_of(&Asked { observed, kind, wanted, update: None })
}

/// Next action for the update.
pub fn progress_of_update(observed: &Observed, goal: UpdateGoal) -> Progress {
    progress_of(&Asked { observed, kind: OperationKind::Update, wanted: None, update: Some(goal) })
}

fn progress_of(asked: &Asked) -> Progress {
    let (observed, kind) = (asked.observed, asked.kind);
    let status = observed.site.status.clone().unwrap_or_default();
    let recorded = status.operation;
    let last = recorded.clone().filter(|operation| operation.kind == kind);
    let Some(operation) = last else {
        let first = first_attempt(observed, kind, recorded.as_ref());
        return Progress::Run(asked.attempt(first, first));
    };
    let name = Place::of(&observed.site).job(verb(kind), operation.attempt).name;
    let state = observed.jobs.get(&name).map(|it| job::state(it));
    let other = asked.is_other(&operation);
    if matches!(kind, OperationKind::Configure | OperationKind::Update) && other && state != Some(State::Running) {
        // The recorded operation has ended, and another one is desired. A Job can be run again without harm.
        let next = operation.attempt + 1;
        return Progress::Run(asked.attempt(next, next));
    }
    match state {
        Some(State::Complete) => Progress::Done,
        Some(State::Running) => Progress::Run(operation),
        // A Job is kept for an hour; its outcome is in the status.
        Some(State::Failed(_)) | None => match ended(observed).and_then(|it| it.outcome) {
            Some(outcome) => asked.failed(operation, outcome, &name),
            // It was recorded and not created yet, or succeeded long ago: the runner skips completed work.
            None => Progress::Run(operation),
        },
    }
}

/// Number of the first attempt of an operation after one of another kind.
fn first_attempt(observed: &Observed, kind: OperationKind, former: Option<&Operation>) -> i32 {
    let alternates = |kind: OperationKind| matches!(kind, OperationKind::Configure | OperationKind::Update);
    match former {
        // A Job is kept for an hour: that of the last operation of this kind may still exist.
        Some(former) if alternates(former.kind) && alternates(kind) => former.attempt + 1,
        // The first Job of the other operator of an adopted site may still exist.
        _ if kind == OperationKind::Init && is_adopting(observed) => 2,
        _ => 1,
    }
}

/// The recorded operation with the outcome of its attempt, which is written with the next status, because Job and pod are
/// deleted after an hour.
pub(super) fn ended(observed: &Observed) -> Option<Operation> {
    let operation = observed.site.status.as_ref()?.operation.clone()?;
    let name = Place::of(&observed.site).job(verb(operation.kind), operation.attempt).name;
    let at = match observed.jobs.get(&name).map(|it| job::state(it)) {
        _ if operation.outcome.is_some() => None,
        Some(State::Failed(at)) => Some(at),
        Some(State::Complete | State::Running) => None,
        None => ended_before(observed, &operation).map(|ready| ready.last_transition_time.0),
    };
    let outcome = at.map(|at| outcome(observed, &operation, at)).or_else(|| operation.outcome.clone());
    Some(Operation { outcome, ..operation })
}

/// Outcome of an attempt that is not recorded yet, from its pod.
fn outcome(observed: &Observed, operation: &Operation, at: jiff::Timestamp) -> Outcome {
    let before = ended_before(observed, operation);
    let said =
        || before.map_or_else(Failure::unknown, |it| Failure { message: it.message.clone(), ..Failure::unknown() });
    let name = Place::of(&observed.site).job(verb(operation.kind), operation.attempt).name;
    let is_late = observed.jobs.get(&name).is_some_and(|it| job::is_late(it));
    let failure = if is_late { Failure::late() } else { observed.failure.clone().unwrap_or_else(said) };
    let last = attempts::ends(operation, failure.code) || before.is_some();
    Outcome {
        state: if last { OutcomeState::Failed } else { OutcomeState::Retrying },
        code: failure.code.to_string(),
        message: failure.message,
        revision: failure.revision,
        finished_at: Time(at),
    }
}

/// Goal of an operation.
struct Asked<'a> {
    observed: &'a Observed,
    kind: OperationKind,
    wanted: Option<&'a Configuration>,
    update: Option<UpdateGoal>,
}

impl Asked<'_> {
    /// Whether the recorded operation has another goal.
    fn is_other(&self, operation: &Operation) -> bool {
        let configuration = self.wanted.is_some_and(|it| operation.configuration.as_ref() != Some(&it.hash));
        let id = operation.update.as_ref().map(|it| &it.id);
        configuration || self.update.as_ref().is_some_and(|it| id != Some(&it.id))
    }

    fn failed(&self, operation: Operation, outcome: Outcome, name: &str) -> Progress {
        if let Some(again) = self.again_if_asked(&operation) {
            return again;
        }
        let failures = attempts::failures(&operation);
        let most = attempts::most(operation.kind);
        let why = format!("Job {name} failed: {} (attempt {failures} of {most}", outcome.message);
        let is_final = outcome.state == OutcomeState::Failed;
        let wait = attempts::wait(&operation, &outcome);
        let elapsed = Duration::try_from(self.observed.now.duration_since(outcome.finished_at.0)).unwrap_or_default();
        if !is_final && elapsed >= wait {
            // Waits for background jobs are no failed attempts.
            let first = operation.first_attempt + i32::from(attempts::waits_for_jobs(&operation, &outcome));
            let next = self.attempt(operation.attempt + 1, first);
            return Progress::Run(Operation { update: attempts::next_goal(&operation, &outcome), ..next });
        }
        let operation = Operation { outcome: Some(outcome), ..operation };
        if is_final {
            let message = format!(
                "{why}); correct the cause, then change the spec or set the annotation {} to a new value",
                labels::RETRY
            );
            return Progress::Failed { operation, message };
        }
        let message = format!("{why}, next attempt after {} s)", wait.as_secs());
        Progress::Retry { operation, after: wait.saturating_sub(elapsed), message }
    }

    /// Whether a changed spec, a changed Secret or a new value of the retry annotation starts it again.
    fn again_if_asked(&self, operation: &Operation) -> Option<Progress> {
        let other = self.is_other(operation);
        let asked = self.observed.site.metadata.generation.unwrap_or_default() > operation.generation
            || attempts::retry(self.observed) != operation.retry
            || other;
        let next = operation.attempt + 1;
        asked.then(|| Progress::Run(self.attempt(next, next)))
    }

    /// The revision whose image the Job runs.
    fn revision(&self) -> i32 {
        let status = self.observed.site.status.clone().unwrap_or_default();
        let moves = self.update.as_ref().and_then(|it| it.moves);
        moves.map_or_else(|| revision::home(&status, self.observed.bench.as_deref()), |it| it.to)
    }

    fn attempt(&self, attempt: i32, first_attempt: i32) -> Operation {
        let Self { observed, kind, wanted, .. } = *self;
        Operation {
            kind,
            attempt,
            first_attempt,
            generation: observed.site.metadata.generation.unwrap_or_default(),
            epoch: observed.epoch,
            configuration: wanted.map(|it| it.hash.clone()),
            admin_password_version: wanted.and_then(|it| it.admin_password_version.clone()),
            retry: attempts::retry(observed),
            apps: schema::of_revision(
                self.revision(),
                observed.site.status.as_ref(),
                observed.bench.as_deref(),
                wanted,
            ),
            update: self.update.clone(),
            outcome: None,
        }
    }
}

/// The Job of the recorded operation, while it runs.
pub(in crate::controllers) fn running_job(observed: &Observed) -> Option<&Arc<DynamicObject>> {
    let operation = observed.site.status.as_ref()?.operation.as_ref()?;
    let name = Place::of(&observed.site).job(verb(operation.kind), operation.attempt).name;
    observed.jobs.get(&name).filter(|it| job::state(it) == State::Running)
}

/// The message of Ready for a permanent failure recorded by a version without outcomes.
fn ended_before<'a>(observed: &'a Observed, operation: &Operation) -> Option<&'a Condition> {
    let reason = match operation.kind {
        OperationKind::Init => Reason::InitFailed,
        OperationKind::Configure => Reason::ConfigureFailed,
        OperationKind::Update => return None,
        OperationKind::Delete => Reason::DeletionFailed,
    };
    let status = observed.site.status.as_ref().filter(|_| operation.outcome.is_none())?;
    condition::find(&status.conditions, "Ready").filter(|it| it.reason == reason.to_string())
}

/// Without numbers, so that it is written only once, however long the site waits.
pub fn waits_message(observed: &Observed) -> String {
    let bench = &observed.site.spec.bench_ref.name;
    format!(
        "waiting for a site Job slot: bench {bench} is at its limit (siteJobConcurrency, else the operator's \
         maxConcurrentSiteJobs)"
    )
}
