//! What this member holds, as the watches want to know it.

use kube_sharding::{SlotSet, gate::Gate};
use tokio::{sync::watch, task::JoinSet};

/// Sets of slots that follow the gate.
pub(super) struct Ownership {
    /// Slots whose objects this member needs.
    pub(super) held: watch::Receiver<SlotSet>,
    /// Slots on which work may begin: those but the ones that are being given away.
    pub(super) open: watch::Receiver<SlotSet>,
    /// Everything while work of the coordinator may begin, else nothing.
    pub(super) coordinating: watch::Receiver<SlotSet>,
    /// Everything while this member is coordinator, else nothing.
    pub(super) coordinates: watch::Receiver<SlotSet>,
}

impl Ownership {
    /// Follows the gate until the task is dropped.
    pub(super) fn follow(tasks: &mut JoinSet<()>, gate: &Gate) -> Self {
        let senders = [(); 4].map(|()| watch::Sender::new(SlotSet::NONE));
        let [held, coordinates, open, coordinating] = [0, 1, 2, 3].map(|index| senders[index].subscribe());
        let mut opening = gate.opening();
        tasks.spawn(async move {
            loop {
                let now = opening.borrow_and_update().clone();
                let slots = now.held_slots();
                let all_if = |yes: bool| if yes { SlotSet::ALL } else { SlotSet::NONE };
                let next = [slots, all_if(now.holds_coordination()), now.slots(), all_if(now.coordinates())];
                for (sender, next) in senders.iter().zip(next) {
                    sender.send_if_modified(|known| std::mem::replace(known, next) != next);
                }
                if opening.changed().await.is_err() {
                    return;
                }
            }
        });
        Self { held, open, coordinating, coordinates }
    }
}
