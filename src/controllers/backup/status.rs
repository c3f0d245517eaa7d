//! Status of a SiteBackup. Pure.

use frappe_crds::{
    SiteBackup, SiteBackupStatus,
    backup::{BackupOutcome, BackupPhase, BackupRun},
    site::BackupOperationKind,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{model::Report, reason::Reason};
use crate::{
    controllers::reason::Reason as _,
    domain::condition::{self, Conditions},
    io::events::Notice,
};

/// Successful runs that the history keeps.
const SUCCEEDED_KEPT: usize = 10;
/// Failed runs that the history keeps.
const FAILED_KEPT: usize = 5;

/// Schedule times in a status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// Time up to which the schedule was handled, if it changed.
    pub handled: Option<Timestamp>,
    /// Next scheduled time.
    pub next: Option<Timestamp>,
}

/// The status for a report, with a finished run.
pub(super) fn status(
    backup: &SiteBackup,
    report: &Report,
    times: &Times,
    ended: Option<(BackupRun, Option<String>)>,
    now: Timestamp,
) -> SiteBackupStatus {
    let former = backup.status.clone().unwrap_or_default();
    let generation = backup.metadata.generation;
    let mut conditions = Conditions::new(&former.conditions, generation, now);
    let word = report.reason.to_string();
    let good = matches!(report.phase, BackupPhase::Succeeded | BackupPhase::Scheduled);
    let state = match report.phase {
        BackupPhase::Running => None,
        _ => Some(good),
    };
    conditions.set("Ready", state, &word, &report.message);
    conditions.set("Progressing", Some(report.phase == BackupPhase::Running), &word, &report.message);
    let handled = former.last_schedule_time.as_ref().map(|it| it.0).max(times.handled);
    let mut next = SiteBackupStatus {
        outcome: outcome(recorded(&former), report, now),
        phase: report.phase,
        conditions: conditions.finish(),
        message: Some(report.message.clone()),
        observed_generation: generation,
        last_schedule_time: handled.map(Time),
        next_schedule_time: times.next.map(Time),
        ..former
    };
    if let Some((run, job)) = ended {
        next.last_backup_job = job.or(next.last_backup_job);
        record(&mut next, run, backup.spec.restore.is_none());
    }
    next
}

/// Outcome of the last operation, as recorded; from the reason of Ready if a version without outcomes wrote it.
pub(super) fn recorded(former: &SiteBackupStatus) -> Option<BackupOutcome> {
    let before = || {
        let ready = condition::find(&former.conditions, "Ready")?;
        let (kind, state) = ready.reason.parse::<Reason>().ok()?.end()?;
        // For a removal, Ready was false before, too; Progressing was true until it failed.
        let moved = condition::find(&former.conditions, "Progressing").filter(|_| kind == BackupOperationKind::Remove);
        let finished_at = moved.unwrap_or(ready).last_transition_time.clone();
        Some(BackupOutcome { kind, state, code: None, message: ready.message.clone(), finished_at })
    };
    former.outcome.clone().or_else(before)
}

/// Outcome of the last operation, for a report.
fn outcome(former: Option<BackupOutcome>, report: &Report, now: Timestamp) -> Option<BackupOutcome> {
    let Some((kind, state)) = report.reason.end() else { return former };
    let is_kept = kind != BackupOperationKind::Remove;
    let same = |it: &BackupOutcome| is_kept && (it.kind, it.state, &it.message) == (kind, state, &report.message);
    let next = || BackupOutcome {
        kind,
        state,
        code: report.detail.map(|it| it.to_string()),
        message: report.message.clone(),
        finished_at: Time(now),
    };
    former.filter(same).or_else(|| Some(next()))
}

/// Adds a run to the history, once.
fn record(status: &mut SiteBackupStatus, run: BackupRun, is_backup: bool) {
    let known = |it: &BackupRun| it.name == run.name && it.scheduled_at == run.scheduled_at;
    status.history.retain(|it| !known(it));
    if run.succeeded && is_backup {
        status.last_backup.clone_from(&run.scheduled_at);
        status.last_successful_backup = Some(run.clone());
    }
    status.history.insert(0, run);
    let (mut succeeded, mut failed) = (0, 0);
    status.history.retain(|it| {
        let (count, most) = if it.succeeded { (&mut succeeded, SUCCEEDED_KEPT) } else { (&mut failed, FAILED_KEPT) };
        *count += 1;
        *count <= most
    });
}

/// Events for a change of the status: one for each new reason and each finished run.
pub(super) fn notice(backup: &SiteBackup, report: &Report, ended: bool) -> Option<Notice> {
    let conditions = backup.status.as_ref().map(|it| it.conditions.as_slice()).unwrap_or_default();
    let is_new = report.reason.is_warning() && !report.is_known(conditions);
    (ended || is_new).then(|| report.notice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_bounded_and_contains_each_run_once() {
        let mut status = SiteBackupStatus::default();
        for number in 0..40 {
            let run = BackupRun { name: format!("r{number}"), succeeded: number % 2 == 0, ..BackupRun::default() };
            record(&mut status, run.clone(), true);
            record(&mut status, run, true);
        }
        assert_eq!(status.history.iter().filter(|it| it.succeeded).count(), SUCCEEDED_KEPT);
        assert_eq!(status.history.iter().filter(|it| !it.succeeded).count(), FAILED_KEPT);
        assert_eq!(status.history[0].name, "r39");
        assert_eq!(status.last_successful_backup.map(|it| it.name).as_deref(), Some("r38"));
    }
}
