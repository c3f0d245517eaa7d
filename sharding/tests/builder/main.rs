//! What the builder promises to a reconcile, on replicas of the model API server in virtual time.
#![allow(clippy::unwrap_used, reason = "tests")]

mod selection;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::ready,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt as _;
use kube_sharding::{
    Kind, Outcome, Settings, coordinated, election::Unelected, key::Key, lanes::rates::Rates, sharded, wire::Names,
};
use kube_sharding_sim::{Fault, Fleet, Server, in_virtual_time};
use serde_json::json;
use tokio::time::{Instant, sleep};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
/// Longer than it takes until each replica has its share.
const SETTLED: Duration = Duration::from_secs(60);

fn names() -> Names {
    Names::new("example.com", "system", "fleet")
}

/// A server with so many ConfigMaps.
fn server(maps: usize) -> Server {
    let server = Server::new().with_definition(&serde_json::to_value(names().definition()).unwrap());
    for number in 0..maps {
        server.create_by_hand(MAPS, &json!({"metadata": {"name": format!("map-{number}"), "namespace": "default"}}));
    }
    server
}

/// What several may read is listed in a replica before that owns anything.
#[test]
fn a_reconcile_finds_what_it_watches() {
    in_virtual_time(1, async {
        let server = server(20);
        server.create_by_hand(SECRETS, &json!({"metadata": {"name": "settings", "namespace": "default"}}));
        let found = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&found);
        let mut fleet = Fleet::new(1, &server, names(), move |connection, settings| {
            let log = Arc::clone(&log);
            let watches =
                sharded(Kind::<ConfigMap>::new(), connection, settings).watches(Kind::<Secret>::new(), |_| Vec::new());
            let reconcile = watches.reconcile(move |_, context| {
                log.lock().unwrap().push(context.store::<Secret>().get(&Key::new("default", "settings")).is_some());
                ready(Ok::<_, kube::Error>(Outcome::Done))
            });
            reconcile.run()
        });
        fleet.start();
        sleep(SETTLED).await;
        fleet.injector().intercept(|call| {
            let lists = call.place.plural() == "secrets" && !call.is_watch();
            if lists { Fault::Late(Duration::from_secs(8)) } else { Fault::None }
        });
        found.lock().unwrap().clear();
        fleet.start();
        sleep(SETTLED).await;
        let found = found.lock().unwrap();
        assert!(!found.is_empty() && found.iter().all(|it| *it), "{found:?}");
    });
}

/// Each replica queues what it owns, also where it sees the objects of others.
#[test]
fn an_edit_is_queued_by_one_replica() {
    const MAPS_MADE: usize = 20;
    in_virtual_time(2, async {
        let server = server(MAPS_MADE);
        let queued = Arc::new(Mutex::new(BTreeMap::<String, BTreeSet<String>>::new()));
        let log = Arc::clone(&queued);
        let mut fleet = Fleet::new(2, &server, names(), move |connection, settings| {
            let (log, member) = (Arc::clone(&log), settings.member.clone());
            let lane = move |map: &ConfigMap| {
                log.lock().unwrap().entry(map.name_any()).or_default().insert(member.clone());
                Key::default()
            };
            let lanes = sharded(Kind::<ConfigMap>::new(), connection, settings).lanes(lane, |_| 1);
            lanes.reconcile(|_, _| ready(Ok::<_, kube::Error>(Outcome::Done))).run()
        });
        fleet.start();
        fleet.start();
        sleep(SETTLED).await;
        queued.lock().unwrap().clear();
        for number in 0..MAPS_MADE {
            server.change(MAPS, &format!("map-{number}"), |map| map["data"] = json!({"a": "b"}));
        }
        sleep(SETTLED).await;
        let queued = queued.lock().unwrap();
        assert_eq!(queued.len(), MAPS_MADE);
        assert!(queued.values().all(|by| by.len() == 1), "{queued:?}");
        let by: BTreeSet<&String> = queued.values().flatten().collect();
        assert_eq!(by.len(), 2, "both work");
    });
}

#[test]
fn an_error_is_retried() {
    in_virtual_time(3, async {
        let server = server(1);
        let runs = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&runs);
        let mut fleet = Fleet::new(3, &server, names(), move |connection, settings| {
            let count = Arc::clone(&count);
            let maps = sharded(Kind::<ConfigMap>::new(), connection, settings);
            let reconcile = maps.reconcile(move |_, _| {
                let fails = count.fetch_add(1, Ordering::SeqCst) < 3;
                ready(if fails { Err(io::Error::other("not yet")) } else { Ok(Outcome::Done) })
            });
            reconcile.run()
        });
        fleet.start();
        sleep(2 * SETTLED).await;
        assert_eq!(runs.load(Ordering::SeqCst), 4, "until it succeeds");
    });
}

/// Without an election a member takes the coordinator's place once it has been free for a Lease's duration; who stops hands it over.
#[test]
fn any_member_coordinates_where_none_is_elected() {
    in_virtual_time(4, async {
        let server = server(1);
        let runs = Arc::new(Mutex::new(Vec::<String>::new()));
        let log = Arc::clone(&runs);
        let mut fleet = Fleet::new(4, &server, names(), move |connection, settings| {
            let (log, member) = (Arc::clone(&log), settings.member.clone());
            let settings = Settings { election: Some(Arc::new(Unelected)), ..settings };
            let maps = coordinated(Kind::<ConfigMap>::new(), connection, settings);
            let reconcile = maps.reconcile(move |_, _| {
                log.lock().unwrap().push(member.clone());
                ready(Ok::<_, kube::Error>(Outcome::Done))
            });
            reconcile.run()
        });
        let [one, two] = [fleet.start(), fleet.start()];
        sleep(SETTLED).await;
        let first = runs.lock().unwrap().first().cloned().unwrap();
        let (first, second) = if first == format!("replica-{one}") { (one, two) } else { (two, one) };
        fleet.kill(first);
        sleep(SETTLED).await;
        let third = fleet.start();
        sleep(SETTLED).await;
        fleet.stop(second);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(*runs.lock().unwrap(), [first, second, third].map(|it| format!("replica-{it}")));
    });
}

/// Reconciles of one replica, which take their time: when they started, and the most at once.
#[derive(Default)]
struct Taken {
    starts: Vec<Instant>,
    now: usize,
    most: usize,
}

/// Notes a reconcile that takes a second.
async fn take(taken: Arc<Mutex<Taken>>) -> Result<Outcome, kube::Error> {
    {
        let mut taken = taken.lock().unwrap();
        taken.starts.push(Instant::now());
        taken.now += 1;
        taken.most = taken.most.max(taken.now);
    }
    sleep(Duration::from_secs(1)).await;
    taken.lock().unwrap().now -= 1;
    Ok(Outcome::Done)
}

/// The limit of reconciles at once is that of each kind, also of one that was added before.
#[test]
fn no_more_run_at_once_than_the_builder_was_told() {
    const SECRETS_MADE: usize = 9;
    in_virtual_time(5, async {
        let server = server(10);
        for number in 0..SECRETS_MADE {
            let metadata = json!({"name": format!("secret-{number}"), "namespace": "default"});
            server.create_by_hand(SECRETS, &json!({"metadata": metadata}));
        }
        let (maps, secrets) = (Arc::new(Mutex::new(Taken::default())), Arc::new(Mutex::new(Taken::default())));
        let (of_maps, of_secrets) = (Arc::clone(&maps), Arc::clone(&secrets));
        let mut fleet = Fleet::new(5, &server, names(), move |connection, settings| {
            let (of_maps, of_secrets) = (Arc::clone(&of_maps), Arc::clone(&of_secrets));
            let kind = sharded(Kind::<ConfigMap>::new(), connection, settings);
            let both = kind.coordinates(Kind::<Secret>::new(), move |_, _| take(Arc::clone(&of_secrets)));
            both.at_once(3).reconcile(move |_, _| take(Arc::clone(&of_maps))).run()
        });
        fleet.start();
        sleep(SETTLED).await;
        let of = |taken: &Mutex<Taken>| {
            let taken = taken.lock().unwrap();
            (taken.starts.len(), taken.most)
        };
        assert_eq!((of(&maps), of(&secrets)), ((10, 3), (SECRETS_MADE, 3)));
    });
}

/// Rates are of virtual seconds where time is virtual.
#[test]
fn no_more_start_in_a_second_than_the_builder_was_told() {
    in_virtual_time(6, async {
        let (server, taken) = (server(60), Arc::new(Mutex::new(Taken::default())));
        let log = Arc::clone(&taken);
        let mut fleet = Fleet::new(6, &server, names(), move |connection, settings| {
            let log = Arc::clone(&log);
            let kind = sharded(Kind::<ConfigMap>::new(), connection, settings).at_once(60);
            let limited = kind.rates(Rates { member_per_second: 5, lane_per_second: 0 });
            limited.reconcile(move |_, _| take(Arc::clone(&log))).run()
        });
        fleet.start();
        sleep(SETTLED).await;
        let starts = &taken.lock().unwrap().starts;
        assert_eq!(starts.len(), 60);
        // Ten at once, and then five in a second.
        let took = starts[59] - starts[0];
        assert!((Duration::from_secs(10)..Duration::from_millis(10_500)).contains(&took), "{took:?}");
    });
}

/// Reconciles of one lane are no more at once than its limit, which is read when one starts.
#[test]
fn no_more_of_a_lane_run_at_once_than_its_limit() {
    in_virtual_time(8, async {
        let (server, taken) = (server(12), Arc::new(Mutex::new(Taken::default())));
        let (log, limit) = (Arc::clone(&taken), Arc::new(AtomicUsize::new(2)));
        let limits = Arc::clone(&limit);
        let mut fleet = Fleet::new(8, &server, names(), move |connection, settings| {
            let (log, limits) = (Arc::clone(&log), Arc::clone(&limits));
            let kind = sharded(Kind::<ConfigMap>::new(), connection, settings);
            let lanes = kind.lanes(|_| Key::new("", "all"), move |_| limits.load(Ordering::SeqCst));
            lanes.reconcile(move |_, _| take(Arc::clone(&log))).run()
        });
        fleet.start();
        sleep(SETTLED).await;
        assert_eq!(std::mem::take(&mut *taken.lock().unwrap()).most, 2);
        limit.store(4, Ordering::SeqCst);
        for number in 0..12 {
            server.change(MAPS, &format!("map-{number}"), |map| map["data"] = json!({"a": "b"}));
        }
        sleep(SETTLED).await;
        assert_eq!(taken.lock().unwrap().most, 4);
    });
}

/// A change of what several may read reconciles those that the controller names; how many objects a member has is in its Lease.
#[test]
fn a_change_of_what_is_watched_reconciles_those_that_are_named() {
    const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases";
    in_virtual_time(9, async {
        let server = server(5);
        server.create_by_hand(SECRETS, &json!({"metadata": {"name": "settings", "namespace": "default"}}));
        let runs = Arc::new(Mutex::new(Vec::<String>::new()));
        let log = Arc::clone(&runs);
        let mut fleet = Fleet::new(9, &server, names(), move |connection, settings| {
            let log = Arc::clone(&log);
            let named = |_: &Secret| ["map-1", "map-3", "none"].map(|name| Key::new("default", name)).to_vec();
            let watches = sharded(Kind::<ConfigMap>::new(), connection, settings).watches(Kind::<Secret>::new(), named);
            let reconcile = watches.reconcile(move |map, _| {
                log.lock().unwrap().push(map.name_any());
                ready(Ok::<_, kube::Error>(Outcome::Done))
            });
            reconcile.run()
        });
        let one = fleet.start();
        sleep(SETTLED).await;
        let lease = server.get(LEASES, &names().lease(&format!("replica-{one}"))).unwrap();
        assert_eq!(lease["metadata"]["annotations"]["example.com/objects"], "5", "{lease}");
        runs.lock().unwrap().clear();
        server.change(SECRETS, "settings", |secret| secret["data"] = json!({"a": "Yg=="}));
        sleep(SETTLED).await;
        runs.lock().unwrap().sort();
        assert_eq!(*runs.lock().unwrap(), ["map-1", "map-3"]);
    });
}

/// What a reconcile does to its children it does in the same order each time.
#[test]
fn children_are_in_order() {
    in_virtual_time(10, async {
        let server = server(1);
        let uid = server.get(MAPS, "map-0").unwrap()["metadata"]["uid"].clone();
        let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "map-0", "uid": uid, "controller": true}]);
        for number in 10..40 {
            let metadata = json!({"name": format!("secret-{number}"), "namespace": "default", "ownerReferences": owner,
                                  "labels": {names().slot_label(): "000"}});
            server.create_by_hand(SECRETS, &json!({"metadata": metadata}));
        }
        let children = Arc::new(Mutex::new(Vec::<String>::new()));
        let log = Arc::clone(&children);
        let mut fleet = Fleet::new(10, &server, names(), move |connection, settings| {
            let log = Arc::clone(&log);
            let owns = sharded(Kind::<ConfigMap>::new(), connection, settings).owns(Kind::<Secret>::new());
            let reconcile = owns.reconcile(move |map, context| {
                *log.lock().unwrap() = context.children::<Secret>(&*map).iter().map(|it| it.name_any()).collect();
                ready(Ok::<_, kube::Error>(Outcome::Done))
            });
            reconcile.run()
        });
        fleet.start();
        sleep(SETTLED).await;
        assert_eq!(*children.lock().unwrap(), (10..40).map(|it| format!("secret-{it}")).collect::<Vec<_>>());
    });
}
