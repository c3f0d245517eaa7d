//! Builds the plan of a site's SiteJobs, one SiteJob after the other. Pure.

use std::{sync::Arc, time::Duration};

use frappe_crds::{FrappeSiteStatus, SiteJob, SiteJobStatus, job::JobOperation};

use super::{
    model::{Plan, Report, Step},
    status::{self, End},
};
use crate::controllers::site::model::{Observed, Subject};

/// The plan of a site's SiteJobs while it is being built.
pub(super) struct Draft<'a> {
    /// The site and what it depends on.
    pub observed: &'a Observed,
    /// The plan so far.
    pub plan: Plan,
    /// Input of Jobs; None if the site's spec is refused.
    pub input: Option<Subject<'a>>,
    /// Whether none may start.
    pub busy: bool,
}

impl<'a> Draft<'a> {
    /// Nothing is planned yet.
    pub(super) fn new(observed: &'a Observed, input: Option<Subject<'a>>, busy: bool) -> Self {
        Self { observed, plan: Plan::default(), input, busy }
    }

    /// Adds the report of a SiteJob, after the site's status and the Job.
    pub(super) fn report(&mut self, job: &Arc<SiteJob>, report: &Report) {
        self.plan.last.extend(self.report_step(job, report));
    }

    /// The write of that report; None if it does not differ.
    pub(super) fn report_step(&self, job: &Arc<SiteJob>, report: &Report) -> Option<Step> {
        let next = status::status(job, report, self.observed.now);
        let notice = status::notice(job, report);
        differing(job, next).map(|next| Step::Status(job.clone(), next, notice))
    }

    /// Records an end, before it is removed from the site's status.
    pub(super) fn end(&mut self, job: &Arc<SiteJob>, end: End) {
        if job.status.as_ref().is_some_and(|it| it.outcome.is_some()) {
            // It was recorded before a crash.
            return;
        }
        let (next, notice) = status::ended(job, end, self.observed.now);
        self.plan.steps.push(Step::Status(job.clone(), Box::new(next), Some(notice)));
    }

    /// Records the running SiteJob, or that there is none.
    pub(super) fn record(&mut self, operation: Option<JobOperation>) {
        self.plan.status = Some(self.recorded(operation));
    }

    /// The site's status with this SiteJob.
    pub(super) fn recorded(&self, operation: Option<JobOperation>) -> FrappeSiteStatus {
        FrappeSiteStatus { job: operation, ..self.observed.site.status.clone().unwrap_or_default() }
    }

    /// Reconciles the site again after this time, or sooner.
    pub(super) fn again_after(&mut self, wait: Duration) {
        self.plan.again_after = Some(self.plan.again_after.map_or(wait, |known| known.min(wait)));
    }
}

/// A status that differs.
pub(super) fn differing(job: &SiteJob, next: SiteJobStatus) -> Option<Box<SiteJobStatus>> {
    (job.status.as_ref() != Some(&next)).then(|| Box::new(next))
}
