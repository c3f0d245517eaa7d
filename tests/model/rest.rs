//! without changes, the only requests are watches, Lease renewals and reads of the slot map.

use std::time::Duration;

use kube_sharding_sim::Requested;

use crate::world::{BACKUPS, SITES, World, backup, run, site};

fn shown(asked: &[Requested]) -> Vec<String> {
    asked.iter().map(|it| format!("{} {} {}", it.verb, it.place.plural(), it.place.name)).collect()
}

/// A cluster in which every operation has finished.
async fn settled(seed: u64) -> (World, crate::world::Replica) {
    let (world, replica) = World::with_bench(seed).await;
    for name in ["shop", "news"] {
        world.server.create_by_hand(SITES, &site(name));
    }
    world
        .until("both sites are Ready", |it| ["shop", "news"].iter().all(|name| it.phase(SITES, name) == "Ready"))
        .await;
    world.server.create_by_hand(BACKUPS, &backup("once", "shop"));
    world.until("the backup is made", |it| it.phase(BACKUPS, "once") == "Succeeded").await;
    world.rest().await;
    (world, replica)
}

#[test]
fn an_hour_without_changes_costs_no_request() {
    run(1, async {
        let (world, _replica) = settled(1).await;
        let before = world.work().len();
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(shown(&world.work()[before..]), Vec::<String>::new());
    });
}

/// Every object is sent again, every watch is restarted, and finished Jobs are removed after an hour.
#[test]
fn repeated_events_cost_no_request() {
    run(2, async {
        let (world, _replica) = settled(2).await;
        let before = world.work().len();
        world.server.replay();
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(shown(&world.work()[before..]), Vec::<String>::new(), "repeated events");
        world.server.end_watches();
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(shown(&world.work()[before..]), Vec::<String>::new(), "restarted watches");
        tokio::time::sleep(Duration::from_hours(3)).await;
        let since = shown(&world.work()[before..]);
        assert_eq!(since, Vec::<String>::new(), "removed Jobs");
        assert!(!world.jobs().iter().any(|it| it.starts_with("shop")), "{:?}", world.jobs());
    });
}

/// After a gap in the history (410 Gone), everything is listed once, and nothing is written.
#[test]
fn a_gap_costs_one_list_of_each_kind() {
    run(3, async {
        let (world, _replica) = settled(3).await;
        let before = world.work().len();
        world.server.compact();
        tokio::time::sleep(Duration::from_mins(2)).await;
        let since = world.work()[before..].to_vec();
        let mut lists: Vec<String> = since.iter().map(|it| it.place.plural().to_owned()).collect();
        assert!(since.iter().all(|it| it.verb == "list") && lists.len() > 15, "{:?}", shown(&since));
        let all = lists.len();
        lists.sort();
        lists.dedup();
        // Secrets, Jobs and SiteBackups are watched with several selectors.
        assert!(all <= lists.len() + 6, "{:?}", shown(&since));
        // Changes after the gap are observed.
        world.server.change(SITES, "shop", |it| it["spec"]["maintenanceMode"] = true.into());
        world.until("the edit after the gap is applied", |it| it.is_settled(SITES, "shop")).await;
    });
}

/// a new process lists everything and writes nothing.
#[test]
fn a_restart_writes_nothing() {
    run(4, async {
        let (world, replica) = settled(4).await;
        replica.stop().await;
        let before = world.work().len();
        let _next = world.replica(1, "one");
        tokio::time::sleep(Duration::from_mins(2)).await;
        let since = world.work()[before..].to_vec();
        assert!(since.len() > 15, "{:?}", shown(&since));
        assert!(since.iter().all(|it| ["list", "get"].contains(&it.verb)), "{:?}", shown(&since));
    });
}
