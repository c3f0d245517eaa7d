//! Two replicas, one of which is late: its caches are stale, or its write arrives after the other owns the site.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use kube_sharding::Slot;
use kube_sharding_sim::{Call, Fault, LinkFaults, Server};
use serde_json::{Value, json};

use crate::world::{INGRESSES, SECRETS, SITES, USERS, World, in_parallel, is_counted, run, site};

/// Delay of a write, longer than its sender's Lease.
const LATE: Duration = Duration::from_mins(4);
/// Writes of a site until it is Ready.
const WRITES: usize = 12;

/// S-2: a late write of a former owner changes nothing after its successor has finished.
#[test]
fn a_write_that_arrives_late_changes_nothing() {
    in_parallel(1..=WRITES, |number| {
        run(number as u64, async {
            let (world, one) = World::with_bench(number as u64).await;
            let replicas = [one, world.replica(1, "two")];
            world.until("both share the slots", |it| it.owners() == 2).await;
            world.rest().await;
            let (count, there) = (AtomicUsize::new(0), world.clone());
            let late = Arc::new(AtomicUsize::new(usize::MAX));
            let sender = Arc::clone(&late);
            world.injector.intercept(move |call: &Call| {
                if !is_counted(call) || !call.is_write() || count.fetch_add(1, Ordering::SeqCst) + 1 != number {
                    return Fault::None;
                }
                sender.store(call.sender, Ordering::SeqCst);
                ["two", "one"][call.sender].clone_into(&mut there.coordinator.lock().unwrap());
                replicas[call.sender].kill(&there);
                Fault::Late(LATE)
            });
            world.server.create_by_hand(SITES, &site("shop"));
            world.until(&format!("Ready with write {number} late"), |it| it.phase(SITES, "shop") == "Ready").await;
            world.rest().await;
            let before = (world.inventory(), world.server.get(SITES, "shop").unwrap());
            let dead = late.load(Ordering::SeqCst);
            let arrived = |it: &World| it.work().iter().rev().find(|it| it.sender == dead).map(|it| (it.at, it.code));
            let former = arrived(&world);
            tokio::time::sleep(2 * LATE).await;
            let write = arrived(&world);
            assert!(write > former, "write {number} did not arrive after the site was Ready");
            let after = (world.inventory(), world.server.get(SITES, "shop").unwrap());
            assert_eq!(after.0, before.0, "after write {number}, with response {write:?}");
            assert_eq!(after.1["status"], before.1["status"], "after write {number}, with response {write:?}");
            assert_eq!(world.jobs_made(), ["bench-configure", "shop-init"], "after write {number}");
        });
    });
}

/// Objects of a site: collection and object.
type Parts = Vec<(&'static str, Arc<Value>)>;

/// A Ready site, its Secrets and its database user.
async fn ready_site() -> (Value, Parts) {
    let (world, _one) = World::with_bench(7).await;
    world.server.create_by_hand(SITES, &site("shop"));
    world.until("the site is Ready", |it| it.is_settled(SITES, "shop")).await;
    let all = [SECRETS, USERS].into_iter().flat_map(|of| world.server.all(of).into_iter().map(move |it| (of, it)));
    let parts = all.filter(|(_, it)| it["metadata"]["labels"]["site"] == "shop").collect();
    (Value::clone(&world.server.get(SITES, "shop").unwrap()), parts)
}

/// Creates a site that another replica has reconciled, and its objects, with the uid and the slot of the site.
fn create_with_parts(server: &Server, site: &Value, parts: &Parts) {
    let former = site["metadata"]["uid"].as_str().unwrap().to_owned();
    let uid = server.create_by_hand(SITES, site)["metadata"]["uid"].as_str().unwrap().to_owned();
    let slot = json!(Slot::of_uid(&uid).to_string());
    server.change(SITES, "shop", |it| it["metadata"]["labels"]["frappe.vyogo.tech/slot"] = slot.clone());
    for (collection, part) in parts {
        let mut part: Value = serde_json::from_str(&part.to_string().replace(&former, &uid)).unwrap();
        part["metadata"]["labels"]["frappe.vyogo.tech/slot"] = slot.clone();
        server.create_by_hand(collection, &part);
    }
}

/// The watches of two kinds are not ordered: the Secrets of a site may be listed before the watch of sites delivers the site.
#[test]
fn secrets_that_are_listed_before_their_site_are_not_lost() {
    for is_created in [false, true] {
        run(1, async {
            let (mut site, parts) = ready_site().await;
            assert_eq!(parts.len(), 3, "{parts:?}");
            if !is_created {
                site["status"] = json!({"database": site["status"]["database"]});
            }
            let (world, one) = World::with_bench(1).await;
            one.kill(&world);
            "two".clone_into(&mut world.coordinator.lock().unwrap());
            let (listed, refused) = (AtomicBool::new(false), AtomicBool::new(false));
            let server = world.server.clone();
            world.injector.intercept(move |call: &Call| {
                let of_sites = call.parameter("labelSelector") == "frappe.vyogo.tech/slot" && !call.is_watch();
                if call.place.plural() == "secrets" && of_sites && !listed.swap(true, Ordering::SeqCst) {
                    create_with_parts(&server, &site, &parts);
                }
                // The first watch of sites always fails, so that it is open only some time after the Secrets are listed.
                let is_early = call.is_watch()
                    && call.place.plural() == "frappesites"
                    && (!refused.swap(true, Ordering::SeqCst) || !listed.load(Ordering::SeqCst));
                if is_early { Fault::Refused(503) } else { Fault::None }
            });
            let _two = world.replica(1, "two");
            world.until("the site is Ready", |it| it.is_settled(SITES, "shop")).await;
            world.rest().await;
            assert!(world.is_settled(SITES, "shop"), "{}", world.report());
            let asked = world.work().into_iter().filter(|it| it.sender == 1 && it.place.plural() == "secrets");
            // What they contain is read because they have other versions here than in the record.
            let asked = asked.filter(|it| it.verb != "get");
            let verbs: Vec<_> = asked.map(|it| it.verb).collect();
            // Labelled Secrets of users and Secrets of sites; then both of the site, once.
            assert_eq!(verbs, ["list"; 4], "created: {is_created}\n{}", world.report());
        });
    }
}

/// S-7: caches are stale, because watches end, stall and send duplicates, and responses are late or lost: every edit is still
/// applied, and no Job is created twice.
#[test]
fn edits_are_applied_despite_stale_caches() {
    const SITE_COUNT: usize = 5;
    for seed in 1..=3 {
        run(seed, async {
            let (world, _one) = World::with_bench(seed).await;
            let _two = world.replica(1, "two");
            world.until("both share the slots", |it| it.owners() == 2).await;
            let faults = LinkFaults {
                watch: 300,
                answer_lost: 30,
                refused: 60,
                late: 30,
                slow: Duration::from_secs(2),
                ..LinkFaults::default()
            };
            for process in [0, 1] {
                world.injector.set(process, faults);
            }
            let names: Vec<String> = (0..SITE_COUNT).map(|number| format!("site-{number}")).collect();
            for name in &names {
                world.server.create_by_hand(SITES, &site(name));
                tokio::time::sleep(Duration::from_secs(7)).await;
            }
            for name in &names {
                let host = format!("www.{name}.example.com");
                world.server.change(SITES, name, |it| it["spec"]["additionalDomains"] = json!([host]));
                tokio::time::sleep(Duration::from_secs(7)).await;
            }
            for process in [0, 1] {
                world.injector.set(process, LinkFaults::default());
            }
            let applied = |it: &World, name: &str| {
                let ingress = it.server.get(INGRESSES, &format!("{name}-ingress"));
                it.is_settled(SITES, name) && ingress.is_some_and(|it| it.to_string().contains(&format!("www.{name}")))
            };
            world.until("every edit is applied", |it| names.iter().all(|name| applied(it, name))).await;
            world.rest().await;
            let mut made = world.jobs_made();
            let all = made.len();
            made.sort();
            made.dedup();
            assert_eq!(made.len(), all, "a Job was created twice: {:?}", world.jobs_made());
            assert!(world.injector.faults().len() > 3, "{:?}", world.injector.faults());
        });
    }
}
