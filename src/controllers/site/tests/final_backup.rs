//! `deletionPolicy: Backup`: nothing of a site is removed before its final backup is verified.

use super::{
    backups::{at, backup, bucket, carried, done, end, of, served, settle, stands, under_way},
    *,
};
use frappe_crds::backup::BackupPhase;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const FINAL: &str = "daily-backup-final-2026-01-02-0000";

/// A site with this policy that is being deleted.
fn deleted(backups: Vec<Arc<SiteBackup>>) -> Observed {
    let mut world = served(backups);
    Arc::make_mut(&mut world.site).spec.deletion_policy = Some(frappe_crds::site::DeletionPolicy::Backup);
    being_deleted(&mut world);
    world
}

fn daily() -> Arc<SiteBackup> {
    backup("daily-backup", json!({"storage": bucket(), "schedule": "0 2 * * *"}))
}

/// The objects that a plan removes, and the Job that it creates.
fn removes(plan: &Plan) -> Vec<String> {
    let deletes = plan.steps.iter().chain(&plan.last).filter_map(|step| match step {
        Step::Delete(kind, it) => Some(format!("{kind:?} {}", it.name_any())),
        Step::Patch(..) => Some("finalizer".to_owned()),
        _ => None,
    });
    deletes.chain(plan.job.iter().map(|job| format!("job {}", job.key.name))).collect()
}

/// Whether a plan records the final backup, which the SiteBackup controller then executes.
fn records(plan: &Plan) -> bool {
    plan.status.as_ref().is_some_and(|status| status.backup.is_some())
}

fn message(plan: &Plan) -> String {
    let status = plan.status.clone().unwrap_or_default();
    condition::find(&status.conditions, "Ready").map(|it| it.message.clone()).unwrap_or_default()
}

///
#[test]
fn a_final_backup_is_made_before_anything_is_removed() {
    let once = backup("another", json!({"storage": bucket()}));
    let mut world = deleted(vec![once, daily()]);
    let first = plan(&world);
    assert_eq!(removes(&first)[0], "Ingress shop-ingress", "routes are removed first");
    let made = settle(&mut world);
    assert_eq!(made.len(), 1);
    let stored = carried(&made[0]).store.expect("a backup to store");
    assert_eq!(
        (stored.name.as_str(), stored.site_backup.as_str()),
        (FINAL, "daily-backup"),
        "a SiteBackup with a schedule has precedence"
    );
    assert_eq!(lint(&made[0]), Vec::<String>::new());
    let labels = of(&world, "daily-backup").labels();
    assert!(labels.contains_key("frappe.vyogo.tech/slot"), "a new SiteBackup is labelled, too");
    assert!(
        message(&plan(&world)).contains("nothing else is removed before it has finished"),
        "{}",
        message(&plan(&world))
    );
    assert!(!world.jobs.contains_key("shop-delete") && world.sql.iter().all(Option::is_some));
    end(&mut world, "Complete", done());
    assert!(removes(&plan(&world)).is_empty(), "the history is written before anything else");
    let written = backup_plan(&world);
    apply_backups(&mut world, &written, "Complete");
    assert_eq!(under_way(&world), None);
    let history = of(&world, "daily-backup").status.clone().expect("a status").history;
    assert_eq!((history.len(), history[0].name.as_str(), history[0].succeeded), (1, FINAL, true));
    assert_eq!(plan(&world).job.map(|it| it.key.name).as_deref(), Some("shop-delete"));
    for _ in 0..6 {
        let next = plan(&world);
        apply(&mut world, &next, "Complete");
    }
    assert!(
        world.site.finalizers().is_empty() && world.sql.iter().all(Option::is_none),
        "then as with the policy Delete"
    );
}

/// a crash after any write makes no second backup and removes nothing early.
#[test]
fn a_crash_after_any_write_of_a_final_backup_converges() {
    for cut in 0..18 {
        let mut world = deleted(vec![daily()]);
        let (mut left, mut jobs) = (cut, 0);
        for round in 0..16 {
            for write in writes(&plan(&world)) {
                if left == 0 {
                    break;
                }
                left -= 1;
                let drops = write.job.as_ref().is_some_and(|job| job.key.name == "shop-delete");
                let kept = of(&world, "daily-backup").status.clone().unwrap_or_default().history;
                assert!(!drops || kept.first().is_some_and(|run| run.succeeded), "cut after {cut}: dropped too early");
                apply(&mut world, &write, if drops { "Complete" } else { "Suspended" });
            }
            for write in backup_writes(&backup_plan(&world)) {
                if left == 0 {
                    break;
                }
                left -= 1;
                let had = world.backup_job.is_some();
                apply_backups(&mut world, &write, "Suspended");
                jobs += usize::from(!had && world.backup_job.is_some());
            }
            left = usize::MAX;
            if round == 5 {
                end(&mut world, "Complete", done());
            }
        }
        assert!(world.site.finalizers().is_empty(), "cut after {cut}");
        assert_eq!(jobs, 1, "cut after {cut}");
    }
}

#[test]
fn without_a_storage_nothing_is_removed() {
    let mut world = deleted(Vec::new());
    let held = plan(&world);
    assert_eq!(reason(&held), "FinalBackupFailed");
    assert!(message(&held).contains("StorageMissing: no SiteBackup of the site"), "{}", message(&held));
    assert_eq!(removes(&held), ["Ingress shop-ingress"]);

    let key = json!({"s3": {"bucket": "b", "credentialsSecretRef": {"name": "keys"}}});
    world.backups = vec![backup("locked", json!({"storage": key}))];
    let locked = plan(&world);
    assert!(locked.missing && message(&locked).contains("SiteBackup locked: Secret keys"), "{}", message(&locked));
    world.backups.push(backup("open", json!({"storage": bucket()})));
    assert!(records(&plan(&world)), "one usable storage is enough");
    edit_backup(&mut world, "open", |it| it.metadata.deletion_timestamp = Some(Time(at("2026-01-02T00:00:00Z"))));
    assert!(!records(&plan(&world)), "but not one that is being deleted");

    for lost in ["bench", "image", "secret"] {
        let mut world = deleted(vec![daily()]);
        match lost {
            "bench" => world.bench = None,
            "image" => world.operator_image = None,
            _ => world.credentials = None,
        }
        let held = plan(&world);
        assert!(held.job.is_none() && held.last.is_empty(), "{lost}");
        let expected = if lost == "secret" { "DeletionBlocked" } else { "FinalBackupFailed" };
        assert_eq!(reason(&held), expected, "{lost}: {}", message(&held));
    }
}

#[test]
fn a_failed_final_backup_blocks_the_deletion_and_is_retried() {
    let mut world = deleted(vec![daily()]);
    settle(&mut world);
    end(
        &mut world,
        "Failed",
        json!({"code": "BucketMissing", "error": "frappe-backups does not exist", "step": "store"}),
    );
    settle(&mut world);
    let held = plan(&world);
    assert_eq!(reason(&held), "FinalBackupFailed");
    assert!(message(&held).contains("BucketMissing: frappe-backups does not exist"), "{}", message(&held));
    assert!(removes(&held).is_empty());
    assert_eq!(held.again_after.map(|it| it.as_secs()), Some(70 * 60));
    assert_eq!(stands(&world, "daily-backup"), (BackupPhase::Failed, "BackupFailed".into()));

    world.backups.push(backup("elsewhere", json!({"storage": bucket()})));
    assert!(records(&plan(&world)), "another storage is tried at once");
    world.backups.pop();
    Arc::make_mut(&mut world.site).spec.deletion_policy = Some(frappe_crds::site::DeletionPolicy::Delete);
    assert_eq!(plan(&world).job.map(|it| it.key.name).as_deref(), Some("shop-delete"), "or a user skips the backup");
    Arc::make_mut(&mut world.site).spec.deletion_policy = Some(frappe_crds::site::DeletionPolicy::Backup);
    world.backup_job = None;
    world.now = at("2026-03-01T14:10:00Z");
    assert_eq!(settle(&mut world).len(), 1, "after its Jobs were removed, it is retried");
    end(&mut world, "Complete", done());
    settle(&mut world);
    assert!(world.jobs.contains_key("shop-delete"));
}

#[test]
fn a_site_that_cannot_be_backed_up_is_deleted_without_a_final_backup() {
    let mut young = observed(json!({"deletionPolicy": "Backup"}));
    for _ in 0..2 {
        let next = plan(&young);
        apply(&mut young, &next, "Running");
    }
    being_deleted(&mut young);
    assert_ne!(reason(&plan(&young)), "FinalBackupFailed");

    let mut going = deleted(vec![daily()]);
    going.namespace_terminating = true;
    let next = plan(&going);
    assert!(next.job.is_none() && !next.last.is_empty());
    let dropped = next.steps.iter().any(|it| matches!(it, Step::Delete(Kind::Database | Kind::User | Kind::Secret, _)));
    assert!(!dropped, "nothing is dropped that was not backed up: {:?}", removes(&next));
}

#[test]
fn deleting_a_site_stops_its_backup() {
    let mut world = served(vec![backup("it", json!({"storage": bucket()}))]);
    settle(&mut world);
    Arc::make_mut(&mut world.site).metadata.deletion_timestamp = Some(Time(world.now));
    for _ in 0..12 {
        let next = plan(&world);
        apply(&mut world, &next, "Complete");
        if world.site.finalizers().is_empty() {
            break;
        }
        assert_eq!(backup_plan(&world), BackupPlan::default(), "no more operations start");
    }
    assert!(world.backup_job.is_none(), "nothing is dropped during it");
    assert!(world.site.finalizers().is_empty());
}

/// A partly dropped site is not backed up: a deletion that has started continues even if the policy is changed.
#[test]
fn a_site_that_is_being_dropped_is_not_backed_up() {
    let mut world = deleted(vec![daily()]);
    Arc::make_mut(&mut world.site).spec.deletion_policy = Some(frappe_crds::site::DeletionPolicy::Delete);
    let next = plan(&world);
    apply(&mut world, &next, "Running");
    assert!(world.jobs.contains_key("shop-delete"));
    Arc::make_mut(&mut world.site).spec.deletion_policy = Some(frappe_crds::site::DeletionPolicy::Backup);
    let next = plan(&world);
    assert_eq!(next.job.as_ref().map(|it| it.key.name.as_str()), Some("shop-delete"), "{}", message(&next));
}
