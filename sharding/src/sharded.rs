//! A sharded replica: its settings, its controllers, and its life, one incarnation after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use metrics::counter;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::{JoinError, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

#[cfg(all(feature = "election", not(feature = "kube-5")))]
use crate::election::LeaseElection;
use crate::{
    client::{self, Connection},
    clock::{Clock, SystemClock},
    controller::Controller,
    election::Election,
    gauges::MetricNames,
    key::Key,
    lanes::runner::Runner,
    member::Incarnation,
    meter::MeterLayer,
    ownership::Ownership,
    readiness::{Readiness, Ready, Source},
    runtime::{self, Handle},
    session::{Session, Tasks, locked},
    shown,
    slot::SlotSet,
    step::End,
    timing::{InvalidTiming, Timing},
    watch::server_selects_shards,
    wire::{InvalidName, Names},
};

/// Who a replica is, and what it finds around it.
#[derive(Clone)]
#[must_use]
pub struct Settings {
    /// Names that the fleet shares.
    pub names: Names,
    /// Name of this member, such as the pod's name: unique in the namespace.
    pub member: String,
    /// uid of the pod, or another id that no two processes share at one time.
    pub pod_uid: String,
    /// Which build it is, such as the pod-template-hash; may be empty.
    pub template: String,
    /// Times of the protocol.
    pub timing: Timing,
    /// The clock that the right to act is counted by.
    pub clock: Arc<dyn Clock>,
    /// Who elects the coordinator; None: a Lease (feature `election`). Without that feature: [`crate::election::Unelected`], or one of
    /// your own.
    pub election: Option<Arc<dyn Election>>,
    /// Counts requests.
    pub meter: MeterLayer,
    /// Names of the metrics that controller-runtime has no name for.
    pub metrics: MetricNames,
    /// Makes the part of an incarnation's name that is new at every start.
    pub nonce: fn() -> String,
    /// Stops the replica: it hands its slots over and ends.
    pub stop: CancellationToken,
    /// Whether SIGTERM and Ctrl-C stop it.
    pub signals: bool,
}

impl Settings {
    /// Settings of the member of this name, with defaults for all else. Its pod's uid is made up; where the same name may be used
    /// by a later process, such as a pod of a StatefulSet, say the uid.
    pub fn new(names: Names, member: impl Into<String>) -> Self {
        Self {
            names,
            member: member.into(),
            pod_uid: nonce(),
            template: String::new(),
            timing: Timing::default(),
            clock: Arc::new(SystemClock::default()),
            election: None,
            meter: MeterLayer::default(),
            metrics: MetricNames::default(),
            nonce,
            stop: CancellationToken::new(),
            signals: false,
        }
    }

    /// Settings of a pod, by the environment that its Deployment gives it with `fieldRef`: `POD_NAMESPACE` (else `default`),
    /// `POD_NAME` (else `HOSTNAME`), `POD_UID` and `POD_TEMPLATE_HASH`. `group` is the API group of the slot map and the prefix
    /// of labels, `name` that of the slot map.
    pub fn from_env(group: &str, name: &str) -> Self {
        let of = |variable: &str| std::env::var(variable).ok().filter(|it| !it.is_empty());
        let names = Names::new(group, of("POD_NAMESPACE").unwrap_or_else(|| "default".to_owned()), name);
        let member = of("POD_NAME").or_else(|| of("HOSTNAME")).unwrap_or_else(nonce);
        let defaults = Self::new(names, member);
        Self {
            pod_uid: of("POD_UID").unwrap_or_else(|| defaults.pod_uid.clone()),
            template: of("POD_TEMPLATE_HASH").unwrap_or_default(),
            ..defaults
        }
    }

    /// Stops the replica on SIGTERM and Ctrl-C, from when it runs.
    pub fn stop_on_signals(self) -> Self {
        Self { signals: true, ..self }
    }
}

/// Ends when a signal says that the process is to end.
async fn signalled(listens: bool) -> Result<(), std::io::Error> {
    if !listens {
        return std::future::pending().await;
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    Ok(())
}

/// 16 hexadecimal digits that the system's random numbers seed.
fn nonce() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// Why a replica did not start, or ended although it was not stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No reconcile could ever start.
    #[error("controller {0} may reconcile nothing at once")]
    NothingAtOnce(&'static str),
    /// Two controllers have one name, such as those of two kinds of the same name.
    #[error("two controllers are called {0}")]
    SameName(&'static str),
    /// The builder was told twice to watch a type.
    #[error("{0} is watched twice")]
    WatchedTwice(&'static str),
    /// A member could not keep its right to act.
    #[error(transparent)]
    Timing(#[from] InvalidTiming),
    /// The pod's uid is empty or too long, or the nonce is, or it has an underscore.
    #[error("no incarnation can be called {pod_uid:?} and {nonce:?}")]
    Incarnation {
        /// uid of the pod.
        pod_uid: String,
        /// What is new at every start.
        nonce: String,
    },
    /// There is no election: neither `Settings::election` nor the feature of that name.
    #[error("no one elects the coordinator")]
    NoElection,
    /// The system does not let the process listen to signals.
    #[error("signals cannot be listened to")]
    Signals(#[source] std::io::Error),
    /// The connection's configuration makes no client.
    #[error("no client can be made")]
    Client(#[from] kube::Error),
    /// The API server would reject a name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The protocol's task panicked: a bug.
    #[error("sharding task panicked")]
    Member(#[source] JoinError),
    /// The task of the watches and controllers panicked.
    #[error("work task panicked")]
    Work(#[source] JoinError),
    /// Watches and controllers ended.
    #[error("work task ended unexpectedly")]
    Ended,
    /// The shutdown took too long.
    #[error("shutdown timed out: slots and Lease not released")]
    Overdue,
}

/// What is reconciled again beside what became ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// Every object in the slots that are ready.
    pub slots: bool,
    /// Every object of the coordinator.
    pub coordinator: bool,
}

/// What an incarnation works with: caches and indexes, made anew for each, and what is done when its slots change.
pub trait Work: Send + Sync + 'static {
    /// Starts the watches; answers what reconciles wait for. Called once.
    fn watches(self: &Arc<Self>, session: &Session) -> Vec<Source>;

    /// What is listed changed. Called before anything that became ready may be reconciled.
    fn listed(&self) -> Again {
        Again::default()
    }

    /// Everything of these slots is listed, or they were opened again: queue all their objects.
    fn gained(&self, slots: &SlotSet);

    /// This replica coordinates, and everything that this reads is listed: queue all objects of the coordinator.
    fn coordinates(&self) {}

    /// What every member needs is listed: from now on this replica may own slots. Called once.
    fn synced(self: &Arc<Self>, session: &Session) {
        let _ = session;
    }
}

type Begin<S> = Box<dyn Fn(&Session) -> S + Send + Sync>;

/// A replica with its controllers. See [`Sharded::run`].
#[must_use = "it does nothing until it is run"]
pub struct Sharded<S> {
    connection: Connection,
    settings: Settings,
    begin: Begin<S>,
    probe: Vec<String>,
    controllers: Vec<Controller<S>>,
    fenced: Box<dyn Fn() + Send + Sync>,
    invalid: Option<Error>,
}

impl<S: Work> Sharded<S> {
    /// A replica that reaches the API server by `connection`. `begin` is called at the start of each incarnation.
    pub fn new(
        connection: Connection,
        settings: Settings,
        begin: impl Fn(&Session) -> S + Send + Sync + 'static,
    ) -> Self {
        Self {
            connection,
            settings,
            begin: Box::new(begin),
            probe: Vec::new(),
            controllers: Vec::new(),
            fenced: Box::new(|| {}),
            invalid: None,
        }
    }

    /// Uses the API server's own selection by hash of the uid, if it supports it for these collections. See
    /// [`server_selects_shards`].
    pub fn by_hash(mut self, paths: impl IntoIterator<Item = String>) -> Self {
        self.probe.extend(paths);
        self
    }

    /// Calls this when an incarnation was fenced and has ended, before the next one joins.
    pub fn on_fenced(self, fenced: impl Fn() + Send + Sync + 'static) -> Self {
        Self { fenced: Box::new(fenced), ..self }
    }

    /// The same, which cannot run.
    pub(crate) fn invalid(self, error: Option<Error>) -> Self {
        Self { invalid: error, ..self }
    }

    /// Adds a controller.
    pub fn controller(mut self, controller: Controller<S>) -> Self {
        self.controllers.push(controller);
        self
    }

    /// Runs until it is stopped. An incarnation that is fenced ends with all it has, and the replica joins again as another.
    ///
    /// Cancellation safe in that a dropped replica acts no more; its slots are taken over when its Lease expires.
    pub async fn run(mut self) -> Result<(), Error> {
        self.check()?;
        let this = Arc::new(self);
        let Settings { signals, stop, .. } = &this.settings;
        let stopped = async {
            signalled(*signals).await.map_err(Error::Signals)?;
            stop.cancel();
            std::future::pending::<Result<(), Error>>().await
        };
        tokio::select! {
            biased;
            ended = stopped => ended,
            ended = lives(&this) => ended,
        }
    }

    /// Whether it can run.
    fn check(&mut self) -> Result<(), Error> {
        if let Some(error) = self.invalid.take() {
            return Err(error);
        }
        self.settings.timing.check()?;
        let mut names = BTreeSet::new();
        for controller in &self.controllers {
            if controller.in_flight_max == 0 {
                return Err(Error::NothingAtOnce(controller.name));
            }
            if !names.insert(controller.name) {
                return Err(Error::SameName(controller.name));
            }
        }
        Ok(())
    }

    /// Watches and reconciles until told to end.
    async fn work(self: Arc<Self>, client: Client, handle: Handle, incarnation: Incarnation, stop: CancellationToken) {
        let tasks = Arc::new(Tasks::new(JoinSet::new()));
        let started = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            started = self.start(client, handle, incarnation, &tasks) => started,
        };
        let Started { session, state, runners, ready } = started;
        let controllers = self.controllers.iter().cloned().zip(runners);
        let runs = controllers.map(|(controller, runner)| {
            controller.run(runner, Arc::clone(&state), session.gate().clone(), ready.clone(), stop.clone())
        });
        futures::future::join_all(runs).await;
        let mut ended = std::mem::take(&mut *locked(&tasks));
        ended.shutdown().await;
    }

    /// Starts the watches, and waits until this replica may own slots.
    async fn start(&self, client: Client, handle: Handle, incarnation: Incarnation, tasks: &Arc<Tasks>) -> Started<S> {
        let ownership = Ownership::follow(&mut locked(tasks), &handle, &incarnation);
        let (mut queues, mut runners) = (BTreeMap::new(), Vec::new());
        for controller in &self.controllers {
            let (queue, runner) = Runner::new(controller.name, controller.in_flight_max);
            queues.insert(controller.name, queue);
            runners.push(runner.with_metrics(self.settings.metrics));
        }
        // Labels do on every server; one that does not answer now is asked no further.
        let selects_shards =
            !self.probe.is_empty() && server_selects_shards(&client, &self.probe).await.unwrap_or(false);
        tracing::debug!(selects_shards, "whether the API server selects objects by the hash of their uid");
        let session = Session {
            client,
            handle,
            incarnation,
            names: Arc::new(self.settings.names.clone()),
            ownership,
            queues: Arc::new(queues),
            selects_shards,
            metrics: self.settings.metrics,
            tasks: Arc::downgrade(tasks),
            clients: Arc::default(),
        };
        session.spawn(shown::show(session.clone()));
        let state = Arc::new((self.begin)(&session));
        let sources = state.watches(&session);
        let readiness = Readiness::new(sources.clone(), session.ownership(), session.gate().openings());
        let ready = readiness.ready();
        session.spawn(follow(readiness, Arc::clone(&state)));
        for source in sources {
            source.listed_for_member().await;
        }
        session.handle.synced();
        state.synced(&session);
        Started { session, state, runners, ready }
    }
}

/// An incarnation whose watches run.
struct Started<S> {
    session: Session,
    state: Arc<S>,
    runners: Vec<Runner<Key, Key>>,
    ready: Ready,
}

/// Follows what is listed; queues what becomes ready.
async fn follow<S: Work>(mut readiness: Readiness, state: Arc<S>) {
    loop {
        let step = readiness.look();
        // In this order: a reconcile that is queued must find it usable.
        let again = state.listed();
        readiness.publish(&step);
        state.gained(if again.slots { &step.ready } else { &step.gained });
        if step.coordination_gained || (again.coordinator && step.coordinates) {
            state.coordinates();
        }
        readiness.changed().await;
    }
}

/// One incarnation after the other, until one is stopped.
async fn lives<S: Work>(this: &Arc<Sharded<S>>) -> Result<(), Error> {
    loop {
        match live(this).await? {
            End::Stopped => {
                tracing::info!("stopped: slots and Lease released");
                return Ok(());
            }
            end => {
                counter!(this.settings.metrics.fenced).increment(1);
                tracing::warn!(?end, "fenced (Lease lost): dropping caches, rejoining with a new identity");
                (this.fenced)();
            }
        }
    }
}

/// One incarnation, from joining to its end.
async fn live<S: Work>(this: &Arc<Sharded<S>>) -> Result<End, Error> {
    let Settings { names, member, timing, stop, .. } = &this.settings;
    let incarnation = incarnation(&this.settings.pod_uid, (this.settings.nonce)())?;
    let protocol = client::for_protocol(&this.connection, &this.settings.meter)?;
    let election = this.settings.election.clone().or_else(|| by_lease(&protocol, &this.settings));
    let election = election.ok_or(Error::NoElection)?;
    let settings = runtime::Settings {
        names: names.clone(),
        member: member.clone(),
        incarnation: incarnation.clone(),
        template: this.settings.template.clone(),
        timing: timing.clone(),
        clock: Arc::clone(&this.settings.clock),
    };
    let (handle, runtime) = runtime::member(protocol, settings, election)?;
    let client = client::gated(&this.connection, handle.gate().clone(), &this.settings.meter)?;
    let end_work = CancellationToken::new();
    let work = Arc::clone(this).work(client, handle.clone(), incarnation, end_work.clone());
    // Both end with this future: a replica that is dropped must not renew its Lease.
    let (mut work, mut runtime) = (AbortOnDropHandle::new(tokio::spawn(work)), runtime.spawn());
    let overdue = overdue(stop, &handle, timing.drain_max + timing.lease_duration);
    let end = tokio::select! {
        biased;
        end = &mut runtime => end.map_err(Error::Member),
        ended = &mut work => Err(ended.map_or_else(Error::Work, |()| Error::Ended)),
        () = overdue => Err(Error::Overdue),
    };
    end_work.cancel();
    runtime.abort();
    // Writes that were sent belong to the old gate, which is closed; nothing else may linger.
    if !work.is_finished() && tokio::time::timeout(timing.drain_max, &mut work).await.is_err() {
        work.abort();
    }
    end
}

#[cfg(all(feature = "election", not(feature = "kube-5")))]
#[allow(clippy::unnecessary_wraps, reason = "without the feature there is none")]
fn by_lease(protocol: &Client, Settings { names, member, timing, .. }: &Settings) -> Option<Arc<dyn Election>> {
    let (lease, Timing { lease_duration, attempt_timeout, .. }) = (names.lease(member), timing);
    Some(Arc::new(LeaseElection::new(protocol.clone(), names, &lease, *lease_duration, *attempt_timeout)))
}

#[cfg(not(all(feature = "election", not(feature = "kube-5"))))]
fn by_lease(_: &Client, _: &Settings) -> Option<Arc<dyn Election>> {
    None
}

fn incarnation(pod_uid: &str, nonce: String) -> Result<Incarnation, Error> {
    let found = Incarnation::parse(&format!("{pod_uid}_{nonce}")).filter(|_| !nonce.contains('_'));
    found.ok_or_else(|| Error::Incarnation { pod_uid: pod_uid.to_owned(), nonce })
}

/// Asks the member to stop when it should, and ends when that takes too long: the drain, and a Lease that cannot be released.
async fn overdue(stop: &CancellationToken, handle: &Handle, most: Duration) {
    stop.cancelled().await;
    handle.stop();
    tokio::time::sleep(most).await;
}
