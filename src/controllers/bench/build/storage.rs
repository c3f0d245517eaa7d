//! The volume that holds the sites.

use serde_json::json;

use super::Input;
use crate::domain::object::{Desired, Kind};

/// Size where the bench names none.
const DEFAULT_SIZE: &str = "10Gi";

/// The PersistentVolumeClaim that every pod of the bench mounts at once, hence ReadWriteMany.
pub(super) fn sites_claim(input: &Input) -> Desired {
    let spec = &input.bench.spec;
    let size = spec.storage_size.as_ref().map_or(DEFAULT_SIZE, |size| size.0.as_str());
    let mut claim = json!({"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}});
    if let Some(class) = &spec.storage_class_name {
        claim["storageClassName"] = json!(class);
    }
    input.object(Kind::PersistentVolumeClaim, "sites", "sites", &claim)
}
