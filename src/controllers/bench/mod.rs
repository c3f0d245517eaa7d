//! What happens when a FrappeBench, or something it is made of, changes. Start at [`reconcile`].

pub mod build;
pub mod observe;
pub mod plan;
pub mod reason;
pub mod status;
pub mod validate;
pub mod watch;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use frappe_crds::FrappeBench;
use kube::ResourceExt;

use crate::{
    controllers::{context::Context, execute, site::chain},
    domain::{key::Key, object::Kind},
    io::{
        events::Notice,
        gate::Scope,
        writer::{WriteError, Writer},
    },
    lanes::runner::Outcome,
};
use plan::{Plan, Step};

/// Why a reconcile did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something could not be read.
    #[error("observe bench {0}")]
    Observe(Key, #[source] kube::Error),
    /// Something could not be written.
    #[error("write for bench {0}")]
    Write(Key, #[source] WriteError),
}

/// Brings one bench a step further: observe → validate → plan → build → apply → status.
pub async fn reconcile(context: Arc<Context>, key: Key) -> Outcome {
    let Some(bench) = context.benches.get(&key) else { return Outcome::Done };
    let writer = Writer::new(context.client.clone(), Scope::Coordinator);
    match attempt(&context, &writer, &key, Arc::clone(&bench)).await {
        Ok(outcome) => outcome,
        Err(error) => failed(&context, &bench, &key, error).await,
    }
}

async fn attempt(context: &Context, writer: &Writer, key: &Key, bench: Arc<FrappeBench>) -> Result<Outcome, Error> {
    let observed = observe::observe(context, bench).await.map_err(|source| Error::Observe(key.clone(), source))?;
    let plan = plan::plan(&observed);
    execute(context, writer, key, &plan).await.map_err(|source| Error::Write(key.clone(), source))?;
    if let Some(notice) = &plan.notice {
        publish(context, key, &observed.bench, notice).await;
    }
    Ok(Outcome::Done)
}

async fn execute(context: &Context, writer: &Writer, key: &Key, plan: &Plan) -> Result<(), WriteError> {
    let children = &context.bench_children;
    for step in &plan.steps {
        match step {
            Step::Ensure(desired) => execute::ensure(writer, children, desired).await?,
            Step::Create(desired) => execute::create(writer, children.cache(desired.kind), desired).await?,
            Step::Delete(kind, object) => execute::delete(writer, children.cache(*kind), *kind, object).await?,
            Step::PatchBench(metadata) => {
                let written = writer.patch_metadata(Kind::Bench, key, metadata).await?;
                if written.metadata.deletion_timestamp.is_some() && written.finalizers().is_empty() {
                    context.benches.deleted(key, &written.uid().unwrap_or_default());
                } else if let Ok(bench) = execute::pruned(written).try_parse::<FrappeBench>() {
                    context.benches.wrote(bench);
                }
            }
        }
    }
    match &plan.status {
        Some(next) => write_status(context, writer, key, next).await,
        None => Ok(()),
    }
}

async fn write_status(
    context: &Context,
    writer: &Writer,
    key: &Key,
    next: &frappe_crds::FrappeBenchStatus,
) -> Result<(), WriteError> {
    let Some(bench) = context.benches.get(key) else { return Ok(()) };
    if bench.status.as_ref() == Some(next) {
        return Ok(());
    }
    let mut changed = FrappeBench::clone(&bench);
    changed.status = Some(next.clone());
    let body = serde_json::to_value(&changed).unwrap_or_default();
    let written = writer.replace_status(Kind::Bench, key, &body).await?;
    if let Ok(bench) = execute::pruned(written).try_parse::<FrappeBench>() {
        context.benches.wrote(bench);
    }
    Ok(())
}

async fn publish(context: &Context, key: &Key, bench: &FrappeBench, notice: &Notice) {
    context.events.publish(&execute::reference(Kind::Bench, key, bench.uid()), notice).await;
}

async fn failed(context: &Context, bench: &FrappeBench, key: &Key, error: Error) -> Outcome {
    match &error {
        Error::Write(_, WriteError::Conflict { .. }) => return Outcome::Conflict,
        Error::Write(_, WriteError::NoRight { .. }) => return Outcome::After(Duration::from_secs(1)),
        Error::Write(_, refused @ (WriteError::Rejected { .. } | WriteError::NamespaceTerminating { .. })) => {
            let notice =
                Notice { warning: true, reason: reason::Reason::WriteRejected.to_string(), note: refused.to_string() };
            publish(context, key, bench, &notice).await;
        }
        _ => {}
    }
    tracing::warn!(bench = %key, error = %chain(&error), "reconcile failed");
    Outcome::Failed
}
