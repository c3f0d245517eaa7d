//! Of which slots everything is listed: no reconcile runs on half a world.

use std::sync::Arc;

use futures::future::select_all;
use kube_sharding::{SlotSet, gate::Openings};
use tokio::{sync::watch, task::JoinSet};

use super::wake::Wake;
use crate::domain::capabilities::Capabilities;

/// Slots that caches have listed, by what they are needed for.
pub(super) struct Sources {
    /// Kinds that every site needs.
    pub(super) sharded: Vec<watch::Receiver<SlotSet>>,
    /// Kinds that a site needs where the MariaDB operator is installed.
    pub(super) sql: Vec<watch::Receiver<SlotSet>>,
    /// MariaDB objects.
    pub(super) servers: watch::Receiver<SlotSet>,
    /// Whether the MariaDB operator is installed.
    pub(super) present: watch::Receiver<bool>,
    /// Kinds that a bench needs.
    pub(super) benches: Vec<watch::Receiver<SlotSet>>,
    /// Which optional APIs exist is known once these are listed.
    pub(super) definitions: watch::Receiver<SlotSet>,
    /// KEDA.
    pub(super) keda: Optional,
    /// The Prometheus operator.
    pub(super) service_monitors: Optional,
    /// OpenShift.
    pub(super) openshift: Optional,
    /// OpenShift's Routes.
    pub(super) routes: Optional,
    /// The Gateway API.
    pub(super) gateway: Optional,
    /// How often each slot was opened: one that was closed and is open again looks as before.
    pub(super) openings: watch::Receiver<Arc<Openings>>,
}

/// An API that may be absent, and the caches of its kinds.
pub(super) struct Optional {
    pub(super) present: watch::Receiver<bool>,
    pub(super) synced: Vec<watch::Receiver<SlotSet>>,
}

impl Optional {
    fn listed(&self) -> bool {
        self.synced.iter().all(|it| *it.borrow() == SlotSet::ALL)
    }

    /// It is there and everything of it is known.
    fn usable(&self) -> bool {
        *self.present.borrow() && self.listed()
    }

    /// It is absent, or everything of it is known.
    fn settled(&self) -> bool {
        !*self.present.borrow() || self.listed()
    }
}

impl Sources {
    /// What is open counts like one more cache.
    pub(super) fn and_open(mut self, open: watch::Receiver<SlotSet>, coordinating: watch::Receiver<SlotSet>) -> Self {
        self.sharded.push(open);
        self.benches.push(coordinating);
        self
    }

    /// What was opened since this was asked last. A slot that was about to be given away and is kept after all opens
    /// again: what came in between was turned away at the gate, so its sites are looked at, also where nobody looked
    /// while it was closed.
    fn opened(&mut self, known: &mut Arc<Openings>) -> (SlotSet, bool) {
        let before = std::mem::replace(known, Arc::clone(&self.openings.borrow_and_update()));
        (known.since(&before), known.coordination_since(&before))
    }
}

/// What may be reconciled.
#[derive(Clone)]
pub(super) struct Readiness {
    /// Slots of which everything is listed.
    pub(super) slots: watch::Receiver<SlotSet>,
    /// Whether everything of the benches is listed.
    pub(super) benches: watch::Receiver<bool>,
    /// Whether the MariaDB operator's kinds exist and are listed.
    pub(super) mariadb: watch::Receiver<bool>,
    /// What else the cluster offers.
    pub(super) capabilities: watch::Receiver<Capabilities>,
}

impl Readiness {
    /// Follows the caches until the task is dropped; wakes what becomes ready.
    pub(super) fn follow(tasks: &mut JoinSet<()>, mut sources: Sources, wake: Wake) -> Self {
        let (slots, benches, mariadb) =
            (watch::Sender::new(SlotSet::NONE), watch::Sender::new(false), watch::Sender::new(false));
        let capabilities = watch::Sender::new(Capabilities::default());
        let this = Self {
            slots: slots.subscribe(),
            benches: benches.subscribe(),
            mariadb: mariadb.subscribe(),
            capabilities: capabilities.subscribe(),
        };
        tasks.spawn(async move {
            let mut openings = Arc::default();
            loop {
                let (reopened, recoordinated) = sources.opened(&mut openings);
                let usable = sources.mariadb_usable();
                let ready = sources.ready_slots();
                let before = *slots.borrow();
                // In this order: who is woken must find it usable.
                let appeared = !mariadb.send_replace(usable) && usable;
                slots.send_replace(ready);
                let offered = sources.capabilities();
                let other = capabilities.send_replace(offered) != offered;
                let new = ready.difference(&before).union(&ready.intersection(&reopened));
                wake.slots(&if appeared || other { ready } else { new });
                let listed = sources.benches_listed();
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

impl Sources {
    fn mariadb_usable(&self) -> bool {
        *self.present.borrow() && *self.servers.borrow() == SlotSet::ALL
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            keda: self.keda.usable(),
            service_monitors: self.service_monitors.usable(),
            openshift: self.openshift.usable(),
            routes: *self.routes.present.borrow(),
            gateway: *self.gateway.present.borrow(),
        }
    }

    /// With an optional API half known, a bench would take from it what it holds.
    fn benches_listed(&self) -> bool {
        let whole = |it: &watch::Receiver<SlotSet>| *it.borrow() == SlotSet::ALL;
        let optional = [&self.keda, &self.service_monitors, &self.openshift];
        self.benches.iter().all(whole) && whole(&self.definitions) && optional.iter().all(|it| it.settled())
    }

    fn ready_slots(&self) -> SlotSet {
        let common = |all: SlotSet, synced: &watch::Receiver<SlotSet>| all.intersection(&synced.borrow());
        let ready = self.sharded.iter().fold(SlotSet::ALL, common);
        let optional = [&self.routes, &self.gateway].into_iter().filter(|it| *it.present.borrow());
        let ready = optional.flat_map(|it| &it.synced).fold(ready, common);
        if !*self.present.borrow() {
            return ready;
        }
        self.sql.iter().fold(ready, common).intersection(&self.servers.borrow())
    }

    async fn changed(&mut self) {
        let sets = self.sharded.iter_mut().chain(&mut self.sql).chain(&mut self.benches);
        let mut optional =
            [&mut self.keda, &mut self.service_monitors, &mut self.openshift, &mut self.routes, &mut self.gateway];
        let (appear, lists): (Vec<_>, Vec<_>) = optional.iter_mut().map(|it| (&mut it.present, &mut it.synced)).unzip();
        let sets = sets.chain(lists.into_iter().flatten()).chain([&mut self.servers, &mut self.definitions]);
        let mut any: Vec<_> = sets.map(|it| Box::pin(changed(it)) as futures::future::BoxFuture<'_, ()>).collect();
        any.extend(appear.into_iter().map(|it| Box::pin(changed(it)) as _));
        any.push(Box::pin(changed(&mut self.present)));
        any.push(Box::pin(changed(&mut self.openings)));
        select_all(any).await;
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
    use kube_sharding::{Slot, clock::SystemClock, gate::Gate};

    use super::*;
    use crate::{
        controllers::backup::index::Indexes,
        domain::key::Key,
        io::cache::Cache,
        lanes::{
            rates::Rates,
            runner::{Outcome, Runner, Terms},
        },
    };

    fn absent() -> Optional {
        Optional { present: watch::channel(false).1, synced: Vec::new() }
    }

    fn site() -> FrappeSite {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite",
            "metadata": {"name": "shop", "namespace": "a", "uid": "u"},
            "spec": {"siteName": "shop.example.com", "benchRef": {"name": "b"}},
        }))
        .unwrap()
    }

    /// S-7: an edit that came while a slot was about to be given away is not lost when the slot is kept, also where nobody
    /// looked while it was closed.
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
        let (_present, present) = watch::channel(false);
        let (reopened, openings) = watch::channel(Arc::default());
        let sources = Sources {
            sharded: vec![everything.clone()],
            sql: Vec::new(),
            servers: everything.clone(),
            present,
            benches: Vec::new(),
            definitions: everything.clone(),
            keda: absent(),
            service_monitors: absent(),
            openshift: absent(),
            routes: absent(),
            gateway: absent(),
            openings,
        };
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
}
