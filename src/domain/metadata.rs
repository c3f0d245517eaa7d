//! JSON merge patches of metadata, and of Secrets of another operator. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, OwnerReference};
use kube::{ResourceExt, api::ObjectMeta};
use serde::Serialize;

/// Patch of an object's metadata. Fields that are not set stay unchanged.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetadataPatch {
    /// Uid of the object: another one with the same name is not patched.
    pub uid: Option<String>,
    /// The resourceVersion that the patch is based on; None for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// All finalizers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finalizers: Option<Vec<String>>,
    /// Labels to set, or to remove if None.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
    /// Annotations to set.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// All owner references.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_references: Option<Vec<OwnerReference>>,
    /// Managed fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_fields: Option<Vec<ManagedFieldsEntry>>,
}

impl MetadataPatch {
    /// A patch of this object at its known version.
    pub fn of(object: &impl ResourceExt) -> Self {
        Self { resource_version: object.resource_version(), ..Self::at_any_version(object) }
    }

    /// A patch of this object at any version.
    pub fn at_any_version(object: &impl ResourceExt) -> Self {
        Self { uid: object.uid(), ..Self::default() }
    }

    /// The patch with exactly these finalizers.
    #[must_use]
    pub fn with_finalizers(mut self, finalizers: impl IntoIterator<Item = String>) -> Self {
        self.finalizers = Some(finalizers.into_iter().collect());
        self
    }

    /// The patch with these additional labels.
    #[must_use]
    pub fn with_labels(mut self, labels: impl IntoIterator<Item = (impl Into<String>, String)>) -> Self {
        self.labels.extend(labels.into_iter().map(|(name, value)| (name.into(), Some(value))));
        self
    }

    /// The patch without these labels.
    #[must_use]
    pub fn without_labels<const N: usize>(mut self, labels: [&str; N]) -> Self {
        self.labels.extend(labels.map(|name| (name.to_owned(), None)));
        self
    }
}

/// Patch of another operator's Secret for its adoption.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretAdoption {
    /// Metadata.
    pub metadata: AdoptedMetadata,
    /// Keys to add or replace.
    pub string_data: BTreeMap<String, String>,
}

/// Metadata of an object that is taken over: without owner references that would delete it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdoptedMetadata {
    /// Labels, annotations, and the resourceVersion that the patch is based on.
    #[serde(flatten)]
    pub metadata: ObjectMeta,
    owner_references: (),
}

impl From<ObjectMeta> for AdoptedMetadata {
    fn from(metadata: ObjectMeta) -> Self {
        Self { metadata: ObjectMeta { owner_references: None, ..metadata }, owner_references: () }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;

    use super::*;
    use crate::domain::wire;

    fn secret() -> Secret {
        serde_json::from_value(json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}}))
            .expect("a Secret")
    }

    #[test]
    fn a_change_names_the_object_and_what_it_changes_alone() {
        assert_eq!(wire::json(&MetadataPatch::at_any_version(&secret())), json!({"uid": "u"}));
        let change = MetadataPatch::of(&secret()).with_labels([("site", "shop".to_owned())]).without_labels(["gone"]);
        let labels = json!({"site": "shop", "gone": null});
        assert_eq!(wire::json(&change), json!({"uid": "u", "resourceVersion": "7", "labels": labels}));
        assert_eq!(wire::json(&MetadataPatch::default().with_finalizers([]))["finalizers"], json!([]));
    }

    #[test]
    fn an_adopted_object_loses_its_owners() {
        let adopted = AdoptedMetadata::from(ObjectMeta { owner_references: Some(Vec::new()), ..secret().metadata });
        let body = wire::json(&adopted);
        assert_eq!((&body["ownerReferences"], &body["uid"]), (&json!(null), &json!("u")));
        assert!(body.as_object().is_some_and(|it| it.contains_key("ownerReferences")));
    }
}
