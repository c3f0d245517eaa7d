//! Executes and measures the steps of a scenario.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use frappe_loadtest::{
    audit,
    cluster::Cluster,
    history::History,
    members::{Fleet, Members},
    meter::{self, Metrics, Process, quantile},
    report::{Cost, Floor, Row, Sample},
    scenario::{Scenario, Step},
    spread::Spread,
};
use jiff::Timestamp;
use kube::{Client, api::ListParams, core::DynamicObject};

use crate::{
    backups, faults, floor,
    generator::{Generator, Pace},
    sampler::Sampler,
    tracker::Tracker,
};

/// Time limit for members to share the slots evenly.
const SETTLE: Duration = Duration::from_mins(2);
/// Time limit for pending work to complete.
const DRAIN: Duration = Duration::from_mins(3);
/// Time without changes before an idle step is measured: watches are narrowed after 10 s.
const QUIET: Duration = Duration::from_secs(20);
/// Maximum number of samples in a report.
const SAMPLES_MAX: usize = 240;

/// One run of a scenario.
pub(crate) struct Run<'a> {
    scenario: &'a Scenario,
    cluster: &'a Cluster,
    pub(crate) client: Client,
    pub(crate) members: Members<'a>,
    pub(crate) generator: Arc<Generator>,
    pub(crate) tracker: Tracker,
    sampler: Sampler,
    doing: Arc<Mutex<String>>,
    found: Found,
    /// Number of members that were started.
    started: usize,
    /// When pods were killed, and their uids, by the index of their row.
    dead: BTreeMap<usize, (Timestamp, Vec<String>)>,
}

/// The results.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) rows: Vec<Row>,
    pub(crate) floor: Option<Floor>,
    pub(crate) capacity: BTreeMap<usize, u32>,
    pub(crate) samples: Vec<Sample>,
}

/// The start of a measurement.
pub(crate) struct Mark {
    begun: Timestamp,
    since: Instant,
    meters: BTreeMap<String, (Process, Metrics)>,
    disk_wait_seconds: Option<f64>,
}

#[expect(clippy::disallowed_methods, reason = "the audit log has the wall clock's time")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

impl<'a> Run<'a> {
    /// Creates the benches; no member is running yet.
    pub(crate) async fn new(scenario: &'a Scenario, cluster: &'a Cluster, fleet: Fleet) -> anyhow::Result<Self> {
        let client = cluster.client().await?;
        // Namespaces first: watches of a missing namespace would have to be restarted.
        let tracker = Tracker::start(&client);
        let generator = Generator::start(scenario, cluster, &client, tracker.clone())?;
        let sampler = Sampler::start(tracker.clone());
        let doing = Arc::new(Mutex::new(String::from("begin")));
        tokio::spawn(report_progress(Arc::clone(&doing), tracker.clone()));
        let members = Members::new(fleet, cluster, client.clone());
        let found = Found::default();
        Ok(Self {
            scenario,
            cluster,
            client,
            members,
            generator,
            tracker,
            sampler,
            doing,
            found,
            started: 0,
            dead: BTreeMap::new(),
        })
    }

    /// Executes all steps in order.
    pub(crate) async fn steps(&mut self) -> anyhow::Result<()> {
        for step in &self.scenario.steps {
            self.step(step).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        let (all_sites, all_members) = (self.scenario.sites, self.scenario.members);
        match step {
            Step::Start { members } => self.start(members.of(all_members)).await,
            Step::Create { sites, per_second } => self.create(sites.of(all_sites), *per_second).await,
            Step::Churn { edits_per_second, creates_per_second, deletes_per_second, seconds } => {
                let pace =
                    Pace { edits: *edits_per_second, creates: *creates_per_second, deletes: *deletes_per_second };
                self.churn(pace, *seconds).await
            }
            Step::Idle { seconds } => {
                self.begin("quiet");
                tokio::time::sleep(QUIET).await;
                let mark = self.begin("idle").mark().await;
                tokio::time::sleep(Duration::from_secs(*seconds)).await;
                self.row("idle".to_owned(), mark).await;
                Ok(())
            }
            Step::Fault { fault, edits_per_second, seconds } => {
                let pace = Pace { edits: *edits_per_second, ..Pace::default() };
                let (mark, gone) = faults::run(self, *fault, pace, *seconds).await?;
                self.dead.insert(self.found.rows.len(), (mark.begun, gone));
                self.row(format!("fault: {fault:?}, {edits_per_second} edits/s"), mark).await;
                self.start(all_members).await
            }
            Step::Ramp { members, edits_per_second, seconds, objective_milliseconds } => {
                for count in members {
                    self.ramp(*count, edits_per_second, *seconds, *objective_milliseconds).await?;
                }
                Ok(())
            }
            Step::Floor { sites } => self.floor(sites.of(all_sites)).await,
            Step::Backups { schedule, seconds, changes_per_minute } => {
                let measured = backups::run(self, schedule, *seconds, *changes_per_minute).await?;
                self.dead.insert(self.found.rows.len(), measured.gone);
                self.row(format!("backups: {schedule}"), measured.mark).await.backups = Some(measured.backups);
                Ok(())
            }
        }
    }

    pub(crate) fn begin(&self, what: &str) -> &Self {
        what.clone_into(&mut self.doing.lock().unwrap_or_else(PoisonError::into_inner));
        println!("{what}");
        self
    }

    async fn start(&mut self, count: usize) -> anyhow::Result<()> {
        if self.members.running.len() >= count {
            return Ok(());
        }
        let mark = self.begin(&format!("start {count} members")).mark().await;
        while self.members.running.len() < count {
            self.start_one().await?;
        }
        self.settled().await?;
        self.benches_ready().await?;
        self.row(format!("start {count} members"), mark).await;
        Ok(())
    }

    /// Waits until the benches are Ready, before any site is created.
    async fn benches_ready(&self) -> anyhow::Result<()> {
        let benches = crate::tracker::benches(&self.client);
        let begun = Instant::now();
        while begun.elapsed() < SETTLE {
            let listed = benches.list(&ListParams::default()).await;
            let ready = |bench: &DynamicObject| bench.data["status"]["phase"] == "Ready";
            if listed.is_ok_and(|it| it.items.len() == self.scenario.benches && it.items.iter().all(ready)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        bail!("the benches are not Ready after {} s", SETTLE.as_secs())
    }

    /// Starts one more member.
    pub(crate) async fn start_one(&mut self) -> anyhow::Result<()> {
        self.started += 1;
        self.members.start(&format!("member-{}", self.started)).await?;
        self.update_sampler()
    }

    /// Updates the sampler's list of processes.
    pub(crate) fn update_sampler(&self) -> anyhow::Result<()> {
        let ids = self.members.running.iter().map(|(name, member)| (name.clone(), member.operator.id())).collect();
        self.sampler.set_processes(ids, self.cluster.api_server_id()?);
        Ok(())
    }

    /// Waits until the members share the slots evenly. For another operator, waits for a fixed time.
    pub(crate) async fn settled(&self) -> anyhow::Result<()> {
        if self.members.is_ours() {
            return self.members.settled(SETTLE).await;
        }
        tokio::time::sleep(QUIET).await;
        Ok(())
    }

    async fn create(&mut self, sites: usize, per_second: u32) -> anyhow::Result<()> {
        let step = format!("create to {sites} sites");
        let mark = self.begin(&step).mark().await;
        self.generator.grow(sites, per_second).await;
        // Without a time limit: this duration is measured.
        while self.tracker.pending()[0] > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.row(step, mark).await;
        Ok(())
    }

    async fn churn(&mut self, pace: Pace, seconds: u64) -> anyhow::Result<()> {
        let parts = [(pace.edits, "edits/s"), (pace.creates, "creates/s"), (pace.deletes, "deletes/s")];
        let parts: Vec<_> =
            parts.iter().filter(|(rate, _)| *rate > 0).map(|(rate, it)| format!("{rate} {it}")).collect();
        let step = format!("churn: {}", parts.join(", "));
        let mark = self.begin(&step).mark().await;
        let stopped = Arc::new(AtomicBool::new(false));
        let running = tokio::spawn(Arc::clone(&self.generator).churn(pace, Arc::clone(&stopped)));
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        stopped.store(true, Ordering::SeqCst);
        running.await?;
        let drained = self.drained(DRAIN).await;
        self.row(step, mark).await;
        drained
    }

    /// Waits until all pending work is complete.
    pub(crate) async fn drained(&self, most: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < most {
            if self.tracker.pending() == [0; 3] {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let [creates, edits, deletes] = self.tracker.pending();
        bail!("after {} s {creates} creations, {edits} edits and {deletes} deletions are pending", most.as_secs())
    }

    async fn ramp(&mut self, count: usize, paces: &[u32], seconds: u64, objective: f64) -> anyhow::Result<()> {
        self.start(count).await?;
        tokio::time::sleep(QUIET).await;
        for edits in paces {
            let step = format!("{count} members, {edits} edits/s");
            let mark = self.begin(&step).mark().await;
            let stopped = Arc::new(AtomicBool::new(false));
            let pace = Pace { edits: *edits, ..Pace::default() };
            let running = tokio::spawn(Arc::clone(&self.generator).churn(pace, Arc::clone(&stopped)));
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            stopped.store(true, Ordering::SeqCst);
            running.await?;
            self.drained(DRAIN).await?;
            let row = self.row(step, mark).await;
            let sent = u64::from(*edits) * seconds;
            let too_few = (row.edit.count as u64) * 10 < sent * 9;
            if too_few {
                row.notes.push(format!("only {} of {sent} edits were sent and answered in time", row.edit.count));
            }
            if too_few || row.edit.p99 > objective {
                break;
            }
            self.found.capacity.insert(count, *edits);
        }
        Ok(())
    }

    async fn floor(&mut self, sites: usize) -> anyhow::Result<()> {
        self.begin(&format!("a bare client makes the objects of {sites} sites"));
        let Some(row) = self.found.rows.iter().rfind(|row| row.step.starts_with("create")).cloned() else {
            bail!("there is nothing to compare a bare client with: no sites were created")
        };
        self.members.stop_all().await?;
        self.update_sampler()?;
        let requests = audit::requests_by(&self.cluster.logs, &agents(&self.members))?;
        self.found.floor = Some(floor::run(self.cluster, &self.client, &requests, &row, sites).await?);
        Ok(())
    }

    /// Starts a measurement.
    pub(crate) async fn mark(&self) -> Mark {
        self.tracker.take();
        self.generator.failures();
        let mut meters = BTreeMap::new();
        for (name, member) in &self.members.running {
            meters.extend(member.meter().await.ok().map(|meter| (name.clone(), meter)));
        }
        Mark { begun: now(), since: Instant::now(), meters, disk_wait_seconds: meter::disk_wait_seconds() }
    }

    /// Ends a measurement, and adds a row.
    async fn row(&mut self, step: String, mark: Mark) -> &mut Row {
        let (ended, seconds) = (now(), mark.since.elapsed().as_secs_f64());
        let waits = self.tracker.take();
        let mut members = BTreeMap::new();
        let (mut queue, mut reconcile) = (Vec::new(), Vec::new());
        for (name, member) in &self.members.running {
            let Ok((process, metrics)) = member.meter().await else { continue };
            let (former, before) = mark.meters.get(name).cloned().unwrap_or_default();
            members.insert(
                name.clone(),
                Cost {
                    cpu_seconds: process.cpu_seconds - former.cpu_seconds,
                    resident_mebibytes: process.resident_mebibytes,
                    watch_megabytes: (metrics.watch_bytes() - before.watch_bytes()) / 1e6,
                },
            );
            add(&mut queue, &metrics, &before, "workqueue_queue_duration_seconds");
            add(&mut reconcile, &metrics, &before, "controller_runtime_reconcile_time_seconds");
        }
        let failures = self.generator.failures();
        let notes = (failures > 0).then(|| format!("{failures} requests of the generator failed"));
        self.found.rows.push(Row {
            step,
            begun: mark.begun,
            ended,
            seconds,
            sites: self.generator.count(),
            ready: Spread::of(waits.ready),
            edit: Spread::of(waits.edit),
            delete: Spread::of(waits.delete),
            members,
            queue: both(&queue),
            reconcile: both(&reconcile),
            answer: Spread::default(),
            disk_wait_seconds: meter::disk_wait_seconds().zip(mark.disk_wait_seconds).map(|(now, then)| now - then),
            requests: BTreeMap::new(),
            map_writes: 0,
            unowned_seconds_max: None,
            backups: None,
            notes: notes.into_iter().collect(),
        });
        let last = self.found.rows.len() - 1;
        &mut self.found.rows[last]
    }

    /// Stops the members, and reads the API server's audit log.
    pub(crate) async fn end(mut self, ended_well: bool) -> anyhow::Result<Found> {
        self.begin("end");
        if ended_well {
            self.members.stop_all().await?;
        }
        self.members.running.clear();
        let requests = audit::requests_by(&self.cluster.logs, &agents(&self.members))?;
        for row in &mut self.found.rows {
            let of_row: Vec<_> = requests.iter().filter(|it| it.at >= row.begun && it.at <= row.ended).collect();
            row.map_writes = of_row
                .iter()
                .filter(|it| it.resource == "slotmaps" && ["create", "update", "patch"].contains(&it.verb.as_str()))
                .filter(|it| it.code < 300)
                .count();
            let writes = of_row.iter().filter(|it| it.is_work_write());
            row.answer = Spread::of(writes.map(|it| it.answered_milliseconds).collect());
            let counted = audit::count(of_row);
            row.requests =
                counted.into_iter().map(|((verb, resource), count)| (format!("{verb} {resource}"), count)).collect();
        }
        if !self.dead.is_empty() && self.members.is_ours() {
            let history = History::read(&self.cluster.logs)?;
            for (index, (at, gone)) in &self.dead {
                let Some(row) = self.found.rows.get_mut(*index) else { continue };
                row.unowned_seconds_max = history.unowned(*at, gone).into_iter().reduce(f64::max);
            }
            let checked = history.check()?;
            if let Some(row) = self.found.rows.last_mut() {
                row.notes.push(format!("the whole run: {checked}"));
            }
        }
        self.found.samples = self.sampler.samples(SAMPLES_MAX);
        Ok(self.found)
    }
}

/// Which user agents are the operator's.
fn agents(members: &Members<'_>) -> audit::Agents {
    if members.is_ours() { audit::Agents::Ours } else { audit::Agents::Others }
}

/// Adds the counts of a histogram of the site controller since then.
fn add(sum: &mut Vec<(f64, f64)>, now: &Metrics, before: &Metrics, name: &str) {
    let of_sites = |series: &str| series.to_lowercase().contains("\"frappesite");
    let former = before.buckets(name, of_sites);
    for (bound, count) in now.buckets(name, of_sites) {
        let then = former.iter().find(|(known, _)| known.total_cmp(&bound).is_eq()).map_or(0.0, |(_, count)| *count);
        match sum.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
            Some((_, total)) => *total += count - then,
            None => sum.push((bound, count - then)),
        }
    }
}

/// p50 and p99 in milliseconds.
fn both(buckets: &[(f64, f64)]) -> Option<[f64; 2]> {
    Some([quantile(buckets, 0.5)? * 1000.0, quantile(buckets, 0.99)? * 1000.0])
}

/// Prints the progress every ten seconds.
async fn report_progress(doing: Arc<Mutex<String>>, tracker: Tracker) {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let what = doing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let [creates, edits, deletes] = tracker.pending();
        println!(
            "[{:4.0} s] {what}: {} sites Ready; waiting: {creates} creations, {edits} edits, {deletes} deletions",
            begun.elapsed().as_secs_f64(),
            tracker.ready()
        );
    }
}
