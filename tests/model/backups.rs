//! Removal of backups: by retention, with their SiteBackup, and the final backup of a deleted site.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use kube_sharding_sim::{Change, Written};
use serde_json::{Value, json};

use crate::{
    cluster::{Outcome, succeeds_after_two_seconds},
    world::{BACKUPS, SECRETS, SITES, World, backup, run, site},
};

const DATABASES: &str = "/apis/k8s.mariadb.com/v1alpha1/namespaces/shops/databases";

/// Backups in a storage: folder, SiteBackup and name, which ends with the backup's time.
type Stored = Arc<Mutex<BTreeSet<[String; 3]>>>;

/// Stand-in for the `transfer` container of a Job: it stores and removes backups as requested.
fn transfer(stored: &Stored, job: &Value) -> Outcome {
    let pod = &job["spec"]["template"]["spec"];
    let containers = ["initContainers", "containers"].into_iter().filter_map(|it| pod[it].as_array()).flatten();
    let Some(container) = containers.into_iter().find(|it| it["name"] == "transfer") else {
        return succeeds_after_two_seconds(job);
    };
    let request: Value = serde_json::from_str(container["args"][1].as_str().unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let folder = text(&request["folder"]);
    let mut all = stored.lock().unwrap();
    let mut gone = Vec::new();
    if let Some(new) = request["store"].as_object() {
        all.insert([folder.clone(), text(&new["siteBackup"]), text(&new["name"])]);
    }
    for (rule, kept) in [("retention", request["retention"]["keepLast"].as_u64()), ("removal", Some(0))] {
        let maker = text(&request[rule]["siteBackup"]);
        let own: Vec<_> = all.iter().filter(|it| it[0] == folder && it[1] == maker).cloned().collect();
        let old = own.len().saturating_sub(usize::try_from(kept.unwrap_or(u64::MAX)).unwrap());
        gone.extend(own.into_iter().take(old));
    }
    for it in &gone {
        all.remove(it);
    }
    let removed: Vec<&String> = gone.iter().map(|it| &it[2]).collect();
    Outcome::Succeeds(Duration::from_secs(2), json!({"bytes": 1024, "removed": removed}))
}

/// each scheduled backup is made once, retention removes the oldest backups of the same SiteBackup and site, and
/// `deletionPolicy: Delete` removes exactly the backups of its SiteBackup.
#[test]
fn retention_and_deletion_remove_exactly_their_backups() {
    run(1, async {
        let (world, _replica) = World::with_bench(1).await;
        let stored = Stored::default();
        let storage = Arc::clone(&stored);
        world.cluster.jobs(move |job| transfer(&storage, job));
        for name in ["shop", "news"] {
            world.server.create_by_hand(SITES, &site(name));
        }
        world.until("the sites are Ready", |it| ["shop", "news"].iter().all(|name| it.is_settled(SITES, name))).await;
        for (name, of, keep_last) in [("some", "shop", Some(3)), ("all", "shop", None), ("news", "news", Some(2))] {
            let mut scheduled = backup(name, of);
            scheduled["spec"]["schedule"] = json!("* * * * *");
            scheduled["spec"]["deletionPolicy"] = json!("Delete");
            if let Some(keep_last) = keep_last {
                scheduled["spec"]["retention"] = json!({"keepLast": keep_last});
            }
            world.server.create_by_hand(BACKUPS, &scheduled);
        }
        tokio::time::sleep(Duration::from_mins(6)).await;
        for name in ["some", "all", "news"] {
            world.server.change(BACKUPS, name, |it| it["spec"]["suspend"] = json!(true));
        }
        world.rest().await;
        let of = |name: &str| -> Vec<String> {
            let all = stored.lock().unwrap();
            all.iter().filter(|it| it[1] == name).map(|it| it[2].split_once('-').unwrap().1.to_owned()).collect()
        };
        let all = of("all");
        assert!((5..=6).contains(&all.len()), "{all:?}");
        assert_eq!((&of("some")[..], &of("news")[..]), (&all[all.len() - 3..], &all[all.len() - 2..]));
        let made = world.jobs_made().len();
        world.server.remove(BACKUPS, "some");
        world.until("the SiteBackup is deleted", |it| !it.exists(BACKUPS, "some")).await;
        world.rest().await;
        assert_eq!(world.jobs_made().len(), made + 1, "one Job removes them");
        assert_eq!((of("some").len(), of("all"), of("news").len()), (0, all, 2));
    });
}

/// Whether a write is the success of a Job with this component.
fn succeeded(write: &Written, component: &str) -> bool {
    let conditions = write.object["status"]["conditions"].as_array();
    write.object["metadata"]["labels"]["component"] == component
        && conditions.is_some_and(|all| all.iter().any(|it| it["type"] == "Complete"))
}

/// R-10, `deletionPolicy: Backup`: only the route is removed before the final backup has succeeded; a failure pauses the deletion,
/// which later continues without a user.
#[test]
fn a_site_is_removed_after_its_final_backup() {
    run(2, async {
        let (world, _replica) = World::with_bench(2).await;
        let mut shop = site("shop");
        shop["spec"]["deletionPolicy"] = json!("Backup");
        world.server.create_by_hand(SITES, &shop);
        world.until("the site is Ready", |it| it.is_settled(SITES, "shop")).await;
        let mut daily = backup("daily", "shop");
        daily["spec"]["schedule"] = json!("0 2 * * *");
        world.server.create_by_hand(BACKUPS, &daily);
        world.rest().await;
        world.cluster.jobs(|_| Outcome::Fails(Duration::from_secs(2), "BucketMissing"));
        let deleted = world.version();
        world.server.remove(SITES, "shop");
        world.until("the final backup failed", |it| it.reason(SITES, "shop", "Ready") == "FinalBackupFailed").await;
        world.cluster.jobs(succeeds_after_two_seconds);
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(world.reason(SITES, "shop", "Ready"), "FinalBackupFailed");
        assert!(world.exists(DATABASES, "shop-db") && world.exists(SECRETS, "shop-db-password"));
        assert!(
            world.holds_within(Duration::from_hours(1), |it| !it.exists(SITES, "shop")).await,
            "{}",
            world.report()
        );
        let writes = world.server.written_after(deleted);
        let backed_up = writes.iter().position(|it| succeeded(it, "site-backup")).expect("a backup");
        let removes = |it: &Written| {
            let leaves = it.change == Change::Deleted || it.object["metadata"]["deletionTimestamp"].is_string();
            let made = it.change == Change::Added && it.place.name.starts_with("shop-delete");
            made || (leaves && ["databases", "users", "grants", "secrets"].contains(&it.place.plural()))
        };
        let first = writes.iter().position(removes).expect("a removal");
        assert!(backed_up < first, "{} {} was removed first", writes[first].place.plural(), writes[first].place.name);
    });
}

/// a SiteBackup waits for a site that does not exist yet, and nothing holds it when the site is gone.
#[test]
fn a_sitebackup_waits_for_its_site_and_outlives_it() {
    run(3, async {
        let (world, _replica) = World::with_bench(3).await;
        let mut once = backup("once", "shop");
        once["spec"]["deletionPolicy"] = json!("Delete");
        world.server.create_by_hand(BACKUPS, &once);
        world.until("its site is missed", |it| it.reason(BACKUPS, "once", "Ready") == "SiteNotFound").await;
        world.server.create_by_hand(SITES, &site("shop"));
        world.until("the backup is made", |it| it.phase(BACKUPS, "once") == "Succeeded").await;
        world.rest().await;
        let finalizers = |it: &World| it.server.get(BACKUPS, "once").unwrap()["metadata"]["finalizers"].clone();
        assert_eq!(finalizers(&world).as_array().map(Vec::len), Some(1));
        world.server.remove(SITES, "shop");
        world.until("the site is gone", |it| !it.exists(SITES, "shop")).await;
        world.rest().await;
        world.server.remove(BACKUPS, "once");
        world.until("the SiteBackup is gone", |it| !it.exists(BACKUPS, "once")).await;
    });
}
