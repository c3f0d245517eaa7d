//! A queue of keys that loses nothing, whatever becomes of the member meanwhile.
//!
//! What a controller must do when it may not act, when its work is cancelled or fails, and when a slot that was about to go
//! opens again, is done here: a key stays until its work has ended well, or until its slot is lost and its objects with it.
//! Where a slot comes, the lists of its objects bring the keys.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    gate::{Gate, Permit, Refusal, Scope},
    slot::SlotSet,
};

/// Wait before a member that may not act asks again whether it may.
const WAIT_FOR_RIGHT: Duration = Duration::from_secs(1);
/// Shortest and longest wait after work that failed, doubled each time, with jitter.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_mins(1);

/// Where a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Its turn comes.
    Waiting,
    /// It is worked on.
    Working {
        /// It was pushed since.
        again: bool,
        /// Its slot was lost since.
        dropped: bool,
    },
    /// Its slot is not open, or not listed: it is looked at again when that changes.
    Parked,
    /// Its turn comes at this time.
    Later(Instant),
}

struct State<K> {
    places: BTreeMap<K, (Scope, Place)>,
    turns: VecDeque<K>,
    retries: BTreeMap<K, ExponentialBackoff>,
    /// Slots whose objects are all known.
    synced: SlotSet,
}

/// A queue of keys, each of which is there once. Cheap to clone.
pub struct Queue<K> {
    gate: Gate,
    state: Arc<Mutex<State<K>>>,
    pushed: Arc<Notify>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { gate: self.gate.clone(), state: Arc::clone(&self.state), pushed: Arc::clone(&self.pushed) }
    }
}

/// What the work on a key came to.
enum Ended {
    Well,
    Failed,
    /// It had to end before it was done.
    Cancelled,
}

impl<K: Clone + Ord> Queue<K> {
    /// An empty queue of a member.
    pub fn new(gate: Gate) -> Self {
        let state =
            State { places: BTreeMap::new(), turns: VecDeque::new(), retries: BTreeMap::new(), synced: SlotSet::NONE };
        Self { gate, state: Arc::new(Mutex::new(state)), pushed: Arc::default() }
    }

    /// Asks for work on a key. Only of objects that are known now: what is lost is forgotten by [`Self::dropped`].
    pub fn push(&self, scope: Scope, key: K) {
        self.state().push(scope, key);
        self.pushed.notify_one();
    }

    /// Everything of these slots, and of no others, is listed: of every kind that the work reads. Work begins on these only.
    pub fn synced(&self, slots: SlotSet) {
        let mut state = self.state();
        state.synced = slots;
        state.unpark(|_| true);
        drop(state);
        self.pushed.notify_one();
    }

    /// These slots are lost: their keys are forgotten.
    pub fn dropped(&self, slots: &SlotSet) {
        self.state().drop_slots(slots);
    }

    /// Keys that wait or are worked on.
    pub fn len(&self) -> usize {
        self.state().places.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.state().places.is_empty()
    }

    /// Works on what is pushed, on so many keys at once at most and never twice at once on one, for ever.
    ///
    /// Work that must end, since the slot is lost or was drained for too long, is dropped at its next await.
    pub async fn run<R, E>(&self, at_once: usize, work: impl Fn(K) -> R)
    where
        R: Future<Output = Result<(), E>>,
        E: Display,
    {
        let mut running = FuturesUnordered::new();
        let mut opening = self.gate.opening();
        loop {
            // Seen before the gate is asked: a change in between is not missed.
            let open = opening.borrow_and_update().clone();
            self.state().unpark(|scope| open.entries.contains_key(&scope.entry()));
            while running.len() < at_once.max(1)
                && let Some((key, permit)) = self.next()
            {
                running.push(one(permit, key.clone(), work(key)));
            }
            let wake = self.state().wake_at().filter(|_| running.len() < at_once.max(1));
            tokio::select! {
                Some((key, ended)) = running.next() => self.state().ended(&key, &ended),
                () = self.pushed.notified() => {}
                changed = opening.changed() => if changed.is_err() { return },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// The next key on which work may begin.
    fn next(&self) -> Option<(K, Permit)> {
        let mut state = self.state();
        state.due(Instant::now());
        while let Some(key) = state.turns.pop_front() {
            // Forgotten since.
            let Some((scope, Place::Waiting)) = state.places.get(&key).copied() else { continue };
            let place = match self.gate.admit(scope) {
                _ if !state.is_synced(scope) => Place::Parked,
                Ok(permit) => {
                    state.places.insert(key.clone(), (scope, Place::Working { again: false, dropped: false }));
                    return Some((key, permit));
                }
                Err(Refusal::NotOwner) => Place::Parked,
                Err(Refusal::Suspended) => Place::Later(Instant::now() + WAIT_FOR_RIGHT),
            };
            state.places.insert(key, (scope, place));
        }
        None
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn one<K, E: Display>(permit: Permit, key: K, work: impl Future<Output = Result<(), E>>) -> (K, Ended) {
    let ended = tokio::select! {
        biased;
        () = permit.cancelled() => Ended::Cancelled,
        done = work => match done {
            Ok(()) => Ended::Well,
            Err(error) => {
                tracing::warn!(%error, "work failed, will be retried");
                Ended::Failed
            }
        },
    };
    (key, ended)
}

impl<K: Clone + Ord> State<K> {
    fn push(&mut self, scope: Scope, key: K) {
        match self.places.get_mut(&key) {
            Some((_, Place::Working { again, .. })) => *again = true,
            Some((_, Place::Waiting)) => {}
            _ => {
                self.places.insert(key.clone(), (scope, Place::Waiting));
                self.turns.push_back(key);
            }
        }
    }

    fn is_synced(&self, scope: Scope) -> bool {
        match scope {
            Scope::Slot(slot) => self.synced.contains(slot),
            Scope::Coordinator => true,
        }
    }

    fn wait(&mut self, keys: Vec<K>) {
        for key in keys {
            if let Some((_, place)) = self.places.get_mut(&key) {
                *place = Place::Waiting;
            }
            self.turns.push_back(key);
        }
    }

    fn unpark(&mut self, wanted: impl Fn(Scope) -> bool) {
        let parked = self.places.iter().filter(|(_, (scope, place))| *place == Place::Parked && wanted(*scope));
        let keys = parked.map(|(key, _)| key.clone()).collect();
        self.wait(keys);
    }

    fn due(&mut self, now: Instant) {
        let due = self.places.iter().filter(|(_, (_, place))| matches!(place, Place::Later(at) if *at <= now));
        let keys = due.map(|(key, _)| key.clone()).collect();
        self.wait(keys);
    }

    fn wake_at(&self) -> Option<Instant> {
        let later = self.places.values().filter_map(|(_, place)| match place {
            Place::Later(at) => Some(*at),
            _ => None,
        });
        later.min()
    }

    fn drop_slots(&mut self, slots: &SlotSet) {
        self.synced = self.synced.difference(slots);
        let lost = |scope: &Scope| matches!(scope, Scope::Slot(slot) if slots.contains(*slot));
        let mut forgotten = Vec::new();
        for (key, (_, place)) in self.places.iter_mut().filter(|(_, (scope, _))| lost(scope)) {
            if let Place::Working { again, dropped } = place {
                (*again, *dropped) = (false, true);
            } else {
                forgotten.push(key.clone());
            }
        }
        for key in forgotten {
            self.places.remove(&key);
            self.retries.remove(&key);
        }
    }

    fn ended(&mut self, key: &K, ended: &Ended) {
        let Some((_, Place::Working { again, dropped })) = self.places.get(key).copied() else { return };
        let place = match ended {
            _ if again => Some(Place::Waiting),
            Ended::Cancelled if !dropped => Some(Place::Waiting),
            Ended::Failed if !dropped => Some(Place::Later(Instant::now() + self.next_retry(key))),
            Ended::Well | Ended::Cancelled | Ended::Failed => None,
        };
        if !matches!(ended, Ended::Failed) {
            self.retries.remove(key);
        }
        match place {
            None => {
                self.places.remove(key);
                self.retries.remove(key);
            }
            Some(place) => {
                if let Some((_, known)) = self.places.get_mut(key) {
                    *known = place;
                }
                self.turns.extend((place == Place::Waiting).then(|| key.clone()));
            }
        }
    }

    fn next_retry(&mut self, key: &K) -> Duration {
        let waits = self.retries.entry(key.clone()).or_insert_with(|| {
            ExponentialBuilder::default()
                .with_min_delay(FIRST_RETRY)
                .with_max_delay(LAST_RETRY)
                .without_max_times()
                .with_jitter()
                .build()
        });
        waits.next().unwrap_or(LAST_RETRY)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
