//! What another operator made for a site that is to be taken over: the account of its database, and its objects.

use frappe_crds::FrappeSite;
use kube::{ResourceExt, api::ObjectMeta, core::DynamicObject};

use super::{
    build,
    model::{Input, Observed, Step},
    place::Place,
};
use crate::{
    controllers::adoption::is_asked,
    domain::{key::Key, metadata::SecretAdoption, names::child, object::Desired},
};

/// The Go operator's Secret with the password of Administrator.
pub(super) fn admin_password(site: &FrappeSite) -> Key {
    Key::new(Key::of(site).namespace, child(&site.name_any(), "admin"))
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
    let mut wanted = build::account_secret(input, "", Some(&observed.fresh.encryption_key));
    wanted.string_data.iter_mut().for_each(|data| drop(data.remove("password")));
    let metadata = ObjectMeta { uid: live.uid(), resource_version: live.resource_version(), ..wanted.metadata };
    let metadata = input.valid.place.credentials().named(metadata);
    let adoption = SecretAdoption { metadata: metadata.into(), string_data: wanted.string_data.unwrap_or_default() };
    Some(Step::AdoptSecret(live.clone(), Box::new(adoption)))
}

/// Brings an object to what it should be; takes it over first where it may be another operator's.
pub(super) fn ensure(observed: &Observed, desired: Desired, live: Option<&DynamicObject>) -> Step {
    if live.is_none() && is_adopting(observed) { Step::TakeOver(desired) } else { Step::Ensure(desired) }
}
