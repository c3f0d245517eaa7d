//! Adoption of another operator's site: its Secrets and its other objects. Pure.

use frappe_crds::FrappeSite;
use kube::{ResourceExt, api::ObjectMeta, core::DynamicObject};

use super::{
    build,
    model::{Input, Observed, Step},
    place::Place,
};
use crate::{
    controllers::adoption::is_adoption_requested,
    domain::{key::Key, metadata::SecretAdoption, names::child, object::Desired},
};

/// The Go operator's Secret with the password of Administrator.
pub(super) fn admin_password(site: &FrappeSite) -> Key {
    Key::new(Key::of(site).namespace, child(&site.name_any(), "admin"))
}

/// Whether the site is new and its objects may be another operator's, which are adopted then.
pub(super) fn is_adopting(observed: &Observed) -> bool {
    let created = observed.site.status.as_ref().is_some_and(|status| status.initialized);
    let asked = observed.bench.as_deref().is_some_and(is_adoption_requested);
    asked && !created && !Place::of(&observed.site).is_foreign()
}

/// Copies the Administrator's password from another operator's Secret. It comes before the Secret of the account, after whose adoption
/// the other operator's objects are no longer read.
pub(super) fn admin(observed: &Observed, input: &Input) -> Option<Step> {
    let generated = observed.site.spec.admin_password_secret_ref.is_none() && observed.admin_secret().is_none();
    let copy = || Step::CopySecret(admin_password(&observed.site), build::admin_password_copy(input));
    (generated && observed.adoptable.has_admin_password).then(copy)
}

/// Adopts another operator's Secret of the account: adds the keys that this operator needs.
pub(super) fn credentials(observed: &Observed, input: &Input) -> Option<Step> {
    let live = observed.adoptable.credentials.as_ref()?;
    let mut wanted = build::account_secret(input, "", Some(&observed.fresh.encryption_key));
    wanted.string_data.iter_mut().for_each(|data| drop(data.remove("password")));
    let metadata = ObjectMeta { uid: live.uid(), resource_version: live.resource_version(), ..wanted.metadata };
    let metadata = input.valid.place.credentials().named(metadata);
    let adoption = SecretAdoption { metadata: metadata.into(), string_data: wanted.string_data.unwrap_or_default() };
    Some(Step::AdoptSecret(live.clone(), Box::new(adoption)))
}

/// Applies an object; adopts it first if it may be another operator's.
pub(super) fn ensure(observed: &Observed, desired: Desired, live: Option<&DynamicObject>) -> Step {
    if live.is_none() && is_adopting(observed) { Step::Adopt(desired) } else { Step::Ensure(desired) }
}
