//! Starts the watches of the table of kinds: what is listed, how narrowly, and in which cache it is kept.

use std::sync::Arc;

use frappe_crds::{FrappeBench, FrappeSite};
use kube::core::DynamicObject;
use kube_sharding::{
    Slot, SlotSet, feed::Scope, groups::Selection, ownership::Ownership, session::Session, watch::Query,
};
use tokio::sync::watch;

use super::{apis::Present, offers::Watched, reactions::Reactions, wake::Wake};
use crate::{
    controllers::{
        bench::watch as bench_watch,
        context::{Caches, ChildCache, Reaction},
        site::{job_slots::JobBudget, watch as site_watch},
    },
    domain::{
        key::Key,
        kinds::Kind,
        labels,
        watches::{Narrowing, Wakes, Watch},
    },
    io::{
        cache::{Cache, Decision},
        compact::Compact,
    },
};

/// Caches of the objects that are not sites or benches, for each watch of the table.
pub(super) fn caches_of_objects(wake: &Wake, reactions: &Reactions) -> Caches {
    let rows = Kind::ALL.iter().flat_map(|kind| kind.row().watches.iter().map(move |watch| (*kind, watch)));
    rows.filter_map(|(kind, watch)| {
        let changed = reactions.to_object(kind, watch)?;
        Some(((kind, watch.narrowing), (Arc::new(cache(wake, kind, watch.narrowing)), changed)))
    })
    .collect()
}

/// The budget of site Jobs: follows the slots, and wakes who may go on.
pub(super) fn budget(session: &Session, wake: &Wake) -> Arc<JobBudget> {
    let sites = Arc::clone(&wake.sites);
    let known = move |key: &Key, uid: &str, bench: &Key| {
        sites
            .get(key)
            .is_some_and(|site| site.metadata.uid.as_deref() == Some(uid) && site_watch::lane(&site) == *bench)
    };
    let Ownership { held, others, .. } = session.ownership();
    let (jobs, mut woken) = JobBudget::new(held.clone(), others.clone(), known);
    let (jobs, wake) = (Arc::new(jobs), wake.clone());
    let (mut held, mut others) = (held.clone(), others.clone());
    let budget = Arc::clone(&jobs);
    session.spawn(async move {
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

/// What is kept of a kind.
fn cache(wake: &Wake, kind: Kind, narrowing: Narrowing) -> ChildCache {
    match narrowing {
        Narrowing::OfSites => {
            let (sites, unlabelled) = (Arc::clone(&wake.sites), Arc::clone(&wake.unlabelled));
            let decide = move |child: &Compact| {
                let claimed = site_watch::owner(child).zip(child.label(labels::SITE_UID));
                let Some((key, uid)) = claimed else { return Decision::Drop };
                let of =
                    |cache: &Cache<FrappeSite>| cache.get(&key).filter(|it| it.metadata.uid.as_deref() == Some(uid));
                let Some(site) = of(&sites).or_else(|| of(&unlabelled)) else {
                    return Decision::Note(uid.to_owned());
                };
                if site_watch::is_part(&site, kind, child) { Decision::Keep } else { Decision::Drop }
            };
            Cache::new(slot_of_child).deciding(Box::new(decide))
        }
        Narrowing::OfBenches => {
            let benches = Arc::clone(&wake.benches);
            let decide = move |child: &Compact| {
                let Some(bench) = bench_watch::owner(child) else { return Decision::Drop };
                let is_part = bench_watch::is_part(&bench.name, kind, child);
                match (is_part, benches.get(&bench)) {
                    (true, Some(_)) => Decision::Keep,
                    (true, None) => Decision::Note(bench.to_string()),
                    (false, _) => Decision::Drop,
                }
            };
            Cache::new(one_slot).deciding(Box::new(decide))
        }
        Narrowing::Slots => Cache::new(slot_of_child),
        Narrowing::Unlabelled | Narrowing::Marked | Narrowing::Everything | Narrowing::Named | Narrowing::Settings => {
            Cache::new(one_slot)
        }
    }
}

/// What starts watches.
pub(super) struct Starter<'a> {
    pub(super) session: &'a Session,
    pub(super) wake: &'a Wake,
    pub(super) reactions: &'a Reactions,
    pub(super) caches: &'a Caches,
    pub(super) present: &'a Present,
    /// Namespaces that are looked at; all if empty.
    pub(super) namespaces: &'a [String],
}

impl Starter<'_> {
    /// Starts every watch of the table.
    pub(super) fn start_all(&self) -> Vec<Watched> {
        let rows = Kind::ALL.iter().flat_map(|kind| kind.row().watches.iter().map(move |watch| (*kind, watch)));
        rows.filter_map(|(kind, watch)| {
            let synced = self.start(kind, watch)?;
            let present = kind.row().needs.map(|api| self.present[&api].clone());
            Some(Watched::of(kind, watch, synced, present))
        })
        .collect()
    }

    /// Starts one watch; returns the slots that it has listed. Watches of single objects start when an object references one.
    fn start(&self, kind: Kind, watch: &Watch) -> Option<watch::Receiver<SlotSet>> {
        if let Some((cache, changed)) = self.caches.get(&(kind, watch.narrowing)) {
            return Some(self.watch_objects(kind, watch.narrowing, cache, Arc::clone(changed)));
        }
        let (session, reactions) = (self.session, self.reactions);
        let Wake { sites, unlabelled, benches, .. } = self.wake;
        match (watch.wakes, watch.narrowing) {
            // A site that is new has no label yet: every member looks, the owner of its slot takes it.
            (Wakes::Site, Narrowing::Unlabelled) if self.session.selects_shards() => None,
            (Wakes::Site, Narrowing::Unlabelled) => {
                let query = Query { labels: format!("!{}", labels::SLOT), ..self.query(Kind::Site) };
                Some(session.feed(Scope::everything(query), Arc::clone(unlabelled), reactions.to_new_site()))
            }
            (Wakes::Site, _) => Some(session.feed(self.scope_of_sites(), Arc::clone(sites), reactions.to_site())),
            (Wakes::Bench, _) => Some(session.feed(
                Scope::everything(self.query(Kind::Bench)),
                Arc::clone(benches),
                reactions.to_bench(),
            )),
            _ => None,
        }
    }

    fn scope_of_sites(&self) -> Scope {
        let selection = if self.session.selects_shards() {
            Selection::Shards
        } else {
            Selection::LabelUnlessAll(labels::SLOT.to_owned())
        };
        Scope { query: self.query(Kind::Site), selection, owned: self.session.ownership().held.clone() }
    }

    fn watch_objects(
        &self,
        kind: Kind,
        narrowing: Narrowing,
        cache: &Arc<ChildCache>,
        changed: Reaction,
    ) -> watch::Receiver<SlotSet> {
        let (scope, changed) = (self.scope(kind, narrowing), move |change| changed(change));
        match kind.row().needs {
            Some(api) => self.session.feed_while_present(self.present[&api].clone(), scope, Arc::clone(cache), changed),
            None => self.session.feed(scope, Arc::clone(cache), changed),
        }
    }

    /// How objects of a kind are asked for.
    fn query(&self, kind: Kind) -> Query {
        let query = Query::of::<DynamicObject>(&kind.resource(), None);
        let query = Query { metadata_only: kind.row().metadata_only, ..query };
        if kind.row().is_of_cluster { query } else { query.within(self.namespaces) }
    }

    /// Which objects of a kind are asked for, and while what is owned.
    fn scope(&self, kind: Kind, narrowing: Narrowing) -> Scope {
        let query = self.query(kind);
        let labelled = |labels: String| Query { labels, ..query.clone() };
        let by_slot = Selection::Label(labels::SLOT.to_owned());
        match narrowing {
            Narrowing::Slots => Scope { query, selection: by_slot, owned: self.session.ownership().held.clone() },
            // Whose an object is can be told once the sites are listed.
            Narrowing::OfSites => Scope { query, selection: by_slot, owned: self.wake.sites.synced() },
            Narrowing::Unlabelled => Scope::everything(labelled(format!("!{}", labels::SLOT))),
            Narrowing::OfBenches => Scope {
                query: labelled(format!("{}={},!{}", labels::MANAGED_BY, labels::MANAGER, labels::SLOT)),
                selection: Selection::Everything,
                owned: self.session.ownership().coordinates.clone(),
            },
            Narrowing::Marked => Scope::everything(labelled(labels::WATCHED.to_owned())),
            Narrowing::Everything | Narrowing::Named | Narrowing::Settings => Scope::everything(query),
        }
    }
}
