//! How each object of a site looks. Pure and infallible: what can be wrong was found by `validate`.

mod claim;
mod database;
mod jobs;
mod routes;
mod secrets;

pub use claim::claim;
pub use database::{Cleanup, database, database_request, grant, own_server, user};
pub(in crate::controllers) use jobs::{account, request, with};
pub use jobs::{configure_job, delete_job, init_job};
pub use routes::{http_route, ingress, route, route_key};
pub use secrets::{admin_password, admin_password_copy, copy, credentials, root_password};

use frappe_crds::FrappeSite;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{record::Known, validate::Validated};
use crate::domain::{key::Key, labels};

/// What the builders need to know of a site.
pub struct Input<'a> {
    /// The site.
    pub site: &'a FrappeSite,
    /// What validation made of its spec.
    pub valid: &'a Validated,
    /// What was decided about it: the identity that its Secret, its Jobs and its directory on the volume agree on, and the
    /// names of its database and account, where this operator made them.
    pub known: &'a Known,
}

impl Input<'_> {
    fn name(&self) -> String {
        self.site.name_any()
    }

    fn key(&self, suffix: &str) -> Key {
        self.valid.place.key(suffix)
    }

    /// Metadata of an object that must outlive a mistake: labels, but no owner that would take it along.
    fn kept_metadata(&self) -> Value {
        json!({"labels": self.labels()})
    }

    /// Metadata of an object that goes with the site. An owner must be in the same namespace: an object in another is
    /// removed by the finalizer.
    pub(in crate::controllers) fn owned_metadata(&self) -> Value {
        if self.valid.place.is_foreign() {
            return self.kept_metadata();
        }
        json!({"labels": self.labels(), "ownerReferences": [{
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "name": self.name(),
            "uid": self.site.uid().unwrap_or_default(), "controller": true, "blockOwnerDeletion": true,
        }]})
    }

    pub(in crate::controllers) fn labels(&self) -> std::collections::BTreeMap<String, String> {
        let mut labels =
            labels::site(&self.site.spec.bench_ref.name, &self.name(), &self.site.uid().unwrap_or_default());
        let place = &self.valid.place;
        labels.extend(place.is_foreign().then(|| (labels::SITE_NAMESPACE.to_owned(), place.own.clone())));
        labels
    }
}
