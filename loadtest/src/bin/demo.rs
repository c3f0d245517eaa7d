//! The demo: starts a Kubernetes API server and the operator, and creates one bench and 20 sites that become Ready.
#![allow(clippy::print_stdout, reason = "output for users")]

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Parser;
use frappe_crds::{FrappeBench, FrappeSite, site::SitePhase};
use frappe_loadtest::{
    cluster::Cluster,
    process::{Operator, Options},
};
use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use tokio::signal::unix::{SignalKind, signal};

/// Shows the operator with a real Kubernetes API server and nodes simulated by kwok.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program frappe-operator.
    #[arg(long)]
    operator: PathBuf,
    /// Number of sites to create.
    #[arg(long, default_value_t = 20)]
    sites: usize,
    /// End when all sites are Ready, or fail after the time limit; clean up in both cases.
    #[arg(long)]
    once: bool,
    /// Time limit in seconds.
    #[arg(long, default_value_t = 180)]
    timeout_seconds: u64,
}

const NAMESPACE: &str = "demo";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    println!(
        "Frappe operator demo: a real kube-apiserver; kwok simulates nodes and pods, so Frappe itself does not run.\n"
    );
    let mut end = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(interrupt), Ok(terminate), Ok(hangup)] = &mut end else { bail!("cannot wait for signals: {end:?}") };
    // Ctrl-C at any time removes everything, because the cluster and the operator are dropped.
    tokio::select! {
        result = demo(&arguments) => return result,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    // The output may have no reader.
    let _ = writeln!(std::io::stdout(), "\nremoving the cluster");
    Ok(())
}

async fn demo(arguments: &Arguments) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut screen = Screen { begun, unfinished: false };
    screen.now("starting a cluster: Kubernetes API server, etcd, 20 simulated nodes (about 10 s)");
    let cluster = tokio::task::spawn_blocking(|| Cluster::start("demo", 20)).await??;
    screen.line(&format!("cluster {} is up: Kubernetes API server, etcd, 20 simulated nodes", cluster.name()));
    screen.now("starting the operator (a new installation waits for one Lease first, here of 5 s)");
    let options = Options { lease_seconds: Some(5), ..Options::default() };
    let mut operator = Operator::start(&arguments.operator, &cluster, &options)?;
    operator.ready().await?;
    screen.line("operator is ready");
    cluster.apply(&manifests(arguments.sites))?;
    screen.line(&format!("applied: 1 MariaDB, 1 FrappeBench, {} FrappeSites", arguments.sites));
    let client = cluster.client().await?;
    let deadline = Duration::from_secs(arguments.timeout_seconds);
    let all_ready = tokio::time::timeout(deadline, watch_until_ready(&client, arguments.sites, &mut screen)).await;
    let sites = Api::<FrappeSite>::namespaced(client, NAMESPACE).list(&kube::api::ListParams::default()).await?.items;
    table(&sites);
    if all_ready.is_err() {
        bail!("not all sites became Ready within {} s\n{}", deadline.as_secs(), operator.log_tail());
    }
    all_ready??;
    println!("\nAll {} sites are Ready, {:.1} s after the start.", sites.len(), seconds(begun));
    if !arguments.once {
        look_around(&cluster, &operator);
        std::future::pending::<()>().await;
    }
    operator.stop().await?;
    Ok(())
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

/// Prints lines with the time since the start. On a terminal, the last line shows the current state and is overwritten.
struct Screen {
    begun: Instant,
    /// Whether the last line may be overwritten.
    unfinished: bool,
}

impl Screen {
    fn line(&mut self, text: &str) {
        let over = if self.unfinished { "\r\x1b[K" } else { "" };
        println!("{over}[{:5.1} s] {text}", seconds(self.begun));
        self.unfinished = false;
    }

    /// Shows the current state: on a terminal until the next line, otherwise as a normal line.
    fn now(&mut self, text: &str) {
        if !std::io::stdout().is_terminal() || std::env::var_os("TERM").is_some_and(|it| it == "dumb") {
            return self.line(text);
        }
        print!("\r\x1b[K[{:5.1} s] {text}", seconds(self.begun));
        let _ = std::io::stdout().flush();
        self.unfinished = true;
    }
}

fn manifests(sites: usize) -> String {
    let mut documents = vec![include_str!("../../../examples/demo.yaml").to_owned()];
    documents.extend((1..=sites).map(|number| {
        format!(
            "apiVersion: vyogo.tech/v1alpha1\nkind: FrappeSite\nmetadata: {{name: site-{number:02}, namespace: {NAMESPACE}}}\n\
             spec:\n  siteName: site-{number:02}.example.com\n  benchRef: {{name: demo-bench}}\n"
        )
    }));
    documents.join("---\n")
}

/// Prints the state whenever it changes; ends when every site is Ready.
async fn watch_until_ready(client: &Client, wanted: usize, screen: &mut Screen) -> anyhow::Result<()> {
    let benches = watcher(Api::<FrappeBench>::namespaced(client.clone(), NAMESPACE), watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .map_ok(|it| Seen::Bench(Box::new(it)));
    let sites = watcher(Api::<FrappeSite>::namespaced(client.clone(), NAMESPACE), watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .map_ok(|it| Seen::Site(Box::new(it)));
    let mut stream = futures::stream::select(benches.boxed(), sites.boxed());
    let (mut bench, mut phases) = (String::from("Pending"), BTreeMap::new());
    let (mut shown, mut told) = (String::new(), screen.begun);
    while let Some(seen) = stream.next().await {
        match seen.context("watch")? {
            Seen::Bench(it) => bench = format!("{:?}", it.status.unwrap_or_default().phase),
            Seen::Site(it) => {
                let status = it.status.clone().unwrap_or_default();
                phases.insert(it.name_any(), status.phase);
            }
        }
        let count = |phase| phases.values().filter(|it| **it == phase).count();
        let [pending, provisioning, ready, failed] =
            [SitePhase::Pending, SitePhase::Provisioning, SitePhase::Ready, SitePhase::Failed].map(count);
        let line = format!(
            "bench {bench:<11} sites: {pending:>2} pending {provisioning:>2} provisioning {ready:>2} ready {failed:>2} failed"
        );
        if ready == wanted {
            screen.line(&line);
            return Ok(());
        }
        // At most two lines per second.
        if line != shown && told.elapsed() > Duration::from_millis(500) {
            screen.now(&line);
            (shown, told) = (line, Instant::now());
        }
    }
    bail!("the watch ended")
}

enum Seen {
    Bench(Box<FrappeBench>),
    Site(Box<FrappeSite>),
}

fn table(sites: &[FrappeSite]) {
    println!("\n{:<10} {:<30} {:<13} TIME TO READY", "SITE", "URL", "PHASE");
    for site in sites {
        let status = site.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().find(|it| it.type_ == "Ready" && it.status == "True");
        let took = match (ready, site.creation_timestamp()) {
            (Some(ready), Some(made)) => format!("{} s", ready.last_transition_time.0.duration_since(made.0).as_secs()),
            _ => "-".to_owned(),
        };
        let phase = format!("{:?}", status.phase);
        println!("{:<10} {:<30} {phase:<13} {took}", site.name_any(), status.site_url.unwrap_or_default());
    }
}

fn look_around(cluster: &Cluster, operator: &Operator) {
    println!(
        "\nPods are simulated by kwok: the URLs lead nowhere. Everything else is real. Look around:\n\
         \n  export KUBECONFIG={}\
         \n  kubectl get frappe -A                       benches, sites and domains\
         \n  kubectl describe frappesite -n {NAMESPACE} site-01    conditions and Events\
         \n  kubectl get all,ingress,databases -n {NAMESPACE}      what was made for them\
         \n  kubectl delete frappesite -n {NAMESPACE} site-02      watch it go: Job, database, secrets, claim\
         \n  curl 127.0.0.1:{}/metrics\
         \n  tail -f {}\n\nCtrl-C removes everything.",
        cluster.kubeconfig.display(),
        operator.port,
        operator.log.display(),
    );
}
