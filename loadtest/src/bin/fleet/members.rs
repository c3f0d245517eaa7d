//! The replicas: started, ended, looked at.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use frappe_loadtest::{
    cluster::Cluster,
    process::{NAMESPACE, Operator, Options},
    proxy::Proxy,
};
use kube::{Api, Client, core::DynamicObject};
use kube_sharding::{SLOTS, map::SlotMap, wire::Names};

use crate::{Arguments, editor::Editor};

/// Clock ticks in a second of /proc/PID/stat (`getconf CLK_TCK` on Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// One replica.
pub(crate) struct Member {
    pub(crate) operator: Operator,
    pub(crate) uid: String,
    pub(crate) proxy: Proxy,
}

/// The replicas by name.
pub(crate) struct Members<'a> {
    program: PathBuf,
    pub(crate) cluster: &'a Cluster,
    client: Client,
    pub(crate) running: BTreeMap<String, Member>,
    started: usize,
}

pub(crate) fn names() -> Names {
    Names {
        group: "vyogo.tech".to_owned(),
        prefix: "frappe.vyogo.tech".to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: "frappe-operator".to_owned(),
    }
}

impl<'a> Members<'a> {
    pub(crate) fn new(arguments: &Arguments, cluster: &'a Cluster, client: Client) -> Self {
        Self { program: arguments.operator.clone(), cluster, client, running: BTreeMap::new(), started: 0 }
    }

    /// Starts a replica behind a proxy of its own, and waits until it may be given slots.
    pub(crate) async fn start(&mut self, name: &str) -> anyhow::Result<()> {
        self.started += 1;
        let text = std::fs::read_to_string(&self.cluster.kubeconfig)?;
        let server =
            text.lines().find_map(|line| line.trim().strip_prefix("server: https://")).context("server")?.to_owned();
        let proxy = Proxy::start(server.clone()).await?;
        let path = self.cluster.logs.join(format!("{name}.kubeconfig"));
        std::fs::write(&path, text.replace(&server, &format!("127.0.0.1:{}", proxy.port)))?;
        let uid = format!("uid-{name}-{}", self.started);
        let options = Options {
            pod_name: Some(name.to_owned()),
            pod_uid: Some(uid.clone()),
            template: Some(format!("build-{}", self.started / 100)),
            kubeconfig: Some(path),
            ..Options::default()
        };
        let mut operator = Operator::start(&self.program, self.cluster, &options)?;
        operator.ready().await?;
        self.running.insert(name.to_owned(), Member { operator, uid, proxy });
        Ok(())
    }

    pub(crate) async fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        let mut member = self.running.remove(name).context("it runs")?;
        let status = member.operator.stop().await?;
        anyhow::ensure!(status.success(), "{name} ended with {status}: {}", member.operator.log_tail());
        Ok(())
    }

    pub(crate) async fn stop_all(&mut self) -> anyhow::Result<()> {
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            self.stop(&name).await?;
        }
        Ok(())
    }

    pub(crate) async fn map(&self) -> anyhow::Result<Option<SlotMap>> {
        let names = names();
        let maps: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), NAMESPACE, &names.map_resource());
        Ok(maps.get_opt(&names.name).await?.and_then(|map| names.read_map(&map)))
    }

    /// Name of the coordinator.
    pub(crate) async fn coordinator(&self) -> anyhow::Result<String> {
        let map = self.map().await?.context("a map")?;
        let owner = map.content.holdings.last().and_then(|it| it.owner.clone()).context("a coordinator")?;
        let found = self.running.iter().find(|(_, member)| member.uid == owner.pod());
        found.map(|(name, _)| name.clone()).context("the coordinator runs")
    }

    /// Waits until these replicas, and no others, share everything evenly.
    pub(crate) async fn settled(&self, most: Duration) -> anyhow::Result<()> {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < most {
            if let Ok(Some(map)) = self.map().await {
                let load = |member: &Member| {
                    let slots = map.content.holdings.iter().take(SLOTS);
                    slots.filter(|it| it.owner.as_ref().is_some_and(|owner| owner.pod() == member.uid)).count()
                };
                let loads: Vec<usize> = self.running.values().map(load).collect();
                let coordinated = map.content.holdings.last().is_some_and(|it| {
                    self.running.values().any(|member| it.owner.as_ref().is_some_and(|owner| owner.pod() == member.uid))
                });
                let even = loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0) <= 1;
                if coordinated && even && loads.iter().sum::<usize>() == SLOTS {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the replicas do not share evenly after {most:?}: {}", self.table().await?)
    }

    /// `frappe-operator shards`.
    pub(crate) async fn table(&self) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(&self.program)
            .args(["shards", "--namespace", NAMESPACE])
            .env("KUBECONFIG", &self.cluster.kubeconfig)
            .output()
            .await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Memory of a replica in MiB, as it is now.
    pub(crate) async fn resident_mebibytes(&self, name: &str) -> anyhow::Result<f64> {
        Ok(meter(self.running.get(name).context("it runs")?).await?.resident_mebibytes)
    }

    /// What each replica costs in so many seconds.
    pub(crate) async fn cost(&self, editor: &Editor, seconds: u64) -> anyhow::Result<Costs> {
        editor.waits();
        let mut before = BTreeMap::new();
        for (name, member) in &self.running {
            before.insert(name.clone(), meter(member).await?);
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let mut rows = BTreeMap::new();
        for (name, member) in &self.running {
            let (now, then) = (meter(member).await?, before[name]);
            rows.insert(
                name.clone(),
                Cost {
                    cpu_seconds: now.cpu_seconds - then.cpu_seconds,
                    megabytes: (now.megabytes - then.megabytes),
                    requests: now.requests - then.requests,
                    resident_mebibytes: now.resident_mebibytes,
                },
            );
        }
        let (edits, [p50, p99, most]) = editor.waits();
        Ok(Costs { rows, edits: format!("{edits} edits waited p50 {p50} ms, p99 {p99} ms, at most {most} ms") })
    }
}

/// What a replica used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    cpu_seconds: f64,
    /// Received in watches and lists.
    megabytes: f64,
    /// Requests but for Leases and map.
    requests: f64,
    resident_mebibytes: f64,
}

async fn meter(member: &Member) -> anyhow::Result<Cost> {
    let id = member.operator.id();
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0);
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    let metrics = member.operator.http("/metrics").await?;
    let sum = |name: &str, wanted: fn(&str) -> bool| {
        let lines = metrics.lines().filter(|line| line.starts_with(name) && wanted(line));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    let work = |line: &str| {
        !line.contains("resource=\"leases\"")
            && !line.contains("resource=\"slotmaps\"")
            && !line.contains("method=\"watch\"")
    };
    let received = |line: &str| line.contains("\"watch\"") || line.contains("\"list\"");
    Ok(Cost {
        cpu_seconds: (ticks(11) + ticks(12)) / TICKS_PER_SECOND,
        megabytes: sum("rest_client_response_bytes_total", received) / 1e6,
        requests: sum("rest_client_requests_total", work),
        resident_mebibytes: resident.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0,
    })
}

/// What all replicas used.
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

    /// Memory of a member that no site adds to: where the line through two numbers of sites meets none.
    pub(crate) fn fixed_mebibytes(&self, sites: usize, few: &Self, few_sites: usize) -> f64 {
        let (most, least) = (self.mean(|it| it.resident_mebibytes), few.mean(|it| it.resident_mebibytes));
        #[allow(clippy::cast_precision_loss, reason = "a count of sites")]
        let (sites, few_sites) = (sites as f64, few_sites as f64);
        least - few_sites * (most - least) / (sites - few_sites).max(1.0)
    }

    /// A member's mean against that of a member alone; of memory, what is beyond a base.
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
