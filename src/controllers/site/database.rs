//! The database of a site: decided once, from the site's `dbConfig` merged over the bench's. Pure.

use frappe_crds::{
    FrappeBench,
    common::{DatabaseConfig, DatabaseMode, DatabaseProvider, Port},
};
use kube::{ResourceExt, core::DynamicObject};

use super::{
    adoption::is_adopting,
    model::{Choice, Database, Existing, Observed, Report, Server, Stage},
    permissions::may_use_server,
    place::Place,
    reason::Reason,
    record,
};
use crate::{
    domain::{key::Key, labels, live},
    io::writer::NOT_OURS,
};

/// Default port of a MariaDB.
const MARIADB_PORT: i64 = 3306;

/// The site's `dbConfig` merged over the bench's, field by field.
pub fn merged(observed: &Observed, bench: &FrappeBench) -> DatabaseConfig {
    let site = observed.site.spec.db_config.clone().unwrap_or_default();
    let shared = bench.spec.db_config.clone().unwrap_or_default();
    // A Secret of the bench has one account, which only one site can use: it is the default if the site selects no other database.
    let foreign = site.provider.is_none() && site.mode.is_none() && site.mariadb_ref.is_none();
    // Its password is only used for the bench's server.
    let there = foreign && site.host.is_none() && site.port.is_none();
    DatabaseConfig {
        provider: site.provider.or(shared.provider),
        mode: site.mode.or(shared.mode),
        mariadb_ref: site.mariadb_ref.or(shared.mariadb_ref),
        host: site.host.or(shared.host.filter(|_| foreign)),
        port: site.port.or(shared.port.filter(|_| foreign)),
        connection_secret_ref: site.connection_secret_ref.or(shared.connection_secret_ref.filter(|_| there)),
        storage_size: site.storage_size.or(shared.storage_size),
        resources: site.resources.or(shared.resources),
        image: site.image.or(shared.image),
    }
}

/// The database, as decided when the site was created; later changes of the bench's default have no effect.
pub fn choose(observed: &Observed, bench: &FrappeBench) -> Result<Database, Report> {
    let config = merged(observed, bench);
    match record::known(observed).choice {
        Some(Choice::Dedicated) => dedicated(observed),
        Some(Choice::Shared(key)) => shared(observed, bench, Some(key), &config),
        Some(Choice::Existing(engine)) => existing(observed, &config, engine),
        None if config.provider == Some(DatabaseProvider::Postgres) => existing(observed, &config, "postgres"),
        None if config.provider == Some(DatabaseProvider::External) || config.connection_secret_ref.is_some() => {
            existing(observed, &config, "mariadb")
        }
        None if config.mode == Some(DatabaseMode::Dedicated) => dedicated(observed),
        None => shared(observed, bench, None, &config),
    }
}

fn installed(observed: &Observed) -> Result<(), Report> {
    if observed.mariadb_installed {
        return Ok(());
    }
    let message = "the MariaDB operator is not installed: the kinds of k8s.mariadb.com do not exist in this cluster";
    Err(Report::pending(Stage::Database, Stage::Database, Reason::MariaDbOperatorMissing, message.to_owned()))
}

fn dedicated(observed: &Observed) -> Result<Database, Report> {
    installed(observed)?;
    let key = Place::of(&observed.site).own_server();
    // The owner of an object is checked before it is adopted.
    if observed.namesake_server().is_some() && observed.own_server().is_none() && !is_adopting(observed) {
        let message = format!("apply MariaDb {key}: {NOT_OURS}");
        return Err(Report::failed(Stage::Database, Stage::Database, Reason::WriteRejected, message));
    }
    let (host, port) = address(&key, None);
    Ok(Database::Made(Server { key, dedicated: true, host, port }))
}

/// The recorded MariaDB, else that of the site, of the bench, of the operator's ConfigMap, else the only one in the
/// namespace.
fn shared(
    observed: &Observed,
    bench: &FrappeBench,
    decided: Option<Key>,
    config: &DatabaseConfig,
) -> Result<Database, Report> {
    installed(observed)?;
    let home = Place::of(&observed.site).namespace;
    let asked = observed.site.spec.db_config.as_ref().and_then(|it| it.mariadb_ref.as_ref());
    let asked = asked.map(|it| Key::new(it.namespace.clone().unwrap_or_else(|| home.clone()), &it.name));
    // The message does not reveal whether a server does not exist or may not be used.
    if let (None, Some(key)) = (&decided, asked.filter(|key| !may_use_server(observed, bench, key))) {
        let message = format!(
            "dbConfig.mariadbRef: MariaDB {key} does not exist, or is not allowed for this site: remove the reference, or \
             have its owner add this site's namespace to its annotation {}",
            labels::ALLOWED_NAMESPACES
        );
        return Err(Report::failed(Stage::Database, Stage::Database, Reason::DatabaseNotAllowed, message));
    }
    let wanted = decided.or_else(|| {
        let reference = config.mariadb_ref.clone();
        let named = reference.map(|it| Key::new(it.namespace.unwrap_or_else(|| home.clone()), it.name));
        named.or_else(|| observed.config.default_mariadb.clone())
    });
    let mut found = observed.servers.iter().filter(|server| match &wanted {
        Some(key) => Key::of(server.as_ref()) == *key,
        // A dedicated server is not used for other sites.
        None => server.namespace().as_deref() == Some(home.as_str()) && !server.labels().contains_key(labels::SITE_UID),
    });
    let (Some(server), None) = (found.next(), found.next()) else {
        let message = match wanted {
            Some(key) => format!(
                "MariaDB {key} does not exist: create it, or correct dbConfig.mariadbRef or the ConfigMap's defaultMariaDB"
            ),
            None => format!(
                "dbConfig.mariadbRef is missing and namespace {home} does not have exactly one MariaDB: create one, or \
                 set dbConfig.mariadbRef of the bench or the site"
            ),
        };
        return Err(Report::pending(Stage::Database, Stage::Database, Reason::DatabaseServerNotFound, message));
    };
    let key = Key::of(server.as_ref());
    let (host, port) = address(&key, Some(server));
    Ok(Database::Made(Server { key, dedicated: false, host, port }))
}

/// Host name and port of a MariaDB; of its primary if it has replicas.
fn address(key: &Key, server: Option<&DynamicObject>) -> (String, i64) {
    let number = |pointer| server.and_then(|it| live::field::<i64>(it, pointer));
    let is_on = |pointer| server.and_then(|it| live::field(it, pointer)).unwrap_or(false);
    let has_replicas = number("/spec/replicas").unwrap_or(1) > 1;
    let highly_available = has_replicas || is_on("/spec/galera/enabled") || is_on("/spec/replication/enabled");
    let service = if highly_available { format!("{}-primary", key.name) } else { key.name.clone() };
    (format!("{service}.{}.svc", key.namespace), number("/spec/port").unwrap_or(MARIADB_PORT))
}

fn existing(observed: &Observed, config: &DatabaseConfig, engine: &'static str) -> Result<Database, Report> {
    let at = Stage::Database;
    let failed = |reason, message: String| Err(Report::failed(at, at, reason, message));
    let Some(reference) = &config.connection_secret_ref else {
        let message = "dbConfig.connectionSecretRef is missing: reference a Secret with the keys username and password";
        return failed(Reason::ConnectionSecretMissing, message.to_owned());
    };
    let own = Key::of(observed.site.as_ref()).namespace;
    if reference.namespace.as_ref().is_some_and(|namespace| *namespace != own) {
        let message =
            format!("dbConfig.connectionSecretRef.namespace is not {own}: a Secret must be in the site's namespace");
        return failed(Reason::SecretNamespaceRefused, message);
    }
    let port = config.port.as_ref().and_then(|Port(port)| port.parse().ok());
    Ok(Database::Existing(Existing { engine, secret: reference.name.clone(), host: config.host.clone(), port }))
}

/// The database of a site that is being deleted, if known: from the record and from existing objects.
pub fn remaining(observed: &Observed) -> Option<Database> {
    let stand_in = FrappeBench::default();
    let bench = observed.bench.as_deref().unwrap_or(&stand_in);
    choose(observed, bench).ok()
}
