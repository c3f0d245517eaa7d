//! Replicas with random faults from a seed, evaluated by the audit log. The exit code is 1 if there is a violation.
#![allow(clippy::print_stdout, reason = "output for users")]

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use frappe_loadtest::chaos::settings::Chaos;

/// Injects faults into replicas while users work, and reports violations.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program frappe-operator.
    #[arg(long)]
    operator: PathBuf,
    /// How long faults are injected.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Initial number of sites.
    #[arg(long, default_value_t = 150)]
    sites: usize,
    /// Number of benches; one of ten sites is on a bench that does not exist.
    #[arg(long, default_value_t = 3)]
    benches: usize,
    /// Number of replicas.
    #[arg(long, default_value_t = 4)]
    members: usize,
    /// Seed of the faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also edit the slot map.
    #[arg(long)]
    map_by_hand: bool,
    /// Edits of sites per second.
    #[arg(long, default_value_t = 10)]
    edits_per_second: u32,
    /// Duration of the Leases.
    #[arg(long, default_value_t = 3)]
    lease_seconds: u64,
    /// File for the report, as Markdown.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let chaos = Chaos {
        operator: arguments.operator,
        duration: Duration::from_secs(arguments.seconds),
        sites: arguments.sites,
        benches: arguments.benches,
        members: arguments.members,
        seed: arguments.seed,
        map_by_hand: arguments.map_by_hand,
        edits_per_second: arguments.edits_per_second,
        lease_seconds: arguments.lease_seconds,
    };
    let report = tokio::select! {
        report = chaos.run() => report?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("removing the cluster"),
    };
    println!("\n{report}");
    if let Some(out) = &arguments.out {
        std::fs::write(out, report.to_string())?;
    }
    anyhow::ensure!(report.wrong.is_empty(), "{} violations", report.wrong.len());
    Ok(())
}
