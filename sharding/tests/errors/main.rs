//! What cannot run says so, as an error and at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{future::ready, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube_sharding::{
    Connection, Context, Kind, Objects, Outcome, Settings, coordinated, election::Unelected, key::Key,
    objects::Builder, sharded, sharded::Error, timing::Timing, wire::Names,
};
use kube_sharding_sim::{FaultInjector, Network, Server, in_virtual_time};

type Answer = std::future::Ready<Result<Outcome, kube::Error>>;

fn done<K>(_: Arc<K>, _: Context) -> Answer {
    ready(Ok(Outcome::Done))
}

fn names() -> Names {
    let text = str::to_owned;
    Names { group: text("example.com"), prefix: text("example.com"), namespace: text("a"), name: text("b") }
}

/// Settings with an election, which those of kube 5 must give.
fn settings() -> Settings {
    Settings { election: Some(Arc::new(Unelected)), ..Settings::new(names(), "one") }
}

/// The error of a controller of ConfigMaps with these settings, built like this.
fn error(change: impl FnOnce(&mut Settings), build: fn(Builder<ConfigMap>) -> Builder<ConfigMap>) -> Error {
    in_virtual_time(1, async {
        let mut settings = settings();
        change(&mut settings);
        let connection = Connection::through(Network::new(&Server::new(), &FaultInjector::new(1), 0));
        let built = build(sharded(Kind::new(), connection, settings)).reconcile(done);
        let run = tokio::time::timeout(Duration::from_secs(1), built.run());
        run.await.expect("it says so at once").expect_err("it does not run")
    })
}

#[test]
fn settings_that_cannot_work_are_errors() {
    let of = |change: fn(&mut Settings)| error(change, |it| it).to_string();
    assert!(of(|it| it.names.group = "Example".into()).contains("the group \"Example\" is not a DNS subdomain"));
    assert!(of(|it| it.member = String::new()).contains("the member's name"));
    assert!(of(|it| it.pod_uid = String::new()).starts_with("no incarnation can be called \"\""));
    assert!(of(|it| it.pod_uid = "x".repeat(200)).starts_with("no incarnation"));
    assert!(of(|it| it.nonce = || "a_b".to_owned()).starts_with("no incarnation"));
    let lease = |seconds: u64| Timing { lease_duration: Duration::from_secs(seconds), ..Timing::default() };
    assert!(matches!(error(|it| it.timing = lease(0), |it| it), Error::Timing(_)));
    assert!(matches!(error(|it| it.timing = lease(5), |it| it), Error::Timing(_)));
}

#[test]
fn a_builder_that_contradicts_itself_is_an_error() {
    let of = |build: fn(Builder<ConfigMap>) -> Builder<ConfigMap>| error(|_| {}, build);
    assert!(matches!(of(|it| it.at_once(0)), Error::NothingAtOnce("configmap")));
    assert!(matches!(of(|it| it.owns(Kind::<ConfigMap>::new())), Error::WatchedTwice(_)));
    let secrets = || Kind::<Secret>::new();
    let twice =
        |it: Builder<ConfigMap>| it.owns(Kind::<Secret>::new()).watches(Kind::<Secret>::new(), |_| Vec::<Key>::new());
    assert!(matches!(of(twice), Error::WatchedTwice(name) if name.contains("Secret")));
    assert!(matches!(
        of(|it| it.coordinates(Kind::<ConfigMap>::new(), done)),
        Error::WatchedTwice(_) | Error::SameName(_)
    ));
    // Without a mistake it runs until it is stopped.
    let runs = in_virtual_time(1, async {
        let connection = Connection::through(Network::new(&Server::new(), &FaultInjector::new(1), 0));
        let built: kube_sharding::Sharded<Objects> = coordinated(secrets(), connection, settings()).reconcile(done);
        tokio::time::timeout(Duration::from_secs(1), built.run()).await.is_err()
    });
    assert!(runs);
}

#[cfg(not(feature = "election"))]
#[test]
fn a_missing_election_is_an_error() {
    assert!(matches!(error(|it| it.election = None, |it| it), Error::NoElection));
}
