//! Starts, stops and inspects replicas.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use kube::{Api, Client, core::DynamicObject};
use kube_sharding::{SLOTS, map::SlotMap, wire::Names};

use crate::{
    cluster::Cluster,
    meter::{Metrics, Process},
    process::{NAMESPACE, Operator, Options},
    proxy::Proxy,
};

/// One replica.
pub struct Member {
    /// Its process.
    pub operator: Operator,
    /// uid of its simulated pod.
    pub uid: String,
    /// The proxy between it and the API server, if it uses one.
    pub proxy: Option<Proxy>,
}

impl Member {
    /// What its process has used so far, and its metrics: empty if it does not respond.
    pub async fn meter(&self) -> anyhow::Result<(Process, Metrics)> {
        let text = tokio::time::timeout(Duration::from_secs(5), self.operator.http("/metrics")).await;
        let metrics = Metrics::parse(&text.ok().and_then(Result::ok).unwrap_or_default());
        Ok((Process::read(self.operator.id())?, metrics))
    }
}

/// How replicas are started.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The program frappe-operator.
    pub program: PathBuf,
    /// Another operator, by a shell command: see [`Options::command`].
    pub command: Option<String>,
    /// Whether each has its own proxy to the API server, which can be cut.
    pub proxied: bool,
}

/// The replicas by name.
pub struct Members<'a> {
    fleet: Fleet,
    /// Their cluster.
    pub cluster: &'a Cluster,
    client: Client,
    /// The running replicas.
    pub running: BTreeMap<String, Member>,
    started: usize,
}

/// Names of the operator's Leases and slot map.
pub fn names() -> Names {
    Names {
        group: "vyogo.tech".to_owned(),
        prefix: "frappe.vyogo.tech".to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: "frappe-operator".to_owned(),
    }
}

impl<'a> Members<'a> {
    /// Without replicas.
    pub fn new(fleet: Fleet, cluster: &'a Cluster, client: Client) -> Self {
        Self { fleet, cluster, client, running: BTreeMap::new(), started: 0 }
    }

    /// Starts a replica, and waits until it can get slots.
    pub async fn start(&mut self, name: &str) -> anyhow::Result<()> {
        self.started += 1;
        let (proxy, kubeconfig) = if self.fleet.proxied { self.proxy(name).await? } else { (None, None) };
        let uid = format!("uid-{name}-{}", self.started);
        let options = Options {
            pod_name: Some(name.to_owned()),
            pod_uid: Some(uid.clone()),
            template: Some(format!("build-{}", self.started / 100)),
            kubeconfig,
            command: self.fleet.command.clone(),
            ..Options::default()
        };
        let mut operator = Operator::start(&self.fleet.program, self.cluster, &options)?;
        if self.is_ours() {
            operator.ready().await?;
        }
        self.running.insert(name.to_owned(), Member { operator, uid, proxy });
        Ok(())
    }

    /// Whether it is this project's operator, and has a slot map.
    pub fn is_ours(&self) -> bool {
        self.fleet.command.is_none()
    }

    async fn proxy(&self, name: &str) -> anyhow::Result<(Option<Proxy>, Option<PathBuf>)> {
        let text = std::fs::read_to_string(&self.cluster.kubeconfig)?;
        let server =
            text.lines().find_map(|line| line.trim().strip_prefix("server: https://")).context("server")?.to_owned();
        let proxy = Proxy::start(server.clone()).await?;
        let path = self.cluster.logs.join(format!("{name}.kubeconfig"));
        std::fs::write(&path, text.replace(&server, &format!("127.0.0.1:{}", proxy.port)))?;
        Ok((Some(proxy), Some(path)))
    }

    /// Stops a replica, and waits for its end.
    pub async fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        let mut member = self.running.remove(name).context("it runs")?;
        let status = member.operator.stop().await?;
        anyhow::ensure!(status.success(), "{name} ended with {status}: {}", member.operator.log_tail());
        Ok(())
    }

    /// Stops all replicas.
    pub async fn stop_all(&mut self) -> anyhow::Result<()> {
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            self.stop(&name).await?;
        }
        Ok(())
    }

    /// The slot map.
    pub async fn map(&self) -> anyhow::Result<Option<SlotMap>> {
        let names = names();
        let maps: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), NAMESPACE, &names.map_resource());
        Ok(maps.get_opt(&names.name).await?.and_then(|map| names.read_map(&map)))
    }

    /// Name of the coordinator.
    pub async fn coordinator(&self) -> anyhow::Result<String> {
        let map = self.map().await?.context("a map")?;
        let owner = map.content.holdings.last().and_then(|it| it.owner.clone()).context("a coordinator")?;
        let found = self.running.iter().find(|(_, member)| member.uid == owner.pod());
        found.map(|(name, _)| name.clone()).context("the coordinator runs")
    }

    /// Waits until exactly these replicas share all slots evenly.
    pub async fn settled(&self, most: Duration) -> anyhow::Result<()> {
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
    pub async fn table(&self) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(&self.fleet.program)
            .args(["shards", "--namespace", NAMESPACE])
            .env("KUBECONFIG", &self.cluster.kubeconfig)
            .output()
            .await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
