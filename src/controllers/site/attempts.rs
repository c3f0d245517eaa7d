//! How often the attempts of an operation are repeated. Pure.

use std::time::Duration;

use frappe_crds::{
    FrappeSiteStatus,
    site::{Operation, OperationKind, Outcome, UpdateGoal},
};
use kube::ResourceExt;

use super::model::Observed;
use crate::{
    controllers::job::{self, ATTEMPTS_MAX},
    domain::{code::Code, labels, names::hash_hex},
};

/// Delay before an update is tried again whose site's background jobs did not end.
const DRAIN_AGAIN: Duration = Duration::from_mins(10);

/// Hexadecimal digits of an update's id.
const ID_DIGITS: usize = 8;

/// The id of an update, which begins now.
pub fn new_id(observed: &Observed, what: &str) -> String {
    let identity = observed.site.status.as_ref().and_then(|it| it.identity.as_deref()).unwrap_or_default();
    hash_hex(&format!("{identity} {what} {}", observed.now), ID_DIGITS)
}

/// Value of the annotation that requests another attempt.
pub fn retry(observed: &Observed) -> Option<String> {
    observed.site.annotations().get(labels::RETRY).cloned()
}

/// Whether a user requests another attempt of the update that failed.
pub fn retries(observed: &Observed, status: &FrappeSiteStatus) -> bool {
    let last = status.operation.as_ref().filter(|it| it.kind == OperationKind::Update);
    last.is_some_and(|it| retry(observed) != it.retry)
}

/// Attempts of an operation. Those of an update that did not complete are followed by as many that restore its dump.
pub fn most(kind: OperationKind) -> i32 {
    if kind == OperationKind::Update { 2 * ATTEMPTS_MAX } else { ATTEMPTS_MAX }
}

/// Number of failed attempts, including this one.
pub fn failures(operation: &Operation) -> i32 {
    operation.attempt - operation.first_attempt + 1
}

/// Whether the failed attempt is the last one.
pub fn ends(operation: &Operation, code: Code) -> bool {
    let last = failures(operation) >= most(operation.kind);
    if operation.kind != OperationKind::Update {
        return last;
    }
    match code {
        // The same migration would fail again.
        Code::UpdateFailed | Code::AppsMissing | Code::DumpMissing => true,
        Code::JobsRunning => false,
        _ => last,
    }
}

/// Whether the attempt ended because background jobs of the site did not end: nothing was tried.
pub fn waits_for_jobs(operation: &Operation, outcome: &Outcome) -> bool {
    operation.kind == OperationKind::Update && outcome.code.parse() == Ok(Code::JobsRunning)
}

/// Delay before the next attempt.
pub fn wait(operation: &Operation, outcome: &Outcome) -> Duration {
    if waits_for_jobs(operation, outcome) { DRAIN_AGAIN } else { job::wait_after(failures(operation)) }
}

/// The goal of the attempt after a failed one: after several, or one that took too long, the dump is only restored.
pub fn next_goal(operation: &Operation, outcome: &Outcome) -> Option<UpdateGoal> {
    let goal = operation.update.clone()?;
    let is_late = outcome.code.parse() == Ok(Code::DeadlineExceeded);
    let tried = !waits_for_jobs(operation, outcome) && failures(operation) >= ATTEMPTS_MAX;
    Some(UpdateGoal { back_only: goal.back_only || is_late || tried, ..goal })
}
