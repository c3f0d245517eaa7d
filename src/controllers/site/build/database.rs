//! The MariaDB operator's objects for a site, and the database in a Job's request.

use frappe_crds::common::DatabaseConfig;
use k8s_openapi::api::core::v1::SecretKeySelector;
use serde::Serialize;

use crate::{
    config::OperatorConfig,
    controllers::site::{
        model::{Database, Input, Server},
        permissions::STORAGE_SIZE,
    },
    domain::{
        foreign::{
            Cleanup, DatabaseSpec, GrantSpec, MariaDbSpec, MariaDbStorage, RetentionPolicy, ServerReference, UserSpec,
        },
        key::Key,
        object::Desired,
    },
};

/// Settings of a dedicated server that Frappe requires.
const SERVER_SETTINGS: &str = "[mariadb]\ncharacter-set-server=utf8mb4\ncollation-server=utf8mb4_unicode_ci\n\
                               skip-character-set-client-handshake\nlog_bin_trust_function_creators=1\n";

/// The guide's privileges: Frappe needs them to run, migrate, back up and restore; without GRANT OPTION.
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

/// The Database with `utf8mb4`: the MariaDB operator's default does not support every character, and cannot be changed later.
pub fn database(input: &Input, server: &Server, cleanup: Cleanup) -> Desired {
    let spec = DatabaseSpec {
        maria_db_ref: ServerReference::from(&server.key),
        name: input.known.name.clone(),
        character_set: "utf8mb4",
        collate: "utf8mb4_unicode_ci",
        cleanup_policy: cleanup,
    };
    input.kept(input.key("db"), spec).into()
}

/// The user, with the name of the database: Frappe before version 16 requires equal names.
pub fn user(input: &Input, server: &Server, cleanup: Cleanup) -> Desired {
    let spec = UserSpec {
        maria_db_ref: ServerReference::from(&server.key),
        name: input.known.user.clone(),
        host: "%",
        password_secret_key_ref: password_of(input.valid.place.credentials()),
        max_user_connections: input.valid.connections_max,
        cleanup_policy: cleanup,
    };
    input.kept(input.key("user"), spec).into()
}

/// The user's privileges on its database.
pub fn grant(input: &Input, server: &Server, cleanup: Cleanup) -> Desired {
    let spec = GrantSpec {
        maria_db_ref: ServerReference::from(&server.key),
        privileges: &PRIVILEGES,
        database: input.known.name.clone(),
        table: "*",
        username: input.known.user.clone(),
        host: "%",
        grant_option: false,
        cleanup_policy: cleanup,
    };
    input.kept(input.key("grant"), spec).into()
}

fn password_of(secret: Key) -> SecretKeySelector {
    SecretKeySelector { name: secret.name, key: "password".to_owned(), optional: None }
}

/// The dedicated MariaDB of a site.
pub fn own_server(input: &Input, config: &DatabaseConfig, operator: &OperatorConfig) -> Desired {
    let size = config.storage_size.as_ref().map_or(STORAGE_SIZE, |it| it.0.as_str());
    let spec = MariaDbSpec {
        image: config.image.clone().unwrap_or_else(|| operator.default_mariadb_image.clone()),
        root_password_secret_key_ref: password_of(input.valid.place.own_server_root()),
        storage: MariaDbStorage {
            size: size.to_owned(),
            resize_in_use_volumes: true,
            pvc_retention_policy: RetentionPolicy { when_deleted: "Delete", when_scaled: "Retain" },
        },
        replicas: 1,
        port: 3306,
        my_cnf: SERVER_SETTINGS,
        resources: config.resources.clone(),
    };
    input.kept(input.valid.place.own_server(), spec).into()
}

/// The database in a Job's request.
#[derive(Serialize)]
pub struct DatabaseRequest<'a> {
    #[serde(rename = "type")]
    engine: &'a str,
    /// Whether this operator created it.
    own: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
}

/// The database in a Job's request; the runner reads omitted fields from the referenced Secret.
pub fn database_request<'a>(database: &'a Database, name: &'a str, user: &'a str) -> DatabaseRequest<'a> {
    match database {
        Database::Made(server) => DatabaseRequest {
            engine: "mariadb",
            own: true,
            host: Some(&server.host),
            port: Some(server.port),
            name: Some(name),
            user: Some(user).filter(|it| *it != name),
        },
        Database::Existing(existing) => DatabaseRequest {
            engine: existing.engine,
            own: false,
            host: existing.host.as_deref(),
            port: existing.port,
            name: None,
            user: None,
        },
    }
}
