//! Slots of which everything is listed: a reconcile starts only then.

use std::sync::Arc;

use futures::{FutureExt as _, future::select_all};
use tokio::sync::watch;

use crate::{
    gate::{Openings, Scope},
    ownership::Ownership,
    slot::SlotSet,
};

/// What waits until a watch has listed its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// The reconciles of the objects in a slot.
    Slots,
    /// The reconciles of the coordinator.
    Coordinator,
    /// The member, before it may own anything.
    Member,
}

/// What one watch has listed, and what waits for it.
#[derive(Clone)]
#[must_use = "nothing waits for a watch that is not answered"]
pub struct Source {
    awaited_by: Vec<Awaits>,
    synced: watch::Receiver<SlotSet>,
    present: Option<watch::Receiver<bool>>,
}

impl Source {
    /// A watch, by the slots that it has listed.
    pub fn new(synced: watch::Receiver<SlotSet>, awaited_by: impl IntoIterator<Item = Awaits>) -> Self {
        Self { awaited_by: awaited_by.into_iter().collect(), synced, present: None }
    }

    /// The same, awaited only while its kind exists.
    pub fn while_present(self, present: watch::Receiver<bool>) -> Self {
        Self { present: Some(present), ..self }
    }

    /// The slots that it has listed.
    pub fn synced(&self) -> SlotSet {
        *self.synced.borrow()
    }

    /// Whether its kind exists.
    pub fn is_present(&self) -> bool {
        self.present.as_ref().is_none_or(|it| *it.borrow())
    }

    fn is_needed(&self, by: Awaits) -> bool {
        self.awaited_by.contains(&by) && self.is_present()
    }

    /// Waits until a member that needs it has it.
    pub(crate) async fn listed_for_member(mut self) {
        if self.awaited_by.contains(&Awaits::Member) {
            // The sender is the cache's own: if it is gone, so is the incarnation.
            let _ = self.synced.wait_for(|slots| *slots == SlotSet::ALL).await;
        }
    }
}

/// What may be reconciled. Cheap to clone.
#[derive(Clone)]
pub struct Ready {
    slots: watch::Receiver<SlotSet>,
    coordinator: watch::Receiver<bool>,
}

impl Ready {
    /// Whether everything that a reconcile of this scope reads is listed.
    pub fn has(&self, scope: Scope) -> bool {
        match scope {
            Scope::Slot(slot) => self.slots.borrow().contains(slot),
            Scope::Coordinator => *self.coordinator.borrow(),
        }
    }

    /// The slots; a receiver gets every change.
    pub fn slots(&self) -> watch::Receiver<SlotSet> {
        self.slots.clone()
    }
}

/// What changed since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Slots that are ready.
    pub ready: SlotSet,
    /// Those of them that were not, or were closed in between: their objects must be reconciled.
    pub gained: SlotSet,
    /// Whether the coordinator's objects are ready.
    pub coordinates: bool,
    /// Whether they must be reconciled.
    pub coordination_gained: bool,
}

/// Follows what is listed and what is open.
pub struct Readiness {
    sources: Vec<Source>,
    openings: watch::Receiver<Arc<Openings>>,
    known: Arc<Openings>,
    slots: watch::Sender<SlotSet>,
    coordinator: watch::Sender<bool>,
}

impl Readiness {
    /// Of these sources. What is open counts like one more watch.
    pub fn new(mut sources: Vec<Source>, ownership: &Ownership, openings: watch::Receiver<Arc<Openings>>) -> Self {
        sources.push(Source::new(ownership.open.clone(), [Awaits::Slots]));
        sources.push(Source::new(ownership.coordinating.clone(), [Awaits::Coordinator]));
        let (slots, coordinator) = (watch::Sender::new(SlotSet::NONE), watch::Sender::new(false));
        Self { sources, openings, known: Arc::default(), slots, coordinator }
    }

    /// What may be reconciled.
    pub fn ready(&self) -> Ready {
        Ready { slots: self.slots.subscribe(), coordinator: self.coordinator.subscribe() }
    }

    /// What changed since [`Readiness::publish`]. A slot whose handover was cancelled opens again: the gate refused its objects
    /// in between, so they are reconciled, even if no one asked while it was closed.
    pub fn look(&mut self) -> Step {
        let openings = Arc::clone(&self.openings.borrow_and_update());
        let before = std::mem::replace(&mut self.known, Arc::clone(&openings));
        let ready = self.needed_by(Awaits::Slots).fold(SlotSet::ALL, |all, it| all.intersection(&it.synced()));
        let coordinates = self.needed_by(Awaits::Coordinator).all(|it| it.synced() == SlotSet::ALL);
        let gained = ready.difference(&self.slots.borrow()).union(&ready.intersection(&openings.since(&before)));
        let anew = !*self.coordinator.borrow() || openings.coordination_since(&before);
        Step { ready, gained, coordinates, coordination_gained: coordinates && anew }
    }

    /// Lets what is ready be reconciled. Only then may it be queued: a reconcile that starts earlier ends at once.
    pub fn publish(&self, step: &Step) {
        self.slots.send_replace(step.ready);
        self.coordinator.send_replace(step.coordinates);
    }

    /// Waits for a change.
    pub async fn changed(&mut self) {
        let lists = self.sources.iter_mut().flat_map(|it| {
            let present = it.present.as_mut().map(|it| changed(it).boxed());
            present.into_iter().chain([changed(&mut it.synced).boxed()])
        });
        let openings = changed(&mut self.openings).boxed();
        select_all(lists.chain([openings])).await;
    }

    fn needed_by(&self, by: Awaits) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(move |it| it.is_needed(by))
    }
}

/// Completes at a change; never if there can be none.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{clock::SystemClock, gate::Gate, slot::Slot};

    /// What is listed and open, and a reader of it.
    struct World {
        listed: watch::Sender<SlotSet>,
        open: watch::Sender<SlotSet>,
        coordinating: watch::Sender<SlotSet>,
        present: watch::Sender<bool>,
        openings: watch::Sender<Arc<Openings>>,
        readiness: Readiness,
    }

    impl World {
        /// A watch that slots and coordinator wait for while its kind is present.
        fn new() -> Self {
            let [listed, open, coordinating] = [(); 3].map(|()| watch::Sender::new(SlotSet::ALL));
            let (present, openings) = (watch::Sender::new(true), watch::Sender::<Arc<Openings>>::default());
            let ownership = Ownership {
                held: open.subscribe(),
                open: open.subscribe(),
                coordinating: coordinating.subscribe(),
                coordinates: coordinating.subscribe(),
                others: watch::channel(Vec::new()).1,
            };
            let source = Source::new(listed.subscribe(), [Awaits::Slots, Awaits::Coordinator]);
            let sources = vec![source.while_present(present.subscribe())];
            let readiness = Readiness::new(sources, &ownership, openings.subscribe());
            Self { listed, open, coordinating, present, openings, readiness }
        }

        async fn changed(&mut self) {
            let change = self.readiness.changed();
            tokio::time::timeout(Duration::from_secs(5), change).await.expect("it is told of the change");
        }

        fn next(&mut self) -> Step {
            let step = self.readiness.look();
            self.readiness.publish(&step);
            step
        }
    }

    /// S-7: a change during a handover is not lost if the slot is kept, even if no one asked while it was closed.
    #[tokio::test]
    async fn a_slot_that_opens_again_is_gained_again() {
        let (mut world, seven) = (World::new(), SlotSet::from_iter([Slot::new(7)]));
        assert_eq!(world.next().gained, SlotSet::ALL);
        assert_eq!(world.next(), Step { ready: SlotSet::ALL, coordinates: true, ..Step::default() }, "nothing changed");
        world.open.send_replace(SlotSet::ALL.difference(&seven));
        world.changed().await;
        assert_eq!(world.next().gained, SlotSet::NONE);
        assert!(!world.readiness.ready().has(Scope::Slot(Slot::new(7))));
        world.open.send_replace(SlotSet::ALL);
        world.changed().await;
        assert_eq!(world.next().gained, seven);
        // Closed and opened between two looks: it is as open as it was.
        let gate = Gate::open_for_all(Arc::new(SystemClock::default()));
        world.openings.send_replace(gate.openings().borrow().clone());
        world.changed().await;
        let step = world.next();
        assert_eq!((step.gained, step.coordination_gained), (SlotSet::ALL, true));
    }

    #[tokio::test]
    async fn what_is_absent_is_not_waited_for() {
        let mut world = World::new();
        world.listed.send_replace(SlotSet::NONE);
        let step = world.next();
        assert_eq!((step.ready, step.coordinates), (SlotSet::NONE, false));
        world.present.send_replace(false);
        world.changed().await;
        let step = world.next();
        assert_eq!((step.gained, step.coordination_gained), (SlotSet::ALL, true));
        world.coordinating.send_replace(SlotSet::NONE);
        world.changed().await;
        let step = world.next();
        assert!(!step.coordinates && !step.coordination_gained);
    }
}
