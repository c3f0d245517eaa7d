//! The model behaves as a real API server where controllers rely on it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy, WatchParams},
    core::WatchEvent,
};
use kube_sharding_sim::{Call, Change, Fault, FaultInjector, LinkFaults, Network, Server, in_virtual_time};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

const MAPS: &str = "/api/v1/namespaces/a/configmaps";

struct World {
    server: Server,
    injector: FaultInjector,
    maps: Api<ConfigMap>,
}

fn world() -> World {
    let (server, injector) = (Server::new().with_field_managers(), FaultInjector::new(1));
    let client = Client::new(Network::new(&server, &injector, 0), "a");
    World { maps: Api::namespaced(client, "a"), server, injector }
}

fn map(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

async fn create(world: &World, name: &str) -> ConfigMap {
    let object = serde_json::from_value(map(name, &json!({"x": "1"}))).unwrap();
    world.maps.create(&PostParams::default(), &object).await.unwrap()
}

fn code<T>(result: Result<T, kube::Error>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        Err(other) => panic!("{other}"),
        Ok(_) => 200,
    }
}

#[test]
fn names_uids_and_versions_are_preconditions() {
    in_virtual_time(1, async {
        let world = world();
        let made = create(&world, "one").await;
        assert_eq!(code(world.maps.create(&PostParams::default(), &made).await), 409);
        let edit = |metadata: Value| Patch::Merge(json!({"metadata": metadata, "data": {"x": "2"}}));
        let patch = async |metadata| code(world.maps.patch("one", &PatchParams::default(), &edit(metadata)).await);
        assert_eq!(patch(json!({"uid": "another"})).await, 409);
        assert_eq!(patch(json!({"resourceVersion": made.resource_version()})).await, 200);
        assert_eq!(patch(json!({"resourceVersion": made.resource_version()})).await, 409);
        assert_eq!(code(world.maps.replace("one", &PostParams::default(), &made).await), 409);
        assert_eq!(code(world.maps.get("two").await), 404);
        let of_another = Preconditions { uid: Some("another".into()), resource_version: None };
        let params = DeleteParams { preconditions: Some(of_another), ..DeleteParams::default() };
        assert_eq!(code(world.maps.delete("one", &params).await), 409);
        let version = world.maps.get("one").await.unwrap().resource_version();
        assert_eq!(patch(json!({})).await, 200);
        assert_eq!(world.maps.get("one").await.unwrap().resource_version(), version, "an equal patch changes nothing");
        let listed = world.maps.list_metadata(&ListParams::default().labels("!x")).await.unwrap().items;
        assert_eq!(listed.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["one"]);
    });
}

#[test]
fn an_apply_takes_fields_of_others_only_if_it_is_forced() {
    in_virtual_time(1, async {
        let world = world();
        let apply = async |manager: &str, forced: bool, data: Value| {
            let params = PatchParams { force: forced, ..PatchParams::apply(manager) };
            world.maps.patch("one", &params, &Patch::Apply(map("one", &data))).await
        };
        apply("first", false, json!({"x": "1", "y": "1"})).await.unwrap();
        let refused = apply("second", false, json!({"x": "2"})).await;
        let Err(kube::Error::Api(status)) = refused else { panic!("{refused:?}") };
        let causes: Vec<_> = status.details.iter().flat_map(|it| &it.causes).map(|it| it.reason.as_str()).collect();
        assert_eq!((status.code, causes), (409, vec!["FieldManagerConflict"]));
        apply("second", false, json!({"x": "1", "z": "1"})).await.unwrap();
        // A field of both managers is kept when one of them removes it; a field of one manager is removed.
        let left = apply("first", false, json!({})).await.unwrap().data.unwrap_or_default();
        assert_eq!(left.into_iter().collect::<Vec<_>>(), [("x".into(), "1".into()), ("z".into(), "1".into())]);
        let taken = apply("first", true, json!({"x": "2"})).await.unwrap();
        assert_eq!(taken.data.unwrap_or_default()["x"], "2");
        let after = apply("second", false, json!({"z": "1"})).await.unwrap();
        assert_eq!(after.data.unwrap_or_default()["x"], "2", "only the first manager owned the field");
        world.server.change(MAPS, "one", |it| it["data"]["x"] = json!("3"));
        assert_eq!(
            code(apply("first", false, json!({"x": "2"})).await),
            409,
            "the manager of the edit by hand owns the field"
        );
    });
}

#[test]
fn a_finalizer_delays_a_deletion_and_garbage_is_collected() {
    in_virtual_time(1, async {
        let world = world();
        let owner = create(&world, "owner").await;
        world.server.change(MAPS, "owner", |it| it["metadata"]["finalizers"] = json!(["example.com/keep"]));
        let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid(),
                                "blockOwnerDeletion": true}]);
        create(&world, "owned").await;
        world.server.change(MAPS, "owned", |it| it["metadata"]["ownerReferences"] = reference.clone());
        world.maps.delete("owner", &DeleteParams::default()).await.unwrap();
        let leaving = world.maps.get("owner").await.unwrap();
        assert!(leaving.metadata.deletion_timestamp.is_some());
        let more = json!({"metadata": {"finalizers": ["example.com/keep", "example.com/more"]}});
        assert_eq!(code(world.maps.patch("owner", &PatchParams::default(), &Patch::Merge(more)).await), 422);
        assert_eq!(world.server.collect_garbage(), 0);
        let none = json!({"metadata": {"finalizers": null}});
        world.maps.patch("owner", &PatchParams::default(), &Patch::Merge(none)).await.unwrap();
        assert!(world.maps.get_opt("owner").await.unwrap().is_none());
        assert_eq!(world.server.collect_garbage(), 1);
        assert!(world.maps.get_opt("owned").await.unwrap().is_none());
        let changes: Vec<_> = world.server.written().iter().map(|it| it.change).collect();
        assert_eq!(changes.iter().filter(|it| **it == Change::Deleted).count(), 2);
    });
}

#[test]
fn a_foreground_deletion_ends_after_the_dependents() {
    in_virtual_time(1, async {
        let world = world();
        let owner = create(&world, "owner").await;
        create(&world, "owned").await;
        let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid(),
                                "blockOwnerDeletion": true}]);
        world.server.change(MAPS, "owned", |it| it["metadata"]["ownerReferences"] = reference.clone());
        let params =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
        world.maps.delete("owner", &params).await.unwrap();
        assert!(world.maps.get_opt("owner").await.unwrap().is_some());
        assert_eq!(world.server.collect_garbage(), 2);
        assert!(world.server.everything().is_empty());
    });
}

#[test]
fn nothing_is_created_in_a_namespace_that_is_being_deleted() {
    in_virtual_time(1, async {
        let world = world();
        let client = Client::new(Network::new(&world.server, &world.injector, 0), "a");
        let namespaces: Api<Namespace> = Api::all(client);
        let namespace = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        create(&world, "one").await;
        namespaces.delete("a", &DeleteParams::default()).await.unwrap();
        let object = serde_json::from_value(map("two", &json!({}))).unwrap();
        let refused = world.maps.create(&PostParams::default(), &object).await;
        let Err(kube::Error::Api(status)) = refused else { panic!("{refused:?}") };
        let causes: Vec<_> = status.details.iter().flat_map(|it| &it.causes).map(|it| it.reason.as_str()).collect();
        assert_eq!((status.code, causes), (403, vec!["NamespaceTerminating"]));
        world.server.collect_garbage();
        assert!(world.server.everything().is_empty());
    });
}

#[test]
fn a_watch_sends_changes_and_an_expired_version_ends_it() {
    in_virtual_time(1, async {
        let world = world();
        create(&world, "one").await;
        let version =
            world.server.get(MAPS, "one").unwrap()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let params = WatchParams::default().labels("seen=yes").timeout(60);
        let mut events = world.maps.watch(&params, &version).await.unwrap().boxed();
        world.server.change(MAPS, "one", |it| it["metadata"]["labels"] = json!({"seen": "yes"}));
        world.server.change(MAPS, "one", |it| it["data"]["x"] = json!("2"));
        world.server.replay();
        world.server.change(MAPS, "one", |it| it["metadata"]["labels"] = json!({}));
        let mut kinds = Vec::new();
        while let Some(event) = events.next().await {
            kinds.push(match event.unwrap() {
                WatchEvent::Added(_) => "added",
                WatchEvent::Modified(_) => "modified",
                WatchEvent::Deleted(_) => "deleted",
                WatchEvent::Bookmark(_) => "bookmark",
                WatchEvent::Error(_) => "error",
            });
        }
        assert_eq!(kinds, ["added", "modified", "modified", "deleted", "bookmark"], "then the watch timed out");
        world.server.compact();
        let mut events = world.maps.watch(&params, &version).await.unwrap().boxed();
        let gone = events.next().await.unwrap();
        assert!(matches!(&gone, Ok(WatchEvent::Error(status)) if status.code == 410), "{gone:?}");
    });
}

#[test]
fn a_request_may_be_rejected_lost_or_kill_its_sender() {
    in_virtual_time(1, async {
        let world = world();
        let faults = [Fault::Refused(500), Fault::AnswerLost, Fault::None, Fault::Crash];
        let count = Arc::new(AtomicUsize::new(0));
        world.injector.intercept(move |_: &Call| faults[count.fetch_add(1, Ordering::SeqCst)]);
        let object: ConfigMap = serde_json::from_value(map("one", &json!({}))).unwrap();
        assert_eq!(code(world.maps.create(&PostParams::default(), &object).await), 500);
        assert!(world.server.everything().is_empty());
        let begun = Instant::now();
        assert!(world.maps.create(&PostParams::default(), &object).await.is_err());
        assert!(begun.elapsed() > Duration::from_secs(60), "no response before the timeout");
        assert!(world.server.get(MAPS, "one").is_some());
        assert!(world.maps.get("one").await.is_ok());
        assert!(world.maps.delete("one", &DeleteParams::default()).await.is_err());
        assert!(world.server.everything().is_empty(), "the request was executed");
        world.injector.death_of(0).await;
        assert!(world.injector.of(0).cut);
    });
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let faults = |seed| {
        in_virtual_time(seed, async move {
            let (server, injector) = (Server::new(), FaultInjector::new(seed));
            injector.set(0, LinkFaults { refused: 300, ..LinkFaults::default() });
            let maps: Api<ConfigMap> = Api::namespaced(Client::new(Network::new(&server, &injector, 0), "a"), "a");
            let mut codes = Vec::new();
            for _ in 0..20 {
                codes.push(code(maps.get("one").await));
            }
            codes
        })
    };
    assert_eq!(faults(7), faults(7));
    assert!(faults(7).contains(&503) && faults(7).contains(&404) && faults(7) != faults(8));
}
