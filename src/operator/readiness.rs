//! Of which slots everything is listed: no reconcile runs on half a world.

use std::sync::Arc;

use futures::{FutureExt as _, future::select_all};
use kube_sharding::{SlotSet, gate::Openings};
use tokio::{sync::watch, task::JoinSet};

use super::{apis::Present, wake::Wake};
use crate::domain::{
    capabilities::{Api, Capabilities, Reader},
    kinds::Kind,
    watches::Watch,
};

/// What one watch has listed, and who needs it.
pub(super) struct Source {
    /// The API that its kind needs.
    needs: Option<Api>,
    /// Whether it follows the slots.
    is_by_slot: bool,
    awaited_by: &'static [Reader],
    /// Slots that are listed.
    pub(super) synced: watch::Receiver<SlotSet>,
}

impl Source {
    /// A watch of the table.
    pub(super) fn of(kind: Kind, watch: &Watch, synced: watch::Receiver<SlotSet>) -> Self {
        let (needs, is_by_slot) = (kind.row().needs, watch.narrowing.is_by_slot());
        Self { needs, is_by_slot, awaited_by: watch.awaited_by, synced }
    }

    /// What is open, which counts like one more watch.
    fn open(awaited_by: &'static [Reader], synced: watch::Receiver<SlotSet>) -> Self {
        Self { needs: None, is_by_slot: true, awaited_by, synced }
    }

    /// Whether one of these waits for it.
    pub(super) fn is_awaited_by(&self, reader: Reader) -> bool {
        self.awaited_by.contains(&reader)
    }

    fn is_whole(&self) -> bool {
        *self.synced.borrow() == SlotSet::ALL
    }
}

/// What is known of the world.
pub(super) struct Sources {
    /// Every watch.
    pub(super) watched: Vec<Source>,
    /// Which optional APIs exist.
    pub(super) present: Present,
    /// How often each slot was opened: one that was closed and is open again looks as before.
    pub(super) openings: watch::Receiver<Arc<Openings>>,
}

impl Sources {
    /// What is open counts like one more watch.
    pub(super) fn and_open(mut self, open: watch::Receiver<SlotSet>, coordinating: watch::Receiver<SlotSet>) -> Self {
        self.watched.push(Source::open(&[Reader::Sites], open));
        self.watched.push(Source::open(&[Reader::Benches], coordinating));
        self
    }

    /// Slots that were opened since the last call. A slot whose handover was cancelled opens again: the gate rejected its
    /// sites in between, so they are reconciled, even if no one asked while it was closed.
    fn opened(&mut self, known: &mut Arc<Openings>) -> (SlotSet, bool) {
        let before = std::mem::replace(known, Arc::clone(&self.openings.borrow_and_update()));
        (known.since(&before), known.coordination_since(&before))
    }

    fn is_present(&self, api: Api) -> bool {
        self.present.get(&api).is_some_and(|it| *it.borrow())
    }

    /// The watches that these wait for. Where an API is half known, a bench would take from it what it holds.
    fn needed_by(&self, reader: Reader) -> impl Iterator<Item = &Source> {
        let exists = |it: &&Source| it.needs.is_none_or(|api| self.is_present(api));
        self.watched.iter().filter(move |it| it.is_awaited_by(reader)).filter(exists)
    }

    /// An API is usable where it exists and what is not shared by slots is listed: of slots, each waits for its own.
    fn capabilities(&self) -> Capabilities {
        let is_listed =
            |api: Api| self.watched.iter().filter(|it| it.needs == Some(api)).all(|it| it.is_by_slot || it.is_whole());
        Capabilities::of(|api| self.is_present(api) && is_listed(api))
    }

    fn benches_listed(&self) -> bool {
        self.needed_by(Reader::Benches).all(Source::is_whole)
    }

    fn ready_slots(&self) -> SlotSet {
        self.needed_by(Reader::Sites).fold(SlotSet::ALL, |all, it| all.intersection(&it.synced.borrow()))
    }

    async fn changed(&mut self) {
        let lists = self.watched.iter_mut().map(|it| changed(&mut it.synced).boxed());
        let apis = self.present.values_mut().map(|it| changed(it).boxed());
        let openings = changed(&mut self.openings).boxed();
        select_all(lists.chain(apis).chain([openings])).await;
    }
}

/// Whether something that they depend on came or went.
fn concerns(reader: Reader, before: Capabilities, now: Capabilities) -> bool {
    let mut read = Api::ALL.iter().filter(|api| api.row().reader == reader);
    read.any(|api| before.has(*api) != now.has(*api))
}

/// What may be reconciled.
#[derive(Clone)]
pub(super) struct Readiness {
    /// Slots of which everything is listed.
    pub(super) slots: watch::Receiver<SlotSet>,
    /// Whether everything of the benches is listed.
    pub(super) benches: watch::Receiver<bool>,
    /// What the cluster offers.
    pub(super) capabilities: watch::Receiver<Capabilities>,
}

impl Readiness {
    /// Follows the caches until the task is dropped; wakes what becomes ready.
    pub(super) fn follow(tasks: &mut JoinSet<()>, mut sources: Sources, wake: Wake) -> Self {
        let (slots, benches) = (watch::Sender::new(SlotSet::NONE), watch::Sender::new(false));
        let capabilities = watch::Sender::new(Capabilities::default());
        let this =
            Self { slots: slots.subscribe(), benches: benches.subscribe(), capabilities: capabilities.subscribe() };
        tasks.spawn(async move {
            let mut openings = Arc::default();
            loop {
                let (reopened, recoordinated) = sources.opened(&mut openings);
                let ready = sources.ready_slots();
                let offered = sources.capabilities();
                let before = *slots.borrow();
                // In this order: who is woken must find it usable.
                let offered_before = capabilities.send_replace(offered);
                slots.send_replace(ready);
                let new = ready.difference(&before).union(&ready.intersection(&reopened));
                wake.slots(&if concerns(Reader::Sites, offered_before, offered) { ready } else { new });
                let listed = sources.benches_listed();
                let other = concerns(Reader::Benches, offered_before, offered);
                if (!benches.send_replace(listed) || other || recoordinated) && listed {
                    wake.benches();
                    wake.orphans();
                }
                sources.changed().await;
            }
        });
        this
    }
}

/// Ends at a change; never where there can be none any more.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use frappe_crds::FrappeSite;
    use kube_sharding::{
        Slot,
        clock::SystemClock,
        gate::Gate,
        lanes::{
            rates::Rates,
            runner::{Outcome, Runner, Terms},
        },
    };

    use super::*;
    use crate::{controllers::backup::index::Indexes, domain::key::Key, io::cache::Cache};

    fn site() -> FrappeSite {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite",
            "metadata": {"name": "shop", "namespace": "a", "uid": "u"},
            "spec": {"siteName": "shop.example.com", "benchRef": {"name": "b"}},
        }))
        .unwrap()
    }

    /// S-7: an edit during a handover is not lost if the slot is kept, even if no one asked while it was closed.
    #[tokio::test]
    async fn a_slot_that_opens_again_has_its_sites_looked_at() {
        let slots = SlotSet::from_iter([Slot::of_uid("u")]);
        let sites = Arc::new(Cache::new(|_: &FrappeSite| Some(Slot::of_uid("u"))));
        sites.stray(Arc::new(site()));
        let (site_queue, runner) = Runner::<Key, Key>::new("test", 4);
        let (backup_queue, _backups) = Runner::<Key, Key>::new("test", 4);
        let (bench_queue, _benches) = Runner::<(), Key>::new("test", 4);
        let gate = Gate::open_for_all(Arc::new(SystemClock::default()));
        let wake = Wake {
            sites,
            unlabelled: Arc::new(Cache::new(|_: &FrappeSite| None)),
            benches: Arc::new(Cache::new(|_| None)),
            site_queue,
            backup_queue,
            bench_queue,
            backups: Indexes::default(),
            gate: gate.clone(),
        };
        let (open, is_open) = watch::channel(slots);
        let (all, everything) = watch::channel(SlotSet::ALL);
        let (reopened, openings) = watch::channel(Arc::default());
        let sources = Sources { watched: Vec::new(), present: Present::new(), openings };
        let mut tasks = JoinSet::new();
        let mut readiness = Readiness::follow(&mut tasks, sources.and_open(is_open, everything), wake);
        let (ran, mut runs) = tokio::sync::mpsc::unbounded_channel();
        let (_rates, rates) = watch::channel(Rates::default());
        let terms = Terms {
            limit: Box::new(|_| 1),
            rates,
            acting: gate.acting(),
            stop: tokio_util::sync::CancellationToken::new(),
        };
        tasks.spawn(runner.run(terms, move |key| {
            let ran = ran.clone();
            async move {
                let _ = ran.send(key);
                Outcome::Done
            }
        }));
        let mut next = async || tokio::time::timeout(Duration::from_mins(1), runs.recv()).await.expect("it is woken");
        assert_eq!(next().await, Some(Key::new("a", "shop")));
        open.send_replace(SlotSet::NONE);
        readiness.slots.wait_for(SlotSet::is_empty).await.unwrap();
        open.send_replace(slots);
        assert_eq!(next().await, Some(Key::new("a", "shop")));
        reopened.send_replace(gate.openings().borrow().clone());
        assert_eq!(next().await, Some(Key::new("a", "shop")));
        drop(all);
    }

    /// The watches of a kind, with what they have listed.
    fn watched(kind: Kind, listed: SlotSet) -> impl Iterator<Item = Source> {
        kind.row().watches.iter().map(move |watch| Source::of(kind, watch, watch::channel(listed).1))
    }

    fn sources(watched: impl Iterator<Item = Source>, present: &[Api]) -> Sources {
        let is_present = |api: &Api| (*api, watch::channel(present.contains(api)).1);
        Sources {
            watched: watched.collect(),
            present: Api::ALL.iter().map(is_present).collect(),
            openings: watch::channel(Arc::default()).1,
        }
    }

    #[test]
    fn kinds_of_an_api_are_waited_for_where_it_exists() {
        let (all, none) = (SlotSet::ALL, SlotSet::NONE);
        let gateway = |listed, present: &[Api]| {
            let sources = sources(watched(Kind::Ingress, all).chain(watched(Kind::HttpRoute, listed)), present);
            (sources.ready_slots(), sources.capabilities().gateway)
        };
        assert_eq!(gateway(none, &[]), (all, false));
        assert_eq!(gateway(none, &[Api::Gateway]), (none, true), "each slot waits for its own");
        assert_eq!(gateway(all, &[Api::Gateway]), (all, true));
        let mariadb = |listed, present: &[Api]| {
            let sources = sources(watched(Kind::Database, all).chain(watched(Kind::MariaDb, listed)), present);
            (sources.ready_slots(), sources.capabilities().mariadb)
        };
        assert_eq!(mariadb(none, &[Api::Keda]), (all, false));
        assert_eq!(mariadb(none, &[Api::MariaDb]), (none, false), "which servers there are is not known");
        assert_eq!(mariadb(all, &[Api::MariaDb]), (all, true));
        let keda = |listed, present: &[Api]| {
            let sources = sources(watched(Kind::Deployment, all).chain(watched(Kind::ScaledObject, listed)), present);
            (sources.benches_listed(), sources.capabilities().keda)
        };
        assert_eq!(keda(none, &[]), (true, false));
        assert_eq!(keda(none, &[Api::Keda]), (false, false), "a bench would take from KEDA what it holds");
        assert_eq!(keda(all, &[Api::Keda]), (true, true));
    }

    #[test]
    fn an_api_triggers_only_affected_reconciles() {
        let with = |api: Api| Capabilities::of(|it| it == api);
        for api in Api::ALL {
            let woken = [Reader::Sites, Reader::Benches].map(|it| concerns(it, Capabilities::default(), with(*api)));
            assert_eq!(woken, [api.row().reader == Reader::Sites, api.row().reader == Reader::Benches], "{api:?}");
            assert!(!concerns(api.row().reader, with(*api), with(*api)));
        }
    }
}
