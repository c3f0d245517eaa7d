//! SiteBackups: schedules, one operation at a time, failures, restores, and a crash after any write.

use frappe_crds::{
    backup::BackupPhase,
    site::{BackupOperation, BackupOperationKind},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{super::under_way::job_key, *};
use crate::{
    controllers::{backup::reason::Reason as Word, job, site::place::Place},
    transfer::{self, request::Request},
};

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A SiteBackup of the site, created at noon of 2026-03-01.
pub(super) fn backup(name: &str, spec: Value) -> Arc<SiteBackup> {
    let mut whole = json!({"siteRef": {"name": "shop", "namespace": "default"}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    let made = json!({
        "apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteBackup", "spec": whole,
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1,
                     "resourceVersion": "3", "creationTimestamp": "2026-03-01T12:00:00Z"},
    });
    Arc::new(serde_json::from_value(made).expect("a SiteBackup"))
}

pub(super) fn bucket() -> Value {
    json!({"s3": {"bucket": "frappe-backups", "region": "us-east-1"}})
}

/// An available site with these SiteBackups, at one in the afternoon.
pub(super) fn served(backups: Vec<Arc<SiteBackup>>) -> Observed {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    world.backups = backups;
    world.now = at("2026-03-01T13:00:00Z");
    world
}

pub(super) fn of<'a>(world: &'a Observed, name: &str) -> &'a SiteBackup {
    world.backups.iter().find(|it| it.name_any() == name).expect("a SiteBackup")
}

pub(super) fn stands(world: &Observed, name: &str) -> (BackupPhase, String) {
    let status = of(world, name).status.clone().expect("a status");
    (status.phase, condition::find(&status.conditions, "Ready").expect("a condition").reason.clone())
}

pub(super) fn under_way(world: &Observed) -> Option<BackupOperation> {
    world.site.status.clone().and_then(|status| status.backup)
}

/// Reconciles until nothing changes, without ending Jobs. Returns the created Jobs.
pub(super) fn settle(world: &mut Observed) -> Vec<Desired> {
    let mut made = Vec::new();
    for _ in 0..20 {
        let seen = |world: &Observed| {
            let job = world.backup_job.as_ref().map(|it| it.name_any());
            (world.site.status.clone(), world.backups.clone(), world.jobs.len(), job)
        };
        let before = seen(world);
        let next = plan(world);
        made.extend(next.job.clone().filter(|it| !world.jobs.contains_key(&it.key.name)));
        apply(world, &next, "Suspended");
        let next = backup_plan(world);
        made.extend(next.job.clone());
        apply_backups(world, &next, "Suspended");
        if before == seen(world) {
            made.dedup_by(|a, b| a.key == b.key);
            return made;
        }
    }
    panic!("it never settles: {:?}", world.backups);
}

/// Ends the Job of the backup.
pub(super) fn end(world: &mut Observed, result: &str, left: Value) {
    let job = world.backup_job.clone().expect("a Job");
    let mut job = DynamicObject::clone(&job);
    let now = world.now.to_string();
    job.data["status"] = json!({"conditions": [{"type": result, "status": "True", "lastTransitionTime": now}]});
    (world.backup_job, world.backup_result) = (Some(Arc::new(job)), Some(job::Ended::parse(&left.to_string())));
}

pub(super) fn done() -> Value {
    json!({"result": {"name": "x", "bytes": 12345}})
}

pub(super) fn carried(job: &Desired) -> Request {
    let pod = &job.body["spec"]["template"]["spec"];
    let containers =
        ["initContainers", "containers"].map(|it| pod[it].as_array().cloned().unwrap_or_default()).concat();
    let transfer = containers.iter().find(|it| it["name"] == "transfer").expect("the transfer");
    assert_eq!(transfer["args"][0], "transfer");
    serde_json::from_str(transfer["args"][1].as_str().expect("a request")).expect("a request")
}

pub(super) fn containers(job: &Desired) -> Vec<String> {
    let pod = &job.body["spec"]["template"]["spec"];
    let all = ["initContainers", "containers"].map(|it| pod[it].as_array().cloned().unwrap_or_default()).concat();
    all.iter().map(|it| it["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_backup_is_made_once_and_recorded() {
    let mut world = served(vec![backup("now", json!({"storage": bucket()}))]);
    let first = backup_plan(&world);
    let recorded = first.status.as_ref().and_then(|it| it.backup.clone()).expect("recorded before the Job is created");
    assert_eq!(recorded.run, "now-2026-03-01-1200");
    let made = settle(&mut world);
    assert_eq!(made.len(), 1);
    assert_eq!(containers(&made[0]), ["backup", "transfer"]);
    let carried = carried(&made[0]);
    assert_eq!(carried.folder, "default/shop");
    assert_eq!(carried.store.map(|it| it.name).as_deref(), Some("now-2026-03-01-1200"));
    assert_eq!(lint(&made[0]), Vec::<String>::new());
    assert_eq!(stands(&world, "now"), (BackupPhase::Running, "BackupRunning".into()));
    // Two months later, its pod was still not created.
    Arc::make_mut(world.backup_job.as_mut().expect("its Job")).data["status"] = json!({});
    settle(&mut world);
    assert_eq!(stands(&world, "now"), (BackupPhase::Running, "JobNotStarting".into()));
    end(&mut world, "Complete", done());
    assert!(settle(&mut world).is_empty(), "the backup is made once");
    assert_eq!(under_way(&world), None);
    assert_eq!(stands(&world, "now"), (BackupPhase::Succeeded, "BackupSucceeded".into()));
    let status = of(&world, "now").status.clone().expect("a status");
    assert_eq!(status.history.len(), 1);
    assert_eq!(status.last_successful_backup.and_then(|it| it.size_bytes), Some(12345));
    assert_eq!(of(&world, "now").labels().len(), 2, "the watch of the site's slot contains it");
    assert_eq!(plan(&world).status, world.site.status);
    assert_eq!(backup_plan(&world), BackupPlan::default());
}

/// R-19: a result is written before it is removed from the site's status, and a start after it was recorded there: a crash between any
/// two writes loses no backup and makes none twice.
#[test]
fn a_crash_after_any_write_of_a_backup_converges() {
    let mut cut = 0;
    loop {
        let mut world = served(vec![backup("now", json!({"storage": bucket()}))]);
        let mut left = cut;
        let mut jobs = 0;
        for round in 0..12 {
            let own = plan(&world);
            apply(&mut world, &own, "Suspended");
            for write in backup_writes(&backup_plan(&world)) {
                if left == 0 {
                    break;
                }
                left -= 1;
                let had = world.backup_job.clone();
                apply_backups(&mut world, &write, "Suspended");
                jobs += usize::from(had.is_none() && world.backup_job.is_some());
            }
            left = usize::MAX;
            if round == 5 && world.backup_job.is_some() {
                end(&mut world, "Complete", done());
            }
        }
        assert_eq!(stands(&world, "now"), (BackupPhase::Succeeded, "BackupSucceeded".into()), "cut after {cut} writes");
        assert_eq!(
            (jobs, of(&world, "now").status.clone().expect("a status").history.len()),
            (1, 1),
            "cut after {cut} writes"
        );
        cut += 1;
        if cut > 12 {
            break;
        }
    }
}

#[test]
fn the_last_missed_backup_is_made_and_the_next_one_waited_for() {
    let spec = json!({"storage": bucket(), "schedule": "0 2 * * *", "retention": {"days": 30}});
    let mut world = served(vec![backup("daily-backup", spec)]);
    assert!(settle(&mut world).is_empty(), "created at noon, it is due at two in the night");
    assert_eq!(stands(&world, "daily-backup"), (BackupPhase::Scheduled, "BackupScheduled".into()));
    assert_eq!(backup_plan(&world).again_after.map(|it| it.as_secs()), Some(13 * 3600));
    world.now = at("2026-03-05T01:00:00Z");
    let made = settle(&mut world);
    assert_eq!(made.len(), 1, "one of four missed backups is made");
    let carried = carried(&made[0]);
    assert_eq!(carried.store.map(|it| it.name).as_deref(), Some("daily-backup-2026-03-04-0200"));
    let rule = carried.retention.expect("a rule");
    assert_eq!((rule.days, rule.keep_last), (Some(30), 1));
    end(&mut world, "Complete", done());
    assert!(settle(&mut world).is_empty());
    assert_eq!(stands(&world, "daily-backup"), (BackupPhase::Scheduled, "BackupSucceeded".into()));
    let status = of(&world, "daily-backup").status.clone().expect("a status");
    assert_eq!(status.next_schedule_time.map(|it| it.0), Some(at("2026-03-05T02:00:00Z")));
    world.now = at("2026-03-05T02:00:00Z");
    assert_eq!(settle(&mut world).len(), 1);
}

#[test]
fn a_backup_that_is_too_late_is_not_made_and_a_suspended_one_counts_as_missed() {
    let spec = json!({"storage": bucket(), "schedule": "0 2 * * *", "startingDeadlineSeconds": 600});
    let mut world = served(vec![backup("nightly", spec)]);
    world.now = at("2026-03-02T02:10:01Z");
    assert!(settle(&mut world).is_empty());
    assert_eq!(stands(&world, "nightly"), (BackupPhase::Failed, "BackupMissed".into()));
    edit_backup(&mut world, "nightly", |it| it.spec.suspend = Some(true));
    world.now = at("2026-03-03T02:05:00Z");
    assert!(settle(&mut world).is_empty());
    assert_eq!(stands(&world, "nightly").1, "BackupSuspended");
    edit_backup(&mut world, "nightly", |it| it.spec.suspend = None);
    assert_eq!(settle(&mut world).len(), 1, "within its deadline the backup is made");
}

/// R-18: a site has one operation at a time.
#[test]
fn a_change_waits_for_a_backup_and_a_backup_for_a_change() {
    let mut world = served(vec![backup("now", json!({"storage": bucket()}))]);
    settle(&mut world);
    Arc::make_mut(&mut world.site).spec.site_config.insert("max_file_size".into(), json!(1));
    Arc::make_mut(&mut world.site).metadata.generation = Some(2);
    assert!(settle(&mut world).is_empty());
    assert_eq!(reason(&plan(&world)), "WaitingForBackup");
    assert_eq!(world.site.status.clone().expect("a status").phase, SitePhase::Ready, "the site is available");
    world.backups.push(backup("second", json!({"storage": bucket()})));
    assert!(settle(&mut world).is_empty());
    assert_eq!(stands(&world, "second"), (BackupPhase::Pending, "SiteBusy".into()));
    end(&mut world, "Complete", done());
    let made = settle(&mut world);
    let names: Vec<_> = made.iter().map(|it| it.key.name.as_str()).collect();
    assert_eq!(names, ["shop-apply"], "the change comes first, the second backup after it");
    assert_eq!(stands(&world, "second").1, "SiteBusy");
}

/// Users wait for a restore: it has precedence over a backup that has been due as long.
#[test]
fn a_restore_comes_before_a_backup() {
    let restore = json!({"storage": bucket(), "restore": {"backupName": "now-2026", "restoreDatabase": true}});
    let mut world = served(vec![backup("a", json!({"storage": bucket()})), backup("z", restore)]);
    settle(&mut world);
    assert_eq!(under_way(&world).map(|it| it.site_backup).as_deref(), Some("z"));
}

#[test]
fn backups_wait_for_a_job_slot_of_the_bench() {
    let mut world = served(vec![backup("now", json!({"storage": bucket()}))]);
    let waiting = of_backups::plan(&world).waiting();
    apply_backups(&mut world, &waiting, "Complete");
    assert_eq!((stands(&world, "now").1.as_str(), under_way(&world)), ("WaitingForJobSlot", None));
    world.backups = vec![backup("nightly", json!({"storage": bucket(), "schedule": "0 2 * * *"}))];
    world.now = at("2026-03-02T05:00:00Z");
    let waiting = of_backups::plan(&world).waiting();
    apply_backups(&mut world, &waiting, "Complete");
    let next = of(&world, "nightly").status.clone().expect("a status").next_schedule_time;
    assert_eq!(next.map(|it| it.0), Some(at("2026-03-02T02:00:00Z")), "the delay is visible");
}

#[test]
fn a_failed_backup_is_tried_three_times_and_then_when_it_is_due_again() {
    let spec = json!({"storage": bucket(), "schedule": "0 2 * * *"});
    let mut world = served(vec![backup("nightly", spec)]);
    world.now = at("2026-03-02T02:00:00Z");
    assert_eq!(settle(&mut world).len(), 1);
    let failure = json!({"step": "upload", "code": "StorageUnreachable", "error": "error sending request"});
    for attempt in 1..=2 {
        end(&mut world, "Failed", failure.clone());
        assert!(settle(&mut world).is_empty());
        assert_eq!(stands(&world, "nightly"), (BackupPhase::Running, "BackupRetrying".into()));
        world.now = world.now.checked_add(jiff::SignedDuration::from_mins(5)).expect("a time");
        assert_eq!(settle(&mut world).len(), 1, "after {attempt}");
    }
    end(&mut world, "Failed", failure);
    assert!(settle(&mut world).is_empty());
    assert_eq!(stands(&world, "nightly"), (BackupPhase::Failed, "BackupFailed".into()));
    let status = of(&world, "nightly").status.clone().expect("a status");
    assert!(
        status.message.clone().unwrap_or_default().contains("StorageUnreachable: error sending"),
        "{:?}",
        status.message
    );
    assert_eq!((status.history.len(), status.last_successful_backup), (1, None));
    world.now = at("2026-03-03T02:00:00Z");
    assert_eq!(settle(&mut world).len(), 1, "the next run recovers");
    end(&mut world, "Complete", done());
    settle(&mut world);
    assert_eq!(stands(&world, "nightly").1, "BackupSucceeded");
}

/// An earlier version wrote no outcome: the result of a SiteBackup is only in its history.
#[test]
fn a_backup_that_ended_under_a_version_without_outcomes_is_not_repeated() {
    for (result, left, phase, word) in [
        ("Complete", done(), BackupPhase::Succeeded, "BackupSucceeded"),
        (
            "Failed",
            json!({"step": "upload", "code": "BucketMissing", "error": "no"}),
            BackupPhase::Failed,
            "BackupFailed",
        ),
    ] {
        let mut world = served(vec![backup("now", json!({"storage": bucket()}))]);
        settle(&mut world);
        end(&mut world, result, left);
        settle(&mut world);
        assert_eq!(stands(&world, "now"), (phase, word.into()));
        let before = world.backups[0].status.clone().expect("a status");
        Arc::make_mut(&mut world.backups[0]).status.as_mut().expect("a status").outcome = None;
        assert_eq!(settle(&mut world), []);
        let after = world.backups[0].status.clone().expect("a status");
        assert_eq!((after.phase, after.message), (before.phase, before.message), "no new report");
        let outcome = |it: Option<frappe_crds::backup::BackupOutcome>| it.map(|it| (it.kind, it.state));
        assert_eq!(outcome(after.outcome), outcome(before.outcome), "from now on the outcome is recorded");
    }
}

#[test]
fn a_failure_that_a_retry_cannot_fix_is_not_retried() {
    for word in ["CredentialsRefused", "BucketMissing", "StorageFull"] {
        let mut world = served(vec![backup("now", json!({"storage": bucket()}))]);
        settle(&mut world);
        end(&mut world, "Failed", json!({"step": "upload", "code": word, "error": "no"}));
        assert!(settle(&mut world).is_empty());
        assert_eq!(stands(&world, "now"), (BackupPhase::Failed, "BackupFailed".into()), "{word}");
    }
}

/// Each attempt waits for jobs for 26 minutes, and the site is not changed: it is not in maintenance mode.
#[test]
fn a_restore_that_running_jobs_block_is_tried_once() {
    let spec = json!({"storage": bucket(), "restore": {"backupName": "daily-backup-2024-01-15"}});
    let mut world = served(vec![backup("restore-job", spec)]);
    settle(&mut world);
    end(&mut world, "Failed", json!({"step": "jobs", "code": "JobsRunning", "error": "1 jobs still run"}));
    assert!(settle(&mut world).is_empty());
    assert_eq!(stands(&world, "restore-job"), (BackupPhase::Failed, "RestoreFailed".into()));
    let status = of(&world, "restore-job").status.clone().expect("a status");
    let said = condition::find(&status.conditions, "Ready").map(|it| it.message.clone()).unwrap_or_default();
    assert!(said.contains("the restore changed nothing and the site is available"), "{said}");
    assert!(!said.contains("maintenance"), "{said}");
}

#[test]
fn a_restore_uses_the_storage_of_the_backups_maker_and_the_spec_is_applied_afterwards() {
    let daily = backup("daily-backup", json!({"storage": bucket(), "schedule": "0 2 * * *"}));
    let other = backup("daily", json!({"storage": {"s3": {"bucket": "other"}}, "schedule": "0 3 * * *"}));
    let spec =
        json!({"restore": {"backupName": "daily-backup-2024-01-15", "restoreDatabase": true, "restoreFiles": true}});
    let mut world = served(vec![daily, other, backup("restore-job", spec)]);
    let before = world.site.status.clone().expect("a status").configuration;
    let made = settle(&mut world);
    assert_eq!(made.len(), 1);
    assert_eq!(containers(&made[0]), ["backup", "transfer", "restore"]);
    let carried = carried(&made[0]);
    assert_eq!(carried.fetch.as_deref(), Some("daily-backup-2024-01-15"));
    assert!(matches!(&carried.place, transfer::request::Place::S3(it) if it.name == "frappe-backups"));
    let safety = carried.store.expect("a safety backup");
    assert_eq!((safety.name.as_str(), safety.may_be_stored), ("restore-job-before-2026-03-01-1300", true));
    assert_eq!(lint(&made[0]), Vec::<String>::new());
    end(&mut world, "Complete", json!({"result": "restored"}));
    let made = settle(&mut world);
    assert_eq!(stands(&world, "restore-job"), (BackupPhase::Succeeded, "RestoreSucceeded".into()));
    assert_eq!(of(&world, "restore-job").status.as_ref().and_then(|it| it.last_successful_backup.clone()), None);
    assert_eq!(made.iter().map(|it| it.key.name.as_str()).collect::<Vec<_>>(), ["shop-apply"]);
    world.jobs.remove("shop-apply");
    converge(&mut world, "Complete");
    assert_ne!(world.site.status.clone().expect("a status").configuration, before);
}

/// A clone: the fetched backup is another site's; the safety backup is the site's own.
#[test]
fn a_backup_of_another_site_is_fetched_from_its_folder_and_stored_to_the_sites_own() {
    let storage = json!({"s3": {"bucket": "frappe-backups", "prefix": "europe"}});
    let restore = json!({"backupName": "daily-backup-2024-01-15", "sourceSite": "production"});
    let mut world = served(vec![backup("clone", json!({"storage": storage, "restore": restore}))]);
    let carried = carried(&settle(&mut world)[0]);
    end(&mut world, "Complete", json!({"result": {"warning": "enter stored passwords again"}}));
    settle(&mut world);
    let status = json!(of(&world, "clone").status).to_string();
    assert!(status.contains("available. But enter stored passwords again"), "{status}");
    assert_eq!(carried.folder, "europe/default/shop");
    assert_eq!(carried.fetch_folder.as_deref(), Some("europe/default/production"));
    assert_eq!(carried.store.map(|it| it.site).as_deref(), Some("default/shop"));
}

#[test]
fn an_unsupported_sitebackup_is_rejected_with_a_reason() {
    for (spec, word) in [
        (json!({}), Word::StorageMissing),
        (json!({"restore": {"backupName": "unknown-2024-01-15"}}), Word::StorageMissing),
        (json!({"storage": bucket(), "schedule": "61 * * * *"}), Word::ScheduleInvalid),
        (json!({"storage": bucket(), "schedule": "0 2 * * *", "timeZone": "Mars/Olympus"}), Word::ScheduleInvalid),
        (json!({"storage": bucket(), "siteRef": {"name": "shop", "namespace": "other"}}), Word::SiteNamespaceRefused),
        (
            json!({"storage": {"s3": {"bucket": "b", "credentialsSecretRef": {"name": "keys"}}}}),
            Word::StorageSecretMissing,
        ),
        (
            json!({"storage": {"s3": {"bucket": "b", "caSecretRef": {"name": "a", "namespace": "b"}}}}),
            Word::StorageRefused,
        ),
        (json!({"storage": {"persistentVolumeClaim": {"claimName": "bench-sites"}}}), Word::StorageRefused),
    ] {
        let mut world = served(vec![backup("it", spec.clone())]);
        assert!(settle(&mut world).is_empty(), "{spec}");
        assert_eq!(stands(&world, "it"), (BackupPhase::Failed, word.to_string()), "{spec}");
        assert_eq!(backup_plan(&world).missing, word == Word::StorageSecretMissing);
    }
    let mut world = served(vec![backup("it", json!({"storage": bucket()}))]);
    world.operator_image = None;
    settle(&mut world);
    assert_eq!(stands(&world, "it").1, "OperatorImageUnknown");
}

#[test]
fn only_the_transfer_gets_the_keys_of_a_bucket_as_files() {
    let storage = json!({
        "s3": {"bucket": "b", "endpoint": "https://minio:9000", "prefix": "team/a", "credentialsSecretRef": {"name": "keys"},
               "caSecretRef": {"name": "ca"}},
        "encryptionKeySecretRef": {"name": "backup-key"}, "stagingSizeLimit": "20Gi", "serviceAccountName": "backups",
    });
    let mut world = served(vec![backup("it", json!({"storage": storage}))]);
    user_secret(&mut world, "keys");
    user_secret(&mut world, "ca");
    user_secret(&mut world, "backup-key");
    let made = settle(&mut world);
    assert_eq!(carried(&made[0]).folder, "team/a/default/shop");
    let pod = &made[0].body["spec"]["template"]["spec"];
    insta::assert_yaml_snapshot!("backup_pod", pod);
}

/// A Secret that only a storage references does not affect the site.
#[test]
fn the_secrets_of_a_storage_are_read_only_for_its_sitebackup() {
    let storage = json!({"s3": {"bucket": "b", "region": "r", "credentialsSecretRef": {"name": "keys"}}});
    let two = ["it", "other"].map(|name| backup(name, json!({"storage": storage})));
    let mut world = served(two.to_vec());
    user_secret(&mut world, "keys");
    let unseen = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "default"}});
    world.secrets.insert("keys".to_owned(), object(unseen));
    let of_site = plan(&world);
    assert!(
        of_site.status.is_some() && !of_site.steps.iter().any(|it| matches!(it, Step::WatchSecret(_))),
        "{of_site:?}"
    );
    let first = backup_plan(&world);
    let watched = first
        .prepare
        .iter()
        .filter(|it| matches!(it, BackupStep::For(_, write) if matches!(**write, BackupStep::WatchSecret(_))));
    assert_eq!(watched.count(), 1, "once for both: {first:?}");
    assert_eq!(settle(&mut world).len(), 1, "then the first backup starts");
    assert!(backup_plan(&world).prepare.is_empty());
}

#[test]
fn deleting_a_sitebackup_stops_a_backup_but_not_a_restore() {
    for (spec, stopped) in [
        (json!({"storage": bucket()}), true),
        (json!({"storage": bucket(), "restore": {"backupName": "a-2024"}}), false),
    ] {
        let mut world = served(vec![backup("it", spec)]);
        settle(&mut world);
        assert!(under_way(&world).is_some());
        world.backups.clear();
        settle(&mut world);
        assert_eq!(world.backup_job.is_none(), stopped);
        assert_eq!(under_way(&world).is_none(), stopped);
        if !stopped {
            end(&mut world, "Complete", done());
            settle(&mut world);
            assert_eq!(under_way(&world), None);
        }
    }
}

/// The Job of the previous backup may still exist: its name differs.
#[test]
fn jobs_of_two_runs_have_two_names() {
    let place = Place::of(&site(json!({})));
    let operation = |minute: &str, attempt: i32| BackupOperation {
        kind: BackupOperationKind::Backup,
        site_backup: "hourly".into(),
        site_backup_uid: "uid".into(),
        run: format!("hourly-{minute}"),
        scheduled_at: Time(at(minute)),
        started_at: Time(at(minute)),
        attempt,
        epoch: 1,
    };
    let (first, second) = (operation("2026-03-01T12:00:00Z", 1), operation("2026-03-01T13:00:00Z", 1));
    assert_ne!(job_key(&place, &first), job_key(&place, &second));
    assert_eq!(
        job_key(&place, &operation("2026-03-01T12:00:00Z", 2)).name,
        format!("{}-2", job_key(&place, &first).name)
    );
}
