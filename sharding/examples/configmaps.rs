//! An operator on ConfigMaps, shared by any number of processes: each ConfigMap with the label `example.com/count` gets
//! an annotation with the number of its keys. Start it several times, and end one: `kubectl get slotmaps,leases`.
//!
//! `cargo run -p kube-sharding --example crd -- example.com | kubectl apply -f -`, then
//! `cargo run -p kube-sharding --example configmaps -- NAMESPACE NAME-OF-THIS-MEMBER`.
#![allow(clippy::print_stdout, reason = "an example speaks to a person")]

use std::{sync::Arc, time::Duration};

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
    runtime::{self, Settings},
    step::End,
    timing::Timing,
    watch::Query,
    wire::Names,
};
use serde_json::json;
use tokio::sync::{mpsc, watch};

const COUNT: &str = "example.com/count";

/// Puts what changed into the queue: in front of it, the gate is asked.
struct Queue {
    gate: Gate,
    sender: mpsc::UnboundedSender<ConfigMap>,
}

fn scope(map: &ConfigMap) -> Scope {
    Scope::Slot(Slot::of_uid(&map.uid().unwrap_or_default()))
}

impl Sink<ConfigMap> for Queue {
    fn slot_of(&self, map: &ConfigMap) -> Option<Slot> {
        map.uid().map(|uid| Slot::of_uid(&uid))
    }

    fn listed(&self, _: &SlotSet, maps: Vec<ConfigMap>, _: &str) {
        for map in maps {
            self.applied(map);
        }
    }

    fn applied(&self, map: ConfigMap) {
        if self.gate.owns(scope(&map)) {
            let _ = self.sender.send(map);
        }
    }

    fn deleted(&self, _: ConfigMap) {}

    fn dropped(&self, slots: &SlotSet) {
        println!("{} slots went", slots.len());
    }

    fn synced(&self, slots: SlotSet) {
        println!("{} slots are listed", slots.len());
    }
}

/// One reconcile: nothing is written where nothing differs, and a write names the version that it is based on.
async fn reconcile(client: &Client, map: &ConfigMap) -> Result<(), kube::Error> {
    let count = map.data.as_ref().map_or(0, std::collections::BTreeMap::len).to_string();
    if map.annotations().get(COUNT) == Some(&count) {
        return Ok(());
    }
    let change = json!({"metadata": {"uid": map.uid(), "resourceVersion": map.resource_version(), "annotations": {COUNT: count}}});
    let path = format!("/api/v1/namespaces/{}/configmaps", map.namespace().unwrap_or_default());
    let mut request = kube::core::Request::new(path)
        .patch(&map.name_any(), &PatchParams::default(), &Patch::Merge(&change))
        .map_err(kube::Error::BuildRequest)?;
    request.extensions_mut().insert(scope(map));
    client.request::<ConfigMap>(request).await.map(|_| println!("counted {}", map.name_any()))
}

async fn work(client: Client, gate: Gate, mut queue: mpsc::UnboundedReceiver<ConfigMap>) {
    while let Some(map) = queue.recv().await {
        let Ok(permit) = gate.admit(scope(&map)) else { continue };
        tokio::select! {
            () = permit.cancelled() => {}
            done = reconcile(&client, &map) => if let Err(error) = done { println!("{}: {error}", map.name_any()) },
        }
    }
}

/// One incarnation.
async fn live(config: &Config, namespace: &str, member: &str, nonce: u32) -> Result<End, Box<dyn std::error::Error>> {
    let names = Names {
        group: "example.com".to_owned(),
        prefix: "example.com".to_owned(),
        namespace: namespace.to_owned(),
        name: "counters".to_owned(),
    };
    let protocol = Client::try_from(config.clone())?;
    let timing = Timing::default();
    let lease = names.lease(member);
    let election = LeaseElection::new(protocol.clone(), &names, &lease, timing.lease_duration, timing.attempt_timeout);
    let settings = Settings {
        names,
        member: member.to_owned(),
        // In a cluster: the pod's uid.
        incarnation: Incarnation::new(&format!("{member}-{}", std::process::id()), &nonce.to_string()),
        template: String::new(),
        timing,
        clock: Arc::new(SystemClock::default()),
    };
    let (handle, runtime) = runtime::member(protocol, settings, Arc::new(election));
    let gate = handle.gate().clone();
    let layer = GateLayer::new(gate.clone(), Duration::from_secs(10), |_| false);
    let client = ClientBuilder::try_from(config.clone())?.with_layer(&layer).build();
    let (sender, queue) = mpsc::unbounded_channel();
    let (held, owned) = watch::channel(SlotSet::NONE);
    let mut opening = gate.opening();
    let follow = async {
        loop {
            held.send_replace(opening.borrow_and_update().held_slots());
            if opening.changed().await.is_err() {
                return;
            }
        }
    };
    // These ConfigMaps carry no slot label: they are selected by what the gate says when they come.
    let query = Query { labels: COUNT.to_owned(), ..Query::of::<ConfigMap>(&(), None) };
    let groups = Groups::new(client.clone(), query, Selection::Everything, Queue { gate: gate.clone(), sender });
    handle.synced();
    let mut runtime = tokio::spawn(runtime.run());
    tokio::select! {
        end = &mut runtime => Ok(end?),
        () = groups.run(owned) => Err("the watch ended".into()),
        () = work(client, gate, queue) => Err("the queue ended".into()),
        () = follow => Err("the gate ended".into()),
        _ = tokio::signal::ctrl_c() => {
            handle.stop();
            Ok(runtime.await?)
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let namespace = arguments.next().unwrap_or_else(|| "default".to_owned());
    let member = arguments.next().unwrap_or_else(|| "one".to_owned());
    let mut config = Config::infer().await?;
    config.default_retry = false;
    for nonce in 0.. {
        let end = live(&config, &namespace, &member, nonce).await?;
        println!("this incarnation ended: {end:?}");
        if end == End::Stopped {
            break;
        }
    }
    Ok(())
}
