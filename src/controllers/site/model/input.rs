//! What the builders need to know of a site, as data.

use std::ops::Deref;

use frappe_crds::FrappeSite;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::decided::{Database, Known};
use crate::{
    controllers::site::{place::Place, validate::validated::Validated},
    domain::{key::Key, labels},
};

/// What the objects of a site have in common, whether it is being made, changed or removed.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The site.
    pub site: &'a FrappeSite,
    /// Where its objects live.
    pub place: &'a Place,
    /// What was decided about it: the identity that its Secret, its Jobs and its directory on the volume agree on, and the
    /// names of its database and account, where this operator made them.
    pub known: &'a Known,
    /// Its database; nothing where its Jobs have none to log in at.
    pub database: Option<&'a Database>,
}

/// What the builders need to know of a site whose spec is valid.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// What all its objects have in common.
    pub subject: Subject<'a>,
    /// What validation made of its spec.
    pub valid: &'a Validated,
}

impl<'a> Input<'a> {
    /// The site, as validation found it.
    pub fn new(site: &'a FrappeSite, valid: &'a Validated, known: &'a Known) -> Self {
        Self { subject: Subject { site, place: &valid.place, known, database: Some(&valid.database) }, valid }
    }
}

impl<'a> Deref for Input<'a> {
    type Target = Subject<'a>;

    fn deref(&self) -> &Self::Target {
        &self.subject
    }
}

impl Subject<'_> {
    /// Name of the site.
    pub fn name(&self) -> String {
        self.site.name_any()
    }

    /// Name of an object of the site, in the namespace of its bench.
    pub fn key(&self, suffix: &str) -> Key {
        self.place.key(suffix)
    }

    /// Metadata of an object that must outlive a mistake: labels, but no owner that would take it along.
    pub fn kept_metadata(&self) -> Value {
        json!({"labels": self.labels()})
    }

    /// Metadata of an object that goes with the site. An owner must be in the same namespace: an object in another is
    /// removed by the finalizer.
    pub fn owned_metadata(&self) -> Value {
        if self.place.is_foreign() {
            return self.kept_metadata();
        }
        json!({"labels": self.labels(), "ownerReferences": [{
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "name": self.name(),
            "uid": self.site.uid().unwrap_or_default(), "controller": true, "blockOwnerDeletion": true,
        }]})
    }

    /// Labels of every object of the site.
    pub fn labels(&self) -> std::collections::BTreeMap<String, String> {
        let mut labels =
            labels::site(&self.site.spec.bench_ref.name, &self.name(), &self.site.uid().unwrap_or_default());
        let place = self.place;
        labels.extend(place.is_foreign().then(|| (labels::SITE_NAMESPACE.to_owned(), place.own.clone())));
        labels
    }
}
