//! Replicas under random faults from a seed, judged by the audit log alone. Ends with 1 where anything was wrong.
#![allow(clippy::print_stdout, reason = "the program speaks to a person")]

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use frappe_loadtest::chaos::settings::Chaos;

/// Lets faults come over replicas while users work, and says what came of it.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program frappe-operator.
    #[arg(long)]
    operator: PathBuf,
    /// How long faults come.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Sites at the beginning.
    #[arg(long, default_value_t = 150)]
    sites: usize,
    /// Benches that they are on; one site of ten is on one that does not exist.
    #[arg(long, default_value_t = 3)]
    benches: usize,
    /// Replicas.
    #[arg(long, default_value_t = 4)]
    members: usize,
    /// Where the faults come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Whether the slot map is edited by hand too.
    #[arg(long)]
    map_by_hand: bool,
    /// Edits of sites in a second.
    #[arg(long, default_value_t = 10)]
    edits_per_second: u32,
    /// Duration of the Leases.
    #[arg(long, default_value_t = 3)]
    lease_seconds: u64,
    /// A file for the report, as Markdown.
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
    anyhow::ensure!(report.wrong.is_empty(), "{} things were wrong", report.wrong.len());
    Ok(())
}
