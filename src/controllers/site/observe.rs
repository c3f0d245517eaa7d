//! Everything a plan needs to know of the world, read once. Almost all of it comes from caches.
#![allow(clippy::disallowed_methods, reason = "the time is observed here, for the plan")]

use std::{collections::BTreeMap, sync::Arc};

use frappe_crds::{FrappeBench, FrappeDomain, FrappeSite, site::SitePhase};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::{
    Api, ResourceExt,
    api::ListParams,
    core::{DynamicObject, PartialObjectMeta},
};

use super::build;
use crate::{
    config::OperatorConfig,
    controllers::{bench::build as bench, context::Context, job},
    domain::{capabilities::Capabilities, condition, key::Key, labels, names::operation_job, object::Kind},
    io::random,
};

/// Who holds the site's host name.
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

/// Values that a plan may use if it must decide something for the first time.
#[derive(Clone, Default)]
pub struct Fresh {
    /// Identity of the site.
    pub identity: String,
    /// Password of the database account.
    pub database_password: String,
    /// Frappe's encryption key.
    pub encryption_key: String,
    /// Password of Administrator.
    pub admin_password: String,
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
    /// The claim of its host.
    pub claim: Option<Arc<DynamicObject>>,
    /// Who holds the claim.
    pub holder: Holder,
    /// Metadata of `SITE-db-password`.
    pub credentials: Option<Arc<DynamicObject>>,
    /// Metadata of the Secret with the password of Administrator, generated or referenced.
    pub admin_secret: Option<Arc<DynamicObject>>,
    /// Whether the MariaDB operator's kinds exist.
    pub mariadb_installed: bool,
    /// MariaDB objects of the cluster.
    pub servers: Vec<Arc<DynamicObject>>,
    /// Database, User and Grant.
    pub sql: [Option<Arc<DynamicObject>>; 3],
    /// The site's own Jobs by name.
    pub jobs: BTreeMap<String, Arc<DynamicObject>>,
    /// The Ingress.
    pub ingress: Option<Arc<DynamicObject>>,
    /// What the runner said when the present operation's Job failed; read only where the status does not have it.
    pub failure: Option<String>,
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
}

impl Observed {
    /// What the builders need to know of the site's bench.
    pub fn bench_input<'a>(&'a self, bench: &'a FrappeBench) -> bench::Input<'a> {
        bench::Input { bench, config: &self.config, capabilities: self.capabilities, redis_secret_version: None }
    }
}

/// Reads the world of one site.
pub async fn observe(context: &Context, site: Arc<FrappeSite>, turn: Turn) -> Result<Observed, kube::Error> {
    let namespace = site.namespace().unwrap_or_default();
    let name = site.name_any();
    let key = |name: &str| Key::new(&namespace, name);
    let cached = |kind: Kind, name: &str| context.site_children.get(kind, &key(name));
    let claim = context.site_children.get(Kind::Domain, &Key::new("", &site.spec.site_name));
    let holder = holder(context, &site, claim.as_deref()).await?;
    let bench_namespace = site.spec.bench_ref.namespace.clone().unwrap_or_else(|| namespace.clone());
    let [database, user, grant] = build::database_object_names(&name);
    let jobs = jobs_of(context, &site);
    let failure = failure(context, &site, &jobs).await?;
    let credentials = credentials(context, &site).await?;
    let deleting = site.metadata.deletion_timestamp.is_some();
    let namespace_terminating =
        turn.terminating || (deleting && credentials.is_none() && is_terminating(context, &namespace).await?);
    Ok(Observed {
        config: context.config(),
        may_start_job: true,
        capabilities: context.capabilities(),
        bench: context.benches.get(&Key::new(bench_namespace, &site.spec.bench_ref.name)),
        credentials,
        admin_secret: admin_secret(context, &site).await?,
        mariadb_installed: context.mariadb_installed(),
        servers: context.site_children.all(Kind::MariaDb),
        sql: [cached(Kind::Database, &database), cached(Kind::User, &user), cached(Kind::Grant, &grant)],
        ingress: cached(Kind::Ingress, &build::ingress_name(&name)),
        epoch: turn.epoch,
        fresh: Fresh {
            identity: random::id(),
            database_password: random::password(),
            encryption_key: random::encryption_key(),
            admin_password: random::password(),
        },
        now: Timestamp::now(),
        claim,
        holder,
        jobs,
        failure,
        namespace_terminating,
        site,
    })
}

/// Reads the holder of the claim live if it is another: a cache might not know that it is gone.
async fn holder(context: &Context, site: &FrappeSite, claim: Option<&DynamicObject>) -> Result<Holder, kube::Error> {
    let Some(claim) = claim else { return Ok(Holder::Nobody) };
    let parsed: Option<FrappeDomain> = claim.clone().try_parse().ok();
    let Some(holder) = parsed.map(|domain| domain.spec.site) else { return Ok(Holder::Gone) };
    if Some(&holder.uid) == site.uid().as_ref() {
        return Ok(Holder::Us);
    }
    let api: Api<PartialObjectMeta<FrappeSite>> = Api::namespaced(context.client.clone(), &holder.namespace);
    let alive = api.get_opt(&holder.name).await?.is_some_and(|found| found.uid().as_ref() == Some(&holder.uid));
    Ok(if alive { Holder::Other(Key::new(holder.namespace, holder.name)) } else { Holder::Gone })
}

/// Whether the namespace is going: then it took the site's Secrets along, and nothing can be made in it.
async fn is_terminating(context: &Context, namespace: &str) -> Result<bool, kube::Error> {
    let api: Api<Namespace> = Api::all(context.client.clone());
    Ok(api.get_opt(namespace).await?.is_none_or(|found| found.metadata.deletion_timestamp.is_some()))
}

/// Jobs that belong to this very site, not to one of the same name before it.
fn jobs_of(context: &Context, site: &FrappeSite) -> BTreeMap<String, Arc<DynamicObject>> {
    let status = site.status.clone().unwrap_or_default();
    let last = status.operation.map_or(1, |operation| operation.attempt);
    let attempts = (last - 1).max(1)..=last + 1;
    let names = attempts.flat_map(|attempt| ["init", "delete"].map(|it| operation_job(&site.name_any(), it, attempt)));
    let namespace = site.namespace().unwrap_or_default();
    names
        .filter_map(|name| context.site_children.get(Kind::Job, &Key::new(&namespace, name)))
        .filter(|job| job.labels().get(labels::SITE_UID) == site.uid().as_ref())
        .map(|job| (job.name_any(), job))
        .collect()
}

/// The Secret with the account. Where the cache has none although the site had one, its label may have been removed:
/// then it is read live.
async fn credentials(context: &Context, site: &FrappeSite) -> Result<Option<Arc<DynamicObject>>, kube::Error> {
    let had = site.status.as_ref().is_some_and(|status| status.identity.is_some());
    secret(context, site, &build::credentials_name(&site.name_any()), had).await
}

async fn admin_secret(context: &Context, site: &FrappeSite) -> Result<Option<Arc<DynamicObject>>, kube::Error> {
    let own = site.namespace();
    match &site.spec.admin_password_secret_ref {
        Some(reference) if reference.namespace.is_none() || reference.namespace == own => {
            secret(context, site, &reference.name, true).await
        }
        Some(_) => Ok(None),
        None => {
            let had = site.status.as_ref().is_some_and(|status| status.identity.is_some());
            secret(context, site, &build::admin_password_name(&site.name_any()), had).await
        }
    }
}

async fn secret(
    context: &Context,
    site: &FrappeSite,
    name: &str,
    look: bool,
) -> Result<Option<Arc<DynamicObject>>, kube::Error> {
    let namespace = site.namespace().unwrap_or_default();
    if let Some(cached) = context.site_children.get(Kind::Secret, &Key::new(&namespace, name)) {
        return Ok(Some(cached));
    }
    if !look {
        return Ok(None);
    }
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(context.client.clone(), &namespace);
    let found = api.get_opt(name).await?;
    Ok(found
        .map(|it| Arc::new(DynamicObject { types: it.types, metadata: it.metadata, data: serde_json::Value::Null })))
}

/// What the runner left in its termination message, where the status does not hold it yet.
async fn failure(
    context: &Context,
    site: &FrappeSite,
    jobs: &BTreeMap<String, Arc<DynamicObject>>,
) -> Result<Option<String>, kube::Error> {
    let status = site.status.clone().unwrap_or_default();
    let Some(operation) = status.operation else { return Ok(None) };
    let verb = super::plan::verb(operation.kind);
    let name = operation_job(&site.name_any(), verb, operation.attempt);
    let failed = jobs.get(&name).is_some_and(|it| matches!(job::state(it), job::State::Failed(_)));
    let told = condition::find(&status.conditions, "Ready")
        .is_some_and(|it| it.message.contains(&format!("Job {name} failed")));
    if !failed || (told && status.phase != SitePhase::Ready) {
        return Ok(None);
    }
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &site.namespace().unwrap_or_default());
    let selector = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
    Ok(job::termination_message(&pods.list(&selector).await?.items))
}
