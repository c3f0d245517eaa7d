//! The load test: measures an operator that creates sites on a real API server with simulated nodes.
#![allow(clippy::print_stdout, reason = "output for users")]

mod backups;
mod faults;
mod floor;
mod generator;
mod origin;
mod run;
mod sampler;
mod tracker;
mod update;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};
use frappe_loadtest::{
    cluster::Cluster,
    members::Fleet,
    plot,
    report::Report,
    scenario::{Scenario, Step},
    summary, targets,
};
use tokio::signal::unix::{SignalKind, signal};

use run::Run;

/// Measures an operator of Frappe sites on a real API server with simulated nodes.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a scenario and writes its report.
    Run(RunArguments),
    /// Writes the table of loadtest/README.md from the reports in loadtest/reports.
    Table,
}

/// One run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunArguments {
    /// Scenario: a name in loadtest/scenarios, or a path with a slash.
    #[arg(long, default_value = "basic")]
    pub(crate) scenario: String,
    /// Sites, instead of the scenario's number.
    #[arg(long)]
    pub(crate) sites: Option<usize>,
    /// Benches, instead of the scenario's number.
    #[arg(long)]
    pub(crate) benches: Option<usize>,
    /// Members, instead of the scenario's number.
    #[arg(long)]
    pub(crate) members: Option<usize>,
    /// The program frappe-operator.
    #[arg(long, default_value = "frappe-operator")]
    pub(crate) operator: PathBuf,
    /// Shell command that starts another operator, for each member; KUBECONFIG is set, and {port}, {member} and {namespace}
    /// are replaced.
    #[arg(long)]
    pub(crate) operator_cmd: Option<String>,
    /// Folder with that operator's CRDs, instead of this project's.
    #[arg(long)]
    pub(crate) crds: Option<PathBuf>,
    /// Folder of the report.
    #[arg(long, default_value = "loadtest/reports")]
    pub(crate) out: PathBuf,
    /// Maximum duration of the test in seconds, instead of the scenario's number.
    #[arg(long)]
    pub(crate) seconds_max: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run(arguments) => {
            let mut ended = signal(SignalKind::terminate())?;
            // In all cases, everything is removed, because cluster and members are dropped.
            tokio::select! {
                result = load(&arguments) => result,
                _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted: the cluster is removed"),
                _ = ended.recv() => anyhow::bail!("terminated: the cluster is removed"),
            }
        }
        Command::Table => summary::write(),
    }
}

fn scenario(arguments: &RunArguments) -> anyhow::Result<Scenario> {
    let mut scenario = Scenario::read(&arguments.scenario)?;
    scenario.sites = arguments.sites.unwrap_or(scenario.sites);
    scenario.benches = arguments.benches.unwrap_or(scenario.benches).max(1);
    scenario.members = arguments.members.unwrap_or(scenario.members).max(1);
    scenario.seconds_max = arguments.seconds_max.unwrap_or(scenario.seconds_max);
    Ok(scenario)
}

async fn load(arguments: &RunArguments) -> anyhow::Result<()> {
    let scenario = scenario(arguments)?;
    let name = PathBuf::from(&arguments.scenario).file_stem().context("a name")?.to_string_lossy().into_owned();
    println!("{name}: {}", scenario.about);
    let origin = origin::read()?;
    let cluster = start(&scenario, arguments.crds.clone()).await?;
    let fleet = Fleet { program: arguments.operator.clone(), command: arguments.operator_cmd.clone(), proxied: false };
    let mut run = Run::new(&scenario, &cluster, fleet).await?;
    let limit = Duration::from_secs(scenario.seconds_max);
    let outcome = tokio::time::timeout(limit, run.steps()).await;
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some(format!("not complete after {} s", limit.as_secs())),
    };
    let found = run.end(failure.is_none()).await?;
    let kubernetes = origin::kubernetes(&cluster);
    let mut report = Report {
        name,
        origin: frappe_loadtest::report::Origin { kubernetes, ..origin },
        scenario,
        failure,
        rows: found.rows,
        floor: found.floor,
        capacity: found.capacity,
        targets: Vec::new(),
        samples: found.samples,
    };
    report.targets = targets::targets(&report);
    write(&report, arguments)?;
    match &report.failure {
        Some(failure) => anyhow::bail!("it ended early: {failure}"),
        None => Ok(()),
    }
}

async fn start(scenario: &Scenario, crds: Option<PathBuf>) -> anyhow::Result<Cluster> {
    let nodes = scenario.nodes;
    // The owners of slots are in the bodies of requests.
    let faults = scenario
        .steps
        .iter()
        .any(|step| matches!(step, Step::Fault { .. } | Step::Backups { .. } | Step::Update { .. }));
    let cluster = tokio::task::spawn_blocking(move || {
        let crds = crds.map(|folder| folder.canonicalize()).transpose()?.map(|it| it.to_string_lossy().into_owned());
        let mut variables = vec![("LEADER_ELECT", "false")];
        variables.extend(faults.then_some(("AUDIT_POLICY", "audit-history.yaml")));
        variables.extend(crds.as_deref().map(|folder| ("CRDS", folder)));
        Cluster::start_with("loadtest", nodes, &variables)
    })
    .await??;
    if scenario.steps.iter().any(|step| matches!(step, Step::Update { .. })) {
        cluster.apply(include_str!("../../../controlplane/optional/failing-updates.yaml"))?;
    }
    if scenario.failing_jobs_percent > 0 {
        fail_some(&cluster, scenario.failing_jobs_percent)?;
    }
    Ok(cluster)
}

/// Makes this percentage of Jobs fail, by a second stage in addition to the one by which they succeed.
fn fail_some(cluster: &Cluster, percent: u32) -> anyhow::Result<()> {
    let stage =
        include_str!("../../../controlplane/optional/failing-jobs.yaml").replace("WEIGHT", &percent.to_string());
    cluster.apply(&stage)?;
    let patch = format!(r#"{{"spec": {{"weight": {}}}}}"#, 100 - percent);
    let done = cluster.kubectl(&["patch", "stage", "pod-complete", "--type", "merge", "--patch", &patch], "")?;
    anyhow::ensure!(done.success, "{}", done.errors);
    Ok(())
}

fn write(report: &Report, arguments: &RunArguments) -> anyhow::Result<()> {
    std::fs::create_dir_all(&arguments.out)?;
    let plots = plot::write(report, &arguments.out)?;
    let path = arguments.out.join(&report.name);
    std::fs::write(path.with_extension("json"), serde_json::to_string_pretty(report)? + "\n")?;
    let text = report.markdown(&plots);
    std::fs::write(path.with_extension("md"), &text)?;
    println!("\n{text}\nwritten: {}", path.with_extension("md").display());
    Ok(())
}
