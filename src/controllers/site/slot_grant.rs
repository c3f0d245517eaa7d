//! The job slot of the Job that a plan of a site, of its SiteBackups or of its SiteJobs starts.

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    job_slots::{self, Claim, Limits, Wants},
    model::Observed,
    watch,
};
use crate::{
    controllers::{
        context::Context,
        model::{Plan, Reconciled},
    },
    domain::{
        key::Key,
        object::{Desired, Kind},
        uid,
    },
};

/// The answer to the request for a job slot.
enum Grant {
    /// No Job is started.
    NotNeeded,
    /// The job slot is held until it is released or the Job ends.
    Granted(Claim),
    /// The bench is at its limit; the site is reconciled when a job slot is free.
    Waiting,
}

/// The plan with its Job if the bench has a free job slot; otherwise the plan that reports the wait.
pub fn with_job_slot<K: Reconciled>(
    context: &Context,
    observed: &Observed,
    plan: Plan<K>,
    wants: Wants,
    since: Option<Timestamp>,
) -> (Plan<K>, Option<Claim>) {
    match request(context, observed, plan.start.as_ref().map(|it| &it.job), wants, since) {
        Grant::NotNeeded => (plan.started(), None),
        Grant::Granted(claim) => (plan.started(), Some(claim)),
        Grant::Waiting => (plan.waiting(), None),
    }
}

/// Requests a job slot for a Job that does not exist yet. The oldest `since` is served first; it defaults to the site's age.
fn request(
    context: &Context,
    observed: &Observed,
    job: Option<&Desired>,
    wants: Wants,
    since: Option<Timestamp>,
) -> Grant {
    let key = Key::of(observed.site.as_ref());
    let bench = watch::lane(&observed.site);
    let starts = job.filter(|job| context.site_children.get(Kind::Job, &job.key).is_none());
    let Some(job) = starts else {
        context.jobs.withdraw(&bench, &key, wants);
        return Grant::NotNeeded;
    };
    let own = observed.bench.as_ref().and_then(|bench| bench.spec.site_job_concurrency);
    let strategy = observed.bench.as_ref().and_then(|bench| bench.spec.update_strategy.as_ref());
    let updates = strategy.and_then(|it| it.max_concurrency).and_then(|it| usize::try_from(it).ok());
    let created = observed.site.creation_timestamp().map(|it| it.0);
    let claim = Claim {
        bench,
        site: key,
        uid: uid::of(observed.site.as_ref()).to_owned(),
        wants,
        job: job.key.name.clone(),
        since: since.or(created).unwrap_or(observed.now),
        updates: job_slots::is_update(job),
    };
    let limits = Limits { all: observed.config.site_job_limit(own), updates };
    let granted = context.jobs.acquire(&claim, limits);
    if granted { Grant::Granted(claim) } else { Grant::Waiting }
}
