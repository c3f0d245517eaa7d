//! Single reactions to other writers: removed labels, objects of other owners, copies of Secrets.

use std::time::Duration;

use kube_sharding_sim::Change;
use serde_json::{Value, json};

use crate::{
    cluster::{Outcome, succeeds_after_two_seconds},
    world::{BENCHES, DEPLOYMENTS, INGRESSES, JOBS, NAMESPACE, SECRETS, SITES, World, run, site},
};

const SLOT: &str = "frappe.vyogo.tech/slot";
const DATABASES: &str = "/apis/k8s.mariadb.com/v1alpha1/namespaces/shops/databases";
const DOMAINS: &str = "/apis/vyogo.tech/v1alpha1/frappedomains";

/// A collection, an object's name, and a change.
type Edit = (&'static str, &'static str, fn(&mut Value));

fn label(world: &World, collection: &str, name: &str) -> Option<String> {
    world.server.get(collection, name)?["metadata"]["labels"][SLOT].as_str().map(str::to_owned)
}

fn remove_label(world: &World, collection: &str, name: &str) {
    world.server.change(collection, name, |it| {
        it["metadata"]["labels"].as_object_mut().unwrap().remove(SLOT);
    });
}

async fn ready(world: &World, name: &str) {
    world.server.create_by_hand(SITES, &site(name));
    world.until("the site is Ready", |it| it.phase(SITES, name) == "Ready").await;
    world.rest().await;
}

/// A Job that is not watched because its label was removed gets the label back: it is neither lost nor created twice.
#[test]
fn a_job_without_its_label_is_found_again() {
    run(1, async {
        let (world, _replica) = World::with_bench(1).await;
        world.cluster.jobs(|_| Outcome::Succeeds(Duration::from_mins(3), json!({})));
        world.server.create_by_hand(SITES, &site("shop"));
        world.until("the Job exists", |it| it.exists(JOBS, "shop-init")).await;
        let (slot, uid) = (label(&world, JOBS, "shop-init"), world.uid(JOBS, "shop-init"));
        remove_label(&world, JOBS, "shop-init");
        world.until("the label is restored", |it| label(it, JOBS, "shop-init").is_some()).await;
        assert_eq!((label(&world, JOBS, "shop-init"), world.uid(JOBS, "shop-init")), (slot, uid));
        world.until("the site is Ready", |it| it.phase(SITES, "shop") == "Ready").await;
        assert_eq!(world.jobs_made(), ["bench-configure", "shop-init"]);
    });
}

/// S-7: also a site, one of its Secrets and its Ingress.
#[test]
fn removed_labels_are_restored() {
    run(2, async {
        let (world, _replica) = World::with_bench(2).await;
        ready(&world, "shop").await;
        for (collection, name) in [(SITES, "shop"), (SECRETS, "shop-db-password"), (INGRESSES, "shop-ingress")] {
            let slot = label(&world, collection, name);
            assert!(slot.is_some(), "{name}");
            remove_label(&world, collection, name);
            world.until(&format!("the label of {name} is restored"), |it| label(it, collection, name) == slot).await;
            world.rest().await;
        }
        // The Secret has a new version with the same content.
        assert_eq!(world.jobs_made(), ["bench-configure", "shop-init"]);
    });
}

/// S-7: so does a site whose label names another slot, in whose watch its owner does not see it.
#[test]
fn a_site_whose_label_was_changed_gets_it_back() {
    run(9, async {
        let (world, _one) = World::with_bench(9).await;
        let _two = world.replica(1, "two");
        world.until("both share the slots", |it| it.owners() == 2).await;
        ready(&world, "shop").await;
        let slot = label(&world, SITES, "shop");
        // Each replica owns about half of these.
        for other in (0..256).step_by(16) {
            world.server.change(SITES, "shop", |it| it["metadata"]["labels"][SLOT] = json!(other.to_string()));
            world.until(&format!("the label is back after {other}"), |it| label(it, SITES, "shop") == slot).await;
        }
    });
}

/// an owned object that was edited or deleted is restored with one write.
#[test]
fn edited_and_deleted_objects_are_restored_with_one_write() {
    run(3, async {
        let (world, _replica) = World::with_bench(3).await;
        ready(&world, "shop").await;
        let writes = |since| -> Vec<String> {
            let all = world.server.written_after(since).into_iter();
            let own = all.filter(|it| it.sender == 0 && !["leases", "slotmaps", "events"].contains(&it.place.plural()));
            own.map(|it| format!("{:?} {}", it.change, it.place.name)).collect()
        };
        let edits: [Edit; 3] = [
            (INGRESSES, "shop-ingress", |it| it["spec"]["rules"][0]["host"] = json!("other.example.com")),
            (DATABASES, "shop-db", |it| it["spec"]["mariaDbRef"]["name"] = json!("other")),
            (DOMAINS, "shop.example.com", |it| it["metadata"]["labels"] = json!({})),
        ];
        for (collection, name, edit) in edits {
            let wanted = world.server.get(collection, name).unwrap();
            let since = world.version();
            world.server.change(collection, name, edit);
            world.until(name, |it| it.server.get(collection, name).unwrap()["spec"] == wanted["spec"]).await;
            world.rest().await;
            assert_eq!(writes(since), [format!("Modified {name}")], "edited");
            let since = world.version();
            world.server.remove(collection, name);
            world
                .until(name, |it| it.server.get(collection, name).is_some_and(|it| it["spec"] == wanted["spec"]))
                .await;
            world.rest().await;
            assert!(writes(since).contains(&format!("Added {name}")), "{:?}", writes(since));
        }
    });
}

/// A lost password is not replaced; the site continues once it is restored.
#[test]
fn a_lost_secret_is_not_replaced() {
    run(4, async {
        let (world, _replica) = World::with_bench(4).await;
        ready(&world, "shop").await;
        let mut saved = Value::clone(&world.server.get(SECRETS, "shop-db-password").unwrap());
        world.server.remove(SECRETS, "shop-db-password");
        world.until("the Secret is reported as lost", |it| it.reason(SITES, "shop", "Ready") == "SecretLost").await;
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert!(!world.exists(SECRETS, "shop-db-password"));
        saved["metadata"]["resourceVersion"] = Value::Null;
        world.server.create_by_hand(SECRETS, &saved);
        world.until("the site is Ready", |it| it.phase(SITES, "shop") == "Ready").await;
    });
}

/// An existing object that has the name of a site's object is not changed, and the site reports it.
#[test]
fn an_object_of_another_owner_is_not_changed() {
    run(5, async {
        let (world, _replica) = World::with_bench(5).await;
        let other = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "shop-ingress"},
                           "spec": {"rules": [{"host": "mine.example.com"}]}});
        let made = world.server.create_by_hand(INGRESSES, &other);
        world.server.create_by_hand(SITES, &site("shop"));
        world.until("the conflict is reported", |it| it.reason(SITES, "shop", "Ready") == "WriteRejected").await;
        assert_eq!(world.server.get(INGRESSES, "shop-ingress"), Some(made));
        world.server.remove(INGRESSES, "shop-ingress");
        world.until("the site is Ready", |it| it.phase(SITES, "shop") == "Ready").await;
    });
}

/// another operator's object of the bench is rejected without a request; with a request it is adopted, and only its
/// metadata is changed.
#[test]
fn objects_of_another_operator_are_adopted_only_on_request() {
    run(6, async {
        let (world, replica) = World::with_bench(6).await;
        replica.stop().await;
        let first = world.server.all(DEPLOYMENTS)[0]["metadata"]["name"].as_str().unwrap().to_owned();
        world.server.change(DEPLOYMENTS, &first, |it| {
            let metadata = &mut it["metadata"];
            for entry in metadata["managedFields"].as_array_mut().unwrap() {
                entry["manager"] = json!("manager");
                entry["operation"] = json!("Update");
            }
            metadata["labels"] = json!({"app": "frappe"});
            metadata["annotations"] = json!({});
            it["spec"]["template"]["metadata"]["annotations"]["theirs"] = json!("yes");
        });
        let theirs = world.server.get(DEPLOYMENTS, &first).unwrap();
        let _next = world.replica(1, "one");
        world.until("the conflict is reported", |it| it.reason(BENCHES, "bench", "Ready") == "WriteRejected").await;
        assert_eq!(world.server.get(DEPLOYMENTS, &first).unwrap()["spec"], theirs["spec"]);
        world.server.change(BENCHES, "bench", |it| {
            it["metadata"]["annotations"]["frappe.vyogo.tech/adopt"] = json!("true");
        });
        let adopted = |it: &World| {
            let found = it.server.get(DEPLOYMENTS, &first).unwrap();
            found["metadata"]["annotations"]["frappe.vyogo.tech/adopted"].is_string()
        };
        world.until("it is adopted", adopted).await;
        world.until("the bench is Ready", |it| it.phase(BENCHES, "bench") == "Ready").await;
        let taken = world.server.get(DEPLOYMENTS, &first).unwrap();
        assert_eq!((&taken["spec"], &taken["metadata"]["uid"]), (&theirs["spec"], &theirs["metadata"]["uid"]));
    });
}

/// A copy of a tenant's Secret equals the original, also after the original changed.
#[test]
fn a_secret_of_another_namespace_is_copied_and_the_copy_updated() {
    run(7, async {
        let (world, _replica) = World::with_bench(7).await;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tenant"}});
        world.server.create_by_hand("/api/v1/namespaces", &namespace);
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"password": "Zmlyc3Q=", "more": "bW9yZQ=="},
            "metadata": {"name": "admin", "annotations": {"frappe.vyogo.tech/allowed-namespaces": NAMESPACE}}});
        let tenant = "/api/v1/namespaces/tenant/secrets";
        world.server.create_by_hand(tenant, &secret);
        world.server.change(BENCHES, "bench", |it| {
            it["spec"]["allowedSites"] = json!({"namespaces": {"from": "All"}});
            it["spec"]["domainConfig"] = json!({"allowedSuffixes": ["example.com"]});
        });
        let mut foreign = site("shop");
        foreign["spec"]["benchRef"]["namespace"] = json!(NAMESPACE);
        foreign["spec"]["adminPasswordSecretRef"] = json!({"name": "admin"});
        let sites = "/apis/vyogo.tech/v1alpha1/namespaces/tenant/frappesites";
        world.server.create_by_hand(sites, &foreign);
        let copied = |it: &World, password: &str| {
            let copies = it.server.all(SECRETS);
            copies.iter().any(|it| {
                it["metadata"]["annotations"]["frappe.vyogo.tech/copied-version"].is_string()
                    && it["data"] == json!({"password": password})
            })
        };
        world.until("the site is Ready", |it| it.phase(sites, "shop") == "Ready").await;
        assert!(copied(&world, "Zmlyc3Q="), "{:#?}", world.server.all(SECRETS));
        world.server.change(tenant, "admin", |it| it["data"]["password"] = json!("c2Vjb25k"));
        world.until("the copy is updated", |it| copied(it, "c2Vjb25k")).await;
    });
}

/// a deletion waits for an object with another finalizer and for a failing Job, then continues without a user.
#[test]
fn a_blocked_deletion_waits_and_continues() {
    run(8, async {
        let (world, _replica) = World::with_bench(8).await;
        let bare = world.inventory();
        ready(&world, "shop").await;
        let held = json!(["other.example.com/keep", "stand-in.k8s.mariadb.com/finalizer"]);
        world.server.change(DATABASES, "shop-db", |it| it["metadata"]["finalizers"] = held);
        world.cluster.jobs(|_| Outcome::Fails(Duration::from_secs(2), "CommandFailed"));
        world.server.remove(SITES, "shop");
        world.until("the delete Job failed", |it| it.jobs_made().contains(&"shop-delete".to_owned())).await;
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(world.exists(DATABASES, "shop-db"), "the account is removed after the database");
        world.cluster.jobs(succeeds_after_two_seconds);
        let leaves = |it: &World| {
            it.server.get(DATABASES, "shop-db").is_none_or(|it| it["metadata"]["deletionTimestamp"].is_string())
        };
        world.until("the Database is deleted", leaves).await;
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(world.exists(SITES, "shop"), "the site goes after its account");
        world.server.change(DATABASES, "shop-db", |it| it["metadata"]["finalizers"] = json!([]));
        world.until("the site is deleted", |it| !it.exists(SITES, "shop")).await;
        world.rest().await;
        let left: Vec<_> = world.inventory().difference(&bare).cloned().collect();
        assert_eq!(left, Vec::<String>::new());
    });
}

/// A status write is based on the newest version: concurrent writes of the object are not overwritten.
#[test]
fn a_status_write_overwrites_no_concurrent_write() {
    run(9, async {
        let (world, _replica) = World::with_bench(9).await;
        let server = world.server.clone();
        world.injector.intercept(move |call| {
            let status = call.place.plural() == "frappesites" && call.subresource.is_some();
            if status && call.is_write() {
                server.change(SITES, "shop", |it| {
                    let count = it["metadata"]["annotations"]["edits"].as_str().map_or(0, |it| it.parse().unwrap());
                    if count < 5 {
                        it["metadata"]["annotations"]["edits"] = json!((count + 1).to_string());
                    }
                });
            }
            kube_sharding_sim::Fault::None
        });
        ready(&world, "shop").await;
        let found = world.server.get(SITES, "shop").unwrap();
        assert_eq!(found["metadata"]["annotations"]["edits"], "5");
        let refused = world.server.requests().iter().filter(|it| it.code == 409).count();
        assert!((1..=10).contains(&refused), "{refused} writes were rejected");
        let made = world.server.written().iter().filter(|it| it.change == Change::Added && it.sender == 0).count();
        assert!(made > 0 && world.jobs_made() == ["bench-configure", "shop-init"]);
    });
}
