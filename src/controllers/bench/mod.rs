//! The controller of FrappeBenches. Start at [`reconcile`].

mod adoption;
pub mod autoscaling;
pub mod build;
mod code;
mod earlier;
mod input;
pub mod model;
pub mod observe;
pub mod placed;
pub mod plan;
pub mod pod_health;
mod protection;
pub mod reason;
pub mod revisions;
pub mod rollout;
pub mod seen;
pub mod sizes;
pub mod status;
pub mod validate;
pub mod watch;
pub mod waves;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use frappe_crds::FrappeBench;
use kube::core::DynamicObject;
use kube_sharding::{gate::Scope, lanes::runner::Outcome};

use crate::{
    controllers::{
        adoption::{Owner, is_adoption_requested},
        context::{ChildCache, Children, Context},
        execute::{Attempt, Held, remember},
        failure::{self, Error},
    },
    domain::{key::Key, object::Kind, uid},
    io::writer::Writer,
};

impl Held for FrappeBench {
    type Recorder = Self;

    fn newest(context: &Context, key: &Key) -> Option<Arc<Self>> {
        context.benches.get(key)
    }

    fn wrote(context: &Context, written: DynamicObject) {
        remember(&context.benches, written);
    }

    fn forget_deleted(context: &Context, known: &Self, written: &DynamicObject) {
        context.benches.deleted(&Key::of(known), uid::of(written));
    }

    fn children(context: &Context) -> &Children {
        &context.bench_children
    }

    /// Only Secrets that a bench or a site references are watched.
    fn secrets(context: &Context) -> &ChildCache {
        &context.user_secrets
    }
}

/// Reconciles one bench: observe → validate → plan → build → apply → status.
pub async fn reconcile(context: Arc<Context>, key: Key) -> Outcome {
    let Some(bench) = context.benches.get(&key) else {
        context.tallies.forget(&key);
        return Outcome::Done;
    };
    let writer = Writer::new(context.client.clone(), Scope::Coordinator);
    let owner = Owner::of(bench.as_ref(), is_adoption_requested(&bench));
    let attempt = Attempt { context: &context, writer: &writer, key: &key, owner };
    match reconcile_once(&attempt, Arc::clone(&bench)).await {
        Ok(outcome) => outcome,
        Err(error) => failure::conclude(&attempt, Some(&bench), error).await,
    }
}

async fn reconcile_once(attempt: &Attempt<'_>, bench: Arc<FrappeBench>) -> Result<Outcome, Error> {
    let read = |source| Error::Observe(Kind::Bench, attempt.key.clone(), source);
    let observed = observe::observe(attempt.context, bench).await.map_err(read)?;
    let planned = plan::planned(&observed);
    tracing::trace!(bench = %attempt.key, phase = planned.phase, "planned");
    attempt.carry_out(&planned.plan, None).await.map_err(|failed| Error::of(attempt.key, failed))
}
