//! Resource usage of replicas.

use std::{collections::BTreeMap, fmt, time::Duration};

use frappe_loadtest::members::{Member, Members};

use crate::editor::Editor;

/// Resource usage of a replica.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    cpu_seconds: f64,
    /// Received in watches and lists.
    megabytes: f64,
    /// Requests, without Leases and map.
    requests: f64,
    resident_mebibytes: f64,
}

impl Cost {
    async fn of(member: &Member) -> anyhow::Result<Self> {
        let (process, metrics) = member.meter().await?;
        Ok(Self {
            cpu_seconds: process.cpu_seconds,
            megabytes: metrics.watch_bytes() / 1e6,
            requests: metrics.work_requests(),
            resident_mebibytes: process.resident_mebibytes,
        })
    }
}

/// Resource usage of each replica in this number of seconds.
pub(crate) async fn cost(members: &Members<'_>, editor: &Editor, seconds: u64) -> anyhow::Result<Costs> {
    editor.waits();
    let mut before = BTreeMap::new();
    for (name, member) in &members.running {
        before.insert(name.clone(), Cost::of(member).await?);
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let mut rows = BTreeMap::new();
    for (name, member) in &members.running {
        let (now, then) = (Cost::of(member).await?, before[name]);
        rows.insert(
            name.clone(),
            Cost {
                cpu_seconds: now.cpu_seconds - then.cpu_seconds,
                megabytes: now.megabytes - then.megabytes,
                requests: now.requests - then.requests,
                resident_mebibytes: now.resident_mebibytes,
            },
        );
    }
    let (edits, [p50, p99, most]) = editor.waits();
    Ok(Costs { rows, edits: format!("{edits} edits waited p50 {p50} ms, p99 {p99} ms, at most {most} ms") })
}

/// Resource usage of all replicas.
pub(crate) struct Costs {
    rows: BTreeMap<String, Cost>,
    edits: String,
}

impl Costs {
    fn mean(&self, of: fn(&Cost) -> f64) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a few replicas")]
        let count = self.rows.len() as f64;
        self.rows.values().map(of).sum::<f64>() / count
    }

    /// Memory of a member without sites: extrapolated from two numbers of sites.
    pub(crate) fn fixed_mebibytes(&self, sites: usize, few: &Self, few_sites: usize) -> f64 {
        let (most, least) = (self.mean(|it| it.resident_mebibytes), few.mean(|it| it.resident_mebibytes));
        #[allow(clippy::cast_precision_loss, reason = "a count of sites")]
        let (sites, few_sites) = (sites as f64, few_sites as f64);
        least - few_sites * (most - least) / (sites - few_sites).max(1.0)
    }

    /// Compares the mean of members with a single member; for memory, only the part above a base.
    pub(crate) fn against(&self, alone: &Self, base: &str, base_mebibytes: f64) -> String {
        let share = |of: fn(&Cost) -> f64| self.mean(of) / alone.mean(of).max(1e-9);
        #[allow(clippy::cast_precision_loss, reason = "a few replicas")]
        let fair = 1.0 / self.rows.len() as f64;
        format!(
            "a member costs, against one alone: CPU {:.2}, watch and list bytes {:.2}, requests {:.2}, RSS beyond the \
             {base_mebibytes:.1} MiB {base} {:.2} (1/N = {fair:.2}, 1.25/N = {:.2})",
            share(|it| it.cpu_seconds),
            share(|it| it.megabytes),
            share(|it| it.requests),
            (self.mean(|it| it.resident_mebibytes) - base_mebibytes)
                / (alone.mean(|it| it.resident_mebibytes) - base_mebibytes),
            1.25 * fair
        )
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "| member | CPU s | RSS MiB | watch and list MB | requests |\n|---|---|---|---|---|")?;
        for (name, cost) in &self.rows {
            writeln!(
                formatter,
                "| {name} | {:.2} | {:.1} | {:.2} | {:.0} |",
                cost.cpu_seconds, cost.resident_mebibytes, cost.megabytes, cost.requests
            )?;
        }
        writeln!(formatter, "\n{}", self.edits)
    }
}
