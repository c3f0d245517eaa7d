//! The volume of the sites.

use frappe_crds::bench::StorageDeletionPolicy;
use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;

use crate::{
    controllers::bench::model::Input,
    domain::{object::Desired, typed::storage},
};

/// Default size.
const DEFAULT_SIZE: &str = "10Gi";

/// The PersistentVolumeClaim that all pods of the bench mount, hence ReadWriteMany unless the bench requires all pods on one node. A
/// claim that is kept after the deletion of the bench has no owner reference.
pub(super) fn sites_claim(input: &Input) -> Desired {
    let spec = &input.bench.spec;
    let size = spec.storage_size.as_ref().map_or(DEFAULT_SIZE, |size| size.0.as_str());
    let mode = spec.storage_access_mode.unwrap_or_default().as_str();
    let mut claim = input.object(
        "sites",
        "sites",
        PersistentVolumeClaimSpec {
            access_modes: Some(vec![mode.to_owned()]),
            resources: Some(storage(size)),
            storage_class_name: spec.storage_class_name.clone(),
            ..PersistentVolumeClaimSpec::default()
        },
    );
    if spec.storage_deletion_policy.unwrap_or_default() == StorageDeletionPolicy::Retain {
        claim.metadata.owner_references = None;
    }
    claim.into()
}
