//! Kinds of typed objects, and which of their objects are watched.

use std::{fmt, marker::PhantomData};

use kube::Resource;
use serde::de::DeserializeOwned;

use crate::watch::Query;

/// A kind that can be watched: any of `k8s-openapi`, or one with `#[derive(CustomResource)]`.
pub trait Object: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static {}

impl<K> Object for K where K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static {}

/// The objects of a kind that are watched.
#[derive(Clone, Debug)]
#[must_use]
pub struct Kind<K> {
    pub(crate) query: Query,
    kind: PhantomData<fn() -> K>,
}

impl<K: Object> Default for Kind<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Object> Kind<K> {
    /// All objects of the kind.
    pub fn new() -> Self {
        Self { query: Query::of::<K>(&(), None), kind: PhantomData }
    }

    /// Those that this label selector selects.
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.query.labels = selector.into();
        self
    }

    /// Those that this field selector selects.
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.query.fields = selector.into();
        self
    }

    /// Those in these namespaces.
    pub fn within(mut self, namespaces: &[String]) -> Self {
        self.query = self.query.within(namespaces);
        self
    }
}
