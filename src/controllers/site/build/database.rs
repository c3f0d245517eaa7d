//! The MariaDB operator's objects for a site, and what a Job is told of a database.

use frappe_crds::common::DatabaseConfig;
use serde_json::{Value, json};

use crate::{
    config::OperatorConfig,
    controllers::site::{
        model::{Database, Input, Server},
        permissions::STORAGE_SIZE,
    },
    domain::object::{Desired, Kind},
};

/// Settings of a server of its own, as Frappe asks for them.
const SERVER_SETTINGS: &str = "[mariadb]\ncharacter-set-server=utf8mb4\ncollation-server=utf8mb4_unicode_ci\n\
                               skip-character-set-client-handshake\nlog_bin_trust_function_creators=1\n";

/// The privileges of the guide: what Frappe needs to run, migrate, back up and restore, without GRANT OPTION.
const PRIVILEGES: [&str; 18] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "ALTER",
    "INDEX",
    "DROP",
    "REFERENCES",
    "CREATE TEMPORARY TABLES",
    "LOCK TABLES",
    "EXECUTE",
    "CREATE VIEW",
    "SHOW VIEW",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "EVENT",
    "TRIGGER",
];

/// What the MariaDB operator does on the server when an object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Nothing: the default of this operator, so that no deletion by mistake reaches the server.
    Skip,
    /// Drop it: only while the site is being deleted.
    Delete,
}

impl Cleanup {
    /// As the MariaDB operator calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "Skip",
            Self::Delete => "Delete",
        }
    }
}

/// The Database: `utf8mb4`, since the MariaDB operator's default cannot hold every character and cannot be changed.
pub fn database(input: &Input, server: &Server, cleanup: Cleanup) -> Desired {
    let spec = json!({
        "name": input.known.name,
        "characterSet": "utf8mb4", "collate": "utf8mb4_unicode_ci", "cleanupPolicy": cleanup.as_str(),
    });
    object(input, server, Kind::Database, "db", spec)
}

/// The account: one name for account and database, because Frappe before version 16 takes them to be equal.
pub fn user(input: &Input, server: &Server, cleanup: Cleanup) -> Desired {
    let spec = json!({
        "name": input.known.user, "host": "%",
        "passwordSecretKeyRef": {"name": input.valid.place.credentials().name, "key": "password"},
        "maxUserConnections": input.valid.connections_max, "cleanupPolicy": cleanup.as_str(),
    });
    object(input, server, Kind::User, "user", spec)
}

/// The account's rights on its own database.
pub fn grant(input: &Input, server: &Server, cleanup: Cleanup) -> Desired {
    let spec = json!({
        "privileges": PRIVILEGES, "database": input.known.name, "table": "*",
        "username": input.known.user, "host": "%", "grantOption": false, "cleanupPolicy": cleanup.as_str(),
    });
    object(input, server, Kind::Grant, "grant", spec)
}

fn object(input: &Input, server: &Server, kind: Kind, suffix: &str, mut spec: Value) -> Desired {
    spec["mariaDbRef"] = json!({"name": server.key.name, "namespace": server.key.namespace});
    Desired::untyped(kind, input.key(suffix), input.kept_metadata(), &spec)
}

/// The MariaDB of a site that has its own.
pub fn own_server(input: &Input, config: &DatabaseConfig, operator: &OperatorConfig) -> Desired {
    let size = config.storage_size.as_ref().map_or(STORAGE_SIZE, |it| it.0.as_str());
    let mut spec = json!({
        "image": config.image.clone().unwrap_or_else(|| operator.default_mariadb_image.clone()),
        "rootPasswordSecretKeyRef": {"name": input.valid.place.own_server_root().name, "key": "password"},
        "storage": {"size": size, "resizeInUseVolumes": true,
                    "pvcRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"}},
        "replicas": 1,
        "port": 3306,
        "myCnf": SERVER_SETTINGS,
    });
    if let Some(resources) = &config.resources {
        spec["resources"] = json!(resources);
    }
    Desired::untyped(Kind::MariaDb, input.valid.place.own_server(), input.kept_metadata(), &spec)
}

/// What a Job is told of the database: what is left out, the runner reads from the Secret that the site names.
pub fn database_request(database: &Database, name: &str, user: &str) -> Value {
    match database {
        Database::Made(server) => {
            let mut request =
                json!({"type": "mariadb", "own": true, "host": server.host, "port": server.port, "name": name});
            if user != name {
                request["user"] = json!(user);
            }
            request
        }
        Database::Existing(existing) => {
            let mut request = json!({"type": existing.engine, "own": false});
            let fields =
                [("host", existing.host.as_ref().map(|it| json!(it))), ("port", existing.port.map(|it| json!(it)))];
            for (key, value) in fields {
                if let Some(value) = value {
                    request[key] = value;
                }
            }
            request
        }
    }
}
