//! Executes the steps of a scenario.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use frappe_loadtest::{audit, report::Updates, scenario::Step};
use kube::{api::ListParams, core::DynamicObject};
use serde_json::{Value, json};

use super::{QUIET, Run, SETTLE, agents};
use crate::{backups, faults, floor, generator::Pace, update};

/// Time limit for pending work to complete.
const DRAIN: Duration = Duration::from_mins(3);

impl Run<'_> {
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
            Step::Update { canary, waves, soak_seconds, max_failures, seconds_max } => {
                let strategy = json!({"type": "Revisions", "canary": {"sites": canary}, "waves": waves,
                    "minSuccessTime": format!("{soak_seconds}s"), "maxFailures": max_failures, "scaleDownDelay": "5s"});
                self.update(&strategy, Duration::from_secs(*seconds_max)).await
            }
        }
    }

    /// Moves the sites to two other images, and back.
    async fn update(&mut self, strategy: &Value, limit: Duration) -> anyhow::Result<()> {
        let part = update::wait(self, strategy).await?;
        self.updated(part, limit).await;
        let part = update::forth(self, limit).await?;
        self.updated(part, limit).await;
        let part = update::back(self, limit).await?;
        self.updated(part, limit).await;
        Ok(())
    }

    async fn updated(&mut self, part: update::Part, limit: Duration) {
        let updates = Updates { seconds_max: limit.as_secs_f64(), ..part.updates };
        self.dead.extend(part.gone.map(|gone| (self.found.rows.len(), gone)));
        self.row(part.name, part.mark).await.updates = Some(updates);
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
}
