//! Missing Secrets of a site: deleted generated ones, and referenced ones that do not exist. Pure.

use kube::ResourceExt;

use super::{
    model::{Database, Observed, Report, Stage},
    place::Place,
    reason::Reason,
};
use crate::domain::labels;

/// Report for a deleted generated Secret: its password is in use, so a new one is generated only if a user requests it.
pub(super) fn lost_secret(observed: &Observed) -> Option<Report> {
    if replaces(observed) {
        return None;
    }
    let place = Place::of(&observed.site);
    let status = observed.site.status.clone().unwrap_or_default();
    let had = status.identity.is_some() || observed.sql[1].is_some();
    let generated = observed.site.spec.admin_password_secret_ref.is_none();
    let name = if had && observed.credentials.is_none() {
        place.credentials().name
    } else if status.identity.is_some() && generated && observed.admin_secret().is_none() {
        observed.admin_secret_name()
    } else {
        return None;
    };
    let message = format!(
        "Secret {name} was deleted and is not regenerated automatically, because the site still uses the old password: \
         restore the Secret from a backup, or set the annotation {} to a new value to generate and set a new password; the \
         site stays available",
        labels::REPLACE_SECRETS
    );
    Some(Report::failed(Stage::Database, Stage::Database, Reason::SecretLost, message))
}

/// Whether a user requested to replace lost Secrets, and that was not handled yet. It requires the identity in the status.
pub(super) fn replaces(observed: &Observed) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    let asked = observed.site.annotations().get(labels::REPLACE_SECRETS);
    let known = status.identity.is_some() || status.database.is_some();
    asked.is_some() && asked != status.last_replaced_secrets_at.as_ref() && known
}

/// Report for a referenced Secret that does not exist.
pub(super) fn missing_secret(observed: &Observed, database: &Database) -> Option<Report> {
    let spec = &observed.site.spec;
    let lacks = |name: &str| !observed.secrets.contains_key(name);
    let connection = database.connection_secret().filter(|name| lacks(name));
    // Once the site exists, the user may delete the Secret: then the password is not changed.
    let exists = observed.site.status.as_ref().is_some_and(|status| status.initialized);
    let admin = spec.admin_password_secret_ref.as_ref().map(|it| it.name.as_str());
    let admin = admin.filter(|name| !exists && lacks(name));
    let entry = spec.site_config_secret_refs.values().map(|it| it.name.as_str()).find(|name| lacks(name));
    let (at, reason, message) = if let Some(name) = connection {
        let message = format!("Secret {name} does not exist: create it with the keys username and password");
        (Stage::Database, Reason::ConnectionSecretMissing, message)
    } else if let Some(name) = admin {
        let message = format!("Secret {name} does not exist: create it with the key password");
        (Stage::Init, Reason::AdminPasswordSecretMissing, message)
    } else {
        let message = format!("Secret {} does not exist, but siteConfigSecretRefs refers to it: create it", entry?);
        (Stage::Init, Reason::SiteConfigSecretMissing, message)
    };
    Some(Report::pending(Stage::Database, at, reason, message))
}
