//! Puts keys into the queues: only of what this member owns.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use frappe_crds::{FrappeBench, FrappeSite};
use kube::{Client, Resource};
use kube_sharding::{
    SlotSet,
    gate::{Gate, Scope},
    lanes::{Priority, runner::Queue},
};

use super::concerned::Concerned;
use crate::{
    controllers::{companion::index::Indexes, site::watch as site_watch},
    domain::{key::Key, kinds::Kind, labels, uid},
    io::{
        cache::{Cache, Change},
        live,
    },
};

/// Shortest and longest wait before a site whose label was altered is looked at again.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LAST_LOOK: Duration = Duration::from_mins(1);

/// The one way into the queues.
#[derive(Clone)]
pub(super) struct Wake {
    pub(super) sites: Arc<Cache<FrappeSite>>,
    /// Sites that carry no slot label yet, of all members.
    pub(super) unlabelled: Arc<Cache<FrappeSite>>,
    pub(super) benches: Arc<Cache<FrappeBench>>,
    pub(super) site_queue: Queue<Key, Key>,
    pub(super) bench_queue: Queue<Key, Key>,
    /// SiteBackups and SiteJobs.
    pub(super) companions: BTreeMap<Kind, Companions>,
    pub(super) gate: Gate,
}

/// Objects of a kind that users create for sites: their queue, whose keys are sites, and which sites have some.
#[derive(Clone)]
pub(super) struct Companions {
    pub(super) queue: Queue<Key, Key>,
    pub(super) index: Indexes,
}

/// The scope of a site.
pub(super) fn scope_of(site: &FrappeSite) -> Scope {
    Scope::Slot(uid::slot_of(site))
}

impl Wake {
    /// The site itself changed: high priority if a user changed it.
    pub(super) fn site_itself(&self, site: &FrappeSite, change: &Change<FrappeSite>) {
        self.wake_site(site, site_watch::priority(change));
    }

    /// What is not urgent waits until no more changes follow.
    fn wake_site(&self, site: &FrappeSite, priority: Priority) {
        match priority {
            Priority::Normal => self.settle(site),
            _ => self.push(site, priority),
        }
    }

    /// Something of the site changed.
    pub(super) fn site(&self, key: &Key) {
        if let Some(site) = self.sites.get(key) {
            self.settle(&site);
        }
    }

    /// The site has what it waited for in this process.
    pub(super) fn site_now(&self, key: &Key) {
        if let Some(site) = self.sites.get(key) {
            self.push(&site, Priority::Normal);
        }
    }

    /// The sites of this replica that are wanted.
    pub(super) fn sites_that(&self, priority: Priority, wanted: impl Fn(&FrappeSite) -> bool) {
        self.sites.all().iter().filter(|site| wanted(site)).for_each(|site| self.push(site, priority));
    }

    /// SiteBackups or SiteJobs of a site changed. Where the site is not known here, it is another member's, or there is none.
    pub(super) fn companions_of(&self, kind: Kind, site: &Key) {
        let Some(Companions { queue, .. }) = self.companions.get(&kind) else { return };
        match self.sites.get(site) {
            Some(known) if self.gate.owns(scope_of(&known)) => {
                queue.settle(site_watch::lane(&known), site.clone());
                if known.metadata.deletion_timestamp.is_some() {
                    // Its deletion may wait for the final backup.
                    self.site_queue.settle(site_watch::lane(&known), site.clone());
                }
            }
            Some(_) => {}
            None => queue.settle(site.clone(), site.clone()),
        }
    }

    /// The site of SiteBackups and SiteJobs is gone.
    pub(super) fn site_left(&self, site: &Key) {
        self.companions.keys().for_each(|kind| self.companions_of(*kind, site));
    }

    /// A Secret changed that the storage of SiteBackups may name.
    pub(super) fn backups_reading(&self, secret: &Key) {
        for (kind, it) in &self.companions {
            it.index.reading(secret).iter().for_each(|site| self.companions_of(*kind, site));
        }
    }

    /// SiteBackups and SiteJobs whose site is not known here: it is seen what becomes of them.
    pub(super) fn orphans(&self) {
        for it in self.companions.values() {
            let orphans = it.index.sites().into_iter().filter(|site| self.sites.get(site).is_none());
            orphans.for_each(|site| it.queue.push(site.clone(), site, Priority::Low));
        }
    }

    /// Every site of some slots: they were gained.
    pub(super) fn slots(&self, slots: &SlotSet) {
        let mine = |site: &FrappeSite| slots.contains(uid::slot_of(site));
        self.unlabelled.all().iter().filter(|site| mine(site)).for_each(|site| self.unlabelled(site, Priority::High));
        self.sites_that(Priority::Low, mine);
        if !slots.is_empty() {
            self.orphans();
        }
    }

    /// Adds a site without the slot label to the cache, if this replica owns its slot; its reconcile sets the label first.
    pub(super) fn unlabelled(&self, site: &Arc<FrappeSite>, priority: Priority) {
        if self.gate.owns(scope_of(site)) {
            self.sites.stray(Arc::clone(site));
            self.wake_site(site, priority);
        }
    }

    /// A site left the watch without being deleted: its slot label may have been changed, and then no watch of its owner
    /// shows it. Reads the site and has it reconciled until it has its label again or is deleted.
    pub(super) fn relabel_stray(&self, client: &Client, site: &FrappeSite) {
        if site.metadata.deletion_timestamp.is_some() || !self.gate.owns(scope_of(site)) {
            return;
        }
        let (this, key, uid) = (self.clone(), Key::of(site), site.metadata.uid.clone());
        let client = client.clone();
        tokio::spawn(async move {
            let mut wait = FIRST_LOOK;
            loop {
                match live::site(&client, &key).await {
                    Ok(Some(found)) if found.metadata.uid == uid => {
                        let slot = uid::slot_of(&found).to_string();
                        let label = found.metadata.labels.as_ref().and_then(|it| it.get(labels::SLOT));
                        if label == Some(&slot) || !this.gate.owns(scope_of(&found)) {
                            return;
                        }
                        this.unlabelled(&Arc::new(found), Priority::High);
                    }
                    Ok(_) => return this.sites.stray_gone(&key, uid.as_deref()),
                    Err(_) => {}
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LAST_LOOK);
            }
        });
    }

    /// A bench, or something of it, changed.
    pub(super) fn bench(&self, key: Key) {
        if self.gate.owns(Scope::Coordinator) {
            self.bench_queue.push(Key::default(), key, Priority::Normal);
        }
    }

    /// A site left: its bench may wait for that.
    pub(super) fn leaving_bench(&self, bench: &Key) {
        if self.benches.get(bench).is_some_and(|it| it.meta().deletion_timestamp.is_some()) {
            self.bench(bench.clone());
        }
    }

    /// Every bench.
    pub(super) fn benches(&self) {
        self.benches_that(|_| true);
    }

    /// The benches that are wanted.
    pub(super) fn benches_that(&self, wanted: impl Fn(&FrappeBench) -> bool) {
        let benches = self.benches.all();
        benches.iter().filter(|bench| wanted(bench)).for_each(|bench| self.bench(Key::of(bench.as_ref())));
    }

    /// Settings changed: whom that concerns of what this replica owns.
    pub(super) fn settings(&self, concerned: Concerned) {
        if concerned.sites {
            self.sites_that(Priority::Low, |_| true);
        }
        if concerned.benches {
            self.benches();
        }
        if concerned.queues {
            self.limits_changed();
        }
    }

    /// How many keys of a lane may run at once, or how many in a second.
    pub(super) fn limits_changed(&self) {
        self.site_queue.limits_changed();
        self.companions.values().for_each(|it| it.queue.limits_changed());
    }

    fn settle(&self, site: &FrappeSite) {
        if self.gate.owns(scope_of(site)) {
            self.site_queue.settle(site_watch::lane(site), Key::of(site));
            self.concerned(site).for_each(|it| it.queue.settle(site_watch::lane(site), Key::of(site)));
        }
    }

    fn push(&self, site: &FrappeSite, priority: Priority) {
        if self.gate.owns(scope_of(site)) {
            self.site_queue.push(site_watch::lane(site), Key::of(site), priority);
            self.concerned(site).for_each(|it| it.queue.push(site_watch::lane(site), Key::of(site), priority));
        }
    }

    /// The kinds that what concerns the site concerns, too.
    fn concerned(&self, site: &FrappeSite) -> impl Iterator<Item = &Companions> {
        let (key, status) = (Key::of(site), site.status.as_ref());
        let under_way = move |kind: Kind| match kind {
            Kind::SiteBackup => status.is_some_and(|status| status.backup.is_some()),
            _ => status.is_some_and(|status| status.job.is_some()),
        };
        self.companions.iter().filter(move |(kind, it)| under_way(**kind) || it.index.has(&key)).map(|(_, it)| it)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kube_sharding::{
        clock::SystemClock,
        lanes::{
            rates::Rates,
            runner::{Outcome, Runner, Terms},
        },
    };
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};
    use tokio::{
        sync::{mpsc, watch},
        task::JoinSet,
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::io::compact::Compact;

    /// Name of a queue and a key that it started.
    type Started = (&'static str, Key);

    /// The queues of a replica, and what they start.
    pub(in crate::operator) struct Replica {
        pub(in crate::operator) wake: Wake,
        /// How many keys of a lane run at once.
        pub(in crate::operator) limit: Arc<AtomicUsize>,
        started: mpsc::UnboundedReceiver<Started>,
        _tasks: JoinSet<()>,
    }

    impl Replica {
        /// One with this gate, whose reconciles take this long.
        pub(in crate::operator) fn new(gate: Gate, takes: Duration) -> Self {
            let (mut tasks, (sender, started)) = (JoinSet::new(), mpsc::unbounded_channel());
            let limit = Arc::new(AtomicUsize::new(4));
            let mut run = Run { tasks: &mut tasks, started: sender, limit: Arc::clone(&limit), takes };
            let wake = Wake {
                sites: Arc::new(Cache::new(|_| None)),
                unlabelled: Arc::new(Cache::new(|_| None)),
                benches: Arc::new(Cache::new(|_| None)),
                site_queue: run.queue("site"),
                bench_queue: run.queue("bench"),
                companions: [(Kind::SiteBackup, "backup"), (Kind::SiteJob, "job")]
                    .map(|(kind, name)| (kind, Companions { queue: run.queue(name), index: Indexes::default() }))
                    .into(),
                gate,
            };
            Self { wake, limit, started, _tasks: tasks }
        }

        /// The owner of everything, whose reconciles take no time.
        pub(in crate::operator) fn owner() -> Self {
            Self::new(owns_all(), Duration::ZERO)
        }

        /// What was started since the last call: queue and name, sorted.
        pub(in crate::operator) async fn started(&mut self) -> Vec<(&'static str, String)> {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut all: Vec<_> =
                std::iter::from_fn(|| self.started.try_recv().ok()).map(|(queue, key)| (queue, key.name)).collect();
            all.sort();
            all
        }
    }

    /// A gate that is open for everything.
    pub(in crate::operator) fn owns_all() -> Gate {
        Gate::open_for_all(Arc::new(SystemClock::default()))
    }

    /// Starts queues.
    struct Run<'a> {
        tasks: &'a mut JoinSet<()>,
        started: mpsc::UnboundedSender<Started>,
        limit: Arc<AtomicUsize>,
        takes: Duration,
    }

    impl Run<'_> {
        fn queue<L>(&mut self, name: &'static str) -> Queue<L, Key>
        where
            L: Clone + Eq + std::hash::Hash + Ord + Send + Sync + 'static,
        {
            let (queue, runner) = Runner::new(name, 4);
            let (rates, acting) = (watch::channel(Rates::default()).1, watch::channel(true).1);
            let (limit, takes, started) = (Arc::clone(&self.limit), self.takes, self.started.clone());
            let terms = Terms {
                limit: Box::new(move |_| limit.load(Ordering::Relaxed)),
                rates,
                acting,
                stop: CancellationToken::new(),
            };
            self.tasks.spawn(runner.run(terms, move |key| {
                let _ = started.send((name, key));
                async move {
                    tokio::time::sleep(takes).await;
                    Outcome::Done
                }
            }));
            queue
        }
    }

    /// An object of this API in namespace `a`, which has the name as uid.
    pub(in crate::operator) fn object<K: DeserializeOwned>(
        kind: &str,
        name: &str,
        deleted: Option<&str>,
        spec: &Value,
    ) -> Arc<K> {
        let metadata = json!({"name": name, "namespace": "a", "uid": name, "deletionTimestamp": deleted});
        let object = json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
        Arc::new(serde_json::from_value(object).expect("an object"))
    }

    /// A site of the bench `b`.
    pub(in crate::operator) fn site(name: &str, deleted: Option<&str>) -> Arc<FrappeSite> {
        object("FrappeSite", name, deleted, &json!({"siteName": "shop.example.com", "benchRef": {"name": "b"}}))
    }

    /// The bench `b`.
    pub(in crate::operator) fn bench(deleted: Option<&str>) -> Arc<FrappeBench> {
        object("FrappeBench", "b", deleted, &json!({"frappeVersion": "15", "apps": []}))
    }

    /// A SiteBackup of a site, seen by the watch of labelled ones.
    fn has_backup(wake: &Wake, site: &str) {
        let now: Arc<Compact> = object("SiteBackup", "nightly", None, &json!({"siteRef": {"name": site}}));
        wake.companions[&Kind::SiteBackup].index.labelled.update(&Change::Applied { now, before: None });
    }

    /// Queues and names.
    pub(in crate::operator) fn keys(all: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        all.iter().map(|(queue, name)| (*queue, (*name).to_owned())).collect()
    }

    const DELETED: Option<&str> = Some("2026-01-01T00:00:00Z");

    #[tokio::test(start_paused = true)]
    async fn only_the_owner_queues_a_key() {
        let closed = Replica::new(Gate::new(Arc::new(SystemClock::default())), Duration::ZERO);
        let all = keys(&[("backup", "shop"), ("bench", "b"), ("site", "shop")]);
        for (mut replica, wanted) in [(Replica::owner(), all), (closed, Vec::new())] {
            replica.wake.sites.stray(site("shop", None));
            replica.wake.site(&Key::new("a", "shop"));
            replica.wake.companions_of(Kind::SiteBackup, &Key::new("a", "shop"));
            replica.wake.bench(Key::new("a", "b"));
            assert_eq!(replica.started().await, wanted);
        }
    }

    /// A deletion may wait for a SiteBackup that can make the final backup.
    #[tokio::test(start_paused = true)]
    async fn a_sitebackup_reconciles_its_site_while_that_is_being_deleted() {
        for (deleted, wanted) in [(None, &[("backup", "shop")][..]), (DELETED, &[("backup", "shop"), ("site", "shop")])]
        {
            let mut replica = Replica::owner();
            replica.wake.sites.stray(site("shop", deleted));
            replica.wake.companions_of(Kind::SiteBackup, &Key::new("a", "shop"));
            assert_eq!(replica.started().await, keys(wanted), "{deleted:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_reconciles_its_sitebackups() {
        let mut replica = Replica::owner();
        replica.wake.sites.stray(site("shop", None));
        has_backup(&replica.wake, "shop");
        for now in [false, true] {
            let key = Key::new("a", "shop");
            if now {
                replica.wake.site_now(&key);
            } else {
                replica.wake.site(&key);
            }
            assert_eq!(replica.started().await, keys(&[("backup", "shop"), ("site", "shop")]), "{now}");
        }
    }

    /// S-7: so are sites without a label, and SiteBackups whose site does not exist.
    #[tokio::test(start_paused = true)]
    async fn gained_slots_are_reconciled() {
        let mut replica = Replica::owner();
        replica.wake.sites.stray(site("shop", None));
        replica.wake.unlabelled.stray(site("new", None));
        has_backup(&replica.wake, "gone");
        replica.wake.slots(&SlotSet::NONE);
        assert_eq!(replica.started().await, []);
        replica.wake.slots(&SlotSet::ALL);
        assert_eq!(replica.started().await, keys(&[("backup", "gone"), ("site", "new"), ("site", "shop")]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bench_that_is_being_deleted_is_reconciled_when_a_site_is_gone() {
        for (deleted, wanted) in [(None, &[][..]), (DELETED, &[("bench", "b")])] {
            let mut replica = Replica::owner();
            replica.wake.benches.stray(bench(deleted));
            replica.wake.leaving_bench(&Key::new("a", "b"));
            assert_eq!(replica.started().await, keys(wanted), "{deleted:?}");
        }
    }
}
