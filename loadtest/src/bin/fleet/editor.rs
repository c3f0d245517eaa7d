//! Simulated users: they create sites, edit them continuously, and wait until each edit is reconciled.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use frappe_crds::FrappeSite;
use frappe_loadtest::cluster::Cluster;
use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use crate::arguments::Arguments;

/// Namespace of the sites.
const NAMESPACE: &str = "fleet";

#[derive(Default)]
struct Waiting {
    /// Pending edits: site, generation, start.
    edits: HashMap<String, Vec<(i64, Instant)>>,
    /// How long edits waited.
    waits: Vec<Duration>,
    ready: HashMap<String, bool>,
    /// Newest reconciled generation of each site.
    observed: HashMap<String, i64>,
}

impl Waiting {
    /// The response to an edit may arrive after the watch has shown that it was reconciled.
    fn edited(&mut self, name: String, generation: i64, sent: Instant) {
        if self.observed.get(&name).is_some_and(|observed| *observed >= generation) {
            self.waits.push(sent.elapsed());
        } else {
            self.edits.entry(name).or_default().push((generation, sent));
        }
    }

    fn reconciled(&mut self, name: String, observed: i64) {
        if let Some(edits) = self.edits.get_mut(&name) {
            let done = edits.extract_if(.., |(generation, _)| *generation <= observed);
            self.waits.extend(done.map(|(_, since)| since.elapsed()));
        }
        let newest = self.observed.entry(name).or_default();
        *newest = observed.max(*newest);
    }
}

/// Edits sites until stopped.
pub(crate) struct Editor {
    waiting: Arc<Mutex<Waiting>>,
    /// Number of sites that are edited; 0 is a pause.
    edited: Arc<AtomicUsize>,
}

fn ground(arguments: &Arguments) -> String {
    let mut ground = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n\
         apiVersion: k8s.mariadb.com/v1alpha1\nkind: MariaDB\nmetadata: {{name: shared, namespace: {NAMESPACE}}}\n\
         spec: {{storage: {{size: 1Gi}}}}\n"
    );
    for bench in 0..arguments.benches {
        let bench = format!(
            "---\napiVersion: vyogo.tech/v1alpha1\nkind: FrappeBench\nmetadata: {{name: bench-{bench}, namespace: {NAMESPACE}}}\n\
             spec:\n  frappeVersion: \"15\"\n  apps: [{{name: erpnext, source: image}}]\n"
        );
        ground.push_str(&bench);
    }
    ground
}

fn site(arguments: &Arguments, number: usize) -> String {
    format!(
        "---\napiVersion: vyogo.tech/v1alpha1\nkind: FrappeSite\nmetadata: {{name: site-{number}, namespace: {NAMESPACE}}}\n\
         spec: {{siteName: site-{number}.example.com, benchRef: {{name: bench-{}}}}}\n",
        number % arguments.benches
    )
}

impl Editor {
    /// Creates the benches, and edits the sites that [`Self::grow`] creates.
    pub(crate) fn start(arguments: &Arguments, cluster: &Cluster, client: Client) -> anyhow::Result<Self> {
        let this = Self { waiting: Arc::default(), edited: Arc::default() };
        cluster.apply(&ground(arguments))?;
        tokio::spawn(follow(client.clone(), Arc::clone(&this.waiting)));
        tokio::spawn(edit(client, arguments.clone(), Arc::clone(&this.waiting), Arc::clone(&this.edited)));
        Ok(this)
    }

    /// Creates sites up to this number, waits until they are Ready, and edits all of them from then on.
    pub(crate) async fn grow(&self, arguments: &Arguments, cluster: &Cluster, sites: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        let numbers: Vec<usize> = (self.edited.swap(0, Ordering::SeqCst)..sites).collect();
        for some in numbers.chunks(250) {
            cluster.apply(&some.iter().map(|number| site(arguments, *number)).collect::<String>())?;
        }
        let mut told = Instant::now();
        while self.ready() < sites {
            if begun.elapsed() > Duration::from_secs(60 + sites as u64) {
                bail!("only {} of {sites} sites became Ready", self.ready());
            }
            if told.elapsed() > Duration::from_secs(20) {
                told = Instant::now();
                println!("[{:5.0} s] {} of {sites} sites are Ready", begun.elapsed().as_secs_f64(), self.ready());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        println!("[{:5.0} s] {sites} sites on {} benches are Ready", begun.elapsed().as_secs_f64(), arguments.benches);
        self.edited.store(sites, Ordering::SeqCst);
        Ok(())
    }

    fn with<T>(&self, look: impl FnOnce(&mut Waiting) -> T) -> T {
        look(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ready(&self) -> usize {
        self.with(|waiting| waiting.ready.values().filter(|ready| **ready).count())
    }

    /// Number of pending edits, and the age of the oldest.
    pub(crate) fn backlog(&self) -> (usize, Duration) {
        self.with(|waiting| {
            let edits = waiting.edits.values().flatten();
            (edits.clone().count(), edits.map(|(_, since)| since.elapsed()).max().unwrap_or_default())
        })
    }

    /// How long edits waited since the last call: number, p50, p99, maximum in milliseconds.
    pub(crate) fn waits(&self) -> (usize, [u128; 3]) {
        let mut waits = self.with(|waiting| std::mem::take(&mut waiting.waits));
        waits.sort_unstable();
        let at = |share: f64| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "an index"
            )]
            let index = ((waits.len() as f64 - 1.0) * share).max(0.0) as usize;
            waits.get(index).map_or(0, Duration::as_millis)
        };
        (waits.len(), [at(0.5), at(0.99), at(1.0)])
    }

    pub(crate) fn stop(&self) {
        self.edited.store(0, Ordering::SeqCst);
    }

    /// Asserts that every edit was reconciled.
    pub(crate) fn all_reconciled(&self) -> anyhow::Result<()> {
        let (count, oldest) = self.backlog();
        anyhow::ensure!(count == 0, "{count} edits were never reconciled, the oldest is {oldest:?} old");
        println!("every edit was reconciled");
        Ok(())
    }
}

/// Edits sites in turn: each small change causes a reconcile and a status write.
async fn edit(client: Client, arguments: Arguments, waiting: Arc<Mutex<Waiting>>, edited: Arc<AtomicUsize>) {
    let sites: Api<FrappeSite> = Api::namespaced(client, NAMESPACE);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / arguments.edits_per_second.max(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0.. {
        ticks.tick().await;
        let count = edited.load(Ordering::SeqCst);
        if count == 0 {
            continue;
        }
        // A step that is coprime to the number of sites visits them all.
        let name = format!("site-{}", (number * 997) % count);
        let protection = json!({"spec": {"deletionProtection": (number / count).is_multiple_of(2)}});
        let (sites, waiting) = (sites.clone(), Arc::clone(&waiting));
        tokio::spawn(async move {
            let sent = Instant::now();
            if let Ok(site) = sites.patch(&name, &PatchParams::default(), &Patch::Merge(&protection)).await {
                let observed = site.status.as_ref().and_then(|status| status.observed_generation);
                // An edit that changed nothing is not pending.
                if let Some(generation) = site.metadata.generation.filter(|it| Some(*it) != observed) {
                    waiting.lock().unwrap_or_else(PoisonError::into_inner).edited(name, generation, sent);
                }
            }
        });
    }
}

/// Records which sites are Ready and which edits were reconciled.
async fn follow(client: Client, waiting: Arc<Mutex<Waiting>>) {
    let sites: Api<FrappeSite> = Api::namespaced(client, NAMESPACE);
    let mut stream = watcher(sites, watcher::Config::default()).default_backoff().applied_objects().boxed();
    while let Some(seen) = stream.next().await {
        let Ok(site) = seen else { continue };
        let status = site.status.clone().unwrap_or_default();
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.ready.insert(site.name_any(), status.phase == frappe_crds::site::SitePhase::Ready);
        waiting.reconciled(site.name_any(), status.observed_generation.unwrap_or(0));
    }
}
