//! The plan of a site's SiteJobs. Pure: every decision is made here, none in its execution.
//!
//! A site has one operation at a time: a SiteJob is recorded in the site's status (`job`) before its Job is created, and other operations
//! wait until it is removed there. A SiteJob runs at most once.

use frappe_crds::{FrappeSiteStatus, SiteJob, job::JobOperation, site::OperationKind};

use super::{draft::Draft, model::Plan};
use crate::controllers::{
    phase::{Next, fold},
    site::{
        model::{Input, Observed, Plan as SitePlan, Subject},
        operation::running_job,
        plan as site_plan, record,
        schema::{self, Fit},
    },
};

/// A site and its SiteJobs.
struct Look<'a> {
    observed: &'a Observed,
    /// Input of Jobs; None if none can be created.
    input: Option<Subject<'a>>,
    /// The running SiteJob.
    recorded: Option<JobOperation>,
    /// Its state.
    under_way: Plan,
    /// Whether none may start.
    busy: bool,
}

/// A phase: its name and its function.
type Phase = (&'static str, fn(&Look<'_>) -> Next<SiteJob>);

/// The phases of the SiteJobs of a site.
const PHASES: &[Phase] = &[("operation", operation), ("others", others)];

/// The phases while the site's own plan is not known, or the site is being deleted. Only results are recorded.
const ENDING: &[Phase] = &[("operation", operation)];

/// The plan of a site's SiteJobs.
pub fn plan(observed: &Observed) -> Plan {
    let recorded = observed.site.status.as_ref().and_then(|it| it.job.clone());
    if observed.site_jobs.is_empty() && recorded.is_none() {
        return Plan::default();
    }
    if observed.site.metadata.deletion_timestamp.is_some() {
        return fold(ENDING, &Look::of(observed, None, recorded, true)).plan;
    }
    let (own, valid) = site_plan::planned(observed);
    if own.plan.status.is_none() {
        // The site's Secrets are being created or labelled; their watch triggers the next reconcile.
        return fold(ENDING, &Look::of(observed, None, recorded, true)).plan;
    }
    let known = record::known(observed);
    let input = valid.as_ref().map(|valid| Input::new(&observed.site, valid, &known));
    let busy = input.is_none() || !is_free(observed, &own.plan);
    fold(PHASES, &Look::of(observed, input.map(|it| it.subject), recorded, busy)).plan
}

impl<'a> Look<'a> {
    fn of(observed: &'a Observed, input: Option<Subject<'a>>, recorded: Option<JobOperation>, busy: bool) -> Self {
        let mut draft = Draft::new(observed, input, busy);
        if let Some(operation) = recorded.clone() {
            draft.continue_operation(operation);
        }
        Self { observed, input, recorded, under_way: draft.plan, busy }
    }
}

/// Continues the running SiteJob.
fn operation(look: &Look) -> Next<SiteJob> {
    Next::Go(look.under_way.clone())
}

/// Reports what the other SiteJobs wait for, starts the next one, and deletes those whose time is over.
fn others(look: &Look) -> Next<SiteJob> {
    let Look { observed, input, busy, .. } = *look;
    let mut draft = Draft::new(observed, input, busy || look.recorded.is_some());
    draft.waiting_jobs(look.recorded.as_ref().map(|it| it.site_job_uid.as_str()));
    Next::End(draft.plan)
}

/// Whether the site exists, has the schema of the code that serves it, and has no running or pending operation.
fn is_free(observed: &Observed, own: &SitePlan) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    let FrappeSiteStatus { initialized, operation, backup, .. } = &status;
    let idle = own.status.as_ref().is_some_and(|next| next.operation == *operation || next.operation.is_none());
    let fits = !matches!(schema::fit(&status, observed.bench.as_deref()), Fit::Differs(_));
    let created = *initialized && operation.as_ref().is_none_or(|it| it.kind != OperationKind::Delete);
    let suspended = observed.site.spec.suspend == Some(true);
    let runs = running_job(observed).is_some();
    created && idle && fits && !runs && !suspended && own.start.is_none() && backup.is_none()
}
