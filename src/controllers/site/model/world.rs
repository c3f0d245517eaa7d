//! What a plan knows of the world, as data. Read by `observe`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use frappe_crds::{FrappeBench, FrappeSite, SiteBackup};
use jiff::Timestamp;
use kube::{ResourceExt, core::DynamicObject};

use crate::{
    config::OperatorConfig,
    controllers::{
        bench::model::Input as BenchInput,
        job,
        site::{hosts::Hosts, place::Place},
    },
    domain::{capabilities::Capabilities, key::Key, object::Kind, owner::Owner},
};

/// Who holds a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// No one.
    Nobody,
    /// This site.
    Us,
    /// Another site, which exists.
    Other(Key),
    /// A site that is gone.
    Gone,
}

/// A host that the site wants.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The host.
    pub host: String,
    /// Its FrappeDomain.
    pub object: Option<Arc<DynamicObject>>,
    /// Who holds it.
    pub holder: Holder,
}

/// Values that a plan may use if it must decide something for the first time.
#[derive(Clone, Default)]
pub struct Fresh {
    /// Identity of the site.
    pub identity: String,
    /// Password of the database account.
    pub database_password: String,
    /// Password of the administrator of a server of its own.
    pub root_password: String,
    /// Frappe's encryption key.
    pub encryption_key: String,
    /// Password of Administrator.
    pub admin_password: String,
}

/// What leads hosts to the site.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// The Ingress.
    pub ingress: Option<Arc<DynamicObject>>,
    /// The Gateway API's HTTPRoute.
    pub http_route: Option<Arc<DynamicObject>>,
    /// OpenShift's Routes, one for each host that the site holds or wants.
    pub routes: BTreeMap<String, Arc<DynamicObject>>,
}

impl Routes {
    /// Every object, with its kind.
    pub fn objects(&self) -> impl Iterator<Item = (Kind, &Arc<DynamicObject>)> {
        let ingress = self.ingress.iter().map(|it| (Kind::Ingress, it));
        let http_route = self.http_route.iter().map(|it| (Kind::HttpRoute, it));
        ingress.chain(http_route).chain(self.routes.values().map(|it| (Kind::Route, it)))
    }
}

/// The world, as far as one site is concerned.
pub struct Observed {
    /// The site.
    pub site: Arc<FrappeSite>,
    /// The operator's settings.
    pub config: Arc<OperatorConfig>,
    /// What the cluster offers.
    pub capabilities: Capabilities,
    /// Its bench.
    pub bench: Option<Arc<FrappeBench>>,
    /// Metadata of its namespace.
    pub namespace: Option<Arc<DynamicObject>>,
    /// The hosts that it wants.
    pub hosts: Hosts,
    /// Their claims, in the same order.
    pub claims: Vec<Claim>,
    /// Claims that the site holds and wants no longer.
    pub former_claims: Vec<Arc<DynamicObject>>,
    /// Metadata of `SITE-db-password`.
    pub credentials: Option<Arc<DynamicObject>>,
    /// What another operator made for it, as long as it is being taken over.
    pub found: Found,
    /// Metadata of the Secrets in the site's own namespace that it reads, by name; with those of its SiteBackups' storages where
    /// these are the matter.
    pub secrets: BTreeMap<String, Arc<DynamicObject>>,
    /// Names of those that have the password of a server's administrator.
    pub root_secrets: BTreeSet<String>,
    /// Names of PersistentVolumeClaims that SiteBackups name and that are a bench's or a MariaDB's.
    pub taken_claims: BTreeSet<String>,
    /// Metadata of their copies in another bench's namespace, by the copy's name.
    pub copies: BTreeMap<String, Arc<DynamicObject>>,
    /// Whether the MariaDB operator's kinds exist.
    pub mariadb_installed: bool,
    /// MariaDB objects of the cluster.
    pub servers: Vec<Arc<DynamicObject>>,
    /// Metadata of the Secret of the administrator of its own MariaDB.
    pub root_secret: Option<Arc<DynamicObject>>,
    /// Database, User and Grant.
    pub sql: [Option<Arc<DynamicObject>>; 3],
    /// The site's own Jobs by name.
    pub jobs: BTreeMap<String, Arc<DynamicObject>>,
    /// What leads hosts to it.
    pub routes: Routes,
    /// What the runner said when the present operation's Job failed; read only where the status does not have it.
    pub failure: Option<job::Failure>,
    /// SiteBackups that name the site, by name.
    pub backups: Vec<Arc<SiteBackup>>,
    /// The Job of the backup or restore that is in progress.
    pub backup_job: Option<Arc<DynamicObject>>,
    /// What that Job's pod left, where it has ended.
    pub backup_result: Option<job::Ended>,
    /// Image of this operator.
    pub operator_image: Option<String>,
    /// Whether nothing can be made in the namespace any more.
    pub namespace_terminating: bool,
    /// Epoch of the slot's owner.
    pub epoch: i64,
    /// Values for what is decided now.
    pub fresh: Fresh,
    /// The time.
    pub now: Timestamp,
}

impl Observed {
    /// What the backup's Job left, if it succeeded.
    pub fn backup_succeeded(&self) -> job::Success {
        match &self.backup_result {
            Some(job::Ended::Succeeded(result)) => result.clone(),
            Some(job::Ended::Failed(_)) | None => job::Success::default(),
        }
    }

    /// Why the backup's Job failed.
    pub fn backup_failed(&self) -> job::Failure {
        match &self.backup_result {
            Some(job::Ended::Failed(failure)) => failure.clone(),
            Some(job::Ended::Succeeded(_)) | None => job::Failure::unknown(),
        }
    }

    /// What the builders need to know of the site's bench.
    pub fn bench_input<'a>(&'a self, bench: &'a FrappeBench) -> BenchInput<'a> {
        BenchInput {
            bench,
            config: &self.config,
            capabilities: self.capabilities,
            redis_secret_version: None,
            open_servers: Vec::new(),
        }
    }

    /// Name of the Secret with the password of Administrator, in the site's own namespace.
    pub fn admin_secret_name(&self) -> String {
        admin_secret_name(&self.site)
    }

    /// Metadata of that Secret.
    pub fn admin_secret(&self) -> Option<&Arc<DynamicObject>> {
        self.secrets.get(&self.admin_secret_name())
    }

    /// The MariaDB of the site alone.
    pub fn own_server(&self) -> Option<&Arc<DynamicObject>> {
        self.namesake_server().filter(|it| Owner::site(self.site.as_ref()).has(it))
    }

    /// The MariaDB of that name, whosever it is.
    pub fn namesake_server(&self) -> Option<&Arc<DynamicObject>> {
        let key = Place::of(&self.site).own_server();
        self.servers.iter().find(|server| Key::of(server.as_ref()) == key)
    }
}

/// What is known of one attempt before anything is read.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Epoch of the slot's owner.
    pub epoch: i64,
    /// Whether a write just said that the namespace is being deleted.
    pub terminating: bool,
    /// Whose turn it is.
    pub of: Of,
}

/// Whose Job's end is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// That of the site's own operation.
    Site,
    /// That of the backup, restore or removal that is in progress.
    Backups,
}

fn admin_secret_name(site: &FrappeSite) -> String {
    let named = site.spec.admin_password_secret_ref.as_ref().map(|reference| reference.name.clone());
    named.unwrap_or_else(|| Place::of(site).generated_admin_password(&site.name_any()).name)
}

/// What is there and was made for this very site.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Metadata of `SITE-db-password`.
    pub credentials: Option<Arc<DynamicObject>>,
    /// Whether `SITE-admin` is there, with the password of Administrator.
    pub has_admin_password: bool,
    /// The Database.
    pub database: Option<DynamicObject>,
    /// The User.
    pub user: Option<DynamicObject>,
}
