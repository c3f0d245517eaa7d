//! SiteJobs that are not running: what each waits for, which is next, and which have ended long enough ago. Pure.

use std::{sync::Arc, time::Duration};

use frappe_crds::{
    SiteJob,
    job::{JobOperation, JobPhase},
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{ResourceExt, core::DynamicObject};

use super::{
    build::{self, Run},
    commands,
    draft::Draft,
    model::{Report, Step},
    reason::Reason,
    running::busy,
    status::{kept, what},
};
use crate::{
    controllers::{companion, site::place::Place},
    domain::{object::Kind, uid, wire},
};

impl Draft<'_> {
    /// The SiteJobs that are not running: what each waits for, and the next one.
    pub(super) fn waiting_jobs(&mut self, under_way: Option<&str>) {
        let observed = self.observed;
        let mut due: Vec<(&Arc<SiteJob>, Run<'_>)> = Vec::new();
        for job in observed.site_jobs.iter().filter(|it| it.metadata.deletion_timestamp.is_none()) {
            self.plan.prepare.extend(companion::labelled(&observed.site, job));
            if job.uid().as_deref() == under_way {
                continue;
            }
            match self.due_or_report(job) {
                Ok(run) => due.extend(run.map(|it| (job, it))),
                Err(report) => self.report(job, &report),
            }
        }
        due.sort_by_key(|(job, _)| (job.creation_timestamp().map(|it| it.0), job.name_any()));
        for (place, (job, run)) in due.into_iter().enumerate() {
            if place > 0 || self.busy {
                self.report(job, &busy());
            } else {
                self.begin(job, &run, self.operation(job));
            }
        }
    }

    fn operation(&self, job: &SiteJob) -> JobOperation {
        JobOperation {
            site_job: job.name_any(),
            site_job_uid: uid::of(job).to_owned(),
            started_at: Time(self.observed.now),
            attempt: 1,
            epoch: self.observed.epoch,
        }
    }

    /// What is to be run, or the report of why nothing is; None if it has ended and is being deleted.
    fn due_or_report<'b>(&mut self, job: &'b Arc<SiteJob>) -> Result<Option<Run<'b>>, Report> {
        if let Some(report) = kept(job) {
            return if self.expired(job) { Ok(None) } else { Err(report) };
        }
        let refused = |reason, message: String| Err(Report::new(JobPhase::Failed, reason, message));
        if let Some(command) = &job.spec.command
            && let Some(why) = commands::refused(&command.name, &self.observed.config.allowed_site_commands)
        {
            return refused(Reason::CommandRefused, why);
        }
        if job.spec.command.is_none() && Place::of(&self.observed.site).is_foreign() {
            let message = "methods and scripts run with the code and the Redis servers of the bench, which sites of other namespaces share: \
                           they require a bench in the site's own namespace";
            return refused(Reason::CodeRefused, message.to_owned());
        }
        let run = match build::asked(job) {
            Ok(run) => run,
            Err(why) => return refused(Reason::ArgumentsInvalid, why),
        };
        if job.spec.suspend == Some(true) {
            let message = format!("suspended (spec.suspend is true): {} does not start until it is false", what(job));
            return Err(Report::new(JobPhase::Pending, Reason::JobSuspended, message));
        }
        Ok(Some(run))
    }

    /// Deletes a SiteJob whose `ttlSecondsAfterFinished` is over.
    fn expired(&mut self, job: &Arc<SiteJob>) -> bool {
        let outcome = job.status.as_ref().and_then(|it| it.outcome.as_ref());
        let (Some(outcome), Some(seconds)) = (outcome, job.spec.ttl_seconds_after_finished) else { return false };
        let over = outcome.finished_at.0.saturating_add(SignedDuration::from_secs(seconds.into()));
        let left = over.map_or(SignedDuration::ZERO, |over| over.duration_since(self.observed.now));
        if left.is_positive() {
            self.again_after(Duration::try_from(left).unwrap_or_default());
            return false;
        }
        let object: Option<DynamicObject> = serde_json::from_value(wire::json(job.as_ref())).ok();
        self.plan.last.extend(object.map(|it| Step::Delete(Kind::SiteJob, Arc::new(it))));
        true
    }
}
