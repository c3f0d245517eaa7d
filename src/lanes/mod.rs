//! Lanes: the queue in front of a reconcile.
//!
//! A key waits at most once. A key that is being reconciled and changes meanwhile runs again after, never beside
//! itself. Keys are grouped into lanes (a bench's sites); a lane starts no more at once than its limit, which is read
//! when it starts one, and lanes with work and room take turns. Pure: the time is passed in.

pub mod runner;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    hash::Hash,
    time::Instant,
};

/// What a lane holds.
struct Lane<K> {
    waiting: VecDeque<K>,
    running: usize,
    /// Whether the lane is in the ring of lanes that may start a key.
    in_ring: bool,
}

impl<K> Default for Lane<K> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), running: 0, in_ring: false }
    }
}

/// Where a key is.
struct Place<L> {
    lane: L,
    /// Since when it waits in its lane.
    queued_at: Option<Instant>,
    running: bool,
    /// It changed while it ran.
    again: bool,
    /// When a timer will queue it. An entry of the heap counts only while it equals this.
    timer: Option<Instant>,
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
#[expect(clippy::struct_field_names, reason = "lanes are what it is made of")]
pub struct Lanes<L, K> {
    lanes: HashMap<L, Lane<K>>,
    ring: VecDeque<L>,
    places: HashMap<K, Place<L>>,
    timers: BinaryHeap<Reverse<(Instant, K)>>,
    running: usize,
}

impl<L: Clone + Eq + Hash, K: Clone + Eq + Hash + Ord> Default for Lanes<L, K> {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            ring: VecDeque::new(),
            places: HashMap::new(),
            timers: BinaryHeap::new(),
            running: 0,
        }
    }
}

impl<L: Clone + Eq + Hash, K: Clone + Eq + Hash + Ord> Lanes<L, K> {
    /// Queues a key now. Answers whether that changed anything.
    #[allow(clippy::needless_pass_by_value, reason = "a key is given away together with its lane")]
    pub fn push(&mut self, lane: L, key: K, now: Instant) -> bool {
        let place = self.places.entry(key.clone()).or_insert_with(|| Place {
            lane: lane.clone(),
            queued_at: None,
            running: false,
            again: false,
            timer: None,
        });
        place.timer = None;
        if place.queued_at.is_some() || (place.running && place.again) {
            return false;
        }
        if place.running {
            place.again = true;
            return true;
        }
        place.queued_at = Some(now);
        place.lane = lane.clone();
        self.enqueue(&lane, key);
        true
    }

    /// Queues a key at a time to come, unless it is queued or will be queued sooner.
    pub fn push_at(&mut self, lane: L, key: K, at: Instant) {
        let place = self.places.entry(key.clone()).or_insert_with(|| Place {
            lane,
            queued_at: None,
            running: false,
            again: false,
            timer: None,
        });
        if place.queued_at.is_some() || place.again || place.timer.is_some_and(|timer| timer <= at) {
            return;
        }
        place.timer = Some(at);
        self.timers.push(Reverse((at, key)));
    }

    /// Takes the next key whose lane has room. `limit` says how many of a lane may run at once.
    ///
    /// # Panics
    /// Never: a key that waits in a lane has a place.
    pub fn pop(&mut self, limit: impl Fn(&L) -> usize) -> Option<Started<K>> {
        for _ in 0..self.ring.len() {
            let name = self.ring.pop_front()?;
            let lane = self.lanes.get_mut(&name)?;
            if lane.running >= limit(&name).max(1) {
                // It comes back into the ring when one of its keys ends or is queued.
                lane.in_ring = false;
                continue;
            }
            let Some(key) = lane.waiting.pop_front() else {
                lane.in_ring = false;
                continue;
            };
            lane.running += 1;
            self.running += 1;
            if lane.waiting.is_empty() {
                lane.in_ring = false;
            } else {
                self.ring.push_back(name);
            }
            let place = self.places.get_mut(&key).expect("a waiting key has a place");
            place.running = true;
            let queued_at = place.queued_at.take().expect("a waiting key knows since when");
            return Some(Started { key, queued_at });
        }
        None
    }

    /// A key has ended. It is queued again at once if it changed meanwhile, else at `again_at` if that is given.
    pub fn finish(&mut self, key: &K, now: Instant, again_at: Option<Instant>) {
        let Some(place) = self.places.get_mut(key) else { return };
        let (lane_name, again) = (place.lane.clone(), place.again);
        place.running = false;
        place.again = false;
        self.running -= 1;
        if let Some(lane) = self.lanes.get_mut(&lane_name) {
            lane.running -= 1;
            self.admit(&lane_name);
        }
        if again {
            self.push(lane_name.clone(), key.clone(), now);
        } else if let Some(at) = again_at {
            self.push_at(lane_name.clone(), key.clone(), at);
        }
        self.forget_if_idle(key, &lane_name);
    }

    /// Lets every lane that waits be looked at again: a limit was raised.
    pub fn limits_changed(&mut self) {
        let names: Vec<L> = self.lanes.keys().cloned().collect();
        for name in &names {
            self.admit(name);
        }
    }

    /// Queues the keys whose time has come.
    pub fn expire(&mut self, now: Instant) {
        while let Some(Reverse((at, key))) = self.timers.peek().cloned() {
            if at > now {
                return;
            }
            self.timers.pop();
            let due = self.places.get(&key).filter(|place| place.timer == Some(at)).map(|place| place.lane.clone());
            if let Some(lane) = due {
                self.push(lane, key, now);
            }
        }
    }

    /// When [`Lanes::expire`] has something to do next.
    pub fn next_timer(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, key))) = self.timers.peek() {
            if self.places.get(key).is_some_and(|place| place.timer == Some(*at)) {
                return Some(*at);
            }
            self.timers.pop();
        }
        None
    }

    /// Keys that wait for their turn.
    pub fn depth(&self) -> usize {
        self.lanes.values().map(|lane| lane.waiting.len()).sum()
    }

    /// Keys that run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Since when the oldest waiting key waits.
    pub fn oldest(&self) -> Option<Instant> {
        let heads = self.lanes.values().filter_map(|lane| lane.waiting.front());
        heads.filter_map(|key| self.places.get(key)?.queued_at).min()
    }

    fn enqueue(&mut self, lane: &L, key: K) {
        self.lanes.entry(lane.clone()).or_default().waiting.push_back(key);
        self.admit(lane);
    }

    fn admit(&mut self, name: &L) {
        if let Some(lane) = self.lanes.get_mut(name)
            && !lane.in_ring
            && !lane.waiting.is_empty()
        {
            lane.in_ring = true;
            self.ring.push_back(name.clone());
        }
    }

    /// Keeps memory to what waits, runs or has a timer.
    fn forget_if_idle(&mut self, key: &K, lane: &L) {
        let idle = |place: &Place<L>| place.queued_at.is_none() && !place.running && place.timer.is_none();
        if self.places.get(key).is_some_and(idle) {
            self.places.remove(key);
        }
        if self.lanes.get(lane).is_some_and(|it| it.waiting.is_empty() && it.running == 0) {
            self.lanes.remove(lane);
            self.ring.retain(|name| name != lane);
        }
    }
}

#[cfg(test)]
mod tests;
