//! One run of a scenario: its members, its measurements and its results.

mod steps;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
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
    scenario::Scenario,
    spread::Spread,
};
use jiff::Timestamp;
use kube::Client;

use crate::{generator::Generator, sampler::Sampler, tracker::Tracker};

/// Time limit for members to share the slots evenly.
const SETTLE: Duration = Duration::from_mins(2);
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

    pub(crate) fn begin(&self, what: &str) -> &Self {
        what.clone_into(&mut self.doing.lock().unwrap_or_else(PoisonError::into_inner));
        println!("{what}");
        self
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
            updates: None,
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
            if let Some(updates) = &mut row.updates {
                updates.writes = of_row.iter().filter(|it| is_of_site(it)).count();
            }
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

/// Whether a request wrote the status of a site, or created a Job for one: those of the bench have names of their own.
fn is_of_site(request: &audit::Request) -> bool {
    let status = request.resource == "frappesites/status" && ["update", "patch"].contains(&request.verb.as_str());
    let job = request.resource == "jobs" && request.verb == "create" && request.name.starts_with("site-");
    request.code < 300 && (status || job)
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
