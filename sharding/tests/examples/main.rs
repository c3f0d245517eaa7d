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
    election::{Boxed, Election},
    key::Key,
    named::{Known, Named},
    sharded,
    sharded::Error,
    wire::Names,
};
use kube_sharding_sim::{
    BY_HAND, Change, Fault, FaultInjector, LinkFaults, Network, Requested, Server, VirtualClock, Written,
    in_virtual_time,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const NOTES: &str = "/apis/example.com/v1/namespaces/default/notes";
/// Enough that each of three replicas has some.
const NOTES_MADE: usize = 24;
/// Longer than it takes to notice a crash and to take over.
const SETTLED: Duration = Duration::from_mins(1);

fn names() -> Names {
    Names::new("example.com", "system", "fleet")
}

/// Elects the replica that is named.
struct Elected(Arc<Mutex<&'static str>>);

impl Election for Elected {
    fn campaign(&self) -> Boxed<Option<Arc<str>>> {
        let lease = names().lease(*self.0.lock().unwrap());
        Box::pin(async move { Some(lease.into()) })
    }

    fn step_down(&self) -> Boxed<()> {
        Box::pin(async {})
    }
}

/// A cluster in which replicas of one controller run.
struct World {
    server: Server,
    injector: FaultInjector,
    elected: Arc<Mutex<&'static str>>,
    controller: fn(Connection, Settings) -> Sharded<Objects>,
}

impl World {
    fn new(controller: fn(Connection, Settings) -> Sharded<Objects>) -> Self {
        let definitions =
            [serde_json::to_value(names().definition()).unwrap(), serde_json::to_value(copies::Note::crd()).unwrap()];
        let server = definitions.iter().fold(Server::new(), Server::with_definition);
        Self { server, injector: FaultInjector::new(1), elected: Arc::new(Mutex::new("one")), controller }
    }

    fn replica(&self, process: usize, name: &'static str) -> CancellationToken {
        let (stop, run) = self.run(process, name);
        tokio::spawn(async move { run.await.unwrap() });
        stop
    }

    /// A replica that runs while it is polled, and what stops it.
    fn run(
        &self,
        process: usize,
        name: &'static str,
    ) -> (CancellationToken, impl Future<Output = Result<(), Error>> + use<>) {
        let settings = self.settings(name);
        let (stop, connection) = (settings.stop.clone(), self.connection(process));
        (stop, (self.controller)(connection, settings).run())
    }

    fn connection(&self, process: usize) -> Connection {
        Connection::through(Network::new(&self.server, &self.injector, process))
    }

    fn settings(&self, name: &'static str) -> Settings {
        Settings {
            clock: Arc::new(VirtualClock::default()),
            election: Some(Arc::new(Elected(Arc::clone(&self.elected)))),
            // Who owns what follows from these, and so from the test's seed.
            pod_uid: format!("uid-{name}"),
            nonce: || format!("{:016x}", fastrand::u64(..)),
            ..Settings::new(names(), name)
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Server) -> bool) {
        let mut changes = self.server.changes();
        let wait = async {
            while !holds(&self.server) {
                changes.changed().await.unwrap();
            }
        };
        timeout(Duration::from_mins(10), wait).await.unwrap_or_else(|_| panic!("{what}: {:#?}", self.server.all(MAPS)));
    }

    /// What replicas wrote of a kind.
    fn written(&self, plural: &str) -> Vec<Written> {
        let written = self.server.written().into_iter();
        written.filter(|it| it.place.plural() == plural && it.sender != BY_HAND).collect()
    }
}

/// Three replicas count; one crashes, one ends, one joins: each change is counted once.
#[test]
fn config_maps_are_counted_once_for_each_change() {
    in_virtual_time(1, async {
        let world = World::new(configmaps::controller);
        let is_counted = |keys: usize| {
            move |server: &Server| {
                let wanted = json!(keys.to_string());
                let count = |map: &Arc<Value>| map["metadata"]["annotations"]["example.com/count"] == wanted;
                server.all(MAPS).iter().all(count)
            }
        };
        for number in 0..30 {
            let metadata = json!({"name": format!("map-{number}"), "namespace": "default", "labels": {"example.com/count": "yes"}});
            world.server.create_by_hand(MAPS, &json!({"metadata": metadata, "data": {"a": "1"}}));
        }
        let replicas = [world.replica(0, "one"), world.replica(1, "two"), world.replica(2, "three")];
        world.until("all are counted", is_counted(1)).await;
        sleep(SETTLED).await;
        let change = |keys: usize| {
            for number in 0..30 {
                world
                    .server
                    .change(MAPS, &format!("map-{number}"), |map| map["data"][format!("key-{keys}")] = json!("x"));
            }
        };
        change(2);
        world.until("all are counted again", is_counted(2)).await;
        let writers: BTreeSet<usize> = world.written("configmaps").iter().map(|it| it.sender).collect();
        assert_eq!(writers, [0, 1, 2].into(), "all three work");
        sleep(SETTLED).await;
        let patches = world.server.requests().iter().filter(|it| it.verb == "patch").count();
        assert_eq!(patches, 2 * 30, "what is right already is not written");
        world.injector.kill(2);
        *world.elected.lock().unwrap() = "two";
        replicas[0].cancel();
        let _four = world.replica(3, "four");
        change(3);
        world.until("all are counted after a crash", is_counted(3)).await;
        sleep(SETTLED).await;
        assert_eq!(world.written("configmaps").len(), 3 * 30, "nothing is written twice");
        let last: BTreeSet<usize> = world.written("configmaps").iter().skip(2 * 30).map(|it| it.sender).collect();
        assert!(last.contains(&3), "the newcomer works: {last:?}");
    });
}

/// What is dropped acts no more, and its objects get another owner.
#[test]
fn a_dropped_replica_ends_with_all_its_tasks() {
    in_virtual_time(4, async {
        let world = World::new(configmaps::controller);
        let metadata = json!({"name": "map", "namespace": "default", "labels": {"example.com/count": "yes"}});
        world.server.create_by_hand(MAPS, &json!({"metadata": metadata, "data": {"a": "1"}}));
        let is_counted = |server: &Server| {
            server.all(MAPS).iter().all(|map| map["metadata"]["annotations"]["example.com/count"] == "1")
        };
        let (_stop, run) = world.run(0, "one");
        tokio::select! {
            ended = run => panic!("{ended:?}"),
            () = world.until("it is counted", is_counted) => {}
        }
        let dropped = Instant::now();
        sleep(SETTLED).await;
        let after = |it: &&Requested| it.at > dropped + Duration::from_secs(1);
        assert_eq!(world.server.requests().iter().find(after).map(|it| it.place.clone()), None);
        *world.elected.lock().unwrap() = "two";
        let _two = world.replica(1, "two");
        world.server.change(MAPS, "map", |map| map["metadata"]["annotations"] = json!({}));
        world.until("another counts it", is_counted).await;
    });
}

/// A replica that others have fenced is told so once, and then joins again.
#[test]
fn a_fenced_replica_is_told_and_joins_again() {
    in_virtual_time(5, async {
        let world = World::new(configmaps::controller);
        let (told, mut fenced) = tokio::sync::mpsc::unbounded_channel();
        let one =
            (world.controller)(world.connection(0), world.settings("one")).on_fenced(move || told.send(()).unwrap());
        tokio::spawn(one.run());
        *world.elected.lock().unwrap() = "two";
        let _two = world.replica(1, "two");
        sleep(SETTLED).await;
        assert!(fenced.try_recv().is_err(), "nothing has happened");
        world.injector.set(0, LinkFaults { cut: true, ..LinkFaults::default() });
        sleep(2 * SETTLED).await;
        world.injector.set(0, LinkFaults::default());
        timeout(SETTLED, fenced.recv()).await.unwrap().unwrap();
        sleep(SETTLED).await;
        for number in 0..30 {
            let metadata = json!({"name": format!("map-{number}"), "labels": {"example.com/count": "yes"}});
            world.server.create_by_hand(MAPS, &json!({"metadata": metadata, "data": {"a": "1"}}));
        }
        sleep(SETTLED).await;
        let writers: BTreeSet<usize> = world.written("configmaps").iter().map(|it| it.sender).collect();
        assert_eq!((writers, fenced.try_recv().is_err()), ([0, 1].into(), true), "it works again");
    });
}

/// A note has as many copies as it says, also after an edit, a deleted copy and a crash.
#[test]
fn notes_have_their_copies() {
    in_virtual_time(2, async {
        let world = World::new(copies::controller);
        for number in 0..NOTES_MADE {
            let metadata = json!({"name": format!("note-{number}"), "namespace": "default"});
            world.server.create_by_hand(NOTES, &json!({"metadata": metadata, "spec": {"text": "a", "copies": 2}}));
        }
        let has = |text: &'static str, copies: usize| {
            move |server: &Server| {
                let maps = server.all(MAPS);
                let counted = server.all(NOTES).iter().all(|note| note["status"]["copies"] == copies);
                counted && maps.len() == NOTES_MADE * copies && maps.iter().all(|map| map["data"]["text"] == text)
            }
        };
        let _replicas = [world.replica(0, "one"), world.replica(1, "two"), world.replica(2, "three")];
        world.until("each has two copies", has("a", 2)).await;
        sleep(SETTLED).await;
        world.server.remove(MAPS, "note-3-1");
        world.until("a deleted copy is made again", has("a", 2)).await;
        world.injector.kill(1);
        for number in 0..NOTES_MADE {
            world
                .server
                .change(NOTES, &format!("note-{number}"), |note| note["spec"] = json!({"text": "b", "copies": 3}));
        }
        world.until("each has three copies of the new text", has("b", 3)).await;
        sleep(SETTLED).await;
        world.server.change(NOTES, "note-0", |note| note["spec"]["copies"] = json!(0));
        world.until("it has no copies", |server| server.all(MAPS).len() == (NOTES_MADE - 1) * 3).await;
        sleep(SETTLED).await;
        let made = world.written("configmaps").iter().filter(|it| it.change == Change::Added).count();
        assert_eq!(made, NOTES_MADE * 3 + 1, "no copy is made twice");
        let writers: BTreeSet<usize> = world.written("notes").iter().map(|it| it.sender).collect();
        assert_eq!(writers, [0, 1, 2].into(), "all three work");
    });
}

/// Quotas are set by one replica, and by another when that crashes.
#[test]
fn quotas_are_set_by_the_coordinator() {
    const QUOTAS: &str = "/api/v1/namespaces/team-0/resourcequotas";
    in_virtual_time(3, async {
        let world = World::new(quotas::controller);
        world.server.create_by_hand("/api/v1/namespaces", &json!({"metadata": {"name": "system"}}));
        for number in 0..3 {
            let metadata = json!({"name": format!("team-{number}"), "labels": {"example.com/pods": "10"}});
            world.server.create_by_hand("/api/v1/namespaces", &json!({"metadata": metadata}));
        }
        let _replicas = [world.replica(0, "one"), world.replica(1, "two")];
        let pods = |pods: &'static str| {
            move |server: &Server| server.get(QUOTAS, "pods").is_some_and(|it| it["spec"]["hard"]["pods"] == pods)
        };
        world.until("the quota is set", pods("10")).await;
        sleep(SETTLED).await;
        world.server.change(QUOTAS, "pods", |quota| quota["spec"]["hard"]["pods"] = json!("999"));
        world.until("an edit is undone", pods("10")).await;
        let writers = |after: usize| {
            world.written("resourcequotas").iter().skip(after).map(|it| it.sender).collect::<BTreeSet<_>>()
        };
        assert_eq!(writers(0), [0].into(), "one coordinates");
        world.injector.kill(0);
        *world.elected.lock().unwrap() = "two";
        let before = world.written("resourcequotas").len();
        world
            .server
            .change("/api/v1/namespaces", "team-0", |it| it["metadata"]["labels"]["example.com/pods"] = json!("20"));
        world.until("another sets it", pods("20")).await;
        assert_eq!(writers(before), [1].into());
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
        let world = World::new(configmaps::controller);
        for number in 0..100 {
            let metadata = json!({"name": format!("map-{number}"), "namespace": "default", "labels": {"example.com/count": "yes"}});
            world.server.create_by_hand(MAPS, &json!({"metadata": metadata, "data": {"a": "1"}}));
        }
        let _two = [world.replica(0, "one"), world.replica(1, "two")];
        sleep(2 * SETTLED).await;
        let since = Instant::now();
        sleep(SETTLED).await;
        let idle = requests(&world.server, since);
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
        let _third = world.replica(2, "three");
        sleep(SETTLED).await;
        let joined = requests(&world.server, since);
        println!("a third one joins: {joined:?}");
        assert!(of(&joined, "update slotmaps") <= 4, "{joined:?}");
        assert_eq!(world.written("configmaps").len(), 100, "no object is written");
        let since = Instant::now();
        world.injector.kill(2);
        sleep(SETTLED).await;
        let of_map = |it: &&Written| it.place.plural() == "slotmaps" && it.at >= since;
        let taken =
            world.server.written().iter().filter(of_map).map(|it| it.at - since).max().expect("it is taken over");
        println!("slots of one that died are owned again after {taken:?}");
        assert!(taken < Duration::from_secs(20), "{taken:?}");
    });
}

/// A single object is watched from its first use on.
#[test]
fn a_named_object_is_known_once_it_was_listed() {
    in_virtual_time(6, async {
        let world = World::new(configmaps::controller);
        world.server.create_by_hand(MAPS, &json!({"metadata": {"name": "map", "namespace": "default"}}));
        let (named, seen) = (Arc::new(OnceLock::<Named<Secret>>::new()), Arc::new(Mutex::new(Vec::new())));
        let (kept, log) = (Arc::clone(&named), Arc::clone(&seen));
        let controller = sharded(Kind::<ConfigMap>::new(), world.connection(0), world.settings("one"));
        let run = controller.reconcile(move |_, context| {
            let log = Arc::clone(&log);
            let told = Arc::clone(&log);
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
        tokio::spawn(run.run());
        sleep(SETTLED).await;
        let metadata = json!({"name": "token", "namespace": "default", "labels": {"a": "b"}});
        world.server.create_by_hand("/api/v1/namespaces/default/secrets", &json!({"metadata": metadata}));
        sleep(SETTLED).await;
        let mut seen = seen.lock().unwrap().clone();
        seen.dedup();
        assert_eq!(seen, ["not yet", "changed", "absent", "changed", r#"Some({"a": "b"})"#]);
        let watches =
            world.server.requests().iter().filter(|it| it.place.plural() == "secrets" && it.verb == "list").count();
        assert_eq!(watches, 1, "it is listed once");
    });
}

/// What changed before the copies were listed is reconciled when they are.
#[test]
fn notes_wait_for_the_list_of_their_copies() {
    const LATE: Duration = Duration::from_secs(5);
    in_virtual_time(7, async {
        let world = World::new(copies::controller);
        let metadata = json!({"name": "note", "namespace": "default"});
        world.server.create_by_hand(NOTES, &json!({"metadata": metadata, "spec": {"text": "a", "copies": 2}}));
        world.injector.intercept(|call| {
            let lists_copies = call.place.plural() == "configmaps" && !call.is_watch() && !call.is_write();
            if lists_copies { Fault::Late(LATE) } else { Fault::None }
        });
        let _one = world.replica(0, "one");
        world.until("it has its copies", |server| server.all(MAPS).len() == 2).await;
        let listed =
            world.server.requests().into_iter().find(|it| it.place.plural() == "configmaps" && it.verb == "list");
        let (listed, written) = (listed.expect("a list").at, world.written("configmaps")[0].at);
        assert!(written > listed, "nothing is written before the copies are known");
    });
}

/// Who ends makes room for another coordinator at once, however long the election's own requests take.
#[test]
fn who_ends_steps_down() {
    in_virtual_time(8, async {
        let world = World::new(quotas::controller);
        world.injector.intercept(|call| {
            let elects = call.place.name == "fleet-coordinator";
            if elects { Fault::Late(Duration::from_millis(500)) } else { Fault::None }
        });
        // Elected by the Lease, as without a test.
        let settings = Settings { election: None, ..world.settings("one") };
        let (stop, run) = (settings.stop.clone(), (world.controller)(world.connection(0), settings).run());
        let run = tokio::spawn(run);
        sleep(SETTLED).await;
        let holder = || {
            let lease = world.server.get("/apis/coordination.k8s.io/v1/namespaces/system/leases", "fleet-coordinator");
            lease.map(|it| it["spec"]["holderIdentity"].clone())
        };
        assert_eq!(holder(), Some(json!("fleet-one")));
        stop.cancel();
        run.await.unwrap().unwrap();
        assert_eq!(holder(), Some(json!("")));
    });
}
