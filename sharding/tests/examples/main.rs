//! The examples, each as a fleet of three replicas on the model API server in virtual time: one crashes, one ends, one joins,
//! and all that they write is right, written once, and by the owner.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[path = "../../examples/configmaps.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not run")]
mod configmaps;
#[path = "../../examples/copies.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not run")]
mod copies;
#[path = "../../examples/quotas.rs"]
#[allow(dead_code, unreachable_pub, reason = "its main is not run")]
mod quotas;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::CustomResourceExt as _;
use kube_sharding::{
    Connection, Kind, Objects, Outcome, Settings, Sharded,
    key::Key,
    named::{Known, Named},
    sharded,
    wire::Names,
};
use kube_sharding_sim::{BY_HAND, Change, Fault, Fleet, LinkFaults, Requested, Server, Written, in_virtual_time};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const NOTES: &str = "/apis/example.com/v1/namespaces/default/notes";
/// Enough that each of three replicas has some.
const NOTES_MADE: usize = 24;
/// Longer than it takes to notice a crash and to take over.
const SETTLED: Duration = Duration::from_secs(60);

fn names() -> Names {
    Names::new("example.com", "system", "fleet")
}

fn server() -> Server {
    let definitions =
        [serde_json::to_value(names().definition()).unwrap(), serde_json::to_value(copies::Note::crd()).unwrap()];
    definitions.iter().fold(Server::new(), Server::with_definition)
}

/// So many ConfigMaps of one key.
fn create_maps(server: &Server, number: usize) {
    for number in 0..number {
        let metadata =
            json!({"name": format!("map-{number}"), "namespace": "default", "labels": {"example.com/count": "yes"}});
        server.create_by_hand(MAPS, &json!({"metadata": metadata, "data": {"a": "1"}}));
    }
}

/// A fleet of one of the examples, with so many replicas.
fn fleet(server: &Server, controller: fn(Connection, Settings) -> Sharded<Objects>, replicas: usize) -> Fleet {
    let mut fleet = Fleet::new(1, server, names(), move |connection, settings| controller(connection, settings).run());
    for _ in 0..replicas {
        fleet.start();
    }
    fleet
}

/// What replicas wrote of a kind.
fn written(server: &Server, plural: &str) -> Vec<Written> {
    let written = server.written().into_iter();
    written.filter(|it| it.place.plural() == plural && it.sender != BY_HAND).collect()
}

/// Who wrote of a kind, but for the first writes.
fn writers(server: &Server, plural: &str, after: usize) -> BTreeSet<usize> {
    written(server, plural).iter().skip(after).map(|it| it.sender).collect()
}

/// Whether each ConfigMap has this count.
fn is_counted(keys: usize) -> impl Fn(&Server) -> bool {
    let wanted = json!(keys.to_string());
    move |server| server.all(MAPS).iter().all(|map| map["metadata"]["annotations"]["example.com/count"] == wanted)
}

/// Three replicas count; one crashes, one ends, one joins: each change is counted once.
#[test]
fn config_maps_are_counted_once_for_each_change() {
    in_virtual_time(1, async {
        let server = server();
        create_maps(&server, 30);
        let mut fleet = fleet(&server, configmaps::controller, 3);
        fleet.until("all are counted", is_counted(1)).await;
        sleep(SETTLED).await;
        let change = |keys: usize| {
            for number in 0..30 {
                server.change(MAPS, &format!("map-{number}"), |map| map["data"][format!("key-{keys}")] = json!("x"));
            }
        };
        change(2);
        fleet.until("all are counted again", is_counted(2)).await;
        assert_eq!(writers(&server, "configmaps", 0), [0, 1, 2].into(), "all three work");
        sleep(SETTLED).await;
        let patches =
            server.requests().iter().filter(|it| it.verb == "patch" && it.place.plural() == "configmaps").count();
        assert_eq!(patches, 2 * 30, "what is right already is not written");
        fleet.kill(2);
        fleet.stop(0);
        let newcomer = fleet.start();
        change(3);
        fleet.until("all are counted after a crash", is_counted(3)).await;
        sleep(SETTLED).await;
        assert_eq!(written(&server, "configmaps").len(), 3 * 30, "nothing is written twice");
        let last = writers(&server, "configmaps", 2 * 30);
        assert!(last.contains(&newcomer), "the newcomer works: {last:?}");
    });
}

/// What is dropped acts no more, and its objects get another owner.
#[test]
fn a_dropped_replica_ends_with_all_its_tasks() {
    in_virtual_time(4, async {
        let server = server();
        create_maps(&server, 1);
        let ended = CancellationToken::new();
        let drops = ended.clone();
        let mut fleet = Fleet::new(4, &server, names(), move |connection, settings| {
            let (run, dropped) = (configmaps::controller(connection, settings).run(), drops.clone());
            async move {
                tokio::select! { ended = run => ended, () = dropped.cancelled() => Ok(()) }
            }
        });
        fleet.start();
        fleet.until("it is counted", is_counted(1)).await;
        ended.cancel();
        let dropped = Instant::now();
        sleep(SETTLED).await;
        let after = |it: &&Requested| it.at > dropped + Duration::from_secs(1);
        assert_eq!(server.requests().iter().find(after).map(|it| it.place.clone()), None);
        let _two = self::fleet(&server, configmaps::controller, 1);
        server.change(MAPS, "map-0", |map| map["metadata"]["annotations"] = json!({}));
        fleet.until("another counts it", is_counted(1)).await;
    });
}

/// A replica that others have fenced is told so once, and then joins again.
#[test]
fn a_fenced_replica_is_told_and_joins_again() {
    in_virtual_time(5, async {
        let server = server();
        let (told, mut fenced) = tokio::sync::mpsc::unbounded_channel();
        let mut fleet = Fleet::new(5, &server, names(), move |connection, settings| {
            let (told, member) = (told.clone(), settings.member.clone());
            configmaps::controller(connection, settings).on_fenced(move || told.send(member.clone()).unwrap()).run()
        });
        let one = fleet.start();
        fleet.start();
        sleep(SETTLED).await;
        assert!(fenced.try_recv().is_err(), "nothing has happened");
        fleet.injector().set(one, LinkFaults { cut: true, ..LinkFaults::default() });
        sleep(2 * SETTLED).await;
        fleet.injector().set(one, LinkFaults::default());
        assert_eq!(timeout(SETTLED, fenced.recv()).await.unwrap().unwrap(), format!("replica-{one}"));
        sleep(SETTLED).await;
        create_maps(&server, 30);
        sleep(SETTLED).await;
        let writers = writers(&server, "configmaps", 0);
        assert_eq!((writers, fenced.try_recv().is_err()), ([0, 1].into(), true), "it works again");
    });
}

/// A note has as many copies as it says, also after an edit, a deleted copy and a crash.
#[test]
fn notes_have_their_copies() {
    in_virtual_time(2, async {
        let server = server();
        for number in 0..NOTES_MADE {
            let metadata = json!({"name": format!("note-{number}"), "namespace": "default"});
            server.create_by_hand(NOTES, &json!({"metadata": metadata, "spec": {"text": "a", "copies": 2}}));
        }
        let has = |text: &'static str, copies: usize| {
            move |server: &Server| {
                let maps = server.all(MAPS);
                let counted = server.all(NOTES).iter().all(|note| note["status"]["copies"] == copies);
                counted && maps.len() == NOTES_MADE * copies && maps.iter().all(|map| map["data"]["text"] == text)
            }
        };
        let mut fleet = fleet(&server, copies::controller, 3);
        fleet.until("each has two copies", has("a", 2)).await;
        sleep(SETTLED).await;
        server.remove(MAPS, "note-3-1");
        fleet.until("a deleted copy is made again", has("a", 2)).await;
        fleet.kill(1);
        for number in 0..NOTES_MADE {
            server.change(NOTES, &format!("note-{number}"), |note| note["spec"] = json!({"text": "b", "copies": 3}));
        }
        fleet.until("each has three copies of the new text", has("b", 3)).await;
        sleep(SETTLED).await;
        server.change(NOTES, "note-0", |note| note["spec"]["copies"] = json!(0));
        fleet.until("it has no copies", |server| server.all(MAPS).len() == (NOTES_MADE - 1) * 3).await;
        sleep(SETTLED).await;
        let made = written(&server, "configmaps").iter().filter(|it| it.change == Change::Added).count();
        assert_eq!(made, NOTES_MADE * 3 + 1, "no copy is made twice");
        assert_eq!(writers(&server, "notes", 0), [0, 1, 2].into(), "all three work");
    });
}

/// Quotas are set by one replica, and by another when that crashes.
#[test]
fn quotas_are_set_by_the_coordinator() {
    const QUOTAS: &str = "/api/v1/namespaces/team-0/resourcequotas";
    const NAMESPACES: &str = "/api/v1/namespaces";
    in_virtual_time(3, async {
        let server = server();
        server.create_by_hand(NAMESPACES, &json!({"metadata": {"name": "system"}}));
        for number in 0..3 {
            let metadata = json!({"name": format!("team-{number}"), "labels": {"example.com/pods": "10"}});
            server.create_by_hand(NAMESPACES, &json!({"metadata": metadata}));
        }
        let mut fleet = fleet(&server, quotas::controller, 2);
        let pods = |pods: &'static str| {
            move |server: &Server| server.get(QUOTAS, "pods").is_some_and(|it| it["spec"]["hard"]["pods"] == pods)
        };
        fleet.until("the quota is set", pods("10")).await;
        sleep(SETTLED).await;
        server.change(QUOTAS, "pods", |quota| quota["spec"]["hard"]["pods"] = json!("999"));
        fleet.until("an edit is undone", pods("10")).await;
        let first = writers(&server, "resourcequotas", 0);
        assert_eq!(first.len(), 1, "one coordinates: {first:?}");
        let first = first.into_iter().next().unwrap();
        fleet.kill(first);
        let before = written(&server, "resourcequotas").len();
        server.change(NAMESPACES, "team-0", |it| it["metadata"]["labels"]["example.com/pods"] = json!("20"));
        fleet.until("another sets it", pods("20")).await;
        assert_eq!(writers(&server, "resourcequotas", before), [1 - first].into());
    });
}

/// Requests by verb and kind since a time, but for those by hand.
fn requests(server: &Server, since: Instant) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for it in server.requests().into_iter().filter(|it| it.at >= since && it.sender != BY_HAND) {
        *found.entry(format!("{} {}", it.verb, it.place.plural())).or_default() += 1;
    }
    found
}

/// The costs in README.md.
#[test]
fn costs_are_those_of_the_document() {
    in_virtual_time(5, async {
        let server = server();
        create_maps(&server, 100);
        let mut fleet = fleet(&server, configmaps::controller, 2);
        sleep(2 * SETTLED).await;
        let since = Instant::now();
        sleep(SETTLED).await;
        let idle = requests(&server, since);
        println!("two members in a minute without changes: {idle:?}");
        let of = |found: &BTreeMap<String, usize>, what: &str| found.get(what).copied().unwrap_or_default();
        // A renewal every 3 s, and with each a read of the slot map.
        assert!((38..=42).contains(&of(&idle, "update leases")), "{idle:?}");
        assert!((38..=42).contains(&of(&idle, "get slotmaps")), "{idle:?}");
        let others = |found: &BTreeMap<String, usize>| {
            let is_other =
                |what: &str| !what.contains("leases") && !what.contains("slotmaps") && !what.starts_with("watch");
            found.iter().filter(|(what, _)| is_other(what)).map(|(_, count)| count).sum::<usize>()
        };
        assert_eq!(others(&idle), 0, "{idle:?}");
        let since = Instant::now();
        let third = fleet.start();
        sleep(SETTLED).await;
        let joined = requests(&server, since);
        println!("a third one joins: {joined:?}");
        assert!(of(&joined, "update slotmaps") <= 4, "{joined:?}");
        assert_eq!(written(&server, "configmaps").len(), 100, "no object is written");
        let since = Instant::now();
        fleet.kill(third);
        sleep(SETTLED).await;
        let of_map = |it: &&Written| it.place.plural() == "slotmaps" && it.at >= since;
        let taken = server.written().iter().filter(of_map).map(|it| it.at - since).max().expect("it is taken over");
        println!("slots of one that died are owned again after {taken:?}");
        assert!(taken < Duration::from_secs(20), "{taken:?}");
    });
}

/// A single object is watched from its first use on.
#[test]
fn a_named_object_is_known_once_it_was_listed() {
    in_virtual_time(6, async {
        let server = server();
        create_maps(&server, 1);
        let (named, seen) = (Arc::new(OnceLock::<Named<Secret>>::new()), Arc::new(Mutex::new(Vec::new())));
        let (kept, log) = (named, Arc::clone(&seen));
        let mut fleet = Fleet::new(6, &server, names(), move |connection, settings| {
            let (kept, log) = (Arc::clone(&kept), Arc::clone(&log));
            let maps = sharded(Kind::<ConfigMap>::new(), connection, settings);
            let reconcile = maps.reconcile(move |_, context| {
                let (log, told) = (Arc::clone(&log), Arc::clone(&log));
                let secrets = kept.get_or_init(|| {
                    Named::new(context.session().clone(), (), move || told.lock().unwrap().push("changed".to_owned()))
                });
                let known = match secrets.get(&Key::new("default", "token")) {
                    Known::NotYet => "not yet".to_owned(),
                    Known::Absent => "absent".to_owned(),
                    Known::There(secret) => format!("{:?}", secret.metadata.labels),
                };
                log.lock().unwrap().push(known);
                async { Ok::<_, kube::Error>(Outcome::After(Duration::from_secs(10))) }
            });
            reconcile.run()
        });
        fleet.start();
        sleep(SETTLED).await;
        let metadata = json!({"name": "token", "namespace": "default", "labels": {"a": "b"}});
        server.create_by_hand("/api/v1/namespaces/default/secrets", &json!({"metadata": metadata}));
        sleep(SETTLED).await;
        let mut seen = seen.lock().unwrap().clone();
        seen.dedup();
        assert_eq!(seen, ["not yet", "changed", "absent", "changed", r#"Some({"a": "b"})"#]);
        let watches = server.requests().iter().filter(|it| it.place.plural() == "secrets" && it.verb == "list").count();
        assert_eq!(watches, 1, "it is listed once");
    });
}

/// What changed before the copies were listed is reconciled when they are.
#[test]
fn notes_wait_for_the_list_of_their_copies() {
    const LATE: Duration = Duration::from_secs(5);
    in_virtual_time(7, async {
        let server = server();
        let metadata = json!({"name": "note", "namespace": "default"});
        server.create_by_hand(NOTES, &json!({"metadata": metadata, "spec": {"text": "a", "copies": 2}}));
        let mut fleet = fleet(&server, copies::controller, 0);
        fleet.injector().intercept(|call| {
            let lists_copies = call.place.plural() == "configmaps" && !call.is_watch() && !call.is_write();
            if lists_copies { Fault::Late(LATE) } else { Fault::None }
        });
        fleet.start();
        fleet.until("it has its copies", |server| server.all(MAPS).len() == 2).await;
        let listed = server.requests().into_iter().find(|it| it.place.plural() == "configmaps" && it.verb == "list");
        let (listed, written) = (listed.expect("a list").at, written(&server, "configmaps")[0].at);
        assert!(written > listed, "nothing is written before the copies are known");
    });
}

/// Who ends makes room for another coordinator at once, however long the election's own requests take.
#[test]
#[cfg(feature = "election")]
fn who_ends_steps_down() {
    in_virtual_time(8, async {
        let server = server();
        let mut fleet = Fleet::new(8, &server, names(), |connection, settings| {
            // Elected by the Lease, as without a test.
            quotas::controller(connection, Settings { election: None, ..settings }).run()
        });
        fleet.injector().intercept(|call| {
            let elects = call.place.name == "fleet-coordinator";
            if elects { Fault::Late(Duration::from_millis(500)) } else { Fault::None }
        });
        let one = fleet.start();
        sleep(SETTLED).await;
        let holder = || {
            let lease = server.get("/apis/coordination.k8s.io/v1/namespaces/system/leases", "fleet-coordinator");
            lease.map(|it| it["spec"]["holderIdentity"].clone())
        };
        assert_eq!(holder(), Some(json!(format!("fleet-replica-{one}"))));
        fleet.stop(one);
        sleep(SETTLED).await;
        assert_eq!(holder(), Some(json!("")));
    });
}
