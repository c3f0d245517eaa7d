//! What a load test found: as data, and as Markdown.

use std::{collections::BTreeMap, fmt::Write};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    backups::Backups,
    scenario::Scenario,
    spread::{Spread, exact},
};

/// What a member used during a step.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Memory at the step's end, in MiB.
    pub resident_mebibytes: f64,
    /// Bytes received in watches and lists, in MB, as the member says itself.
    pub watch_megabytes: f64,
}

/// What was measured during a step.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What was done.
    pub step: String,
    /// When it began.
    pub begun: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// Sites that there were at its end.
    pub sites: usize,
    /// From the request that makes a site until it is Ready.
    pub ready: Spread,
    /// From the request that edits a site until its Ingress shows it.
    pub edit: Spread,
    /// From the request that deletes a site until it is gone.
    pub delete: Spread,
    /// What each member used.
    pub members: BTreeMap<String, Cost>,
    /// How long sites waited for their reconcile, as the members say: p50 and p99 in milliseconds.
    pub queue: Option<[f64; 2]>,
    /// How long reconciles took, likewise.
    pub reconcile: Option<[f64; 2]>,
    /// From the API server's receipt of a write of the operator's work to its answer.
    #[serde(default)]
    pub answer: Spread,
    /// For how long some process waited for the disk, in seconds, as the kernel counts it (`some` of `/proc/pressure/io`).
    #[serde(default)]
    pub disk_wait_seconds: Option<f64>,
    /// The operator's requests by verb and resource, from the audit log. Of watches each one that ended.
    pub requests: BTreeMap<String, usize>,
    /// Versions of the slot map that were written.
    pub map_writes: usize,
    /// The longest time that a slot of a member that had died belonged to nobody.
    pub unowned_seconds_max: Option<f64>,
    /// What became of the backups that were due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<Backups>,
    /// What else is to be said.
    pub notes: Vec<String>,
}

impl Row {
    /// Requests of the operator's work: no Lease, no map, no watch, no Event.
    pub fn work_requests(&self) -> usize {
        let other = |name: &str| {
            ["leases", "slotmaps", "events"].iter().any(|it| name.ends_with(it)) || name.starts_with("watch ")
        };
        self.requests.iter().filter(|(name, _)| !other(name)).map(|(_, count)| count).sum()
    }

    /// CPU time of all members, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.members.values().map(|cost| cost.cpu_seconds).sum()
    }
}

/// The bare client beside the operator.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Floor {
    /// Sites whose objects it made.
    pub sites: usize,
    /// How long its writes took.
    pub write_seconds: f64,
    /// How long until the cluster had also run the Jobs.
    pub seconds: f64,
    /// Its writes for a site.
    pub writes_per_site: usize,
    /// CPU time of its process for a site, in milliseconds: its writes, and its watches of sites, Ingresses and Jobs.
    pub cpu_milliseconds_per_site: f64,
    /// CPU time of the operator for a site, in the step that it is compared with.
    pub operator_cpu_milliseconds_per_site: f64,
    /// Sites a second of the operator, in the step that it is compared with.
    pub operator_sites_per_second: f64,
    /// The operator's writes for a site, in that step.
    pub operator_writes_per_site: f64,
    /// All of its requests for a site but for Leases, map, watches and Events, in that step.
    pub operator_requests_per_site: f64,
}

impl Floor {
    /// Sites a second of the operator against those of the bare client.
    #[allow(clippy::cast_precision_loss, reason = "a count of sites")]
    pub fn ratio(&self) -> f64 {
        self.operator_sites_per_second / (self.sites as f64 / self.seconds)
    }
}

/// How the world was at one moment.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Since the beginning.
    pub seconds: f64,
    /// Sites that are Ready.
    pub ready: usize,
    /// Edits that wait.
    pub waiting: usize,
    /// Memory of each member, in MiB.
    pub resident_mebibytes: BTreeMap<String, f64>,
    /// Cores that all members use.
    pub operator_cores: f64,
    /// Cores that the API server uses.
    pub api_server_cores: f64,
}

/// Where and when it was made.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The command that made it.
    pub command: String,
    /// Day.
    pub date: String,
    /// Commit of the checkout; `-dirty` where it had changes.
    pub commit: String,
    /// Processor, cores, memory.
    pub machine: String,
    /// Version of the API server.
    pub kubernetes: String,
}

/// A report.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the scenario.
    pub name: String,
    /// Where and when.
    pub origin: Origin,
    /// What was done.
    pub scenario: Scenario,
    /// Why it ended early, if it did.
    pub failure: Option<String>,
    /// What was measured, step by step.
    pub rows: Vec<Row>,
    /// Against a bare client.
    pub floor: Option<Floor>,
    /// The highest edits a second within the objective, by members.
    pub capacity: BTreeMap<usize, u32>,
    /// Figures against their targets.
    pub targets: Vec<Target>,
    /// How it went over time.
    pub samples: Vec<Sample>,
}

impl Report {
    /// The whole report for a person.
    pub fn markdown(&self, plots: &[String]) -> String {
        let mut text = format!("# Load test `{}`\n\n{}\n\n", self.name, self.scenario.about);
        let origin = &self.origin;
        let _ = writeln!(
            text,
            "    {}\n\n{}, commit {}, {}, Kubernetes {}. {} sites, {} benches, {} members.\n",
            origin.command,
            origin.date,
            origin.commit,
            origin.machine,
            origin.kubernetes,
            self.scenario.sites,
            self.scenario.benches,
            self.scenario.members
        );
        if let Some(failure) = &self.failure {
            let _ = writeln!(text, "**It ended early: {failure}**\n");
        }
        self.judged(&mut text);
        self.times(&mut text);
        self.backed_up(&mut text);
        self.costs(&mut text);
        self.compared(&mut text);
        self.requests(&mut text);
        for plot in plots {
            let _ = writeln!(text, "\n![{plot}]({plot})");
        }
        text
    }

    fn judged(&self, text: &mut String) {
        if self.targets.is_empty() {
            return;
        }
        text.push_str("| figure | measured | target | |\n|---|---|---|---|\n");
        for target in &self.targets {
            let _ = writeln!(text, "{}", target.row());
        }
    }

    fn times(&self, text: &mut String) {
        text.push_str(
            "\nTimes in ms: p50 / p99 / max, measured by a watch beside the operator; queue and reconcile p50 / p99 from its own \
             histograms; API server: from its receipt of one of the operator's writes to its answer, from the audit log; disk: how \
             long some process waited for it, in s.\n\n| step | s | sites | to Ready | edit to changed object | delete to gone | \
             queue | reconcile | API server | disk | map writes | unowned s |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        let spread = |it: &Spread| match it.count {
            0 => String::new(),
            count => format!("{:.0} / {:.0} / {:.0} ({count})", it.p50, it.p99, it.max),
        };
        let pair = |it: &Option<[f64; 2]>| it.map_or(String::new(), |[p50, p99]| format!("{p50:.1} / {p99:.1}"));
        for row in &self.rows {
            let _ = writeln!(
                text,
                "| {} | {:.1} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.step,
                row.seconds,
                row.sites,
                spread(&row.ready),
                spread(&row.edit),
                spread(&row.delete),
                pair(&row.queue),
                pair(&row.reconcile),
                spread(&row.answer),
                row.disk_wait_seconds.map_or(String::new(), |it| format!("{it:.1}")),
                row.map_writes,
                row.unowned_seconds_max.map_or(String::new(), |it| format!("{it:.1}"))
            );
        }
        for (row, note) in self.rows.iter().flat_map(|row| row.notes.iter().map(move |note| (row, note))) {
            let _ = writeln!(text, "\n{}: {note}", row.step);
        }
        for (members, edits) in &self.capacity {
            let _ = writeln!(text, "\n{members} members keep the objective up to {edits} edits/s.");
        }
    }

    fn backed_up(&self, text: &mut String) {
        for (row, it) in self.rows.iter().filter_map(|row| Some((row, row.backups.as_ref()?))) {
            let _ = writeln!(
                text,
                "\n{}: {} were due, {} were made; lost {}, doubled {}, failed {}. In the {} minutes in which any was due, {} to {} \
                 began in each. From due to begun p50 / p99 / max {:.1} / {:.1} / {:.1} s. At once there ran at most {} Jobs of \
                 one site and {} of one bench; {} Jobs of other kinds ran in between.",
                row.step,
                it.due,
                it.made,
                it.lost,
                it.doubled,
                it.failed,
                it.minutes,
                it.starts_a_minute_least,
                it.starts_a_minute_most,
                it.late.p50 / 1e3,
                it.late.p99 / 1e3,
                it.late.max / 1e3,
                it.jobs_of_a_site_most,
                it.jobs_of_a_bench_most,
                it.other_jobs
            );
        }
    }

    fn costs(&self, text: &mut String) {
        text.push_str("\n| step | member | CPU s | RSS MiB | watch and list MB |\n|---|---|---|---|---|\n");
        for row in &self.rows {
            for (name, cost) in &row.members {
                let _ = writeln!(
                    text,
                    "| {} | {name} | {:.2} | {:.1} | {:.2} |",
                    row.step, cost.cpu_seconds, cost.resident_mebibytes, cost.watch_megabytes
                );
            }
        }
    }

    fn compared(&self, text: &mut String) {
        let Some(floor) = &self.floor else { return };
        #[allow(clippy::cast_precision_loss, reason = "a count of sites")]
        let sites = floor.sites as f64;
        let _ = writeln!(
            text,
            "\n## Against a bare client\n\nThe same objects and as many writes for each of {} sites, by a client that waits for \
             nothing in between, on the same cluster: its writes took {:.1} s ({:.1} sites/s), and the cluster had run their \
             Jobs after {:.1} s ({:.1} sites/s).\n\n| | bare client | operator | ratio |\n|---|---|---|---|\n\
             | sites/s until Ready, or until the Jobs ran | {:.1} | {:.1} | {:.2} |\n| writes per site | {} | {:.1} | {:.2} |\n\
             | requests per site | {} | {:.1} | {:.2} |\n| CPU ms per site | {:.2} | {:.2} | {:.2} |",
            floor.sites,
            floor.write_seconds,
            sites / floor.write_seconds,
            floor.seconds,
            sites / floor.seconds,
            sites / floor.seconds,
            floor.operator_sites_per_second,
            floor.ratio(),
            floor.writes_per_site,
            floor.operator_writes_per_site,
            floor.operator_writes_per_site / exact(floor.writes_per_site),
            floor.writes_per_site,
            floor.operator_requests_per_site,
            floor.operator_requests_per_site / exact(floor.writes_per_site),
            floor.cpu_milliseconds_per_site,
            floor.operator_cpu_milliseconds_per_site,
            floor.operator_cpu_milliseconds_per_site / floor.cpu_milliseconds_per_site,
        );
    }

    fn requests(&self, text: &mut String) {
        text.push_str("\n## Requests\n\nFrom the API server's audit log; a watch is counted when it ends.\n");
        for row in self.rows.iter().filter(|row| !row.requests.is_empty()) {
            let _ = write!(text, "\n{}", row.step);
            let made = row.ready.count;
            if made > 0 && row.edit.count == 0 {
                let _ = write!(
                    text,
                    " ({:.2} requests of work for each site that became Ready)",
                    exact(row.work_requests()) / exact(made)
                );
            }
            let parts: Vec<String> = row.requests.iter().map(|(name, count)| format!("{name} {count}")).collect();
            let _ = writeln!(text, ": {}", parts.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let spread = Spread::of((1..=200).map(exact).collect());
        assert_eq!((spread.count, spread.p50, spread.p90, spread.p99, spread.max), (200, 100.0, 180.0, 198.0, 200.0));
        assert_eq!(Spread::of(vec![7.0]).p99.to_bits(), 7.0_f64.to_bits());
        assert_eq!(Spread::of(Vec::new()).count, 0);
    }
}

/// A figure against its target.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Target {
    /// What is measured.
    pub figure: String,
    /// What was.
    pub measured: f64,
    /// What it may be at most, or must be at least.
    pub bound: f64,
    /// Whether it is a bound from above.
    pub most: bool,
    /// Unit.
    pub unit: String,
}

impl Target {
    pub fn at_most(figure: &str, measured: f64, bound: f64, unit: &str) -> Self {
        Self { figure: figure.to_owned(), measured, bound, most: true, unit: unit.to_owned() }
    }

    pub fn at_least(figure: &str, measured: f64, bound: f64, unit: &str) -> Self {
        Self { most: false, ..Self::at_most(figure, measured, bound, unit) }
    }

    /// Whether it is met.
    pub fn is_met(&self) -> bool {
        if self.most { self.measured <= self.bound } else { self.measured >= self.bound }
    }

    /// A row of a table: figure, measured, target, verdict.
    pub fn row(&self) -> String {
        let sign = if self.most { "≤" } else { "≥" };
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        let verdict = if self.is_met() { "met" } else { "**missed**" };
        format!("| {} | {:.2}{unit} | {sign} {}{unit} | {verdict} |", self.figure, self.measured, self.bound)
    }
}
