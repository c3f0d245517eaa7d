//! What happens when a SiteBackup, or something it depends on, changes. Start at [`reconcile`].
//!
//! The SiteBackups of one site are looked at together, since one operation of a site runs at a time: the queue's keys are
//! those of sites. SiteBackups whose site does not exist are looked at under its key too.

pub mod build;
pub mod index;
pub mod model;
pub mod orphan;
pub mod plan;
pub mod reason;
pub mod removal;
mod running;
mod scene;
pub mod schedule;
pub mod status;
pub mod storage;
mod waiting;

use std::sync::Arc;

use frappe_crds::{FrappeSiteStatus, SiteBackup, SiteBackupStatus, site::BackupOperationKind};
use jiff::Timestamp;
use kube::ResourceExt;
use kube_sharding::{Slot, gate::Scope};
use reason::Reason;

use super::{
    backup::model::{Plan, Step},
    site::{
        job_slots::{Claim, Wants},
        model::{Observed, Of, Turn},
    },
};
use crate::{
    controllers::{
        context::{ChildCache, Context},
        execute,
        failure::{self, Error},
        site::{
            observe::observe,
            room::{self, Room},
        },
    },
    domain::{
        key::Key,
        labels,
        object::{Kind, is_let_go},
    },
    io::{
        events::Notice,
        writer::{WriteError, Writer},
    },
    lanes::runner::Outcome,
};

pub use orphan::scopes;

/// A write that failed, and the SiteBackup that it was for.
type Refused = (Option<Arc<SiteBackup>>, WriteError);

/// Brings the SiteBackups of a site a step further: observe → plan → write.
///
/// `epoch` is that of the slot's owner when this began.
pub async fn reconcile(context: Arc<Context>, key: Key, scope: Scope, epoch: i64) -> Outcome {
    let _alone = context.locks.lock(&key).await;
    let writer = Writer::new(context.client.clone(), scope);
    let read = |source| Error::Observe(Kind::SiteBackup, key.clone(), source);
    let plan = match context.sites.get(&key) {
        // It came meanwhile: what is done for it is done as its slot's owner.
        Some(site) if scope != Scope::Slot(Slot::of_uid(&site.uid().unwrap_or_default())) => return Outcome::Conflict,
        Some(site) => {
            let turn = Turn { epoch, terminating: false, of: Of::Backups };
            match observe(&context, site, turn).await {
                Ok(observed) => budgeted(&context, &observed),
                Err(source) => return failure::retried(&read(source)),
            }
        }
        None => {
            context.jobs.forget(&key);
            match orphan::plan(&context, &key, scope).await {
                Ok(plan) => (plan, None),
                Err(source) => return failure::retried(&read(source)),
            }
        }
    };
    let (plan, claim) = plan;
    match execute(&context, &writer, &key, &plan).await {
        Ok(()) if plan.missing => Outcome::Missing,
        Ok(()) => plan.again_after.map_or(Outcome::Done, Outcome::After),
        Err(refused) => {
            let made = plan.job.as_ref().is_some_and(|job| context.site_children.get(Kind::Job, &job.key).is_some());
            if let Some(claim) = claim.as_ref().filter(|_| !made) {
                context.jobs.give_back(claim);
            }
            let mut outcome = Outcome::Done;
            // The first decides: it ended the attempt, where one did.
            for one in refused.into_iter().rev() {
                outcome = conclude(&context, &writer, &key, one).await;
            }
            outcome
        }
    }
}

/// The plan, with room for the Job that it starts; or the plan of a site that waits for room.
fn budgeted(context: &Context, observed: &Observed) -> (Plan, Option<Claim>) {
    let plan = plan::plan(observed);
    let operation = plan.start.as_ref().and_then(|it| it.site_status.backup.as_ref());
    // What a person asked for comes before what a schedule did.
    let scheduled = operation.filter(|it| it.kind == BackupOperationKind::Backup).map(|it| it.scheduled_at.0);
    match room::take(context, observed, plan.start.as_ref().map(|it| &it.job), Wants::Backup, scheduled) {
        Room::NotNeeded => (plan.started(), None),
        Room::Taken(claim) => (plan.started(), Some(claim)),
        Room::Full => (plan.waiting(), None),
    }
}

/// Carries a plan out, in its order: the status of the site records an operation before its Job is made. What the API server
/// refuses of one SiteBackup is told to it, and the others go on.
async fn execute(context: &Context, writer: &Writer, key: &Key, plan: &Plan) -> Result<(), Vec<Refused>> {
    let recorded = plan.site_status.as_ref().and_then(|it| recorded_backup(context, key, it));
    for step in &plan.steps {
        take(context, writer, step).await.map_err(|refused| vec![refused])?;
    }
    if let Some(next) = &plan.site_status {
        let written = execute::write_status(writer, &context.sites, Kind::Site, key, next).await;
        written.map_err(|error| vec![(recorded.clone(), error)])?;
    }
    let mut refused = Vec::new();
    take_each(context, writer, &plan.prepare, &mut refused).await?;
    if let Some(job) = &plan.job
        && context.site_children.get(Kind::Job, &job.key).is_none()
        && !recorded.as_ref().is_some_and(|it| is_refused(&refused, it))
    {
        let made = execute::create(writer, context.site_children.cache(Kind::Job), job).await;
        go_on(made.map_err(|error| (recorded, error)), &mut refused)?;
    }
    take_each(context, writer, &plan.last, &mut refused).await?;
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

/// Takes the steps of those SiteBackups of which nothing was refused.
async fn take_each(
    context: &Context,
    writer: &Writer,
    steps: &[Step],
    refused: &mut Vec<Refused>,
) -> Result<(), Vec<Refused>> {
    for step in steps {
        if !step.of().is_some_and(|it| is_refused(refused, it)) {
            go_on(take(context, writer, step).await, refused)?;
        }
    }
    Ok(())
}

/// Notes what the API server refuses; any other failure ends the attempt.
fn go_on(done: Result<(), Refused>, refused: &mut Vec<Refused>) -> Result<(), Vec<Refused>> {
    match done {
        Ok(()) => {}
        Err(one @ (_, WriteError::Rejected { .. })) => refused.push(one),
        Err(other) => {
            refused.insert(0, other);
            return Err(std::mem::take(refused));
        }
    }
    Ok(())
}

fn is_refused(refused: &[Refused], backup: &SiteBackup) -> bool {
    refused.iter().any(|(of, _)| of.as_ref().is_some_and(|it| it.metadata.uid == backup.metadata.uid))
}

/// The SiteBackup whose operation a site's status records.
fn recorded_backup(context: &Context, key: &Key, status: &FrappeSiteStatus) -> Option<Arc<SiteBackup>> {
    let operation = status.backup.as_ref()?;
    let found = context.backup(&Key::new(&key.namespace, &operation.site_backup))?;
    (found.uid().as_ref() == Some(&operation.site_backup_uid)).then(|| Arc::new(found))
}

async fn take(context: &Context, writer: &Writer, step: &Step) -> Result<(), Refused> {
    match step {
        Step::Patch(backup, metadata) => {
            let key = Key::of(backup.as_ref());
            let written = writer.patch_metadata(Kind::SiteBackup, &key, metadata).await;
            let written = written.map_err(|error| (Some(backup.clone()), error))?;
            if is_let_go(&written) {
                cache_of(context, backup.as_ref()).deleted(&key, &written.uid().unwrap_or_default());
            } else {
                cache_of(context, &written).wrote(written);
            }
        }
        Step::Status(backup, status, notice) => {
            let written = write_status(context, writer, backup, status).await;
            let written = written.map_err(|error| (Some(backup.clone()), error))?;
            if let Some(notice) = notice.as_ref().filter(|_| written) {
                tell(context, backup, notice).await;
            }
        }
        Step::StopJob(job) => {
            let stopped = execute::delete(writer, context.site_children.cache(Kind::Job), Kind::Job, job).await;
            stopped.map_err(|error| (None, error))?;
        }
        Step::WatchSecret(backup, secret) => {
            let watched = execute::watch_secret(writer, &context.user_secrets, secret).await;
            watched.map_err(|error| (Some(backup.clone()), error))?;
        }
        Step::CopySecret(backup, from, desired) => {
            let copied = execute::copy_secret(writer, context.site_children.cache(Kind::Secret), from, desired).await;
            copied.map_err(|error| (Some(backup.clone()), error))?;
        }
    }
    Ok(())
}

/// The cache whose watch shows a SiteBackup: it has a slot's label, or none yet.
fn cache_of<'a>(context: &'a Context, backup: &impl ResourceExt) -> &'a ChildCache {
    let labelled = backup.labels().contains_key(labels::SLOT);
    if labelled { context.site_children.cache(Kind::SiteBackup) } else { &context.new_backups }
}

/// Writes a SiteBackup's status if it differs, on the resourceVersion of the newest that is known; answers whether it did.
async fn write_status(
    context: &Context,
    writer: &Writer,
    backup: &SiteBackup,
    next: &SiteBackupStatus,
) -> Result<bool, WriteError> {
    let key = Key::of(backup);
    // The same plan may have given it its labels just now.
    let newest = context.backup(&key).filter(|it| it.metadata.uid == backup.metadata.uid);
    let mut changed = backup.clone();
    if let Some(newest) = newest {
        changed.metadata.resource_version = newest.metadata.resource_version;
        changed.metadata.labels = newest.metadata.labels;
    }
    if changed.status.as_ref() == Some(next) {
        return Ok(false);
    }
    changed.status = Some(next.clone());
    let body = serde_json::to_value(&changed).unwrap_or_default();
    let written = writer.replace_status(Kind::SiteBackup, &key, &body).await?;
    cache_of(context, &written).wrote(written);
    Ok(true)
}

async fn tell(context: &Context, backup: &SiteBackup, notice: &Notice) {
    if let Some((operation, result)) = Reason::counted(&notice.reason) {
        metrics::counter!("frappe_operator_backups_total", "operation" => operation, "result" => result).increment(1);
    }
    let reference = execute::reference(Kind::SiteBackup, &Key::of(backup), backup.uid());
    context.events.publish(&reference, notice).await;
}

/// What becomes of a write that failed. What the API server refused is told to the SiteBackup that it was for: the site is
/// served all the same.
///
/// What was for none of them is told to the one whose operation is recorded.
async fn conclude(context: &Context, writer: &Writer, key: &Key, (backup, error): Refused) -> Outcome {
    let backup = backup.or_else(|| {
        let site = context.sites.get(key)?;
        recorded_backup(context, key, site.status.as_ref()?)
    });
    match &error {
        WriteError::Conflict { .. } | WriteError::NotFound { .. } => Outcome::Conflict,
        WriteError::NoRight { .. } => Outcome::After(failure::WAIT_FOR_RIGHT),
        WriteError::Rejected { .. } | WriteError::NamespaceTerminating { .. } => {
            if let Some(backup) = &backup {
                let notice =
                    Notice { warning: true, reason: failure::WRITE_REJECTED.to_owned(), note: error.to_string() };
                if matches!(error, WriteError::Rejected { .. }) {
                    tell(context, backup, &notice).await;
                }
                refused(context, writer, backup, &notice.note).await;
            } else {
                tracing::warn!(site = %key, %error, "a write for the SiteBackups of this site was refused");
            }
            Outcome::Failed
        }
        WriteError::Transient { .. } => {
            let key = backup.map_or_else(|| key.clone(), |it| Key::of(it.as_ref()));
            failure::retried(&Error::Write(Kind::SiteBackup, key, error))
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the time of a condition that no plan made")]
/// Says in the Ready condition of a SiteBackup what the API server refused; everything else in its status stays.
async fn refused(context: &Context, writer: &Writer, backup: &SiteBackup, message: &str) {
    let next = status::refused(backup, message, Timestamp::now());
    if let Err(error) = write_status(context, writer, backup, &next).await {
        tracing::debug!(%error, "status not updated with the rejection");
    }
}
