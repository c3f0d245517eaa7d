//! An operator on ConfigMaps, shared by any number of processes: each ConfigMap with the label `example.com/count` gets
//! an annotation with the number of its keys. Start it several times, and end one:
//! `kubectl get slotmaps.example.com,leases`.
//!
//! `cargo run -p kube-sharding --example crd -- example.com | kubectl apply -f -`, then
//! `cargo run -p kube-sharding --example configmaps -- NAMESPACE NAME-OF-THIS-MEMBER`.
#![allow(clippy::print_stdout, reason = "an example speaks to a person")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Client, Config, ResourceExt,
    api::{Patch, PatchParams},
    client::ClientBuilder,
};
use kube_sharding::{
    Incarnation, Slot, SlotSet,
    clock::SystemClock,
    election::LeaseElection,
    gate::{Gate, Scope},
    groups::{Groups, Selection, Sink},
    layer::GateLayer,
    queue::Queue,
    runtime::{self, Settings},
    step::End,
    timing::Timing,
    watch::Query,
    wire::Names,
};
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

const COUNT: &str = "example.com/count";
/// ConfigMaps that are counted at once.
const AT_ONCE: usize = 4;

/// Namespace and name.
type Key = (String, String);

/// What the watch delivered, and the queue of what is to be counted. The key waits in the queue, the newest object here.
#[derive(Clone)]
struct Counters {
    known: Arc<Mutex<BTreeMap<Key, ConfigMap>>>,
    queue: Queue<Key>,
}

fn slot(map: &ConfigMap) -> Slot {
    Slot::of_uid(&map.uid().unwrap_or_default())
}

fn key(map: &ConfigMap) -> Key {
    (map.namespace().unwrap_or_default(), map.name_any())
}

/// Versions of objects of one kind are comparable as numbers.
fn version(map: &ConfigMap) -> u64 {
    map.resource_version().and_then(|it| it.parse().ok()).unwrap_or(0)
}

impl Counters {
    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, ConfigMap>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink<ConfigMap> for Counters {
    fn slot_of(&self, map: &ConfigMap) -> Option<Slot> {
        map.uid().map(|uid| Slot::of_uid(&uid))
    }

    fn listed(&self, slots: &SlotSet, maps: Vec<ConfigMap>, _: &str) {
        self.known().retain(|_, map| !slots.contains(slot(map)));
        for map in maps {
            self.applied(map);
        }
    }

    /// An object may come twice, and after a newer one.
    fn applied(&self, map: ConfigMap) {
        let (key, scope) = (key(&map), Scope::Slot(slot(&map)));
        let mut known = self.known();
        if known.get(&key).is_none_or(|before| version(before) < version(&map)) {
            known.insert(key.clone(), map);
            self.queue.push(scope, key);
        }
    }

    fn deleted(&self, map: ConfigMap) {
        let mut known = self.known();
        if known.get(&key(&map)).is_some_and(|before| version(before) <= version(&map)) {
            known.remove(&key(&map));
        }
    }

    fn dropped(&self, slots: &SlotSet) {
        println!("{} slots went", slots.len());
        self.known().retain(|_, map| !slots.contains(slot(map)));
        self.queue.dropped(slots);
    }

    fn synced(&self, slots: SlotSet) {
        println!("{} slots are listed", slots.len());
        self.queue.synced(slots);
    }
}

/// One reconcile: nothing is written where nothing differs, and a write names the version that it is based on.
async fn reconcile(client: &Client, counters: &Counters, key: &Key) -> Result<(), kube::Error> {
    let Some(map) = counters.known().get(key).cloned() else { return Ok(()) };
    let count = map.data.as_ref().map_or(0, BTreeMap::len).to_string();
    if map.annotations().get(COUNT) == Some(&count) {
        return Ok(());
    }
    let change = json!({"metadata": {"uid": map.uid(), "resourceVersion": map.resource_version(), "annotations": {COUNT: count}}});
    let path = format!("/api/v1/namespaces/{}/configmaps", map.namespace().unwrap_or_default());
    let mut request = kube::core::Request::new(path)
        .patch(&map.name_any(), &PatchParams::default(), &Patch::Merge(&change))
        .map_err(kube::Error::BuildRequest)?;
    request.extensions_mut().insert(Scope::Slot(slot(&map)));
    client.request::<ConfigMap>(request).await.map(|_| println!("counted {}", map.name_any()))
}

/// What this member needs to know of, as the gate says.
async fn follow(gate: Gate, held: watch::Sender<SlotSet>) {
    let mut opening = gate.opening();
    loop {
        held.send_replace(opening.borrow_and_update().held_slots());
        if opening.changed().await.is_err() {
            return;
        }
    }
}

/// Who this process is, and when it was told to end.
struct Process {
    config: Config,
    namespace: String,
    member: String,
    stop: watch::Receiver<bool>,
}

/// One incarnation.
async fn live(process: &Process, nonce: u32) -> Result<End, Box<dyn std::error::Error>> {
    let (config, member) = (&process.config, &process.member);
    let names = Names {
        group: "example.com".to_owned(),
        prefix: "example.com".to_owned(),
        namespace: process.namespace.clone(),
        name: "counters".to_owned(),
    };
    let protocol = Client::try_from(config.clone())?;
    let timing = Timing::default();
    let lease = names.lease(member);
    let election = LeaseElection::new(protocol.clone(), &names, &lease, timing.lease_duration, timing.attempt_timeout);
    let settings = Settings {
        names,
        member: member.clone(),
        // In a cluster: the pod's uid.
        incarnation: Incarnation::new(&format!("{member}-{}", std::process::id()), &nonce.to_string()),
        template: String::new(),
        timing,
        clock: Arc::new(SystemClock::default()),
    };
    let (handle, runtime) = runtime::member(protocol, settings, Arc::new(election))?;
    let gate = handle.gate().clone();
    let layer = GateLayer::new(gate.clone(), Duration::from_secs(10), |_| false);
    let client = ClientBuilder::try_from(config.clone())?.with_layer(&layer).build();
    let counters = Counters { known: Arc::default(), queue: Queue::new(gate.clone()) };
    let (held, owned) = watch::channel(SlotSet::NONE);
    // These ConfigMaps carry no slot label: they are selected by what the gate says when they come.
    let query = Query { labels: COUNT.to_owned(), ..Query::of::<ConfigMap>(&(), None) };
    let groups = Groups::new(client.clone(), query, Selection::Everything, counters.clone());
    handle.synced();
    // On its own, so that slow work does not keep it from renewing; and it goes where this goes.
    let runtime = AbortOnDropHandle::new(tokio::spawn(runtime.run()));
    let mut stop = process.stop.clone();
    let stopped = async {
        let _ = stop.wait_for(|stop| *stop).await;
        // Work goes on until everything was given away.
        handle.stop();
        std::future::pending::<()>().await;
    };
    let work = |key| {
        let (client, counters) = (client.clone(), counters.clone());
        async move { reconcile(&client, &counters, &key).await }
    };
    tokio::select! {
        end = runtime => Ok(end?),
        () = groups.run(owned) => Err("the watch ended".into()),
        () = counters.queue.run(AT_ONCE, work) => Err("the queue ended".into()),
        () = follow(gate, held) => Err("the gate ended".into()),
        () = stopped => Err("it was stopped".into()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let namespace = arguments.next().unwrap_or_else(|| "default".to_owned());
    let member = arguments.next().unwrap_or_else(|| "one".to_owned());
    let mut config = Config::infer().await?;
    config.default_retry = false;
    // SIGTERM is how a pod is told to end.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (told, stop) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        told.send_replace(true);
    });
    let process = Process { config, namespace, member, stop };
    for nonce in 0.. {
        // Everything of the incarnation goes with it: caches, queue, gate and client.
        let end = live(&process, nonce).await?;
        println!("this incarnation ended: {end:?}");
        if end == End::Stopped {
            break;
        }
    }
    Ok(())
}
