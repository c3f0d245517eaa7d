//! How each object of a site looks. Pure and infallible: what can be wrong was found by `validate`.

mod claim;
mod database;
mod ingress;
mod jobs;
mod secrets;

pub use claim::claim;
pub use database::{Cleanup, database, grant, user};
pub use ingress::ingress;
pub use jobs::{delete_job, init_job};
pub use secrets::{admin_password, credentials};

use frappe_crds::FrappeSite;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::validate::Validated;
use crate::domain::{key::Key, labels, names::child};

/// What the builders need to know of a site.
pub struct Input<'a> {
    /// The site.
    pub site: &'a FrappeSite,
    /// What validation made of its spec.
    pub valid: &'a Validated,
    /// The site's identity: what its Secret, its Jobs and its directory on the volume agree on.
    pub identity: &'a str,
    /// Name of the database and of its account.
    pub database_name: &'a str,
}

impl Input<'_> {
    fn name(&self) -> String {
        self.site.name_any()
    }

    fn key(&self, suffix: &str) -> Key {
        Key::new(self.site.namespace().unwrap_or_default(), child(&self.name(), suffix))
    }

    /// Metadata of an object that must outlive a mistake: labels, but no owner that would take it along.
    fn kept_metadata(&self) -> Value {
        json!({"labels": self.labels()})
    }

    /// Metadata of an object that goes with the site.
    fn owned_metadata(&self) -> Value {
        json!({"labels": self.labels(), "ownerReferences": [{
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "name": self.name(),
            "uid": self.site.uid().unwrap_or_default(), "controller": true, "blockOwnerDeletion": true,
        }]})
    }

    fn labels(&self) -> std::collections::BTreeMap<String, String> {
        labels::site(&self.site.spec.bench_ref.name, &self.name(), &self.site.uid().unwrap_or_default())
    }
}

/// Name of the Secret with the database account: as in the guide.
pub fn credentials_name(site: &str) -> String {
    child(site, "db-password")
}

/// Name of the Secret with a generated password for Administrator.
pub fn admin_password_name(site: &str) -> String {
    child(site, "admin-password")
}

/// Name of the Ingress.
pub fn ingress_name(site: &str) -> String {
    child(site, "ingress")
}

/// Names of the Database, User and Grant.
pub fn database_object_names(site: &str) -> [String; 3] {
    [child(site, "db"), child(site, "user"), child(site, "grant")]
}
