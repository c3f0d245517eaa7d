//! Shared by the tests: a cluster with a running operator, and waiting for conditions.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use frappe_crds::{FrappeBench, FrappeSite, site::SitePhase};
use frappe_loadtest::{
    cluster::Cluster,
    process::{Operator, Options},
};
use kube::{Api, Client};

/// Lease duration of a test's operator: while several tests share two cores, a process may not run for seconds.
const LEASE_SECONDS: u64 = 6;

/// The operator's binary.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_frappe-operator"))
}

/// A file in the folder of documents beside the project, or None if it is absent: then the test prints that and passes.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if found.exists() {
        return Some(found);
    }
    println!("SKIPPED: {} is absent, so its contents were not tested", found.display());
    None
}

/// Runs kubectl, which must succeed; returns its output.
pub(crate) fn kubectl(cluster: &Cluster, arguments: &[&str], input: &str) -> String {
    let output = cluster.kubectl(arguments, input).unwrap();
    assert!(output.success, "kubectl {arguments:?}: {}", output.errors);
    output.out
}

/// A kubeconfig with a token of the account frappe-operator that is bound to a pod.
pub(crate) fn kubeconfig_of_pod(cluster: &Cluster, namespace: &str, pod: &str) -> PathBuf {
    let bound = ["--bound-object-kind", "Pod", "--bound-object-name", pod, "-n", namespace];
    let token = kubectl(cluster, &[&["create", "token", "frappe-operator"], &bound[..]].concat(), "");
    kubeconfig_with_token(cluster, pod, token.trim())
}

/// A kubeconfig by which the cluster's users have this token.
pub(crate) fn kubeconfig_with_token(cluster: &Cluster, name: &str, token: &str) -> PathBuf {
    let text = std::fs::read_to_string(&cluster.kubeconfig).unwrap();
    let mut config: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
    for user in config["users"].as_sequence_mut().unwrap() {
        user["user"] = serde_yaml_ng::to_value(BTreeMap::from([("token", token)])).unwrap();
    }
    let path = cluster.logs.join(format!("{name}.kubeconfig"));
    std::fs::write(&path, serde_yaml_ng::to_string(&config).unwrap()).unwrap();
    path
}

/// A cluster with a running operator.
pub(crate) struct World {
    pub(crate) operator: Operator,
    pub(crate) client: Client,
    pub(crate) cluster: Cluster,
}

impl World {
    pub(crate) async fn start(purpose: &str) -> Self {
        Self::start_with(purpose, &Options::default()).await
    }

    /// A new installation first waits for one lease duration. It is short here, unless the options set it.
    pub(crate) async fn start_with(purpose: &str, options: &Options) -> Self {
        let options = Options { lease_seconds: options.lease_seconds.or(Some(LEASE_SECONDS)), ..options.clone() };
        let cluster = Cluster::start(purpose, 3).expect("a cluster");
        let client = cluster.client().await.expect("a client");
        let mut operator = Operator::start(program(), &cluster, &options).expect("an operator");
        operator.ready().await.expect("a ready operator");
        Self { operator, client, cluster }
    }

    /// A namespace with a MariaDB and a bench that is Ready.
    pub(crate) async fn with_bench(&self, namespace: &str) {
        self.cluster.apply(&ground(namespace)).expect("namespace, MariaDB and bench");
        let benches: Api<FrappeBench> = Api::namespaced(self.client.clone(), namespace);
        self.until("the bench is Ready", 60, || async {
            let bench = benches.get("bench").await.ok()?;
            (bench.status?.phase == frappe_crds::bench::BenchPhase::Ready).then_some(())
        })
        .await;
    }

    pub(crate) fn sites(&self, namespace: &str) -> Api<FrappeSite> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Waits until a site has this phase.
    pub(crate) async fn wait_for_site_phase(&self, namespace: &str, name: &str, phase: SitePhase) -> FrappeSite {
        let sites = self.sites(namespace);
        let found = until(&format!("{name} is {phase:?}"), 120, || async {
            let site = sites.get(name).await.ok()?;
            (site.status.as_ref()?.phase == phase).then_some(site)
        })
        .await;
        match found {
            Some(site) => site,
            None => panic!("{:#?}\n{}", sites.get(name).await.map(|it| it.status), self.operator.log_tail()),
        }
    }

    /// Waits until the Ready condition of a site has this reason; returns its message.
    pub(crate) async fn wait_for_site_reason(&self, namespace: &str, name: &str, reason: &str) -> String {
        let sites = self.sites(namespace);
        self.until(&format!("{name} has reason {reason}"), 120, || async {
            let site = sites.get(name).await.ok()?;
            let ready = site.status?.conditions.into_iter().find(|it| it.type_ == "Ready")?;
            (ready.reason == reason).then_some(ready.message)
        })
        .await
    }

    /// Waits until a site is deleted.
    pub(crate) async fn wait_for_site_deletion(&self, namespace: &str, name: &str) {
        let sites = self.sites(namespace);
        self.until(&format!("{name} is deleted"), 120, || async {
            sites.get_opt(name).await.ok()?.is_none().then_some(())
        })
        .await;
    }

    /// Runs kubectl, which must succeed; returns its output.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        kubectl(&self.cluster, arguments, "")
    }

    /// Polls until `look` returns a value.
    pub(crate) async fn until<T, F, R>(&self, what: &str, most_seconds: u64, look: F) -> T
    where
        F: Fn() -> R,
        R: Future<Output = Option<T>>,
    {
        until(what, most_seconds, look)
            .await
            .unwrap_or_else(|| panic!("not in {most_seconds} s: {what}\n{}", self.operator.log_tail()))
    }
}

/// How often is polled: first and at last. In between, a tenth of the time that was waited: each look is work for the API server.
const LOOK: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(250)];

/// Polls until `look` returns a value or the time is over.
pub(crate) async fn until<T, F, R>(what: &str, most_seconds: u64, look: F) -> Option<T>
where
    F: Fn() -> R,
    R: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(most_seconds) {
        if let Some(found) = look().await {
            return Some(found);
        }
        tokio::time::sleep((begun.elapsed() / 10).clamp(LOOK[0], LOOK[1])).await;
    }
    println!("waited {most_seconds} s for: {what}");
    None
}

/// A namespace whose pods must pass the restricted Pod Security Standard, a MariaDB and a bench.
pub(crate) fn ground(namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {namespace}\n  \
         labels: {{pod-security.kubernetes.io/enforce: restricted}}\n---\n\
         apiVersion: k8s.mariadb.com/v1alpha1\nkind: MariaDB\nmetadata: {{name: shared, namespace: {namespace}}}\n\
         spec: {{storage: {{size: 1Gi}}}}\n---\n\
         apiVersion: vyogo.tech/v1alpha1\nkind: FrappeBench\nmetadata: {{name: bench, namespace: {namespace}}}\n\
         spec:\n  frappeVersion: \"15\"\n  apps: [{{name: erpnext, source: image}}]\n"
    )
}

/// A site on that bench.
pub(crate) fn site(namespace: &str, name: &str) -> String {
    format!(
        "---\napiVersion: vyogo.tech/v1alpha1\nkind: FrappeSite\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  siteName: {name}.{namespace}.example.com\n  benchRef: {{name: bench}}\n"
    )
}

/// Names and uids of all objects of the kinds that sites have.
pub(crate) fn inventory(world: &World, namespace: &str) -> Vec<String> {
    let kinds = "jobs,ingresses,secrets,databases.k8s.mariadb.com,users.k8s.mariadb.com,grants.k8s.mariadb.com";
    let columns = "custom-columns=KIND:.kind,NAME:.metadata.name";
    let mut lines: Vec<String> = world
        .kubectl(&["get", kinds, "-n", namespace, "--no-headers", "-o", columns])
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let domains = world.kubectl(&["get", "frappedomains", "--no-headers", "-o", columns]);
    lines.extend(domains.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")));
    lines.sort();
    lines
}
