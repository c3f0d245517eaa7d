//! The controller of FrappeSites. Start at [`reconcile`].

pub mod adoption;
pub mod annotations;
mod attempts;
pub mod build;
pub mod configuration;
pub mod database;
pub mod deletion;
mod final_backup;
pub mod host_index;
pub mod hosts;
pub mod job_share;
pub mod job_slots;
mod kept;
pub mod locks;
mod lost_secrets;
pub mod model;
pub mod observe;
pub mod operation;
pub mod permissions;
pub mod place;
pub mod plan;
mod provision;
mod read_secrets;
pub mod reason;
pub mod record;
pub mod references;
pub mod revision;
pub mod root_secrets;
pub mod route;
pub mod schema;
pub mod secrets;
mod sitebackups;
mod sitejobs;
pub mod slot_grant;
pub mod status;
mod steady_state;
pub mod under_way;
mod undo;
mod update;
mod valid_site;
pub mod validate;
pub mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use frappe_crds::{FrappeSite, FrappeSiteStatus};
use job_slots::Wants;
use kube::core::DynamicObject;
use kube_sharding::{gate::Scope, lanes::runner::Outcome};
use slot_grant::with_job_slot;

use super::site::model::{Of, Turn};
use crate::{
    controllers::{
        adoption::Owner,
        context::{Children, Context},
        execute::{Attempt, Held, remember},
        failure::{self, Error},
        objects::name,
    },
    domain::{condition, key::Key, object::Kind, uid},
    io::{
        events::log_line,
        writer::{WriteError, Writer},
    },
};

impl Held for FrappeSite {
    type Recorder = Self;

    fn newest(context: &Context, key: &Key) -> Option<Arc<Self>> {
        context.sites.get(key)
    }

    fn wrote(context: &Context, written: DynamicObject) {
        remember(&context.sites, written);
    }

    fn forget_deleted(context: &Context, known: &Self, written: &DynamicObject) {
        context.sites.deleted(&Key::of(known), uid::of(written));
    }

    fn children(context: &Context) -> &Children {
        &context.site_children
    }
}

/// Reconciles one site: observe → validate → plan → build → apply → status.
///
/// `epoch` is the epoch of the slot's owner at the start.
pub async fn reconcile(context: Arc<Context>, key: Key, epoch: i64) -> Outcome {
    let _alone = context.locks.lock(&key).await;
    let Some(site) = context.sites.get(&key) else {
        context.jobs.forget(&key);
        return Outcome::Done;
    };
    let writer = Writer::new(context.client.clone(), Scope::Slot(uid::slot_of(site.as_ref())));
    let attempt = Attempt { context: &context, writer: &writer, key: &key, owner: Owner::of(site.as_ref(), true) };
    let result = match reconcile_once(&attempt, Turn { epoch, terminating: false, of: Of::Site }).await {
        // Nothing can be created in a namespace that is being deleted: plan again with that knowledge.
        Err(Error::Write(_, _, WriteError::NamespaceTerminating { .. })) => {
            reconcile_once(&attempt, Turn { epoch, terminating: true, of: Of::Site }).await
        }
        other => other,
    };
    match result {
        Ok(outcome) => outcome,
        Err(error) => failure::conclude(&attempt, Some(&site), error).await,
    }
}

async fn reconcile_once(attempt: &Attempt<'_>, turn: Turn) -> Result<Outcome, Error> {
    let Attempt { context, key, .. } = *attempt;
    let Some(site) = context.sites.get(key) else { return Ok(Outcome::Done) };
    let attempt = Attempt { owner: Owner::of(site.as_ref(), true), ..*attempt };
    let observed = observe::observe(context, site, turn)
        .await
        .map_err(|source| Error::Observe(Kind::Site, key.clone(), source))?;
    let planned = plan::planned(&observed).0;
    tracing::trace!(site = %key, phase = planned.phase, "planned");
    let (plan, slot) = with_job_slot(context, &observed, planned.plan, Wants::Site, None);
    let done = attempt.carry_out(&plan, slot.as_ref()).await.map_err(|failed| Error::of(key, failed))?;
    if plan.notices.is_empty() {
        log_step(key, observed.site.status.as_ref(), plan.status.as_ref());
    }
    Ok(done)
}

/// Logs an intermediate step, which has no Event.
fn log_step(key: &Key, former: Option<&FrappeSiteStatus>, next: Option<&FrappeSiteStatus>) {
    let ready = |status: &FrappeSiteStatus| condition::find(&status.conditions, "Ready").cloned();
    let before = former.and_then(ready).map(|it| it.reason);
    if let Some(now) = next.and_then(ready).filter(|now| before.as_ref() != Some(&now.reason)) {
        log_line(&name(Kind::Site, key), false, &now.reason, &now.message);
    }
}
