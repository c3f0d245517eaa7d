//! A cluster with a model API server and replicas of the operator.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::Path,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use frappe_operator::parts::replica::{self, Connection, Surroundings};
use kube_sharding::election::{Boxed, Election};
use kube_sharding_sim::{
    Call, Change, Fault, FaultInjector, Network, Requested, Server, VirtualClock, Written, in_virtual_time,
};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

/// Namespace of benches and sites.
pub(crate) const NAMESPACE: &str = "shops";
pub(crate) const SITES: &str = "/apis/vyogo.tech/v1alpha1/namespaces/shops/frappesites";
pub(crate) const BENCHES: &str = "/apis/vyogo.tech/v1alpha1/namespaces/shops/frappebenches";
pub(crate) const BACKUPS: &str = "/apis/vyogo.tech/v1alpha1/namespaces/shops/sitebackups";
pub(crate) const SITE_JOBS: &str = "/apis/vyogo.tech/v1alpha1/namespaces/shops/sitejobs";
pub(crate) const JOBS: &str = "/apis/batch/v1/namespaces/shops/jobs";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shops/deployments";
pub(crate) const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/shops/ingresses";
pub(crate) const SECRETS: &str = "/api/v1/namespaces/shops/secrets";
pub(crate) const USERS: &str = "/apis/k8s.mariadb.com/v1alpha1/namespaces/shops/users";
const MARIADBS: &str = "/apis/k8s.mariadb.com/v1alpha1/namespaces/shops/mariadbs";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const MAPS: &str = "/apis/vyogo.tech/v1alpha1/namespaces/system/slotmaps";
/// Kinds whose requests are not counted: those of the sharding protocol, and Events.
const UNCOUNTED: [&str; 3] = ["leases", "slotmaps", "events"];
/// Time without a request after which a replica is idle.
pub(crate) const QUIET: Duration = Duration::from_secs(8);

/// Runs a test in virtual time, for at most one virtual week.
pub(crate) fn run<T>(seed: u64, test: impl Future<Output = T>) -> T {
    in_virtual_time(seed, async {
        timeout(Duration::from_hours(7 * 24), test).await.expect("the test ends within a virtual week")
    })
}

/// Calls a function for each of these numbers, on all cores.
pub(crate) fn in_parallel(numbers: RangeInclusive<usize>, what: impl Fn(usize) + Sync) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let next = AtomicUsize::new(*numbers.start());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if !numbers.contains(&number) {
                        return;
                    }
                    what(number);
                }
            });
        }
    });
}

/// A cluster. Cheap to clone.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) injector: FaultInjector,
    pub(crate) cluster: Cluster,
    /// Name of the coordinator's pod.
    pub(crate) coordinator: Arc<Mutex<String>>,
}

/// Elects the pod that a test names.
struct FixedElection {
    pod: Arc<Mutex<String>>,
}

impl Election for FixedElection {
    fn campaign(&self) -> Boxed<Option<Arc<str>>> {
        let lease = frappe_operator::parts::names("system").lease(&self.pod.lock().unwrap());
        Box::pin(async move { Some(lease.into()) })
    }

    fn step_down(&self) -> Boxed<()> {
        Box::pin(async {})
    }
}

/// A replica of the operator.
pub(crate) struct Replica {
    pub(crate) process: usize,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Replica {
    /// Kills the process: none of its requests reaches the server.
    pub(crate) fn kill(&self, world: &World) {
        world.injector.kill(self.process);
        self.stop.cancel();
    }

    /// Requests a clean stop.
    pub(crate) fn end(&self) {
        self.stop.cancel();
    }

    /// Stops the replica cleanly and waits for its end.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().expect("a clean stop succeeds");
    }
}

/// The CRDs of this API, from the files that are installed.
static CRDS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let kinds = ["frappebenches", "frappedomains", "frappesites", "sitebackups", "sitejobs", "slotmaps"];
    let read = |kind: &str| std::fs::read_to_string(folder.join(format!("vyogo.tech_{kind}.yaml"))).unwrap();
    kinds.iter().map(|kind| serde_yaml_ng::from_str(&read(kind)).unwrap()).collect()
});

impl World {
    /// A cluster with the MariaDB operator, one MariaDB and a namespace for benches and sites.
    pub(crate) fn new(seed: u64) -> Self {
        let server = CRDS.iter().fold(Server::new().with_field_managers(), Server::with_definition);
        for namespace in ["system", NAMESPACE] {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            server.create_by_hand("/api/v1/namespaces", &object);
        }
        let hash_key = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "frappe-operator-hash-key"}});
        server.create_by_hand("/api/v1/namespaces/system/secrets", &hash_key);
        for plural in ["databases", "users", "grants", "mariadbs"] {
            let name = format!("{plural}.k8s.mariadb.com");
            server.create_by_hand(DEFINITIONS, &json!({"metadata": {"name": name}}));
        }
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "stand-in",
                           "metadata": {"name": "standard",
                                        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
        server.create_by_hand("/apis/storage.k8s.io/v1/storageclasses", &class);
        let cluster = Cluster::start(&server);
        let world = Self {
            server,
            injector: FaultInjector::new(seed),
            cluster,
            coordinator: Arc::new(Mutex::new("one".to_owned())),
        };
        let mariadb = json!({"apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "metadata": {"name": "shared"},
                             "spec": {"storage": {"size": "1Gi"}}});
        world.server.create_by_hand(MARIADBS, &mariadb);
        world
    }

    /// A replica: a process of a pod.
    pub(crate) fn replica(&self, process: usize, pod: &str) -> Replica {
        let stop = CancellationToken::new();
        let server = self.server.clone();
        let surroundings = Surroundings {
            connection: Connection::through(Network::new(&self.server, &self.injector, process)),
            clock: Arc::new(VirtualClock::default()),
            wall_clock: Arc::new(move || server.now()),
            election: Some(Arc::new(FixedElection { pod: Arc::clone(&self.coordinator) })),
            stop: stop.clone(),
        };
        let (pod, uid) = (pod.to_owned(), format!("uid-of-{pod}"));
        let task = tokio::spawn(async move {
            let arguments =
                ["--namespace", "system", "--pod-name", &pod, "--pod-uid", &uid, "--image", "example.com/operator:1"];
            replica::run(&arguments, surroundings).await
        });
        Replica { process, stop, task }
    }

    /// A cluster with one replica and a Ready bench.
    pub(crate) async fn with_bench(seed: u64) -> (Self, Replica) {
        let world = Self::new(seed);
        let replica = world.replica(0, "one");
        world.server.create_by_hand(BENCHES, &bench());
        world.until("the bench is Ready", |it| it.phase(BENCHES, "bench") == "Ready").await;
        world.rest().await;
        (world, replica)
    }

    /// Waits until a condition is true, for at most ten virtual minutes.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        assert!(self.holds_within(Duration::from_mins(10), &is).await, "not in ten minutes: {what}\n{}", self.report());
    }

    /// Waits until a condition is true; returns whether that happened in time.
    pub(crate) async fn holds_within(&self, within: Duration, is: impl Fn(&Self) -> bool) -> bool {
        let (mut changes, end) = (self.server.changes(), Instant::now() + within);
        while !is(self) {
            if timeout_at(end, changes.changed()).await.is_err() {
                return is(self);
            }
        }
        true
    }

    /// Waits until no replica has sent a request for a while.
    pub(crate) async fn rest(&self) {
        self.quiet(QUIET).await;
    }

    /// Asserts that no replica sends a request for two hours.
    pub(crate) async fn stays_at_rest(&self) {
        let requests = self.work().len();
        sleep(Duration::from_hours(2)).await;
        assert_eq!(self.work().len(), requests, "at rest");
    }

    /// Answers writes of this object with a status code, for as long as this is so.
    pub(crate) fn refuse_writes(
        &self,
        (plural, name): (&'static str, &'static str),
        code: u16,
        while_so: impl Fn() -> bool + Send + Sync + 'static,
    ) {
        self.injector.intercept(move |call: &Call| {
            let named = call.place.name == name || call.body["metadata"]["name"] == name;
            let refused = call.is_write() && call.place.plural() == plural && named && while_so();
            if refused { Fault::Refused(code) } else { Fault::None }
        });
    }

    /// Waits until no replica has sent a request for this time.
    pub(crate) async fn quiet(&self, time: Duration) {
        let mut known = usize::MAX;
        loop {
            let asked = self.work().len();
            if asked == known {
                return;
            }
            known = asked;
            tokio::time::sleep(time).await;
        }
    }

    /// Requests of replicas, except watches, the sharding protocol and Events.
    pub(crate) fn work(&self) -> Vec<Requested> {
        self.server.requests().into_iter().filter(is_work).collect()
    }

    pub(crate) fn phase(&self, collection: &str, name: &str) -> String {
        let found = self.server.get(collection, name);
        found.and_then(|it| it["status"]["phase"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Reason of a condition.
    pub(crate) fn reason(&self, collection: &str, name: &str, kind: &str) -> String {
        let Some(found) = self.server.get(collection, name) else { return String::new() };
        let all = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let reason = all.iter().find(|it| it["type"] == kind).and_then(|it| it["reason"].as_str());
        reason.unwrap_or_default().to_owned()
    }

    /// Whether an object's current spec is applied.
    pub(crate) fn is_settled(&self, collection: &str, name: &str) -> bool {
        let found = self.server.get(collection, name);
        found.is_some_and(|it| {
            it["status"]["observedGeneration"] == it["metadata"]["generation"] && it["status"]["phase"] == "Ready"
        })
    }

    /// The version of the last write.
    pub(crate) fn version(&self) -> u64 {
        *self.server.changes().borrow()
    }

    pub(crate) fn uid(&self, collection: &str, name: &str) -> Option<String> {
        self.server.get(collection, name)?["metadata"]["uid"].as_str().map(str::to_owned)
    }

    /// Names of the existing Jobs.
    pub(crate) fn jobs(&self) -> Vec<String> {
        let all = self.server.all(JOBS);
        all.iter().filter_map(|it| it["metadata"]["name"].as_str().map(str::to_owned)).collect()
    }

    /// How many replicas own an even share of the slots.
    pub(crate) fn owners(&self) -> usize {
        let Some(map) = self.server.get(MAPS, "frappe-operator") else { return 0 };
        let owners = map["spec"]["owners"].as_array().cloned().unwrap_or_default();
        let mut counts = BTreeMap::new();
        owners.iter().filter_map(Value::as_i64).for_each(|it| *counts.entry(it).or_insert(0) += 1);
        counts.retain(|owner, count| *owner >= 0 && *count >= owners.len() / (owner_count(&owners) + 1));
        counts.len()
    }

    pub(crate) fn exists(&self, collection: &str, name: &str) -> bool {
        self.server.get(collection, name).is_some()
    }

    /// Kinds and names of all objects, except the sharding protocol, Events and pods; names of Jobs without hashes.
    pub(crate) fn inventory(&self) -> BTreeSet<String> {
        let all = self.server.everything().into_iter();
        let wanted = all.filter(|(place, _)| ![&UNCOUNTED[..], &["pods"]].concat().contains(&place.plural()));
        wanted
            .map(|(place, _)| format!("{} {}/{}", place.plural(), place.namespace, without_hash(&place.name)))
            .collect()
    }

    /// Every Job that was created, by name without a hash, in order.
    pub(crate) fn jobs_made(&self) -> Vec<String> {
        let made = |it: &Written| it.change == Change::Added && it.place.plural() == "jobs";
        self.server.written().into_iter().filter(made).map(|it| without_hash(&it.place.name)).collect()
    }

    /// The last requests and the objects, to explain a failure.
    pub(crate) fn report(&self) -> String {
        let shown = |it: &Requested| {
            let after = it.at.duration_since(self.server.begun()).as_secs_f64();
            let (place, sub) = (&it.place, it.subresource.clone().unwrap_or_default());
            format!("{after:9.3} {} {} {} {} {sub} {}", it.sender, it.verb, place.plural(), place.name, it.code)
        };
        let lines: Vec<String> = self.work().iter().map(shown).collect();
        let last = lines.len().saturating_sub(60);
        let of =
            |collection| self.server.all(collection).iter().map(|it| format!("{it:#}")).collect::<Vec<_>>().join("\n");
        [lines[last..].join("\n"), of(BENCHES), of(SITES), of(BACKUPS), of(SITE_JOBS)].join("\n")
    }
}

/// A name without the hash of a time and a uid at its end.
fn without_hash(name: &str) -> String {
    let hash = |part: &&str| part.len() == 8 && part.bytes().all(|it| it.is_ascii_hexdigit());
    name.split('-').filter(|part| !hash(part)).collect::<Vec<_>>().join("-")
}

/// How many replicas own slots.
fn owner_count(owners: &[Value]) -> usize {
    owners.iter().filter_map(Value::as_i64).filter(|it| *it >= 0).collect::<BTreeSet<_>>().len()
}

/// Whether a request is counted: it is neither a watch, nor of the sharding protocol, nor an Event.
pub(crate) fn is_counted(call: &Call) -> bool {
    !call.is_watch() && !UNCOUNTED.contains(&call.place.plural())
}

fn is_work(asked: &Requested) -> bool {
    asked.sender != kube_sharding_sim::BY_HAND && asked.verb != "watch" && !UNCOUNTED.contains(&asked.place.plural())
}

pub(crate) fn bench() -> Value {
    json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "metadata": {"name": "bench"},
           "spec": {"frappeVersion": "15", "apps": [{"name": "erpnext", "source": "image"}]}})
}

pub(crate) fn site(name: &str) -> Value {
    json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "metadata": {"name": name},
           "spec": {"siteName": format!("{name}.example.com"), "benchRef": {"name": "bench"}}})
}

pub(crate) fn backup(name: &str, site: &str) -> Value {
    json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteBackup", "metadata": {"name": name},
           "spec": {"siteRef": {"name": site}, "storage": {"s3": {"bucket": "backups", "region": "us-east-1"}}}})
}

/// A SiteJob in maintenance mode.
pub(crate) fn site_job(name: &str, site: &str) -> Value {
    json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteJob", "metadata": {"name": name},
           "spec": {"siteRef": {"name": site}, "command": {"name": "clear-cache"}, "maintenance": true}})
}

/// A SiteBackup that restores a backup of the SiteBackup `once`.
pub(crate) fn restore(name: &str, site: &str) -> Value {
    let mut object = backup(name, site);
    object["spec"]["restore"] = json!({"backupName": "once-20251009-085320"});
    object
}
