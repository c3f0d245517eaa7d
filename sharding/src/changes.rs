//! What a member sees, one change after the other: for reports and metrics.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    fleet::{Fleet, Moved},
    map::SlotMap,
    member::Incarnation,
    runtime::View,
    session::Session,
};

/// How often what only grows older is looked at. No request is made.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Follows what a member sees.
pub struct Changes {
    session: Session,
    view: watch::Receiver<Arc<View>>,
    map: Option<Arc<SlotMap>>,
    looks: Interval,
}

/// What a member sees after a change.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Seen {
    /// All that it knows.
    pub view: Arc<View>,
    /// Members and their slots.
    pub fleet: Fleet,
    /// What it gained and gave away, if the slot map is another than before.
    pub moved: Option<Moved>,
    /// Whether nothing changed but that 5 s went by.
    pub is_look: bool,
}

impl Changes {
    /// Follows the member of this session.
    pub fn of(session: &Session) -> Self {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { session: session.clone(), view: session.handle.view(), map: None, looks }
    }

    /// The next change, or look every 5 s; None when the incarnation has ended. Cancellation safe.
    pub async fn next(&mut self) -> Option<Seen> {
        let is_look = tokio::select! {
            biased;
            changed = self.view.changed() => {
                changed.ok()?;
                false
            }
            _ = self.looks.tick() => true,
        };
        let view = Arc::clone(&self.view.borrow_and_update());
        let leases: Vec<_> = view.peers.iter().map(|peer| (peer.lease.clone(), peer.lease_age.as_secs())).collect();
        let fleet = Fleet::of(self.session.names(), view.map.as_deref(), &leases);
        let moved = moved(self.session.incarnation(), &mut self.map, view.map.as_ref());
        Some(Seen { view, fleet, moved, is_look })
    }
}

/// What a member gained and gave away since the known slot map, if this is another.
fn moved(me: &Incarnation, known: &mut Option<Arc<SlotMap>>, next: Option<&Arc<SlotMap>>) -> Option<Moved> {
    let next = next.filter(|next| known.as_ref().is_none_or(|known| known.version != next.version))?;
    let before = known.replace(Arc::clone(next))?;
    Some(Moved::of(me, &before, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        map::{Content, Holding},
        member::Version,
        slot::SLOTS,
    };

    #[test]
    fn each_slot_map_is_compared_with_the_one_before_once() {
        let me = Incarnation::new("uid-a", "1");
        let map = |number, mine: usize| {
            let owner = |slot| (slot < mine).then(|| me.clone());
            let holdings = (0..=SLOTS).map(|slot| Holding { owner: owner(slot), epoch: 1 }).collect();
            let version = Version { uid: "map".into(), number };
            Arc::new(SlotMap { version, created_seconds: 0, content: Content { generation: number, holdings } })
        };
        let mut known = None;
        let mut gained =
            |map: Option<Arc<SlotMap>>| moved(&me, &mut known, map.as_ref()).map(|it| (it.gained, it.given));
        assert_eq!(gained(None), None);
        assert_eq!(gained(Some(map(5, 100))), None, "there is none before it");
        assert_eq!(gained(Some(map(5, 100))), None, "it is the same");
        assert_eq!(gained(Some(map(6, 130))), Some((30, 0)));
        assert_eq!(gained(None), None);
        assert_eq!(gained(Some(map(7, 120))), Some((0, 10)));
    }
}
