//! Data: the observed state, read by `observe`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use frappe_crds::{FrappeBench, FrappeSite, SiteBackup, SiteJob, common::ReadSecret};
use jiff::Timestamp;
use kube::{ResourceExt, core::DynamicObject};

use crate::{
    config::OperatorConfig,
    controllers::{
        bench::{
            model::{FIRST_REVISION, Input as BenchInput, Pods},
            placed::revision_of,
        },
        job,
        ran::Run,
        site::{hosts::Hosts, place::Place},
    },
    domain::{capabilities::Capabilities, key::Key, object::Kind, owner::Owner},
};

/// Site that has claimed a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// None.
    Unclaimed,
    /// This site.
    ThisSite,
    /// Another, existing site.
    Other(Key),
    /// A site that no longer exists.
    Gone,
}

/// A host of the site's spec.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The host.
    pub host: String,
    /// Its FrappeDomain.
    pub object: Option<Arc<DynamicObject>>,
    /// Site that has claimed it.
    pub holder: Holder,
}

/// Random values, used for what is decided or generated for the first time.
#[derive(Clone, Default)]
pub struct Fresh {
    /// Identity of the site.
    pub identity: String,
    /// Password of the database user.
    pub database_password: String,
    /// Administrator's password of a dedicated server.
    pub root_password: String,
    /// Frappe's encryption key.
    pub encryption_key: String,
    /// Password of Administrator.
    pub admin_password: String,
}

/// Routes of the site.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// The Ingress.
    pub ingress: Option<Arc<DynamicObject>>,
    /// The Gateway API's HTTPRoute.
    pub http_route: Option<Arc<DynamicObject>>,
    /// OpenShift's Routes, one for each current or desired host.
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

/// Observed state of a site and everything that it depends on.
pub struct Observed {
    /// The site.
    pub site: Arc<FrappeSite>,
    /// The operator's settings.
    pub config: Arc<OperatorConfig>,
    /// Optional APIs of the cluster.
    pub capabilities: Capabilities,
    /// Its bench.
    pub bench: Option<Arc<FrappeBench>>,
    /// Metadata of its namespace.
    pub namespace: Option<Arc<DynamicObject>>,
    /// Hosts of the spec.
    pub hosts: Hosts,
    /// Their claims, in the same order.
    pub claims: Vec<Claim>,
    /// Claims of hosts that are no longer in the spec.
    pub former_claims: Vec<Arc<DynamicObject>>,
    /// Metadata of `SITE-db-password`.
    pub credentials: Option<Arc<DynamicObject>>,
    /// Objects of another operator, while the site is being adopted.
    pub adoptable: Adoptable,
    /// The Secrets that its configuration reads, with the versions that count, by name.
    pub read_secrets: Vec<ReadSecret>,
    /// Metadata of the referenced Secrets in the site's namespace, by name; for SiteBackups also those of their storages.
    pub secrets: BTreeMap<String, Arc<DynamicObject>>,
    /// Names of Secrets with the password of a server's administrator.
    pub root_secrets: BTreeSet<String>,
    /// Names of PersistentVolumeClaims referenced by SiteBackups that belong to a bench or a MariaDB.
    pub taken_claims: BTreeSet<String>,
    /// Metadata of the Secrets' copies in the bench's namespace, by the copy's name.
    pub copies: BTreeMap<String, Arc<DynamicObject>>,
    /// Whether the MariaDB operator's kinds exist.
    pub mariadb_installed: bool,
    /// MariaDB objects of the cluster.
    pub servers: Vec<Arc<DynamicObject>>,
    /// Metadata of the Secret with the administrator's password of the dedicated MariaDB.
    pub root_secret: Option<Arc<DynamicObject>>,
    /// Database, User and Grant.
    pub sql: [Option<Arc<DynamicObject>>; 3],
    /// The site's own Jobs by name.
    pub jobs: BTreeMap<String, Arc<DynamicObject>>,
    /// Routes.
    pub routes: Routes,
    /// Failure reported by the current operation's Job; read only if the status does not have it.
    pub failure: Option<job::Failure>,
    /// SiteBackups of the site, by name.
    pub backups: Vec<Arc<SiteBackup>>,
    /// Job of the running backup operation.
    pub backup_job: Option<Arc<DynamicObject>>,
    /// Result of that Job, if it has finished.
    pub backup_result: Option<job::Ended>,
    /// SiteJobs of the site, by name; read only for them.
    pub site_jobs: Vec<Arc<SiteJob>>,
    /// Job of the running SiteJob.
    pub site_job: Option<Arc<DynamicObject>>,
    /// Result of that Job, if it has finished, and what its process has left.
    pub site_job_result: (Option<job::Ended>, Option<Run>),
    /// The operator's image.
    pub operator_image: Option<String>,
    /// Whether the namespace is being deleted.
    pub namespace_terminating: bool,
    /// Epoch of the slot's owner.
    pub epoch: i64,
    /// Random values for new decisions.
    pub fresh: Fresh,
    /// The time.
    pub now: Timestamp,
}

impl Observed {
    /// Result of the backup Job, if it succeeded.
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

    /// Input of the builders for the site's bench.
    pub fn bench_input<'a>(&'a self, bench: &'a FrappeBench) -> BenchInput<'a> {
        let number = self.site.status.as_ref().map_or(FIRST_REVISION, revision_of);
        self.bench_input_of(bench, number)
    }

    /// The same, for a revision of the bench; for the newest one if that has no pods any more.
    pub fn bench_input_of<'a>(&'a self, bench: &'a FrappeBench, revision: i32) -> BenchInput<'a> {
        let input = BenchInput::of(bench, &self.config, self.capabilities);
        let pods = Pods::of(bench, revision).unwrap_or(input.pods);
        BenchInput { pods, ..input }.with_recorded_digest()
    }

    /// Name of the Secret with Administrator's password, in the site's namespace.
    pub fn admin_secret_name(&self) -> String {
        admin_secret_name(&self.site)
    }

    /// Metadata of that Secret.
    pub fn admin_secret(&self) -> Option<&Arc<DynamicObject>> {
        self.secrets.get(&self.admin_secret_name())
    }

    /// The site's dedicated MariaDB.
    pub fn own_server(&self) -> Option<&Arc<DynamicObject>> {
        self.namesake_server().filter(|it| Owner::site(self.site.as_ref()).has(it))
    }

    /// The MariaDB with that name, whatever its owner.
    pub fn namesake_server(&self) -> Option<&Arc<DynamicObject>> {
        let key = Place::of(&self.site).own_server();
        self.servers.iter().find(|server| Key::of(server.as_ref()) == key)
    }
}

/// Parameters of a reconcile, known before anything is read.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Epoch of the slot's owner.
    pub epoch: i64,
    /// Whether a write has just failed because the namespace is being deleted.
    pub terminating: bool,
    /// The controller that reconciles.
    pub of: Of,
}

/// The Job whose result is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Job of the site's operation.
    Site,
    /// Job of the running backup operation.
    Backups,
    /// Job of the running SiteJob.
    Jobs,
}

fn admin_secret_name(site: &FrappeSite) -> String {
    let named = site.spec.admin_password_secret_ref.as_ref().map(|reference| reference.name.clone());
    named.unwrap_or_else(|| Place::of(site).generated_admin_password(&site.name_any()).name)
}

/// Another operator's objects that were created for this site.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adoptable {
    /// Metadata of `SITE-db-password`.
    pub credentials: Option<Arc<DynamicObject>>,
    /// Whether the Secret `SITE-admin` with Administrator's password exists.
    pub has_admin_password: bool,
    /// The Database.
    pub database: Option<DynamicObject>,
    /// The User.
    pub user: Option<DynamicObject>,
}
