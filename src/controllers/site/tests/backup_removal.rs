//! `deletionPolicy: Delete` of a SiteBackup: exactly its backups are removed before it is deleted.

use super::{
    backups::{at, backup, bucket, carried, containers, done, end, served, settle, stands, under_way},
    *,
};
use std::time::Duration;

use crate::domain::labels::{self, BACKUP_FINALIZER};
use frappe_crds::{backup::BackupPhase, site::BackupOperationKind};

fn daily(policy: &str) -> Arc<SiteBackup> {
    backup("daily", json!({"storage": bucket(), "schedule": "0 2 * * *", "deletionPolicy": policy}))
}

fn finalizers(world: &Observed) -> Vec<String> {
    world.backups.first().map(|it| it.finalizers().to_vec()).unwrap_or_default()
}

/// Marks the SiteBackup as being deleted.
fn leaves(world: &mut Observed) {
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now);
    edit(world, |it| {
        it.metadata.deletion_timestamp = Some(now);
        it.metadata.generation = Some(2);
    });
}

fn edit(world: &mut Observed, change: impl FnOnce(&mut SiteBackup)) {
    change(Arc::make_mut(&mut world.backups[0]));
}

/// A SiteBackup that made one backup and is being deleted.
fn leaving() -> (Observed, Vec<Desired>) {
    let mut world = served(vec![daily("Delete")]);
    settle(&mut world);
    world.now = at("2026-03-02T02:00:00Z");
    settle(&mut world);
    end(&mut world, "Complete", done());
    settle(&mut world);
    leaves(&mut world);
    let made = settle(&mut world);
    (world, made)
}

///
#[test]
fn its_backups_are_removed_and_then_it_goes() {
    let (mut world, made) = leaving();
    assert_eq!(under_way(&world).map(|it| it.kind), Some(BackupOperationKind::Remove));
    assert_eq!(made.len(), 1);
    assert_eq!(containers(&made[0]), ["transfer"], "the pod mounts nothing of the site");
    let carried = carried(&made[0]);
    let removal = carried.removal.expect("a removal");
    assert_eq!((carried.folder.as_str(), removal.site_backup.as_str()), ("default/shop", "daily"));
    assert_eq!(removal.identity, made[0].body["metadata"]["annotations"][labels::IDENTITY].as_str().unwrap());
    assert!(carried.store.is_none() && carried.retention.is_none() && carried.fetch.is_none());
    let text = made[0].body.to_string();
    assert!(!text.contains("shop-db-password") && !text.contains("main-sites"), "{text}");
    insta::assert_yaml_snapshot!("removal_pod", made[0].body["spec"]["template"]["spec"]);
    assert_eq!(lint(&made[0]), Vec::<String>::new());
    assert_eq!(stands(&world, "daily"), (BackupPhase::Running, "BackupsRemoving".to_owned()));
    assert_eq!(finalizers(&world), [BACKUP_FINALIZER]);
    end(&mut world, "Complete", json!({"result": {"removed": ["daily-2026-03-02-0200"]}}));
    let last = backup_plan(&world);
    let steps = &last.steps;
    assert!(
        matches!(&steps[..], [BackupStep::Status(_, status, Some(_)), BackupStep::Patch(..)]
            if status.message.as_deref() == Some("backups removed: 1")),
        "{steps:?}"
    );
    apply_backups(&mut world, &last, "Complete");
    assert!(world.backups.is_empty());
    assert_eq!(under_way(&world), None);
}

/// by default, backups are kept, and nothing blocks the deletion.
#[test]
fn without_the_policy_nothing_is_removed() {
    for policy in ["Retain", "Delete"] {
        let mut world = served(vec![daily(policy)]);
        settle(&mut world);
        assert_eq!(finalizers(&world).is_empty(), policy == "Retain");
        // The policy is changed before or after the deletion.
        for after in [false, true] {
            let mut world = served(vec![daily("Delete")]);
            settle(&mut world);
            if after {
                leaves(&mut world);
            }
            edit(&mut world, |it| it.spec.deletion_policy = None);
            assert_eq!(settle(&mut world), Vec::<Desired>::new());
            assert_eq!(finalizers(&world), Vec::<String>::new());
            assert_eq!(world.backups.is_empty(), after);
        }
    }
}

/// a user may change the policy while the Job is running.
#[test]
fn a_removal_that_is_no_longer_requested_is_stopped() {
    let (mut world, _) = leaving();
    edit(&mut world, |it| it.spec.deletion_policy = None);
    let stop = backup_plan(&world);
    assert!(matches!(&stop.steps[..], [BackupStep::Delete(Kind::Job, _)]), "{:?}", stop.steps);
    world.backup_job = None;
    settle(&mut world);
    assert!(world.backups.is_empty());
    assert_eq!(under_way(&world), None);
}

/// an unavailable storage does not block the site.
#[test]
fn a_failed_removal_does_not_block_the_site_and_is_retried() {
    let (mut world, _) = leaving();
    let failure = json!({"step": "list", "code": "CredentialsRefused", "error": "403"});
    end(&mut world, "Failed", failure.clone());
    settle(&mut world);
    assert_eq!(under_way(&world), None);
    assert_eq!(stands(&world, "daily"), (BackupPhase::Failed, "BackupRemovalFailed".to_owned()));
    let message = world.backups[0].status.clone().unwrap().message.unwrap();
    assert!(message.contains("CredentialsRefused") && message.contains("set deletionPolicy to Retain"), "{message}");
    assert_eq!(finalizers(&world), [BACKUP_FINALIZER], "nothing is forgotten");
    assert_eq!(backup_plan(&world).again_after, Some(Duration::from_mins(70)));
    (world.backup_job, world.backup_result) = (None, None);
    world.now = at("2026-03-02T03:10:00Z");
    assert_eq!(settle(&mut world).len(), 1, "it is retried later");
    end(&mut world, "Failed", failure);
    settle(&mut world);
    let former = backup_plan(&world);
    assert!(former.job.is_none());
    edit(&mut world, |it| it.metadata.generation = Some(3));
    (world.backup_job, world.backup_result) = (None, None);
    let retry = backup_plan(&world).job.expect("another spec is tried at once");
    assert!(!world.jobs.contains_key(&retry.key.name), "by another Job");
}

/// an unusable storage is reported in the status, and the removal waits for the missing object.
#[test]
fn a_removal_without_a_storage_is_reported() {
    let mut world = served(vec![daily("Delete")]);
    settle(&mut world);
    edit(&mut world, |it| {
        let storage = it.spec.storage.as_mut().unwrap();
        storage.s3.as_mut().unwrap().credentials_secret_ref =
            Some(serde_json::from_value(json!({"name": "gone"})).unwrap());
    });
    leaves(&mut world);
    assert_eq!(settle(&mut world), Vec::<Desired>::new());
    assert_eq!(stands(&world, "daily").1, "StorageSecretMissing");
    assert!(backup_plan(&world).missing);
}

/// if the site is deleted, its backups are kept. The SiteBackup's finalizer is removed then: see `orphan`.
#[test]
fn the_deletion_of_a_site_removes_no_backup() {
    let (mut world, _) = leaving();
    being_deleted(&mut world);
    Arc::make_mut(&mut world.site).spec.deletion_policy = Some(frappe_crds::site::DeletionPolicy::Retain);
    for _ in 0..10 {
        let next = plan(&world);
        assert!(next.job.is_none(), "no backup is removed");
        apply(&mut world, &next, "Complete");
        assert_eq!(backup_plan(&world), BackupPlan::default());
    }
    assert!(world.site.finalizers().is_empty());
}
