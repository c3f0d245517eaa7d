//! The context of every reconcile: clients, caches, settings.

use std::{collections::BTreeMap, sync::Arc};

use frappe_crds::{FrappeBench, FrappeSite};
use jiff::Timestamp;
use kube::{Client, ResourceExt, core::DynamicObject};
use kube_sharding::named::Named;
use tokio::sync::watch;

use super::{
    bench::{placed::PlacedSite, pod_health::PodProblems},
    site::{host_index::Claims, job_slots::JobBudget},
};
use crate::{
    config::OperatorConfig,
    controllers::{
        companion::{Companion, index::Indexes},
        contents::Contents,
        site::{locks::Locks, root_secrets::RootSecrets},
    },
    domain::{capabilities::Capabilities, key::Key, labels, object::Kind, watches::Narrowing},
    io::{
        cache::{Cache, Change, version_of},
        cached::Kept,
        clock::WallClock,
        compact::Compact,
        departures::Departures,
        events::Events,
        live,
        tally::Tallies,
    },
};

/// What is called with each change of an object.
pub type Reaction = Arc<dyn Fn(Change<Compact>) + Send + Sync>;

/// Caches, with the reaction to changes of each, by kind and by what they show.
pub type Caches = BTreeMap<(Kind, Narrowing), (Arc<ChildCache>, Reaction)>;

/// Caches of several kinds, and the reaction to changes of each.
#[derive(Default)]
pub struct Children(BTreeMap<Kind, (Arc<ChildCache>, Reaction)>);

impl Children {
    /// The caches with these narrowings.
    pub fn of(caches: &Caches, narrowings: &[Narrowing]) -> Self {
        let wanted = caches.iter().filter(|((_, narrowing), _)| narrowings.contains(narrowing));
        Self(wanted.map(|((kind, _), (cache, changed))| (*kind, (Arc::clone(cache), Arc::clone(changed)))).collect())
    }

    /// The cache of a kind.
    ///
    /// # Panics
    /// If the kind is not watched: the tables of `operator.rs` and of the controllers disagree.
    pub fn cache(&self, kind: Kind) -> &Arc<ChildCache> {
        &self.0.get(&kind).expect("every kind that a controller reads is watched").0
    }

    /// The newest known version of an object.
    pub fn get(&self, kind: Kind, key: &Key) -> Option<Arc<DynamicObject>> {
        self.cache(kind).get(key)
    }

    /// Reads the objects that their watch delivered before this owner was known: one request for each, none if there are none.
    pub async fn read_strangers(&self, client: &Client, owner: &str) -> Result<(), kube::Error> {
        for (kind, (cache, changed)) in &self.0 {
            for key in cache.strangers_of(owner) {
                let found = live::object(client, *kind, &key).await?;
                cache.read(&key, found).into_iter().for_each(|change| changed(change));
            }
        }
        Ok(())
    }

    /// Every object of a kind.
    pub fn all(&self, kind: Kind) -> Vec<Arc<DynamicObject>> {
        self.cache(kind).all()
    }
}

/// Context of every reconcile: clients, caches, settings.
pub struct Context {
    /// Client whose writes pass through the gate.
    pub client: Client,
    /// Publishes Events.
    pub events: Events,
    /// The wall clock.
    pub clock: WallClock,
    /// Current settings of the operator's ConfigMap.
    pub settings: watch::Receiver<Arc<OperatorConfig>>,
    /// Sites.
    pub sites: Arc<Cache<FrappeSite>>,
    /// Benches.
    pub benches: Arc<Cache<FrappeBench>>,
    /// Objects of sites.
    pub site_children: Children,
    /// Objects of benches.
    pub bench_children: Children,
    /// Metadata of users' Secrets that benches and sites reference.
    pub user_secrets: Arc<ChildCache>,
    /// What Secrets contain, as hashes.
    pub contents: Contents,
    /// Services of ingress controllers that benches and the ConfigMap reference.
    pub ingress_services: Named<DynamicObject, Kept>,
    /// Index of claimed hosts by site.
    pub claims: Arc<Claims>,
    /// Index of Secrets with the password of a MariaDB administrator.
    pub root_secrets: Arc<RootSecrets>,
    /// Optional APIs of the cluster.
    pub capabilities: watch::Receiver<Capabilities>,
    /// SiteBackups and SiteJobs by site, and those without a slot label, of all replicas.
    pub companions: BTreeMap<Kind, (Indexes, Arc<ChildCache>)>,
    /// Image of this operator.
    pub operator_image: Option<String>,
    /// Job slots.
    pub jobs: Arc<JobBudget>,
    /// Locks that let only one controller at a time reconcile a site.
    pub locks: Locks,
    /// Why pods of benches do not run.
    pub pod_problems: Arc<PodProblems>,
    /// Triggers reconciles of a bench when one of its sites was deleted, and of SiteBackups and SiteJobs when their site was.
    pub departures: Departures,
    /// Counts the sites of benches with several revisions.
    pub tallies: Tallies<PlacedSite>,
    /// Watched namespaces; all if empty.
    pub namespaces: Vec<String>,
}

impl Context {
    /// The newest known version of a SiteBackup or SiteJob: while its label changes, either watch may be newer.
    pub fn companion<K: Companion>(&self, key: &Key) -> Option<K> {
        let both = [self.site_children.get(K::KIND, key), self.companions[&K::KIND].1.get(key)];
        let object = both.into_iter().flatten().max_by_key(|it| version_of(it.as_ref()))?;
        object.as_ref().clone().try_parse().ok()
    }

    /// The newest version of one that was observed. While its label changes, it may be in neither of the two watches.
    pub fn companion_or<K: Companion>(&self, known: &Arc<K>) -> Arc<K> {
        let newest = self.companion(&Key::of(known.as_ref())).filter(|it: &K| it.meta().uid == known.meta().uid);
        newest.map_or_else(|| Arc::clone(known), Arc::new)
    }

    /// The SiteBackups or SiteJobs of a site by name, including those without a slot label.
    pub fn companions_of<K: Companion>(&self, site: &Key) -> Vec<Arc<K>> {
        let names = self.companions[&K::KIND].0.of(site).into_iter();
        let found = names.filter_map(|name| self.companion::<K>(&Key::new(&site.namespace, name)));
        found.filter(|it| it.site_name() == site.name).map(Arc::new).collect()
    }

    /// The cache that contains a SiteBackup or SiteJob: with or without a slot label.
    pub fn cache_of_companion(&self, kind: Kind, object: &impl ResourceExt) -> &ChildCache {
        let labelled = object.labels().contains_key(labels::SLOT);
        if labelled { self.site_children.cache(kind) } else { &self.companions[&kind].1 }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The operator's settings.
    pub fn config(&self) -> Arc<OperatorConfig> {
        self.settings.borrow().clone()
    }

    /// Optional APIs of the cluster.
    pub fn capabilities(&self) -> Capabilities {
        *self.capabilities.borrow()
    }

    /// Whether the MariaDB operator's kinds exist.
    pub fn mariadb_installed(&self) -> bool {
        self.capabilities.borrow().mariadb
    }
}

/// Type of the caches of children.
pub type ChildCache = Cache<DynamicObject>;
