//! What the coordinator keeps of the sites of a bench, whichever members own them, while it asks for that.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dashmap::DashMap;
use frappe_crds::FrappeSite;
use futures::{StreamExt, stream::select_all};
use kube::Client;
use kube_sharding::{
    gate::Opening,
    watch::{Query, Seen, follow},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::cached::Cached;
use crate::domain::{key::Key, labels::BENCH_OF_SITE, uid};

/// What is kept of a site, and its bench; None if it does not count.
pub type Look<T> = fn(&FrappeSite) -> (Key, Option<T>);
/// Shortest time between two calls about a bench: what many sites do at once is looked at together.
const PAUSE: Duration = Duration::from_secs(10);

/// Watches the sites of benches, each while it is asked for.
pub struct Tallies<T> {
    client: Client,
    /// Namespaces that are looked at; all if empty.
    namespaces: Vec<String>,
    look: Look<T>,
    wake: Arc<dyn Fn(Key) + Send + Sync>,
    benches: Arc<DashMap<Key, Tally<T>>>,
    /// What this member owns: only the coordinator counts.
    opening: watch::Receiver<Arc<Opening>>,
    /// Ends the watches with what holds this.
    end: CancellationToken,
    guard: Arc<DropGuard>,
}

/// The sites of a bench; None until they were listed.
struct Tally<T> {
    sites: Option<Arc<Vec<T>>>,
    _watch: DropGuard,
}

/// The sites of one watch by uid; None until they were listed.
type Known<T> = Option<BTreeMap<String, T>>;

impl<T> Clone for Tallies<T> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            namespaces: self.namespaces.clone(),
            look: self.look,
            wake: Arc::clone(&self.wake),
            benches: Arc::clone(&self.benches),
            opening: self.opening.clone(),
            end: self.end.clone(),
            guard: Arc::clone(&self.guard),
        }
    }
}

impl<T: Clone + PartialEq + Send + Sync + 'static> Tallies<T> {
    /// Calls `wake` with a bench of whose sites something has changed.
    pub fn new(
        client: Client,
        namespaces: &[String],
        look: Look<T>,
        opening: watch::Receiver<Arc<Opening>>,
        wake: impl Fn(Key) + Send + Sync + 'static,
    ) -> Self {
        let end = CancellationToken::new();
        let guard = Arc::new(end.clone().drop_guard());
        let namespaces = namespaces.to_vec();
        Self { client, namespaces, look, wake: Arc::new(wake), benches: Arc::default(), opening, end, guard }
    }

    /// The sites of a bench. They are watched from now on; None until they are known.
    pub fn sites(&self, bench: &Key) -> Option<Arc<Vec<T>>> {
        if let Some(tally) = self.benches.get(bench) {
            return tally.sites.clone();
        }
        let end = self.end.child_token();
        self.benches.insert(bench.clone(), Tally { sites: None, _watch: end.clone().drop_guard() });
        let (tallies, bench, mut opening) = (self.clone(), bench.clone(), self.opening.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                _ = opening.wait_for(|it| !it.holds_coordination()) => tallies.forget(&bench),
                () = tallies.count(&bench) => {}
            }
        });
        None
    }

    /// Ends the watch of a bench.
    pub fn forget(&self, bench: &Key) {
        self.benches.remove(bench);
    }

    async fn count(&self, bench: &Key) {
        let labels = format!("{BENCH_OF_SITE}={}", bench.name);
        let query = Query { labels, ..Query::of::<FrappeSite>(&(), None).within(&self.namespaces) };
        let each = query.each().into_iter().enumerate();
        let watch = |(index, query)| {
            follow(self.client.clone(), query, FrappeSite::read, None).map(move |seen| (index, seen)).boxed()
        };
        let streams: Vec<_> = each.map(watch).collect();
        let mut known: Vec<Known<T>> = vec![None; streams.len()];
        let mut seen = select_all(streams);
        let (mut due, mut changed) = (Instant::now(), false);
        loop {
            tokio::select! {
                event = seen.next() => {
                    let Some((index, event)) = event else { return };
                    let Ok(event) = event else { continue };
                    changed |= self.note(bench, &mut known[index], event);
                }
                () = sleep_until(due), if changed && known.iter().all(Option::is_some) => {
                    (due, changed) = (Instant::now() + PAUSE, false);
                    self.put(bench, known.iter().flatten().flat_map(BTreeMap::values).cloned().collect());
                }
            }
        }
    }

    /// Notes what the sites of one watch do; returns whether that changes anything.
    fn note(&self, bench: &Key, known: &mut Known<T>, event: Seen<FrappeSite>) -> bool {
        let entry = |site: &FrappeSite| {
            let (of, kept) = (self.look)(site);
            kept.filter(|_| of == *bench).map(|kept| (uid::of(site).to_owned(), kept))
        };
        match event {
            Seen::Listed(sites, _) => {
                let listed = Some(sites.iter().filter_map(entry).collect());
                let differs = *known != listed;
                *known = listed;
                differs
            }
            Seen::Applied(site) => {
                let sites = known.get_or_insert_default();
                match entry(&site) {
                    Some((uid, kept)) => sites.insert(uid, kept.clone()).is_none_or(|before| before != kept),
                    None => sites.remove(uid::of(&site)).is_some(),
                }
            }
            Seen::Deleted(site) => known.get_or_insert_default().remove(uid::of(&site)).is_some(),
            Seen::UpTo(_) => false,
        }
    }

    /// Replaces what is kept for a bench that is still asked for.
    fn put(&self, bench: &Key, sites: Vec<T>) {
        let Some(mut tally) = self.benches.get_mut(bench) else { return };
        tally.sites = Some(Arc::new(sites));
        drop(tally);
        (self.wake)(bench.clone());
    }
}
