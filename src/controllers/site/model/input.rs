//! What the builders need to know of a site, as data.

use std::{collections::BTreeMap, ops::Deref};

use frappe_crds::FrappeSite;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt, api::ObjectMeta};

use super::decided::{Database, Known};
use crate::{
    controllers::site::{place::Place, validate::validated::Validated},
    domain::{
        key::Key,
        labels,
        typed::{Object, entry},
        uid,
    },
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
    /// Its database; None if its Jobs have none to log in at.
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

    /// An object that must outlive a mistake: labels, but no owner that would delete it too.
    pub fn kept<S>(&self, key: Key, spec: S) -> Object<S> {
        Object { key, metadata: self.kept_metadata(), spec }
    }

    /// An object that is deleted with the site.
    pub fn owned<S>(&self, key: Key, spec: S) -> Object<S> {
        Object { key, metadata: self.owned_metadata(), spec }
    }

    /// Metadata of an object that must outlive a mistake.
    pub fn kept_metadata(&self) -> ObjectMeta {
        ObjectMeta { labels: Some(self.labels()), ..ObjectMeta::default() }
    }

    /// Metadata of an object that is deleted with the site. An owner must be in the same namespace: an object in another is
    /// removed by the finalizer.
    fn owned_metadata(&self) -> ObjectMeta {
        if self.place.is_foreign() {
            return self.kept_metadata();
        }
        let owner = OwnerReference {
            api_version: FrappeSite::api_version(&()).into_owned(),
            kind: FrappeSite::kind(&()).into_owned(),
            name: self.name(),
            uid: uid::of(self.site).to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        };
        ObjectMeta { owner_references: Some(vec![owner]), ..self.kept_metadata() }
    }

    /// Annotation of what is this site's by its identity.
    pub fn identity(&self) -> BTreeMap<String, String> {
        entry(labels::IDENTITY, &self.known.identity)
    }

    /// Labels of every object of the site.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = labels::site(&self.site.spec.bench_ref.name, &self.name(), uid::of(self.site));
        let place = self.place;
        labels.extend(place.is_foreign().then(|| (labels::SITE_NAMESPACE.to_owned(), place.own.clone())));
        labels
    }
}
