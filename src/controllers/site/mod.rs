//! What happens when a FrappeSite, or something it depends on, changes. Start at [`reconcile`].

pub mod annotations;
pub mod build;
pub mod configuration;
pub mod database;
pub mod deletion;
mod final_backup;
pub mod found;
pub mod host_index;
pub mod hosts;
pub mod job_slots;
mod kept;
pub mod locks;
pub mod model;
pub mod observe;
pub mod operation;
pub mod permissions;
pub mod place;
pub mod plan;
pub mod reason;
pub mod record;
pub mod references;
pub mod room;
pub mod root_secrets;
pub mod route;
mod sitebackups;
pub mod status;
mod steady_state;
pub mod under_way;
pub mod validate;
pub mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use frappe_crds::FrappeSiteStatus;
use job_slots::{Claim, Wants};
use kube::ResourceExt;
use kube_sharding::{Slot, gate::Scope};
use room::Room;

use super::site::model::{Observed, Of, Plan, Step, Turn};
use crate::{
    controllers::{
        adoption::Owner,
        context::Context,
        execute,
        failure::{self, Error},
        take_over::take_over,
    },
    domain::{condition, key::Key, object::Kind},
    io::{
        events::log_line,
        writer::{WriteError, Writer},
    },
    lanes::runner::Outcome,
};

/// Brings one site a step further: observe → validate → plan → build → apply → status.
///
/// `epoch` is that of the slot's owner when this began.
pub async fn reconcile(context: Arc<Context>, key: Key, epoch: i64) -> Outcome {
    let _alone = context.locks.lock(&key).await;
    let Some(site) = context.sites.get(&key) else {
        context.jobs.forget(&key);
        return Outcome::Done;
    };
    let writer = Writer::new(context.client.clone(), Scope::Slot(Slot::of_uid(&site.uid().unwrap_or_default())));
    let result = match attempt(&context, &writer, &key, Turn { epoch, terminating: false, of: Of::Site }).await {
        // Nothing can be made in a namespace that is going: plan again, knowing that.
        Err(Error::Write(_, _, WriteError::NamespaceTerminating { .. })) => {
            attempt(&context, &writer, &key, Turn { epoch, terminating: true, of: Of::Site }).await
        }
        other => other,
    };
    match result {
        Ok(outcome) => outcome,
        Err(error) => failure::conclude(&context, &writer, &context.sites, site.uid(), error).await,
    }
}

async fn attempt(context: &Context, writer: &Writer, key: &Key, turn: Turn) -> Result<Outcome, Error> {
    let Some(site) = context.sites.get(key) else { return Ok(Outcome::Done) };
    let observed = observe::observe(context, site, turn)
        .await
        .map_err(|source| Error::Observe(Kind::Site, key.clone(), source))?;
    let (plan, claim) = budgeted(context, &observed);
    if let Err(source) = execute(context, writer, key, &plan).await {
        if let Some(claim) = &claim {
            context.jobs.give_back(claim);
        }
        return Err(Error::Write(Kind::Site, key.clone(), source));
    }
    match &plan.notice {
        Some(notice) => {
            context.events.publish(&execute::reference(Kind::Site, key, observed.site.uid()), notice).await;
        }
        None => log_step(key, observed.site.status.as_ref(), plan.status.as_ref()),
    }
    Ok(match (plan.missing, plan.again_after) {
        (true, _) => Outcome::Missing,
        (false, Some(after)) => Outcome::After(after),
        (false, None) => Outcome::Done,
    })
}

/// A step on the way, which is no Event: one line.
fn log_step(key: &Key, former: Option<&FrappeSiteStatus>, next: Option<&FrappeSiteStatus>) {
    let ready = |status: &FrappeSiteStatus| condition::find(&status.conditions, "Ready").cloned();
    let before = former.and_then(ready).map(|it| it.reason);
    if let Some(now) = next.and_then(ready).filter(|now| before.as_ref() != Some(&now.reason)) {
        log_line(&execute::name(Kind::Site, key), false, &now.reason, &now.message);
    }
}

/// The plan, with room for the Job that it starts; or the plan of a site that waits for room.
fn budgeted(context: &Context, observed: &Observed) -> (Plan, Option<Claim>) {
    let plan = plan::plan(observed);
    match room::take(context, observed, plan.start.as_ref().map(|it| &it.job), Wants::Site, None) {
        Room::NotNeeded => (plan.started(), None),
        Room::Taken(claim) => (plan.started(), Some(claim)),
        Room::Full => (plan.waiting(), None),
    }
}

/// Steps, status, Job, last steps: in this order, because the status records an operation before its Job is made.
async fn execute(context: &Context, writer: &Writer, key: &Key, plan: &Plan) -> Result<(), WriteError> {
    for step in &plan.steps {
        take(context, writer, key, step).await?;
    }
    if let Some(next) = &plan.status {
        execute::write_status(writer, &context.sites, Kind::Site, key, next).await?;
    }
    if let Some(job) = &plan.job
        && context.site_children.get(Kind::Job, &job.key).is_none()
    {
        execute::create(writer, context.site_children.cache(Kind::Job), job).await?;
    }
    for step in &plan.last {
        take(context, writer, key, step).await?;
    }
    Ok(())
}

async fn take(context: &Context, writer: &Writer, key: &Key, step: &Step) -> Result<(), WriteError> {
    let children = &context.site_children;
    match step {
        Step::PatchSite(metadata) => execute::patch_own(writer, &context.sites, Kind::Site, key, metadata).await?,
        Step::LabelSecret(secret, metadata) => {
            let written = writer.patch_metadata(Kind::Secret, &Key::of(secret.as_ref()), metadata).await?;
            children.cache(Kind::Secret).wrote(written);
        }
        Step::WatchSecret(secret) => execute::watch_secret(writer, &context.user_secrets, secret).await?,
        Step::CopySecret(from, desired) => {
            execute::copy_secret(writer, children.cache(Kind::Secret), from, desired).await?;
        }
        Step::AdoptSecret(secret, body) => {
            let written = writer.patch(Kind::Secret, &Key::of(secret.as_ref()), body).await?;
            children.cache(Kind::Secret).wrote(written);
        }
        Step::TakeOver(desired) => {
            let site = context.sites.get(key);
            let owner = site.map(|it| Owner::of(it.as_ref(), true)).unwrap_or_default();
            take_over(writer, children, desired, &owner).await?;
        }
        Step::Create(desired) => execute::create(writer, children.cache(desired.kind), desired).await?,
        Step::Ensure(desired) => execute::ensure(writer, children, desired).await?,
        Step::Delete(kind, object) => execute::delete(writer, children.cache(*kind), *kind, object).await?,
    }
    Ok(())
}
