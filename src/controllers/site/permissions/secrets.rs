//! Which Secrets a site may name, and which of them leave their namespace. Pure.

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

/// What is refused of the Secrets that the spec names, if anything.
pub(super) fn secrets(observed: &Observed) -> Option<Refusal> {
    let named = of_site(&observed.site, observed.bench.as_deref());
    named.iter().find_map(|it| {
        let (reason, message) = refused(observed, it)?;
        Some(Refusal { part: Part::Settings, reason, message })
    })
}

/// Why a Secret that is named is not read; None if it may be, or does not exist.
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

/// Whether a Secret is no one's to name: this operator made it, for this site or another, or it has the password of a server's
/// administrator. What it generated for this site's Administrator is the site's own.
pub fn is_reserved(observed: &Observed, name: &str, secret: &DynamicObject) -> bool {
    let by_server = secret.owner_references().iter().any(|it| ["MariaDB", "MaxScale"].contains(&it.kind.as_str()));
    let made = is_ours(&secret.metadata) || is_made(&secret.metadata);
    !is_own_admin(observed, name, secret) && (made || by_server || observed.root_secrets.contains(name))
}

/// The generated password of Administrator of this very site.
fn is_own_admin(observed: &Observed, name: &str, secret: &DynamicObject) -> bool {
    let site = observed.site.name_any();
    let own = Place::of(&observed.site).generated_admin_password(&site).name;
    own == *name && is_ours(&secret.metadata) && Owner::site(observed.site.as_ref()).has(secret)
}

/// Whether what a Secret holds may be where the bench is: in its own namespace, or where its owner says so.
pub fn may_copy(observed: &Observed, name: &str, secret: &DynamicObject) -> bool {
    let place = Place::of(&observed.site);
    !place.is_foreign()
        || is_own_admin(observed, name, secret)
        || (!is_reserved(observed, name, secret)
            && names_namespace(secret, labels::ALLOWED_NAMESPACES, &place.namespace))
}

/// The keys of a Secret that site and SiteBackups read: no other is copied.
pub fn keys(observed: &Observed, name: &str) -> BTreeSet<String> {
    let mut references = of_site(&observed.site, observed.bench.as_deref());
    references.extend(observed.backups.iter().filter_map(|it| it.spec.storage.as_ref()).flat_map(of_storage));
    let mut keys = keys_of(&references, name);
    if observed.site.spec.admin_password_secret_ref.is_none() && *name == observed.admin_secret_name() {
        keys.insert("password".to_owned());
    }
    keys
}

/// Whether a backup may read the account of the site's database: the Secret is not refused, or was copied when it was not.
pub fn may_read_account(observed: &Observed, secret: &str) -> bool {
    let Some(found) = observed.secrets.get(secret) else { return true };
    let copied = observed.copies.contains_key(&Place::of(&observed.site).mounted(secret));
    !is_reserved(observed, secret, found) && (copied || may_copy(observed, secret, found))
}
