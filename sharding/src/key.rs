//! Names one object of a kind.

use std::fmt;

use kube::{Resource, ResourceExt, api::ObjectMeta};

/// Namespace and name of an object. Objects of the cluster have an empty namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace; empty for objects of the cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The object with this namespace and name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self::new(object.namespace().unwrap_or_default(), object.name_any())
    }

    /// Metadata of the object of this key.
    pub fn named(&self, metadata: ObjectMeta) -> ObjectMeta {
        let namespace = Some(&self.namespace).filter(|it| !it.is_empty()).cloned();
        ObjectMeta { name: Some(self.name.clone()), namespace, ..metadata }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return formatter.write_str(&self.name);
        }
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}
