//! What happens when a FrappeBench, or something it is made of, changes. Start at [`reconcile`].

pub mod autoscaling;
pub mod build;
mod earlier;
mod found;
mod input;
pub mod model;
pub mod observe;
pub mod plan;
pub mod pod_health;
mod protection;
pub mod reason;
pub mod rollout;
pub mod seen;
pub mod sizes;
pub mod status;
pub mod validate;
pub mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use frappe_crds::FrappeBench;
use kube::ResourceExt;
use kube_sharding::gate::Scope;

use super::bench::model::{Observed, Plan, Step};
use crate::{
    controllers::{
        adoption::{Owner, is_asked},
        context::Context,
        execute,
        failure::{self, Error},
        take_over::take_over,
    },
    domain::{key::Key, object::Kind},
    io::writer::{WriteError, Writer},
    lanes::runner::Outcome,
};

/// Brings one bench a step further: observe → validate → plan → build → apply → status.
pub async fn reconcile(context: Arc<Context>, key: Key) -> Outcome {
    let Some(bench) = context.benches.get(&key) else { return Outcome::Done };
    let writer = Writer::new(context.client.clone(), Scope::Coordinator);
    match attempt(&context, &writer, &key, Arc::clone(&bench)).await {
        Ok(outcome) => outcome,
        Err(error) => failure::conclude(&context, &writer, &context.benches, bench.uid(), error).await,
    }
}

async fn attempt(context: &Context, writer: &Writer, key: &Key, bench: Arc<FrappeBench>) -> Result<Outcome, Error> {
    let observed =
        observe::observe(context, bench).await.map_err(|source| Error::Observe(Kind::Bench, key.clone(), source))?;
    let plan = plan::plan(&observed);
    execute(context, writer, &observed, &plan)
        .await
        .map_err(|source| Error::Write(Kind::Bench, key.clone(), source))?;
    for notice in &plan.notices {
        context.events.publish(&execute::reference(Kind::Bench, key, observed.bench.uid()), notice).await;
    }
    Ok(if plan.missing { Outcome::Missing } else { plan.again_after.map_or(Outcome::Done, Outcome::After) })
}

async fn execute(context: &Context, writer: &Writer, observed: &Observed, plan: &Plan) -> Result<(), WriteError> {
    let (children, key) = (&context.bench_children, &Key::of(observed.bench.as_ref()));
    for step in &plan.steps {
        match step {
            Step::Ensure(desired) => execute::ensure(writer, children, desired).await?,
            Step::TakeOver(desired) => {
                let owner = Owner::of(observed.bench.as_ref(), is_asked(&observed.bench));
                take_over(writer, children, desired, &owner).await?;
            }
            Step::Create(desired) => {
                // Of Secrets, those are watched that a bench or a site reads.
                let secrets = desired.kind == Kind::Secret;
                let cache = if secrets { &context.user_secrets } else { children.cache(desired.kind) };
                execute::create(writer, cache, desired).await?;
            }
            Step::Watch(secret) => execute::watch_secret(writer, &context.user_secrets, secret).await?,
            Step::HandOver(live) => execute::hand_over_replicas(writer, children, live).await?,
            Step::Delete(kind, object) => execute::delete(writer, children.cache(*kind), *kind, object).await?,
            Step::PatchBench(metadata) => {
                execute::patch_own(writer, &context.benches, Kind::Bench, key, metadata).await?;
            }
        }
    }
    match &plan.status {
        Some(next) => execute::write_status(writer, &context.benches, Kind::Bench, key, next).await,
        None => Ok(()),
    }
}
