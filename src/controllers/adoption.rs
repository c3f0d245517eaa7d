//! Taking over what another operator made for a bench or a site of ours, where a user asks for that by the annotation
//! `frappe.vyogo.tech/adopt: "true"` of the bench. An object is taken only if its controller is that very bench or site, and only its
//! metadata changes then: no pod is started again. See `docs/migration.md`.

use frappe_crds::FrappeBench;
use kube::{ResourceExt, core::DynamicObject};

use crate::domain::{labels, object::is_controlled_by, uid};

/// For whom objects are taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its uid: the controller that an object must name.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// Whether a user asked for that.
    pub is_asked: bool,
}

impl Owner {
    /// A bench or a site.
    pub fn of(object: &impl ResourceExt, is_asked: bool) -> Self {
        let generation = object.meta().generation.unwrap_or_default();
        Self { uid: uid::of(object).to_owned(), generation, is_asked }
    }

    /// Whether an object was made for it.
    pub fn has(&self, object: &DynamicObject) -> bool {
        is_controlled_by(object, &self.uid)
    }
}

/// Whether a user asked for a bench to be taken over, and its sites.
pub fn is_asked(bench: &FrappeBench) -> bool {
    bench.annotations().get(labels::ADOPT).is_some_and(|it| it == "true")
}

/// Whether an object is as it was found: it was taken over, and never brought to what it should be since.
pub fn is_as_found(live: &DynamicObject) -> bool {
    let annotations = live.annotations();
    annotations.contains_key(labels::ADOPTED) && !annotations.contains_key(labels::APPLIED_HASH)
}
