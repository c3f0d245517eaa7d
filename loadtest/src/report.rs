//! The results of a load test, as data and as Markdown.

use std::{collections::BTreeMap, fmt::Write};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    backups::Backups,
    scenario::Scenario,
    spread::{Spread, exact},
};

/// Resource usage of a member during a step.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Memory at the step's end, in MiB.
    pub resident_mebibytes: f64,
    /// Bytes received in watches and lists, in MB, from the member's metrics.
    pub watch_megabytes: f64,
}

/// The results of a step.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Name of the step.
    pub step: String,
    /// When it started.
    pub begun: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// Number of sites at its end.
    pub sites: usize,
    /// From the request that creates a site until it is Ready.
    pub ready: Spread,
    /// From the request that edits a site until its Ingress is changed.
    pub edit: Spread,
    /// From the request that deletes a site until it does not exist.
    pub delete: Spread,
    /// Resource usage of each member.
    pub members: BTreeMap<String, Cost>,
    /// How long sites waited for their reconcile, from the members' metrics: p50 and p99 in milliseconds.
    pub queue: Option<[f64; 2]>,
    /// Duration of reconciles, from the members' metrics: p50 and p99 in milliseconds.
    pub reconcile: Option<[f64; 2]>,
    /// Time that the API server took to respond to the operator's writes.
    #[serde(default)]
    pub answer: Spread,
    /// Seconds for which some process waited for the disk, as counted by the kernel (`some` in `/proc/pressure/io`).
    #[serde(default)]
    pub disk_wait_seconds: Option<f64>,
    /// The operator's requests by verb and resource, from the audit log. A watch is counted when it ends.
    pub requests: BTreeMap<String, usize>,
    /// Versions of the slot map that were written.
    pub map_writes: usize,
    /// The longest time for which a slot of a killed member was unowned.
    pub unowned_seconds_max: Option<f64>,
    /// The results of due backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<Backups>,
    /// The results of an update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<Updates>,
    /// Further notes.
    pub notes: Vec<String>,
}

/// Sites that moved to another image.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Updates {
    /// Jobs that moved a site.
    pub moves: usize,
    /// Those of them that failed, after which the former image served the site.
    pub failed: usize,
    /// The most of them at once.
    pub at_once_most: usize,
    /// Times that the rollout was promoted after a failure.
    pub promotions: usize,
    /// How long it took.
    pub seconds: f64,
    /// How long it was to take at most.
    pub seconds_max: f64,
    /// Writes to statuses of sites, and Jobs that were created for them.
    #[serde(default)]
    pub writes: usize,
}

impl Row {
    /// Requests of the operator's work, without Leases, map, watches and Events.
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

/// The bare client, for comparison with the operator.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Floor {
    /// Sites whose objects it created.
    pub sites: usize,
    /// How long its writes took.
    pub write_seconds: f64,
    /// How long until the cluster had run the Jobs, too.
    pub seconds: f64,
    /// Its writes for each site.
    pub writes_per_site: usize,
    /// CPU time of its process for each site, in milliseconds: its writes, and its watches of sites, Ingresses and Jobs.
    pub cpu_milliseconds_per_site: f64,
    /// CPU time of the operator for each site, in the compared step.
    pub operator_cpu_milliseconds_per_site: f64,
    /// Sites per second of the operator, in the compared step.
    pub operator_sites_per_second: f64,
    /// The operator's writes for each site, in that step.
    pub operator_writes_per_site: f64,
    /// All of its requests for each site, without Leases, map, watches and Events, in that step.
    pub operator_requests_per_site: f64,
}

impl Floor {
    /// Sites per second of the operator divided by those of the bare client.
    #[allow(clippy::cast_precision_loss, reason = "a count of sites")]
    pub fn ratio(&self) -> f64 {
        self.operator_sites_per_second / (self.sites as f64 / self.seconds)
    }
}

/// Measurements at one moment.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Seconds since the start.
    pub seconds: f64,
    /// Sites that are Ready.
    pub ready: usize,
    /// Pending edits.
    pub waiting: usize,
    /// Memory of each member, in MiB.
    pub resident_mebibytes: BTreeMap<String, f64>,
    /// Cores used by all members.
    pub operator_cores: f64,
    /// Cores used by the API server.
    pub api_server_cores: f64,
}

/// Where and when a report was created.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The command that created it.
    pub command: String,
    /// Day.
    pub date: String,
    /// Commit of the checkout; `-dirty` if it had changes.
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
    /// The scenario.
    pub scenario: Scenario,
    /// Why it ended early, if it did.
    pub failure: Option<String>,
    /// Results by step.
    pub rows: Vec<Row>,
    /// Comparison with a bare client.
    pub floor: Option<Floor>,
    /// The highest rate of edits per second within the objective, by number of members.
    pub capacity: BTreeMap<usize, u32>,
    /// Figures and their targets.
    pub targets: Vec<Target>,
    /// Measurements over time.
    pub samples: Vec<Sample>,
}

impl Report {
    /// The report as Markdown.
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
        self.write_targets(&mut text);
        self.times(&mut text);
        self.backed_up(&mut text);
        self.updated(&mut text);
        self.costs(&mut text);
        self.compared(&mut text);
        self.requests(&mut text);
        for plot in plots {
            let _ = writeln!(text, "\n![{plot}]({plot})");
        }
        text
    }

    fn write_targets(&self, text: &mut String) {
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

    fn updated(&self, text: &mut String) {
        for (row, it) in self.rows.iter().filter_map(|row| Some((row, row.updates.as_ref()?))) {
            let _ = writeln!(
                text,
                "\n{}: {} sites moved in {:.0} s, at most {} at once; {} failed, and were served by the former image; {} promotions after a \
                 failure. Writes to statuses of sites, and Jobs: {} ({:.2} for each move).",
                row.step,
                it.moves,
                it.seconds,
                it.at_once_most,
                it.failed,
                it.promotions,
                it.writes,
                exact(it.writes) / exact(it.moves.max(1)),
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

/// A figure and its target.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Target {
    /// Name of the figure.
    pub figure: String,
    /// The measured value.
    pub measured: f64,
    /// Maximum or minimum.
    pub bound: f64,
    /// Whether the bound is a maximum.
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
