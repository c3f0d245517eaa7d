//! Backups on a real API server: the guide's two examples, a missing site, and a fleet whose replicas are killed while its sites
//! are backed up every minute. The Jobs' work is tested by the runner's tests and `tests/transfer`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use frappe_crds::{FrappeSite, SiteBackup, site::SitePhase};
use frappe_loadtest::{
    audit,
    process::{Operator, Options},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::support::{World, program, site};

/// The guide's examples.
const DAILY_BACKUP: &str = r#"
apiVersion: vyogo.tech/v1alpha1
kind: SiteBackup
metadata:
  name: daily-backup
spec:
  siteRef:
    name: customer-site
    namespace: default
  schedule: "0 2 * * *"  # Daily at 2 AM
  retention:
    days: 30
  storage:
    s3:
      bucket: "frappe-backups"
      region: "us-east-1"
"#;
const RESTORE_JOB: &str = r#"
apiVersion: vyogo.tech/v1alpha1
kind: SiteBackup
metadata:
  name: restore-job
spec:
  siteRef:
    name: customer-site
    namespace: default
  restore:
    backupName: "daily-backup-2024-01-15"
    restoreDatabase: true
    restoreFiles: true
"#;

fn backups(world: &World, namespace: &str) -> Api<SiteBackup> {
    Api::namespaced(world.client.clone(), namespace)
}

/// Waits until the Ready condition of a SiteBackup has this reason.
async fn wait_for_reason(world: &World, name: &str, reason: &str) -> SiteBackup {
    let api = backups(world, "default");
    world
        .until(&format!("{name} has reason {reason}"), 120, || async {
            let found = api.get(name).await.ok()?;
            let ready = found.status.as_ref()?.conditions.iter().find(|it| it.type_ == "Ready")?.clone();
            (ready.reason == reason).then_some(found)
        })
        .await
}

/// R-18: the guide's examples. A backup and a restore succeed, an unchanged SiteBackup costs no requests, and the deletion of the
/// site is reported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backup_and_restore_of_the_guide_succeed() {
    let world = World::start("backups").await;
    world.cluster.apply(DAILY_BACKUP).unwrap();
    wait_for_reason(&world, "daily-backup", "SiteNotFound").await;
    world.with_bench("default").await;
    world.cluster.apply(&site("default", "customer-site")).unwrap();
    let ready = world.wait_for_site_phase("default", "customer-site", SitePhase::Ready).await;
    let daily = wait_for_reason(&world, "daily-backup", "BackupScheduled").await;
    let slot = ready.labels()["frappe.vyogo.tech/slot"].clone();
    assert_eq!(daily.labels()["frappe.vyogo.tech/slot"], slot);
    let next = daily.status.unwrap().next_schedule_time.unwrap().0;
    assert_eq!(next.strftime("%H:%M").to_string(), "02:00");

    world.cluster.apply(RESTORE_JOB).unwrap();
    let restored = wait_for_reason(&world, "restore-job", "RestoreSucceeded").await;
    let run = restored.status.unwrap().history[0].clone();
    assert_eq!((run.name.as_str(), run.succeeded), ("daily-backup-2024-01-15", true));
    // Afterwards, the site's spec is applied.
    let applied = async || {
        let jobs = world.kubectl(&["get", "jobs", "-n", "default", "-o", "name"]);
        let site = world.sites("default").get("customer-site").await.ok()?.status?;
        (jobs.contains("customer-site-apply") && site.phase == SitePhase::Ready && site.last_restore.is_some())
            .then_some(())
    };
    world.until("the spec is applied to the restored site", 60, applied).await;

    let once = DAILY_BACKUP.replace("daily-backup", "once");
    let once = once.lines().filter(|line| !["schedule", "retention", "days"].iter().any(|it| line.contains(it)));
    world.cluster.apply(&once.collect::<Vec<_>>().join("\n")).unwrap();
    let made = wait_for_reason(&world, "once", "BackupSucceeded").await.status.unwrap();
    assert!(made.last_successful_backup.is_some_and(|it| it.name.starts_with("once-20")));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let begun = Timestamp::now();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let asked = audit::requests(&world.cluster.logs, begun).unwrap();
    let asked: Vec<String> =
        asked.iter().filter(|it| it.is_work() && it.verb != "watch").map(ToString::to_string).collect();
    assert_eq!(asked, Vec::<String>::new(), "requests while nothing changes");

    deletion_stops_a_backup(&world).await;
    deletion_makes_a_final_backup(&world).await;
    deletion_removes_the_backups(&world).await;
    world.kubectl(&["delete", "frappesite", "-n", "default", "customer-site"]);
    world.wait_for_site_deletion("default", "customer-site").await;
    wait_for_reason(&world, "daily-backup", "SiteNotFound").await;
    let released = backups(&world, "default").get("daily-backup").await.unwrap();
    assert!(!released.labels().contains_key("frappe.vyogo.tech/slot"), "the label of the site's slot is removed");
}

/// Deleting a SiteBackup stops its running backup, and its site can start other operations.
async fn deletion_stops_a_backup(world: &World) {
    world.cluster.apply(&site("default", "slow-site")).unwrap();
    world.wait_for_site_phase("default", "slow-site", SitePhase::Ready).await;
    let once = DAILY_BACKUP.replace("daily-backup", "stopped").replace("customer-site", "slow-site");
    let once = once.lines().filter(|line| !["schedule", "retention", "days"].iter().any(|it| line.contains(it)));
    world.cluster.apply(&once.collect::<Vec<_>>().join("\n")).unwrap();
    wait_for_reason(world, "stopped", "BackupRunning").await;
    world.kubectl(&["delete", "sitebackup", "-n", "default", "stopped"]);
    let free = async || {
        let jobs = world.kubectl(&["get", "jobs", "-n", "default", "-o", "name"]);
        let site = world.sites("default").get("slow-site").await.ok()?.status?;
        (site.backup.is_none() && !jobs.contains("slow-site-backup")).then_some(())
    };
    world.until("the backup was stopped", 60, free).await;
}

/// R-20: with `deletionPolicy: Backup`, the deletion waits for a storage, makes the final backup there and then removes the site.
async fn deletion_makes_a_final_backup(world: &World) {
    world.cluster.apply(&site("default", "last-site")).unwrap();
    world.wait_for_site_phase("default", "last-site", SitePhase::Ready).await;
    let api = world.sites("default");
    let policy = Patch::Merge(json!({"spec": {"deletionPolicy": "Backup"}}));
    api.patch("last-site", &PatchParams::default(), &policy).await.unwrap();
    world.kubectl(&["delete", "frappesite", "-n", "default", "last-site", "--wait=false"]);
    let held = async || {
        let status = api.get("last-site").await.ok()?.status?;
        status.conditions.iter().any(|it| it.reason == "FinalBackupFailed").then_some(())
    };
    world.until("the deletion waits for a final backup", 60, held).await;
    let kept = world.kubectl(&["get", "database,secret,job", "-n", "default", "-o", "name"]);
    assert!(kept.contains("last-site-db-password") && !kept.contains("last-site-delete"), "{kept}");
    let keeper = DAILY_BACKUP.replace("daily-backup", "keeper").replace("customer-site", "last-site");
    world.cluster.apply(&keeper).unwrap();
    world.wait_for_site_deletion("default", "last-site").await;
    let keeper = wait_for_reason(world, "keeper", "SiteNotFound").await.status.unwrap();
    let last = keeper.last_successful_backup.expect("the final backup");
    assert!(last.name.starts_with("keeper-final-20"), "{}", last.name);
    let left = world.kubectl(&["get", "database,secret", "-n", "default", "-o", "name"]);
    assert!(!left.contains("last-site"), "{left}");
}

/// R-21: with `deletionPolicy: Delete`, a Job removes the backups before the SiteBackup is deleted; if the site does not exist, the
/// SiteBackup is deleted at once.
async fn deletion_removes_the_backups(world: &World) {
    let api = backups(world, "default");
    let taken = DAILY_BACKUP.replace("daily-backup", "taken");
    let taken = taken.replace("  storage:", "  deletionPolicy: Delete\n  storage:");
    world.cluster.apply(&taken).unwrap();
    let held = wait_for_reason(world, "taken", "BackupScheduled").await;
    assert_eq!(held.finalizers(), ["vyogo.tech/backup-finalizer"]);
    world.kubectl(&["delete", "sitebackup", "-n", "default", "taken", "--timeout=60s"]);
    let jobs = world.kubectl(&["get", "jobs", "-n", "default", "-l", "component=site-backup-removal", "-o", "name"]);
    assert_eq!(jobs.lines().count(), 1, "{jobs}");
    let free = async || world.sites("default").get("customer-site").await.ok()?.status?.backup.is_none().then_some(());
    world.until("the site has no running operation", 60, free).await;

    world.cluster.apply(&taken.replace("name: taken", "name: orphan").replace("customer-site", "slow-site")).unwrap();
    wait_for_reason(world, "orphan", "BackupScheduled").await;
    // A user removes the site's finalizers: no replica can remove its backups.
    let sites = world.sites("default");
    let finalizers = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/held"]}}));
    sites.patch("slow-site", &PatchParams::default(), &finalizers).await.unwrap();
    world.kubectl(&["delete", "frappesite", "-n", "default", "slow-site", "--wait=false"]);
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    sites.patch("slow-site", &PatchParams::default(), &none).await.unwrap();
    world.wait_for_site_deletion("default", "slow-site").await;
    world.kubectl(&["delete", "sitebackup", "-n", "default", "orphan", "--timeout=60s"]);
    assert!(api.get_opt("orphan").await.unwrap().is_none());
}

/// Far fewer than a bench's ten concurrent Jobs complete in a minute, so that a busy machine completes them too.
const SITES: usize = 24;
/// Sites that are edited at the start of each minute, when their backups start. Their Jobs take five seconds.
const EDITED: usize = 6;
const MINUTES: i64 = 2;
/// Within this time after they are due, all backups are started.
const START_LIMIT: SignedDuration = SignedDuration::from_secs(40);

fn site_name(number: usize) -> String {
    if number < EDITED { format!("slow-{number}") } else { format!("s{number}") }
}

fn member(name: &str) -> Options {
    Options { pod_name: Some(name.to_owned()), lease_seconds: Some(5), ..Options::default() }
}

async fn with_sites(world: &World) {
    let mut manifest = String::new();
    for number in 0..SITES {
        write!(manifest, "{}", site("fleet", &site_name(number))).unwrap();
    }
    world.cluster.apply(&manifest).unwrap();
    let ready = async || {
        let sites = world.sites("fleet").list(&ListParams::default()).await.ok()?;
        let ready = sites.items.iter().filter(|it| it.status.as_ref().is_some_and(|it| it.phase == SitePhase::Ready));
        (ready.count() == SITES).then_some(())
    };
    world.until("all sites are Ready", 240, ready).await;
}

fn with_backups(world: &World) {
    let mut manifest = String::new();
    for number in 0..SITES {
        let site = site_name(number);
        write!(
            manifest,
            "---\napiVersion: vyogo.tech/v1alpha1\nkind: SiteBackup\nmetadata: {{name: b{number}, namespace: fleet}}\nspec:\n  \
             siteRef: {{name: {site}}}\n  schedule: \"* * * * *\"\n  storage: {{s3: {{bucket: frappe-backups}}}}\n"
        )
        .unwrap();
    }
    world.cluster.apply(&manifest).unwrap();
}

/// Changes sites just before their backups start, so that a change and a backup compete for the site.
async fn edit(sites: Api<FrappeSite>, end: Timestamp) {
    for change in 0_u64.. {
        let now = Timestamp::now();
        let in_minute = now.as_second().rem_euclid(60) * 1000 + i64::from(now.subsec_millisecond());
        let wait = (59_500 - in_minute).rem_euclid(60_000);
        if now.checked_add(SignedDuration::from_millis(wait)).unwrap() > end {
            return;
        }
        tokio::time::sleep(Duration::from_millis(wait.unsigned_abs())).await;
        for number in 0..EDITED {
            let patch = json!({"spec": {"siteConfig": {"mute_emails": change % 2}}});
            sites.patch(&site_name(number), &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The number of Jobs, and the pairs of Jobs of one site that ran at the same time (in whole seconds).
async fn overlaps(world: &World) -> (usize, Vec<String>) {
    let jobs: Api<Job> = Api::namespaced(world.client.clone(), "fleet");
    let mut runs: BTreeMap<String, Vec<(Timestamp, Timestamp, String)>> = BTreeMap::new();
    for job in jobs.list(&ListParams::default()).await.unwrap().items {
        let status = job.status.clone().unwrap_or_default();
        let (Some(site), Some(begun)) = (job.labels().get("site"), job.creation_timestamp()) else { continue };
        let ended = status.completion_time.map_or(Timestamp::MAX, |it| it.0);
        runs.entry(site.clone()).or_default().push((begun.0, ended, job.name_any()));
    }
    let count = runs.values().map(Vec::len).sum();
    let beside = runs.values_mut().flat_map(|of_site| {
        of_site.sort();
        let pairs = of_site.iter().zip(of_site.iter().skip(1));
        pairs.filter(|(one, next)| next.0 < one.1).map(|(one, next)| format!("{one:?} {next:?}")).collect::<Vec<_>>()
    });
    (count, beside.collect())
}

/// R-1, R-18, R-19: each site is backed up exactly once in each minute, and never during a change of the site, while replicas are
/// killed and added.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_are_made_exactly_once_while_replicas_are_killed_and_added() {
    let world = World::start_with("backup-fleet", &member("one")).await;
    let mut others = BTreeMap::new();
    for name in ["two", "three"] {
        others.insert(name, Operator::start(program(), &world.cluster, &member(name)).unwrap());
    }
    world.with_bench("fleet").await;
    with_sites(&world).await;
    // The next minute may start while the SiteBackups are created.
    let before = Timestamp::now();
    with_backups(&world);
    let begun = Timestamp::now();
    let end = begun.checked_add(SignedDuration::from_mins(MINUTES)).unwrap();
    let edits = tokio::spawn(edit(world.sites("fleet"), end));
    tokio::time::sleep(Duration::from_secs(40)).await;
    drop(others.remove("two"));
    tokio::time::sleep(Duration::from_secs(35)).await;
    others.insert("four", Operator::start(program(), &world.cluster, &member("four")).unwrap());
    tokio::time::sleep(Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default()).await;
    let api = backups(&world, "fleet");
    for backup in api.list(&ListParams::default()).await.unwrap().items {
        let stop = Patch::Merge(json!({"spec": {"suspend": true}}));
        api.patch(&backup.name_any(), &PatchParams::default(), &stop).await.unwrap();
    }
    let idle = async || {
        let sites = world.sites("fleet").list(&ListParams::default()).await.ok()?;
        sites.items.iter().all(|it| it.status.as_ref().is_some_and(|it| it.backup.is_none())).then_some(())
    };
    world.until("no backup is running", 120, idle).await;
    edits.await.unwrap();
    let (looked_at, beside) = overlaps(&world).await;
    assert!(looked_at > SITES && beside.is_empty(), "of {looked_at} Jobs: {beside:#?}");
    let all = api.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(all.len(), SITES);
    let minute = SignedDuration::from_mins(1);
    let (mut made, mut wrong) = (0, Vec::new());
    for backup in &all {
        let history = backup.status.clone().unwrap_or_default().history;
        made += history.len();
        let due: BTreeSet<Timestamp> =
            history.iter().filter_map(|it| it.scheduled_at.as_ref()).map(|it| it.0).collect();
        let [first, last] = [due.first(), due.last()].map(|it| it.copied().unwrap_or_default());
        let whole = due.len() == history.len() && history.iter().all(|it| it.succeeded);
        let without_a_gap = due.iter().zip(due.iter().skip(1)).all(|(one, next)| next.duration_since(*one) == minute);
        // One that is due just before the end may not be started before its SiteBackup is suspended.
        let is_late = first.duration_since(begun) > minute || end.duration_since(last) > minute + START_LIMIT;
        if !whole || !without_a_gap || is_late {
            wrong.push(format!("{}: {history:?}", backup.name_any()));
        }
    }
    assert!(wrong.is_empty(), "{} of {SITES}: {:#?}", wrong.len(), wrong.first());
    let requests = audit::requests(&world.cluster.logs, before).unwrap();
    let mut jobs: BTreeMap<&str, usize> = BTreeMap::new();
    let made_jobs = requests.iter().filter(|it| it.verb == "create" && it.resource == "jobs" && it.code == 201);
    let (backed_up, changed): (Vec<_>, Vec<_>) = made_jobs.partition(|it| it.name.contains("-backup-"));
    assert!(changed.len() >= EDITED, "{} changes of sites", changed.len());
    for request in backed_up {
        *jobs.entry(&request.name).or_default() += 1;
    }
    let doubled: Vec<_> = jobs.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    assert_eq!(jobs.len(), made, "a Job for each backup, and a backup for each Job");
    println!(
        "{made} backups of {SITES} sites in {MINUTES} minutes, each once and none missing, during {} changes; a replica was killed \
                 and one was added",
        changed.len()
    );
}
