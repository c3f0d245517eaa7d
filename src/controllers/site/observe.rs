//! Everything a plan needs to know of the world, read once. Almost all of it comes from caches.
#![allow(clippy::disallowed_methods, reason = "the time is observed here, for the plan")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use frappe_crds::{FrappeBench, FrappeDomain, FrappeSite, FrappeSiteStatus, SiteBackup, site::DatabaseKind};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, ResourceExt,
    api::ListParams,
    core::{DynamicObject, PartialObjectMeta},
};
use serde_json::Value;

use super::{
    build,
    found::{self, Found},
    hosts::{self, Hosts},
    kept::{sql, with_former_names},
    place::Place,
    references,
    sitebackups::{backup_job, backup_result, backups, taken_claims},
};
use crate::{
    config::OperatorConfig,
    controllers::{bench::build as bench, context::Context, job},
    domain::{capabilities::Capabilities, key::Key, labels, object::Kind, owner::Owner},
    io::{live, random},
};

/// Who holds a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
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

impl Fresh {
    /// New ones.
    fn draw() -> Self {
        Self {
            identity: random::id(),
            database_password: random::password(),
            root_password: random::password(),
            encryption_key: random::encryption_key(),
            admin_password: random::password(),
        }
    }
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
    /// Whether the bench's budget has room for another Job.
    pub may_start_job: bool,
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
    /// The Job of the backup or restore that is under way.
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
    /// That of the backup, restore or removal that is under way.
    Backups,
}

impl Observed {
    /// What the backup's Job left, if it succeeded.
    pub fn backup_succeeded(&self) -> Value {
        match &self.backup_result {
            Some(job::Ended::Succeeded(result)) => result.clone(),
            Some(job::Ended::Failed(_)) | None => Value::Null,
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
    pub fn bench_input<'a>(&'a self, bench: &'a FrappeBench) -> bench::Input<'a> {
        bench::Input {
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

fn admin_secret_name(site: &FrappeSite) -> String {
    let named = site.spec.admin_password_secret_ref.as_ref().map(|reference| reference.name.clone());
    named.unwrap_or_else(|| Place::of(site).generated_admin_password(&site.name_any()).name)
}

/// Names of the Secrets that a site's spec names itself.
pub fn named_secrets(site: &FrappeSite, bench: Option<&FrappeBench>) -> Vec<String> {
    references::of_site(site, bench).into_iter().map(|it| it.name).collect()
}

/// Reads the world of one site.
pub async fn observe(context: &Context, site: Arc<FrappeSite>, turn: Turn) -> Result<Observed, kube::Error> {
    let site = with_former_names(context, site).await?;
    let place = Place::of(&site);
    let children = &context.site_children;
    let owner = Owner::site(site.as_ref());
    let config = context.config();
    let bench = context.benches.get(&Key::new(&place.namespace, &site.spec.bench_ref.name));
    let hosts = hosts::resolve(&site.spec, bench.as_deref(), &config);
    let claims = claims(context, &site, &hosts).await?;
    let held = context.claims.of(&site.uid().unwrap_or_default());
    let former = held.iter().filter(|host| hosts.all().all(|wanted| wanted != *host));
    let former_claims: Vec<_> = former.filter_map(|host| children.get(Kind::Domain, &Key::new("", host))).collect();
    let jobs = jobs_of(context, &site);
    let failure = match turn.of {
        Of::Site => failure(context, &site, &jobs).await?,
        Of::Backups => None,
    };
    let credentials = own_secret(context, &site, &place.credentials()).await?;
    let found = match credentials {
        None => found::found(context, &site, bench.as_deref()).await?,
        Some(_) => Found::default(),
    };
    let deleting = site.metadata.deletion_timestamp.is_some();
    let going = children.get(Kind::Namespace, &Key::new("", &place.namespace));
    let going = going.is_none_or(|found| found.metadata.deletion_timestamp.is_some());
    let backups = backups(context, &site).await?;
    let backup_job = backup_job(context, &site);
    // Who makes the final backup is chosen by what its storage needs.
    let (storages, backup_result) = match turn.of {
        Of::Site => (if deleting { &backups[..] } else { &[] }, None),
        Of::Backups => (&backups[..], backup_result(context, backup_job.as_deref()).await?),
    };
    let (secrets, copies) = secrets(context, &site, bench.as_deref(), storages).await?;
    Ok(Observed {
        may_start_job: true,
        capabilities: context.capabilities(),
        namespace: children.get(Kind::Namespace, &Key::new("", &place.own)),
        routes: routes(context, &site, hosts.all().chain(&held)),
        namespace_terminating: turn.terminating || (deleting && credentials.is_none() && going),
        taken_claims: taken_claims(context, &place, &backups),
        root_secrets: secrets
            .keys()
            .filter(|it| context.root_secrets.has(&Key::new(&place.own, *it)))
            .cloned()
            .collect(),
        secrets,
        copies,
        found,
        servers: servers(context, &place, site.status.as_ref()),
        backups,
        backup_job,
        backup_result,
        operator_image: context.operator_image.clone(),
        mariadb_installed: context.mariadb_installed(),
        root_secret: children.get(Kind::Secret, &place.own_server_root()).filter(|it| owner.has(it)),
        sql: sql(context, &site, credentials.as_deref()).await?,
        credentials,
        epoch: turn.epoch,
        fresh: Fresh::draw(),
        now: Timestamp::now(),
        config,
        bench,
        hosts,
        claims,
        former_claims,
        jobs,
        failure,
        site,
    })
}

/// The MariaDB objects that may serve the site: where that is decided, only the one.
fn servers(context: &Context, place: &Place, status: Option<&FrappeSiteStatus>) -> Vec<Arc<DynamicObject>> {
    let get = |key: &Key| context.site_children.get(Kind::MariaDb, key).into_iter().collect();
    let decided = status.filter(|it| it.identity.is_some()).and_then(|it| it.database.as_ref());
    match decided.map(|it| (it.kind, it.server.clone().unwrap_or_default())) {
        Some((DatabaseKind::Dedicated, _)) => get(&place.own_server()),
        Some((DatabaseKind::Shared, server)) => get(&Key::new(server.namespace.unwrap_or_default(), server.name)),
        Some((DatabaseKind::Existing, _)) => Vec::new(),
        None => context.site_children.all(Kind::MariaDb),
    }
}

async fn claims(context: &Context, site: &FrappeSite, hosts: &Hosts) -> Result<Vec<Claim>, kube::Error> {
    let mut claims = Vec::new();
    for host in hosts.all() {
        let object = context.site_children.get(Kind::Domain, &Key::new("", host));
        let holder = holder(context, site, object.as_deref()).await?;
        claims.push(Claim { host: host.clone(), object, holder });
    }
    Ok(claims)
}

/// Reads the holder of the claim live if it is another: a cache might not know that it is gone.
async fn holder(context: &Context, site: &FrappeSite, claim: Option<&DynamicObject>) -> Result<Holder, kube::Error> {
    let Some(claim) = claim else { return Ok(Holder::Nobody) };
    let parsed: Option<FrappeDomain> = claim.clone().try_parse().ok();
    let Some(holder) = parsed.map(|domain| domain.spec.site) else { return Ok(Holder::Gone) };
    if Some(&holder.uid) == site.uid().as_ref() {
        return Ok(Holder::Us);
    }
    let key = Key::new(holder.namespace, holder.name);
    let found = live::site_metadata(&context.client, &key).await?;
    let alive = found.is_some_and(|found| found.uid().as_ref() == Some(&holder.uid));
    Ok(if alive { Holder::Other(key) } else { Holder::Gone })
}

fn routes<'a>(context: &Context, site: &FrappeSite, hosts: impl Iterator<Item = &'a String>) -> Routes {
    let (place, owner) = (Place::of(site), Owner::site(site));
    let own = |kind: Kind, key: &Key| context.site_children.get(kind, key).filter(|it| owner.has(it));
    let route = |key: Key| own(Kind::Route, &key).map(|it| (key.name, it));
    let of_hosts = hosts.filter_map(|host| route(build::route_key(&place, Some(host))));
    Routes {
        ingress: own(Kind::Ingress, &place.key("ingress")),
        http_route: own(Kind::HttpRoute, &place.key("route")),
        routes: route(build::route_key(&place, None)).into_iter().chain(of_hosts).collect(),
    }
}

/// Jobs that belong to this very site, not to one of the same name before it.
fn jobs_of(context: &Context, site: &FrappeSite) -> BTreeMap<String, Arc<DynamicObject>> {
    let status = site.status.clone().unwrap_or_default();
    let last = status.operation.map_or(1, |operation| operation.attempt);
    let place = Place::of(site);
    // After a change of the kind of operation, numbers begin anew.
    let attempts = [1, last - 1, last, last + 1].into_iter().filter(|attempt| *attempt >= 1);
    let keys = attempts.flat_map(|attempt| ["init", "apply", "delete"].map(|verb| place.job(verb, attempt)));
    keys.filter_map(|key| context.site_children.get(Kind::Job, &key))
        .filter(|job| job.labels().get(labels::SITE_UID) == site.uid().as_ref())
        .map(|job| (job.name_any(), job))
        .collect()
}

/// A Secret that the operator made for the site. Where the cache has none although the site had one, its label may have
/// been removed: then it is read live.
async fn own_secret(
    context: &Context,
    site: &FrappeSite,
    key: &Key,
) -> Result<Option<Arc<DynamicObject>>, kube::Error> {
    let had = site.status.as_ref().is_some_and(|status| status.identity.is_some());
    match context.site_children.get(Kind::Secret, key) {
        Some(cached) => Ok(Some(cached)),
        None if had => metadata_of(context, key).await,
        None => Ok(None),
    }
}

type ByName = BTreeMap<String, Arc<DynamicObject>>;

/// The Secrets that the site and the storages of SiteBackups name in its own namespace, and their copies where the bench is in
/// another.
async fn secrets(
    context: &Context,
    site: &FrappeSite,
    bench: Option<&FrappeBench>,
    backups: &[Arc<SiteBackup>],
) -> Result<(ByName, ByName), kube::Error> {
    let place = Place::of(site);
    let mut found = ByName::new();
    let storages = backups.iter().filter_map(|it| it.spec.storage.as_ref());
    let of_backups = storages.flat_map(references::of_storage).map(|it| it.name);
    let names: BTreeSet<String> = named_secrets(site, bench).into_iter().chain(of_backups).collect();
    for name in names {
        let key = Key::new(&place.own, &name);
        let known = match context.user_secrets.get(&key) {
            Some(cached) => Some(cached),
            // No watch shows it: it has no label yet, or is missing.
            None => metadata_of(context, &key).await?,
        };
        found.extend(known.map(|it| (name, it)));
    }
    if site.spec.admin_password_secret_ref.is_none() {
        let key = place.generated_admin_password(&site.name_any());
        let known = own_secret(context, site, &key).await?;
        found.extend(known.map(|it| (key.name, it)));
    }
    let owner = Owner::site(site);
    let copies = found.keys().filter(|_| place.is_foreign()).filter_map(|name| {
        let key = Key::new(&place.namespace, place.mounted(name));
        let copy = context.site_children.get(Kind::Secret, &key).filter(|it| owner.has(it))?;
        Some((key.name, copy))
    });
    let copies = copies.collect();
    Ok((found, copies))
}

pub(super) async fn metadata_of(context: &Context, key: &Key) -> Result<Option<Arc<DynamicObject>>, kube::Error> {
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(context.client.clone(), &key.namespace);
    let found = api.get_opt(&key.name).await?;
    Ok(found.map(|it| Arc::new(DynamicObject { types: it.types, metadata: it.metadata, data: Value::Null })))
}

/// Why the operation's Job failed, where the status does not hold it yet.
async fn failure(
    context: &Context,
    site: &FrappeSite,
    jobs: &BTreeMap<String, Arc<DynamicObject>>,
) -> Result<Option<job::Failure>, kube::Error> {
    let operation = site.status.as_ref().and_then(|status| status.operation.as_ref());
    let Some(operation) = operation.filter(|it| it.outcome.is_none()) else { return Ok(None) };
    let Key { namespace, name } = Place::of(site).job(super::plan::verb(operation.kind), operation.attempt);
    if !jobs.get(&name).is_some_and(|it| matches!(job::state(it), job::State::Failed(_))) {
        return Ok(None);
    }
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    let selector = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
    Ok(job::failure(&pods.list(&selector).await?.items))
}
