//! Wakes a bench that is being deleted when a site of it is gone, whichever member owns that site.

use std::sync::Arc;

use dashmap::DashMap;
use frappe_crds::FrappeSite;
use futures::{StreamExt, stream::select_all};
use kube::{Client, core::DynamicObject};
use kube_sharding::watch::{Query, Seen, follow};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::domain::{key::Key, labels::BENCH_OF_SITE};

/// Watches for departures: at most one for each bench, until the first.
#[derive(Clone)]
pub struct Departures {
    client: Client,
    /// Namespaces that are looked at; all if empty.
    namespaces: Vec<String>,
    wake: Arc<dyn Fn(Key) + Send + Sync>,
    waiting: Arc<DashMap<Key, ()>>,
    /// Ends the watches with what holds this.
    end: CancellationToken,
    _guard: Arc<DropGuard>,
}

impl Departures {
    /// Calls `wake` with the bench that a site left.
    pub fn new(client: Client, namespaces: &[String], wake: impl Fn(Key) + Send + Sync + 'static) -> Self {
        let end = CancellationToken::new();
        let guard = Arc::new(end.clone().drop_guard());
        let namespaces = namespaces.to_vec();
        Self { client, namespaces, wake: Arc::new(wake), waiting: Arc::default(), end, _guard: guard }
    }

    /// Expects that a site leaves the bench after this resourceVersion; asked again, it goes on expecting.
    pub fn expect(&self, bench: Key, since: String) {
        if self.waiting.insert(bench.clone(), ()).is_some() {
            return;
        }
        let (client, wake, waiting) = (self.client.clone(), Arc::clone(&self.wake), Arc::clone(&self.waiting));
        let (end, namespaces) = (self.end.clone(), self.namespaces.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = departure(client, &bench, since, &namespaces) => {
                    waiting.remove(&bench);
                    wake(bench);
                }
            }
        });
    }
}

/// Ends when a site has left the bench, or may have while nobody watched. A site may be in any namespace.
async fn departure(client: Client, bench: &Key, since: String, namespaces: &[String]) {
    let query = Query {
        labels: format!("{BENCH_OF_SITE}={}", bench.name),
        metadata_only: true,
        ..Query::of::<FrappeSite>(&(), None).within(namespaces)
    };
    let watch =
        |query| follow::<DynamicObject>(client.clone(), query, kube_sharding::watch::read, Some(since.clone())).boxed();
    let mut sites = select_all(query.each().into_iter().map(watch));
    while let Some(seen) = sites.next().await {
        if matches!(seen, Ok(Seen::Deleted(_) | Seen::Listed(..))) {
            return;
        }
    }
}
