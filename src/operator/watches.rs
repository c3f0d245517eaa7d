//! Starts the watches of the table of kinds: what is listed, how narrowly, and in which cache it is kept.

use std::{collections::BTreeMap, sync::Arc};

use frappe_crds::{FrappeBench, FrappeSite};
use kube::{Client, Resource, ResourceExt, core::DynamicObject};
use kube_sharding::{
    Incarnation, Slot, SlotSet,
    groups::Selection,
    ownership::Ownership,
    runtime::Handle,
    watch::{Query, server_selects_shards},
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    apis::{Definitions, Present},
    reactions::Reactions,
    readiness::{Readiness, Source, Sources},
    wake::Wake,
};
use crate::{
    controllers::{
        bench::{pod_health::PodProblems, watch as bench_watch},
        context::{ChildCache, Children, Reaction},
        site::{host_index::Claims, job_slots::JobBudget, root_secrets::RootSecrets, watch as site_watch},
    },
    domain::{
        capabilities::Reader,
        key::Key,
        kinds::Kind,
        labels,
        watches::{Narrowing, Wakes, Watch},
    },
    io::{
        cache::{Cache, Decision},
        compact::Compact,
        named::Named,
        watch::{self as watcher, Scope},
    },
};

/// Every cache, while its watch runs.
pub(super) struct Watches {
    pub(super) sites: Arc<Cache<FrappeSite>>,
    pub(super) benches: Arc<Cache<FrappeBench>>,
    pub(super) site_children: Children,
    pub(super) bench_children: Children,
    pub(super) readiness: Readiness,
    pub(super) pod_problems: Arc<PodProblems>,
    pub(super) jobs: Arc<JobBudget>,
    pub(super) user_secrets: Arc<ChildCache>,
    pub(super) claims: Arc<Claims>,
    pub(super) root_secrets: Arc<RootSecrets>,
    pub(super) ingress_services: Named,
    pub(super) new_backups: Arc<ChildCache>,
    /// What every replica lists before it may own anything.
    before_owning: Vec<watch::Receiver<SlotSet>>,
}

/// What starts watches.
struct Starter<'a> {
    tasks: &'a mut JoinSet<()>,
    client: Client,
    ownership: Ownership,
    wake: Wake,
    /// Namespaces that are looked at; all if empty.
    namespaces: Vec<String>,
    /// Whether the API server selects sites by the hash of their uid; by label if not.
    by_hash: bool,
    present: Present,
    reactions: Reactions,
}

/// Caches of objects, by what they show.
type Caches = BTreeMap<(Kind, Narrowing), (Arc<ChildCache>, Reaction)>;

/// Starts every watch, of these namespaces only unless there are none.
pub(super) async fn start(
    tasks: &mut JoinSet<()>,
    client: &Client,
    (handle, me): (&Handle, &Incarnation),
    wake: Wake,
    namespaces: &[String],
) -> Watches {
    // Of definitions there is always one, also before the first site is made.
    let paths = [Kind::Site, Kind::CustomResourceDefinition].map(|it| DynamicObject::url_path(&it.resource(), None));
    // Labels do on every server; one that does not answer now is asked no further.
    let by_hash = namespaces.is_empty() && server_selects_shards(client, &paths).await.unwrap_or(false);
    tracing::debug!(by_hash, "whether the API server selects sites by the hash of their uid; by label if not");
    let ownership = Ownership::follow(tasks, handle, me);
    let (definitions, present) = Definitions::new();
    let jobs = budget(tasks, &ownership, &wake);
    let reactions = Reactions::new(client.clone(), wake.clone(), Arc::clone(&jobs), definitions);
    let mut starter = Starter {
        tasks,
        client: client.clone(),
        ownership,
        wake,
        namespaces: namespaces.to_vec(),
        by_hash,
        present,
        reactions,
    };
    let (mut caches, mut watched) = (Caches::new(), Vec::new());
    for kind in Kind::ALL {
        for watch in kind.row().watches {
            if let Some(synced) = starter.start(*kind, watch, &mut caches) {
                watched.push(Source::of(*kind, watch, synced));
            }
        }
    }
    let Starter { tasks, wake, ownership, present, reactions, .. } = starter;
    let before_owning = watched.iter().filter(|it| it.is_awaited_by(Reader::Replica)).map(|it| it.synced.clone());
    let before_owning = before_owning.collect();
    let sources = Sources { watched, present, openings: handle.gate().openings() };
    let sources = sources.and_open(ownership.open, ownership.coordinating);
    let readiness = Readiness::follow(tasks, sources, wake.clone());
    let woken = wake.clone();
    Watches {
        site_children: children(&caches, &[Narrowing::OfSites, Narrowing::Slots, Narrowing::Everything]),
        bench_children: children(&caches, &[Narrowing::OfBenches]),
        readiness,
        pod_problems: reactions.pod_problems,
        jobs,
        user_secrets: Arc::clone(&caches[&(Kind::Secret, Narrowing::Marked)].0),
        claims: reactions.claims,
        root_secrets: reactions.root_secrets,
        ingress_services: Named::new(client.clone(), Kind::Service, move || woken.benches()),
        new_backups: Arc::clone(&caches[&(Kind::SiteBackup, Narrowing::Unlabelled)].0),
        sites: wake.sites,
        benches: wake.benches,
        before_owning,
    }
}

impl Watches {
    /// Waits for the first lists of what every member needs, whatever it owns.
    pub(super) async fn shared_synced(&self) {
        for synced in &self.before_owning {
            // It cannot fail: the caches that send it are this one's own.
            let _ = synced.clone().wait_for(|slots| *slots == SlotSet::ALL).await;
        }
    }
}

/// The caches with these narrowings, by kind.
fn children(caches: &Caches, narrowings: &[Narrowing]) -> Children {
    let mut children = Children::default();
    for ((kind, _), (cache, changed)) in caches.iter().filter(|((_, narrowing), _)| narrowings.contains(narrowing)) {
        children.insert(*kind, Arc::clone(cache), Arc::clone(changed));
    }
    children
}

/// The budget of site Jobs: follows the slots, and wakes who may go on.
fn budget(tasks: &mut JoinSet<()>, ownership: &Ownership, wake: &Wake) -> Arc<JobBudget> {
    let sites = Arc::clone(&wake.sites);
    let known = move |key: &Key, uid: &str, bench: &Key| {
        sites
            .get(key)
            .is_some_and(|site| site.metadata.uid.as_deref() == Some(uid) && site_watch::lane(&site) == *bench)
    };
    let (jobs, mut woken) = JobBudget::new(ownership.held.clone(), ownership.others.clone(), known);
    let (jobs, wake) = (Arc::new(jobs), wake.clone());
    let (mut held, mut others) = (ownership.held.clone(), ownership.others.clone());
    let budget = Arc::clone(&jobs);
    tasks.spawn(async move {
        loop {
            tokio::select! {
                Some(site) = woken.recv() => wake.site_now(&site),
                Ok(()) = held.changed() => budget.slots_changed(),
                Ok(()) = others.changed() => budget.slots_changed(),
                else => return,
            }
        }
    });
    jobs
}

/// The slot of a site: what decides.
fn slot_of_site(site: &FrappeSite) -> Option<Slot> {
    site.metadata.uid.as_deref().map(Slot::of_uid)
}

/// The slot in a child's label: it only says whose watch the child is in.
fn slot_of_child(child: &Compact) -> Option<Slot> {
    child.label(labels::SLOT)?.parse().ok().map(Slot::new)
}

/// Kinds that are not shared are all in one.
#[allow(clippy::unnecessary_wraps, reason = "the form that a cache wants")]
fn one_slot<K>(_: &K) -> Option<Slot> {
    Some(Slot::new(0))
}

/// Caches of sites, of sites without a label, and of benches.
type WakeCaches = (Arc<Cache<FrappeSite>>, Arc<Cache<FrappeSite>>, Arc<Cache<FrappeBench>>);

/// Caches for [`Wake`], which are there before their watches.
pub(super) fn caches() -> WakeCaches {
    (Arc::new(Cache::new(slot_of_site)), Arc::new(Cache::new(one_slot)), Arc::new(Cache::new(one_slot)))
}

impl Starter<'_> {
    /// Starts one watch; returns the slots that it has listed. Watches of single objects start when an object references one.
    fn start(&mut self, kind: Kind, watch: &Watch, caches: &mut Caches) -> Option<watch::Receiver<SlotSet>> {
        if let Some(changed) = self.reactions.to_object(kind, watch) {
            let cache = self.watch_objects(kind, watch.narrowing, Arc::clone(&changed));
            let synced = cache.synced();
            caches.insert((kind, watch.narrowing), (cache, changed));
            return Some(synced);
        }
        match (watch.wakes, watch.narrowing) {
            (Wakes::Site, Narrowing::Unlabelled) => self.watch_new_sites(),
            (Wakes::Site, _) => Some(self.watch_sites()),
            (Wakes::Bench, _) => Some(self.watch_benches()),
            _ => None,
        }
    }

    fn watch_sites(&mut self) -> watch::Receiver<SlotSet> {
        let by_label = || Selection::LabelUnlessAll(labels::SLOT.to_owned());
        let selection = if self.by_hash { Selection::Shards } else { by_label() };
        let scope = Scope { query: self.query(Kind::Site), selection, owned: self.ownership.held.clone() };
        let cache = Arc::clone(&self.wake.sites);
        self.tasks.spawn(watcher::run(self.client.clone(), scope, cache, self.reactions.to_site()));
        self.wake.sites.synced()
    }

    /// A site that is new has no label yet: every member looks, the owner of its slot takes it.
    fn watch_new_sites(&mut self) -> Option<watch::Receiver<SlotSet>> {
        if self.by_hash {
            return None;
        }
        let query = Query { labels: format!("!{}", labels::SLOT), ..self.query(Kind::Site) };
        let scope = Scope::everything(query);
        let cache = Arc::clone(&self.wake.unlabelled);
        self.tasks.spawn(watcher::run(self.client.clone(), scope, cache, self.reactions.to_new_site()));
        Some(self.wake.unlabelled.synced())
    }

    fn watch_benches(&mut self) -> watch::Receiver<SlotSet> {
        let scope = Scope::everything(self.query(Kind::Bench));
        let cache = Arc::clone(&self.wake.benches);
        self.tasks.spawn(watcher::run(self.client.clone(), scope, cache, self.reactions.to_bench()));
        self.wake.benches.synced()
    }

    fn watch_objects(&mut self, kind: Kind, narrowing: Narrowing, changed: Reaction) -> Arc<ChildCache> {
        let cache = Arc::new(self.cache(kind, narrowing));
        let (client, scope, held) = (self.client.clone(), self.scope(kind, narrowing), Arc::clone(&cache));
        let present = kind.row().needs.map(|api| self.present[&api].clone());
        let changed = move |change| changed(change);
        self.tasks.spawn(async move {
            match present {
                Some(present) => watcher::run_while_present(present, client, scope, held, changed).await,
                None => watcher::run(client, scope, held, changed).await,
            }
        });
        cache
    }

    /// How objects of a kind are asked for.
    fn query(&self, kind: Kind) -> Query {
        let query = Query::of::<DynamicObject>(&kind.resource(), None);
        let query = Query { metadata_only: kind.row().metadata_only, ..query };
        if kind.row().is_of_cluster { query } else { query.within(&self.namespaces) }
    }

    /// Which objects of a kind are asked for, and while what is owned.
    fn scope(&self, kind: Kind, narrowing: Narrowing) -> Scope {
        let query = self.query(kind);
        let labelled = |labels: String| Query { labels, ..query.clone() };
        let by_slot = Selection::Label(labels::SLOT.to_owned());
        match narrowing {
            Narrowing::Slots => Scope { query, selection: by_slot, owned: self.ownership.held.clone() },
            // Whose an object is can be told once the sites are listed.
            Narrowing::OfSites => Scope { query, selection: by_slot, owned: self.wake.sites.synced() },
            Narrowing::Unlabelled => Scope::everything(labelled(format!("!{}", labels::SLOT))),
            Narrowing::OfBenches => Scope {
                query: labelled(format!("{}={},!{}", labels::MANAGED_BY, labels::MANAGER, labels::SLOT)),
                selection: Selection::Everything,
                owned: self.ownership.coordinates.clone(),
            },
            Narrowing::Marked => Scope::everything(labelled(labels::WATCHED.to_owned())),
            Narrowing::Everything | Narrowing::Named | Narrowing::Settings => Scope::everything(query),
        }
    }

    /// What is kept of a kind.
    fn cache(&self, kind: Kind, narrowing: Narrowing) -> ChildCache {
        match narrowing {
            Narrowing::OfSites => {
                let (sites, unlabelled) = (Arc::clone(&self.wake.sites), Arc::clone(&self.wake.unlabelled));
                let decide = move |child: &Compact| {
                    let claimed = site_watch::owner(child).zip(child.label(labels::SITE_UID));
                    let Some((key, uid)) = claimed else { return Decision::Drop };
                    let of = |cache: &Cache<FrappeSite>| {
                        cache.get(&key).filter(|it| it.metadata.uid.as_deref() == Some(uid))
                    };
                    let Some(site) = of(&sites).or_else(|| of(&unlabelled)) else {
                        return Decision::Note(uid.to_owned());
                    };
                    if site_watch::is_part(&site, kind, child) { Decision::Keep } else { Decision::Drop }
                };
                Cache::new(slot_of_child).deciding(Box::new(decide))
            }
            Narrowing::OfBenches => {
                let benches = Arc::clone(&self.wake.benches);
                let decide = move |child: &Compact| {
                    let Some(bench) = bench_watch::owner(child) else { return Decision::Drop };
                    let is_part = bench_watch::is_part(&bench.name, kind, &child.name_any());
                    match (is_part, benches.get(&bench)) {
                        (true, Some(_)) => Decision::Keep,
                        (true, None) => Decision::Note(bench.to_string()),
                        (false, _) => Decision::Drop,
                    }
                };
                Cache::new(one_slot).deciding(Box::new(decide))
            }
            Narrowing::Slots => Cache::new(slot_of_child),
            Narrowing::Unlabelled
            | Narrowing::Marked
            | Narrowing::Everything
            | Narrowing::Named
            | Narrowing::Settings => Cache::new(one_slot),
        }
    }
}
