//! Processes of the simulation: the real runtime, gate and client, and a worker in place of a controller.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use kube::{
    Client,
    api::PostParams,
    core::{DynamicObject, Request},
};
use kube_sharding::{
    Incarnation, Slot,
    clock::{Clock, Elapsed, Reading},
    election::{Boxed, Election},
    gate::{Gate, Permit, Scope},
    layer::GateLayer,
    runtime::{Handle, Settings, member},
    step::End,
    timing::{Now, Timing},
    wire::Names,
};
use kube_sharding_sim::{FaultInjector, Network, Server};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tower::Layer;

/// Collection of the objects that the members share.
pub(crate) const ITEMS: &str = "/api/v1/namespaces/system/configmaps";

pub(crate) fn names() -> Names {
    let text = str::to_owned;
    Names { group: text("example.com"), prefix: text("example.com"), namespace: text("system"), name: text("fleet") }
}

pub(crate) fn timing() -> Timing {
    Timing::default()
}

/// The three clocks of a machine, with their own rate and errors.
pub(crate) struct SimClock {
    begun: Instant,
    /// Their rate, in thousandths.
    per_mille: u64,
    errors: Mutex<ClockErrors>,
    elapsed: Mutex<Elapsed>,
}

/// Differences between the clocks of one machine.
#[derive(Default)]
struct ClockErrors {
    /// How long the machine was suspended: its monotonic clock stopped.
    suspended: Duration,
    /// How long its hypervisor paused it: only its wall clock continued, or was corrected afterwards.
    paused: Duration,
    /// What is stopped now, and since when.
    still: Option<(Stopped, Instant)>,
    /// How far the wall clock was set forward and back.
    forward: Duration,
    back: Duration,
}

impl ClockErrors {
    /// How long the machine has been suspended and paused until now.
    fn stopped_for(&self, per_mille: u64) -> (Duration, Duration) {
        let time = |what| match self.still {
            Some((still, since)) if still == what => scaled(since, per_mille),
            _ => Duration::ZERO,
        };
        (self.suspended + time(Stopped::Machine), self.paused + time(Stopped::Hypervisor))
    }
}

/// The time since an instant on a clock with this rate.
fn scaled(since: Instant, per_mille: u64) -> Duration {
    Duration::from_millis(u64::try_from(since.elapsed().as_millis()).unwrap() * per_mille / 1000)
}

/// Wall clock at the start of the simulation, late enough to be set back.
const WALL: Duration = Duration::from_secs(3_600_000);

/// What is stopped while a process is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The process alone (SIGSTOP).
    Process,
    /// The machine was suspended to memory.
    Machine,
    /// The hypervisor paused the machine.
    Hypervisor,
}

impl SimClock {
    fn new(per_mille: u64) -> Self {
        let first = Reading { wall: WALL, ..Reading::default() };
        let elapsed = Mutex::new(Elapsed::since(first));
        Self { begun: Instant::now(), per_mille, errors: Mutex::default(), elapsed }
    }

    fn stop_clocks(&self, what: Stopped) {
        self.resume_clocks();
        self.errors.lock().unwrap().still = Some((what, Instant::now()));
    }

    fn resume_clocks(&self) {
        let mut errors = self.errors.lock().unwrap();
        (errors.suspended, errors.paused) = errors.stopped_for(self.per_mille);
        errors.still = None;
    }

    /// Sets the wall clock.
    pub(crate) fn set_wall(&self, forward: Duration, back: Duration) {
        let mut errors = self.errors.lock().unwrap();
        errors.forward += forward;
        errors.back += back;
    }
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        let gone = scaled(self.begun, self.per_mille);
        let errors = self.errors.lock().unwrap();
        let (suspended, paused) = errors.stopped_for(self.per_mille);
        let boot = gone.saturating_sub(paused);
        let reading = Reading {
            monotonic: boot.saturating_sub(suspended),
            boot,
            wall: (WALL + gone + errors.forward).saturating_sub(errors.back),
        };
        self.elapsed.lock().unwrap().at(reading)
    }
}

/// Elects any process, and sometimes another one: a wrong election must only cost time.
struct RandomElection {
    processes: Processes,
    dice: Mutex<StdRng>,
}

impl Election for RandomElection {
    fn campaign(&self) -> Boxed<Option<Arc<str>>> {
        let alive: Vec<String> = self.processes.lock().unwrap().values().map(|it| it.name.clone()).collect();
        let mut dice = self.dice.lock().unwrap();
        let some = if dice.random_range(0..10) == 0 { dice.random_range(0..alive.len().max(1)) } else { 0 };
        let name = alive.get(some).map(|name| names().lease(name).into());
        Box::pin(async move { name })
    }

    fn step_down(&self) -> Boxed<()> {
        Box::pin(async {})
    }
}

/// Elects the first candidate after the last term for one term, as `LeaseElection` does.
struct TermElection {
    process: usize,
    injector: FaultInjector,
    term: Term,
}

/// The elected process, and its last candidacy.
type Term = Arc<Mutex<Option<(usize, Instant)>>>;

impl Election for TermElection {
    fn campaign(&self) -> Boxed<Option<Arc<str>>> {
        if self.injector.of(self.process).cut {
            return Box::pin(async { None });
        }
        let mut term = self.term.lock().unwrap();
        let duration = timing().lease_duration;
        let over = term.is_none_or(|(holder, since)| holder == self.process || since.elapsed() > duration);
        if over {
            *term = Some((self.process, Instant::now()));
        }
        let name = term.map(|(holder, _)| names().lease(&format!("member-{holder}")).into());
        Box::pin(async move { name })
    }

    fn step_down(&self) -> Boxed<()> {
        self.term.lock().unwrap().take_if(|(holder, _)| *holder == self.process);
        Box::pin(async {})
    }
}

/// A process, as the script knows it.
pub(crate) struct Process {
    /// Name of the pod.
    pub(crate) name: String,
    pub(crate) clock: Arc<SimClock>,
    /// Its current incarnation and gate.
    pub(crate) gate: Option<(Incarnation, Gate)>,
    pub(crate) handle: Option<Handle>,
    pause: Arc<Pause>,
    task: tokio::task::JoinHandle<()>,
}

/// Live processes, by number.
pub(crate) type Processes = Arc<Mutex<BTreeMap<usize, Process>>>;

#[derive(Default)]
struct Pause {
    paused: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// A future that makes no progress while it is paused, as a process after SIGSTOP.
struct Pausable<F> {
    inner: Pin<Box<F>>,
    pause: Arc<Pause>,
}

impl<F: Future<Output = ()>> Future for Pausable<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        *self.pause.waker.lock().unwrap() = Some(context.waker().clone());
        if self.pause.paused.load(Ordering::SeqCst) { Poll::Pending } else { self.inner.as_mut().poll(context) }
    }
}

/// Starts and ends processes.
#[derive(Clone)]
pub(crate) struct Fleet {
    pub(crate) server: Server,
    pub(crate) injector: FaultInjector,
    pub(crate) processes: Processes,
    seed: u64,
    started: Arc<AtomicU64>,
    /// The term of the coordinator; without it, elections are random.
    term: Option<Term>,
}

impl Fleet {
    pub(crate) fn new(seed: u64, server: Server, injector: FaultInjector) -> Self {
        Self { server, injector, processes: Arc::default(), seed, started: Arc::default(), term: None }
    }

    /// The coordinator is elected for terms.
    pub(crate) fn with_terms(self) -> Self {
        Self { term: Some(Term::default()), ..self }
    }

    /// Numbers of the live processes.
    pub(crate) fn ids(&self) -> Vec<usize> {
        self.processes.lock().unwrap().keys().copied().collect()
    }

    fn election(&self, process: usize, dice: &mut StdRng) -> Arc<dyn Election> {
        // Always drawn, so that a seed gives the same history with both elections.
        let dice = Mutex::new(StdRng::seed_from_u64(dice.random()));
        match &self.term {
            Some(term) => Arc::new(TermElection { process, injector: self.injector.clone(), term: Arc::clone(term) }),
            None => Arc::new(RandomElection { processes: self.processes.clone(), dice }),
        }
    }

    pub(crate) fn start(&self, template: &str) -> usize {
        let id = usize::try_from(self.started.fetch_add(1, Ordering::SeqCst)).unwrap();
        self.start_as(id, format!("member-{id}"), template)
    }

    /// Starts another pod with the name of one that may be alive, as when the pod of a StatefulSet is deleted by force.
    pub(crate) fn start_twin(&self, of: usize, template: &str) {
        let id = usize::try_from(self.started.fetch_add(1, Ordering::SeqCst)).unwrap();
        self.start_as(id, self.name(of), template);
    }

    /// Processes whose pods have the same name as this one's.
    pub(crate) fn of_one_name(&self, id: usize) -> Vec<usize> {
        let name = self.name(id);
        self.ids().into_iter().filter(|it| self.name(*it) == name).collect()
    }

    /// Name of a process's pod.
    pub(crate) fn name(&self, id: usize) -> String {
        self.processes.lock().unwrap().get(&id).map_or_else(|| format!("member-{id}"), |process| process.name.clone())
    }

    fn start_as(&self, id: usize, name: String, template: &str) -> usize {
        let mut dice = StdRng::seed_from_u64(self.seed.wrapping_mul(1000) + id as u64);
        // Rates differ by up to 8 %: the protocol tolerates 11 %.
        let clock = Arc::new(SimClock::new(dice.random_range(960..=1040)));
        let pause = Arc::new(Pause::default());
        let life = run_process(self.clone(), id, (name.clone(), template.to_owned()), Arc::clone(&clock), dice);
        let task = tokio::spawn(Pausable { inner: Box::pin(life), pause: Arc::clone(&pause) });
        let process = Process { name, clock, gate: None, handle: None, pause, task };
        self.processes.lock().unwrap().insert(id, process);
        id
    }

    pub(crate) fn kill(&self, id: usize) {
        if let Some(process) = self.processes.lock().unwrap().remove(&id) {
            process.task.abort();
        }
    }

    pub(crate) fn pause(&self, id: usize, what: Stopped) {
        self.with(id, |process| {
            process.clock.stop_clocks(what);
            process.pause.paused.store(true, Ordering::SeqCst);
        });
    }

    pub(crate) fn resume(&self, id: usize) {
        self.with(id, |process| {
            process.clock.resume_clocks();
            process.pause.paused.store(false, Ordering::SeqCst);
            if let Some(waker) = process.pause.waker.lock().unwrap().take() {
                waker.wake();
            }
        });
    }

    pub(crate) fn stop(&self, id: usize) {
        self.with(id, |process| process.handle.iter().for_each(Handle::stop));
    }

    pub(crate) fn with(&self, id: usize, act: impl FnOnce(&Process)) {
        if let Some(process) = self.processes.lock().unwrap().get(&id) {
            act(process);
        }
    }
}

/// Runs one process: one incarnation after the other, until it is stopped.
async fn run_process(
    fleet: Fleet,
    id: usize,
    (name, template): (String, String),
    clock: Arc<SimClock>,
    mut dice: StdRng,
) {
    for life in 0.. {
        let incarnation = Incarnation::new(&format!("pod-{id}"), &life.to_string());
        let network = Network::new(&fleet.server, &fleet.injector, id);
        let settings = Settings {
            names: names(),
            member: name.clone(),
            incarnation: incarnation.clone(),
            template: template.clone(),
            timing: timing(),
            clock: clock.clone(),
        };
        let election = fleet.election(id, &mut dice);
        let (handle, runtime) = member(Client::new(network.clone(), "system"), settings, election).unwrap();
        let gate = handle.gate().clone();
        if let Some(process) = fleet.processes.lock().unwrap().get_mut(&id) {
            process.gate = Some((incarnation.clone(), gate.clone()));
            process.handle = Some(handle.clone());
        }
        let gated = GateLayer::new(gate.clone(), Duration::from_secs(10), |_| false).layer(network);
        let client = Client::new(gated, "system");
        sleep(Duration::from_millis(dice.random_range(0..500))).await;
        handle.synced();
        let end = tokio::select! {
            biased;
            end = runtime.run() => end,
            () = work(&fleet, &gate, &client, &incarnation, &mut dice) => End::Stopped,
        };
        if end == End::Stopped {
            break;
        }
    }
    fleet.processes.lock().unwrap().remove(&id);
}

/// Works as a controller: reads its items, and sets the status of each to its spec.
async fn work(fleet: &Fleet, gate: &Gate, client: &Client, me: &Incarnation, dice: &mut StdRng) {
    loop {
        sleep(Duration::from_millis(dice.random_range(200..600))).await;
        for item in fleet.server.all(ITEMS) {
            let Ok(permit) = gate.admit(scope(&item)) else { continue };
            let name = item["metadata"]["name"].as_str().unwrap().to_owned();
            // Usually short; sometimes longer than a drain waits.
            let long = dice.random_range(0..200) == 0;
            let takes =
                Duration::from_millis(if long { dice.random_range(10_000..30_000) } else { dice.random_range(0..200) });
            tokio::select! {
                biased;
                () = permit.cancelled() => {}
                () = reconcile(client, &permit, me, &name, scope(&item), takes) => {}
            }
        }
    }
}

pub(crate) fn scope(item: &serde_json::Value) -> Scope {
    if item["metadata"]["name"] == "fleet-wide" {
        return Scope::Coordinator;
    }
    Scope::Slot(Slot::of_uid(item["metadata"]["uid"].as_str().unwrap()))
}

async fn reconcile(client: &Client, permit: &Permit, me: &Incarnation, name: &str, scope: Scope, takes: Duration) {
    let read = Request::new(ITEMS).get(name, &kube::api::GetParams::default()).unwrap();
    let Ok(Ok(mut item)) = tokio::time::timeout(Duration::from_secs(10), client.request::<DynamicObject>(read)).await
    else {
        return;
    };
    if item.data["data"]["spec"] == item.data["data"]["status"] {
        return;
    }
    sleep(takes).await;
    item.data["data"]["status"] = item.data["data"]["spec"].clone();
    item.data["data"]["epoch"] = json!(permit.epoch().to_string());
    item.data["data"]["by"] = json!(me.to_string());
    let body = serde_json::to_vec(&item).unwrap();
    let mut write = Request::new(ITEMS).replace(name, &PostParams::default(), body).unwrap();
    write.extensions_mut().insert(scope);
    let _ = client.request::<DynamicObject>(write).await;
}
