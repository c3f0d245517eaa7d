//! The running backup or restore. Pure.

use std::{sync::Arc, time::Duration};

use frappe_crds::{
    SiteBackup,
    backup::{BackupPhase, BackupRun},
    site::{BackupOperation, BackupOperationKind},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{ResourceExt, core::DynamicObject};

use super::{
    build,
    draft::{Draft, busy, no_job_slot},
    model::{Report, Start, Step},
    reason::Reason,
    status::Times,
    storage::storage,
};
use crate::{
    controllers::{
        job::{self, ATTEMPTS_MAX, Begin, State},
        site::{place::Place, revision, schema, under_way::job_key},
    },
    domain::{code::Code, live, object::Kind},
};

impl Draft<'_> {
    /// The running operation.
    pub(super) fn continue_operation(&mut self, operation: BackupOperation) {
        let key = job_key(&Place::of(&self.observed.site), &operation);
        let job = self.observed.backup_job.clone();
        let state = job.as_deref().map(job::state);
        let of = |it: &&Arc<SiteBackup>| it.uid().as_deref() == Some(operation.site_backup_uid.as_str());
        let removes = operation.kind == BackupOperationKind::Remove;
        let backup = if removes {
            self.being_removed(&operation)
        } else {
            self.observed.backups.iter().find(of).filter(|it| it.metadata.deletion_timestamp.is_none()).cloned()
        };
        let Some(backup) = backup else { return self.abandon(&operation, job, state.as_ref()) };
        let times = self.times_of(&backup, &operation);
        match state {
            Some(State::Complete) if removes => self.removed(&backup),
            Some(State::Complete) => self.succeeded(&backup, &operation, &key.name, &times),
            Some(State::Failed(at)) => self.failed(&backup, operation, &key.name, at, &times),
            // The Job is running, was recorded and not created yet, or was removed after an hour.
            Some(State::Running) => {
                let mut report = runs(&operation, &key.name);
                // Its first containers dump or fetch, which has no time limit.
                match job.as_deref().map(|job| job::begin(job, true, self.observed.now)) {
                    Some(Begin::Stuck(why)) => {
                        report.reason = Reason::JobNotStarting;
                        report.message = format!("{}, but {why}", report.message);
                    }
                    Some(Begin::Soon(left)) => self.again_after(left),
                    Some(Begin::Begun) | None => {}
                }
                self.step(&backup, &report, &times, None);
            }
            None => self.begin(&backup, &operation, &times, &times),
        }
    }

    /// The SiteBackup was deleted: a backup is stopped; a restore continues, because the site would be left incomplete.
    fn abandon(&mut self, operation: &BackupOperation, job: Option<Arc<DynamicObject>>, state: Option<&State>) {
        let running = state == Some(&State::Running);
        if running && operation.kind == BackupOperationKind::Restore {
            return;
        }
        if let Some(job) = job.filter(|it| running && it.metadata.deletion_timestamp.is_none()) {
            self.plan.steps.push(Step::Delete(Kind::Job, job));
        }
        if !running {
            self.record(None);
        }
    }

    fn succeeded(&mut self, backup: &Arc<SiteBackup>, operation: &BackupOperation, job: &str, times: &Times) {
        let result = self.observed.backup_succeeded();
        let restore = operation.kind == BackupOperationKind::Restore;
        let size = result.bytes;
        let run = BackupRun { succeeded: true, size_bytes: size, ..self.ended(operation) };
        let message = if restore {
            let warning = result.warning.map(|it| format!(". But {it}")).unwrap_or_default();
            format!("{} was restored and the site's spec applied; the site is available{warning}", operation.run)
        } else {
            let size = size.map(|it| format!(", {it} bytes")).unwrap_or_default();
            format!("backup {} completed and verified in storage{size}", operation.run)
        };
        let phase = if backup.spec.schedule.is_some() { BackupPhase::Scheduled } else { BackupPhase::Succeeded };
        let reason = if restore { Reason::RestoreSucceeded } else { Reason::BackupSucceeded };
        self.step(backup, &Report::new(phase, reason, message), times, Some((run, Some(job.to_owned()))));
        self.record(None);
        if restore && let Some(status) = self.plan.status.as_mut() {
            // Apps, settings and password are those of the backup now: the configuration must be applied again.
            status.last_restore = Some(format!("{} {}", operation.run, operation.started_at.0));
            // It was migrated to the schema of the image.
            status.apps = {
                let number = revision::present(status);
                schema::of_revision(number, Some(status), self.observed.bench.as_deref(), None)
            };
        }
    }

    fn failed(
        &mut self,
        backup: &Arc<SiteBackup>,
        operation: BackupOperation,
        job: &str,
        at: Timestamp,
        times: &Times,
    ) {
        let failure = self.observed.backup_failed();
        let why = format!("Job {job} failed: {}", failure.message);
        if failure.code.is_final() || operation.attempt >= ATTEMPTS_MAX {
            return self.gave_up(backup, &operation, Some(job), (failure.code, why), times);
        }
        let wait = job::wait_after(operation.attempt);
        let elapsed = Duration::try_from(self.observed.now.duration_since(at)).unwrap_or_default();
        if elapsed >= wait {
            let next = BackupOperation { attempt: operation.attempt + 1, epoch: self.observed.epoch, ..operation };
            return self.begin(backup, &next, times, times);
        }
        let reason = match operation.kind {
            BackupOperationKind::Backup => Reason::BackupRetrying,
            BackupOperationKind::Restore => Reason::RestoreRetrying,
            BackupOperationKind::Remove => Reason::BackupsRemoving,
        };
        let message =
            format!("{why} (attempt {} of {ATTEMPTS_MAX}, next attempt after {} s)", operation.attempt, wait.as_secs());
        self.step(backup, &Report::new(BackupPhase::Running, reason, message), times, None);
        self.again_after(wait.saturating_sub(elapsed));
    }

    /// The operation failed permanently.
    fn gave_up(
        &mut self,
        backup: &Arc<SiteBackup>,
        operation: &BackupOperation,
        job: Option<&str>,
        (code, why): (Code, String),
        times: &Times,
    ) {
        if operation.kind == BackupOperationKind::Remove {
            return self.not_removed(backup, code, &why);
        }
        let restore = operation.kind == BackupOperationKind::Restore;
        let left = if restore && code == Code::JobsRunning {
            "; the restore changed nothing and the site is available: wait for its background jobs, then delete this \
             SiteBackup and create it again"
        } else if restore {
            "; if the restore had changed the site, it stays in maintenance mode until a restore succeeds: correct the \
             cause, delete this SiteBackup and create it again"
        } else if backup.spec.schedule.is_some() {
            "; the next backup runs as scheduled"
        } else {
            "; correct the cause, delete this SiteBackup and create it again"
        };
        let reason = if restore { Reason::RestoreFailed } else { Reason::BackupFailed };
        let message = format!("{why} (attempt {} of {ATTEMPTS_MAX}){left}", operation.attempt);
        let run =
            BackupRun { succeeded: false, code: Some(code.to_string()), message: Some(why), ..self.ended(operation) };
        self.step(
            backup,
            &Report { detail: Some(code), ..Report::new(BackupPhase::Failed, reason, message) },
            times,
            Some((run, job.map(str::to_owned))),
        );
        self.record(None);
    }

    /// Runs the Job of an operation: it is recorded, then its Job is created if it does not exist. `waiting` are its times while
    /// there is no free job slot.
    pub(super) fn begin(
        &mut self,
        backup: &Arc<SiteBackup>,
        operation: &BackupOperation,
        times: &Times,
        waiting: &Times,
    ) {
        let storage = match storage(self.observed, backup) {
            Ok(storage) => storage,
            // While it is recorded, no other operation of the site can start.
            Err((reason, message)) => {
                let why = (Code::StorageRefused, format!("{reason}: {message}"));
                return self.gave_up(backup, operation, None, why, times);
            }
        };
        let (Some(input), Some(image), Some(bench)) =
            (self.input, &self.observed.operator_image, self.observed.bench.as_deref())
        else {
            return self.step(backup, &busy(), waiting, None);
        };
        let job = build::job(&input, &self.observed.bench_input(bench), image, backup, &storage, operation);
        let runs = self.status_step(backup, &runs(operation, &job.key.name), times, None);
        let waits = self.status_step(backup, &no_job_slot(self.observed), waiting, None);
        let status = Some(self.recorded(Some(operation.clone())));
        self.plan.start = Some(Box::new(Start { job, status, notices: Vec::new(), runs, waits }));
    }

    fn ended(&self, operation: &BackupOperation) -> BackupRun {
        let finished = self
            .observed
            .backup_job
            .as_deref()
            .and_then(|job| live::conditions(job).iter().find(|it| it.is("Complete") || it.is("Failed"))?.since());
        BackupRun {
            name: operation.run.clone(),
            scheduled_at: Some(operation.scheduled_at.clone()),
            started_at: Some(operation.started_at.clone()),
            finished_at: Some(Time(finished.unwrap_or(self.observed.now))),
            ..BackupRun::default()
        }
    }
}

/// Report: the Job is running.
fn runs(operation: &BackupOperation, job: &str) -> Report {
    let (reason, does) = match operation.kind {
        BackupOperationKind::Backup => (Reason::BackupRunning, format!("makes {}", operation.run)),
        BackupOperationKind::Restore => (Reason::RestoreRunning, format!("restores {}", operation.run)),
        BackupOperationKind::Remove => (Reason::BackupsRemoving, "removes the backups of this SiteBackup".to_owned()),
    };
    Report::new(BackupPhase::Running, reason, format!("Job {job} {does}"))
}
