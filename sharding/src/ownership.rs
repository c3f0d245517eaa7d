//! What this member holds, as the watches want to know it.

use tokio::{sync::watch, task::JoinSet};

use crate::{fleet::slots_by_owner, gate::Opening, map::SlotMap, member::Incarnation, runtime::Handle, slot::SlotSet};

/// Sets of slots that follow the gate. Cheap to clone.
#[derive(Clone)]
pub struct Ownership {
    /// Slots whose objects this member needs.
    pub held: watch::Receiver<SlotSet>,
    /// Slots on which work may begin: those but the ones that are being given away.
    pub open: watch::Receiver<SlotSet>,
    /// Everything while work of the coordinator may begin, else nothing.
    pub coordinating: watch::Receiver<SlotSet>,
    /// Everything while this member is coordinator, else nothing.
    pub coordinates: watch::Receiver<SlotSet>,
    /// Slots of each other member, as the slot map has them.
    pub others: watch::Receiver<Vec<SlotSet>>,
}

impl Ownership {
    /// Follows gate and slot map until the tasks are dropped.
    pub fn follow(tasks: &mut JoinSet<()>, handle: &Handle, me: &Incarnation) -> Self {
        let senders = [(); 4].map(|()| watch::Sender::new(SlotSet::NONE));
        let [held, coordinates, open, coordinating] = [0, 1, 2, 3].map(|index| senders[index].subscribe());
        let mut opening = handle.gate().opening();
        tasks.spawn(async move {
            loop {
                let next = sets(&opening.borrow_and_update());
                for (sender, next) in senders.iter().zip(next) {
                    sender.send_if_modified(|known| std::mem::replace(known, next) != next);
                }
                if opening.changed().await.is_err() {
                    return;
                }
            }
        });
        Self { held, open, coordinating, coordinates, others: others(tasks, handle, me.clone()) }
    }
}

/// Held slots, everything for who holds the coordination; open slots, everything for who may coordinate.
fn sets(now: &Opening) -> [SlotSet; 4] {
    let all_if = |yes: bool| if yes { SlotSet::ALL } else { SlotSet::NONE };
    [now.held_slots(), all_if(now.holds_coordination()), now.slots(), all_if(now.coordinates())]
}

/// Follows the slots of each other member.
fn others(tasks: &mut JoinSet<()>, handle: &Handle, me: Incarnation) -> watch::Receiver<Vec<SlotSet>> {
    let (sender, receiver) = watch::channel(Vec::new());
    let mut view = handle.view();
    tasks.spawn(async move {
        while view.changed().await.is_ok() {
            let map = view.borrow_and_update().map.clone();
            let next = map.map(|it| of_others(&it, &me)).unwrap_or_default();
            sender.send_if_modified(|known| {
                let changed = *known != next;
                *known = next;
                changed
            });
        }
    });
    receiver
}

/// Slots of each member but this.
fn of_others(map: &SlotMap, me: &Incarnation) -> Vec<SlotSet> {
    slots_by_owner(map).into_iter().filter(|(owner, _)| *owner != me).map(|(_, slots)| slots).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        map::{Content, Entry},
        member::Version,
        slot::Slot,
    };

    /// What is given away is watched until it is another's, and no new work begins on it.
    #[test]
    fn what_drains_is_held_but_not_open() {
        let (mine, given) = (Entry(1), Entry(2));
        let slots = |numbers: &[u8]| numbers.iter().map(|it| Slot::new(*it)).collect::<SlotSet>();
        let mut now =
            Opening { until: None, entries: [(mine, 1)].into(), draining: [given, Entry::COORDINATOR].into() };
        assert_eq!(sets(&now), [slots(&[1, 2]), SlotSet::ALL, slots(&[1]), SlotSet::NONE]);
        now.draining.clear();
        assert_eq!(sets(&now), [slots(&[1]), SlotSet::NONE, slots(&[1]), SlotSet::NONE]);
        now.entries.insert(Entry::COORDINATOR, 1);
        assert_eq!(sets(&now), [slots(&[1]), SlotSet::ALL, slots(&[1]), SlotSet::ALL]);
    }

    /// What this member owns, and what no one owns, is no other's.
    #[test]
    fn others_are_the_owners_beside_this_member() {
        let [me, second, third] = ["a", "b", "c"].map(|pod| Incarnation::new(pod, "1"));
        let mut content = Content::free(256);
        for (slot, owner) in [(0, &me), (1, &second), (2, &third), (3, &third)] {
            content.give(Entry(slot), Some(owner.clone()), 0);
        }
        let map = SlotMap { version: Version { uid: "map".into(), number: 1 }, created_seconds: 0, content };
        let slots = |numbers: &[u8]| numbers.iter().map(|it| Slot::new(*it)).collect::<SlotSet>();
        assert_eq!(of_others(&map, &me), [slots(&[1]), slots(&[2, 3])]);
    }
}
