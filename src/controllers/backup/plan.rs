//! What the SiteBackups of a site lead to. Pure: every choice is made here, none where the plan is carried out.
//!
//! One operation of a site runs at a time: what runs is recorded in the site's status (`backup`) before its Job is made, and
//! whatever else would be done to the site waits while it stands there.

use std::sync::Arc;

use frappe_crds::{
    SiteBackup,
    site::{BackupOperation, OperationKind},
};
use kube::ResourceExt as _;

use super::{
    model::{Plan, Step},
    removal,
    scene::Scene,
    waiting,
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
    /// What Jobs are built of; None if none can be made.
    input: Option<Subject<'a>>,
    /// The operation that is in progress.
    recorded: Option<BackupOperation>,
    /// What becomes of it.
    under_way: Plan,
    /// Whether no operation may begin.
    busy: bool,
}

/// A phase: its name, and what it says of what is known.
type Phase = (&'static str, fn(&Look<'_>) -> Next<SiteBackup>);

/// The phases of the SiteBackups of a site.
const PHASES: &[Phase] = &[("operation", operation), ("others", others), ("secrets", secrets)];

/// Those while the site itself cannot say what it does next. What ended is written down.
const WAITING: &[Phase] = &[("operation", operation)];

/// Those while the site is being deleted: nothing begins any more, but for the final backup, which the deletion itself records
/// and waits for.
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
        // Its own Secrets are being made or labelled: their watch wakes it when they are.
        return fold(WAITING, &Look::of(observed, None, recorded, true)).plan;
    }
    let known = record::known(observed);
    let input = valid.as_ref().map(|valid| Input::new(&observed.site, valid, &known));
    let busy = input.is_none() || !is_free(observed, &own.plan);
    fold(PHASES, &Look::of(observed, input.map(|it| it.subject), recorded, busy)).plan
}

impl<'a> Look<'a> {
    fn of(observed: &'a Observed, input: Option<Subject<'a>>, recorded: Option<BackupOperation>, busy: bool) -> Self {
        let mut scene = Scene { observed, plan: Plan::default(), input, busy };
        if let Some(operation) = recorded.clone() {
            scene.go_on(operation);
        }
        Self { observed, input, recorded, under_way: scene.plan, busy }
    }

    /// The SiteBackup of the operation that is in progress.
    fn uid(&self) -> Option<&str> {
        self.recorded.as_ref().map(|it| it.site_backup_uid.as_str())
    }
}

/// The operation that is in progress goes on to its end.
fn operation(look: &Look) -> Next<SiteBackup> {
    Next::Go(look.under_way.clone())
}

/// The others: what each waits for, and the one that is next.
fn others(look: &Look) -> Next<SiteBackup> {
    let Look { observed, input, busy, .. } = *look;
    let ended = look.recorded.is_some() && look.under_way.status.as_ref().is_some_and(|it| it.backup.is_none());
    let mut scene = Scene { observed, plan: Plan::default(), input, busy };
    scene.others(look.uid(), ended);
    Next::Go(scene.plan)
}

/// The Secrets of storages can be read.
fn secrets(look: &Look) -> Next<SiteBackup> {
    let live = |it: &&Arc<SiteBackup>| it.metadata.deletion_timestamp.is_none() || removal::holds(it);
    let steps = look.input.map(|input| read_secrets(look.observed, &input, live));
    Next::End(Plan { prepare: steps.unwrap_or_default(), ..Plan::default() })
}

/// The Secrets of that storage can be read where the final backup is kept.
fn secrets_of_operation(look: &Look) -> Next<SiteBackup> {
    let of = |it: &&Arc<SiteBackup>| it.uid().as_deref() == look.uid();
    let steps = look.input.map(|input| read_secrets(look.observed, &input, of));
    Next::Go(Plan { prepare: steps.unwrap_or_default(), ..Plan::default() })
}

/// Those that are not being deleted too have the label of the site's slot, and the finalizer that they need.
fn labels(look: &Look) -> Next<SiteBackup> {
    let live = look.observed.backups.iter().filter(|it| it.metadata.deletion_timestamp.is_none());
    let prepare = live.filter_map(|it| waiting::relabel(look.observed, it)).collect();
    Next::Go(Plan { prepare, ..Plan::default() })
}

/// What is done so that the Secrets of storages can be read, and changes of them are seen.
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
            // Several may name one Secret.
            let step = Step::For(backup.clone(), Box::new(write));
            if steps.iter().all(|known| !known.is_same_write(&step)) {
                steps.push(step);
            }
        }
    }
    steps
}

/// Whether the site exists and nothing else is being done to it, nor is about to be.
fn is_free(observed: &Observed, own: &SitePlan) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    let idle = own.status.as_ref().is_some_and(|next| next.operation == status.operation || next.operation.is_none());
    let runs = running_job(observed).is_some();
    let suspended = observed.site.spec.suspend == Some(true);
    let created = status.initialized && status.operation.as_ref().is_none_or(|it| it.kind != OperationKind::Delete);
    created && idle && !runs && !suspended && own.start.is_none()
}
