//! Caches of this operator: [`kube_sharding::cache`], with the parts of each object that [`Kept`] keeps.

pub use kube_sharding::cache::{Change, Decision, version_of};

use super::cached::Kept;

/// Objects of one kind.
pub type Cache<K> = kube_sharding::cache::Cache<K, Kept>;
