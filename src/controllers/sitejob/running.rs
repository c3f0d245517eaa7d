//! The running SiteJob. Pure.

use std::{sync::Arc, time::Duration};

use frappe_crds::{
    SiteJob,
    job::{JobOperation, JobPhase},
};
use jiff::Timestamp;
use kube::{ResourceExt, core::DynamicObject};

use super::{
    build::{self, Run},
    draft::{Draft, differing},
    model::{Report, Start, Step},
    reason::Reason,
    status::{self, End, what},
};
use crate::{
    controllers::{
        job::{self, ATTEMPTS_MAX, Begin, Ended, Failure, State},
        site::{operation::waits_message, place::Place, under_way::site_job_key},
    },
    domain::{code::Code, live, object::Kind},
};

impl Draft<'_> {
    /// The running SiteJob.
    pub(super) fn continue_operation(&mut self, operation: JobOperation) {
        let made = self.observed.site_job.clone();
        let state = made.as_deref().map(job::state);
        let of = |it: &&Arc<SiteJob>| it.uid().as_deref() == Some(operation.site_job_uid.as_str());
        let found = self.observed.site_jobs.iter().find(of);
        let Some(site_job) = found.filter(|it| it.metadata.deletion_timestamp.is_none()).cloned() else {
            return self.abandon(made, state.as_ref());
        };
        if operation.attempt > 1 {
            return self.settle(&site_job, operation, made.as_deref(), state);
        }
        match (state, made) {
            (Some(State::Running), Some(made)) => self.runs(&site_job, &operation, &made),
            (Some(State::Complete | State::Failed(_)), Some(made)) => self.has_ended(&site_job, operation, &made),
            // It was recorded, and its Job not created yet.
            _ if !was_started(&site_job) => self.begin_recorded(&site_job, operation),
            _ => {
                let name = site_job_key(&Place::of(&self.observed.site), &operation).name;
                let why = format!("Job {name} was deleted: it is not known whether it ended");
                let end = End { failure: Some((Code::Unknown, why)), at: self.observed.now, run: None };
                self.end(&site_job, end);
                self.after_end(&site_job, operation, true);
            }
        }
    }

    /// The SiteJob was deleted: its Job is stopped.
    fn abandon(&mut self, made: Option<Arc<DynamicObject>>, state: Option<&State>) {
        match made.filter(|_| state == Some(&State::Running)) {
            Some(made) if made.metadata.deletion_timestamp.is_none() => {
                self.plan.steps.push(Step::Delete(Kind::Job, made));
            }
            Some(_) => {}
            None => self.record(None),
        }
    }

    fn runs(&mut self, site_job: &Arc<SiteJob>, operation: &JobOperation, made: &DynamicObject) {
        let name = made.name_any();
        let mut report = running(site_job, &name);
        match job::begin(made, false, self.observed.now) {
            Begin::Stuck(why) => {
                report.reason = Reason::JobNotStarting;
                report.message = format!("{}, but {why}", report.message);
            }
            Begin::Soon(left) => self.again_after(left),
            Begin::Begun => {}
        }
        let step = self.started_step(site_job, &report, &name, operation);
        self.plan.last.extend(step);
    }

    /// The write of the status while its Job is running.
    fn started_step(
        &self,
        site_job: &Arc<SiteJob>,
        report: &Report,
        name: &str,
        operation: &JobOperation,
    ) -> Option<Step> {
        let next = status::started(site_job, report, name, &operation.started_at, self.observed.now);
        let notice = status::notice(site_job, report);
        differing(site_job, next).map(|next| Step::Status(site_job.clone(), next, notice))
    }

    /// Its Job has ended.
    fn has_ended(&mut self, site_job: &Arc<SiteJob>, operation: JobOperation, made: &DynamicObject) {
        let (ended, run) = self.observed.site_job_result.clone();
        let failed = match (job::state(made), ended) {
            (State::Complete, _) => None,
            (_, Some(Ended::Failed(failure))) => Some(failure),
            (_, _) => Some(if job::is_late(made) { Failure::late() } else { Failure::unknown() }),
        };
        // Without a message of the runner, it was killed in the middle.
        let is_cut = failed.is_some() && run.is_none();
        let end = End { failure: failed.map(|it| (it.code, it.message)), at: end_of(made, self.observed.now), run };
        self.end(site_job, end);
        self.after_end(site_job, operation, is_cut);
    }

    /// Ends the maintenance mode after a run that was cut short; else other operations may start.
    fn after_end(&mut self, site_job: &Arc<SiteJob>, operation: JobOperation, is_cut: bool) {
        if is_cut && site_job.spec.maintenance == Some(true) && self.input.is_some() {
            let next = JobOperation { attempt: 2, epoch: self.observed.epoch, ..operation };
            self.record(Some(next));
        } else {
            self.record(None);
        }
    }

    /// A Job that only ends the maintenance mode: it may be tried again.
    fn settle(
        &mut self,
        site_job: &Arc<SiteJob>,
        operation: JobOperation,
        made: Option<&DynamicObject>,
        state: Option<State>,
    ) {
        match (state, made) {
            (Some(State::Running), _) => {}
            (Some(State::Failed(at)), _) if operation.attempt <= ATTEMPTS_MAX => {
                let wait = job::wait_after(operation.attempt - 1);
                let elapsed = Duration::try_from(self.observed.now.duration_since(at)).unwrap_or_default();
                if elapsed < wait {
                    return self.again_after(wait.saturating_sub(elapsed));
                }
                let next = JobOperation { attempt: operation.attempt + 1, epoch: self.observed.epoch, ..operation };
                self.begin_recorded(site_job, next);
            }
            (None, _) => self.begin_recorded(site_job, operation),
            // After the last attempt, the next Job of the site ends it.
            (Some(State::Complete | State::Failed(_)), _) => self.record(None),
        }
    }

    /// Creates the Job of a recorded SiteJob.
    fn begin_recorded(&mut self, site_job: &Arc<SiteJob>, operation: JobOperation) {
        match build::asked(site_job) {
            Ok(run) => self.begin(site_job, &run, operation),
            Err(_) => self.record(None),
        }
    }

    /// Runs the Job of a SiteJob: it is recorded, then its Job is created if it does not exist.
    pub(super) fn begin(&mut self, site_job: &Arc<SiteJob>, run: &Run<'_>, operation: JobOperation) {
        let (Some(input), Some(bench)) = (self.input, self.observed.bench.as_deref()) else {
            if self.observed.site.metadata.deletion_timestamp.is_some() {
                return self.record(None);
            }
            return self.report(site_job, &busy());
        };
        let made = build::job(&input, &self.observed.bench_input(bench), site_job, run, &operation);
        let name = made.key.name.clone();
        let is_run = operation.attempt == 1;
        let runs = self.started_step(site_job, &running(site_job, &name), &name, &operation).filter(|_| is_run);
        let waits = self.report_step(site_job, &no_job_slot(&waits_message(self.observed))).filter(|_| is_run);
        let status = Some(self.recorded(Some(operation)));
        self.plan.start = Some(Box::new(Start { job: made, status, notices: Vec::new(), runs, waits }));
    }
}

/// Whether its Job was created: it is not created again, whatever has become of it.
fn was_started(site_job: &SiteJob) -> bool {
    site_job.status.as_ref().is_some_and(|it| it.job.is_some())
}

/// When a Job ended.
fn end_of(made: &DynamicObject, now: Timestamp) -> Timestamp {
    let conditions = live::conditions(made);
    conditions
        .iter()
        .find(|it| it.holds("Complete") || it.holds("Failed"))
        .and_then(live::Condition::since)
        .unwrap_or(now)
}

/// Report: the Job is running.
fn running(site_job: &SiteJob, name: &str) -> Report {
    Report::new(JobPhase::Running, Reason::JobRunning, format!("Job {name} runs {}", what(site_job)))
}

/// Report: the SiteJob waits for the site.
pub(super) fn busy() -> Report {
    let message = "waiting: site not initialized, suspended, to be updated, or busy with another operation";
    Report::new(JobPhase::Pending, Reason::SiteBusy, message)
}

/// Report: the SiteJob waits for a job slot.
fn no_job_slot(message: &str) -> Report {
    Report::new(JobPhase::Pending, Reason::WaitingForJobSlot, message)
}
