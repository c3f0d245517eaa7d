//! Status of a SiteJob. Pure.

use frappe_crds::{
    SiteJob, SiteJobStatus,
    job::{CaptureOutput, JobOutcome, JobOutcomeState, JobPhase},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{model::Report, reason::Reason};
use crate::{
    controllers::ran::Run,
    domain::{code::Code, condition::Conditions},
    io::events::Notice,
};

/// The status for a report.
pub(super) fn status(job: &SiteJob, report: &Report, now: Timestamp) -> SiteJobStatus {
    let former = job.status.clone().unwrap_or_default();
    let generation = job.metadata.generation;
    let mut conditions = Conditions::new(&former.conditions, generation, now);
    let word = report.reason.to_string();
    let state = match report.phase {
        JobPhase::Pending | JobPhase::Running => None,
        JobPhase::Succeeded => Some(true),
        JobPhase::Failed => Some(false),
    };
    conditions.set("Ready", state, &word, &report.message);
    conditions.set("Progressing", Some(report.phase == JobPhase::Running), &word, &report.message);
    SiteJobStatus {
        phase: report.phase,
        conditions: conditions.finish(),
        message: Some(report.message.clone()),
        observed_generation: generation,
        ..former
    }
}

/// The status while its Job is running.
pub(super) fn started(job: &SiteJob, report: &Report, name: &str, at: &Time, now: Timestamp) -> SiteJobStatus {
    SiteJobStatus { job: Some(name.to_owned()), started_at: Some(at.clone()), ..status(job, report, now) }
}

/// How it ended, with what is known of its run.
pub(super) struct End {
    /// The code and the message of a failure; None if it succeeded.
    pub failure: Option<(Code, String)>,
    /// When it ended.
    pub at: Timestamp,
    /// What its process left.
    pub run: Option<Run>,
}

/// The report of an end.
fn report(job: &SiteJob, end: &End) -> Report {
    let what = what(job);
    match &end.failure {
        None => Report::new(JobPhase::Succeeded, Reason::JobSucceeded, format!("{what} has ended with exit code 0")),
        Some((code, why)) => {
            let message = format!("{what}: {why}; it is not run again: create another SiteJob");
            Report { detail: Some(*code), ..Report::new(JobPhase::Failed, Reason::JobFailed, message) }
        }
    }
}

/// The status after an end, and its Event.
pub(super) fn ended(job: &SiteJob, end: End, now: Timestamp) -> (SiteJobStatus, Notice) {
    let report = report(job, &end);
    let state = if end.failure.is_none() { JobOutcomeState::Succeeded } else { JobOutcomeState::Failed };
    let run = end.run.unwrap_or_default();
    let shown = job.spec.capture_output.unwrap_or_default() == CaptureOutput::Tail;
    let truncated = run.cut || run.omitted > 0;
    let next = SiteJobStatus {
        outcome: Some(JobOutcome {
            state,
            code: report.detail.map(|it| it.to_string()),
            message: report.message.clone(),
            finished_at: Time(end.at),
        }),
        exit_code: run.exit,
        output_truncated: run.output.as_ref().filter(|_| shown).map(|_| truncated),
        output: run.output.filter(|_| shown),
        result: run.value.filter(|_| shown),
        ..status(job, &report, now)
    };
    (next, report.notice())
}

/// The recorded outcome as a report.
pub(super) fn kept(job: &SiteJob) -> Option<Report> {
    let outcome = job.status.as_ref()?.outcome.as_ref()?;
    let phase = match outcome.state {
        JobOutcomeState::Succeeded => JobPhase::Succeeded,
        JobOutcomeState::Failed => JobPhase::Failed,
    };
    Some(Report::new(phase, Reason::of_end(outcome.state), outcome.message.clone()))
}

/// What it runs, for messages.
pub(super) fn what(job: &SiteJob) -> String {
    let spec = &job.spec;
    let command = spec.command.as_ref().map(|it| format!("command {}", it.name));
    let method = spec.method.as_ref().map(|it| format!("method {}", it.name));
    let script = spec.script.as_ref().map(|it| format!("script {}/{}", it.config_map_ref.name, it.config_map_ref.key));
    command.or(method).or(script).unwrap_or_default()
}

/// The Event of a report that is new and a warning.
pub(super) fn notice(job: &SiteJob, report: &Report) -> Option<Notice> {
    use crate::controllers::reason::Reason as _;
    let conditions = job.status.as_ref().map(|it| it.conditions.as_slice()).unwrap_or_default();
    (report.reason.is_warning() && !report.is_known(conditions)).then(|| report.notice())
}
