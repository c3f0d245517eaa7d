//! Room in the bench's budget for the Job that a plan starts, whichever controller's.

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    job_slots::{Claim, Wants},
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

/// What became of the wish for a Job.
enum Room {
    /// No Job is started.
    NotNeeded,
    /// There is room, until it is released or the Job ends.
    Taken(Claim),
    /// It is waited for.
    Full,
}

/// The plan, with room for the Job that it starts; or the plan of what waits for room.
pub fn budgeted<K: Reconciled>(
    context: &Context,
    observed: &Observed,
    plan: Plan<K>,
    wants: Wants,
    since: Option<Timestamp>,
) -> (Plan<K>, Option<Claim>) {
    match take(context, observed, plan.start.as_ref().map(|it| &it.job), wants, since) {
        Room::NotNeeded => (plan.started(), None),
        Room::Taken(claim) => (plan.started(), Some(claim)),
        Room::Full => (plan.waiting(), None),
    }
}

/// Takes room for a Job, where it is not there yet; `since` says who comes first, else it is the age of the site.
fn take(context: &Context, observed: &Observed, job: Option<&Desired>, wants: Wants, since: Option<Timestamp>) -> Room {
    let key = Key::of(observed.site.as_ref());
    let bench = watch::lane(&observed.site);
    let starts = job.filter(|job| context.site_children.get(Kind::Job, &job.key).is_none());
    let Some(job) = starts else {
        context.jobs.leave(&bench, &key, wants);
        return Room::NotNeeded;
    };
    let own = observed.bench.as_ref().and_then(|bench| bench.spec.site_job_concurrency);
    let created = observed.site.creation_timestamp().map(|it| it.0);
    let claim = Claim {
        bench,
        site: key,
        uid: uid::of(observed.site.as_ref()).to_owned(),
        wants,
        job: job.key.name.clone(),
        since: since.or(created).unwrap_or(observed.now),
    };
    let taken = context.jobs.take(&claim, observed.config.site_job_limit(own));
    if taken { Room::Taken(claim) } else { Room::Full }
}
