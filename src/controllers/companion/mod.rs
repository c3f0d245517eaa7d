//! Objects that users create for a site, in its namespace: SiteBackups and SiteJobs. Those of one site are reconciled together, by the
//! owner of the site's slot.
//!
//! New ones have no slot label: every replica watches them, and the owner of their site sets it. From then on only that replica
//! watches them.

pub mod index;
pub mod orphan;

use std::sync::Arc;

use frappe_crds::FrappeSite;
use jiff::Timestamp;
use kube::ResourceExt;
use serde::{Serialize, de::DeserializeOwned};

use super::model::{Reconciled, Step};
use crate::domain::{
    key::Key,
    labels::{self, has_labels},
    metadata::MetadataPatch,
    uid,
};

/// A kind of such objects.
pub trait Companion: Reconciled + Serialize + DeserializeOwned {
    /// Name of the site.
    fn site_name(&self) -> &str;

    /// The step that reports that the site does not exist, if that is not reported yet.
    fn report_missing_site(known: &Arc<Self>, site: &Key, now: Timestamp) -> Option<Step<Self>>;

    /// Finalizers without this operator's, if the object has it and must lose it: without a site there is nothing to do for it.
    fn finalizers_without_site(&self) -> Option<Vec<String>> {
        None
    }
}

/// Labels of an object of a site.
pub fn labels_of(site: &FrappeSite) -> [(&'static str, String); 2] {
    [(labels::SLOT, uid::slot_of(site).to_string()), ("site", site.name_any())]
}

/// Sets the labels of an object of a site; None if it has them.
pub fn labelled<K: Companion>(site: &FrappeSite, known: &Arc<K>) -> Option<Step<K>> {
    let wanted = labels_of(site);
    if has_labels(known.as_ref(), &wanted) {
        return None;
    }
    Some(Step::Patch(known.clone(), MetadataPatch::of(known.as_ref()).with_labels(wanted)))
}
