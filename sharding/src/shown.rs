//! Shows what a member owns and sees, as metrics.

use std::{sync::Arc, time::Duration};

use metrics::{counter, gauge};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    fleet::{Fleet, Moved},
    map::SlotMap,
    session::Session,
};

/// How often what only grows older is looked at. No request is made.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Shows what this member owns and sees, until the incarnation ends.
pub(crate) async fn show(session: Session) {
    let (mut view, mut known) = (session.handle.view(), None::<Arc<SlotMap>>);
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            changed = view.changed() => if changed.is_err() { return },
            _ = looks.tick() => {}
        }
        let now = view.borrow_and_update().clone();
        let leases: Vec<_> = now.peers.iter().map(|peer| (peer.lease.clone(), peer.lease_age.as_secs())).collect();
        let fleet = Fleet::of(session.names(), now.map.as_deref(), &leases);
        let (gate, names) = (session.gate(), session.metrics);
        let opening = gate.opening().borrow().clone();
        gauge!(names.slots).set(number(opening.slots().len()));
        gauge!(names.objects).set(number(usize::try_from(session.handle.objects()).unwrap_or(usize::MAX)));
        gauge!(names.draining_slots).set(number(now.draining.len()));
        gauge!(names.acting).set(f64::from(u8::from(gate.acts())));
        gauge!(names.coordinator).set(f64::from(u8::from(opening.coordinates())));
        gauge!(names.members).set(number(fleet.alive()));
        gauge!(names.unowned_slots).set(number(fleet.unowned_slots));
        let Some(next) = now.map.clone().filter(|next| known.as_ref().is_none_or(|it| it.version != next.version))
        else {
            continue;
        };
        if let Some(before) = known.replace(Arc::clone(&next)) {
            let gained = Moved::of(session.incarnation(), &before, &next).gained;
            counter!(names.gained_slots).increment(gained as u64);
        }
    }
}
