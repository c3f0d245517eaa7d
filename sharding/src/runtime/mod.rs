//! Runtime of a member: executes the effects of [`crate::step`] with a `kube::Client`, and passes the responses back.
//!
//! It is a single future that spawns nothing, so that a member stops when it is not polled. The client must not retry, because a
//! request that is sent again later would count from the wrong time.

mod requests;
mod settings;
#[cfg(test)]
mod tests;

pub use settings::Settings;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{
    FutureExt, Stream, StreamExt,
    future::{Shared, join},
    stream::FuturesUnordered,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Client, ResourceExt, core::DynamicObject};
use metrics::counter;
use requests::Requests;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    election::{Boxed, Election},
    gate::{Gate, Opening},
    map::{Entry, SlotMap},
    member::LeaseRecord,
    step::{Effect, End, Input, Member, Setup},
    watch::{Query, Seen, follow, read},
    wire::{InvalidName, Names},
};

/// Timeout of a watch request for Leases and map, in seconds, so that a dead connection is detected soon.
const WATCH_TIMEOUT_SECONDS: u32 = 25;

/// A member as seen by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its Lease.
    pub lease: LeaseRecord,
    /// How long its Lease has had this version.
    pub lease_age: Duration,
}

/// Known state of a member.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Whether it holds its Lease.
    pub joined: bool,
    /// The newest known slot map.
    pub map: Option<Arc<SlotMap>>,
    /// All members, including itself.
    pub peers: Vec<Peer>,
    /// Entries that it is handing over.
    pub draining: BTreeSet<Entry>,
}

enum Command {
    Synced,
    Stop,
}

/// Handle to a running member. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    view: watch::Receiver<Arc<View>>,
    gate: Gate,
    objects: Arc<AtomicU64>,
}

impl Handle {
    /// Reports, with the next renewal, the number of objects in this member's slots.
    pub fn count_objects(&self, objects: u64) {
        self.objects.store(objects, Ordering::Relaxed);
    }

    /// The number that was reported last.
    pub fn objects(&self) -> u64 {
        self.objects.load(Ordering::Relaxed)
    }

    /// Reports that the shared caches are synced, so that the member may get slots.
    pub fn synced(&self) {
        let _ = self.commands.send(Command::Synced);
    }

    /// Requests the member to hand everything over and stop.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    /// Known state of the member; changes with every input.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// The gate of this incarnation.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }
}

/// A member to run.
#[must_use = "a member does nothing until it runs"]
pub struct Runtime {
    member: Member,
    settings: Settings,
    requests: Requests,
    election: Arc<dyn Election>,
    gate: Gate,
    view: watch::Sender<Arc<View>>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// The end of a candidacy, once the member is told to stop.
    stepping_down: Option<Shared<Boxed<()>>>,
    synced: bool,
}

/// Creates a member for `client`'s cluster, and its handle; fails for names that the API server would reject.
pub fn member(
    client: Client,
    settings: Settings,
    election: Arc<dyn Election>,
) -> Result<(Handle, Runtime), InvalidName> {
    settings.names.check(&settings.member)?;
    let gate = Gate::new(Arc::clone(&settings.clock));
    let (sender, commands) = mpsc::unbounded_channel();
    let (view_sender, view) = watch::channel(Arc::default());
    let setup = Setup {
        incarnation: settings.incarnation.clone(),
        lease_name: settings.names.lease(&settings.member).into(),
        template: settings.template.clone(),
        slots: Entry::COORDINATOR.0,
        timing: settings.timing.clone(),
    };
    let objects = Arc::new(AtomicU64::new(0));
    let requests = Requests::new(client, &settings, Arc::clone(&objects));
    let runtime = Runtime {
        member: Member::new(setup),
        requests,
        election,
        gate: gate.clone(),
        view: view_sender,
        commands,
        stepping_down: None,
        synced: false,
        settings,
    };
    Ok((Handle { commands: sender, view, gate, objects }, runtime))
}

/// When a member takes part in the election.
struct Standing {
    next: Instant,
    /// Whether it could at the last check; None before it ever could.
    stood: Option<bool>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { next: Instant::now(), stood: None }
    }
}

impl Standing {
    /// After an outage of the API server every term has ended, and the first candidate is elected: members let the coordinator go
    /// first, so that an outage moves nothing (O-5). A vacant place is still requested at once, by [`Effect::Elect`].
    fn follow(&mut self, stands: bool, coordinates: bool, lease_duration: Duration) {
        if stands && self.stood == Some(false) && !coordinates {
            self.next = self.next.max(Instant::now() + lease_duration);
        }
        if stands || self.stood.is_some() {
            self.stood = Some(stands);
        }
    }
}

/// Result of a request or drain.
type Pending = FuturesUnordered<Boxed<Option<Input>>>;

impl Runtime {
    /// Runs in a separate task until the incarnation ends. Dropping the returned value aborts the task and so the member: it must
    /// not renew its Lease while no one works.
    #[must_use = "dropping it ends the member"]
    pub fn spawn(self) -> AbortOnDropHandle<End> {
        AbortOnDropHandle::new(tokio::spawn(self.run()))
    }

    /// Runs until the incarnation ends: fenced, or stopped after everything was handed over. It also stops if every [`Handle`] is
    /// dropped.
    ///
    /// A member that is dropped before leaves its Lease unchanged: the others fence it when it expires.
    pub async fn run(mut self) -> End {
        let mut pending: Pending = FuturesUnordered::new();
        let mut leases = Box::pin(self.watch_leases());
        let mut maps = Box::pin(self.watch_map());
        let mut campaign = Standing::default();
        let mut input = Input::Tick;
        let end = loop {
            if let Some(end) = self.turn(input, &mut pending) {
                break end;
            }
            let tick = Instant::now() + self.member.next_tick(self.settings.clock.now());
            let stands = self.synced && self.stepping_down.is_none() && self.member.acts(self.settings.clock.now());
            campaign.follow(stands, self.gate.opening().borrow().coordinates(), self.settings.timing.lease_duration);
            input = tokio::select! {
                biased;
                command = self.commands.recv() => self.command(command.as_ref(), &mut pending),
                Some(answer) = pending.next(), if !pending.is_empty() => answer.unwrap_or(Input::Tick),
                Some(seen) = leases.next() => seen,
                Some(seen) = maps.next() => seen,
                () = sleep_until(campaign.next), if stands => {
                    campaign.next = Instant::now() + self.settings.timing.lease_duration / 3;
                    self.elect(&mut pending);
                    Input::Tick
                }
                () = sleep_until(tick) => Input::Tick,
            };
        };
        self.gate.close();
        if end == End::Stopped {
            let stepped_down = async {
                if let Some(stepped_down) = self.stepping_down.clone() {
                    stepped_down.await;
                }
            };
            join(self.requests.release(self.member.incarnation()), stepped_down).await;
        }
        end
    }

    /// Runs one step of the protocol and starts its effects.
    fn turn(&mut self, input: Input, pending: &mut Pending) -> Option<End> {
        let effects = self.member.step(input, self.settings.clock.now());
        // The gate first: what is to be given must be closed before its work is waited for.
        let draining: BTreeSet<Entry> =
            self.member.handover().map(|it| it.entries.keys().copied().collect()).unwrap_or_default();
        let entries = self.member.open().into_iter().collect();
        let until = self.member.right_until().filter(|_| self.member.joined());
        self.gate.set(&Opening { until, entries, draining: draining.clone() });
        self.publish(draining);
        let mut end = None;
        for effect in effects {
            match effect {
                Effect::Drain(drain, entries) => pending.push(self.drain(drain, entries)),
                Effect::Elect => self.elect(pending),
                Effect::End(reason) => end = Some(reason),
                request => pending.push(self.requests.carry_out(request)),
            }
        }
        end
    }

    fn command(&mut self, command: Option<&Command>, pending: &mut Pending) -> Input {
        match command {
            Some(Command::Synced) => {
                self.synced = true;
                Input::Synced
            }
            // No handle is left: that is a stop too.
            Some(Command::Stop) | None => {
                if self.stepping_down.is_some() {
                    return Input::Tick;
                }
                let stepped_down = self.election.step_down().shared();
                self.stepping_down = Some(stepped_down.clone());
                pending.push(Box::pin(stepped_down.map(|()| None)));
                Input::Stop
            }
        }
    }

    fn elect(&self, pending: &mut Pending) {
        let campaign = self.election.campaign();
        pending.push(Box::pin(async move { campaign.await.map(|name| Input::Preferred(Some(name))) }));
    }

    /// Work that does not end in time is cancelled; its sent writes are still waited for.
    fn drain(&self, drain: u64, entries: BTreeSet<Entry>) -> Boxed<Option<Input>> {
        let (gate, most) = (self.gate.clone(), self.settings.timing.drain_max);
        Box::pin(async move {
            if tokio::time::timeout(most, gate.idle(&entries)).await.is_err() {
                tracing::warn!(entries = entries.len(), "cancelling work on slots that are being given away");
                for entry in &entries {
                    gate.cancel(*entry);
                }
                gate.idle(&entries).await;
            }
            Some(Input::Drained(drain))
        })
    }

    fn publish(&self, draining: BTreeSet<Entry>) {
        let now = self.settings.clock.now();
        let peers = self
            .member
            .members()
            .map(|(lease, since)| Peer { lease: lease.clone(), lease_age: now.certain.saturating_sub(since) });
        self.view.send_replace(Arc::new(View {
            joined: self.member.joined(),
            map: self.member.map().cloned(),
            peers: peers.collect(),
            draining,
        }));
    }

    fn watch_leases(&self) -> impl Stream<Item = Input> + Send + use<> {
        let names = self.settings.names.clone();
        let query = Query {
            labels: names.lease_selector(),
            timeout_seconds: WATCH_TIMEOUT_SECONDS,
            ..Query::of::<Lease>(&(), Some(&names.namespace))
        };
        follow::<Lease>(self.requests.client(), query, read, None).filter_map(move |item| {
            let input = match item {
                Ok(Seen::Listed(leases, _)) => {
                    Some(Input::LeasesListed(leases.iter().filter_map(|lease| names.read_lease(lease)).collect()))
                }
                Ok(Seen::Applied(lease)) => names.read_lease(&lease).map(Input::LeaseSeen),
                Ok(Seen::Deleted(lease)) => Some(Input::LeaseGone(lease.name_any().into())),
                Ok(Seen::UpTo(_)) => None,
                Err(error) => {
                    tracing::debug!(%error, "watch of the Leases interrupted");
                    None
                }
            };
            async { input }
        })
    }

    fn watch_map(&self) -> impl Stream<Item = Input> + Send + use<> {
        let names = self.settings.names.clone();
        let query = Query {
            fields: format!("metadata.name={}", names.name),
            timeout_seconds: WATCH_TIMEOUT_SECONDS,
            ..Query::of::<DynamicObject>(&names.map_resource(), Some(&names.namespace))
        };
        follow::<DynamicObject>(self.requests.client(), query, read, None).filter_map(move |item| {
            let input = match item {
                Ok(Seen::Listed(maps, version)) => match maps.first() {
                    Some(map) => seen(&names, map),
                    None => version.parse().ok().map(Input::MapGone),
                },
                Ok(Seen::Applied(map)) => seen(&names, &map),
                Ok(Seen::Deleted(map)) => names.read_map(&map).map(|map| Input::MapGone(map.version.number)),
                Ok(Seen::UpTo(_)) => None,
                Err(error) => {
                    tracing::debug!(%error, "watch of the slot map interrupted");
                    None
                }
            };
            async { input }
        })
    }
}

/// Parses a version of the map; invalid entries are logged.
fn seen(names: &Names, map: &DynamicObject) -> Option<Input> {
    for correction in names.corrections(map) {
        tracing::warn!(%correction, version = map.resource_version(), "the slot map makes no sense: it was not a member that wrote this");
        counter!("sharding_map_corrections_total").increment(1);
    }
    names.read_map(map).map(Input::MapSeen)
}
