//! Replicas with faults: thousands of sites on a real API server are edited continuously while replicas are added, stopped, killed,
//! paused or disconnected. Reports resource usage, waits of edits, and writes by non-owners.
#![allow(clippy::print_stdout, reason = "output for users")]

mod arguments;
mod costs;
mod editor;
mod fire;

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use frappe_loadtest::{
    cluster::Cluster,
    history::History,
    members::{Fleet, Members},
};

use arguments::Arguments;
use costs::cost;
use editor::Editor;

/// Number of sites for the measurement of the work that does not depend on the number of sites.
const FEW_SITES: usize = 50;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tokio::select! {
        result = run(&arguments) => result,
        _ = tokio::signal::ctrl_c() => {
            println!("\nremoving the cluster");
            Ok(())
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let gates = arguments.feature_gates.clone();
    let cluster = tokio::task::spawn_blocking(move || {
        let mut variables = vec![("AUDIT_POLICY", "audit-history.yaml")];
        variables.extend(gates.as_deref().map(|gates| ("FEATURE_GATES", gates)));
        Cluster::start_with("fleet", 20, &variables)
    })
    .await??;
    let client = cluster.client().await?;
    let fleet = Fleet { program: arguments.operator.clone(), command: None, proxied: true };
    let mut members = Members::new(fleet, &cluster, client.clone());
    members.start("one").await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let idle_mebibytes = members.running.get("one").context("it runs")?.meter().await?.0.resident_mebibytes;
    println!("a replica without sites: {idle_mebibytes:.1} MiB");
    let editor = Editor::start(arguments, &cluster, client)?;
    let few = FEW_SITES.min(arguments.sites);
    editor.grow(arguments, &cluster, few).await?;
    let warm = cost(&members, &editor, arguments.cost_seconds).await?;
    println!("\n## Cost, 1 member with {few} sites, the same edits a second\n\n{warm}");
    editor.grow(arguments, &cluster, arguments.sites).await?;
    let alone = cost(&members, &editor, arguments.cost_seconds).await?;
    println!("\n## Cost, 1 member, {} edits/s for {} s\n\n{alone}", arguments.edits_per_second, arguments.cost_seconds);
    fire::scale(&mut members, &editor, arguments.members).await?;
    // Watches are narrowed after 10 s without changes.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let shared = cost(&members, &editor, arguments.cost_seconds).await?;
    println!("\n## Cost, {} members, the same sites and edits\n\n{shared}", arguments.members);
    println!("{}", shared.against(&alone, "without sites", idle_mebibytes));
    let fixed = alone.fixed_mebibytes(arguments.sites, &warm, few);
    println!("{}", shared.against(&alone, "without sites, extrapolated", fixed));
    println!("{}", members.table().await?);
    fire::scenarios(&mut members, &editor, &arguments.only).await?;
    editor.stop();
    tokio::time::sleep(Duration::from_secs(2)).await;
    editor.all_reconciled()?;
    members.stop_all().await?;
    let history = History::read(&cluster.logs).context("read the audit log")?;
    println!("\n## History: {}", history.check()?);
    Ok(())
}
