//! SiteBackups without a running operation: what each waits for, and which is next. Pure.

use std::{sync::Arc, time::Duration};

use frappe_crds::{
    SiteBackup, SiteBackupSpec, SiteBackupStatus,
    backup::{BackupOutcomeState, BackupPhase},
    site::{BackupOperation, BackupOperationKind},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{
    draft::{Draft, busy},
    model::{Due, Report, Step},
    reason::Reason,
    removal,
    status::{Times, recorded},
    storage::{image_unknown, is_unseen, storage},
};
use crate::{
    controllers::{companion, schedule::Schedule, site::model::Observed},
    domain::{
        key::Key,
        labels::{self, has_labels},
        metadata::MetadataPatch,
        uid,
    },
};

/// Restores and one-time backups come before scheduled ones.
fn rank(kind: BackupOperationKind) -> u8 {
    match kind {
        BackupOperationKind::Restore => 0,
        BackupOperationKind::Backup => 1,
        BackupOperationKind::Remove => 2,
    }
}

impl Draft<'_> {
    /// The SiteBackups without a running operation: what each waits for, and the next one.
    pub(super) fn waiting_backups(&mut self, under_way: Option<&str>, just_ended: bool) {
        let mut due = Vec::new();
        let live = |it: &&Arc<SiteBackup>| it.metadata.deletion_timestamp.is_none() && it.uid().as_deref() != under_way;
        for backup in self.observed.backups.iter().filter(live) {
            self.plan.prepare.extend(relabel(self.observed, backup));
            match self.due_or_report(backup) {
                Ok(found) => due.extend(found),
                Err((report, times)) => self.step(backup, &report, &times, None),
            }
        }
        due.extend(self.removals(under_way));
        due.sort_by_key(|it: &Due| (rank(it.operation.kind), it.operation.scheduled_at.0));
        let may_begin = under_way.is_none() && !just_ended && !self.busy;
        for (place, it) in due.into_iter().enumerate() {
            // The operation has been due since then, which shows how late it is.
            let scheduled = it.operation.kind == BackupOperationKind::Backup && it.backup.spec.schedule.is_some();
            let since = scheduled.then_some(it.operation.scheduled_at.0);
            let times = Times { handled: None, next: since };
            if place > 0 || !may_begin {
                self.step(&it.backup, &busy(), &times, None);
            } else {
                self.begin(&it.backup, &it.operation, &self.times_of(&it.backup, &it.operation), &times);
            }
        }
    }

    /// The due operation of a SiteBackup, else its report.
    fn due_or_report(&mut self, backup: &Arc<SiteBackup>) -> Result<Option<Due>, (Report, Times)> {
        let spec = &backup.spec;
        let refused =
            |(reason, message): (Reason, String)| (Report::new(BackupPhase::Failed, reason, message), Times::default());
        let own = self.observed.site.namespace();
        if spec.site_ref.namespace.is_some() && spec.site_ref.namespace != own {
            let message = "siteRef.namespace must be the SiteBackup's own namespace: create the SiteBackup in the namespace of its site";
            return Err(refused((Reason::SiteNamespaceRefused, message.to_owned())));
        }
        if let Some(report) = ended_once(backup) {
            return Err((report, Times::default()));
        }
        let schedule = self.schedule_of(backup).map_err(refused)?;
        let storage = storage(self.observed, backup);
        self.plan.missing |= storage.as_ref().is_err_and(|it| is_unseen(self.observed, backup, it));
        storage.map_err(refused)?;
        if self.observed.operator_image.is_none() {
            return Err(refused(image_unknown()));
        }
        let due = match &schedule {
            Some(schedule) => self.due_by(backup, schedule)?,
            None => backup.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |it| it.0),
        };
        let operation = BackupOperation {
            kind: if spec.restore.is_some() { BackupOperationKind::Restore } else { BackupOperationKind::Backup },
            site_backup: backup.name_any(),
            site_backup_uid: uid::of(backup.as_ref()).to_owned(),
            run: spec.restore.as_ref().map_or_else(|| run_name(&backup.name_any(), due), |it| it.backup_name.clone()),
            scheduled_at: Time(due),
            started_at: Time(self.observed.now),
            attempt: 1,
            epoch: self.observed.epoch,
        };
        Ok(Some(Due { backup: backup.clone(), operation }))
    }

    fn schedule_of(&self, backup: &SiteBackup) -> Result<Option<Schedule>, (Reason, String)> {
        let Some(text) = &backup.spec.schedule else { return Ok(None) };
        let site = &self.observed.site;
        let seed = Key::of(site.as_ref()).to_string();
        let zone = backup.spec.time_zone.as_ref().map(|it| it.0.as_str());
        let parsed = Schedule::parse(&text.0, zone, &seed);
        parsed.map(Some).map_err(|error| (Reason::ScheduleInvalid, format!("spec.schedule: {error}")))
    }

    /// Schedule times for an operation that starts or ends.
    pub(super) fn times_of(&self, backup: &SiteBackup, operation: &BackupOperation) -> Times {
        if operation.kind == BackupOperationKind::Remove {
            return Times::default();
        }
        Times { handled: Some(operation.scheduled_at.0), next: self.next_of(backup) }
    }

    fn next_of(&self, backup: &SiteBackup) -> Option<Timestamp> {
        let suspended = backup.spec.suspend == Some(true);
        self.schedule_of(backup).ok().flatten().filter(|_| !suspended).and_then(|it| it.next_after(self.observed.now))
    }

    /// The last scheduled time that is due and within its deadline; the site is reconciled again at the next one.
    fn due_by(&mut self, backup: &SiteBackup, schedule: &Schedule) -> Result<Timestamp, (Report, Times)> {
        let now = self.observed.now;
        let former = backup.status.clone().unwrap_or_default();
        let next = schedule.next_after(now);
        if backup.spec.suspend == Some(true) {
            let message = "suspended (spec.suspend is true): no backup starts until it is false";
            return Err((Report::new(BackupPhase::Scheduled, Reason::BackupSuspended, message), Times::default()));
        }
        if let Some(next) = next {
            self.again_after(Duration::try_from(next.duration_since(now)).unwrap_or_default());
        }
        let since = former
            .last_schedule_time
            .as_ref()
            .map(|it| it.0)
            .or(backup.creation_timestamp().map(|it| it.0))
            .unwrap_or(now);
        let due = schedule.last_due(since, now);
        let deadline = backup.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        match due {
            Some(due) if deadline.is_some_and(|most| now.duration_since(due) > most) => {
                let message = format!("the backup due at {due} could not start within startingDeadlineSeconds");
                Err((
                    Report::new(BackupPhase::Failed, Reason::BackupMissed, message),
                    Times { handled: Some(due), next },
                ))
            }
            Some(due) => Ok(due),
            None => Err((idle(&backup.spec, &former, next), Times { handled: None, next })),
        }
    }
}

/// Report of a finished one-time backup or restore, whatever happens to its storage later.
pub(super) fn ended_once(backup: &SiteBackup) -> Option<Report> {
    let status = backup.status.as_ref().filter(|_| backup.spec.schedule.is_none())?;
    status.history.first()?;
    kept(&backup.spec, status)
}

/// Report of a schedule between two runs: the last run's report is kept.
fn idle(spec: &SiteBackupSpec, former: &SiteBackupStatus, next: Option<Timestamp>) -> Report {
    let message =
        next.map_or("the schedule has no next time".to_owned(), |it| format!("the first backup is due at {it}"));
    kept(spec, former).unwrap_or_else(|| Report::new(BackupPhase::Scheduled, Reason::BackupScheduled, message))
}

/// Outcome of the last backup or restore, as recorded; from the history if a version without outcomes wrote it.
fn kept(spec: &SiteBackupSpec, former: &SiteBackupStatus) -> Option<Report> {
    let recorded = recorded(former).filter(|it| it.kind != BackupOperationKind::Remove);
    let (kind, state, message) = match (recorded, former.history.first()) {
        (Some(outcome), _) => (outcome.kind, outcome.state, outcome.message),
        (None, Some(run)) => {
            let kind = if spec.restore.is_some() { BackupOperationKind::Restore } else { BackupOperationKind::Backup };
            let state = if run.succeeded { BackupOutcomeState::Succeeded } else { BackupOutcomeState::Failed };
            (kind, state, run.message.clone().unwrap_or_else(|| run.name.clone()))
        }
        (None, None) => return None,
    };
    let phase = match state {
        BackupOutcomeState::Succeeded if spec.schedule.is_some() => BackupPhase::Scheduled,
        BackupOutcomeState::Succeeded => BackupPhase::Succeeded,
        BackupOutcomeState::Failed | BackupOutcomeState::Missed => BackupPhase::Failed,
    };
    Some(Report::new(phase, Reason::of_end(kind, state)?, message))
}

/// Name of the backup for a scheduled time: `NAME-2024-01-15-0200`, UTC.
fn run_name(name: &str, due: Timestamp) -> String {
    format!("{name}-{}", due.strftime("%Y-%m-%d-%H%M"))
}

/// Whether the SiteBackup has its slot label, and its finalizer if it needs one; no operation starts before.
pub(super) fn relabel(observed: &Observed, backup: &SiteBackup) -> Option<Step> {
    let wanted = companion::labels_of(&observed.site);
    let (holds, must) = (removal::has_finalizer(backup), removal::wanted(observed, backup));
    if has_labels(backup, &wanted) && holds == must {
        return None;
    }
    let mut metadata = MetadataPatch::of(backup).with_labels(wanted);
    if holds != must {
        let own = must.then(|| labels::BACKUP_FINALIZER.to_owned());
        metadata = metadata.with_finalizers(removal::other_finalizers(backup).into_iter().chain(own));
    }
    Some(Step::Patch(Arc::new(backup.clone()), metadata))
}
