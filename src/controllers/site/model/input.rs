//! Data: input of the builders of a site's objects.

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

/// Input that all objects of a site need, whether the site is created, changed or deleted.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The site.
    pub site: &'a FrappeSite,
    /// Namespace and names of its objects.
    pub place: &'a Place,
    /// Recorded decisions: the identity, which its Secret, Jobs and directory on the volume share, and the names of its
    /// database and user, if this operator created them.
    pub known: &'a Known,
    /// Its database; None if its Jobs do not connect to one.
    pub database: Option<&'a Database>,
}

/// Input of the builders, for a site with a valid spec.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Input that all objects need.
    pub subject: Subject<'a>,
    /// The validated spec.
    pub valid: &'a Validated,
}

impl<'a> Input<'a> {
    /// Input for a validated site.
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

/// Whether the garbage collector deletes what the site owns before the site: a Job for its deletion would not end.
fn is_collected(site: &FrappeSite) -> bool {
    site.metadata.deletion_timestamp.is_some() && site.finalizers().iter().any(|it| it == "foregroundDeletion")
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

    /// An object that is not deleted with the site: it has labels, but no owner reference.
    pub fn kept<S>(&self, key: Key, spec: S) -> Object<S> {
        Object { key, metadata: self.kept_metadata(), spec }
    }

    /// An object with an owner reference to the site.
    pub fn owned<S>(&self, key: Key, spec: S) -> Object<S> {
        Object { key, metadata: self.owned_metadata(), spec }
    }

    /// Metadata without an owner reference.
    pub fn kept_metadata(&self) -> ObjectMeta {
        ObjectMeta { labels: Some(self.labels()), ..ObjectMeta::default() }
    }

    /// Metadata with an owner reference, if the site is in the same namespace; objects in another namespace are deleted by the finalizer,
    /// and so are Jobs of a site that is deleted in the foreground.
    fn owned_metadata(&self) -> ObjectMeta {
        if self.place.is_foreign() || is_collected(self.site) {
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

    /// Annotation with the site's identity.
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
