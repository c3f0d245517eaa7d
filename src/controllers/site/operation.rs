//! How far an operation is: recorded in the status, carried out by a Job, tried a few times. Pure.

use std::{sync::Arc, time::Duration};

use frappe_crds::site::{Operation, OperationKind};
use kube::{ResourceExt, core::DynamicObject};

use super::{configuration::Configuration, found::is_adopting, observe::Observed, place::Place, plan::verb};
use crate::{
    controllers::job::{self, ATTEMPTS_MAX, State},
    domain::{condition, labels},
};

/// What is to be done next for an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It succeeded.
    Done,
    /// This attempt is under way, or is to begin: it is recorded, then its Job is made if it is not there.
    Run(Operation),
    /// It failed and is tried again after this time.
    Retry {
        /// Time until then.
        after: Duration,
        /// What people are told.
        message: String,
    },
    /// It failed for good.
    Failed {
        /// What people are told.
        message: String,
    },
}

/// How far the operation is, which is to bring `wanted` about.
pub fn progress(observed: &Observed, kind: OperationKind, wanted: Option<&Configuration>) -> Progress {
    let asked = Asked { observed, kind, wanted };
    let status = observed.site.status.clone().unwrap_or_default();
    let last = status.operation.filter(|operation| operation.kind == kind);
    let Some(operation) = last else {
        // The first Job of the operator that a site is taken over from may be there still.
        let first = if kind == OperationKind::Init && is_adopting(observed) { 2 } else { 1 };
        return Progress::Run(asked.attempt(first, first));
    };
    let name = Place::of(&observed.site).job(verb(kind), operation.attempt).name;
    let state = observed.jobs.get(&name).map(|it| job::state(it));
    let other = wanted.is_some_and(|wanted| operation.configuration.as_ref() != Some(&wanted.hash));
    if kind == OperationKind::Configure && other && state != Some(State::Running) {
        // It is over, and something else is wanted by now. What it did is no loss: a Job can be run twice.
        let next = operation.attempt + 1;
        return Progress::Run(asked.attempt(next, next));
    }
    match state {
        Some(State::Complete) => Progress::Done,
        Some(State::Failed(at)) => asked.failed(&operation, at, &name),
        None if is_final(observed, &name) => {
            asked.again_if_asked(&operation).unwrap_or_else(|| Progress::Failed { message: said(observed) })
        }
        // It runs. Or it was recorded and not made yet, or is gone after it was kept for an hour: the runner knows what
        // is done already.
        Some(State::Running) | None => Progress::Run(operation),
    }
}

/// What an operation is to bring about.
struct Asked<'a> {
    observed: &'a Observed,
    kind: OperationKind,
    wanted: Option<&'a Configuration>,
}

impl Asked<'_> {
    fn failed(&self, operation: &Operation, at: jiff::Timestamp, name: &str) -> Progress {
        if let Some(again) = self.again_if_asked(operation) {
            return again;
        }
        let failures = operation.attempt - operation.first_attempt + 1;
        let begun = format!("Job {name} failed");
        let known = said(self.observed).split(" (attempt").next().unwrap_or_default().to_owned();
        let why = match &self.observed.failure {
            Some(why) => format!("{begun}: {why}"),
            None if known.starts_with(&begun) => known,
            None => format!("{begun}: see its log"),
        };
        if failures >= ATTEMPTS_MAX {
            let message = format!(
                "{why} (attempt {failures} of {ATTEMPTS_MAX}); correct the cause, then change the spec or set the annotation {} \
             to a new value",
                labels::RETRY
            );
            return Progress::Failed { message };
        }
        let wait = job::wait_after(failures);
        let elapsed = Duration::try_from(self.observed.now.duration_since(at)).unwrap_or_default();
        if elapsed >= wait {
            return Progress::Run(self.attempt(operation.attempt + 1, operation.first_attempt));
        }
        let message = format!("{why} (attempt {failures} of {ATTEMPTS_MAX}, the next after {} s)", wait.as_secs());
        Progress::Retry { after: wait.saturating_sub(elapsed), message }
    }

    /// A changed spec or a new value of the retry annotation begins anew.
    fn again_if_asked(&self, operation: &Operation) -> Option<Progress> {
        let asked = self.observed.site.metadata.generation.unwrap_or_default() > operation.generation
            || retry(self.observed) != operation.retry;
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
        }
    }
}

/// The Job of the recorded operation, while it runs.
pub(super) fn running_job(observed: &Observed) -> Option<&Arc<DynamicObject>> {
    let operation = observed.site.status.as_ref()?.operation.as_ref()?;
    let name = Place::of(&observed.site).job(verb(operation.kind), operation.attempt).name;
    observed.jobs.get(&name).filter(|it| job::state(it) == State::Running)
}

fn retry(observed: &Observed) -> Option<String> {
    observed.site.annotations().get(labels::RETRY).cloned()
}

/// What the status says now.
fn said(observed: &Observed) -> String {
    let status = observed.site.status.clone().unwrap_or_default();
    condition::find(&status.conditions, "Ready").map(|it| it.message.clone()).unwrap_or_default()
}

/// Whether the status already calls this Job's failure final.
fn is_final(observed: &Observed, name: &str) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    condition::find(&status.conditions, "Ready").is_some_and(|ready| {
        ["InitFailed", "ConfigureFailed", "DeletionFailed"].contains(&ready.reason.as_str())
            && ready.message.contains(&format!("Job {name} failed"))
    })
}
