//! Of which slots everything is listed: no reconcile runs on half a world.

use futures::future::select_all;
use kube_sharding::SlotSet;
use tokio::{sync::watch, task::JoinSet};

use super::wake::Wake;

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
}

impl Readiness {
    /// Follows the caches until the task is dropped; wakes what becomes ready.
    pub(super) fn follow(tasks: &mut JoinSet<()>, mut sources: Sources, wake: Wake) -> Self {
        let (slots, benches, mariadb) =
            (watch::Sender::new(SlotSet::NONE), watch::Sender::new(false), watch::Sender::new(false));
        let this = Self { slots: slots.subscribe(), benches: benches.subscribe(), mariadb: mariadb.subscribe() };
        tasks.spawn(async move {
            loop {
                let usable = sources.mariadb_usable();
                let ready = sources.ready_slots();
                let before = *slots.borrow();
                // In this order: who is woken must find it usable.
                let appeared = !mariadb.send_replace(usable) && usable;
                slots.send_replace(ready);
                wake.slots(&if appeared { ready } else { ready.difference(&before) });
                let listed = sources.benches.iter().all(|it| *it.borrow() == SlotSet::ALL);
                if !benches.send_replace(listed) && listed {
                    wake.benches();
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

    fn ready_slots(&self) -> SlotSet {
        let common = |all: SlotSet, synced: &watch::Receiver<SlotSet>| all.intersection(&synced.borrow());
        let ready = self.sharded.iter().fold(SlotSet::ALL, common);
        if !*self.present.borrow() {
            return ready;
        }
        self.sql.iter().fold(ready, common).intersection(&self.servers.borrow())
    }

    async fn changed(&mut self) {
        let sets = self.sharded.iter_mut().chain(&mut self.sql).chain(&mut self.benches);
        let sets = sets.chain([&mut self.servers]);
        let mut any: Vec<_> = sets.map(|it| Box::pin(changed(it)) as futures::future::BoxFuture<'_, ()>).collect();
        any.push(Box::pin(changed(&mut self.present)));
        select_all(any).await;
    }
}

/// Ends at a change; never where there can be none any more.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
