//! The runtime waits for drains, and a member ends when no task waits for it.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::FutureExt;
use http::{Request, Response};
use kube::client::Body;
use tower::{BoxError, service_fn};

use super::*;
use crate::{
    clock::SystemClock, election::Unelected, gate::Scope, map::Content, member::Version, slot::Slot, step::Failure,
};
use crate::{member::Incarnation, timing::Timing};

const SCOPE: Scope = Scope::Slot(Slot::new(3));

fn settings(name: &str) -> Settings {
    let text = str::to_owned;
    Settings {
        names: Names { group: text("e.com"), prefix: text("e.com"), namespace: text("system"), name: text("fleet") },
        member: name.to_owned(),
        incarnation: Incarnation::new("pod", "1"),
        template: String::new(),
        timing: Timing::default(),
        clock: Arc::new(SystemClock::default()),
    }
}

/// A member of a cluster that never responds, and the number of sent requests.
fn unanswered(name: &str) -> (Result<(Handle, Runtime), InvalidName>, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let server = service_fn(move |_: Request<Body>| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Result<Response<Body>, BoxError>>()
    });
    (member(Client::new(server, "system"), settings(name), Arc::new(Unelected)), sent)
}

fn open(gate: &Gate) {
    let entries = [(SCOPE.entry(), 1)].into();
    gate.set(&Opening { until: Some(Duration::from_secs(3600)), entries, draining: BTreeSet::new() });
}

/// S-2: work that does not end in time is cancelled, and its sent writes are still awaited.
#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_what_was_sent_after_it_cancelled_the_work() {
    let (handle, runtime) = unanswered("one").0.unwrap();
    let gate = handle.gate().clone();
    open(&gate);
    let (work, (write, _)) = (gate.admit(SCOPE).unwrap(), gate.admit_write(SCOPE).unwrap());
    let entries = BTreeSet::from([SCOPE.entry()]);
    let until = Some(Duration::from_secs(3600));
    gate.set(&Opening { until, entries: BTreeMap::new(), draining: entries.clone() });
    let mut drained = tokio::spawn(runtime.drain(7, entries));
    tokio::time::sleep(Duration::from_secs(19)).await;
    assert!(work.cancelled().now_or_never().is_none(), "it has 20 s");
    tokio::time::sleep(Duration::from_secs(2)).await;
    work.cancelled().now_or_never().expect("cancelled");
    drop(work);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!((&mut drained).now_or_never().is_none(), "a write is in flight");
    drop(write);
    assert_eq!(drained.await.unwrap(), Some(Input::Drained(7)));
    assert!(gate.admit_write(SCOPE).is_err());
}

/// A member whose task was dropped must not keep renewing its Lease.
#[tokio::test(start_paused = true)]
async fn a_dropped_member_ends() {
    let (made, sent) = unanswered("one");
    let (handle, runtime) = made.unwrap();
    let running = runtime.spawn();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = sent.load(Ordering::SeqCst);
    assert!(before > 0 && !running.is_finished());
    drop(running);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(sent.load(Ordering::SeqCst), before, "it sends no more requests");
    drop(handle);
    // It also stops when every handle is dropped.
    let (handle, runtime) = unanswered("one").0.unwrap();
    drop(handle);
    assert_eq!(runtime.run().await, End::Stopped);
}

#[tokio::test]
async fn a_member_with_the_name_of_the_coordinators_lease_is_rejected() {
    assert!(matches!(unanswered("coordinator").0, Err(InvalidName::Coordinator(_))));
    assert!(matches!(unanswered("One").0, Err(InvalidName::Form { .. })));
}

/// A write of the map is sent once, based on its version: the protocol decides what to do after a conflict.
#[tokio::test]
async fn a_write_of_the_map_is_not_sent_again() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let server = service_fn(move |_: Request<Body>| {
        count.fetch_add(1, Ordering::SeqCst);
        let status = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":409,"reason":"Conflict","message":"another version"}"#;
        async move {
            Ok::<_, BoxError>(Response::builder().status(409).body(Body::from(status.as_bytes().to_vec())).unwrap())
        }
    });
    let settings = settings("one");
    let requests = Requests::new(Client::new(server, "system"), &settings, Arc::default());
    let on = Some(Version { uid: "u".into(), number: 7 });
    let answer = requests.carry_out(Effect::WriteMap { on, content: Content::free(256) }).await;
    assert_eq!(answer, Some(Input::MapWritten(Err(Failure::Conflict))));
    assert_eq!(sent.load(Ordering::SeqCst), 1);
}
