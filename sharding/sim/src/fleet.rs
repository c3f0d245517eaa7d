//! Replicas of a controller that uses `kube-sharding`, on one model API server. What happens to them follows from a seed.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use kube_sharding::{
    Connection, Settings, Slot,
    election::{Boxed, Election},
    kube::core::DynamicObject,
    map::Entry,
    sharded::Error,
    wire::Names,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    call::BY_HAND,
    network::{FaultInjector, LinkFaults, Network},
    server::Server,
    store::Written,
    virtual_time::VirtualClock,
};

/// Longest wait of [`Fleet::until`], in virtual time.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Runs a replica.
type Run = Box<dyn Fn(Connection, Settings) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>>;

/// Something that befell a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfortune {
    /// A replica died, as by `kill -9`, and another was started.
    Death,
    /// A replica was told to end, and another was started.
    Restart,
    /// A replica was cut off for a time, longer than its Lease or shorter.
    Cut,
    /// For a time, requests and responses of a replica were lost, late or answered by 409, and its watches broke.
    BadNetwork,
    /// The server forgot its history: every watch must list again.
    WatchGap,
    /// The server sent every object to every watch again.
    Repetition,
}

impl Misfortune {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Death, Self::Restart, Self::Cut, Self::BadNetwork, Self::WatchGap, Self::Repetition];
}

/// The elected member's Lease, and its last candidacy.
type Term = Arc<Mutex<Option<(Arc<str>, Instant)>>>;

/// Elects the first candidate for one term after the other.
#[derive(Clone)]
struct Terms {
    lease: Arc<str>,
    process: usize,
    injector: FaultInjector,
    term: Term,
    duration: Duration,
}

impl Election for Terms {
    fn campaign(&self) -> Boxed<Option<Arc<str>>> {
        let mut term = self.term.lock().unwrap();
        let mine = |holder: &Arc<str>| *holder == self.lease;
        if self.injector.of(self.process).cut {
            return Box::pin(async { None });
        }
        if term.as_ref().is_none_or(|(holder, since)| mine(holder) || since.elapsed() > self.duration) {
            *term = Some((Arc::clone(&self.lease), Instant::now()));
        }
        let elected = term.as_ref().map(|(holder, _)| Arc::clone(holder));
        Box::pin(async move { elected })
    }

    fn step_down(&self) -> Boxed<()> {
        self.term.lock().unwrap().take_if(|(holder, _)| *holder == self.lease);
        Box::pin(async {})
    }
}

/// A running replica.
struct Replica {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Replicas of one controller. To be used within [`crate::in_virtual_time`], with the same seed.
pub struct Fleet {
    server: Server,
    injector: FaultInjector,
    names: Names,
    run: Run,
    dice: StdRng,
    replicas: BTreeMap<usize, Replica>,
    started: usize,
    term: Term,
}

impl Fleet {
    /// A fleet without replicas. `run` runs one, such as `|connection, settings| controller(connection, settings).run()`.
    pub fn new<R>(seed: u64, server: &Server, names: Names, run: impl Fn(Connection, Settings) -> R + 'static) -> Self
    where
        R: Future<Output = Result<(), Error>> + Send + 'static,
    {
        Self {
            server: server.clone(),
            injector: FaultInjector::new(seed),
            names,
            run: Box::new(move |connection, settings| Box::pin(run(connection, settings))),
            dice: StdRng::seed_from_u64(seed),
            replicas: BTreeMap::new(),
            started: 0,
            term: Arc::default(),
        }
    }

    /// The faults of the replicas' connections; a replica's number is its process.
    pub fn injector(&self) -> &FaultInjector {
        &self.injector
    }

    /// Random numbers of this fleet's seed, for what a test changes itself.
    pub fn dice(&mut self) -> &mut StdRng {
        &mut self.dice
    }

    /// Numbers of the running replicas.
    pub fn running(&self) -> Vec<usize> {
        self.replicas.keys().copied().collect()
    }

    /// Starts a replica; returns its number.
    pub fn start(&mut self) -> usize {
        let (process, stop) = (self.started, CancellationToken::new());
        self.started += 1;
        let defaults = Settings::new(self.names.clone(), format!("replica-{process}"));
        let election = Terms {
            lease: self.names.lease(&defaults.member).into(),
            process,
            injector: self.injector.clone(),
            term: Arc::clone(&self.term),
            duration: defaults.timing.lease_duration,
        };
        let settings = Settings {
            pod_uid: format!("process-{process}"),
            nonce: || format!("{:016x}", fastrand::u64(..)),
            clock: Arc::new(VirtualClock::default()),
            election: Some(Arc::new(election)),
            stop: stop.clone(),
            ..defaults
        };
        let connection = Connection::through(Network::new(&self.server, &self.injector, process));
        let run = (self.run)(connection, settings);
        let task = tokio::spawn(async move {
            // A replica that cannot release its Lease since it is cut off ends with an error.
            let _ = run.await;
        });
        self.replicas.insert(process, Replica { stop, task });
        process
    }

    /// Kills a replica: nothing that it sent later arrives.
    pub fn kill(&mut self, process: usize) {
        if let Some(replica) = self.replicas.remove(&process) {
            self.injector.kill(process);
            replica.task.abort();
        }
    }

    /// Tells a replica to end.
    pub fn stop(&mut self, process: usize) {
        if let Some(replica) = self.replicas.remove(&process) {
            replica.stop.cancel();
        }
    }

    /// Chooses a misfortune and whom it befalls, and lets it happen: the network of a replica is as it was before when this
    /// returns.
    pub async fn misfortune(&mut self) -> Misfortune {
        let what = Misfortune::ALL[self.dice.random_range(0..Misfortune::ALL.len())];
        let running = self.running();
        let Some(whom) = running.get(self.dice.random_range(0..running.len().max(1))).copied() else { return what };
        let time = Duration::from_millis(self.dice.random_range(1_000..60_000));
        match what {
            Misfortune::Death => {
                self.kill(whom);
                self.start();
            }
            Misfortune::Restart => {
                self.stop(whom);
                self.start();
            }
            Misfortune::Cut => self.bad_link(whom, LinkFaults { cut: true, ..LinkFaults::default() }, time).await,
            Misfortune::BadNetwork => {
                let lossy = LinkFaults {
                    request_lost: 50,
                    answer_lost: 100,
                    conflict: 100,
                    late: 30,
                    watch: 100,
                    ..LinkFaults::default()
                };
                self.bad_link(whom, lossy, time).await;
            }
            Misfortune::WatchGap => self.server.compact(),
            Misfortune::Repetition => self.server.replay(),
        }
        what
    }

    async fn bad_link(&self, process: usize, link: LinkFaults, time: Duration) {
        self.injector.set(process, link);
        sleep(time).await;
        self.injector.set(process, LinkFaults::default());
    }

    /// Waits until this holds.
    ///
    /// # Panics
    /// If it does not hold for half an hour.
    pub async fn until(&self, what: &str, holds: impl Fn(&Server) -> bool) {
        let mut changes = self.server.changes();
        let wait = async {
            while !holds(&self.server) {
                changes.changed().await.unwrap();
            }
        };
        let came = timeout(PATIENCE, wait).await.is_ok();
        assert!(came, "in vain: {what}\n{}", self.history());
    }

    /// Every write that took effect, one a line. Two runs from one seed have the same if Tokio is seeded too: see
    /// [`crate::in_virtual_time`].
    pub fn history(&self) -> String {
        let mut text = String::new();
        for it in self.server.written() {
            let by = if it.sender == BY_HAND { "by hand".to_owned() } else { format!("by {}", it.sender) };
            let after = it.at.duration_since(self.server.begun()).as_millis();
            let _ = writeln!(text, "{after} ms {:?} {} {} {by}", it.change, it.place.plural(), it.place.name);
        }
        text
    }

    /// Writes of replicas to objects of a kind, by its plural, that break a guarantee: by one that never owned the slot, or after
    /// the first write by a later owner. `uid` is what the slot follows from: the uid of the object, or of its owner.
    pub fn violations(&self, plural: &str, uid: impl Fn(&Value) -> Option<&str>) -> Vec<String> {
        let (mut owners, mut newest) = (BTreeMap::<(u16, usize), i64>::new(), BTreeMap::<u16, i64>::new());
        let mut wrong = Vec::new();
        for it in self.server.written() {
            if it.place.plural() == "slotmaps" {
                owners.extend(self.owners(&it));
            }
            if it.place.plural() != plural || it.sender == BY_HAND {
                continue;
            }
            let slot = uid(&it.object).map_or(0, |uid| u16::from(Slot::of_uid(uid).number()));
            let last = newest.entry(slot).or_default();
            let what = || format!("{} {} by {}", it.version, it.place.name, it.sender);
            match owners.get(&(slot, it.sender)) {
                Some(epoch) if epoch >= last => *last = *epoch,
                Some(_) => wrong.push(format!("{}: after a later owner", what())),
                None => wrong.push(format!("{}: never its owner", what())),
            }
        }
        wrong
    }

    /// The slots and epochs of each process at a version of the slot map.
    fn owners(&self, map: &Written) -> Vec<((u16, usize), i64)> {
        let Some(map) = serde_json::from_value::<DynamicObject>((*map.object).clone())
            .ok()
            .and_then(|map| self.names.read_map(&map))
        else {
            return Vec::new();
        };
        let entries = map.content.entries().filter_map(|(Entry(slot), holding)| {
            let process = holding.owner.as_ref()?.pod().strip_prefix("process-")?.parse().ok()?;
            Some(((slot, process), holding.epoch))
        });
        entries.collect()
    }
}
