//! State of an operation: recorded in the status, executed by a Job, with a few attempts. Pure.

use std::{sync::Arc, time::Duration};

use frappe_crds::site::{Operation, OperationKind, Outcome, OutcomeState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{ResourceExt, core::DynamicObject};

use super::{
    adoption::is_adopting,
    model::{Configuration, Observed, Progress, verb},
    place::Place,
    reason::Reason,
};
use crate::{
    controllers::job::{self, ATTEMPTS_MAX, Failure, State},
    domain::{condition, labels},
};

/// Next action for the operation that applies `wanted`.
pub fn progress(observed: &Observed, kind: OperationKind, wanted: Option<&Configuration>) -> Progress {
    let asked = Asked { observed, kind, wanted };
    let status = observed.site.status.clone().unwrap_or_default();
    let last = status.operation.filter(|operation| operation.kind == kind);
    let Some(operation) = last else {
        // The first Job of the other operator of an adopted site may still exist.
        let first = if kind == OperationKind::Init && is_adopting(observed) { 2 } else { 1 };
        return Progress::Run(asked.attempt(first, first));
    };
    let name = Place::of(&observed.site).job(verb(kind), operation.attempt).name;
    let state = observed.jobs.get(&name).map(|it| job::state(it));
    let other = wanted.is_some_and(|wanted| operation.configuration.as_ref() != Some(&wanted.hash));
    if kind == OperationKind::Configure && other && state != Some(State::Running) {
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
    let last = failures(operation) >= ATTEMPTS_MAX || before.is_some();
    let said =
        || before.map_or_else(Failure::unknown, |it| Failure { message: it.message.clone(), ..Failure::unknown() });
    let failure = observed.failure.clone().unwrap_or_else(said);
    Outcome {
        state: if last { OutcomeState::Failed } else { OutcomeState::Retrying },
        code: failure.code.to_string(),
        message: failure.message,
        finished_at: Time(at),
    }
}

/// Number of failed attempts, including this one.
fn failures(operation: &Operation) -> i32 {
    operation.attempt - operation.first_attempt + 1
}

/// Goal of an operation.
struct Asked<'a> {
    observed: &'a Observed,
    kind: OperationKind,
    wanted: Option<&'a Configuration>,
}

impl Asked<'_> {
    fn failed(&self, operation: Operation, outcome: Outcome, name: &str) -> Progress {
        if let Some(again) = self.again_if_asked(&operation) {
            return again;
        }
        let failures = failures(&operation);
        let why = format!("Job {name} failed: {} (attempt {failures} of {ATTEMPTS_MAX}", outcome.message);
        let is_final = outcome.state == OutcomeState::Failed;
        let wait = job::wait_after(failures);
        let elapsed = Duration::try_from(self.observed.now.duration_since(outcome.finished_at.0)).unwrap_or_default();
        if !is_final && elapsed >= wait {
            return Progress::Run(self.attempt(operation.attempt + 1, operation.first_attempt));
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
        let other = self.wanted.is_some_and(|wanted| operation.configuration.as_ref() != Some(&wanted.hash));
        let asked = self.observed.site.metadata.generation.unwrap_or_default() > operation.generation
            || retry(self.observed) != operation.retry
            || other;
        let next = operation.attempt + 1;
        asked.then(|| Progress::Run(self.attempt(next, next)))
    }

    fn attempt(&self, attempt: i32, first_attempt: i32) -> Operation {
        let Self { observed, kind, wanted } = *self;
        Operation {
            kind,
            attempt,
            first_attempt,
            generation: observed.site.metadata.generation.unwrap_or_default(),
            epoch: observed.epoch,
            configuration: wanted.map(|it| it.hash.clone()),
            admin_password_version: wanted.and_then(|it| it.admin_password_version.clone()),
            retry: retry(observed),
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

fn retry(observed: &Observed) -> Option<String> {
    observed.site.annotations().get(labels::RETRY).cloned()
}

/// The message of Ready for a permanent failure recorded by a version without outcomes.
fn ended_before<'a>(observed: &'a Observed, operation: &Operation) -> Option<&'a Condition> {
    let reason = match operation.kind {
        OperationKind::Init => Reason::InitFailed,
        OperationKind::Configure => Reason::ConfigureFailed,
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
