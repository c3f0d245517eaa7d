//! Controllers of others, driven under faults from a seed: the examples of `kube-sharding`, as their users would test theirs.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../examples/configmaps.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not run")]
mod configmaps;
#[path = "../../examples/copies.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not run")]
mod copies;

use std::{sync::Arc, time::Duration};

use kube::CustomResourceExt as _;
use kube_sharding::wire::Names;
use kube_sharding_sim::{Change, Fleet, Misfortune, Server, in_virtual_time};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::sleep;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const NOTES: &str = "/apis/example.com/v1/namespaces/default/notes";
/// Objects in each run.
const OBJECTS: usize = 8;
/// Misfortunes in each run.
const MISFORTUNES: usize = 10;

fn names() -> Names {
    Names::new("example.com", "system", "fleet")
}

fn uid(object: &Value) -> Option<&str> {
    object["metadata"]["uid"].as_str()
}

fn uid_of_owner(object: &Value) -> Option<&str> {
    object["metadata"]["ownerReferences"][0]["uid"].as_str()
}

/// Starts three replicas, to which misfortunes happen while a user edits; returns what befell them.
async fn troubled(fleet: &mut Fleet, edit: impl Fn(&mut StdRng, usize)) -> Vec<Misfortune> {
    for _ in 0..3 {
        fleet.start();
    }
    let mut befell = Vec::new();
    for turn in 0..MISFORTUNES {
        befell.push(fleet.misfortune().await);
        edit(fleet.dice(), turn);
        let pause = Duration::from_millis(fleet.dice().random_range(0..40_000));
        sleep(pause).await;
    }
    befell
}

/// Counts ConfigMaps under faults from a seed; returns what befell the fleet, and its history.
async fn counted(seed: u64) -> (Vec<Misfortune>, String) {
    let server = Server::new().with_definition(&serde_json::to_value(names().definition()).unwrap());
    let mut fleet =
        Fleet::new(seed, &server, names(), |connection, settings| configmaps::controller(connection, settings).run());
    for number in 0..OBJECTS {
        let metadata = json!({"name": format!("map-{number}"), "labels": {"example.com/count": "yes"}});
        server.create_by_hand(MAPS, &json!({"metadata": metadata, "data": {"a": "1"}}));
    }
    let befell = troubled(&mut fleet, |dice, turn| {
        let edited = dice.random_range(0..OBJECTS);
        server.change(MAPS, &format!("map-{edited}"), |map| map["data"][format!("key-{turn}")] = json!("x"));
    })
    .await;
    let is_counted = |map: &Arc<Value>| {
        let keys = map["data"].as_object().map_or(0, serde_json::Map::len).to_string();
        map["metadata"]["annotations"]["example.com/count"] == *keys
    };
    fleet.until("all are counted", |server| server.all(MAPS).iter().all(is_counted)).await;
    assert_eq!(fleet.violations("configmaps", uid), Vec::<String>::new(), "seed {seed}: {befell:?}");
    (befell, fleet.history())
}

/// Copies notes under faults from a seed; returns the history.
async fn copied(seed: u64) -> String {
    let definitions =
        [serde_json::to_value(names().definition()).unwrap(), serde_json::to_value(copies::Note::crd()).unwrap()];
    let server = definitions.iter().fold(Server::new(), Server::with_definition);
    let mut fleet =
        Fleet::new(seed, &server, names(), |connection, settings| copies::controller(connection, settings).run());
    for number in 0..OBJECTS {
        let metadata = json!({"name": format!("note-{number}")});
        server.create_by_hand(NOTES, &json!({"metadata": metadata, "spec": {"text": "a", "copies": 1}}));
    }
    let befell = troubled(&mut fleet, |dice, turn| {
        let edited = dice.random_range(0..OBJECTS);
        let spec = json!({"text": format!("text {turn}"), "copies": dice.random_range(0..4)});
        server.change(NOTES, &format!("note-{edited}"), |note| note["spec"] = spec);
    })
    .await;
    let is_copied = |server: &Server| {
        let maps = server.all(MAPS);
        server.all(NOTES).iter().all(|note| {
            let mine: Vec<_> = maps.iter().filter(|map| uid_of_owner(map) == uid(note)).collect();
            let same = mine.iter().all(|map| map["data"]["text"] == note["spec"]["text"]);
            same && note["spec"]["copies"] == mine.len() && note["status"]["copies"] == mine.len()
        })
    };
    fleet.until("all are copied", is_copied).await;
    assert_eq!(fleet.violations("notes", uid), Vec::<String>::new(), "seed {seed}: {befell:?}");
    let history = fleet.history();
    let added =
        server.written().into_iter().filter(|it| it.place.plural() == "configmaps" && it.change == Change::Added);
    assert!(added.count() > 0, "{history}");
    history
}

#[test]
fn config_maps_are_counted_whatever_befalls_the_fleet() {
    let mut all = Vec::new();
    for seed in 0..30 {
        all.extend(in_virtual_time(seed, counted(seed)).0);
    }
    let seen = |what: Misfortune| all.iter().filter(|it| **it == what).count();
    assert!(Misfortune::ALL.iter().all(|it| seen(*it) > 10), "{all:?}");
}

#[test]
fn notes_are_copied_whatever_befalls_the_fleet() {
    (0..30).for_each(|seed| drop(in_virtual_time(seed, copied(seed))));
}

#[cfg(tokio_unstable)]
fn same(seed: u64, first: &str, second: &str) {
    for (number, (one, other)) in first.lines().zip(second.lines()).enumerate() {
        assert_eq!(one, other, "seed {seed}, write {number}");
    }
    assert_eq!(first.len(), second.len(), "seed {seed}");
}

#[cfg(tokio_unstable)]
#[test]
fn a_seed_gives_the_same_history_each_time() {
    for seed in [3, 11] {
        let [first, second] = [(); 2].map(|()| in_virtual_time(seed, counted(seed)).1);
        same(seed, &first, &second);
        let [first, second] = [(); 2].map(|()| in_virtual_time(seed, copied(seed)));
        same(seed, &first, &second);
    }
    let [one, other] = [3, 4].map(|seed| in_virtual_time(seed, counted(seed)).1);
    assert_ne!(one, other);
}
