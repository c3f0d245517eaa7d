//! The configuration that a site's Job applies: settings, hosts, password and apps. Pure.

use kube::{ResourceExt, core::DynamicObject};
use serde::Serialize;

use super::{
    build::database_request,
    model::{Configuration, ConfigurationRequest, Input, Observed},
    route::{encrypted, url},
};
use crate::domain::{labels, names::hash_hex, wire};

/// Hex digits of the hash of a configuration.
const HASH_DIGITS: usize = 16;

/// The desired configuration.
pub fn configuration(observed: &Observed, input: &Input) -> Configuration {
    let valid = input.valid;
    let spec = &observed.site.spec;
    let mut config = spec.site_config.clone();
    config.insert("host_name".to_owned(), url(&valid.hosts.primary, encrypted(observed)).into());
    let flags = [("maintenance_mode", spec.maintenance_mode), ("pause_scheduler", spec.scheduler_paused)];
    for (key, _) in flags.into_iter().filter(|(_, wanted)| *wanted == Some(true)) {
        config.insert(key.to_owned(), 1.into());
    }
    let request = ConfigurationRequest {
        apps: valid.apps.clone(),
        config,
        hosts: valid.hosts.all().cloned().collect(),
        removed_apps: valid.removed_apps.clone(),
        secret_config: spec.site_config_secret_refs.keys().cloned().collect(),
    };
    let version = |secret: &DynamicObject| observed.version_of(secret);
    let set = observed.site.status.as_ref().and_then(|status| status.admin_password_version.clone());
    let admin = observed.secrets.get(&valid.admin_secret).map(|it| version(it)).or(set);
    let of = |name: &str| observed.secrets.get(name).map(|it| version(it)).unwrap_or_default();
    let entries = spec.site_config_secret_refs.values().map(|it| format!("{}/{}={}", it.name, it.key, of(&it.name)));
    let read = Read {
        account: observed.credentials.as_deref().map(version),
        connection: valid.database.connection_secret().map(of),
        admin: admin.as_deref(),
        entries: entries.collect(),
        asked: observed.site.annotations().get(labels::RECONCILE),
        restored: observed.site.status.as_ref().and_then(|status| status.last_restore.as_ref()),
    };
    let database = database_request(&valid.database, &input.known.name, &input.known.user);
    let text = format!("{}{}{}", wire::text(&request), wire::text(&database), wire::text(&read));
    let hash = hash_hex(&text, HASH_DIGITS);
    Configuration { request, hash, admin_password_version: admin }
}

/// Versions and values that are part of a configuration's hash.
#[derive(Serialize)]
struct Read<'a> {
    /// Version of the generated Secret with the database user.
    account: Option<String>,
    /// Version of the referenced Secret with the database user.
    connection: Option<String>,
    /// Version of the Secret with Administrator's password.
    admin: Option<&'a str>,
    /// Versions of the Secrets with settings.
    entries: Vec<String>,
    /// Value of the reconcile annotation.
    asked: Option<&'a String>,
    /// The last restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    restored: Option<&'a String>,
}
