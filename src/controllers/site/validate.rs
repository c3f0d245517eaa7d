//! Whether the spec and the world it names make sense, and the answers that building needs. Pure.

use frappe_crds::{
    FrappeBench,
    common::{DatabaseConfig, DatabaseMode, DatabaseProvider},
    site::SitePhase,
};
use kube::{ResourceExt, core::DynamicObject};

use super::{
    build,
    observe::Observed,
    reason::Reason,
    status::{Report, Stage},
};
use crate::{
    controllers::bench::build::{GUNICORN_WORKERS_AND_THREADS, worker_scaling},
    domain::{condition, key::Key, names::module},
};

/// Connections of a site's account beside those of gunicorn and the workers: scheduler, Jobs, a person.
const SPARE_CONNECTIONS: i32 = 10;
/// Port of a MariaDB that names none.
const MARIADB_PORT: i64 = 3306;
/// Ends or beginnings of annotation names that put text, hosts or credentials into an ingress controller's
/// configuration (the class of CVE-2021-25742 and CVE-2025-1974).
const REFUSED_ANNOTATIONS: [&str; 6] =
    ["-snippet", "/auth-", "/mirror-", "/server-alias", "/proxy-set-headers", "/custom-http-errors"];

/// The answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validated {
    /// Host that the site is reached at.
    pub host: String,
    /// The MariaDB object.
    pub server: Key,
    /// Host name of the database server.
    pub database_host: String,
    /// Port of the database server.
    pub database_port: i64,
    /// Most connections of the site's account.
    pub connections_max: i32,
    /// Apps to install, without frappe.
    pub apps: Vec<String>,
    /// Secret with the password of Administrator.
    pub admin_secret: String,
}

/// Judges the spec, then the world.
pub fn validate(observed: &Observed) -> Result<Validated, Report> {
    refuse(observed)?;
    let bench = usable_bench(observed)?;
    let server = server(observed, bench)?;
    let spec = &observed.site.spec;
    let admin_secret = spec.admin_password_secret_ref.as_ref().map(|reference| reference.name.clone());
    Ok(Validated {
        host: spec.site_name.clone(),
        connections_max: connections_max(bench),
        apps: apps(observed, bench)?,
        admin_secret: admin_secret.unwrap_or_else(|| build::admin_password_name(&observed.site.name_any())),
        database_host: server.host,
        database_port: server.port,
        server: server.key,
    })
}

/// What this version does not do is refused, never half done.
fn refuse(observed: &Observed) -> Result<(), Report> {
    let spec = &observed.site.spec;
    let own = observed.site.namespace().unwrap_or_default();
    let failed = |at, reason, message: String| Err(Report::failed(Stage::Bench, at, reason, message));
    if spec.bench_ref.namespace.as_ref().is_some_and(|namespace| *namespace != own) {
        let message = format!("benchRef.namespace is not {own}: a site must be in its bench's namespace");
        return failed(Stage::Bench, Reason::BenchNotPermitted, message);
    }
    if let Some(reference) = &spec.admin_password_secret_ref
        && reference.namespace.as_ref().is_some_and(|namespace| *namespace != own)
    {
        let message =
            format!("adminPasswordSecretRef.namespace is not {own}: a Secret must be in the site's namespace");
        return failed(Stage::Init, Reason::SecretNamespaceRefused, message);
    }
    if spec.domain.as_ref().is_some_and(|domain| *domain != spec.site_name) {
        let message = "domain is not siteName: this version serves a site at its siteName only; remove spec.domain";
        return failed(Stage::Route, Reason::DomainNotSupported, message.to_owned());
    }
    if spec.route_config.as_ref().is_some_and(|route| route.enabled) {
        let message = "routeConfig.enabled: this version makes no OpenShift Route; remove spec.routeConfig";
        return failed(Stage::Route, Reason::RouteNotSupported, message.to_owned());
    }
    let annotations = spec.ingress.as_ref().map(|ingress| ingress.annotations.clone()).unwrap_or_default();
    if let Some(name) = annotations.keys().find(|name| REFUSED_ANNOTATIONS.iter().any(|it| name.contains(it))) {
        let message =
            format!("ingress.annotations: {name} would change the ingress controller's configuration; remove it");
        return failed(Stage::Route, Reason::AnnotationRefused, message);
    }
    Ok(())
}

/// The bench, if the site can go on with it. A site that is served already does not follow a bench that rolls over.
fn usable_bench(observed: &Observed) -> Result<&FrappeBench, Report> {
    let name = &observed.site.spec.bench_ref.name;
    let pending = |reason, message| Report::pending(Stage::Bench, Stage::Bench, reason, message);
    let Some(bench) = observed.bench.as_deref() else {
        let message = format!("FrappeBench {name} does not exist in this namespace: create it");
        return Err(pending(Reason::BenchNotFound, message));
    };
    let served = observed.site.status.as_ref().is_some_and(|status| status.initialized);
    if bench.metadata.deletion_timestamp.is_some() && !served {
        return Err(pending(Reason::BenchDeleting, format!("FrappeBench {name} is being deleted")));
    }
    let status = bench.status.clone().unwrap_or_default();
    if !condition::is_true(&status.conditions, "Ready") && !served {
        // Not the bench's own message: it changes with every pod, and each change would be a write for every site.
        return Err(pending(Reason::BenchNotReady, format!("FrappeBench {name} is not ready; its conditions say why")));
    }
    let suffix = bench.spec.domain_config.as_ref().and_then(|config| config.suffix.clone());
    let suffix = suffix.or_else(|| observed.config.default_domain_suffix.clone());
    let site_name = &observed.site.spec.site_name;
    if let Some(suffix) = suffix.filter(|_| !site_name.contains('.') && observed.site.spec.domain.is_none()) {
        let message = format!(
            "siteName {site_name} would be served at {site_name}{suffix}: this version serves a site at its siteName only; \
             give the whole host as siteName"
        );
        return Err(Report::failed(Stage::Database, Stage::Route, Reason::DomainNotSupported, message));
    }
    allowed_host(bench, site_name)?;
    Ok(bench)
}

/// A bench may limit the hosts of its sites, so that no tenant takes another's.
fn allowed_host(bench: &FrappeBench, host: &str) -> Result<(), Report> {
    let suffixes = bench.spec.domain_config.clone().unwrap_or_default().allowed_suffixes;
    let within = |suffix: &String| {
        let suffix = suffix.trim_start_matches('.');
        host == suffix || host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
    };
    if suffixes.is_empty() || suffixes.iter().any(within) {
        return Ok(());
    }
    let message = format!("host {host} is not under one of the bench's allowedSuffixes ({})", suffixes.join(", "));
    Err(Report::failed(Stage::Database, Stage::Route, Reason::HostNotAllowed, message))
}

/// A database server.
struct Server {
    key: Key,
    host: String,
    port: i64,
}

/// The MariaDB of the site, else of the bench, else the only one of the namespace.
fn server(observed: &Observed, bench: &FrappeBench) -> Result<Server, Report> {
    let (site, shared) =
        (observed.site.spec.db_config.clone().unwrap_or_default(), bench.spec.db_config.clone().unwrap_or_default());
    let at = Stage::Database;
    let provider = site.provider.or(shared.provider).unwrap_or_default();
    let mode = site.mode.or(shared.mode).unwrap_or_default();
    let foreign = |config: &DatabaseConfig| config.connection_secret_ref.is_some() || config.host.is_some();
    if provider != DatabaseProvider::Mariadb || mode != DatabaseMode::Shared || foreign(&site) || foreign(&shared) {
        let message = "dbConfig: this version makes databases on a shared MariaDB only; set provider: mariadb, mode: shared \
                       and no host or connectionSecretRef";
        return Err(Report::failed(at, at, Reason::DatabaseNotSupported, message.to_owned()));
    }
    if !observed.mariadb_installed {
        let message =
            "the MariaDB operator is not installed: the kinds of k8s.mariadb.com do not exist in this cluster";
        return Err(Report::pending(at, at, Reason::MariaDbOperatorMissing, message.to_owned()));
    }
    let own = observed.site.namespace().unwrap_or_default();
    let chosen = site.mariadb_ref.or(shared.mariadb_ref);
    let wanted = chosen.map(|reference| Key::new(reference.namespace.unwrap_or_else(|| own.clone()), reference.name));
    let mut found = observed.servers.iter().filter(|server| match &wanted {
        Some(key) => Key::of(server.as_ref()) == *key,
        None => server.namespace().as_deref() == Some(own.as_str()),
    });
    let (Some(server), None) = (found.next(), found.next()) else {
        let message = match wanted {
            Some(key) => format!("MariaDB {key} does not exist: create it or correct dbConfig.mariadbRef"),
            None => format!(
                "dbConfig.mariadbRef is missing and namespace {own} does not have exactly one MariaDB: create one, or name \
                 one in the bench's or the site's dbConfig.mariadbRef"
            ),
        };
        return Err(Report::pending(at, at, Reason::DatabaseServerNotFound, message));
    };
    let key = Key::of(server.as_ref());
    let (host, port) = address(&key, Some(server));
    Ok(Server { key, host, port })
}

/// Host name and port of a MariaDB: of its primary where it has replicas.
pub fn address(key: &Key, server: Option<&DynamicObject>) -> (String, i64) {
    let spec = server.map(|it| it.data["spec"].clone()).unwrap_or_default();
    let highly_available = spec["replicas"].as_i64().unwrap_or(1) > 1
        || spec["galera"]["enabled"] == true
        || spec["replication"]["enabled"] == true;
    let service = if highly_available { format!("{}-primary", key.name) } else { key.name.clone() };
    (format!("{service}.{}.svc", key.namespace), spec["port"].as_i64().unwrap_or(MARIADB_PORT))
}

/// Frappe opens one connection for each request and each job.
fn connections_max(bench: &FrappeBench) -> i32 {
    let pods = bench.spec.component_replicas.as_ref().and_then(|it| it.gunicorn).unwrap_or(1);
    let web = bench.spec.web.clone().unwrap_or_default();
    let [workers, threads] = GUNICORN_WORKERS_AND_THREADS;
    let gunicorn = pods * web.gunicorn_workers.unwrap_or(workers) * web.gunicorn_threads.unwrap_or(threads);
    let scaling = worker_scaling(&bench.spec);
    let workers: i32 = scaling.iter().map(|it| it.wanted.map_or(it.fixed, |wanted| wanted.most.max(it.fixed))).sum();
    gunicorn + workers + SPARE_CONNECTIONS
}

/// The site's apps, else the bench's; each must be one of the bench's.
fn apps(observed: &Observed, bench: &FrappeBench) -> Result<Vec<String>, Report> {
    let offered: Vec<String> = bench.spec.apps.iter().map(|app| module(&app.name)).collect();
    let wanted = observed.site.spec.apps.clone().unwrap_or_else(|| offered.clone());
    let wanted: Vec<String> = wanted.iter().map(|app| module(app)).filter(|app| app != "frappe").collect();
    match wanted.iter().find(|app| !offered.contains(app)) {
        None => Ok(wanted),
        Some(app) => {
            let message =
                format!("apps: {app} is not one of the bench's apps ({}): add it to the bench", offered.join(", "));
            Err(Report {
                phase: SitePhase::Failed,
                ..Report::pending(Stage::Database, Stage::Init, Reason::AppNotOnBench, message)
            })
        }
    }
}
