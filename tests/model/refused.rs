//! Writes that are refused: what depends on them waits, nothing else is written, and all continues by itself.

use std::time::Duration;

use kube_sharding_sim::Fault;
use serde_json::json;
use tokio::time::Instant;

use crate::world::{BACKUPS, SECRETS, SITES, World, backup, run, site};

const DATABASES: &str = "/apis/k8s.mariadb.com/v1alpha1/namespaces/shops/databases";

/// a site's objects are created in order, so that none comes after a rejected one.
#[test]
fn nothing_is_created_after_a_rejected_secret() {
    run(1, async {
        let (world, _replica) = World::with_bench(1).await;
        world.refuse_writes(("secrets", "shop-db-password"), 403, || true);
        world.server.create_by_hand(SITES, &site("shop"));
        world.until("the Secret is rejected", |it| it.reason(SITES, "shop", "Ready") == "WriteRejected").await;
        world.rest().await;
        assert!(!world.exists(DATABASES, "shop-db"), "{}", world.report());
        world.injector.stop_intercepting();
        world.until("the site is Ready", |it| it.phase(SITES, "shop") == "Ready").await;
    });
}

/// a backup's Job waits until the Secrets of its storage are watched, and does not count as running before.
#[test]
fn a_backup_waits_for_a_rejected_write_of_its_secret() {
    run(2, async {
        let (world, _replica) = World::with_bench(2).await;
        world.server.create_by_hand(SITES, &site("shop"));
        world.until("the site is Ready", |it| it.is_settled(SITES, "shop")).await;
        let keys = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "data": {}});
        world.server.create_by_hand(SECRETS, &keys);
        world.refuse_writes(("secrets", "keys"), 403, || true);
        let before = world.version();
        let mut once = backup("once", "shop");
        once["spec"]["storage"]["s3"]["credentialsSecretRef"] = json!({"name": "keys"});
        world.server.create_by_hand(BACKUPS, &once);
        world.until("the label is rejected", |it| it.reason(BACKUPS, "once", "Ready") == "WriteRejected").await;
        tokio::time::sleep(Duration::from_mins(10)).await;
        assert_eq!(world.jobs_made(), ["bench-configure", "shop-init"]);
        let runs =
            world.server.written_after(before).into_iter().filter(|it| it.object["status"]["phase"] == "Running");
        assert_eq!(runs.filter(|it| it.place.plural() == "sitebackups").count(), 0, "{}", world.report());
        world.injector.stop_intercepting();
        world.until("the backup is made", |it| it.phase(BACKUPS, "once") == "Succeeded").await;
    });
}

/// a Job whose creation fails for a minute is created, although nothing else changes meanwhile.
#[test]
fn a_job_whose_creation_fails_is_created_later() {
    run(3, async {
        let (world, _replica) = World::with_bench(3).await;
        let end = Instant::now() + Duration::from_mins(1);
        world.refuse_writes(("jobs", "shop-init"), 500, move || Instant::now() < end);
        world.server.create_by_hand(SITES, &site("shop"));
        world.until("the site is Ready", |it| it.phase(SITES, "shop") == "Ready").await;
    });
}

/// S-7: a reconcile whose write the gate refuses, because the Lease was not renewed in time, runs again.
#[test]
fn a_reconcile_continues_after_a_suspension() {
    run(4, async {
        let (world, _replica) = World::with_bench(4).await;
        world.server.create_by_hand(SITES, &site("shop"));
        world.until("the site is Ready", |it| it.is_settled(SITES, "shop")).await;
        let mail =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mail"}, "data": {"password": "bQ=="}});
        world.server.create_by_hand(SECRETS, &mail);
        world.rest().await;
        // A replica may act for 12 s after a renewal, which it sends every 3 s; after 15 s others fence it.
        let (silence, edit, answer) =
            (Duration::from_secs(14), Duration::from_millis(8500), Duration::from_millis(12_500));
        let begun = Instant::now();
        world.injector.intercept(move |call| {
            let reads = !call.is_write() && !call.is_watch() && call.place.name == "mail";
            let renews = call.is_write() && call.place.plural() == "leases";
            match begun.elapsed() {
                passed if reads => Fault::Late(answer.saturating_sub(passed)),
                passed if renews && passed < silence => Fault::Lost,
                _ => Fault::None,
            }
        });
        tokio::time::sleep(edit).await;
        world.server.change(SITES, "shop", |it| {
            it["spec"]["siteConfigSecretRefs"] = json!({"mail_password": {"name": "mail", "key": "password"}});
        });
        world.until("the setting is applied", |it| it.is_settled(SITES, "shop")).await;
        assert!(
            world.server.requests().iter().any(|it| it.place.name == "mail" && it.verb == "get"),
            "the Secret was read"
        );
    });
}
