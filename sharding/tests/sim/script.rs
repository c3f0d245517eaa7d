//! The events of one simulation, and its checks.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use kube_sharding::gate::Scope;
use kube_sharding_sim::{BY_HAND, FaultInjector, Faults, LinkFaults, Server};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    by_hand::{MAPS, edit_map},
    fleet::{Fleet, ITEMS, Stopped, names, scope},
    trace::explain,
};

/// Items that the processes share.
const ITEM_COUNT: usize = 12;
/// How long faults are injected.
const FAULTY: Duration = Duration::from_secs(80);
/// Time to recover: the longest late request (30 s) and drain (20 s + 10 s), a lease duration, and time for the last reconciles.
const RECOVERY: Duration = Duration::from_secs(90);
/// How long a planned handover may take: a drain and its cancellation.
const HANDOVER: Duration = Duration::from_secs(30);
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases";

/// Rules that are broken on purpose.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flaws {
    /// The server does not check the version that a write is based on.
    pub(crate) without_version_checks: bool,
}

/// Totals of one simulation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    writes: usize,
    map_changes: u64,
    crashes: usize,
    stops: usize,
    pauses: usize,
    injected: usize,
    faults: Faults,
    pub(crate) digest: u64,
}

impl Summary {
    pub(crate) fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.map_changes += other.map_changes;
        self.crashes += other.crashes;
        self.stops += other.stops;
        self.pauses += other.pauses;
        self.injected += other.injected;
        other.faults.iter().for_each(|(fault, count)| *self.faults.entry(fault).or_default() += count);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} writes of items, {} changes of the map, {} crashes, {} clean stops, {} pauses, {} faults in total; {:?}",
            self.writes, self.map_changes, self.crashes, self.stops, self.pauses, self.injected, self.faults
        )
    }
}

/// One simulation.
pub(crate) async fn simulate(seed: u64, flaws: Flaws) -> Result<Summary, String> {
    let mut dice = StdRng::seed_from_u64(seed);
    let server = server();
    let server = if flaws.without_version_checks { server.without_version_checks_of("configmaps") } else { server };
    let injector = FaultInjector::new(seed);
    // A missing precondition only matters for late requests.
    let injector = if flaws.without_version_checks { injector.with_late_requests() } else { injector };
    let fleet = Fleet::new(seed, server.clone(), injector);
    for index in 0..ITEM_COUNT {
        let name = if index == 0 { "fleet-wide".to_owned() } else { format!("item-{index}") };
        create(&server, &name);
    }
    (0..dice.random_range(1..=4)).for_each(|_| {
        fleet.start("a");
    });
    let mut summary = Summary::default();
    let end = Instant::now() + FAULTY;
    let mut next_fault = Instant::now() + Duration::from_secs(dice.random_range(1..25));
    let mut due: Vec<(Instant, Repair)> = Vec::new();
    while Instant::now() < end {
        sleep(Duration::from_millis(100)).await;
        one_acts(&fleet).map_err(|error| explain(&fleet.server, &error))?;
        edit(&server, &mut dice);
        if Instant::now() >= next_fault {
            next_fault = Instant::now() + Duration::from_millis(dice.random_range(500..8000));
            inject_fault(&fleet, &mut dice, &mut summary, &mut due);
        }
        let now = Instant::now();
        due.extract_if(.., |(at, _)| *at <= now).for_each(|(_, repair)| repair.carry_out(&fleet));
    }
    due.into_iter().for_each(|(_, repair)| repair.carry_out(&fleet));
    let ids = fleet.ids();
    ids.iter().for_each(|id| fleet.injector.set(*id, LinkFaults::default()));
    fleet.start("b");
    let end_of_recovery = Instant::now() + RECOVERY;
    while Instant::now() < end_of_recovery {
        sleep(Duration::from_millis(100)).await;
        one_acts(&fleet).map_err(|error| explain(&fleet.server, &error))?;
    }
    recovered(&fleet).await.map_err(|error| explain(&fleet.server, &error))?;
    epochs_rise(&server)?;
    let written = server.written();
    summary.writes = written.iter().filter(|it| it.place.plural() == "configmaps").count();
    summary.map_changes =
        server.get(MAPS, &names().name).and_then(|map| map["spec"]["generation"].as_u64()).unwrap_or(0);
    let mut hasher = DefaultHasher::new();
    for it in &written {
        (it.version, it.sender, it.at.duration_since(end - FAULTY), it.place.plural()).hash(&mut hasher);
    }
    summary.digest = hasher.finish();
    summary.faults = fleet.injector.faults();
    let ids = fleet.ids();
    ids.into_iter().for_each(|id| fleet.kill(id));
    Ok(summary)
}

/// The API server is unreachable for a minute, without other changes: fails if the map changed.
pub(crate) async fn outage(seed: u64) -> Result<(), String> {
    let fleet = Fleet::new(seed, server(), FaultInjector::new(seed)).with_terms();
    (0..4).for_each(|_| {
        fleet.start("a");
    });
    sleep(Duration::from_secs(90)).await;
    let map = |fleet: &Fleet| fleet.server.get(MAPS, &names().name).map(|map| map["spec"].clone()).unwrap_or_default();
    let before = map(&fleet);
    let ids = fleet.ids();
    ids.iter().for_each(|id| fleet.injector.set(*id, LinkFaults { cut: true, ..LinkFaults::default() }));
    sleep(Duration::from_secs(60)).await;
    ids.iter().for_each(|id| fleet.injector.set(*id, LinkFaults::default()));
    sleep(Duration::from_secs(60)).await;
    let after = map(&fleet);
    ids.into_iter().for_each(|id| fleet.kill(id));
    if before != after || before["generation"].as_u64().is_none() {
        return Err(format!("O-5: the map went from generation {} to {}", before["generation"], after["generation"]));
    }
    Ok(())
}

/// The slot map and Leases are edited by hand in random ways for a while: fails if the processes do not recover.
pub(crate) async fn edited_by_hand(seed: u64) -> Result<(), String> {
    let mut dice = StdRng::seed_from_u64(seed);
    let server = server();
    let fleet = Fleet::new(seed, server.clone(), FaultInjector::new(seed));
    (0..ITEM_COUNT).for_each(|index| create(&server, &format!("item-{index}")));
    (0..dice.random_range(1..=3)).for_each(|_| {
        fleet.start("a");
    });
    sleep(Duration::from_secs(40)).await;
    for _ in 0..dice.random_range(1..6) {
        let edited = edit_map(&server, &mut dice);
        fleet.server.note(format!("by hand: {edited}"));
        for _ in 0..dice.random_range(1..100) {
            edit(&server, &mut dice);
            sleep(Duration::from_millis(100)).await;
        }
    }
    sleep(Duration::from_secs(60)).await;
    let well = recovered(&fleet).await.map_err(|error| explain(&fleet.server, &error));
    fleet.ids().into_iter().for_each(|id| fleet.kill(id));
    well
}

/// The end of a fault.
enum Repair {
    LinkFaults(usize),
    Resume(usize),
    Kill(usize),
}

impl Repair {
    fn carry_out(self, fleet: &Fleet) {
        match self {
            Self::LinkFaults(id) => fleet.injector.set(id, LinkFaults::default()),
            Self::Resume(id) => fleet.resume(id),
            Self::Kill(id) => fleet.kill(id),
        }
    }
}

/// Injects a fault.
fn inject_fault(fleet: &Fleet, dice: &mut StdRng, summary: &mut Summary, due: &mut Vec<(Instant, Repair)>) {
    let ids = fleet.ids();
    let Some(&one) = ids.get(dice.random_range(0..ids.len().max(1))) else {
        fleet.start("a");
        return;
    };
    let template = if dice.random_range(0..2) == 0 { "a" } else { "b" };
    let seconds = Duration::from_secs(dice.random_range(2..40));
    let at = Instant::now() + seconds;
    summary.injected += 1;
    let kind = dice.random_range(0..16_u32);
    fleet.server.note(format!("fault {kind} of process {one} for {seconds:?}, template {template}"));
    match kind {
        0 | 1 => {
            fleet.kill(one);
            fleet.start(template);
            summary.crashes += 1;
        }
        2 | 3 => {
            fleet.start(template);
            fleet.stop(one);
            summary.stops += 1;
        }
        4 if ids.len() < 6 => {
            fleet.start(template);
        }
        4 | 5 => {
            let what = [Stopped::Process, Stopped::Machine, Stopped::Hypervisor];
            fleet.pause(one, what[dice.random_range(0..what.len())]);
            due.push((at, Repair::Resume(one)));
            summary.pauses += 1;
        }
        _ => inject_external_fault(fleet, (kind, one, at, template), dice, due),
    }
}

/// Injects a fault of the network or a clock, or an edit by hand.
fn inject_external_fault(
    fleet: &Fleet,
    (kind, one, at, template): (u32, usize, Instant, &str),
    dice: &mut StdRng,
    due: &mut Vec<(Instant, Repair)>,
) {
    let ids = fleet.ids();
    let flaky =
        LinkFaults { request_lost: 100, answer_lost: 100, late: 50, refused: 100, watch: 100, ..LinkFaults::default() };
    match kind {
        6 | 7 => {
            fleet.injector.set(one, flaky);
            due.push((at, Repair::LinkFaults(one)));
        }
        8 => {
            fleet.injector.set(one, LinkFaults { cut: true, ..LinkFaults::default() });
            due.push((at, Repair::LinkFaults(one)));
        }
        9 => {
            // The API server is unreachable or slow for all processes.
            let slow = LinkFaults { slow: Duration::from_secs(dice.random_range(1..7)), ..LinkFaults::default() };
            let away = LinkFaults { cut: true, ..LinkFaults::default() };
            let link = if dice.random_range(0..2) == 0 { slow } else { away };
            for id in ids {
                fleet.injector.set(id, link);
                due.push((at, Repair::LinkFaults(id)));
            }
        }
        10 => fleet.server.remove(MAPS, &names().name),
        11 => fleet.server.remove(LEASES, &names().lease(&fleet.name(one))),
        12 => {
            // The process's wall clock is set.
            let by = Duration::from_secs(dice.random_range(1..300));
            let (forward, back) =
                if dice.random_range(0..2) == 0 { (by, Duration::ZERO) } else { (Duration::ZERO, by) };
            fleet.with(one, |process| process.clock.set_wall(forward, back));
        }
        13 if ids.len() < 6 => {
            // The process's node is unreachable, and a pod of the same name is started on another node: several pods of one name
            // are alive for a while, finally only the newest.
            let away = LinkFaults { cut: dice.random_range(0..2) == 0, ..flaky };
            fleet.injector.set(one, away);
            due.extend(fleet.of_one_name(one).into_iter().map(|id| (at, Repair::Kill(id))));
            fleet.start_twin(one, template);
        }
        _ => {
            // All responses to one process are late.
            let slow = LinkFaults { slow: Duration::from_secs(dice.random_range(1..20)), ..LinkFaults::default() };
            fleet.injector.set(one, slow);
            due.push((at, Repair::LinkFaults(one)));
        }
    }
}

/// A server that validates slot maps by their schema.
fn server() -> Server {
    Server::new().with_definition(&serde_json::to_value(names().definition()).unwrap())
}

fn create(server: &Server, name: &str) {
    let data = json!({"spec": "0", "status": "", "epoch": "0", "by": ""});
    let item = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    server.create_by_hand(ITEMS, &item);
}

/// A user changes an item.
fn edit(server: &Server, dice: &mut StdRng) {
    if dice.random_range(0..3) == 0 {
        let name = match dice.random_range(0..ITEM_COUNT) {
            0 => "fleet-wide".to_owned(),
            index => format!("item-{index}"),
        };
        let spec = dice.random_range(0..1_000_000).to_string();
        server.change(ITEMS, &name, |item| item["data"]["spec"] = json!(spec));
    }
}

/// S-1: at most one process may act. S-2: while one may, no other still works or waits for a write.
fn one_acts(fleet: &Fleet) -> Result<(), String> {
    let processes = fleet.processes.lock().unwrap();
    for item in fleet.server.all(ITEMS) {
        let scope = scope(&item);
        let mut actors: Vec<String> = Vec::new();
        let mut busy: Vec<String> = Vec::new();
        for (id, process) in processes.iter() {
            let Some((incarnation, gate)) = &process.gate else { continue };
            if gate.check(scope).is_ok() {
                actors.push(incarnation.to_string());
            } else if fleet.injector.writes(*id, scope) || (gate.acts() && gate.in_flight_on(scope) > 0) {
                busy.push(incarnation.to_string());
            }
        }
        if actors.len() > 1 {
            return Err(format!("S-1: {actors:?} may act on {}", item["metadata"]["name"]));
        }
        if actors.len() + busy.len() > 1 {
            return Err(format!("S-2: {busy:?} still work on {}, {actors:?} may act", item["metadata"]["name"]));
        }
    }
    Ok(())
}

/// S-3: epochs of the writes of one item that took effect never decrease.
fn epochs_rise(server: &Server) -> Result<(), String> {
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    for write in server.written().iter().filter(|it| it.place.plural() == "configmaps" && it.sender != BY_HAND) {
        let epoch: i64 = write.object["data"]["epoch"].as_str().and_then(|it| it.parse().ok()).unwrap_or(0);
        let name = write.object["metadata"]["name"].to_string();
        let last = newest.entry(name.clone()).or_insert(0);
        if epoch < *last {
            return Err(format!("S-3: version {} of {name} was written in epoch {epoch}, after {last}", write.version));
        }
        *last = epoch;
    }
    Ok(())
}

/// S-4, S-6, S-7, after some time: the role of the coordinator may be moving, since any process can be elected.
async fn recovered(fleet: &Fleet) -> Result<(), String> {
    let end = Instant::now() + HANDOVER;
    loop {
        match check_recovery(fleet) {
            Err(_) if Instant::now() < end => sleep(Duration::from_millis(100)).await,
            settled => return settled,
        }
    }
}

/// S-4, S-6, S-7, at this moment.
fn check_recovery(fleet: &Fleet) -> Result<(), String> {
    let processes = fleet.processes.lock().unwrap();
    let gates: Vec<_> = processes.values().filter_map(|it| it.gate.as_ref()).collect();
    let scopes = (0..=u8::MAX).map(|slot| Scope::Slot(kube_sharding::Slot::new(slot))).chain([Scope::Coordinator]);
    for scope in scopes {
        let owners = gates.iter().filter(|(_, gate)| gate.check(scope).is_ok()).count();
        if owners != 1 {
            return Err(format!("S-4: {owners} of {} processes own {scope:?}", gates.len()));
        }
    }
    let loads: Vec<usize> = gates.iter().map(|(_, gate)| gate.opening().borrow().slots().len()).collect();
    let newest = processes.values().filter(|it| it.handle.is_some()).count();
    let one_build = fleet
        .server
        .all(LEASES)
        .iter()
        .map(|it| it["metadata"]["annotations"]["example.com/template"].to_string())
        .collect::<std::collections::BTreeSet<_>>()
        .len()
        == 1;
    if one_build && loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0) > 1 {
        return Err(format!("S-6: loads {loads:?} of {newest} processes"));
    }
    let behind: Vec<_> =
        fleet.server.all(ITEMS).into_iter().filter(|it| it["data"]["spec"] != it["data"]["status"]).collect();
    if let Some(item) = behind.first() {
        return Err(format!("S-7: {} items were not reconciled, such as {item}", behind.len()));
    }
    Ok(())
}
