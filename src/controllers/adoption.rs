//! Adoption of another operator's objects of a bench and its sites, requested by the annotation `frappe.vyogo.tech/adopt: "true"`
//! of the bench. An object is adopted only if its controller is that bench or site, and only its metadata changes: no pod is
//! restarted. See `docs/migration.md`. Here are the pure rules; `adopt` writes one object.

use frappe_crds::FrappeBench;
use kube::{ResourceExt, core::DynamicObject};

use crate::domain::{labels, object::is_controlled_by, uid};

/// The owner for which objects are adopted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its uid, which an object must have as its controller.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// Whether a user requested the adoption.
    pub adopts: bool,
}

impl Owner {
    /// The owner for a bench or a site.
    pub fn of(object: &impl ResourceExt, adopts: bool) -> Self {
        let generation = object.meta().generation.unwrap_or_default();
        Self { uid: uid::of(object).to_owned(), generation, adopts }
    }

    /// Whether an object was created for it.
    pub fn has(&self, object: &DynamicObject) -> bool {
        is_controlled_by(object, &self.uid)
    }
}

/// Whether a user requested the adoption of the objects of a bench and its sites.
pub fn is_adoption_requested(bench: &FrappeBench) -> bool {
    bench.annotations().get(labels::ADOPT).is_some_and(|it| it == "true")
}

/// Whether an object was adopted and has not been applied since.
pub fn is_unchanged_since_adoption(live: &DynamicObject) -> bool {
    let annotations = live.annotations();
    annotations.contains_key(labels::ADOPTED) && !annotations.contains_key(labels::APPLIED_HASH)
}
