//! What a site costs in memory allocations, those of the model server included: a count that does not depend on the
//! machine, and that grows when objects are parsed, copied or compared more often.

use allocation_counter::measure;

use crate::world::{SITES, World, run, site};

/// Sites whose cost is averaged.
const MANY: u64 = 10;
/// Most allocations of one site until it is Ready: some 5 % above what they are. Lower it when they become fewer.
const SITE_MAX: u64 = 57_000;

/// Allocations of a replica that creates so many sites, one after another.
fn allocations(sites: u64) -> u64 {
    let way = async {
        let (world, _replica) = World::with_bench(1).await;
        for number in 0..sites {
            let name = format!("shop-{number}");
            world.server.create_by_hand(SITES, &site(&name));
            world.until("the site is Ready", |it| it.phase(SITES, &name) == "Ready").await;
        }
        world.rest().await;
    };
    measure(|| run(1, way)).count_total
}

#[test]
fn a_site_costs_few_allocations() {
    let site = (allocations(1 + MANY) - allocations(1)) / MANY;
    println!("{site} allocations of a site");
    assert!(site <= SITE_MAX, "{site} allocations of a site");
}
