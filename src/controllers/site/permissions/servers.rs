//! Permissions for database servers. Pure.

use std::collections::BTreeMap;

use frappe_crds::{
    FrappeBench,
    bench::AllowedDatabases,
    common::{DatabaseConfig, DatabaseMode, Quantity, Resources},
};
use kube::ResourceExt;

use crate::{
    controllers::site::{
        model::{Observed, Part, Refusal},
        place::Place,
        reason::Reason,
    },
    domain::{
        key::Key,
        labels::{self, names_namespace},
        quantity::milli,
    },
};

/// Default volume size of a dedicated server.
pub const STORAGE_SIZE: &str = "10Gi";

/// Permissions for image, size and resources of a dedicated server, which shares the nodes with all others.
pub(super) fn own_server(observed: &Observed, bench: &FrappeBench) -> Option<Refusal> {
    let asked = observed.site.spec.db_config.as_ref()?;
    let of_bench = bench.spec.db_config.clone().unwrap_or_default();
    let allowed = bench.spec.allowed_sites.clone().unwrap_or_default().databases.unwrap_or_default();
    let foreign = Place::of(&observed.site).is_foreign();
    let message = if foreign
        && asked.mode == Some(DatabaseMode::Dedicated)
        && of_bench.mode != Some(DatabaseMode::Dedicated)
        && allowed.dedicated != Some(true)
    {
        "dbConfig.mode: a site of another namespace may not have a dedicated server on this bench: have the bench's owner \
         set allowedSites.databases.dedicated"
            .to_owned()
    } else {
        refused_image(observed, asked, &of_bench, &allowed)
            .or_else(|| refused_size(asked, &of_bench, &allowed, foreign))
            .or_else(|| refused_resource(asked, &of_bench, &allowed, foreign))?
    };
    Some(Refusal::new(Part::Server, Reason::DatabaseNotAllowed, message))
}

fn refused_image(
    observed: &Observed,
    asked: &DatabaseConfig,
    of_bench: &DatabaseConfig,
    allowed: &AllowedDatabases,
) -> Option<String> {
    let image = asked.image.as_ref()?;
    let known = of_bench.image.as_ref() == Some(image)
        || observed.config.default_mariadb_image == *image
        || observed.config.allowed_database_images.contains(image)
        || allowed.images.contains(image);
    let message = || {
        format!(
            "dbConfig.image: {image} is not allowed: remove it, or have the bench's owner add it to \
             allowedSites.databases.images, or the platform to allowedDatabaseImages of the operator's ConfigMap"
        )
    };
    (!known).then(message)
}

fn is_at_most(asked: &Quantity, most: &str) -> bool {
    matches!((milli(&asked.0), milli(most)), (Some(asked), Some(most)) if asked <= most)
}

fn refused_size(
    asked: &DatabaseConfig,
    of_bench: &DatabaseConfig,
    allowed: &AllowedDatabases,
    foreign: bool,
) -> Option<String> {
    let size = asked.storage_size.as_ref()?;
    let own = of_bench.storage_size.as_ref().map_or(STORAGE_SIZE, |it| it.0.as_str());
    let most = allowed.max_storage_size.as_ref().map(|it| it.0.as_str()).or(foreign.then_some(own))?;
    let message = || {
        format!(
            "dbConfig.storageSize: {} is more than the bench's maximum {most}: lower it, or have the bench's owner \
             raise allowedSites.databases.maxStorageSize",
            size.0
        )
    };
    (!is_at_most(size, most)).then(message)
}

fn refused_resource(
    asked: &DatabaseConfig,
    of_bench: &DatabaseConfig,
    allowed: &AllowedDatabases,
    foreign: bool,
) -> Option<String> {
    let each = |resources: &Resources| -> BTreeMap<String, Quantity> {
        resources.requests.clone().into_iter().chain(resources.limits.clone()).collect()
    };
    let own = of_bench.resources.as_ref().map(each).unwrap_or_default();
    let resources = asked.resources.as_ref()?;
    let bounded = foreign || !allowed.max_resources.is_empty();
    let too_much = |(name, amount): &(&String, &Quantity)| {
        let most = allowed.max_resources.get(*name).or_else(|| own.get(*name));
        bounded && !most.is_some_and(|most| is_at_most(amount, &most.0))
    };
    let (name, amount) = resources.requests.iter().chain(&resources.limits).find(too_much)?;
    Some(format!(
        "dbConfig.resources: {name} {} is more than the bench allows: lower or remove it, or have the bench's owner raise \
         allowedSites.databases.maxResources",
        amount.0
    ))
}

/// Whether a site may use the server in its `mariadbRef`: it is in the site's namespace, the bench's server, or allowed by a list
/// or its owner. A dedicated server of another site is never allowed.
pub fn may_use_server(observed: &Observed, bench: &FrappeBench, key: &Key) -> bool {
    let place = Place::of(&observed.site);
    let server = observed.servers.iter().find(|it| Key::of(it.as_ref()) == *key);
    if server.is_some_and(|it| it.labels().contains_key(labels::SITE_UID)) {
        return false;
    }
    let of_bench = bench.spec.db_config.as_ref().and_then(|it| it.mariadb_ref.as_ref());
    let of_bench =
        of_bench.map(|it| Key::new(it.namespace.clone().unwrap_or_else(|| place.namespace.clone()), &it.name));
    let allowed = bench.spec.allowed_sites.clone().unwrap_or_default().databases.unwrap_or_default();
    key.namespace == place.own
        || of_bench.as_ref() == Some(key)
        || observed.config.default_mariadb.as_ref() == Some(key)
        || (key.namespace == place.namespace && allowed.servers.contains(&key.name))
        || server.is_some_and(|it| names_namespace(it, labels::ALLOWED_NAMESPACES, &place.own))
}
