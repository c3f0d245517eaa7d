//! Reads the observed state of a site, once, mostly from caches.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use frappe_crds::{FrappeBench, FrappeSite, FrappeSiteStatus, SiteBackup, site::DatabaseKind};
use kube::{ResourceExt, core::DynamicObject};

use super::{
    build,
    hosts::{self, Hosts},
    kept::{adoptable, sql, with_former_names},
    model::{Adoptable, Claim, Fresh, Holder, Observed, Of, Routes, Turn, verb},
    place::Place,
    read_secrets,
    references::{self, named_secrets},
    sitebackups::{backup_job, backup_result, backups, taken_claims},
    sitejobs,
};
use crate::{
    controllers::{context::Context, job},
    domain::{foreign, key::Key, labels, object::Kind, owner::Owner, uid},
    io::{live, random},
};

impl Fresh {
    /// New random values.
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

/// Reads the observed state of a site.
pub async fn observe(context: &Context, site: Arc<FrappeSite>, turn: Turn) -> Result<Observed, kube::Error> {
    context.site_children.read_strangers(&context.client, uid::of(site.as_ref())).await?;
    let site = with_former_names(context, site).await?;
    let place = Place::of(&site);
    let children = &context.site_children;
    let owner = Owner::site(site.as_ref());
    let config = context.config();
    let bench = context.benches.get(&Key::new(&place.namespace, &site.spec.bench_ref.name));
    let hosts = hosts::resolve(&site.spec, bench.as_deref(), &config);
    let claims = claims(context, &site, &hosts).await?;
    let held = held_hosts(context, &site);
    let former = held.iter().filter(|host| hosts.all().all(|wanted| wanted != *host));
    let former_claims: Vec<_> = former.filter_map(|host| children.get(Kind::Domain, &Key::new("", host))).collect();
    let jobs = jobs_of(context, &site);
    let failure = match turn.of {
        Of::Site => failure(context, &site, &jobs).await?,
        Of::Backups | Of::Jobs => None,
    };
    let credentials = own_secret(context, &site, &place.credentials()).await?;
    let adoptable = to_adopt(context, &site, bench.as_deref(), credentials.is_some()).await?;
    let deleting = site.metadata.deletion_timestamp.is_some();
    let namespace_terminating = turn.terminating || (deleting && credentials.is_none() && is_going(context, &place));
    let backups = backups(context, &site).await?;
    let backup_job = backup_job(context, &site);
    // The SiteBackup for the final backup is chosen by its storage's requirements.
    let (storages, backup_result) = match turn.of {
        Of::Site => (if deleting { &backups[..] } else { &[] }, None),
        Of::Backups => (&backups[..], backup_result(context, backup_job.as_deref()).await?),
        Of::Jobs => (&[][..], None),
    };
    let (site_jobs, site_job, site_job_result) = sitejobs::found(context, &site, turn.of).await?;
    let (secrets, copies) = secrets(context, &site, bench.as_deref(), storages).await?;
    let known = read_secrets::Known { secrets: &secrets, credentials: credentials.as_deref() };
    let read_secrets = read_secrets::read(context, &site, bench.as_deref(), &known).await?;
    Ok(Observed {
        read_secrets,
        capabilities: context.capabilities(),
        namespace: children.get(Kind::Namespace, &Key::new("", &place.own)),
        routes: routes(context, &site, hosts.all().chain(&held)),
        namespace_terminating,
        taken_claims: taken_claims(context, &place, &backups),
        root_secrets: of_administrators(context, &place, &secrets),
        secrets,
        copies,
        adoptable,
        servers: servers(context, &place, site.status.as_ref()),
        backups,
        backup_job,
        backup_result,
        site_jobs,
        site_job,
        site_job_result,
        operator_image: context.operator_image.clone(),
        mariadb_installed: context.mariadb_installed(),
        root_secret: children.get(Kind::Secret, &place.own_server_root()).filter(|it| owner.has(it)),
        sql: sql(context, &site, credentials.as_deref()).await?,
        credentials,
        epoch: turn.epoch,
        fresh: Fresh::draw(),
        now: context.now(),
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

/// Objects of another operator that the site may take over, unless it has its own.
async fn to_adopt(
    context: &Context,
    site: &FrappeSite,
    bench: Option<&FrappeBench>,
    has_own: bool,
) -> Result<Adoptable, kube::Error> {
    if has_own { Ok(Adoptable::default()) } else { adoptable(context, site, bench).await }
}

/// Hosts that the site has claimed.
fn held_hosts(context: &Context, site: &FrappeSite) -> Vec<String> {
    context.claims.of(&uid::of(site).to_owned()).into_keys().map(|key| key.name).collect()
}

/// Names of Secrets with the password of a server's administrator.
fn of_administrators(context: &Context, place: &Place, secrets: &ByName) -> BTreeSet<String> {
    secrets.keys().filter(|it| context.root_secrets.has(&Key::new(&place.own, *it))).cloned().collect()
}

/// Whether the namespace of the site's objects is being deleted, or does not exist.
fn is_going(context: &Context, place: &Place) -> bool {
    let namespace = context.site_children.get(Kind::Namespace, &Key::new("", &place.namespace));
    namespace.is_none_or(|found| found.metadata.deletion_timestamp.is_some())
}

/// The MariaDB objects that the site may use; only the recorded one if it is decided.
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

/// The site of a claim; another site is read live, because a cache may not know that it was deleted.
async fn holder(context: &Context, site: &FrappeSite, claim: Option<&DynamicObject>) -> Result<Holder, kube::Error> {
    let Some(claim) = claim else { return Ok(Holder::Unclaimed) };
    let Some(holder) = foreign::holder(claim) else { return Ok(Holder::Gone) };
    if Some(&holder.uid) == site.uid().as_ref() {
        return Ok(Holder::ThisSite);
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

/// Jobs of this site, not of a former one with the same name.
fn jobs_of(context: &Context, site: &FrappeSite) -> BTreeMap<String, Arc<DynamicObject>> {
    let status = site.status.clone().unwrap_or_default();
    let last = status.operation.map_or(1, |operation| operation.attempt);
    let place = Place::of(site);
    // After a change of the kind of operation, attempts are counted from 1 again.
    let attempts = BTreeSet::from([1, last - 1, last, last + 1]).into_iter().filter(|attempt| *attempt >= 1);
    let keys = attempts.flat_map(|attempt| ["init", "apply", "update", "delete"].map(|verb| place.job(verb, attempt)));
    keys.filter_map(|key| context.site_children.get(Kind::Job, &key))
        .filter(|job| job.labels().get(labels::SITE_UID) == site.uid().as_ref())
        .map(|job| (job.name_any(), job))
        .collect()
}

/// A generated Secret of the site. If the cache has none although the site had one, its label may have been removed: it is then
/// read live.
async fn own_secret(
    context: &Context,
    site: &FrappeSite,
    key: &Key,
) -> Result<Option<Arc<DynamicObject>>, kube::Error> {
    let cached = context.site_children.get(Kind::Secret, key);
    if cached.is_some() {
        return Ok(cached);
    }
    let user = || context.site_children.get(Kind::User, &Place::of(site).key("user"));
    let had = site.status.as_ref().is_some_and(|status| status.identity.is_some())
        || user().is_some_and(|user| Owner::site(site).has(&user));
    if had { live::secret_metadata(&context.client, key).await } else { Ok(None) }
}

type ByName = BTreeMap<String, Arc<DynamicObject>>;

/// The Secrets that the site and the storages of its SiteBackups reference, and their copies if the bench is in another
/// namespace.
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
            // It is not watched: it has no label yet, or does not exist.
            None => live::secret_metadata(&context.client, &key).await?,
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

/// The failure of the operation's Job, if the status does not have it yet.
async fn failure(
    context: &Context,
    site: &FrappeSite,
    jobs: &BTreeMap<String, Arc<DynamicObject>>,
) -> Result<Option<job::Failure>, kube::Error> {
    let operation = site.status.as_ref().and_then(|status| status.operation.as_ref());
    let Some(operation) = operation.filter(|it| it.outcome.is_none()) else { return Ok(None) };
    let key = Place::of(site).job(verb(operation.kind), operation.attempt);
    let failed = jobs.get(&key.name).filter(|it| matches!(job::state(it), job::State::Failed(_)));
    let Some(job) = failed else { return Ok(None) };
    Ok(job::failure(job, &live::pods_of(&context.client, &key).await?))
}
