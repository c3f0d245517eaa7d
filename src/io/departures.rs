//! Wakes what waits for a site to be gone, whichever member owns that site: a bench that is being deleted, or SiteBackups and
//! SiteJobs.

use std::sync::Arc;

use dashmap::DashMap;
use frappe_crds::FrappeSite;
use futures::{StreamExt, stream::select_all};
use kube::{Client, core::DynamicObject};
use kube_sharding::watch::{Query, Seen, follow};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::domain::{key::Key, labels::BENCH_OF_SITE};

/// What a site left.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Left {
    /// A bench, of whose sites one is gone.
    Bench(Key),
    /// The SiteBackups and SiteJobs of the site of this key.
    Site(Key),
}

/// Watches for departures: at most one for each that waits, until the first.
#[derive(Clone)]
pub struct Departures {
    client: Client,
    /// Namespaces that are looked at; all if empty.
    namespaces: Vec<String>,
    wake: Arc<dyn Fn(Left) + Send + Sync>,
    waiting: Arc<DashMap<Left, ()>>,
    /// Ends the watches with what holds this.
    end: CancellationToken,
    _guard: Arc<DropGuard>,
}

impl Departures {
    /// Calls `wake` with what a site left.
    pub fn new(client: Client, namespaces: &[String], wake: impl Fn(Left) + Send + Sync + 'static) -> Self {
        let end = CancellationToken::new();
        let guard = Arc::new(end.clone().drop_guard());
        let namespaces = namespaces.to_vec();
        Self { client, namespaces, wake: Arc::new(wake), waiting: Arc::default(), end, _guard: guard }
    }

    /// Expects that a site leaves the bench after this resourceVersion; asked again, it goes on expecting.
    pub fn expect(&self, bench: Key, since: String) {
        let labels = format!("{BENCH_OF_SITE}={}", bench.name);
        let query = Query { labels, ..Query::of::<FrappeSite>(&(), None).within(&self.namespaces) };
        self.watch(Left::Bench(bench), query, since);
    }

    /// Expects that a site is gone after this resourceVersion; asked again, it goes on expecting.
    pub fn expect_site(&self, site: Key, since: String) {
        let fields = format!("metadata.name={}", site.name);
        let query = Query { fields, ..Query::of::<FrappeSite>(&(), Some(&site.namespace)) };
        self.watch(Left::Site(site), query, since);
    }

    fn watch(&self, left: Left, query: Query, since: String) {
        if self.waiting.insert(left.clone(), ()).is_some() {
            return;
        }
        let query = Query { metadata_only: true, ..query };
        let (client, wake, waiting) = (self.client.clone(), Arc::clone(&self.wake), Arc::clone(&self.waiting));
        let end = self.end.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = departure(client, query, since) => {
                    waiting.remove(&left);
                    wake(left);
                }
            }
        });
    }
}

/// Ends when a site is gone, or may be while no one watched. A site of a bench may be in any namespace.
async fn departure(client: Client, query: Query, since: String) {
    let watch =
        |query| follow::<DynamicObject>(client.clone(), query, kube_sharding::watch::read, Some(since.clone())).boxed();
    let mut sites = select_all(query.each().into_iter().map(watch));
    while let Some(seen) = sites.next().await {
        if matches!(seen, Ok(Seen::Deleted(_) | Seen::Listed(..))) {
            return;
        }
    }
}
