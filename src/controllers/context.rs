//! What every reconcile is given: clients, caches, settings.

use std::{collections::BTreeMap, sync::Arc};

use frappe_crds::{FrappeBench, FrappeSite};
use kube::{Client, core::DynamicObject};
use tokio::sync::watch;

use crate::{
    config::OperatorConfig,
    controllers::{
        bench::trouble::Troubles,
        site::{backups::index::Backups, budget::JobBudget, claims::Claims, root_secrets::RootSecrets},
    },
    domain::{capabilities::Capabilities, key::Key, object::Kind},
    io::{cache::Cache, departures::Departures, events::Events, named::Named},
};

/// Caches of several kinds.
#[derive(Default)]
pub struct Children(BTreeMap<Kind, Arc<Cache<DynamicObject>>>);

impl Children {
    /// Adds the cache of a kind.
    pub fn insert(&mut self, kind: Kind, cache: Arc<Cache<DynamicObject>>) {
        self.0.insert(kind, cache);
    }

    /// The cache of a kind.
    ///
    /// # Panics
    /// If the kind is not watched: the tables of `operator.rs` and of the controllers disagree.
    pub fn cache(&self, kind: Kind) -> &Arc<Cache<DynamicObject>> {
        self.0.get(&kind).expect("every kind that a controller reads is watched")
    }

    /// An object, as new as is known.
    pub fn get(&self, kind: Kind, key: &Key) -> Option<Arc<DynamicObject>> {
        self.cache(kind).get(key)
    }

    /// Every object of a kind.
    pub fn all(&self, kind: Kind) -> Vec<Arc<DynamicObject>> {
        self.cache(kind).all()
    }

    /// The kinds and their caches.
    pub fn iter(&self) -> impl Iterator<Item = (&Kind, &Arc<Cache<DynamicObject>>)> {
        self.0.iter()
    }
}

/// What every reconcile is given.
pub struct Context {
    /// Client whose writes pass the gate.
    pub client: Client,
    /// Where Events go.
    pub events: Events,
    /// The operator's settings, as the ConfigMap has them now.
    pub settings: watch::Receiver<Arc<OperatorConfig>>,
    /// Sites.
    pub sites: Arc<Cache<FrappeSite>>,
    /// Benches.
    pub benches: Arc<Cache<FrappeBench>>,
    /// Objects of sites.
    pub site_children: Children,
    /// Objects of benches.
    pub bench_children: Children,
    /// Secrets of users that benches and sites read: metadata.
    pub user_secrets: Arc<ChildCache>,
    /// Services of ingress controllers, as benches and the ConfigMap name them.
    pub ingress_services: Named,
    /// Which hosts each site holds.
    pub claims: Arc<Claims>,
    /// Which Secrets have the password of a MariaDB's administrator.
    pub root_secrets: Arc<RootSecrets>,
    /// Whether the MariaDB operator's kinds exist and are synced.
    pub mariadb: watch::Receiver<bool>,
    /// What the cluster offers beyond Kubernetes.
    pub capabilities: watch::Receiver<Capabilities>,
    /// SiteBackups by site.
    pub backups: Arc<Backups>,
    /// SiteBackups that carry no slot label yet, of all members; and by site.
    pub new_backups: (Arc<ChildCache>, Arc<Backups>),
    /// Image of this operator.
    pub operator_image: Option<String>,
    /// How many site Jobs may run.
    pub jobs: Arc<JobBudget>,
    /// What keeps pods of benches from running.
    pub troubles: Arc<Troubles>,
    /// Wakes a bench when a site of it is gone.
    pub departures: Departures,
    /// Namespaces that are looked after; all if empty.
    pub namespaces: Vec<String>,
}

impl Context {
    /// The operator's settings.
    pub fn config(&self) -> Arc<OperatorConfig> {
        self.settings.borrow().clone()
    }

    /// What the cluster offers beyond Kubernetes.
    pub fn capabilities(&self) -> Capabilities {
        *self.capabilities.borrow()
    }

    /// Whether the MariaDB operator's kinds exist.
    pub fn mariadb_installed(&self) -> bool {
        *self.mariadb.borrow()
    }
}

/// Type of the caches of children.
pub type ChildCache = Cache<DynamicObject>;
