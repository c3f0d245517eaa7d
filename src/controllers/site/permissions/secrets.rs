//! Permissions for references to Secrets, and for copying them to another namespace. Pure.

use std::collections::BTreeSet;

use kube::{ResourceExt, core::DynamicObject};

use crate::{
    controllers::site::{
        model::{Observed, Part, Refusal},
        place::Place,
        reason::Reason,
        references::{Reference, keys_of, of_site, of_storage},
    },
    domain::{
        labels::{self, names_namespace},
        object::{is_made, is_ours},
        owner::Owner,
    },
};

/// The first refusal of the referenced Secrets.
pub(super) fn secrets(observed: &Observed) -> Option<Refusal> {
    let named = of_site(&observed.site, observed.bench.as_deref());
    named.iter().find_map(|it| {
        let (reason, message) = refused(observed, it)?;
        Some(Refusal { part: Part::Settings, reason, message })
    })
}

/// Why a referenced Secret may not be read; None if it may, or if it does not exist.
pub fn refused(observed: &Observed, reference: &Reference) -> Option<(Reason, String)> {
    let Reference { field, name, .. } = reference;
    let secret = observed.secrets.get(name)?;
    if is_reserved(observed, name, secret) {
        let message = format!(
            "{field}: Secret {name} was created by an operator, or belongs to a MariaDB administrator: create and \
             reference another Secret"
        );
        return Some((Reason::SecretRefused, message));
    }
    (!may_copy(observed, name, secret)).then(|| (Reason::SecretCopyRefused, copy_message(observed, field, name)))
}

fn copy_message(observed: &Observed, field: &str, name: &str) -> String {
    let namespace = Place::of(&observed.site).namespace;
    format!(
        "{field}: Secret {name} may not be copied to the bench's namespace {namespace}: have its owner set the annotation \
         {}: {namespace}",
        labels::ALLOWED_NAMESPACES
    )
}

/// Whether a Secret may never be referenced: it was created by this operator, or has the password of a server's administrator.
/// The generated password of this site's Administrator is an exception.
pub fn is_reserved(observed: &Observed, name: &str, secret: &DynamicObject) -> bool {
    let by_server = secret.owner_references().iter().any(|it| ["MariaDB", "MaxScale"].contains(&it.kind.as_str()));
    let made = is_ours(&secret.metadata) || is_made(&secret.metadata);
    !is_own_admin(observed, name, secret) && (made || by_server || observed.root_secrets.contains(name))
}

/// Whether it is the generated password of this site's Administrator.
fn is_own_admin(observed: &Observed, name: &str, secret: &DynamicObject) -> bool {
    let site = observed.site.name_any();
    let own = Place::of(&observed.site).generated_admin_password(&site).name;
    own == *name && is_ours(&secret.metadata) && Owner::site(observed.site.as_ref()).has(secret)
}

/// Whether a Secret may be copied to the bench's namespace: it is the same one, or the Secret's owner allows it.
pub fn may_copy(observed: &Observed, name: &str, secret: &DynamicObject) -> bool {
    let place = Place::of(&observed.site);
    !place.is_foreign()
        || is_own_admin(observed, name, secret)
        || (!is_reserved(observed, name, secret)
            && names_namespace(secret, labels::ALLOWED_NAMESPACES, &place.namespace))
}

/// The keys of a Secret that the site and its SiteBackups reference: only these are copied.
pub fn keys(observed: &Observed, name: &str) -> BTreeSet<String> {
    let mut references = of_site(&observed.site, observed.bench.as_deref());
    references.extend(observed.backups.iter().filter_map(|it| it.spec.storage.as_ref()).flat_map(of_storage));
    let mut keys = keys_of(&references, name);
    if observed.site.spec.admin_password_secret_ref.is_none() && *name == observed.admin_secret_name() {
        keys.insert("password".to_owned());
    }
    keys
}

/// Whether a backup may read the credentials of the database user: the Secret is allowed, or was copied when it was.
pub fn may_read_account(observed: &Observed, secret: &str) -> bool {
    let Some(found) = observed.secrets.get(secret) else { return true };
    let copied = observed.copies.contains_key(&Place::of(&observed.site).mounted(secret));
    !is_reserved(observed, secret, found) && (copied || may_copy(observed, secret, found))
}
