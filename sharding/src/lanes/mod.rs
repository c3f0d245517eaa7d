//! Lanes: the queue in front of a reconcile.
//!
//! A key waits at most once. A key that is being reconciled and changes meanwhile runs again after, never beside
//! itself. Keys are grouped into lanes (what shares a limit); a lane starts no more at once than its limit, which is read
//! when it starts one, and lanes with work and room take turns. Pure: the time is passed in.

pub mod rates;
pub mod runner;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

/// How soon a key should run. Who waits grows older: a key is overtaken by keys of higher priority only as long as they
/// came within its head start, so that nothing starves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// A user waits for it: a deletion, an edited spec.
    High,
    /// Something of it changed.
    Normal,
    /// It is looked at again to be sure: a gained slot, a changed setting.
    Low,
}

impl Priority {
    /// How much later than it came a key counts as having come.
    const fn head_start(self) -> Duration {
        match self {
            Self::High => Duration::ZERO,
            Self::Normal => Duration::from_secs(1),
            Self::Low => Duration::from_secs(10),
        }
    }
}

/// Order of keys in a lane: when a key counts as having come, and a number that no two have.
type Rank = (Instant, u64);

/// What a lane holds.
struct Lane<K> {
    waiting: BTreeMap<Rank, K>,
    running: usize,
    /// Whether the lane is in the ring of lanes that may start a key.
    in_ring: bool,
    /// It may start nothing before this: its rate is used up.
    resting: Option<Instant>,
}

impl<K> Default for Lane<K> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), running: 0, in_ring: false, resting: None }
    }
}

/// Where a key is.
struct Place<L> {
    lane: L,
    /// Since when it waits in its lane, and its rank there.
    queued: Option<(Rank, Instant)>,
    running: bool,
    /// It changed while it ran.
    again: Option<Priority>,
    /// When a timer will queue it.
    timer: Option<Instant>,
}

impl<L> Place<L> {
    fn new(lane: L) -> Self {
        Self { lane, queued: None, running: false, again: None, timer: None }
    }
}

/// A key that was taken from its lane.
#[derive(Debug, PartialEq, Eq)]
pub struct Started<K> {
    /// The key.
    pub key: K,
    /// Since when it waited.
    pub queued_at: Instant,
}

/// The queue: lanes named by `L` with keys `K`.
#[expect(clippy::struct_field_names, reason = "the queue consists of lanes")]
pub struct Lanes<L, K> {
    lanes: HashMap<L, Lane<K>>,
    ring: VecDeque<L>,
    places: HashMap<K, Place<L>>,
    /// One for each key at most.
    timers: BTreeSet<(Instant, K)>,
    rests: BinaryHeap<Reverse<(Instant, L)>>,
    /// Every waiting key by since when.
    ages: BTreeSet<(Instant, u64)>,
    running: usize,
    pushed: u64,
}

impl<L: Clone + Eq + Hash + Ord, K: Clone + Eq + Hash + Ord> Default for Lanes<L, K> {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            ring: VecDeque::new(),
            places: HashMap::new(),
            timers: BTreeSet::new(),
            rests: BinaryHeap::new(),
            ages: BTreeSet::new(),
            running: 0,
            pushed: 0,
        }
    }
}

impl<L: Clone + Eq + Hash + Ord, K: Clone + Eq + Hash + Ord> Lanes<L, K> {
    /// Queues a key now. Answers whether that changed anything.
    #[allow(clippy::needless_pass_by_value, reason = "a key is removed together with its lane")]
    pub fn push(&mut self, lane: L, key: K, priority: Priority, now: Instant) -> bool {
        let place = self.places.entry(key.clone()).or_insert_with(|| Place::new(lane.clone()));
        if let Some(at) = place.timer.take() {
            self.timers.remove(&(at, key.clone()));
        }
        if place.running {
            let more = place.again.is_none_or(|before| priority < before);
            if more {
                place.again = Some(priority);
            }
            return more;
        }
        self.pushed += 1;
        let rank = (now + priority.head_start(), self.pushed);
        let mut since = now;
        if let Some(((before, number), queued_at)) = place.queued {
            if before <= rank.0 {
                return false;
            }
            // It waits already, but now it should run sooner.
            since = queued_at;
            self.ages.remove(&(queued_at, number));
            if let Some(lane) = self.lanes.get_mut(&place.lane) {
                lane.waiting.remove(&(before, number));
            }
        }
        place.queued = Some((rank, since));
        let former = std::mem::replace(&mut place.lane, lane.clone());
        self.ages.insert((since, rank.1));
        self.lanes.entry(lane.clone()).or_default().waiting.insert(rank, key);
        self.admit(&lane);
        self.forget_lane_if_idle(&former);
        true
    }

    /// Queues a key at a time to come, unless it is queued or will be queued sooner.
    pub fn push_at(&mut self, lane: L, key: K, at: Instant) {
        let place = self.places.entry(key.clone()).or_insert_with(|| Place::new(lane));
        if place.queued.is_some() || place.again.is_some() || place.timer.is_some_and(|timer| timer <= at) {
            return;
        }
        if let Some(later) = place.timer.replace(at) {
            self.timers.remove(&(later, key.clone()));
        }
        self.timers.insert((at, key));
    }

    /// Takes the next key whose lane has room. `limit` says how many of a lane may run at once, `rest` until when a lane
    /// must rest before it starts another; where it says nothing, the key counts against the lane's rate.
    ///
    /// # Panics
    /// Never: a key that waits in a lane has a place.
    pub fn pop(
        &mut self,
        limit: impl Fn(&L) -> usize,
        mut rest: impl FnMut(&L) -> Option<Instant>,
    ) -> Option<Started<K>> {
        for _ in 0..self.ring.len() {
            let name = self.ring.pop_front()?;
            let lane = self.lanes.get_mut(&name)?;
            // It comes back into the ring when one of its keys ends or is queued, or when it has rested.
            lane.in_ring = false;
            if lane.running >= limit(&name).max(1) || lane.waiting.is_empty() || lane.resting.is_some() {
                continue;
            }
            if let Some(until) = rest(&name) {
                lane.resting = Some(until);
                self.rests.push(Reverse((until, name)));
                continue;
            }
            let Some((rank, key)) = lane.waiting.pop_first() else { continue };
            lane.running += 1;
            self.running += 1;
            if !lane.waiting.is_empty() {
                lane.in_ring = true;
                self.ring.push_back(name);
            }
            let place = self.places.get_mut(&key).expect("a waiting key has a place");
            place.running = true;
            let (_, queued_at) = place.queued.take().expect("a waiting key knows since when");
            self.ages.remove(&(queued_at, rank.1));
            return Some(Started { key, queued_at });
        }
        None
    }

    /// A key has ended. It is queued again at once if it changed meanwhile, else at `again_at` if that is given.
    pub fn finish(&mut self, key: &K, now: Instant, again_at: Option<Instant>) {
        let Some(place) = self.places.get_mut(key) else { return };
        let (lane_name, again) = (place.lane.clone(), place.again.take());
        place.running = false;
        self.running -= 1;
        if let Some(lane) = self.lanes.get_mut(&lane_name) {
            lane.running -= 1;
            self.admit(&lane_name);
        }
        if let Some(priority) = again {
            self.push(lane_name.clone(), key.clone(), priority, now);
        } else if let Some(at) = again_at {
            self.push_at(lane_name.clone(), key.clone(), at);
        }
        self.forget_if_idle(key, &lane_name);
    }

    /// Lets every lane that waits be looked at again: a limit was raised.
    pub fn limits_changed(&mut self) {
        let names: Vec<L> = self.lanes.keys().cloned().collect();
        for name in &names {
            if let Some(lane) = self.lanes.get_mut(name) {
                lane.resting = None;
            }
            self.admit(name);
        }
    }

    /// Queues the keys whose time has come, and lets lanes go on that have rested.
    pub fn expire(&mut self, now: Instant) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.timers.pop_first() else { break };
            if let Some(place) = self.places.get_mut(&key) {
                place.timer = None;
                let lane = place.lane.clone();
                self.push(lane, key, Priority::Normal, now);
            }
        }
        while let Some(Reverse((at, name))) = self.rests.peek().filter(|it| it.0.0 <= now).cloned() {
            self.rests.pop();
            if let Some(lane) = self.lanes.get_mut(&name).filter(|lane| lane.resting == Some(at)) {
                lane.resting = None;
                self.admit(&name);
            }
        }
    }

    /// When [`Lanes::expire`] has something to do next.
    pub fn next_timer(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|it| it.0);
        timer.into_iter().chain(self.rests.peek().map(|it| it.0.0)).min()
    }

    /// Keys that wait for their turn.
    pub fn depth(&self) -> usize {
        self.ages.len()
    }

    /// Keys that run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Lanes with keys that wait or run.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Since when the oldest waiting key waits.
    pub fn oldest(&self) -> Option<Instant> {
        self.ages.first().map(|(since, _)| *since)
    }

    fn admit(&mut self, name: &L) {
        if let Some(lane) = self.lanes.get_mut(name)
            && !lane.in_ring
            && lane.resting.is_none()
            && !lane.waiting.is_empty()
        {
            lane.in_ring = true;
            self.ring.push_back(name.clone());
        }
    }

    /// Keeps memory to what waits, runs or has a timer.
    fn forget_if_idle(&mut self, key: &K, lane: &L) {
        let idle = |place: &Place<L>| place.queued.is_none() && !place.running && place.timer.is_none();
        if self.places.get(key).is_some_and(idle) {
            self.places.remove(key);
        }
        self.forget_lane_if_idle(lane);
    }

    fn forget_lane_if_idle(&mut self, lane: &L) {
        if self.lanes.get(lane).is_some_and(|it| it.waiting.is_empty() && it.running == 0) {
            self.lanes.remove(lane);
            self.ring.retain(|name| name != lane);
        }
    }
}

#[cfg(test)]
mod flood;
#[cfg(test)]
mod tests;
