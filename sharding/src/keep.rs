//! How a cache keeps the objects of a kind.

use std::{fmt, sync::Arc};

use kube::Resource;
use serde::de::DeserializeOwned;

use crate::{key::Key, reading, uid};

/// How objects of type `K` are read, kept in a cache and returned from it. [`Whole`] keeps them as they are; another may keep
/// a part of each, or compress them.
pub trait Keep<K>: Send + Sync + 'static {
    /// What the watch delivers.
    type Form: Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static;
    /// What the cache keeps.
    type Held: Send + Sync;
    /// What the kept objects of one cache share.
    type Sample: Default + Send + Sync;

    /// The form of an object.
    fn close(object: K) -> Self::Form;

    /// Reads the form of an object from its text. None if it cannot be read; it is then not cached.
    fn read(text: &str) -> Option<Self::Form>;

    /// The parts of a form that are kept when it arrives. Default: all of it.
    fn trim(form: Self::Form) -> Self::Form {
        form
    }

    /// The object of a form.
    fn open(form: &Arc<Self::Form>) -> Arc<K>;

    /// The form as it is kept.
    fn hold(form: &Arc<Self::Form>, sample: &Self::Sample) -> Self::Held;

    /// The form that is kept.
    fn form(held: &Self::Held) -> Arc<Self::Form>;

    /// The same, in memory of its own.
    fn copy(held: &Self::Held) -> Self::Held;
}

/// Keeps objects as they are, without managedFields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whole;

impl<K> Keep<K> for Whole
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
{
    type Form = K;
    type Held = Arc<K>;
    type Sample = ();

    fn close(object: K) -> K {
        object
    }

    fn read(text: &str) -> Option<K> {
        // Some kinds are of the cluster: they have no namespace.
        reading::read(text).map(Self::trim).filter(|it| is_whole(it, false))
    }

    fn trim(mut form: K) -> K {
        form.meta_mut().managed_fields = None;
        form
    }

    fn open(form: &Arc<K>) -> Arc<K> {
        Arc::clone(form)
    }

    fn hold(form: &Arc<K>, (): &()) -> Arc<K> {
        Arc::clone(form)
    }

    fn form(held: &Arc<K>) -> Arc<K> {
        Arc::clone(held)
    }

    fn copy(held: &Arc<K>) -> Arc<K> {
        Arc::new(K::clone(held))
    }
}

/// Whether an object has a name, a uid and, if its kind is `namespaced`, a namespace, as every object of an API server; if
/// not, that is logged. An object without them would be in the slot of the empty text.
pub fn is_whole(object: &impl Resource, namespaced: bool) -> bool {
    let lacking = uid::lacking(object.meta(), namespaced);
    if let Some(field) = lacking {
        tracing::warn!(key = %Key::of(object), field, "an object that lacks a field is not cached");
    }
    lacking.is_none()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn read(text: &str) -> Option<ConfigMap> {
        <Whole as Keep<ConfigMap>>::read(text)
    }

    #[test]
    fn an_object_is_kept_without_managed_fields_and_one_without_a_uid_is_not() {
        let kept = read(r#"{"metadata": {"name": "a", "uid": "u", "managedFields": [{}]}, "data": {"k": "v"}}"#);
        let kept = kept.expect("an object");
        assert_eq!((kept.metadata.managed_fields, kept.data.unwrap_or_default()["k"].as_str()), (None, "v"));
        assert!(read(r#"{"metadata": {"name": "a"}}"#).is_none());
    }
}
