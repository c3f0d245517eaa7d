//! The users: they edit, create and delete sites, on benches that are Ready and on one that does not exist.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use frappe_crds::FrappeSite;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

/// Namespace of the sites.
pub const NAMESPACE: &str = "chaos";
/// A bench that does not exist: its sites have no slot label.
const ABSENT_BENCH: &str = "absent";
/// One of this number of sites is on it.
const ONE_WITHOUT_BENCH_OF: usize = 10;
/// One of this number of edits is the creation of a site instead; one of the next number is a deletion.
const ONE_MADE_OF: u32 = 25;
const ONE_DELETED_OF: u32 = 30;

/// The existing sites.
#[derive(Clone)]
pub struct Users {
    sites: Api<FrappeSite>,
    names: Arc<Mutex<Vec<String>>>,
    benches: usize,
    /// Whether they are active.
    pub busy: Arc<AtomicBool>,
}

/// Namespace, MariaDB and benches.
pub fn ground(benches: usize) -> String {
    let mut ground = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n\
         apiVersion: k8s.mariadb.com/v1alpha1\nkind: MariaDB\nmetadata: {{name: shared, namespace: {NAMESPACE}}}\n\
         spec: {{storage: {{size: 1Gi}}}}\n"
    );
    for bench in 0..benches {
        let bench = format!(
            "---\napiVersion: vyogo.tech/v1alpha1\nkind: FrappeBench\nmetadata: {{name: bench-{bench}, namespace: {NAMESPACE}}}\n\
             spec:\n  frappeVersion: \"15\"\n  apps: [{{name: erpnext, source: image}}]\n"
        );
        ground.push_str(&bench);
    }
    ground
}

impl Users {
    /// Users of this number of benches.
    pub fn new(client: Client, benches: usize) -> Self {
        Self {
            sites: Api::namespaced(client, NAMESPACE),
            names: Arc::default(),
            benches,
            busy: Arc::new(AtomicBool::new(true)),
        }
    }

    fn names(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates the site with this number.
    pub async fn make(&self, number: usize) -> kube::Result<()> {
        let bench = if number % ONE_WITHOUT_BENCH_OF == ONE_WITHOUT_BENCH_OF - 1 {
            ABSENT_BENCH.to_owned()
        } else {
            format!("bench-{}", number % self.benches)
        };
        let name = format!("site-{number}");
        let site = serde_json::from_value(json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"siteName": format!("{name}.example.com"), "benchRef": {"name": bench}},
        }));
        self.sites.create(&PostParams::default(), &site.map_err(kube::Error::SerdeError)?).await?;
        self.names().push(name);
        Ok(())
    }

    /// Edits, creates and deletes sites at this rate until the task is dropped.
    pub async fn work(self, seed: u64, per_second: u32, mut number: usize) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.busy.load(Ordering::SeqCst) {
                continue;
            }
            let this = self.clone();
            let (make, delete) = (random.u32(0..ONE_MADE_OF) == 0, random.u32(0..ONE_DELETED_OF) == 0);
            let (pick, value, kind) = (random.usize(0..1_000_000), random.u32(0..1_000_000), random.u32(0..10));
            number += usize::from(make);
            let all = async move {
                if make {
                    let _ = this.make(number).await;
                }
                let name = {
                    let mut names = this.names();
                    let index = pick % names.len().max(1);
                    if delete && names.len() > 1 { names.swap_remove(index) } else { names[index].clone() }
                };
                if delete {
                    return this.delete(&name).await;
                }
                let spec = match kind {
                    0..3 => json!({"siteConfig": {"edited": value}}),
                    _ => json!({"deletionProtection": value % 2 == 0}),
                };
                let _ = this.sites.patch(&name, &PatchParams::default(), &Patch::Merge(&json!({"spec": spec}))).await;
            };
            tokio::spawn(tokio::time::timeout(Duration::from_secs(20), all));
        }
    }

    async fn delete(&self, name: &str) {
        let free = json!({"spec": {"deletionProtection": false}});
        let freed = self.sites.patch(name, &PatchParams::default(), &Patch::Merge(&free)).await;
        if freed.is_err() || self.sites.delete(name, &DeleteParams::default()).await.is_err() {
            self.names().push(name.to_owned());
        }
    }

    /// Number of sites whose newest edit is not observed yet, and number of Ready sites.
    pub async fn unobserved(&self) -> kube::Result<(usize, usize)> {
        let sites = self.sites.list(&ListParams::default()).await?.items;
        let observed = |site: &FrappeSite| site.status.as_ref().and_then(|status| status.observed_generation);
        let there = sites.iter().filter(|site| site.metadata.deletion_timestamp.is_none());
        let waiting = there.filter(|site| observed(site) != site.metadata.generation).count();
        let ready = |site: &&FrappeSite| {
            site.status.as_ref().is_some_and(|status| status.phase == frappe_crds::site::SitePhase::Ready)
        };
        Ok((waiting, sites.iter().filter(ready).count()))
    }

    /// Writes each site's current state to the audit log: the response to an empty patch is the object.
    pub async fn write_down(&self) -> kube::Result<()> {
        for site in self.sites.list_metadata(&ListParams::default()).await?.items {
            match self.sites.patch(&site.name_any(), &PatchParams::default(), &Patch::Merge(&json!({}))).await {
                // It is being deleted.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                written => _ = written?,
            }
        }
        Ok(())
    }
}
