//! Finds objects kept from a deleted site with the same namespace and name, which no watch shows.

use std::sync::Arc;

use frappe_crds::{FrappeBench, FrappeSite};
use kube::{Api, ResourceExt, api::ListParams, core::DynamicObject};

use super::{adoption::admin_password, model::Adoptable, place::Place};
use crate::{
    controllers::{
        adoption::{self, is_adoption_requested},
        context::Context,
    },
    domain::{key::Key, labels, object::Kind, owner::Owner},
    io::live::secret_metadata,
};

/// A recreated site in another namespace than its bench uses the names of the kept objects, if an older version named them.
pub(super) async fn with_former_names(
    context: &Context,
    mut site: Arc<FrappeSite>,
) -> Result<Arc<FrappeSite>, kube::Error> {
    let status = site.status.clone().unwrap_or_default();
    let is_new = status.object_prefix.is_none() && status.identity.is_none();
    if let Some((stem, key)) = Place::former_credentials(&site).filter(|_| is_new)
        && secret_metadata(&context.client, &key).await?.is_some_and(|it| Owner::site(site.as_ref()).has(&it))
    {
        Arc::make_mut(&mut site).status.get_or_insert_default().object_prefix = Some(stem);
    }
    Ok(site)
}

/// Database, User and Grant of the site. If the site's Secret was kept, they may have the label of another slot, so that no watch
/// shows them: they are then read live.
pub(super) async fn sql(
    context: &Context,
    site: &FrappeSite,
    credentials: Option<&DynamicObject>,
) -> Result<[Option<Arc<DynamicObject>>; 3], kube::Error> {
    let (place, owner) = (Place::of(site), Owner::site(site));
    let status = site.status.clone().unwrap_or_default();
    let annotation = |name: &str| credentials.and_then(|it| it.annotations().get(name));
    let identity = annotation(labels::IDENTITY);
    // A database that existed before its site has none of these objects.
    let has_none = annotation(labels::DATABASE_KIND).is_some_and(|it| it.starts_with("existing "));
    let was_kept = status.identity.is_none()
        && !has_none
        && identity.is_some_and(|it| status.database.as_ref().is_none_or(|known| known.identity != *it));
    let mut found = [None, None, None];
    let kinds = [(Kind::Database, "db"), (Kind::User, "user"), (Kind::Grant, "grant")];
    for (at, (kind, suffix)) in found.iter_mut().zip(kinds) {
        let key = place.key(suffix);
        let known = match context.site_children.get(kind, &key) {
            None if was_kept && context.mariadb_installed() => live(context, kind, &key).await?.map(Arc::new),
            known => known,
        };
        *at = known.filter(|it| owner.has(it));
    }
    Ok(found)
}

/// An object, read live.
pub(super) async fn live(context: &Context, kind: Kind, key: &Key) -> Result<Option<DynamicObject>, kube::Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &key.namespace, &kind.resource());
    let list = api.list(&ListParams::default().fields(&format!("metadata.name={}", key.name))).await?;
    Ok(list.items.into_iter().next())
}

/// Finds objects of another operator for a new site whose bench is being adopted.
pub(super) async fn adoptable(
    context: &Context,
    site: &FrappeSite,
    bench: Option<&FrappeBench>,
) -> Result<Adoptable, kube::Error> {
    let place = Place::of(site);
    let known = site.status.as_ref().is_some_and(|status| status.initialized || status.identity.is_some());
    if known || place.is_foreign() || !bench.is_some_and(is_adoption_requested) {
        return Ok(Adoptable::default());
    }
    let owner = adoption::Owner::of(site, true);
    let has_admin_password =
        secret_metadata(&context.client, &admin_password(site)).await?.is_some_and(|it| owner.has(&it));
    let credentials = secret_metadata(&context.client, &place.credentials()).await?.filter(|it| owner.has(it));
    let object = async |kind: Kind, suffix: &str| {
        if !context.mariadb_installed() {
            return Ok(None);
        }
        Ok::<_, kube::Error>(live(context, kind, &place.key(suffix)).await?.filter(|it| owner.has(it)))
    };
    let database = object(Kind::Database, "db").await?;
    Ok(Adoptable { credentials, has_admin_password, database, user: object(Kind::User, "user").await? })
}
