//! Counts the sites of a bench by revision, whichever members own them, while the bench has several revisions.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use dashmap::DashMap;
use frappe_crds::FrappeSite;
use futures::{StreamExt, stream::select_all};
use kube::Client;
use kube_sharding::{
    gate::Opening,
    watch::{Query, Seen, follow},
};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::cached::Cached;
use crate::domain::{key::Key, labels::BENCH_OF_SITE, uid};

/// Number of sites by revision.
pub type Counts = BTreeMap<i32, usize>;
/// What is kept of a site: the revision where its data is; None if it has none yet. From a site, with its bench.
pub type Look = fn(&FrappeSite) -> (Key, Option<i32>);

/// Watches the sites of benches, each while its count is asked for.
#[derive(Clone)]
pub struct Tallies {
    client: Client,
    /// Namespaces that are looked at; all if empty.
    namespaces: Vec<String>,
    look: Look,
    wake: Arc<dyn Fn(Key) + Send + Sync>,
    benches: Arc<DashMap<Key, Tally>>,
    /// What this member owns: only the coordinator counts.
    opening: watch::Receiver<Arc<Opening>>,
    /// Ends the watches with what holds this.
    end: CancellationToken,
    _guard: Arc<DropGuard>,
}

/// The count of a bench; None until the sites were listed.
struct Tally {
    counts: Option<Counts>,
    _watch: DropGuard,
}

impl Tallies {
    /// Calls `wake` with a bench whose count has changed.
    pub fn new(
        client: Client,
        namespaces: &[String],
        look: Look,
        opening: watch::Receiver<Arc<Opening>>,
        wake: impl Fn(Key) + Send + Sync + 'static,
    ) -> Self {
        let end = CancellationToken::new();
        let guard = Arc::new(end.clone().drop_guard());
        let namespaces = namespaces.to_vec();
        Self { client, namespaces, look, wake: Arc::new(wake), benches: Arc::default(), opening, end, _guard: guard }
    }

    /// The sites of a bench by revision. They are watched from now on; None until they are known.
    pub fn counts(&self, bench: &Key) -> Option<Counts> {
        if let Some(tally) = self.benches.get(bench) {
            return tally.counts.clone();
        }
        let end = self.end.child_token();
        self.benches.insert(bench.clone(), Tally { counts: None, _watch: end.clone().drop_guard() });
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
        let mut known: Vec<Option<HashMap<String, i32>>> = vec![None; streams.len()];
        let mut seen = select_all(streams);
        while let Some((index, event)) = seen.next().await {
            let Ok(event) = event else { continue };
            self.note(bench, &mut known[index], event);
            let all: Option<Vec<_>> = known.iter().map(Option::as_ref).collect();
            if let Some(all) = all {
                let mut counts = Counts::new();
                all.into_iter()
                    .flat_map(HashMap::values)
                    .for_each(|revision| *counts.entry(*revision).or_default() += 1);
                self.put(bench, counts);
            }
        }
    }

    /// Notes a change of the sites of one watch.
    fn note(&self, bench: &Key, known: &mut Option<HashMap<String, i32>>, event: Seen<FrappeSite>) {
        let entry = |site: &FrappeSite| {
            let (of, revision) = (self.look)(site);
            revision.filter(|_| of == *bench).map(|revision| (uid::of(site).to_owned(), revision))
        };
        match event {
            Seen::Listed(sites, _) => *known = Some(sites.iter().filter_map(entry).collect()),
            Seen::Applied(site) => {
                let sites = known.get_or_insert_default();
                match entry(&site) {
                    Some((uid, revision)) => sites.insert(uid, revision),
                    None => sites.remove(uid::of(&site)),
                };
            }
            Seen::Deleted(site) => {
                known.get_or_insert_default().remove(uid::of(&site));
            }
            Seen::UpTo(_) => {}
        }
    }

    /// Replaces the count of a bench that is still watched.
    fn put(&self, bench: &Key, counts: Counts) {
        let Some(mut tally) = self.benches.get_mut(bench) else { return };
        if tally.counts.as_ref() != Some(&counts) {
            tally.counts = Some(counts);
            drop(tally);
            (self.wake)(bench.clone());
        }
    }
}
