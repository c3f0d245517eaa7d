//! What a site asks for that is its bench's or the platform's to decide. Pure.
//!
//! There are three levels: the platform (the operator's ConfigMap), the bench (`allowedSites` and its own defaults), the site.
//! A site's own fields reach its own data. What reaches further is allowed by a list on a level above; a site of another
//! namespace than its bench has what such a list names and nothing else.

mod routes;
pub mod secrets;
mod servers;

use frappe_crds::FrappeBench;
use kube::{ResourceExt, core::DynamicObject};

pub use self::servers::{STORAGE_SIZE, may_use_server};
use super::{
    observe::Observed,
    reason::Reason,
    status::{Report, Stage},
};
use crate::domain::{key::Key, site_config};

/// What is withheld of a site that exists while something of its spec is refused. Everything else of it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nothing but the Job that would change its settings.
    Settings,
    /// Its server is not changed either.
    Server,
    /// Its hosts and routes are not changed either.
    Route,
}

/// Something that a site asks for and that is not its own to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is withheld.
    pub part: Part,
    /// Why, as conditions say it.
    pub reason: Reason,
    /// The same for people.
    pub message: String,
}

impl Refusal {
    fn new(part: Part, reason: Reason, message: String) -> Self {
        Self { part, reason, message }
    }

    /// A site that is not there yet is not made.
    pub fn stops(&self) -> Report {
        Report::failed(Stage::Database, self.stage(), self.reason, self.message.clone())
    }

    /// A site that exists stays as it is, and is not given what it asks for.
    pub fn withholds(&self) -> Report {
        let message = format!("{}; the site is served as it was", self.message);
        Report::failed(Stage::Done, self.stage(), self.reason, message)
    }

    /// A site that has what it asks for, since that was allowed when it was made, keeps it.
    pub fn tells(&self) -> Report {
        Report::ready(self.reason, format!("the site is served as it was, and not changed any more: {}", self.message))
    }

    fn stage(&self) -> Stage {
        match self.part {
            Part::Settings => Stage::Init,
            Part::Server => Stage::Database,
            Part::Route => Stage::Route,
        }
    }
}

/// Everything that is refused, what a person should cure first in front; `own_server` is the MariaDB of the site alone, where it
/// has one.
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
            "siteConfig: {key} is not an entry that may be set: it has a field of its own, belongs to the operator or the bench, \
             or is not letters, digits and _"
        ));
    }
    let of_bench = bench.spec.allowed_sites.as_ref().map(|it| it.site_config_keys.as_slice()).unwrap_or_default();
    let of_platform = &observed.config.allowed_site_config_keys;
    let allowed = |key: &String| site_config::is_harmless(key) || of_bench.contains(key) || of_platform.contains(key);
    let key = keys.find(|key| !allowed(key))?;
    refused(format!(
        "siteConfig: {key} is not one of the entries that a site may set by itself, since not all of them reach that site alone: \
         remove it, or have the bench's owner add it to allowedSites.siteConfigKeys, or the platform to \
         allowedSiteConfigKeys of the operator's ConfigMap"
    ))
}

/// Whether an annotation of an object, a list with commas between, has a namespace; `*` stands for all.
pub fn names_namespace(object: &DynamicObject, annotation: &str, namespace: &str) -> bool {
    let list = object.annotations().get(annotation).map(String::as_str).unwrap_or_default();
    list.split(',').map(str::trim).any(|it| it == namespace || it == "*")
}
