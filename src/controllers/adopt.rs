//! Adopts an object of another operator, or creates it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::{ResourceExt, core::DynamicObject};
use serde_json::{Map, Value, json};

use super::{adoption::Owner, context::Children, objects};
use crate::{
    domain::{
        labels,
        metadata::MetadataPatch,
        object::{Desired, Kind, is_ours},
    },
    io::writer::{NOT_OURS, WriteError, Writer},
};

/// Adopts an object, or creates it. An object of another owner is rejected.
pub async fn adopt(writer: &Writer, children: &Children, desired: &Desired, owner: &Owner) -> Result<(), WriteError> {
    let cache = children.cache(desired.kind);
    let Some(live) = writer.find(desired.kind, &desired.key).await? else {
        return objects::ensure(writer, children, desired).await;
    };
    if is_ours(&live.metadata) && !is_of_other(&live, desired) {
        cache.wrote(live);
        return objects::ensure(writer, children, desired).await;
    }
    if live.annotations().contains_key(labels::APPLIED_HASH) || (!owner.adopts && !owner.has(&live)) {
        // This operator's object without its labels; or a user's, which is used if it equals the desired one.
        return objects::ensure(writer, children, desired).await;
    }
    if !owner.adopts || !owner.has(&live) {
        let message = if owner.has(&live) {
            "created by another operator: see docs/migration.md to take it over".to_owned()
        } else {
            NOT_OURS.to_owned()
        };
        return Err(WriteError::Rejected { verb: "take over", kind: desired.kind, key: desired.key.clone(), message });
    }
    cache.wrote(writer.patch_metadata(desired.kind, &desired.key, &metadata(&live, desired, owner)).await?);
    Ok(())
}

/// Whether an object belongs to another site or bench of this operator.
pub fn is_of_other(live: &DynamicObject, desired: &Desired) -> bool {
    let wanted = &desired.body["metadata"]["labels"][labels::SITE_UID];
    wanted.is_string() && live.labels().get(labels::SITE_UID).map(String::as_str) != wanted.as_str()
}

/// The metadata patch of an adoption: labels, by which the object is watched, and owner references.
pub fn metadata(live: &DynamicObject, desired: &Desired, owner: &Owner) -> MetadataPatch {
    MetadataPatch {
        annotations: [(labels::ADOPTED.to_owned(), owner.generation.to_string())].into(),
        // Without owner reference for objects that must survive an accidental deletion of their owner.
        owner_references: Some(desired.owners()),
        managed_fields: (desired.kind == Kind::Deployment).then(|| inherited(live.managed_fields())),
        ..MetadataPatch::of(live).with_labels(desired.labels())
    }
}

/// Moves the other operator's managed fields to this operator, so that unwanted fields are removed by the next apply. Fields of
/// Kubernetes' controllers are kept.
pub fn inherited(entries: &[ManagedFieldsEntry]) -> Vec<ManagedFieldsEntry> {
    let of_operator = |it: &&ManagedFieldsEntry| {
        let manager = it.manager.as_deref().unwrap_or_default();
        it.subresource.is_none() && !manager.starts_with("kube-") && !manager.starts_with("keda")
    };
    let (theirs, others): (Vec<_>, Vec<_>) = entries.iter().partition(of_operator);
    let mut all = Value::Object(Map::new());
    for entry in &theirs {
        unite(&mut all, entry.fields_v1.as_ref().map_or(&Value::Null, |it| &it.0));
    }
    let ours = theirs.first().map(|first| ManagedFieldsEntry {
        manager: Some(labels::MANAGER.to_owned()),
        operation: Some("Apply".to_owned()),
        fields_v1: Some(FieldsV1(all)),
        ..(*first).clone()
    });
    ours.into_iter().chain(others.into_iter().cloned()).collect()
}

/// Union of two sets of fields.
pub fn unite(into: &mut Value, from: &Value) {
    let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) else { return };
    for (key, value) in from {
        unite(into.entry(key).or_insert_with(|| json!({})), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, subresource: Option<&str>, fields: Value) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            operation: Some("Update".to_owned()),
            subresource: subresource.map(str::to_owned),
            fields_v1: Some(FieldsV1(fields)),
            ..ManagedFieldsEntry::default()
        }
    }

    #[test]
    fn the_fields_of_operators_are_united_and_those_of_kubernetes_stay() {
        let entries = [
            entry("manager", None, json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {}}}})),
            entry("kube-controller-manager", Some("status"), json!({"f:status": {}})),
            entry("kubectl-edit", None, json!({"f:spec": {"f:paused": {}}})),
        ];
        let after = inherited(&entries);
        assert_eq!(after.len(), 2);
        assert_eq!(after[0].operation.as_deref(), Some("Apply"));
        let fields = json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {}}, "f:paused": {}}});
        assert_eq!(after[0].fields_v1.as_ref().map(|it| it.0.clone()), Some(fields));
        assert_eq!(after[1], entries[1]);
    }
}
