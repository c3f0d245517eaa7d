//! What a site's Job brings about in the site: settings, hosts, password and apps. Pure.

use kube::{ResourceExt, core::DynamicObject};
use serde_json::{Map, Value, json};

use super::{
    build::database_request,
    model::{Configuration, Input, Observed},
    route::{encrypted, url},
};
use crate::domain::{labels, names::hash_hex};

/// Hex digits of the hash of a configuration.
const HASH_DIGITS: usize = 16;

/// The configuration that the spec asks for.
pub fn configuration(observed: &Observed, input: &Input) -> Configuration {
    let valid = input.valid;
    let spec = &observed.site.spec;
    let mut config: Map<String, Value> = spec.site_config.clone().into_iter().collect();
    config.insert("host_name".to_owned(), json!(url(&valid.hosts.primary, encrypted(observed))));
    let flags = [("maintenance_mode", spec.maintenance_mode), ("pause_scheduler", spec.scheduler_paused)];
    for (key, _) in flags.into_iter().filter(|(_, wanted)| *wanted == Some(true)) {
        config.insert(key.to_owned(), json!(1));
    }
    let mut request = json!({
        "apps": valid.apps, "config": config, "hosts": valid.hosts.all().collect::<Vec<_>>(),
        "secret_config": spec.site_config_secret_refs.keys().collect::<Vec<_>>(),
    });
    if !valid.removed_apps.is_empty() {
        request["removed_apps"] = json!(valid.removed_apps);
    }
    let version = |secret: &DynamicObject| secret.resource_version().unwrap_or_default();
    let set = observed.site.status.as_ref().and_then(|status| status.admin_password_version.clone());
    let admin = observed.secrets.get(&valid.admin_secret).map(|it| version(it)).or(set);
    let of = |name: &str| observed.secrets.get(name).map(|it| version(it)).unwrap_or_default();
    let entries = spec.site_config_secret_refs.values().map(|it| format!("{}/{}={}", it.name, it.key, of(&it.name)));
    let mut read = json!({
        "account": observed.credentials.as_deref().map(version),
        "connection": valid.database.connection_secret().map(of),
        "admin": admin,
        "entries": entries.collect::<Vec<_>>(),
        "asked": observed.site.annotations().get(labels::RECONCILE),
    });
    let status = observed.site.status.as_ref();
    if let Some(restored) = status.and_then(|status| status.last_restore.as_ref()) {
        read["restored"] = json!(restored);
    }
    let database = database_request(&valid.database, &input.known.name, &input.known.user);
    let hash = hash_hex(&format!("{request}{database}{read}"), HASH_DIGITS);
    Configuration { request, hash, admin_password_version: admin }
}
