//! Simulated users: they create, edit and delete sites, at a fixed rate or as fast as they get responses.

use std::{
    collections::HashSet,
    fmt::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use frappe_loadtest::{cluster::Cluster, process, scenario::Scenario};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::DynamicObject,
};
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::tracker::{EDIT_ANNOTATION, NAMESPACE, Tracker, sites};

/// Maximum number of concurrent requests.
const REQUESTS_MAX: usize = 32;

/// Creates, edits and deletes sites.
pub(crate) struct Generator {
    sites: Api<DynamicObject>,
    tracker: Tracker,
    benches: usize,
    /// Numbers of the existing sites.
    alive: Mutex<Vec<usize>>,
    /// Sites with a running edit: a second one could overtake it.
    edited: Mutex<HashSet<usize>>,
    next: AtomicUsize,
    edits: AtomicU64,
    failed: AtomicUsize,
    permits: Arc<Semaphore>,
}

/// Rates per second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    pub(crate) edits: u32,
    pub(crate) creates: u32,
    pub(crate) deletes: u32,
}

/// Name of a site.
pub(crate) fn name(number: usize) -> String {
    format!("site-{number:05}")
}

fn ground(scenario: &Scenario) -> String {
    let mut ground = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\napiVersion: v1\nkind: Namespace\nmetadata: \
         {{name: {}}}\n---\napiVersion: k8s.mariadb.com/v1alpha1\nkind: MariaDB\nmetadata: {{name: shared, namespace: \
         {NAMESPACE}}}\nspec: {{storage: {{size: 1Gi}}}}\n",
        process::NAMESPACE
    );
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "frappe-operator-config", "namespace": process::NAMESPACE}, "data": scenario.config});
    let _ = writeln!(ground, "---\n{config}");
    for bench in 0..scenario.benches {
        let spec = json!({"frappeVersion": "15", "apps": [{"name": "erpnext", "source": "image"}]});
        let metadata = json!({"name": format!("bench-{bench}"), "namespace": NAMESPACE});
        let bench =
            json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "metadata": metadata, "spec": spec});
        let _ = writeln!(ground, "---\n{bench}");
    }
    ground
}

impl Generator {
    /// Creates namespaces, database server and benches.
    pub(crate) fn start(
        scenario: &Scenario,
        cluster: &Cluster,
        client: &Client,
        tracker: Tracker,
    ) -> anyhow::Result<Arc<Self>> {
        cluster.apply(&ground(scenario))?;
        Ok(Arc::new(Self {
            sites: sites(client),
            tracker,
            benches: scenario.benches,
            alive: Mutex::default(),
            edited: Mutex::default(),
            next: AtomicUsize::new(0),
            edits: AtomicU64::new(0),
            failed: AtomicUsize::new(0),
            permits: Arc::new(Semaphore::new(REQUESTS_MAX)),
        }))
    }

    fn alive<T>(&self, look: impl FnOnce(&mut Vec<usize>) -> T) -> T {
        look(&mut self.alive.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn edited<T>(&self, look: impl FnOnce(&mut HashSet<usize>) -> T) -> T {
        look(&mut self.edited.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Number of existing sites.
    pub(crate) fn count(&self) -> usize {
        self.alive(|alive| alive.len())
    }

    /// Failed requests since the last call.
    pub(crate) fn failures(&self) -> usize {
        self.failed.swap(0, Ordering::SeqCst)
    }

    /// Creates sites up to this number; returns when every request has completed.
    pub(crate) async fn grow(self: &Arc<Self>, sites: usize, per_second: u32) {
        let mut ticks = (per_second > 0).then(|| ticks(per_second));
        let mut running = JoinSet::new();
        for _ in self.count()..sites {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
            let this = Arc::clone(self);
            running.spawn(async move {
                this.create().await;
                drop(permit);
            });
        }
        running.join_all().await;
    }

    /// Sends requests at these rates until stopped; returns when every request has completed.
    pub(crate) async fn churn(self: Arc<Self>, pace: Pace, stopped: Arc<AtomicBool>) {
        let mut running = JoinSet::new();
        let all = [(pace.edits, 0_u8), (pace.creates, 1), (pace.deletes, 2)];
        for (per_second, what) in all.into_iter().filter(|(per_second, _)| *per_second > 0) {
            let (this, stopped) = (Arc::clone(&self), Arc::clone(&stopped));
            running.spawn(async move {
                let (mut ticks, mut sent) = (ticks(per_second), JoinSet::new());
                while !stopped.load(Ordering::SeqCst) {
                    ticks.tick().await;
                    let this = Arc::clone(&this);
                    sent.spawn(async move {
                        match what {
                            0 => this.edit().await,
                            1 => this.create().await,
                            _ => this.delete().await,
                        }
                    });
                    while sent.try_join_next().is_some() {}
                }
                sent.join_all().await;
            });
        }
        running.join_all().await;
    }

    async fn create(&self) {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let name = name(number);
        let spec = json!({"siteName": format!("{name}.example.com"),
            "benchRef": {"name": format!("bench-{}", number % self.benches)}});
        let site = json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
        self.tracker.creates(&name);
        let made = match serde_json::from_value(site) {
            Ok(site) => self.sites.create(&PostParams::default(), &site).await.is_ok(),
            Err(_) => false,
        };
        if made {
            self.alive(|alive| alive.push(number));
        } else {
            self.tracker.forget(&name, None);
            self.failed.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn edit(&self) {
        let number = self.edits.fetch_add(1, Ordering::SeqCst) + 1;
        // A step that is coprime to most numbers of sites visits them all.
        let picked = self.alive(|alive| {
            let index = usize::try_from(number).unwrap_or_default().wrapping_mul(997).checked_rem(alive.len())?;
            alive.get(index).copied()
        });
        let Some(site) = picked.filter(|site| self.edited(|edited| edited.insert(*site))) else { return };
        let name = name(site);
        self.tracker.edits(&name, number);
        let patch = json!({"spec": {"ingress": {"annotations": {EDIT_ANNOTATION: number.to_string()}}}});
        if self.sites.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.is_err() {
            self.tracker.forget(&name, Some(number));
            self.failed.fetch_add(1, Ordering::SeqCst);
        }
        self.edited(|edited| edited.remove(&site));
    }

    async fn delete(&self) {
        let oldest = self.alive(|alive| if alive.is_empty() { None } else { Some(alive.remove(0)) });
        let Some(name) = oldest.map(name) else { return };
        self.tracker.deletes(&name);
        if self.sites.delete(&name, &DeleteParams::default()).await.is_err() {
            self.tracker.forget(&name, None);
            self.failed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn ticks(per_second: u32) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}
