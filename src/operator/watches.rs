//! Every watch: what is listed, how narrowly, and which queue a change goes to.

use std::sync::Arc;

use frappe_crds::{FrappeBench, FrappeSite};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Client, Resource, ResourceExt, core::DynamicObject};
use kube_sharding::{
    Slot,
    gate::Gate,
    groups::Selection,
    watch::{Query, server_selects_shards},
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    apis::{KEDA_KINDS, Present, SQL_KINDS, optional, serves},
    ownership::Ownership,
    readiness::{self, Optional, Readiness},
    wake::Wake,
};
use crate::{
    controllers::{
        bench::{pod_health::Troubles, watch as bench_watch},
        context::{ChildCache, Children},
        site::{host_index::Claims, job_slots::JobBudget, root_secrets::RootSecrets, watch as site_watch},
    },
    domain::{key::Key, labels, object::Kind},
    io::{
        cache::{Cache, Change},
        compact::Compact,
        named::Named,
        watch::{self as watcher, Scope},
    },
    lanes::Priority,
};

/// Objects of sites, narrowed to the slots of the shard. Of Secrets and ConfigMaps only the metadata is ever transferred.
const SITE_KINDS: [Kind; 3] = [Kind::Job, Kind::Ingress, Kind::Secret];
/// Objects of sites that lead hosts to them and that not every cluster has, narrowed likewise.
const ROUTE_KINDS: [Kind; 2] = [Kind::Route, Kind::HttpRoute];
/// Objects of benches: watched by the coordinator only, narrowed to what this operator made and to what is not of a
/// site.
const BENCH_KINDS: [Kind; 8] = [
    Kind::ConfigMap,
    Kind::PersistentVolumeClaim,
    Kind::Service,
    Kind::Deployment,
    Kind::StatefulSet,
    Kind::Job,
    Kind::PodDisruptionBudget,
    Kind::NetworkPolicy,
];

/// Every cache, while its watch runs.
pub(super) struct Watches {
    pub(super) sites: Arc<Cache<FrappeSite>>,
    pub(super) benches: Arc<Cache<FrappeBench>>,
    pub(super) site_children: Children,
    pub(super) bench_children: Children,
    pub(super) readiness: Readiness,
    pub(super) definitions: Arc<ChildCache>,
    pub(super) troubles: Arc<Troubles>,
    pub(super) jobs: Arc<JobBudget>,
    pub(super) user_secrets: Arc<ChildCache>,
    pub(super) claims: Arc<Claims>,
    pub(super) root_secrets: Arc<RootSecrets>,
    pub(super) ingress_services: Named,
    pub(super) new_backups: Arc<ChildCache>,
}

/// What starts watches.
pub(super) struct Starter<'a> {
    pub(super) tasks: &'a mut JoinSet<()>,
    pub(super) client: Client,
    pub(super) ownership: Ownership,
    pub(super) wake: Wake,
    /// Namespaces that are looked at; all if empty.
    namespaces: Vec<String>,
}

/// Starts every watch, of these namespaces only unless there are none.
pub(super) async fn start(
    tasks: &mut JoinSet<()>,
    client: &Client,
    gate: &Gate,
    wake: Wake,
    namespaces: &[String],
) -> Watches {
    // Of definitions there is always one, also before the first site is made.
    let paths = [FrappeSite::url_path(&(), None), CustomResourceDefinition::url_path(&(), None)];
    // Labels do on every server; one that does not answer now is asked no further.
    let by_hash = namespaces.is_empty() && server_selects_shards(client, &paths).await.unwrap_or(false);
    tracing::debug!(by_hash, "whether the API server selects sites by the hash of their uid; by label if not");
    let ownership = Ownership::follow(tasks, gate);
    let jobs = budget(tasks, &ownership, &wake);
    let mut starter = Starter { tasks, client: client.clone(), ownership, wake, namespaces: namespaces.to_vec() };
    starter.watch_sites(by_hash);
    starter.watch_benches();
    let (claims, root_secrets) = (Arc::new(Claims::default()), Arc::new(RootSecrets::default()));
    let (definitions, present) = starter.watch_definitions();
    let mut site_children = starter.watch_sites_objects(&present, &jobs, &claims, &root_secrets);
    starter.watch_backups(&mut site_children);
    let new_backups = starter.watch_new_backups();
    let user_secrets = starter.watch_user_secrets();
    let (bench_children, troubles) = starter.watch_benches_objects(&present);
    let Starter { tasks, wake, ownership, .. } = starter;
    let of = |kinds: &[Kind], children: &Children| {
        kinds.iter().map(|kind| children.cache(*kind).synced()).collect::<Vec<_>>()
    };
    let mut sharded = of(&SITE_KINDS, &site_children);
    sharded.extend([wake.sites.synced(), user_secrets.synced(), new_backups.synced()]);
    sharded.extend(of(&[Kind::Domain, Kind::Namespace, Kind::SiteBackup], &site_children));
    let sources = readiness::Sources {
        sharded,
        sql: of(&SQL_KINDS, &site_children),
        servers: site_children.cache(Kind::MariaDb).synced(),
        present: present.mariadb,
        benches: [of(&BENCH_KINDS, &bench_children), of(&[Kind::Pod], &bench_children), vec![user_secrets.synced()]]
            .concat(),
        definitions: definitions.synced(),
        keda: Optional { present: present.keda, synced: of(&KEDA_KINDS, &bench_children) },
        service_monitors: Optional {
            present: present.service_monitors,
            synced: of(&[Kind::ServiceMonitor], &bench_children),
        },
        openshift: Optional { present: present.openshift, synced: Vec::new() },
        routes: Optional { present: present.routes, synced: of(&[Kind::Route], &site_children) },
        gateway: Optional { present: present.gateway, synced: of(&[Kind::HttpRoute], &site_children) },
        openings: gate.openings(),
    };
    let sources = sources.and_open(ownership.open, ownership.coordinating);
    let readiness = Readiness::follow(tasks, sources, wake.clone());
    let (sites, benches) = (wake.sites.clone(), wake.benches.clone());
    let ingress_services = Named::new(client.clone(), Kind::Service, move || wake.benches());
    Watches {
        sites,
        benches,
        site_children,
        bench_children,
        readiness,
        definitions,
        troubles,
        jobs,
        user_secrets,
        claims,
        root_secrets,
        ingress_services,
        new_backups,
    }
}

impl Watches {
    /// Waits for the first lists of what every member needs, whatever it owns.
    pub(super) async fn shared_synced(&self) {
        self.benches.wholly_synced().await;
        self.site_children.cache(Kind::Domain).wholly_synced().await;
        self.definitions.wholly_synced().await;
    }
}

/// The budget of site Jobs: follows the slots, and wakes who may go on.
fn budget(tasks: &mut JoinSet<()>, ownership: &Ownership, wake: &Wake) -> Arc<JobBudget> {
    let sites = Arc::clone(&wake.sites);
    let known = move |key: &Key, uid: &str, bench: &Key| {
        sites
            .get(key)
            .is_some_and(|site| site.metadata.uid.as_deref() == Some(uid) && site_watch::lane(&site) == *bench)
    };
    let (jobs, mut woken) = JobBudget::new(ownership.held.clone(), known);
    let (jobs, wake, mut held) = (Arc::new(jobs), wake.clone(), ownership.held.clone());
    let budget = Arc::clone(&jobs);
    tasks.spawn(async move {
        loop {
            tokio::select! {
                Some(site) = woken.recv() => wake.site_now(&site),
                Ok(()) = held.changed() => budget.slots_changed(),
                else => return,
            }
        }
    });
    jobs
}

/// The slot of a site: what decides.
fn slot_of_site(site: &FrappeSite) -> Option<Slot> {
    site.metadata.uid.as_deref().map(Slot::of_uid)
}

/// The slot in a child's label: it only says whose watch the child is in.
pub(super) fn slot_of_child(child: &Compact) -> Option<Slot> {
    child.label(labels::SLOT)?.parse().ok().map(Slot::new)
}

/// Kinds that are not shared are all in one.
#[allow(clippy::unnecessary_wraps, reason = "the form that a cache wants")]
pub(super) fn one_slot<K>(_: &K) -> Option<Slot> {
    Some(Slot::new(0))
}

/// Caches of sites, of sites without a label, and of benches.
type WakeCaches = (Arc<Cache<FrappeSite>>, Arc<Cache<FrappeSite>>, Arc<Cache<FrappeBench>>);

/// Caches for [`Wake`], which are there before their watches.
pub(super) fn caches() -> WakeCaches {
    (Arc::new(Cache::new(slot_of_site)), Arc::new(Cache::new(one_slot)), Arc::new(Cache::new(one_slot)))
}

impl Starter<'_> {
    /// How objects of a kind are watched.
    pub(super) fn query(&self, kind: Kind) -> Query {
        let mut query = Query::of::<DynamicObject>(&kind.resource(), None);
        query.metadata_only = matches!(kind, Kind::Secret | Kind::ConfigMap | Kind::Namespace);
        // Of these the cluster has one collection.
        let is_of_cluster = matches!(kind, Kind::Domain | Kind::Namespace);
        if is_of_cluster { query } else { query.within(&self.namespaces) }
    }

    /// Everything that sites are made of, or ask about.
    fn watch_sites_objects(
        &mut self,
        present: &Present,
        jobs: &Arc<JobBudget>,
        claims: &Arc<Claims>,
        root_secrets: &Arc<RootSecrets>,
    ) -> Children {
        let mut children = Children::default();
        for kind in SITE_KINDS {
            let budget = (kind == Kind::Job).then(|| Arc::clone(jobs));
            children.insert(kind, self.watch_site_kind(kind, None, budget));
        }
        for (kind, exists) in ROUTE_KINDS.into_iter().zip([&present.routes, &present.gateway]) {
            children.insert(kind, self.watch_site_kind(kind, Some(exists.clone()), None));
        }
        for kind in SQL_KINDS {
            children.insert(kind, self.watch_site_kind(kind, Some(present.mariadb.clone()), None));
        }
        children.insert(Kind::Domain, self.watch_domains(Arc::clone(claims)));
        children.insert(Kind::Namespace, self.watch_namespaces());
        children.insert(Kind::MariaDb, self.watch_servers(present.mariadb.clone(), Arc::clone(root_secrets)));
        children
    }

    /// Everything that benches are made of.
    fn watch_benches_objects(&mut self, present: &Present) -> (Children, Arc<Troubles>) {
        let mut children = Children::default();
        for kind in BENCH_KINDS {
            children.insert(kind, self.watch_bench_kind(kind, None));
        }
        for kind in KEDA_KINDS {
            children.insert(kind, self.watch_bench_kind(kind, Some(present.keda.clone())));
        }
        let (pods, troubles) = self.watch_pods();
        children.insert(Kind::Pod, pods);
        let monitors = self.watch_bench_kind(Kind::ServiceMonitor, Some(present.service_monitors.clone()));
        children.insert(Kind::ServiceMonitor, monitors);
        (children, troubles)
    }

    fn watch_sites(&mut self, by_hash: bool) {
        let (wake, client) = (self.wake.clone(), self.client.clone());
        let changed = move |change: Change<FrappeSite>| {
            let site = change.object();
            wake.site_itself(site, &change);
            if matches!(change, Change::Deleted(_)) {
                wake.backups_of(&Key::of(site));
                // A bench that is being deleted waits for its sites.
                wake.leaving_bench(&site_watch::lane(site));
                wake.astray(&client, site);
            }
        };
        let selection = if by_hash { Selection::Shards } else { Selection::LabelUnlessAll(labels::SLOT.to_owned()) };
        let query = Query::of::<FrappeSite>(&(), None).within(&self.namespaces);
        let scope = Scope { query: query.clone(), selection, owned: self.ownership.held.clone() };
        self.tasks.spawn(watcher::run(self.client.clone(), scope, self.wake.sites.clone(), changed));
        if by_hash {
            return;
        }
        // A site that is new has no label yet: every member looks, the owner of its slot takes it.
        let wake = self.wake.clone();
        let adopt = move |change: Change<FrappeSite>| match &change {
            Change::Applied { now, .. } => wake.unlabelled(now),
            Change::Deleted(labelled) => wake.sites.no_stray(labelled),
        };
        let query = Query { labels: format!("!{}", labels::SLOT), ..query };
        let scope = Scope { query, selection: Selection::Everything, owned: self.ownership.not_all.clone() };
        self.tasks.spawn(watcher::run(self.client.clone(), scope, self.wake.unlabelled.clone(), adopt));
    }

    fn watch_benches(&mut self) {
        let wake = self.wake.clone();
        let changed = move |change: Change<FrappeBench>| {
            let key = Key::of(change.object());
            wake.bench(key.clone());
            if site_watch::bench_matters(&change) {
                wake.sites_that(Priority::Low, |site| site_watch::lane(site) == key);
                wake.site_queue.limits_changed();
                wake.backup_queue.limits_changed();
            }
        };
        let scope = Scope::everything(Query::of::<FrappeBench>(&(), None).within(&self.namespaces));
        self.tasks.spawn(watcher::run(self.client.clone(), scope, self.wake.benches.clone(), changed));
    }

    /// Starts a watch, and gives the cache that it fills.
    pub(super) fn spawn(
        &mut self,
        slot_of: fn(&Compact) -> Option<Slot>,
        scope: Scope,
        after: Option<watch::Receiver<bool>>,
        changed: impl Fn(Change<Compact>) + Send + Sync + 'static,
    ) -> Arc<ChildCache> {
        self.fill(Cache::new(slot_of), scope, after, changed)
    }

    fn fill(
        &mut self,
        cache: ChildCache,
        scope: Scope,
        after: Option<watch::Receiver<bool>>,
        changed: impl Fn(Change<Compact>) + Send + Sync + 'static,
    ) -> Arc<ChildCache> {
        let cache = Arc::new(cache);
        let (client, held) = (self.client.clone(), Arc::clone(&cache));
        self.tasks.spawn(async move {
            match after {
                Some(present) => watcher::run_while_present(present, client, scope, held, changed).await,
                None => watcher::run(client, scope, held, changed).await,
            }
        });
        cache
    }

    fn watch_site_kind(
        &mut self,
        kind: Kind,
        after: Option<watch::Receiver<bool>>,
        budget: Option<Arc<JobBudget>>,
    ) -> Arc<ChildCache> {
        let wake = self.wake.clone();
        let changed = move |change: Change<Compact>| {
            if let Some(budget) = &budget {
                budget.saw(change.object(), matches!(change, Change::Applied { .. }));
            }
            if kind == Kind::Job && !site_watch::job_matters(&change) {
                return;
            }
            if let Some(key) = site_watch::owner(change.object()) {
                wake.site(&key);
            }
        };
        let selection = Selection::Label(labels::SLOT.to_owned());
        // Whose an object is can be told once the sites are listed.
        let scope = Scope { query: self.query(kind), selection, owned: self.wake.sites.synced() };
        let (sites, unlabelled) = (Arc::clone(&self.wake.sites), Arc::clone(&self.wake.unlabelled));
        let known = move |child: &Compact| {
            let Some(key) = site_watch::owner(child) else { return false };
            let of =
                |cache: &Cache<FrappeSite>| cache.get(&key).is_some_and(|it| site_watch::is_part(&it, kind, child));
            of(&sites) || of(&unlabelled)
        };
        self.fill(Cache::new(slot_of_child).of_known(Box::new(known)), scope, after, changed)
    }

    fn watch_bench_kind(&mut self, kind: Kind, after: Option<watch::Receiver<bool>>) -> Arc<ChildCache> {
        let wake = self.wake.clone();
        let changed = move |change: Change<Compact>| {
            if let Some(key) = bench_watch::owner(change.object()) {
                wake.bench(key);
            }
        };
        let (cache, scope) = (self.of_known_benches(kind), self.of_benches(kind));
        self.fill(cache, scope, after, changed)
    }

    /// Objects of the benches that there are. Benches are listed before a member may coordinate.
    fn of_known_benches(&self, kind: Kind) -> ChildCache {
        let benches = Arc::clone(&self.wake.benches);
        let known = move |child: &Compact| {
            let bench = bench_watch::owner(child).filter(|bench| benches.get(bench).is_some());
            bench.is_some_and(|bench| bench_watch::is_part(&bench.name, kind, &child.name_any()))
        };
        Cache::new(one_slot).of_known(Box::new(known))
    }

    fn of_benches(&self, kind: Kind) -> Scope {
        let mut query = self.query(kind);
        query.labels = format!("{}={},!{}", labels::MANAGED_BY, labels::MANAGER, labels::SLOT);
        Scope { query, selection: Selection::Everything, owned: self.ownership.coordinates.clone() }
    }

    /// Users' Secrets that benches and sites read: metadata. One may be read by several, of any slot, so that no label
    /// could tell whose it is.
    fn watch_user_secrets(&mut self) -> Arc<ChildCache> {
        let wake = self.wake.clone();
        let changed = move |change: Change<Compact>| {
            let secret = Key::of(change.object());
            wake.benches_that(|bench| bench_watch::reads_secret(bench, &secret));
            wake.sites_that(Priority::Normal, |site| {
                let bench = wake.benches.get(&site_watch::lane(site));
                site_watch::reads_secret(site, bench.as_deref(), &secret)
            });
            wake.backups_reading(&secret);
        };
        let query = Query { labels: labels::WATCHED.to_owned(), ..self.query(Kind::Secret) };
        self.spawn(one_slot, Scope::everything(query), None, changed)
    }

    /// Namespaces: their labels say whose sites a bench takes.
    fn watch_namespaces(&mut self) -> Arc<ChildCache> {
        let wake = self.wake.clone();
        let changed = move |change: Change<Compact>| {
            let Change::Applied { now, before: Some(before) } = change else { return };
            let of = |namespace: &Compact| {
                let metadata = namespace.open().metadata;
                (metadata.labels, metadata.deletion_timestamp)
            };
            if of(&now) != of(&before) {
                wake.sites_that(Priority::Low, |site| site_watch::in_namespace(site, &now.name_any()));
            }
        };
        self.spawn(one_slot, Scope::everything(self.query(Kind::Namespace)), None, changed)
    }

    /// Pods of benches: one that comes or goes wakes nobody, one that cannot run does.
    fn watch_pods(&mut self) -> (Arc<ChildCache>, Arc<Troubles>) {
        let (wake, troubles) = (self.wake.clone(), Arc::new(Troubles::default()));
        let seen = Arc::clone(&troubles);
        let changed = move |change: Change<Compact>| {
            if let Some(bench) = seen.saw(change.object(), matches!(change, Change::Applied { .. })) {
                wake.bench(bench);
            }
        };
        let (cache, scope) = (self.of_known_benches(Kind::Pod), self.of_benches(Kind::Pod));
        (self.fill(cache, scope, None, changed), troubles)
    }

    /// All claims, since a site waits for the claim of another.
    fn watch_domains(&mut self, claims: Arc<Claims>) -> Arc<ChildCache> {
        let wake = self.wake.clone();
        let changed = move |change: Change<Compact>| {
            claims.saw(&change);
            match &change {
                Change::Applied { now, .. } => {
                    if let Some(holder) = site_watch::holder(now) {
                        wake.site(&holder);
                    }
                }
                Change::Deleted(gone) => wake.sites_that(Priority::Normal, |site| site_watch::wants_host(site, gone)),
            }
        };
        self.spawn(one_slot, Scope::everything(self.query(Kind::Domain)), None, changed)
    }

    fn watch_servers(&mut self, present: watch::Receiver<bool>, root_secrets: Arc<RootSecrets>) -> Arc<ChildCache> {
        let wake = self.wake.clone();
        let changed = move |change: Change<Compact>| {
            root_secrets.saw(&change);
            if change.object().label(labels::SITE_UID).is_some() {
                // Of one site alone.
                if let Some(site) = site_watch::owner(change.object()) {
                    wake.site(&site);
                }
            } else if site_watch::server_matters(&change) {
                wake.sites_that(Priority::Low, |_| true);
            }
        };
        self.spawn(one_slot, Scope::everything(self.query(Kind::MariaDb)), Some(present), changed)
    }

    /// Which CustomResourceDefinitions exist (metadata only), and which of the optional APIs are whole among them.
    fn watch_definitions(&mut self) -> (Arc<ChildCache>, Present) {
        let (apis, present) = optional();
        let apis = std::sync::Mutex::new(apis);
        let changed = move |change: Change<Compact>| {
            let name = change.object().name_any();
            let Ok(mut apis) = apis.lock() else { return };
            for api in apis.iter_mut().filter(|api| api.wanted.contains(&name)) {
                api.saw(&name, serves(&change));
            }
        };
        let query = Query { metadata_only: true, ..Query::of::<CustomResourceDefinition>(&(), None) };
        (self.spawn(one_slot, Scope::everything(query), None, changed), present)
    }
}
