//! Validation of a site's spec against the observed state, with the results that the builders need. Pure.

pub mod validated;

use frappe_crds::{
    FrappeBench,
    bench::{AllowedNamespaces, NamespacesFrom, WebConfig},
    site::SitePhase,
};
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};

use validated::{RequestLimits, Validated};

use super::{
    database,
    hosts::Hosts,
    lost_secrets::{lost_secret, missing_secret},
    model::{Database, Holder, Observed, Report, Stage},
    permissions,
    place::Place,
    reason::Reason,
    record,
};
use crate::{
    controllers::{
        bench::{
            build::{GUNICORN_WORKERS_AND_THREADS, worker_scaling},
            seen::is_rolling_out,
        },
        windows::Windows,
    },
    domain::{condition, key::Key, labels, names::module},
};

/// Connections of a site's database user in addition to those of gunicorn and the workers: scheduler, Jobs, a user.
const SPARE_CONNECTIONS: i32 = 10;

/// Why a spec is not valid.
pub struct Refused {
    /// The report.
    pub report: Report,
    /// Whether the cause is not watched.
    pub missing: bool,
}

impl Refused {
    fn new(report: Report, missing: bool) -> Self {
        Self { report, missing }
    }
}

/// Validates the spec, then the objects that it depends on.
pub fn validate(observed: &Observed) -> Result<Validated, Refused> {
    // A Secret is not watched before it is read for a site.
    let of_secret = |it: &Report| matches!(it.reason, Reason::SecretRefused | Reason::SecretCopyRefused);
    let valid = validate_spec(observed).map_err(|it| Refused { missing: of_secret(&it), report: it })?;
    let shown = taken_host(observed)
        .or_else(|| record::foreign_secret(observed, &record::known(observed), &valid.database))
        .map(|it| Refused::new(it, false));
    let absent = || lost_secret(observed).or_else(|| missing_secret(observed, &valid.database));
    match shown.or_else(|| absent().map(|it| Refused::new(it, true))) {
        Some(refused) => Err(refused),
        None => Ok(valid),
    }
}

/// Validates everything except hosts and Secrets.
fn validate_spec(observed: &Observed) -> Result<Validated, Report> {
    refuse(observed)?;
    let site_name = &observed.site.spec.site_name;
    if !is_name(site_name) {
        let message = format!("siteName {site_name:?} is not a DNS name in lower case");
        return Err(Report::failed(Stage::Bench, Stage::Route, Reason::HostInvalid, message));
    }
    let bench = usable_bench(observed)?;
    let place = Place::of(&observed.site);
    let hosts = hosts(observed)?;
    let database = database::choose(observed, bench)?;
    let own_server = match &database {
        Database::Made(server) if server.dedicated => Some(&server.key),
        _ => None,
    };
    let refused = permissions::refusals(observed, bench, own_server);
    let exists = observed.site.status.as_ref().is_some_and(|status| status.initialized);
    if let Some(first) = refused.first().filter(|_| !exists) {
        return Err(first.new_site_report());
    }
    Ok(Validated {
        hosts,
        database,
        refused,
        connections_max: connections_max(bench),
        limits: bench.spec.web.as_ref().map(limits).unwrap_or_default(),
        apps: apps(observed, bench)?,
        removed_apps: modules(&observed.site.spec.removed_apps),
        admin_secret: observed.admin_secret_name(),
        place,
        seal: (),
    })
}

/// A host that another site has claimed.
fn taken_host(observed: &Observed) -> Option<Report> {
    let (host, holder) = observed.claims.iter().find_map(|claim| match &claim.holder {
        Holder::Other(holder) => Some((&claim.host, holder)),
        _ => None,
    })?;
    // Names of other tenants' objects are not revealed.
    let own = observed.site.namespace().as_ref() == Some(&holder.namespace);
    let by = if own { format!("FrappeSite {holder}") } else { "a site in another namespace".to_owned() };
    let message = format!("host {host} is already used by {by}: choose another host, or delete that site");
    Some(Report::pending(Stage::Database, Stage::Route, Reason::HostClaimed, message))
}

/// Errors of the spec alone.
fn refuse(observed: &Observed) -> Result<(), Report> {
    let spec = &observed.site.spec;
    let own = Key::of(observed.site.as_ref()).namespace;
    let failed = |at, reason, message: String| Err(Report::failed(Stage::Bench, at, reason, message));
    if observed.site.annotations().contains_key(labels::TOO_LARGE) {
        let message = "the object is too large (spec larger than 64 KiB in memory) or nested too deeply, and is ignored: \
                       make it smaller, for example siteConfig";
        return failed(Stage::Init, Reason::SpecTooLarge, message.to_owned());
    }
    if let Some(reference) = &spec.admin_password_secret_ref
        && reference.namespace.as_ref().is_some_and(|namespace| *namespace != own)
    {
        let message =
            format!("adminPasswordSecretRef.namespace is not {own}: a Secret must be in the site's namespace");
        return failed(Stage::Init, Reason::SecretNamespaceRefused, message);
    }
    if let Some(key) = spec.site_config.keys().find(|key| spec.site_config_secret_refs.contains_key(*key)) {
        let message = format!("siteConfig and siteConfigSecretRefs both have {key}: remove one");
        return failed(Stage::Init, Reason::SiteConfigRefused, message);
    }
    let windows = spec.update.as_ref().map(|it| it.windows.as_slice()).unwrap_or_default();
    if let Err(message) = Windows::parse(windows, &Key::of(observed.site.as_ref()).to_string()) {
        return failed(Stage::Init, Reason::WindowInvalid, format!("update.{message}"));
    }
    Ok(())
}

/// The bench, if the site can use it. An available site does not wait for a bench's rollout.
fn usable_bench(observed: &Observed) -> Result<&FrappeBench, Report> {
    let name = &observed.site.spec.bench_ref.name;
    let place = Place::of(&observed.site);
    let pending = |reason, message| Report::pending(Stage::Bench, Stage::Bench, reason, message);
    // The message does not reveal whether the bench does not exist or does not allow the site.
    if place.is_foreign() && !observed.bench.as_deref().is_some_and(|bench| allows(observed, bench)) {
        let message = format!(
            "FrappeBench {}/{name} does not exist, or does not allow sites of this namespace: have its owner set \
             spec.allowedSites",
            place.namespace
        );
        return Err(Report::failed(Stage::Bench, Stage::Bench, Reason::BenchNotPermitted, message));
    }
    let Some(bench) = observed.bench.as_deref() else {
        let message = format!("FrappeBench {name} does not exist in this namespace: create it");
        return Err(pending(Reason::BenchNotFound, message));
    };
    let served = observed.site.status.as_ref().is_some_and(|status| status.initialized);
    if bench.metadata.deletion_timestamp.is_some() && !served {
        return Err(pending(Reason::BenchDeleting, format!("FrappeBench {name} is being deleted")));
    }
    let status = bench.status.clone().unwrap_or_default();
    let ready = condition::is_true(&status.conditions, "Ready") && !is_rolling_out(bench);
    // While another image starts, the former revision serves sites, and creates new ones.
    let has_pods = status.revisions.iter().any(|it| it.complete && !it.retired);
    if !ready && !served && !has_pods {
        // Without the bench's message, which changes with every pod: each change would be a write for every site.
        return Err(pending(Reason::BenchNotReady, format!("FrappeBench {name} is not ready; see its conditions")));
    }
    Ok(bench)
}

/// Whether a bench admits sites of another namespace.
fn allows(observed: &Observed, bench: &FrappeBench) -> bool {
    let allowed = bench.spec.allowed_sites.clone().unwrap_or_default().namespaces.unwrap_or_default();
    let AllowedNamespaces { from, selector } = allowed;
    match from.unwrap_or_default() {
        NamespacesFrom::Same => false,
        NamespacesFrom::All => true,
        NamespacesFrom::Selector => {
            let selector: Option<Selector> = selector.and_then(|it| it.try_into().ok());
            let namespace = observed.namespace.as_ref().map(|it| it.labels().clone()).unwrap_or_default();
            selector.is_some_and(|it| it.matches(&namespace))
        }
    }
}

/// Invalid hosts. The API server validates each field; only here the host with its suffix, and fields stored under an older CRD,
/// are checked.
fn hosts(observed: &Observed) -> Result<Hosts, Report> {
    let hosts = observed.hosts.clone();
    let Some(host) = hosts.all().find(|host| !is_name(host)) else { return Ok(hosts) };
    let message =
        format!("host {host:?} is not a DNS name in lower case of at most 253 characters: correct domain or suffix");
    Err(Report::failed(Stage::Database, Stage::Route, Reason::HostInvalid, message))
}

fn is_name(host: &str) -> bool {
    let end = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
    host.len() <= 253
        && host.split('.').all(|label| {
            label.len() <= 63
                && label.starts_with(end)
                && label.ends_with(end)
                && label.chars().all(|it| end(it) || it == '-')
        })
}

/// Connections that one site may have open at once: Frappe opens one for each request and each job.
pub fn connections_max(bench: &FrappeBench) -> i32 {
    let pods = bench.spec.component_replicas.as_ref().and_then(|it| it.gunicorn).unwrap_or(1);
    let web = bench.spec.web.clone().unwrap_or_default();
    let [workers, threads] = GUNICORN_WORKERS_AND_THREADS;
    let gunicorn = pods * web.gunicorn_workers.unwrap_or(workers) * web.gunicorn_threads.unwrap_or(threads);
    let scaling = worker_scaling(&bench.spec);
    let workers: i32 = scaling.iter().map(|it| it.wanted.map_or(it.fixed, |wanted| wanted.most.max(it.fixed))).sum();
    gunicorn + workers + SPARE_CONNECTIONS
}

/// Module names of apps, without Frappe's own.
fn modules(apps: &[String]) -> Vec<String> {
    apps.iter().map(|app| module(app)).filter(|app| app != "frappe").collect()
}

/// The site's apps, else the bench's, without removed ones; each must be one of the bench's. An existing site without `apps`
/// keeps its installed apps: an app that is added to a bench is not installed in all its sites.
fn limits(web: &WebConfig) -> RequestLimits {
    RequestLimits { body_size: web.max_body_size.clone(), seconds: web.request_timeout_seconds }
}

fn apps(observed: &Observed, bench: &FrappeBench) -> Result<Vec<String>, Report> {
    let status = observed.site.status.clone().unwrap_or_default();
    let spec = &observed.site.spec;
    let removed = modules(&spec.removed_apps);
    let Some(named) = &spec.apps else {
        let offered: Vec<String> = bench.spec.apps.iter().map(|app| app.name.clone()).collect();
        let mut apps = modules(if status.initialized { &status.installed_apps } else { &offered });
        apps.retain(|app| !removed.contains(app));
        return Ok(apps);
    };
    let failed = |reason, message| {
        let report = Report::pending(Stage::Database, Stage::Init, reason, message);
        Err(Report { phase: SitePhase::Failed, ..report })
    };
    let offered: Vec<String> = bench.spec.apps.iter().map(|app| module(&app.name)).collect();
    let wanted = modules(named);
    if let Some(app) = wanted.iter().find(|app| removed.contains(app)) {
        return failed(
            Reason::AppsContradict,
            format!("apps and removedApps both contain {app}: remove it from one of them"),
        );
    }
    let Some(app) = wanted.iter().find(|app| !offered.contains(app)) else { return Ok(wanted) };
    let message = format!("apps: {app} is not one of the bench's apps ({}): add it to the bench", offered.join(", "));
    failed(Reason::AppNotOnBench, message)
}
