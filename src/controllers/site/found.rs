//! What another operator made for a site that is to be taken over: the account of its database, and its objects.

use std::sync::Arc;

use frappe_crds::{FrappeBench, FrappeSite};
use kube::{ResourceExt, core::DynamicObject};
use serde_json::json;

use super::{
    build::{self, Input},
    kept::live,
    observe::{Observed, metadata_of},
    place::Place,
    plan::Step,
};
use crate::{
    controllers::{
        adoption::{Owner, is_asked},
        context::Context,
    },
    domain::{
        key::Key,
        names::child,
        object::{Desired, Kind},
    },
};

/// What is there and was made for this very site.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Metadata of `SITE-db-password`.
    pub credentials: Option<Arc<DynamicObject>>,
    /// Whether `SITE-admin` is there, with the password of Administrator.
    pub has_admin_password: bool,
    /// The Database.
    pub database: Option<DynamicObject>,
    /// The User.
    pub user: Option<DynamicObject>,
}

/// Looks for what was made for a site that has nothing of this operator's yet, where its bench is taken over.
pub(super) async fn found(
    context: &Context,
    site: &FrappeSite,
    bench: Option<&FrappeBench>,
) -> Result<Found, kube::Error> {
    let place = Place::of(site);
    let known = site.status.as_ref().is_some_and(|status| status.initialized || status.identity.is_some());
    if known || place.is_foreign() || !bench.is_some_and(is_asked) {
        return Ok(Found::default());
    }
    let owner = Owner::of(site, true);
    let has_admin_password = metadata_of(context, &admin_password(site)).await?.is_some_and(|it| owner.has(&it));
    let credentials = metadata_of(context, &place.credentials()).await?.filter(|it| owner.has(it));
    let object = async |kind: Kind, suffix: &str| {
        if !context.mariadb_installed() {
            return Ok(None);
        }
        Ok::<_, kube::Error>(live(context, kind, &place.key(suffix)).await?.filter(|it| owner.has(it)))
    };
    let database = object(Kind::Database, "db").await?;
    Ok(Found { credentials, has_admin_password, database, user: object(Kind::User, "user").await? })
}

/// The Go operator's Secret with the password of Administrator.
fn admin_password(site: &FrappeSite) -> Key {
    Key::new(site.namespace().unwrap_or_default(), child(&site.name_any(), "admin"))
}

/// Whether the site may be another operator's, and is to be taken over.
pub(super) fn is_adopting(observed: &Observed) -> bool {
    let created = observed.site.status.as_ref().is_some_and(|status| status.initialized);
    let asked = observed.bench.as_deref().is_some_and(is_asked);
    asked && !created && !Place::of(&observed.site).is_foreign()
}

/// The password of Administrator, as another operator's Secret has it. It comes before the account's Secret, since what is
/// found is not looked for any more once that is this operator's.
pub(super) fn admin(observed: &Observed, input: &Input) -> Option<Step> {
    let generated = observed.site.spec.admin_password_secret_ref.is_none() && observed.admin_secret().is_none();
    let copy = || Step::CopySecret(admin_password(&observed.site), build::admin_password_copy(input));
    (generated && observed.found.has_admin_password).then(copy)
}

/// Another operator's Secret of the account, with what this one needs beside the password that it has.
pub(super) fn credentials(observed: &Observed, input: &Input) -> Option<Step> {
    let live = observed.found.credentials.as_ref()?;
    let Desired { mut body, .. } = build::credentials(input, "", Some(&observed.fresh.encryption_key));
    if let Some(data) = body["stringData"].as_object_mut() {
        data.remove("password");
    }
    let mut metadata = body["metadata"].take();
    for (key, value) in [("uid", live.uid()), ("resourceVersion", live.resource_version()), ("ownerReferences", None)] {
        metadata[key] = json!(value);
    }
    Some(Step::AdoptSecret(live.clone(), json!({"metadata": metadata, "stringData": body["stringData"]})))
}

/// Brings an object to what it should be; takes it over first where it may be another operator's.
pub(super) fn ensure(observed: &Observed, desired: Desired, live: Option<&DynamicObject>) -> Step {
    if live.is_none() && is_adopting(observed) { Step::TakeOver(desired) } else { Step::Ensure(desired) }
}
