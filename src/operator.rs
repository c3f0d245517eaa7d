//! Puts the parts together: member, watches, queues, servers; and ends them in order.

mod apis;
mod concerned;
mod fleet;
mod reactions;
mod readiness;
pub mod reason;
mod settings;
mod wake;
mod watches;

use std::{hash::Hash, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use fleet::Fleet;
use kube_sharding::{
    Incarnation,
    clock::{Clock, SystemClock},
    election::{Election, LeaseElection},
    gate::{Gate, Refusal, Scope},
    lanes::{
        rates::Rates,
        runner::{Outcome, Queue, Runner, Terms},
    },
    runtime::{self, Handle, Settings},
    step::End,
    timing::Timing,
};
use metrics::counter;
use readiness::Readiness;
use tokio::{signal::unix, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use wake::Wake;
use watches::Watches;

use crate::{
    admin,
    cli::RunArguments,
    config::OperatorConfig,
    controllers::{
        backup::{self, index::Indexes},
        bench,
        context::Context,
        failure::WAIT_FOR_RIGHT,
        site,
    },
    domain::key::Key,
    fleet_report::{Report, names},
    io::{
        client::{self, Connection},
        clock::{self, WallClock},
        departures::{Departures, Left},
        events::Events,
        meter::MeterLayer,
        random,
    },
    metrics as recorder,
};

/// How long one answer of the sharding protocol is waited for before it is asked for another way.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a replica finds around it.
pub struct Surroundings {
    /// How the API server is reached.
    pub connection: Connection,
    /// The clock that its right to act is counted by.
    pub clock: Arc<dyn Clock>,
    /// The clock for times in objects.
    pub wall_clock: WallClock,
    /// Who elects the coordinator, where that is not done by a Lease.
    pub election: Option<Arc<dyn Election>>,
    /// Ends it.
    pub stop: CancellationToken,
}

/// What outlives an incarnation.
struct Process {
    arguments: RunArguments,
    surroundings: Surroundings,
    meter: MeterLayer,
    pod_name: String,
    pod_uid: String,
    ready: watch::Sender<Result<(), String>>,
    report: watch::Sender<Report>,
}

/// Runs until a signal. A member that is fenced drops everything and joins again as another.
pub async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    arguments.check().map_err(anyhow::Error::msg)?;
    let handle = recorder::install()?;
    tokio::spawn(recorder::upkeep(handle.clone()));
    let stop = CancellationToken::new();
    let (ready, is_ready) = watch::channel(Err("waiting for the API server".to_owned()));
    let report = watch::Sender::new(Report::default());
    let served = CancellationToken::new();
    let serving = admin::serve(
        arguments.metrics_bind_address,
        handle,
        is_ready,
        report.subscribe(),
        served.clone().cancelled_owned(),
    );
    let mut server = tokio::spawn(serving);
    let (pod_name, pod_uid) = pod(&arguments);
    let config = client::config(&format!("{pod_name}; {pod_uid}")).await.context("connect to the API server")?;
    let surroundings = Surroundings {
        connection: Connection::new(config),
        clock: Arc::new(SystemClock::default()),
        wall_clock: clock::system(),
        election: None,
        stop: stop.clone(),
    };
    tokio::spawn(async move {
        signal().await;
        stop.cancel();
    });
    let process = Process {
        meter: MeterLayer::new(arguments.crash_after_writes),
        surroundings,
        pod_name,
        pod_uid,
        ready,
        report,
        arguments,
    };
    let ended = tokio::select! {
        ended = lives(&process) => ended,
        ended = &mut server => ended?.context("serve metrics and health").and_then(|()| bail!("HTTP server stopped")),
    };
    served.cancel();
    ended
}

/// Name and uid of the pod; made up where they are not said.
fn pod(arguments: &RunArguments) -> (String, String) {
    let uid = arguments.pod_uid.clone().unwrap_or_else(random::id);
    (arguments.pod_name.clone().unwrap_or_else(|| uid.clone()), uid)
}

/// One replica alone, without a process around it: no signals, no HTTP server, no metrics. Runs until it is stopped.
pub async fn replica(arguments: RunArguments, surroundings: Surroundings) -> anyhow::Result<()> {
    let (pod_name, pod_uid) = pod(&arguments);
    let (ready, report) = (watch::Sender::new(Err(String::new())), watch::Sender::default());
    lives(&Process { meter: MeterLayer::default(), surroundings, pod_name, pod_uid, ready, report, arguments }).await
}

/// One incarnation after the other.
async fn lives(process: &Process) -> anyhow::Result<()> {
    loop {
        match live(process).await? {
            End::Stopped => {
                tracing::info!("stopped: slots and Lease released");
                return Ok(());
            }
            end => {
                counter!("frappe_operator_shard_fenced_total").increment(1);
                tracing::warn!(?end, "fenced (Lease lost): dropping caches, rejoining with a new identity");
            }
        }
        process.ready.send_modify(|it| *it = Err("fenced, rejoining with a new identity".to_owned()));
    }
}

/// One incarnation, from joining to its end.
async fn live(process: &Process) -> anyhow::Result<End> {
    let arguments = &process.arguments;
    let incarnation = Incarnation::new(&process.pod_uid, &random::id());
    let timing = Timing {
        lease_duration: arguments.lease_duration,
        renew_interval: arguments.lease_renew_interval,
        attempt_timeout: ATTEMPT_TIMEOUT.min(arguments.lease_renew_interval),
        ..Timing::default()
    };
    let names = names(&arguments.namespace);
    let around = &process.surroundings;
    let protocol = client::for_protocol(&around.connection, &process.meter)?;
    let by_lease = || {
        let me = names.lease(&process.pod_name);
        let election = LeaseElection::new(protocol.clone(), &names, &me, timing.lease_duration, timing.attempt_timeout);
        Arc::new(election) as Arc<dyn Election>
    };
    let election = around.election.clone().unwrap_or_else(by_lease);
    let settings = Settings {
        names,
        member: process.pod_name.clone(),
        incarnation: incarnation.clone(),
        template: arguments.pod_template_hash.clone(),
        timing: timing.clone(),
        clock: Arc::clone(&around.clock),
    };
    let (handle, member) = runtime::member(protocol, settings, election)?;
    tracing::info!(pod = process.pod_name, %incarnation, version = env!("CARGO_PKG_VERSION"), "starting frappe-operator");
    let end_work = CancellationToken::new();
    let mut work = tokio::spawn(work(Worker::new(process, &handle, incarnation, end_work.clone())?));
    let mut member = tokio::spawn(member.run());
    // What a stop may take: the drain, and a Lease that cannot be given back.
    let overdue = async {
        around.stop.cancelled().await;
        handle.stop();
        tokio::time::sleep(timing.drain_max + timing.lease_duration).await;
    };
    let end = tokio::select! {
        end = &mut member => end.context("sharding task panicked"),
        ended = &mut work => ended
            .context("work task panicked")
            .and_then(|ended| ended)
            .and_then(|()| bail!("work task ended unexpectedly")),
        () = overdue => Err(anyhow::anyhow!("shutdown timed out: slots and Lease not released")),
    };
    end_work.cancel();
    member.abort();
    // Writes that were sent belong to the old gate, which is closed; nothing else may linger.
    if !work.is_finished() && tokio::time::timeout(timing.drain_max, &mut work).await.is_err() {
        work.abort();
    }
    end
}

/// SIGTERM or Ctrl-C.
async fn signal() {
    let mut terminate = unix::signal(unix::SignalKind::terminate()).expect("signals can be listened to at start");
    let mut interrupt = unix::signal(unix::SignalKind::interrupt()).expect("signals can be listened to at start");
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
}

/// What one incarnation works with.
struct Worker {
    client: kube::Client,
    events: Events,
    wall_clock: WallClock,
    namespace: String,
    /// Watched namespaces; all if empty.
    namespaces: Vec<String>,
    /// Image of this program.
    image: Option<String>,
    reconciles_max: (usize, usize),
    handle: Handle,
    me: Incarnation,
    ready: watch::Sender<Result<(), String>>,
    report: watch::Sender<Report>,
    stop: CancellationToken,
}

impl Worker {
    fn new(process: &Process, handle: &Handle, me: Incarnation, stop: CancellationToken) -> anyhow::Result<Self> {
        let client = client::gated(&process.surroundings.connection, handle.gate().clone(), &process.meter)?;
        let arguments = &process.arguments;
        Ok(Self {
            events: Events::new(client.clone(), &process.pod_name),
            client,
            wall_clock: Arc::clone(&process.surroundings.wall_clock),
            namespace: arguments.namespace.clone(),
            namespaces: arguments.watch_namespaces.clone(),
            image: arguments.image.clone(),
            reconciles_max: (arguments.site_reconciles_max, arguments.bench_reconciles_max),
            handle: handle.clone(),
            me,
            ready: process.ready.clone(),
            report: process.report.clone(),
            stop,
        })
    }
}

/// A queue of keys, and what runs their reconciles.
fn queue<L, K>(name: &'static str, in_flight_max: usize) -> (Queue<L, K>, Runner<L, K>)
where
    L: Clone + Eq + Hash + Ord + Send + 'static,
    K: Clone + Eq + Hash + Ord + Send + Sync + 'static,
{
    let (queue, runner) = Runner::new(name, in_flight_max);
    (queue, runner.with_gauges(recorder::QUEUE_GAUGES))
}

/// Watches and reconciles until told to end.
async fn work(worker: Worker) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let gate = worker.handle.gate().clone();
    let (site_queue, site_runner) = queue("frappesite", worker.reconciles_max.0);
    let (backup_queue, backup_runner) = queue("sitebackup", worker.reconciles_max.0);
    let (bench_queue, bench_runner) = queue("frappebench", worker.reconciles_max.1);
    let (settings_sender, settings) = watch::channel(Arc::new(OperatorConfig::default()));
    worker.ready.send_modify(|it| *it = Err("waiting for the caches to sync".to_owned()));
    let (sites, unlabelled, benches) = watches::caches();
    let wake = Wake {
        sites,
        unlabelled,
        benches,
        site_queue,
        backup_queue,
        bench_queue,
        backups: Indexes::default(),
        gate: gate.clone(),
    };
    let started =
        watches::start(&mut tasks, &worker.client, (&worker.handle, &worker.me), wake.clone(), &worker.namespaces);
    let watches = tokio::select! {
        () = worker.stop.cancelled() => return Ok(()),
        started = started => started,
    };
    let woken = wake.clone();
    let changed = move |concerned| woken.settings(concerned);
    let map =
        settings::start(&mut tasks, &worker.client, &worker.namespace, worker.events.clone(), settings_sender, changed);
    tokio::select! {
        () = worker.stop.cancelled() => return Ok(()),
        () = async { map.wholly_synced().await; watches.shared_synced().await } => {}
    }
    // From here on this member may be given slots.
    worker.handle.synced();
    worker.ready.send_modify(|it| *it = Ok(()));
    tracing::info!(benches = watches.benches.len(), "caches synced, ready to own slots");
    let fleet = Fleet {
        names: names(&worker.namespace),
        me: worker.me.clone(),
        handle: worker.handle.clone(),
        events: worker.events.clone(),
        report: worker.report.clone(),
        sites: Arc::clone(&watches.sites),
    };
    fleet.follow(&mut tasks);
    let readiness = watches.readiness.clone();
    let context = Arc::new(context(&worker, watches, &wake, settings));
    let most = worker.reconciles_max.1;
    let sites = run_sites(site_runner, &context, &gate, &readiness, &worker.stop);
    let backups = run_backups(backup_runner, &context, &gate, &readiness, &worker.stop);
    let benches = run_benches(bench_runner, &context, &gate, &readiness, most, &worker.stop);
    tokio::join!(sites, backups, benches);
    tasks.shutdown().await;
    Ok(())
}

/// What every reconcile is given.
fn context(worker: &Worker, watches: Watches, wake: &Wake, settings: watch::Receiver<Arc<OperatorConfig>>) -> Context {
    let woken = wake.clone();
    let departures = Departures::new(worker.client.clone(), &worker.namespaces, move |left| match left {
        Left::Bench(bench) => woken.bench(bench),
        Left::Site(site) => woken.backups_of(&site),
    });
    Context {
        client: worker.client.clone(),
        events: worker.events.clone(),
        clock: Arc::clone(&worker.wall_clock),
        settings,
        sites: watches.sites,
        benches: watches.benches,
        site_children: watches.site_children,
        bench_children: watches.bench_children,
        capabilities: watches.readiness.capabilities,
        pod_problems: watches.pod_problems,
        user_secrets: watches.user_secrets,
        ingress_services: watches.ingress_services,
        claims: watches.claims,
        root_secrets: watches.root_secrets,
        backups: wake.backups.clone(),
        new_backups: watches.new_backups,
        operator_image: worker.image.clone(),
        jobs: watches.jobs,
        locks: site::locks::Locks::default(),
        departures,
        namespaces: worker.namespaces.clone(),
    }
}

async fn run_sites(
    runner: Runner<Key, Key>,
    context: &Arc<Context>,
    gate: &Gate,
    readiness: &Readiness,
    stop: &CancellationToken,
) {
    let terms = terms_of_sites(context, gate, stop);
    let (context, gate, ready) = (Arc::clone(context), gate.clone(), readiness.slots.clone());
    let reconcile = move |key: Key| {
        let (context, gate, ready) = (Arc::clone(&context), gate.clone(), ready.clone());
        async move {
            let Some(site) = context.sites.get(&key) else {
                context.jobs.forget(&key);
                return Outcome::Done;
            };
            let scope = wake::scope_of(&site);
            if matches!(scope, Scope::Slot(slot) if !ready.borrow().contains(slot)) {
                // It is woken when everything of its slot is listed.
                return Outcome::Done;
            }
            admitted(&gate, scope, |epoch| site::reconcile(context, key, epoch)).await
        }
    };
    runner.run(terms, reconcile).await;
}

/// Limits and rates of what is done for sites: by bench.
fn terms_of_sites(context: &Arc<Context>, gate: &Gate, stop: &CancellationToken) -> Terms<Key> {
    let (limits, opening) = (Arc::clone(context), gate.opening());
    Terms {
        limit: Box::new(move |bench: &Key| {
            let own = limits.benches.get(bench).and_then(|it| it.spec.site_reconcile_concurrency);
            let slots = opening.borrow().slots().len();
            limits.config().site_limit(own, slots)
        }),
        rates: rates(context, stop),
        acting: gate.acting(),
        stop: stop.clone(),
    }
}

async fn run_backups(
    runner: Runner<Key, Key>,
    context: &Arc<Context>,
    gate: &Gate,
    readiness: &Readiness,
    stop: &CancellationToken,
) {
    let terms = terms_of_sites(context, gate, stop);
    let (context, gate, ready) = (Arc::clone(context), gate.clone(), readiness.slots.clone());
    let reconcile = move |key: Key| {
        let (context, gate, ready) = (Arc::clone(&context), gate.clone(), ready.clone());
        async move {
            let known = context.sites.get(&key).map(|site| wake::scope_of(&site));
            let scopes = known.map_or_else(|| backup::scopes(&context, &key), |scope| [scope].into());
            let mut outcome = Outcome::Done;
            for scope in scopes {
                if matches!(scope, Scope::Slot(slot) if !ready.borrow().contains(slot)) {
                    // They are woken when everything of the slot is listed.
                    continue;
                }
                let work = |epoch| backup::reconcile(Arc::clone(&context), key.clone(), scope, epoch);
                match admitted(&gate, scope, work).await {
                    Outcome::Done => {}
                    other => outcome = other,
                }
            }
            outcome
        }
    };
    runner.run(terms, reconcile).await;
}

async fn run_benches(
    runner: Runner<(), Key>,
    context: &Arc<Context>,
    gate: &Gate,
    readiness: &Readiness,
    most: usize,
    stop: &CancellationToken,
) {
    let (_unlimited, rates) = watch::channel(Rates::default());
    let terms = Terms { limit: Box::new(move |()| most), rates, acting: gate.acting(), stop: stop.clone() };
    let (context, gate, ready) = (Arc::clone(context), gate.clone(), readiness.benches.clone());
    let reconcile = move |key: Key| {
        let (context, gate, ready) = (Arc::clone(&context), gate.clone(), ready.clone());
        async move {
            if !*ready.borrow() {
                return Outcome::Done;
            }
            admitted(&gate, Scope::Coordinator, |_| bench::reconcile(context, key)).await
        }
    };
    runner.run(terms, reconcile).await;
}

/// Does the work if the gate lets it begin, until it must end.
async fn admitted<R: Future<Output = Outcome>>(gate: &Gate, scope: Scope, work: impl FnOnce(i64) -> R) -> Outcome {
    match gate.admit(scope) {
        Ok(permit) => tokio::select! {
            biased;
            () = permit.cancelled() => Outcome::Done,
            outcome = work(permit.epoch()) => outcome,
        },
        // Another member's by now: it wakes it.
        Err(Refusal::NotOwner) => Outcome::Done,
        Err(Refusal::Suspended) => Outcome::After(WAIT_FOR_RIGHT),
    }
}

/// The rates of the settings, as they change.
fn rates(context: &Arc<Context>, stop: &CancellationToken) -> watch::Receiver<Rates> {
    let mut settings = context.settings.clone();
    let of = |config: &OperatorConfig| Rates {
        member_per_second: config.member_reconciles_per_second,
        lane_per_second: config.bench_reconciles_per_second,
    };
    let (sender, receiver) = watch::channel(of(&settings.borrow()));
    let stop = stop.clone();
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        while settings.changed().await.is_ok() {
            sender.send_replace(of(&settings.borrow_and_update()));
        }
    }));
    receiver
}
