//! A slot is handed over between any two requests: the former owner writes nothing afterwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kube_sharding::Slot;
use kube_sharding_sim::{BY_HAND, Call, Change, Fault, Written};
use serde_json::Value;

use crate::world::{SITES, World, in_parallel, is_counted, run, site};

/// How the owner of the site leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// It releases its slots.
    Stopped,
    /// It is killed; its Lease expires.
    Killed,
}

/// The pod of a slot's owner in a slot map.
pub(crate) fn owner(map: &Value, slot: usize) -> Option<String> {
    let index = usize::try_from(map["spec"]["owners"][slot].as_i64()?).ok()?;
    let member = map["spec"]["members"][index].as_str()?;
    Some(member.split('_').next()?.to_owned())
}

/// Whether a write belongs to the site.
fn is_of_site(write: &Written) -> bool {
    let kinds = ["leases", "slotmaps", "events", "pods"];
    write.sender != BY_HAND && !kinds.contains(&write.place.plural()) && write.place.name.starts_with("shop")
}

/// S-1, S-3: each write for the site must be by the owner in the slot map at that moment.
fn only_owners_wrote(world: &World, slot: usize, what: &str) -> usize {
    let pods = ["uid-of-one", "uid-of-two"];
    let (mut owns, mut writers) = (None, Vec::new());
    for write in world.server.written() {
        if write.place.plural() == "slotmaps" && write.change != Change::Deleted {
            owns = owner(&write.object, slot);
        } else if is_of_site(&write) {
            assert_eq!(
                owns.as_deref(),
                Some(pods[write.sender]),
                "{what}: {} {}",
                write.place.plural(),
                write.place.name
            );
            writers.push(write.sender);
        }
    }
    writers.dedup();
    writers.len()
}

fn handed_over(number: usize, leaves: Leaves) {
    run(number as u64, async {
        let (world, one) = World::with_bench(number as u64).await;
        let replicas = Arc::new([one, world.replica(1, "two")]);
        world.until("both share the slots", |it| it.owners() == 2).await;
        world.rest().await;
        let (count, leaver) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
        let (counted, left, all, there) =
            (Arc::clone(&count), Arc::clone(&leaver), Arc::clone(&replicas), world.clone());
        world.injector.intercept(move |call: &Call| {
            if is_counted(call) && counted.fetch_add(1, Ordering::SeqCst) + 1 == number {
                left.store(call.sender, Ordering::SeqCst);
                ["two", "one"][call.sender].clone_into(&mut there.coordinator.lock().unwrap());
                if leaves == Leaves::Killed {
                    all[call.sender].kill(&there);
                    return Fault::Lost;
                }
                all[call.sender].end();
            }
            Fault::None
        });
        world.server.create_by_hand(SITES, &site("shop"));
        let what = format!("{leaves:?} at request {number}");
        world.until(&format!("Ready, the owner {what}"), |it| it.phase(SITES, "shop") == "Ready").await;
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_ne!(leaver.load(Ordering::SeqCst), usize::MAX, "{what}: no replica left");
        let found = world.server.get(SITES, "shop").unwrap();
        let slot = Slot::of_uid(found["metadata"]["uid"].as_str().unwrap()).to_string().parse().unwrap();
        only_owners_wrote(&world, slot, &what);
        assert!(world.is_settled(SITES, "shop"), "{what}");
        assert_eq!(world.jobs_made(), ["bench-configure", "shop-init"], "{what}");
    });
}

#[test]
fn a_site_is_handed_over_before_any_request() {
    in_parallel(1..=12, |number| handed_over(number, Leaves::Stopped));
}

#[test]
fn a_site_is_taken_over_before_any_request() {
    in_parallel(1..=12, |number| handed_over(number, Leaves::Killed));
}
