//! Writes of one object, compared with the live one first.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{ResourceExt, core::DynamicObject};
use serde_json::{Map, Value, json};

use crate::{
    controllers::context::{ChildCache, Children},
    domain::{
        diff::first_difference,
        key::Key,
        labels,
        metadata::{MetadataPatch, SecretAdoption},
        names::has_short_hash,
        object::{Desired, Kind, is_ours},
        owner::Owner,
        uid, wire,
    },
    io::writer::{WriteError, Writer},
};

/// The live object with this name, if it belongs to the same owner; an object of another owner is rejected.
///
/// If another site's object may have the same name, an object that no watch shows is read live: an apply would not
/// conflict, because this operator created both.
async fn own(
    writer: &Writer,
    cache: &ChildCache,
    verb: &'static str,
    desired: &Desired,
) -> Result<Option<Arc<DynamicObject>>, WriteError> {
    let known = match cache.get(&desired.key) {
        None if has_short_hash(&desired.key.name) => found(writer, desired).await?.map(Arc::new),
        known => known,
    };
    match known {
        Some(live) if !Owner::of(desired).has(&live) => Err(WriteError::not_ours(verb, desired)),
        known => Ok(known),
    }
}

/// The live object; only the metadata of a Secret is read.
async fn found(writer: &Writer, desired: &Desired) -> Result<Option<DynamicObject>, WriteError> {
    if desired.kind != Kind::Secret {
        return writer.find(desired.kind, &desired.key).await;
    }
    match writer.get_metadata(desired.kind, &desired.key).await {
        Ok(live) => Ok(Some(live)),
        Err(WriteError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Applies an object if it differs from the live one; otherwise sends no request.
pub async fn ensure(writer: &Writer, children: &Children, desired: &Desired) -> Result<(), WriteError> {
    let cache = children.cache(desired.kind);
    let live = own(writer, cache, "apply", desired).await?;
    if let Some(live) = &live {
        let Some(path) = difference(&compared(desired), live) else { return Ok(()) };
        tracing::debug!(object = name(desired.kind, &desired.key), %path, "live object differs from the desired one");
    }
    let mut written = writer.apply(desired, live.is_some()).await?;
    if desired.kind != Kind::Secret
        && let Some(path) = difference(&desired.stamped(), &written)
    {
        tracing::warn!(object = name(desired.kind, &desired.key), %path, "applied field was changed or dropped by admission");
    }
    if desired.kind == Kind::ConfigMap {
        written.data = json!({"data": entries(&written.data["data"])});
    }
    cache.wrote(written);
    Ok(())
}

/// The object as compared with the cached one. For a ConfigMap, whose data is not cached, the hash of the applied data is
/// compared.
fn compared(desired: &Desired) -> Value {
    let mut body = desired.stamped();
    if desired.kind == Kind::ConfigMap {
        body["data"] = entries(&body["data"]);
    }
    body
}

fn entries(data: &Value) -> Value {
    data.as_object().into_iter().flatten().map(|(name, _)| (name.clone(), json!(true))).collect::<Map<_, _>>().into()
}

/// Applies the current replicas of a Deployment with a second field manager, so that they are not reset when the first one
/// stops applying the field. A later writer of the field takes it over from both.
pub async fn hand_over_replicas(writer: &Writer, children: &Children, live: &DynamicObject) -> Result<(), WriteError> {
    let written = writer.apply_replicas(&Key::of(live), live).await?;
    children.cache(Kind::Deployment).wrote(written);
    Ok(())
}

/// The patch that labels a user's Secret, so that it is watched.
pub fn watched(secret: &DynamicObject) -> MetadataPatch {
    MetadataPatch::of(secret).with_labels([(labels::WATCHED, "true".to_owned())])
}

/// Changes the metadata of a Secret.
pub async fn patch_secret(
    writer: &Writer,
    cache: &ChildCache,
    secret: &DynamicObject,
    metadata: &MetadataPatch,
) -> Result<(), WriteError> {
    cache.wrote(writer.patch_metadata(Kind::Secret, &Key::of(secret), metadata).await?);
    Ok(())
}

/// Adopts a Secret of another operator.
pub async fn adopt_secret(
    writer: &Writer,
    cache: &ChildCache,
    secret: &DynamicObject,
    adoption: &SecretAdoption,
) -> Result<(), WriteError> {
    cache.wrote(writer.patch(Kind::Secret, &Key::of(secret), adoption).await?);
    Ok(())
}

/// Updates a copy with the data of the Secret `from`, for the keys of `desired`. The data is held only during this call.
pub async fn copy_secret(writer: &Writer, cache: &ChildCache, from: &Key, desired: &Desired) -> Result<(), WriteError> {
    let known = own(writer, cache, "copy to", desired).await?.is_some();
    let source = writer.read(Kind::Secret, from).await?;
    let mut desired = desired.clone();
    let named: Vec<String> = desired.body["data"].as_object().into_iter().flatten().map(|it| it.0.clone()).collect();
    let held = named.into_iter().filter_map(|key| Some((key.clone(), source.data["data"].get(&key)?.clone())));
    desired.body["data"] = held.collect();
    cache.wrote(writer.apply(&desired, known).await?);
    Ok(())
}

/// Creates an object that must not exist yet. An existing object of the same owner that lost its labels, so that no watch
/// shows it, is labelled again; an object of another owner is rejected. Returns whether it was created.
pub async fn create(writer: &Writer, cache: &ChildCache, desired: &Desired) -> Result<bool, WriteError> {
    let (written, made) = match writer.create(desired).await {
        Err(WriteError::Conflict { .. }) if matches!(desired.kind, Kind::Secret | Kind::Job) => {
            (relabel_existing(writer, desired).await?, false)
        }
        other => (other?, true),
    };
    let other = identity_of(&written) != wanted_identity(desired);
    cache.wrote(written);
    if other {
        return Err(WriteError::Conflict { verb: "create", kind: desired.kind, key: desired.key.clone() });
    }
    Ok(made)
}

/// The existing object with its labels restored, if it belongs to the same owner.
async fn relabel_existing(writer: &Writer, desired: &Desired) -> Result<DynamicObject, WriteError> {
    let live = writer.get_metadata(desired.kind, &desired.key).await?;
    is_own_existing(desired, &live).map_err(|error| *error)?;
    let metadata = MetadataPatch::of(&live).with_labels(desired.labels());
    writer.patch_metadata(desired.kind, &desired.key, &metadata).await
}

/// Whether an existing object is the one to be created.
///
/// It is if it has the owner's labels or the recorded identity. A Secret that was kept or restored for a site of this name
/// has another identity: the site is reconciled again before anything is created with the recorded one.
pub fn is_own_existing(desired: &Desired, live: &DynamicObject) -> Result<(), Box<WriteError>> {
    let has_identity = live.annotations().contains_key(labels::IDENTITY);
    let same = has_identity && identity_of(live) == wanted_identity(desired);
    if !same && desired.kind == Kind::Job && is_ours(&live.metadata) {
        // The Job of a deleted site with this name: the garbage collector has not deleted it yet.
        return Err(Box::new(WriteError::Conflict { verb: "create", kind: desired.kind, key: desired.key.clone() }));
    }
    let kept = desired.kind == Kind::Secret && has_identity && Owner::of(desired).has(live);
    if same || kept { Ok(()) } else { Err(Box::new(WriteError::not_ours("create", desired))) }
}

fn wanted_identity(desired: &Desired) -> Option<&str> {
    desired.body["metadata"]["annotations"][labels::IDENTITY].as_str()
}

fn identity_of(object: &DynamicObject) -> Option<&str> {
    object.annotations().get(labels::IDENTITY).map(String::as_str)
}

/// Deletes this object, by uid.
pub async fn delete(writer: &Writer, cache: &ChildCache, kind: Kind, object: &DynamicObject) -> Result<(), WriteError> {
    match writer.delete(kind, object).await? {
        Some(left) if left.metadata.finalizers.as_ref().is_some_and(|it| !it.is_empty()) => cache.wrote(left),
        _ => cache.deleted(&Key::of(object), uid::of(object)),
    }
    Ok(())
}

/// Path of the first field of `desired` that an object of its kind lacks or has with another value.
fn difference(desired: &Value, live: &DynamicObject) -> Option<String> {
    let metadata = wire::json(&live.metadata);
    desired.as_object()?.iter().find_map(|(field, wanted)| {
        let found = match field.as_str() {
            // Items of a list have neither.
            "apiVersion" | "kind" => return None,
            "metadata" => &metadata,
            other => &live.data[other],
        };
        first_difference(wanted, found).map(|path| format!(".{field}{path}"))
    })
}

/// Name of an object in messages.
pub fn name(kind: Kind, key: &Key) -> String {
    format!("{} {key}", kind.resource().kind)
}

/// Reference to an object in Events.
pub fn reference(kind: Kind, key: &Key, uid: Option<String>) -> ObjectReference {
    let resource = kind.resource();
    ObjectReference {
        api_version: Some(resource.api_version),
        kind: Some(resource.kind),
        namespace: Some(key.namespace.clone()).filter(|it| !it.is_empty()),
        name: Some(key.name.clone()),
        uid,
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(site_uid: &str, namespace: &str, identity: &str) -> Value {
        let labels =
            json!({"app.kubernetes.io/managed-by": "frappe-operator", "site": "shop", labels::SITE_UID: site_uid});
        json!({"metadata": {"name": "shop-db-password", "namespace": namespace, "labels": labels,
                            "annotations": {labels::IDENTITY: identity}}})
    }

    /// An existing object with the name of an object to create is this site's if it has the recorded identity, or that of a deleted
    /// site with the same name; for a Job, only the identity counts.
    #[test]
    fn an_existing_secret_is_recognized_by_its_identity() {
        let cases = [
            (Kind::Secret, "mine", "decided", true),
            (Kind::Secret, "gone", "kept", true),
            (Kind::Job, "mine", "decided", true),
            (Kind::Job, "gone", "kept", false),
        ];
        for (kind, site_uid, identity, wanted) in cases {
            let key = Key::new("a", "shop-db-password");
            let body = secret("mine", "a", "decided");
            let desired = Desired { kind, key, body };
            let mut live = secret(site_uid, "a", identity);
            live["apiVersion"] = json!("v1");
            live["kind"] = json!("Secret");
            let live: DynamicObject = serde_json::from_value(live).expect("an object");
            assert_eq!(is_own_existing(&desired, &live).is_ok(), wanted, "{kind:?} {site_uid} {identity}");
        }
        let (kind, key) = (Kind::Secret, Key::new("a", "shop-db-password"));
        let desired = Desired { kind, key, body: secret("mine", "a", "decided") };
        let mut other = secret("other", "a", "theirs");
        other["metadata"]["labels"]["site"] = json!("other");
        let other: DynamicObject = serde_json::from_value(other).expect("an object");
        assert!(is_own_existing(&desired, &other).is_err(), "a Secret of another site");
    }
}
