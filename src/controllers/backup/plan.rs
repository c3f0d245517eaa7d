//! The plan of a site's SiteBackups. Pure: every decision is made here, none in its execution.
//!
//! A site has one operation at a time: a backup operation is recorded in the site's status (`backup`) before its Job is
//! created, and other operations wait until it is removed there.

use std::sync::Arc;

use frappe_crds::{
    SiteBackup,
    site::{BackupOperation, OperationKind},
};
use kube::ResourceExt as _;

use super::{
    draft::Draft,
    model::{Plan, Step},
    removal, waiting,
};
use crate::controllers::{
    phase::{Next, fold},
    site::{
        deletion::{self, Remains},
        model::{Input, Observed, Plan as SitePlan, Subject},
        operation::running_job,
        plan as site_plan, record,
        references::of_storage,
        secrets::read_secret,
    },
};

/// A site and its SiteBackups.
struct Look<'a> {
    observed: &'a Observed,
    /// Input of Jobs; None if none can be created.
    input: Option<Subject<'a>>,
    /// The running operation.
    recorded: Option<BackupOperation>,
    /// Its state.
    under_way: Plan,
    /// Whether no operation may start.
    busy: bool,
}

/// A phase: its name and its function.
type Phase = (&'static str, fn(&Look<'_>) -> Next<SiteBackup>);

/// The phases of the SiteBackups of a site.
const PHASES: &[Phase] = &[("operation", operation), ("others", others), ("secrets", secrets)];

/// The phases while the site's own plan is not known. Only results are recorded.
const WAITING: &[Phase] = &[("operation", operation)];

/// The phases while the site is being deleted: no operation starts, except the final backup, which the deletion records.
const DELETION: &[Phase] = &[("labels", labels), ("secrets", secrets_of_operation), ("operation", operation)];

/// The plan of a site's SiteBackups.
pub fn plan(observed: &Observed) -> Plan {
    let recorded = observed.site.status.as_ref().and_then(|it| it.backup.clone());
    if observed.backups.is_empty() && recorded.is_none() {
        return Plan::default();
    }
    if observed.site.metadata.deletion_timestamp.is_some() {
        let remains = recorded.as_ref().and_then(|_| deletion::awaits_backup(observed));
        let input = remains.as_ref().map(Remains::subject);
        let recorded = recorded.filter(|_| input.is_some());
        return fold(DELETION, &Look::of(observed, input, recorded, true)).plan;
    }
    let (own, valid) = site_plan::planned(observed);
    if own.plan.status.is_none() {
        // The site's Secrets are being created or labelled; their watch triggers the next reconcile.
        return fold(WAITING, &Look::of(observed, None, recorded, true)).plan;
    }
    let known = record::known(observed);
    let input = valid.as_ref().map(|valid| Input::new(&observed.site, valid, &known));
    let busy = input.is_none() || !is_free(observed, &own.plan);
    fold(PHASES, &Look::of(observed, input.map(|it| it.subject), recorded, busy)).plan
}

impl<'a> Look<'a> {
    fn of(observed: &'a Observed, input: Option<Subject<'a>>, recorded: Option<BackupOperation>, busy: bool) -> Self {
        let mut draft = Draft { observed, plan: Plan::default(), input, busy };
        if let Some(operation) = recorded.clone() {
            draft.continue_operation(operation);
        }
        Self { observed, input, recorded, under_way: draft.plan, busy }
    }

    /// The SiteBackup of the running operation.
    fn uid(&self) -> Option<&str> {
        self.recorded.as_ref().map(|it| it.site_backup_uid.as_str())
    }
}

/// Continues the running operation.
fn operation(look: &Look) -> Next<SiteBackup> {
    Next::Go(look.under_way.clone())
}

/// Reports what the other SiteBackups wait for, and starts the next one.
fn others(look: &Look) -> Next<SiteBackup> {
    let Look { observed, input, busy, .. } = *look;
    let ended = look.recorded.is_some() && look.under_way.status.as_ref().is_some_and(|it| it.backup.is_none());
    let mut draft = Draft { observed, plan: Plan::default(), input, busy };
    draft.waiting_backups(look.uid(), ended);
    Next::Go(draft.plan)
}

/// Labels and copies the Secrets of storages.
fn secrets(look: &Look) -> Next<SiteBackup> {
    let live = |it: &&Arc<SiteBackup>| it.metadata.deletion_timestamp.is_none() || removal::has_finalizer(it);
    let steps = look.input.map(|input| read_secrets(look.observed, &input, live));
    Next::End(Plan { prepare: steps.unwrap_or_default(), ..Plan::default() })
}

/// The same for the storage of the final backup.
fn secrets_of_operation(look: &Look) -> Next<SiteBackup> {
    let of = |it: &&Arc<SiteBackup>| it.uid().as_deref() == look.uid();
    let steps = look.input.map(|input| read_secrets(look.observed, &input, of));
    Next::Go(Plan { prepare: steps.unwrap_or_default(), ..Plan::default() })
}

/// Sets the label of the site's slot, and the finalizer if it is needed.
fn labels(look: &Look) -> Next<SiteBackup> {
    let live = look.observed.backups.iter().filter(|it| it.metadata.deletion_timestamp.is_none());
    let prepare = live.filter_map(|it| waiting::relabel(look.observed, it)).collect();
    Next::Go(Plan { prepare, ..Plan::default() })
}

/// Writes that make the Secrets of storages readable and watched.
fn read_secrets(observed: &Observed, input: &Subject, of: impl Fn(&&Arc<SiteBackup>) -> bool) -> Vec<Step> {
    let named = observed
        .backups
        .iter()
        .filter(of)
        .flat_map(|it| it.spec.storage.iter().flat_map(of_storage).map(move |named| (it, named.name)));
    let found = named.filter_map(|(backup, name)| Some((backup, observed.secrets.get_key_value(&name)?)));
    let mut steps: Vec<Step> = Vec::new();
    for (backup, (name, secret)) in found {
        for write in read_secret(observed, input, name, secret) {
            // Several SiteBackups may reference the same Secret.
            let step = Step::For(backup.clone(), Box::new(write));
            if steps.iter().all(|known| !known.is_same_write(&step)) {
                steps.push(step);
            }
        }
    }
    steps
}

/// Whether the site exists, and has no running or pending operation.
fn is_free(observed: &Observed, own: &SitePlan) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    let idle = own.status.as_ref().is_some_and(|next| next.operation == status.operation || next.operation.is_none());
    let runs = running_job(observed).is_some();
    let suspended = observed.site.spec.suspend == Some(true);
    let created = status.initialized && status.operation.as_ref().is_none_or(|it| it.kind != OperationKind::Delete);
    created && idle && !runs && !suspended && own.start.is_none() && status.job.is_none()
}
