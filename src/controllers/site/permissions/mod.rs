//! Permissions: what a site may request only if its bench or the platform allows it. Pure.
//!
//! There are three levels: the platform (the operator's ConfigMap), the bench (`allowedSites` and its own defaults), the site.
//! A site decides about its own data. Anything else must be in a list of a level above; a site of another namespace than its
//! bench gets only what such a list contains.

mod routes;
pub mod secrets;
mod servers;

use frappe_crds::FrappeBench;

use super::{
    model::{Observed, Part, Refusal},
    reason::Reason,
};
use crate::domain::{key::Key, site_config};

pub use self::servers::{STORAGE_SIZE, may_use_server};

/// All refusals, the most important one first; `own_server` is the site's dedicated MariaDB, if any.
pub fn refusals(observed: &Observed, bench: &FrappeBench, own_server: Option<&Key>) -> Vec<Refusal> {
    let each = [
        secrets::secrets(observed),
        routes::route(observed, bench),
        settings(observed, bench),
        own_server.and_then(|_| servers::own_server(observed, bench)),
    ];
    each.into_iter().flatten().collect()
}

/// Entries of the site's configuration.
fn settings(observed: &Observed, bench: &FrappeBench) -> Option<Refusal> {
    let spec = &observed.site.spec;
    let refused = |message| Some(Refusal::new(Part::Settings, Reason::SiteConfigRefused, message));
    let mut keys = spec.site_config.keys().chain(spec.site_config_secret_refs.keys());
    if let Some(key) = keys.clone().find(|key| site_config::is_reserved(key)) {
        return refused(format!(
            "siteConfig: {key} must not be set: it has its own field, is managed by the operator or the bench, or has \
             characters other than letters, digits and _"
        ));
    }
    let of_bench = bench.spec.allowed_sites.as_ref().map(|it| it.site_config_keys.as_slice()).unwrap_or_default();
    let of_platform = &observed.config.allowed_site_config_keys;
    let allowed = |key: &String| site_config::is_harmless(key) || of_bench.contains(key) || of_platform.contains(key);
    let key = keys.find(|key| !allowed(key))?;
    refused(format!(
        "siteConfig: {key} is not an entry that this site may set, because it may affect other sites: remove it, or have \
         the bench's owner add it to allowedSites.siteConfigKeys, or the platform to \
         allowedSiteConfigKeys of the operator's ConfigMap"
    ))
}
