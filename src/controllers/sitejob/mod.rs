//! The controller of SiteJobs. Start at [`reconcile`].
//!
//! All SiteJobs of a site are reconciled together, because a site has one operation at a time: the queue's keys are keys of sites.

mod build;
mod commands;
mod draft;
mod missing;
pub mod model;
pub mod plan;
pub mod reason;
mod running;
mod status;
mod waiting;

use std::sync::Arc;

use frappe_crds::{FrappeSite, FrappeSiteStatus, SiteJob};
use kube::{ResourceExt as _, core::DynamicObject};
use kube_sharding::{gate::Scope, lanes::runner::Outcome};

use self::{model::Plan, reason::Reason};
use crate::{
    controllers::{
        adoption::Owner,
        companion::orphan,
        context::{Children, Context},
        execute::{Attempt, Held, Refused},
        failure::{self, Error},
        site::{
            job_slots::Wants,
            model::{Of, Turn},
            observe::observe,
            slot_grant,
        },
    },
    domain::{key::Key, object::Kind, uid},
    io::{events::Notice, writer::Writer},
};

impl Held for SiteJob {
    /// The site's status records a SiteJob before its Job is created.
    type Recorder = FrappeSite;

    const TOGETHER: bool = true;

    fn newest(context: &Context, key: &Key) -> Option<Arc<Self>> {
        context.companion(key).map(Arc::new)
    }

    fn newest_of(context: &Context, known: &Arc<Self>) -> Option<Arc<Self>> {
        Some(context.companion_or(known))
    }

    fn wrote(context: &Context, written: DynamicObject) {
        context.cache_of_companion(Kind::SiteJob, &written).wrote(written);
    }

    fn forget_deleted(context: &Context, known: &Self, written: &DynamicObject) {
        context.cache_of_companion(Kind::SiteJob, known).deleted(&Key::of(known), uid::of(written));
    }

    fn children(context: &Context) -> &Children {
        &context.site_children
    }

    fn recorded(context: &Context, site: &Key, status: &FrappeSiteStatus) -> Option<Arc<Self>> {
        let operation = status.job.as_ref()?;
        let found: Self = context.companion(&Key::new(&site.namespace, &operation.site_job))?;
        (found.uid().as_ref() == Some(&operation.site_job_uid)).then(|| Arc::new(found))
    }

    fn count(notice: &Notice) {
        if let Some(result) = Reason::counted(&notice.reason) {
            metrics::counter!("frappe_operator_site_jobs_total", "result" => result).increment(1);
        }
    }
}

/// Reconciles the SiteJobs of a site: observe → plan → write.
///
/// `epoch` is the epoch of the slot's owner at the start.
pub async fn reconcile(context: Arc<Context>, key: Key, scope: Scope, epoch: i64) -> Outcome {
    let _alone = context.locks.lock(&key).await;
    let writer = Writer::new(context.client.clone(), scope);
    let attempt = Attempt { context: &context, writer: &writer, key: &key, owner: Owner::default() };
    let read = |source| Error::Observe(Kind::SiteJob, key.clone(), source);
    let (plan, slot): (Plan, _) = match context.sites.get(&key) {
        // The site was created in the meantime: it must be reconciled by its slot's owner.
        Some(site) if scope != Scope::Slot(uid::slot_of(site.as_ref())) => return Outcome::Conflict,
        Some(site) => {
            let turn = Turn { epoch, terminating: false, of: Of::Jobs };
            match observe(&context, site, turn).await {
                Ok(observed) => slot_grant::with_job_slot(&context, &observed, plan::plan(&observed), Wants::Job, None),
                Err(source) => return failure::retried(&read(source)),
            }
        }
        None => match orphan::plan(&context, &key, scope).await {
            Ok(plan) => (plan, None),
            Err(source) => return failure::retried(&read(source)),
        },
    };
    match attempt.carry_out(&plan, slot.as_ref()).await {
        Ok(outcome) => outcome,
        Err(failed) => {
            for one in failed.others.into_iter().rev() {
                // The first one decides when it is retried.
                let _ = conclude(&attempt, one).await;
            }
            conclude(&attempt, failed.first).await
        }
    }
}

/// The outcome of a failed write. A rejection is reported on the SiteJob of the write, not on the site; without one, on the SiteJob that is
/// recorded.
async fn conclude(attempt: &Attempt<'_>, (about, error): Refused<SiteJob>) -> Outcome {
    let recorded = || {
        let site = attempt.context.sites.get(attempt.key)?;
        SiteJob::recorded(attempt.context, attempt.key, site.status.as_ref()?)
    };
    let about = about.or_else(recorded);
    let key = about.as_ref().map_or_else(|| attempt.key.clone(), |it| Key::of(it.as_ref()));
    failure::conclude(attempt, about.as_ref(), Error::Write(Kind::SiteJob, key, error)).await
}
