//! Which objects the API server selects for a replica.

use std::{
    collections::BTreeMap,
    future::ready,
    sync::{Arc, Mutex},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube_sharding::{Kind, Outcome, sharded};
use kube_sharding_sim::{Fault, Fleet, Server, in_virtual_time};
use tokio::time::sleep;

use super::{SETTLED, names, server};

const MAPS_MADE: usize = 20;

/// The last watches of two replicas of a controller of ConfigMaps, and how many objects each reads of them: whether a range of
/// the hash was asked for, and how many ConfigMaps a list of that range has.
fn watches(seed: u64, of: fn(Server) -> Server) -> BTreeMap<usize, (bool, usize)> {
    in_virtual_time(seed, async move {
        let server = of(server(MAPS_MADE));
        let mut fleet = Fleet::new(seed, &server, names(), |connection, settings| {
            let maps = sharded(Kind::<ConfigMap>::new(), connection, settings);
            maps.reconcile(|_, _| ready(Ok::<_, kube::Error>(Outcome::Done))).run()
        });
        let watches = Arc::new(Mutex::new(BTreeMap::new()));
        let (log, answering) = (Arc::clone(&watches), server.clone());
        fleet.injector().intercept(move |call| {
            if call.is_watch() && call.place.plural() == "configmaps" {
                let mut list = call.clone();
                list.query.remove("watch");
                let kube_sharding_sim::Answer::Whole(200, list) = answering.answer(&list) else { return Fault::None };
                let asked = call.query.contains_key("shardSelector");
                log.lock().unwrap().insert(call.sender, (asked, list["items"].as_array().unwrap().len()));
            }
            Fault::None
        });
        fleet.start();
        fleet.start();
        // Each watch is begun again after a minute, and then as a whole.
        sleep(4 * SETTLED).await;
        watches.lock().unwrap().clone()
    })
}

#[test]
fn a_server_that_can_selects_what_a_replica_owns() {
    let watches = watches(11, Server::selecting_shards);
    assert!(watches.len() == 2 && watches.values().all(|(asked, _)| *asked), "{watches:?}");
    assert_eq!(watches.values().map(|(_, objects)| objects).sum::<usize>(), MAPS_MADE, "{watches:?}");
}

#[test]
fn a_server_that_cannot_is_not_asked() {
    let watches = watches(12, |it| it);
    assert_eq!(watches, BTreeMap::from([(0, (false, MAPS_MADE)), (1, (false, MAPS_MADE))]));
}
