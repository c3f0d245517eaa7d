//! What the SiteBackups of a site lead to. Pure: every choice is made here, none where the plan is carried out.
//!
//! One operation of a site runs at a time: what runs is recorded in the site's status (`backup`) before its Job is made, and
//! whatever else would be done to the site waits while it stands there.

use std::{sync::Arc, time::Duration};

use frappe_crds::{
    FrappeSiteStatus, SiteBackup, SiteBackupStatus,
    backup::{BackupPhase, BackupRun},
    site::{BackupOperation, OperationKind},
};
use kube::{ResourceExt as _, core::DynamicObject};
use serde_json::Value;

use super::{
    reason::Reason,
    removal,
    status::{self, Report, Times},
    waiting,
};
use crate::{
    controllers::site::{
        build::Input,
        deletion,
        observe::Observed,
        operation,
        plan::{self as site_plan, waits_message},
        record,
        references::of_storage,
    },
    domain::{key::Key, object::Desired},
    io::events::Notice,
};

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Change the metadata of a SiteBackup.
    Patch(Arc<SiteBackup>, Value),
    /// Write the status of a SiteBackup, if it differs, and then tell people.
    Status(Arc<SiteBackup>, Box<SiteBackupStatus>, Option<Notice>),
    /// Delete the Job that runs.
    StopJob(Arc<DynamicObject>),
    /// Give a Secret that the storage of a SiteBackup names the label by which its changes are seen.
    WatchSecret(Arc<SiteBackup>, Arc<DynamicObject>),
    /// Bring a copy of such a Secret, of this key, to what that one holds.
    CopySecret(Arc<SiteBackup>, Key, Box<Desired>),
}

/// What to do, in this order. What the API server refuses of one SiteBackup stops neither what ended nor another SiteBackup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Writes before the site's status: what ended.
    pub steps: Vec<Step>,
    /// The site's status where it records another operation than before: before the Job of one is made, and after its end was
    /// written down.
    pub site_status: Option<FrappeSiteStatus>,
    /// Labels of SiteBackups, and the Secrets that their storages name. One that is refused stops the Job of its SiteBackup.
    pub prepare: Vec<Step>,
    /// The Job of the recorded operation.
    pub job: Option<Desired>,
    /// Writes after that: where each stands.
    pub last: Vec<Step>,
    /// When to look again although nothing changed.
    pub again_after: Option<Duration>,
    /// Whether something is missing that no watch shows: look again with backoff.
    pub missing: bool,
}

/// The plan of a site's SiteBackups.
pub fn plan(observed: &Observed) -> Plan {
    let recorded = observed.site.status.as_ref().and_then(|it| it.backup.clone());
    let mut plan = Plan::default();
    if observed.backups.is_empty() && recorded.is_none() {
        return plan;
    }
    if observed.site.metadata.deletion_timestamp.is_some() {
        // Nothing begins any more, but for the final backup, which the deletion itself records and waits for.
        let live = observed.backups.iter().filter(|it| it.metadata.deletion_timestamp.is_none());
        plan.prepare = live.filter_map(|it| waiting::relabel(observed, it)).collect();
        if let (Some(operation), Some(remains)) = (recorded, deletion::awaits_backup(observed)) {
            let input = remains.input(observed);
            let of = |it: &&Arc<SiteBackup>| it.uid().as_deref() == Some(operation.site_backup_uid.as_str());
            plan.prepare.extend(read_secrets(observed, &input, of));
            Scene { observed, plan: &mut plan, input: Some(&input), busy: true }.go_on(operation);
        }
        return plan;
    }
    let (own, valid) = site_plan::planned(observed);
    if own.status.is_none() {
        // Its own Secrets are being made or labelled: their watch wakes it when they are. What ended is written down.
        if let Some(operation) = recorded {
            Scene { observed, plan: &mut plan, input: None, busy: true }.go_on(operation);
        }
        return plan;
    }
    let known = record::known(observed);
    let input = valid.as_ref().map(|valid| Input { site: &observed.site, valid, known: &known });
    let busy = input.is_none() || !is_free(observed, &own);
    let mut scene = Scene { observed, plan: &mut plan, input: input.as_ref(), busy };
    if let Some(operation) = recorded.clone() {
        scene.go_on(operation);
    }
    let ended = scene.plan.site_status.as_ref().is_some_and(|status| recorded.is_some() && status.backup.is_none());
    scene.others(recorded.as_ref().map(|it| it.site_backup_uid.as_str()), ended);
    let live = |it: &&Arc<SiteBackup>| it.metadata.deletion_timestamp.is_none() || removal::holds(it);
    plan.prepare.extend(input.iter().flat_map(|input| read_secrets(observed, input, live)));
    plan
}

/// What is done so that the Secrets of storages can be read, and changes of them are seen.
fn read_secrets(observed: &Observed, input: &Input, of: impl Fn(&&Arc<SiteBackup>) -> bool) -> Vec<Step> {
    let named = observed
        .backups
        .iter()
        .filter(of)
        .flat_map(|it| it.spec.storage.iter().flat_map(of_storage).map(move |named| (it, named.name)));
    let found = named.filter_map(|(backup, name)| Some((backup, observed.secrets.get_key_value(&name)?)));
    let mut steps: Vec<Step> = Vec::new();
    for (backup, (name, secret)) in found {
        let wanted = site_plan::read_secret(observed, input, name, secret).into_iter().filter_map(|step| match step {
            site_plan::Step::WatchSecret(secret) => Some(Step::WatchSecret(backup.clone(), secret)),
            site_plan::Step::CopySecret(from, copy) => Some(Step::CopySecret(backup.clone(), from, Box::new(copy))),
            _ => None,
        });
        for step in wanted {
            // Several may name one Secret.
            if steps.iter().all(|known| !known.is_same_write(&step)) {
                steps.push(step);
            }
        }
    }
    steps
}

impl Step {
    /// The SiteBackup that it is for.
    pub fn of(&self) -> Option<&Arc<SiteBackup>> {
        match self {
            Self::Patch(backup, _)
            | Self::Status(backup, ..)
            | Self::WatchSecret(backup, _)
            | Self::CopySecret(backup, ..) => Some(backup),
            Self::StopJob(_) => None,
        }
    }

    fn is_same_write(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::WatchSecret(_, one), Self::WatchSecret(_, other)) => one == other,
            (Self::CopySecret(_, _, one), Self::CopySecret(_, _, other)) => one == other,
            _ => false,
        }
    }
}

/// Whether the site exists and nothing else is being done to it, nor is about to be.
fn is_free(observed: &Observed, own: &site_plan::Plan) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    let idle = own.status.as_ref().is_some_and(|next| next.operation == status.operation || next.operation.is_none());
    let runs = operation::running_job(observed).is_some();
    let suspended = observed.site.spec.suspend == Some(true);
    let created = status.initialized && status.operation.as_ref().is_none_or(|it| it.kind != OperationKind::Delete);
    created && idle && !runs && !suspended && own.job.is_none()
}

/// One look at a site and its SiteBackups.
pub(super) struct Scene<'a> {
    pub(super) observed: &'a Observed,
    pub(super) plan: &'a mut Plan,
    pub(super) input: Option<&'a Input<'a>>,
    pub(super) busy: bool,
}

impl Scene<'_> {
    pub(super) fn step(
        &mut self,
        backup: &Arc<SiteBackup>,
        report: &Report,
        times: &Times,
        ended: Option<(BackupRun, Option<String>)>,
    ) {
        let over = ended.is_some();
        let next = status::status(backup, report, times, ended, self.observed.now);
        if backup.status.as_ref() == Some(&next) {
            return;
        }
        let notice = status::notice(backup, report, over);
        let step = Step::Status(backup.clone(), Box::new(next), notice);
        // What ended is written down before the site forgets it; what begins, after the site has it.
        if over { self.plan.steps.push(step) } else { self.plan.last.push(step) }
    }

    pub(super) fn record(&mut self, operation: Option<BackupOperation>) {
        let current = self.observed.site.status.clone().unwrap_or_default();
        self.plan.site_status.get_or_insert(current).backup = operation;
    }

    pub(super) fn again_after(&mut self, wait: Duration) {
        self.plan.again_after = Some(self.plan.again_after.map_or(wait, |known| known.min(wait)));
    }
}

pub(super) fn busy() -> Report {
    let message = "waiting: site not initialized, suspended, or busy with another operation";
    Report::new(BackupPhase::Pending, Reason::SiteBusy, message)
}

pub(super) fn no_room(observed: &Observed) -> Report {
    Report::new(BackupPhase::Pending, Reason::WaitingForJobSlot, waits_message(observed))
}
