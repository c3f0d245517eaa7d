//! The MariaDB operator's objects for a site on a shared server.

use serde_json::{Value, json};

use super::{Input, credentials_name, database_object_names};
use crate::domain::{
    key::Key,
    object::{Desired, Kind},
};

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
    fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "Skip",
            Self::Delete => "Delete",
        }
    }
}

/// The Database: `utf8mb4`, since the MariaDB operator's default cannot hold every character and cannot be changed.
pub fn database(input: &Input, cleanup: Cleanup) -> Desired {
    let [name, _, _] = database_object_names(&input.name());
    let spec = json!({
        "mariaDbRef": server(input), "name": input.database_name,
        "characterSet": "utf8mb4", "collate": "utf8mb4_unicode_ci", "cleanupPolicy": cleanup.as_str(),
    });
    object(input, Kind::Database, name, &spec)
}

/// The account: one name for account and database, because Frappe before version 16 takes them to be equal.
pub fn user(input: &Input, cleanup: Cleanup) -> Desired {
    let [_, name, _] = database_object_names(&input.name());
    let spec = json!({
        "mariaDbRef": server(input), "name": input.database_name, "host": "%",
        "passwordSecretKeyRef": {"name": credentials_name(&input.name()), "key": "password"},
        "maxUserConnections": input.valid.connections_max, "cleanupPolicy": cleanup.as_str(),
    });
    object(input, Kind::User, name, &spec)
}

/// The account's rights on its own database.
pub fn grant(input: &Input, cleanup: Cleanup) -> Desired {
    let [_, _, name] = database_object_names(&input.name());
    let spec = json!({
        "mariaDbRef": server(input), "privileges": PRIVILEGES, "database": input.database_name, "table": "*",
        "username": input.database_name, "host": "%", "grantOption": false, "cleanupPolicy": cleanup.as_str(),
    });
    object(input, Kind::Grant, name, &spec)
}

fn server(input: &Input) -> Value {
    json!({"name": input.valid.server.name, "namespace": input.valid.server.namespace})
}

fn object(input: &Input, kind: Kind, name: String, spec: &Value) -> Desired {
    Desired::untyped(kind, Key::new(input.key("").namespace, name), input.kept_metadata(), spec)
}
