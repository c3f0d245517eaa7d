//! Steps for the Secrets of a site: generated ones are created or labelled, referenced ones are labelled, so that they are watched, and
//! copied. Pure.

use std::sync::Arc;

use kube::{ResourceExt, core::DynamicObject};

use super::{
    adoption, build,
    model::{Input, Observed, Step, Subject},
    permissions::secrets::{is_reserved, keys, may_copy},
    references::named_secrets,
};
use crate::{
    controllers::model::{self, Reconciled},
    domain::{
        key::Key,
        labels::{self, has_labels},
        metadata::MetadataPatch,
        uid,
    },
};

/// Steps for the Secrets of a site.
pub(super) fn secrets(observed: &Observed, input: &Input) -> Vec<Step> {
    let kept_admin = adoption::admin(observed, input);
    let mut steps: Vec<Step> = kept_admin.iter().cloned().collect();
    let fresh = &observed.fresh;
    let known = observed.site.status.as_ref().is_some_and(|status| status.identity.is_some());
    match &observed.credentials {
        None => {
            // A Secret that replaces a lost one has no encryption key: the site's key is only in its configuration.
            let key = (!known).then_some(fresh.encryption_key.as_str());
            let ours = || Step::Create(build::credentials(input, &fresh.database_password, key));
            steps.push(adoption::credentials(observed, input).unwrap_or_else(ours));
        }
        Some(secret) => steps.extend(relabel(observed, secret)),
    }
    let generated = observed.site.spec.admin_password_secret_ref.is_none();
    match observed.admin_secret().filter(|_| generated) {
        None if generated && kept_admin.is_none() => {
            steps.push(Step::Create(build::admin_password(input, &fresh.admin_password)));
        }
        Some(secret) => steps.extend(relabel(observed, secret)),
        None => {}
    }
    let named = named_secrets(&observed.site, observed.bench.as_deref());
    let read =
        observed.secrets.iter().filter(|(name, _)| named.contains(name) || **name == observed.admin_secret_name());
    steps.extend(read.flat_map(|(name, secret)| read_secret(observed, input, name, secret)));
    steps
}

/// Steps to watch a Secret, and to copy it to the bench's namespace.
pub fn read_secret<K: Reconciled>(
    observed: &Observed,
    input: &Subject,
    name: &str,
    secret: &Arc<DynamicObject>,
) -> Vec<model::Step<K>> {
    let generated = observed.site.spec.admin_password_secret_ref.is_none();
    let own = generated && *name == observed.admin_secret_name();
    if !own && is_reserved(observed, name, secret) {
        return Vec::new();
    }
    let unseen = !own && !secret.labels().contains_key(labels::WATCHED);
    let watched = unseen.then(|| model::Step::WatchSecret(secret.clone()));
    watched.into_iter().chain(copied(observed, input, name, secret)).collect()
}

/// Copies a Secret of the site's namespace to the bench's namespace, where a pod can mount it.
fn copied<K: Reconciled>(
    observed: &Observed,
    input: &Subject,
    name: &str,
    secret: &DynamicObject,
) -> Option<model::Step<K>> {
    let place = input.place;
    let keys = keys(observed, name);
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    // With other keys, the copy differs.
    let version = format!("{} {}", observed.version_of(secret), names.join(","));
    let copy = observed.copies.get(&place.mounted(name));
    let current = copy.is_some_and(|it| it.annotations().get(labels::COPIED_VERSION) == Some(&version));
    let key = Key::new(&place.own, name);
    let wanted = place.is_foreign() && !current && may_copy(observed, name, secret);
    wanted.then(|| model::Step::CopySecret(key, build::copy(input, name, &version, &names)))
}

/// Sets the site's slot label on a Secret, without which it is not watched.
fn relabel(observed: &Observed, secret: &Arc<DynamicObject>) -> Option<Step> {
    let uid = uid::of(observed.site.as_ref()).to_owned();
    let slot = uid::slot_of(observed.site.as_ref()).to_string();
    let wanted = [(labels::SLOT, slot), (labels::SITE_UID, uid)];
    let named = wanted.clone().into_iter().chain([("site", observed.site.name_any())]);
    let labelled = || MetadataPatch::of(secret.as_ref()).with_labels(named);
    (!has_labels(&**secret, &wanted)).then(|| Step::LabelSecret(secret.clone(), labelled()))
}
