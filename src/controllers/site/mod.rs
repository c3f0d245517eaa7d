//! What happens when a FrappeSite, or something it depends on, changes. Start at [`reconcile`].

pub mod build;
mod deletion;
pub mod observe;
pub mod operation;
pub mod plan;
pub mod reason;
pub mod status;
pub mod validate;
pub mod watch;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use frappe_crds::FrappeSite;
use kube::ResourceExt;
use kube_sharding::Slot;

use crate::{
    controllers::{context::Context, execute},
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
    #[error("observe site {0}")]
    Observe(Key, #[source] kube::Error),
    /// Something could not be written.
    #[error("write for site {0}")]
    Write(Key, #[source] WriteError),
}

/// Brings one site a step further: observe → validate → plan → build → apply → status.
pub async fn reconcile(context: Arc<Context>, key: Key) -> Outcome {
    let Some(site) = context.sites.get(&key) else { return Outcome::Done };
    let writer = Writer::new(context.client.clone(), Scope::Slot(Slot::of_uid(&site.uid().unwrap_or_default())));
    let result = match attempt(&context, &writer, &key, false).await {
        // Nothing can be made in a namespace that is going: plan again, knowing that.
        Err(Error::Write(_, WriteError::NamespaceTerminating { .. })) => attempt(&context, &writer, &key, true).await,
        other => other,
    };
    match result {
        Ok(outcome) => outcome,
        Err(error) => failed(&context, &site, &key, error).await,
    }
}

async fn attempt(context: &Context, writer: &Writer, key: &Key, terminating: bool) -> Result<Outcome, Error> {
    let Some(site) = context.sites.get(key) else { return Ok(Outcome::Done) };
    let observed =
        observe::observe(context, site, terminating).await.map_err(|source| Error::Observe(key.clone(), source))?;
    let plan = plan::plan(&observed);
    execute(context, writer, key, &plan).await.map_err(|source| Error::Write(key.clone(), source))?;
    if let Some(notice) = &plan.notice {
        publish(context, key, &observed.site, notice).await;
    }
    Ok(match (plan.missing, plan.again_after) {
        (true, _) => Outcome::Missing,
        (false, Some(after)) => Outcome::After(after),
        (false, None) => Outcome::Done,
    })
}

/// Steps, status, Job, last steps: in this order, because the status records an operation before its Job is made.
async fn execute(context: &Context, writer: &Writer, key: &Key, plan: &Plan) -> Result<(), WriteError> {
    for step in &plan.steps {
        take(context, writer, key, step).await?;
    }
    if let Some(next) = &plan.status {
        write_status(context, writer, key, next).await?;
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
        Step::PatchSite(metadata) => {
            let written = writer.patch_metadata(Kind::Site, key, metadata).await?;
            if written.metadata.deletion_timestamp.is_some() && written.finalizers().is_empty() {
                context.sites.deleted(key, &written.uid().unwrap_or_default());
            } else if let Ok(site) = execute::pruned(written).try_parse::<FrappeSite>() {
                context.sites.wrote(site);
            }
        }
        Step::LabelSecret(secret, metadata) => {
            let mut written = writer.patch_metadata(Kind::Secret, &Key::of(secret.as_ref()), metadata).await?;
            written.data = serde_json::Value::Null;
            children.cache(Kind::Secret).wrote(execute::pruned(written));
        }
        Step::Create(desired) => execute::create(writer, children.cache(desired.kind), desired).await?,
        Step::Ensure(desired) => execute::ensure(writer, children, desired).await?,
        Step::Delete(kind, object) => execute::delete(writer, children.cache(*kind), *kind, object).await?,
    }
    Ok(())
}

/// Writes the status if it differs, on the resourceVersion of the newest site that is known.
async fn write_status(
    context: &Context,
    writer: &Writer,
    key: &Key,
    next: &frappe_crds::FrappeSiteStatus,
) -> Result<(), WriteError> {
    let Some(site) = context.sites.get(key) else { return Ok(()) };
    if site.status.as_ref() == Some(next) {
        return Ok(());
    }
    let mut changed = FrappeSite::clone(&site);
    changed.status = Some(next.clone());
    let body = serde_json::to_value(&changed).unwrap_or_default();
    let written = writer.replace_status(Kind::Site, key, &body).await?;
    if let Ok(site) = execute::pruned(written).try_parse::<FrappeSite>() {
        context.sites.wrote(site);
    }
    Ok(())
}

async fn publish(context: &Context, key: &Key, site: &FrappeSite, notice: &Notice) {
    context.events.publish(&execute::reference(Kind::Site, key, site.uid()), notice).await;
}

/// What became of a reconcile that failed: a conflict is looked at again soon, a refusal is told to people.
async fn failed(context: &Context, site: &FrappeSite, key: &Key, error: Error) -> Outcome {
    match &error {
        Error::Write(_, WriteError::Conflict { .. }) => return Outcome::Conflict,
        Error::Write(_, WriteError::NoRight { .. }) => return Outcome::After(Duration::from_secs(1)),
        Error::Write(_, refused @ WriteError::Rejected { .. }) => {
            let notice =
                Notice { warning: true, reason: reason::Reason::WriteRejected.to_string(), note: refused.to_string() };
            publish(context, key, site, &notice).await;
        }
        _ => {}
    }
    tracing::warn!(site = %key, error = %chain(&error), "reconcile failed");
    Outcome::Failed
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
