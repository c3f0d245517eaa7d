//! Carries out what a plan decided. No choices are made here.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::DynamicObject;
use serde_json::Value;

use crate::{
    controllers::context::{ChildCache, Children},
    domain::{
        diff::first_difference,
        key::Key,
        object::{Desired, Kind},
    },
    io::writer::{WriteError, Writer},
};

/// Brings an object to what it should be, if it differs. Costs nothing if it does not.
pub async fn ensure(writer: &Writer, children: &Children, desired: &Desired) -> Result<(), WriteError> {
    let cache = children.cache(desired.kind);
    let live = cache.get(&desired.key);
    if let Some(live) = &live {
        let Some(path) = first_difference(&desired.stamped(), &as_value(live)) else { return Ok(()) };
        tracing::debug!(kind = ?desired.kind, key = %desired.key, %path, "differs");
    }
    let written = writer.apply(desired, live.is_some()).await?;
    cache.wrote(pruned(written));
    Ok(())
}

/// Creates an object that must not be there yet.
pub async fn create(writer: &Writer, cache: &ChildCache, desired: &Desired) -> Result<(), WriteError> {
    let mut written = pruned(writer.create(desired).await?);
    if desired.kind == Kind::Secret {
        // Never held: caches know a Secret's metadata only.
        written.data = Value::Null;
    }
    cache.wrote(written);
    Ok(())
}

/// Deletes exactly this object.
pub async fn delete(writer: &Writer, cache: &ChildCache, kind: Kind, object: &DynamicObject) -> Result<(), WriteError> {
    match writer.delete(kind, object).await? {
        Some(left) if left.metadata.finalizers.as_ref().is_some_and(|it| !it.is_empty()) => cache.wrote(pruned(left)),
        _ => cache.deleted(&Key::of(object), &object.metadata.uid.clone().unwrap_or_default()),
    }
    Ok(())
}

/// An object without what no reconcile reads.
pub fn pruned(mut object: DynamicObject) -> DynamicObject {
    object.metadata.managed_fields = None;
    object
}

/// The object as JSON, as it is compared.
fn as_value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or(Value::Null)
}

/// Names an object to Events.
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
