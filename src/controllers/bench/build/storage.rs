//! The volume that holds the sites.

use frappe_crds::bench::StorageDeletionPolicy;
use serde_json::json;

use crate::{
    controllers::bench::model::Input,
    domain::object::{Desired, Kind},
};

/// Size where the bench names none.
const DEFAULT_SIZE: &str = "10Gi";

/// The PersistentVolumeClaim that every pod of the bench mounts at once, hence ReadWriteMany unless the bench says that
/// they are on one node. A claim that is to outlive the bench is not owned by it.
pub(super) fn sites_claim(input: &Input) -> Desired {
    let spec = &input.bench.spec;
    let size = spec.storage_size.as_ref().map_or(DEFAULT_SIZE, |size| size.0.as_str());
    let mode = spec.storage_access_mode.unwrap_or_default().as_str();
    let mut claim = json!({"accessModes": [mode], "resources": {"requests": {"storage": size}}});
    if let Some(class) = &spec.storage_class_name {
        claim["storageClassName"] = json!(class);
    }
    let mut claim = input.object(Kind::PersistentVolumeClaim, "sites", "sites", &claim);
    if spec.storage_deletion_policy.unwrap_or_default() == StorageDeletionPolicy::Retain {
        claim.body["metadata"].as_object_mut().map(|metadata| metadata.remove("ownerReferences"));
    }
    claim
}
