//! `backup` and `restore`: SiteBackups that are created as the user who runs the command.

use anyhow::{Context as _, bail};
use frappe_crds::{
    SiteBackup, SiteBackupSpec,
    backup::{BackupOutcomeState, BackupPhase, Restore},
    backup_storage::BackupStorage,
    common::NamespacedReference,
};
use kube::{Client, ResourceExt};

use super::{
    ending::{Ends, made_name, until_its_end},
    output::connect,
};
use crate::{
    cli::{BackupArguments, CreateArguments, RestoreArguments, TargetArguments},
    domain::key::Key,
    io::made,
};

/// Backs up a site, and waits for its end.
pub async fn backup(arguments: BackupArguments, target: &TargetArguments) -> anyhow::Result<()> {
    let cluster = connect(target).await?;
    let site = cluster.named(&arguments.site);
    let storage = if let Some(name) = &arguments.like {
        found(&cluster.client, &site, name).await?.spec.storage
    } else {
        let all = made::backups(&cluster.client, &site.namespace).await.context("list the SiteBackups")?;
        storage_of_schedule(&site, &all)?
    };
    let spec = SiteBackupSpec { site_ref: reference(&site), storage, ..SiteBackupSpec::default() };
    create(&cluster.client, &site, "backup", spec, &arguments.create).await
}

/// Restores a backup, and waits for its end.
pub async fn restore(arguments: RestoreArguments, target: &TargetArguments) -> anyhow::Result<()> {
    let cluster = connect(target).await?;
    let site = cluster.named(&arguments.site);
    let from = found(&cluster.client, &site, &arguments.from).await?;
    let spec = restoration(&site, &from, &arguments)?;
    create(&cluster.client, &site, "restore", spec, &arguments.create).await
}

async fn found(client: &Client, site: &Key, name: &str) -> anyhow::Result<SiteBackup> {
    let key = Key::new(&site.namespace, name);
    made::backup(client, &key).await.with_context(|| format!("get SiteBackup {key}"))
}

fn reference(site: &Key) -> NamespacedReference {
    NamespacedReference { name: site.name.clone(), ..NamespacedReference::default() }
}

/// Where the site's scheduled backups are stored.
fn storage_of_schedule(site: &Key, all: &[SiteBackup]) -> anyhow::Result<Option<BackupStorage>> {
    let of_site = |it: &&SiteBackup| it.spec.site_ref.name == site.name && it.spec.schedule.is_some();
    let schedules: Vec<_> = all.iter().filter(of_site).collect();
    let Some(first) = schedules.first() else {
        bail!("{site} has no SiteBackup with a schedule: name one of another site with --like, whose storage to use");
    };
    if schedules.iter().any(|it| it.spec.storage != first.spec.storage) {
        let names: Vec<_> = schedules.iter().map(|it| it.name_any()).collect();
        bail!("the backups of {site} are stored in several places: name one with --like, of {}", names.join(", "));
    }
    Ok(first.spec.storage.clone())
}

/// What restores a backup of that SiteBackup.
fn restoration(site: &Key, from: &SiteBackup, arguments: &RestoreArguments) -> anyhow::Result<SiteBackupSpec> {
    let newest = || Some(from.status.as_ref()?.last_successful_backup.as_ref()?.name.clone());
    let Some(backup_name) = arguments.backup.clone().or_else(newest) else {
        bail!("SiteBackup {} has made no backup yet", from.name_any());
    };
    let source = &from.spec.site_ref.name;
    let restore = Restore {
        backup_name,
        source_site: (*source != site.name).then(|| source.clone()),
        restore_database: arguments.files_only.then_some(false),
        restore_files: arguments.database_only.then_some(false),
        safety_backup: arguments.no_safety_backup.then_some(false),
        ..Restore::default()
    };
    let storage = from.spec.storage.clone();
    Ok(SiteBackupSpec { site_ref: reference(site), storage, restore: Some(restore), ..SiteBackupSpec::default() })
}

async fn create(
    client: &Client,
    site: &Key,
    does: &str,
    spec: SiteBackupSpec,
    arguments: &CreateArguments,
) -> anyhow::Result<()> {
    let key = Key::new(&site.namespace, made_name(site, does, arguments));
    let mut backup = SiteBackup::new(&key.name, spec);
    backup.metadata.namespace = Some(key.namespace.clone());
    let made = made::create_backup(client, &backup, arguments.dry_run).await;
    let made = made.with_context(|| format!("create SiteBackup {key}"))?;
    until_its_end(client, made, arguments, |it| done(site, it)).await
}

impl Ends for SiteBackup {
    const NOUN: &str = "sitebackup";

    fn message(&self) -> Option<&str> {
        self.status.as_ref()?.message.as_deref()
    }

    fn end(&self) -> Option<Result<(), String>> {
        let status = self.status.as_ref()?;
        let said = |message: &str| Err(message.to_owned());
        match (&status.outcome, status.phase) {
            (Some(it), _) if it.state == BackupOutcomeState::Succeeded => Some(Ok(())),
            (Some(it), _) => Some(said(&it.message)),
            (None, BackupPhase::Failed) => Some(said(status.message.as_deref().unwrap_or_default())),
            (None, _) => None,
        }
    }
}

/// What a successful backup or restore has done.
fn done(site: &Key, backup: &SiteBackup) -> String {
    let status = backup.status.clone().unwrap_or_default();
    if !matches!(backup.end(), Some(Ok(()))) {
        return String::new();
    }
    if let Some(restore) = &backup.spec.restore {
        return format!("{site} is restored from backup {}\n", restore.backup_name);
    }
    let Some(run) = status.last_successful_backup else { return String::new() };
    let size = run.size_bytes.map(|it| format!(", {it} bytes")).unwrap_or_default();
    let name = backup.name_any();
    format!("backup {}{size}; to restore it: kubectl frappe restore {site} --from {name}\n", run.name)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        cli::{Cli, Command},
        domain::wire,
    };

    fn stored(name: &str, site: &str, bucket: &str, schedule: Option<&str>) -> SiteBackup {
        serde_json::from_value(json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteBackup", "metadata": {"name": name},
            "spec": {"siteRef": {"name": site}, "schedule": schedule, "storage": {"s3": {"bucket": bucket}}},
            "status": {"lastSuccessfulBackup": {"name": "20260101-020000", "succeeded": true, "sizeBytes": 7}},
        }))
        .expect("a SiteBackup")
    }

    fn restored(words: &[&str], from: &SiteBackup) -> anyhow::Result<Value> {
        let words = ["kubectl-frappe", "restore", "shops/shop", "--from", "x"].iter().chain(words);
        let Command::Restore(arguments) = Cli::try_parse_from(words)?.command else { bail!("another command") };
        Ok(wire::json(&restoration(&Key::new("shops", "shop"), from, &arguments)?))
    }

    #[test]
    fn a_backup_is_stored_as_the_scheduled_ones_of_the_site() {
        let site = Key::new("shops", "shop");
        let of =
            |all: &[SiteBackup]| storage_of_schedule(&site, all).map(|it| it.and_then(|it| it.s3).map(|it| it.bucket));
        let (nightly, once) = (stored("a", "shop", "one", Some("0 2 * * *")), stored("b", "shop", "two", None));
        let other = stored("c", "other", "three", Some("0 2 * * *"));
        let error = of(&[other.clone(), once.clone()]).expect_err("no schedule").to_string();
        assert!(error.contains("shops/shop has no SiteBackup with a schedule"), "{error}");
        assert_eq!(of(&[other, once, nightly.clone()]).expect("storage").as_deref(), Some("one"));
        let weekly = stored("d", "shop", "four", Some("0 2 * * 0"));
        let error = of(&[nightly, weekly]).expect_err("two places").to_string();
        assert!(error.contains("--like, of a, d"), "{error}");
    }

    #[test]
    fn a_restore_takes_the_newest_backup_and_its_storage() {
        let own = restored(&[], &stored("nightly", "shop", "one", None)).expect("a spec");
        let wanted = json!({"siteRef": {"name": "shop"}, "storage": {"s3": {"bucket": "one"}}, "restore": {"backupName": "20260101-020000"}});
        assert_eq!(own, wanted);
        let words = ["--backup", "earlier", "--database-only", "--no-safety-backup"];
        let copy = restored(&words, &stored("nightly", "live", "one", None)).expect("a spec");
        let wanted =
            json!({"backupName": "earlier", "sourceSite": "live", "restoreFiles": false, "safetyBackup": false});
        assert_eq!(copy["restore"], wanted);
        assert!(restored(&["--database-only", "--files-only"], &stored("a", "shop", "one", None)).is_err());
        let mut none = stored("a", "shop", "one", None);
        none.status = None;
        assert!(restored(&[], &none).expect_err("no backup").to_string().contains("has made no backup yet"));
    }

    #[test]
    fn what_was_made_and_how_to_restore_it_is_printed() {
        let site = Key::new("shops", "shop");
        let mut backup = stored("shop-backup-1", "shop", "one", None);
        assert_eq!(done(&site, &backup), "", "it has not ended");
        let outcome = |state: &str| json!({"kind": "Backup", "state": state, "message": "m", "finishedAt": "2026-01-01T02:00:09Z"});
        let status = backup.status.as_mut().expect("a status");
        status.outcome = Some(serde_json::from_value(outcome("Succeeded")).expect("an outcome"));
        let wanted =
            "backup 20260101-020000, 7 bytes; to restore it: kubectl frappe restore shops/shop --from shop-backup-1\n";
        assert_eq!(done(&site, &backup), wanted);
        let status = backup.status.as_mut().expect("a status");
        status.outcome = Some(serde_json::from_value(outcome("Failed")).expect("an outcome"));
        assert_eq!((done(&site, &backup).as_str(), backup.end()), ("", Some(Err("m".to_owned()))));
    }
}
