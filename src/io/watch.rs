//! Watches of this operator: those of [`kube_sharding::feed`], counted.

use std::sync::Arc;

use kube::Client;
use kube_sharding::feed;
pub use kube_sharding::feed::Scope;
use metrics::gauge;
use tokio::sync::watch;

use super::{cache::Change, cached::Cached};
use crate::io::cache::Cache;

/// Watches objects of one kind, updates `cache` and calls `changed` for each change, until the task is dropped.
pub async fn run<K, F>(client: Client, scope: Scope, cache: Arc<Cache<K>>, changed: F)
where
    K: Cached,
    F: Fn(Change<K::Form>) + Send,
{
    let _counted = Counted::new();
    feed::run(client, scope, cache, changed).await;
}

/// The same while the kind exists; its objects are dropped when it is removed.
pub async fn run_while_present<K, F>(
    present: watch::Receiver<bool>,
    client: Client,
    scope: Scope,
    cache: Arc<Cache<K>>,
    changed: F,
) where
    K: Cached,
    F: Fn(Change<K::Form>) + Send + Sync,
{
    let watch = || run(client.clone(), scope.clone(), Arc::clone(&cache), &changed);
    feed::run_while_present(present, Arc::clone(&cache), watch).await;
}

/// A running watch.
struct Counted;

impl Counted {
    fn new() -> Self {
        gauge!("frappe_operator_watches").increment(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        gauge!("frappe_operator_watches").decrement(1.0);
    }
}
