//! Every watch: what is listed, how narrowly, and which queue a change goes to.

use std::sync::Arc;

use frappe_crds::{FrappeBench, FrappeSite};
use k8s_openapi::{
    api::core::v1::Secret, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, ResourceExt, core::DynamicObject, runtime::reflector::store::Writer};
use kube_sharding::SlotSet;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    config::OperatorConfig,
    controllers::{
        bench::watch as bench_watch,
        context::{Children, Context},
        site::watch as site_watch,
    },
    domain::{key::Key, labels, object::Kind},
    io::{
        cache::Cache,
        events::Events,
        watch::{self as watcher, Change},
    },
    lanes::runner::Queue,
};

/// Objects of sites that are watched whole, narrowed to the shard's slots.
const SITE_KINDS: [Kind; 2] = [Kind::Job, Kind::Ingress];
/// Objects of sites that the MariaDB operator defines, narrowed likewise.
const SQL_KINDS: [Kind; 3] = [Kind::Database, Kind::User, Kind::Grant];
/// Objects of benches, narrowed to what this operator made and to what is not of a site.
const BENCH_KINDS: [Kind; 6] =
    [Kind::ConfigMap, Kind::PersistentVolumeClaim, Kind::Service, Kind::Deployment, Kind::StatefulSet, Kind::Job];

type SiteQueue = Queue<Key, Key>;
type BenchQueue = Queue<(), Key>;

/// The caches, while their watches run.
pub(super) struct Started {
    sites: Arc<Cache<FrappeSite>>,
    benches: Arc<Cache<FrappeBench>>,
    site_children: Children,
    bench_children: Children,
    mariadb: watch::Receiver<bool>,
    definitions: Arc<Cache<DynamicObject>>,
    wake: Wake,
}

/// Puts keys into the queues.
#[derive(Clone)]
struct Wake {
    sites: Arc<Cache<FrappeSite>>,
    benches: Arc<Cache<FrappeBench>>,
    site_queue: SiteQueue,
    bench_queue: BenchQueue,
}

impl Wake {
    fn site(&self, key: &Key) {
        if let Some(site) = self.sites.get(key) {
            self.site_queue.push(site_watch::lane(&site), key.clone());
        }
    }

    fn sites_that(&self, wanted: impl Fn(&FrappeSite) -> bool) {
        for site in self.sites.all().iter().filter(|site| wanted(site)) {
            self.site_queue.push(site_watch::lane(site), Key::of(site.as_ref()));
        }
    }

    fn bench(&self, key: Key) {
        self.bench_queue.push((), key);
    }

    fn everything(&self) {
        self.sites_that(|_| true);
        self.benches.all().iter().for_each(|bench| self.bench(Key::of(bench.as_ref())));
        self.site_queue.limits_changed();
    }
}

impl Started {
    /// Called when the settings change.
    pub(super) fn everything(&self) -> impl Fn() + Send + Sync + 'static {
        let wake = self.wake.clone();
        move || wake.everything()
    }

    /// Which kinds exist.
    pub(super) fn definitions(&self) -> Arc<Cache<DynamicObject>> {
        Arc::clone(&self.definitions)
    }

    /// What reconciles are given.
    pub(super) fn context(
        self,
        client: Client,
        events: Events,
        settings: watch::Receiver<Arc<OperatorConfig>>,
        epoch: i64,
    ) -> Context {
        Context {
            client,
            events,
            settings,
            sites: self.sites,
            benches: self.benches,
            site_children: self.site_children,
            bench_children: self.bench_children,
            mariadb: self.mariadb,
            epoch,
        }
    }
}

/// Starts every watch.
pub(super) fn start(
    tasks: &mut JoinSet<()>,
    client: &Client,
    slots: &SlotSet,
    site_queue: &SiteQueue,
    bench_queue: &BenchQueue,
) -> Started {
    let (site_writer, bench_writer) = (Writer::<FrappeSite>::new(()), Writer::<FrappeBench>::new(()));
    let wake = Wake {
        sites: Arc::new(Cache::new(site_writer.as_reader(), ())),
        benches: Arc::new(Cache::new(bench_writer.as_reader(), ())),
        site_queue: site_queue.clone(),
        bench_queue: bench_queue.clone(),
    };
    watch_sites(tasks, client, site_writer, &wake);
    watch_benches(tasks, client, bench_writer, &wake);
    let of_sites = slots.label_selector(labels::SLOT);
    let mut site_children = Children::default();
    for kind in SITE_KINDS {
        let target = Target { kind, labels: of_sites.clone(), after: None };
        site_children.insert(kind, watch_objects(tasks, client, target, site_child(&wake)));
    }
    site_children.insert(Kind::Secret, watch_secrets(tasks, client, &of_sites, site_child(&wake)));
    site_children.insert(Kind::Domain, watch_domains(tasks, client, &wake));
    let (definitions, mariadb) = watch_for_mariadb(tasks, client, &wake, &mut site_children, &of_sites);
    let of_benches = format!("{}={},!{}", labels::MANAGED_BY, labels::MANAGER, labels::SLOT);
    let mut bench_children = Children::default();
    for kind in BENCH_KINDS {
        let target = Target { kind, labels: of_benches.clone(), after: None };
        let woken = wake.clone();
        let changed = move |change: Change<DynamicObject>| {
            if let Some(key) = bench_watch::owner(change.object()) {
                woken.bench(key);
            }
        };
        bench_children.insert(kind, watch_objects(tasks, client, target, changed));
    }
    let (sites, benches) = (wake.sites.clone(), wake.benches.clone());
    Started { sites, benches, site_children, bench_children, mariadb, definitions, wake }
}

fn watch_sites(tasks: &mut JoinSet<()>, client: &Client, writer: Writer<FrappeSite>, wake: &Wake) {
    let (api, cache, wake) = (Api::<FrappeSite>::all(client.clone()), wake.sites.clone(), wake.clone());
    let changed = move |change: Change<FrappeSite>| {
        let site = change.object();
        wake.site_queue.push(site_watch::lane(site), Key::of(site));
        // A bench that is being deleted waits for its sites.
        if matches!(change, Change::Deleted(_)) {
            let bench = site_watch::lane(site);
            if wake.benches.get(&bench).is_some_and(|it| it.metadata.deletion_timestamp.is_some()) {
                wake.bench(bench);
            }
        }
    };
    tasks.spawn(watcher::run(api, watcher::config(""), writer, cache, changed));
}

fn watch_benches(tasks: &mut JoinSet<()>, client: &Client, writer: Writer<FrappeBench>, wake: &Wake) {
    let (api, cache, wake) = (Api::<FrappeBench>::all(client.clone()), wake.benches.clone(), wake.clone());
    let changed = move |change: Change<FrappeBench>| {
        let key = Key::of(change.object());
        wake.bench(key.clone());
        if site_watch::bench_matters(&change) {
            wake.sites_that(|site| site_watch::lane(site) == key);
            wake.site_queue.limits_changed();
        }
    };
    tasks.spawn(watcher::run(api, watcher::config(""), writer, cache, changed));
}

fn site_child(wake: &Wake) -> impl Fn(Change<DynamicObject>) + Send + 'static {
    let wake = wake.clone();
    move |change: Change<DynamicObject>| {
        if let Some(key) = site_watch::owner(change.object()) {
            wake.site(&key);
        }
    }
}

/// One watch of objects.
struct Target {
    kind: Kind,
    labels: String,
    /// Not before this is true.
    after: Option<watch::Receiver<bool>>,
}

fn watch_objects(
    tasks: &mut JoinSet<()>,
    client: &Client,
    target: Target,
    changed: impl Fn(Change<DynamicObject>) + Send + 'static,
) -> Arc<Cache<DynamicObject>> {
    let resource = target.kind.resource();
    let writer = Writer::<DynamicObject>::new(resource.clone());
    let cache = Arc::new(Cache::new(writer.as_reader(), resource.clone()));
    let (api, held) = (Api::all_with(client.clone(), &resource), Arc::clone(&cache));
    tasks.spawn(async move {
        if let Some(mut present) = target.after
            && present.wait_for(|present| *present).await.is_err()
        {
            return;
        }
        watcher::run(api, watcher::config(&target.labels), writer, held, changed).await;
    });
    cache
}

/// Of Secrets only the metadata is ever transferred by a watch.
fn watch_secrets(
    tasks: &mut JoinSet<()>,
    client: &Client,
    selector: &str,
    changed: impl Fn(Change<DynamicObject>) + Send + 'static,
) -> Arc<Cache<DynamicObject>> {
    let resource = Kind::Secret.resource();
    let writer = Writer::<DynamicObject>::new(resource.clone());
    let cache = Arc::new(Cache::new(writer.as_reader(), resource));
    let api = Api::<kube::core::PartialObjectMeta<Secret>>::all(client.clone());
    tasks.spawn(watcher::run_metadata(api, watcher::config(selector), writer, Arc::clone(&cache), changed));
    cache
}

/// All claims, since a site waits for the claim of another.
fn watch_domains(tasks: &mut JoinSet<()>, client: &Client, wake: &Wake) -> Arc<Cache<DynamicObject>> {
    let wake = wake.clone();
    let changed = move |change: Change<DynamicObject>| match &change {
        Change::Applied { now, .. } => {
            if let Some(holder) = site_watch::holder(now) {
                wake.site(&holder);
            }
        }
        Change::Deleted(gone) => wake.sites_that(|site| site_watch::wants_host(site, gone)),
    };
    watch_objects(tasks, client, Target { kind: Kind::Domain, labels: String::new(), after: None }, changed)
}

/// Watches which kinds exist, and the MariaDB operator's objects from when they do. Answers the cache of
/// what exists and the signal that the first lists of those objects are in.
fn watch_for_mariadb(
    tasks: &mut JoinSet<()>,
    client: &Client,
    wake: &Wake,
    children: &mut Children,
    selector: &str,
) -> (Arc<Cache<DynamicObject>>, watch::Receiver<bool>) {
    let (exists, present) = watch::channel(false);
    let definitions = watch_definitions(tasks, client, exists);
    for kind in SQL_KINDS {
        let target = Target { kind, labels: selector.to_owned(), after: Some(present.clone()) };
        children.insert(kind, watch_objects(tasks, client, target, site_child(wake)));
    }
    let woken = wake.clone();
    let servers = Target { kind: Kind::MariaDb, labels: String::new(), after: Some(present.clone()) };
    let changed = move |change: Change<DynamicObject>| {
        if site_watch::server_matters(&change) {
            woken.sites_that(|_| true);
        }
    };
    children.insert(Kind::MariaDb, watch_objects(tasks, client, servers, changed));
    let (usable, mariadb) = watch::channel(false);
    let caches: Vec<_> =
        children.iter().filter(|(kind, _)| kind.is_mariadb()).map(|(_, cache)| Arc::clone(cache)).collect();
    let (mut appeared, wake) = (present, wake.clone());
    tasks.spawn(async move {
        if appeared.wait_for(|present| *present).await.is_err() {
            return;
        }
        for cache in caches {
            cache.synced().await;
        }
        tracing::info!("the MariaDB operator's kinds are there");
        usable.send_replace(true);
        wake.sites_that(|_| true);
        // The sender lives as long as this task: reconciles read it.
        usable.closed().await;
    });
    (definitions, mariadb)
}

/// Which CustomResourceDefinitions exist: metadata only.
fn watch_definitions(
    tasks: &mut JoinSet<()>,
    client: &Client,
    exists: watch::Sender<bool>,
) -> Arc<Cache<DynamicObject>> {
    let resource = kube::core::ApiResource::erase::<CustomResourceDefinition>(&());
    let writer = Writer::<DynamicObject>::new(resource.clone());
    let cache = Arc::new(Cache::new(writer.as_reader(), resource));
    let api = Api::<kube::core::PartialObjectMeta<CustomResourceDefinition>>::all(client.clone());
    let wanted: Vec<String> = mariadb_kinds().map(definition_name).collect();
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let changed = move |change: Change<DynamicObject>| {
        let name = change.object().name_any();
        if !wanted.contains(&name) {
            return;
        }
        let Ok(mut seen) = seen.lock() else { return };
        match change {
            Change::Applied { .. } => seen.insert(name),
            Change::Deleted(_) => seen.remove(&name),
        };
        exists.send_replace(seen.len() == wanted.len());
    };
    tasks.spawn(watcher::run_metadata(api, watcher::config(""), writer, Arc::clone(&cache), changed));
    cache
}

fn definition_name(kind: Kind) -> String {
    let resource = kind.resource();
    format!("{}.{}", resource.plural, resource.group)
}

/// Waits until everything that exists was listed once: no reconcile runs on half a world.
pub(super) async fn synced(context: &Context, definitions: &Cache<DynamicObject>) {
    context.sites.synced().await;
    context.benches.synced().await;
    for (kind, cache) in context.site_children.iter().chain(context.bench_children.iter()) {
        if !kind.is_mariadb() {
            cache.synced().await;
        }
    }
    definitions.synced().await;
    let defined: Vec<String> = definitions.all().iter().map(|it| it.name_any()).collect();
    if mariadb_kinds().all(|kind| defined.contains(&definition_name(kind))) {
        // It cannot fail: the sender lives as long as the watches.
        let _ = context.mariadb.clone().wait_for(|usable| *usable).await;
    }
}

fn mariadb_kinds() -> impl Iterator<Item = Kind> {
    SQL_KINDS.into_iter().chain([Kind::MariaDb])
}

#[cfg(test)]
mod tests {
    use kube::Resource;

    use super::*;

    #[test]
    fn definitions_are_named_by_plural_and_group() {
        assert_eq!(definition_name(Kind::MariaDb), "mariadbs.k8s.mariadb.com");
        assert_eq!(FrappeSite::plural(&()), "frappesites");
    }
}
