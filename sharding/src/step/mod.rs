//! The protocol of one member as a function: `(state, input, now) → (state, effects)`.
//!
//! Pure: no client, no clock, no randomness. [`crate::runtime`] executes the effects and passes their responses back as inputs;
//! tests pass them in every order. The rules (M-1 to M-4, O-1 to O-5) are in `PROTOCOL.md`.
//!
//! | file | owns |
//! |---|---|
//! | `model.rs` | state, inputs and effects of a member: data |
//! | `own.rs` | this member's Lease: joining, renewing, lost responses (M-1, M-2, M-4) |
//! | `others.rs` | the other members' Leases: detecting dead members, fencing (M-3) |
//! | `moves.rs` | the map: creating it, taking over, draining, handing over (O-2, O-3, §5) |
//! | `reads.rs` | matching of read responses to their requests |

mod model;
mod moves;
mod others;
mod own;
mod reads;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use model::{Moves, Others, Own};

use crate::{
    map::{Entry, SlotMap},
    member::{Facts, Incarnation, LeaseRecord, Readiness},
    timing::Now,
};

pub use model::{Effect, End, Failure, Handover, Input, Member, Setup};
pub use reads::{LeaseRequest, LeasesRequest, MapRequest};

impl Member {
    /// A member that has not joined yet.
    pub fn new(setup: Setup) -> Self {
        Self {
            setup: Arc::new(setup),
            own: Own::default(),
            others: Others::default(),
            moves: Moves::default(),
            synced: false,
            stopping: false,
            end: None,
        }
    }

    /// Processes an input and returns the effects.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.end.is_some() {
            return effects;
        }
        // What was counted while this member itself did not act counts for nothing: an outage of the API server must
        // not end in mutual fencing (M-3).
        let acted = self.acts(now);
        self.handle(input, now);
        if self.others.is_ended(&self.setup.incarnation) {
            self.end = Some(End::Fenced);
        }
        if !acted && self.acts(now) {
            self.others.count_afresh(now);
        }
        if self.end.is_none() {
            self.advance(now, &mut effects);
        }
        if let Some(end) = self.end {
            effects.push(Effect::End(end));
        }
        effects
    }

    fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Tick => {}
            Input::Synced => self.synced = true,
            Input::Stop => self.stopping = true,
            Input::Renewed(attempt, answer) => self.renewed(attempt, answer),
            Input::LeaseRead(request, answer) => self.lease_read(&request, answer, now),
            Input::Fenced(name, answer) => self.others.fenced(&name, answer, now),
            Input::LeasesRead(request, answer) => self.others.leases_read(&request, answer, now),
            Input::LeasesListed(leases) => self.others.listed(leases, now),
            Input::LeaseSeen(lease) => self.others.seen(lease, now),
            Input::LeaseGone(name) => self.others.gone(&name, now),
            Input::MapRead(request, answer) => self.map_read(&request, answer, now),
            Input::MapWritten(answer) => self.map_written(answer, now),
            Input::MapSeen(map) => self.see_map(map, now),
            Input::MapGone(version) => self.map_gone(version),
            Input::Drained(drain) => self.moves.drained(drain),
            Input::Preferred(name) => self.moves.preferred = name,
        }
    }

    fn advance(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.stopping && !self.own.joined {
            // It owns nothing. A Lease that a renewal on its way may yet make is fenced by the others in its time.
            self.end = Some(End::Stopped);
            return;
        }
        self.keep_lease(now, effects);
        if self.own.joined && self.moves.read.is_none() {
            self.read_map(now, effects);
        }
        if self.own.joined && self.acts_but_for_map(now) {
            self.judge_others(now, effects);
            self.move_slots(now, effects);
        }
    }

    /// Until when this member may act, in `possible` time: A after the earlier of the send times of its last successful renewal
    /// and its last successful read of the map (M-2).
    pub fn right_until(&self) -> Option<Duration> {
        let renewed = self.own.renewed?;
        let read = self.moves.read?;
        Some(renewed.min(read) + self.setup.timing.right())
    }

    /// Whether this member may act now.
    pub fn acts(&self, now: Now) -> bool {
        self.end.is_none() && self.own.joined && self.right_until().is_some_and(|until| now.possible < until)
    }

    /// Like [`Member::acts`], before there was a map to read.
    fn acts_but_for_map(&self, now: Now) -> bool {
        let renewed = self.own.renewed.is_some_and(|sent| now.possible < sent + self.setup.timing.right());
        renewed && (self.moves.map.is_none() || self.acts(now))
    }

    /// Entries on which work may start, with their epochs, while [`Member::acts`].
    pub fn open(&self) -> Vec<(Entry, i64)> {
        let Some(map) = self.moves.map.as_ref().filter(|_| self.end.is_none() && self.own.joined) else {
            return Vec::new();
        };
        map.owned_by(&self.setup.incarnation).filter(|(entry, _)| !self.moves.is_closed(*entry)).collect()
    }

    /// The newest known map.
    pub fn map(&self) -> Option<&Arc<SlotMap>> {
        self.moves.map.as_ref()
    }

    /// Newest known Leases of all members, with the time since when, in `certain` time.
    pub fn members(&self) -> impl Iterator<Item = (&LeaseRecord, Duration)> {
        self.others.seen.values().map(|seen| (&seen.lease, seen.since))
    }

    /// This member.
    pub fn incarnation(&self) -> &Incarnation {
        &self.setup.incarnation
    }

    /// Whether it holds its Lease.
    pub fn joined(&self) -> bool {
        self.own.joined
    }

    /// Report of this member, written into its Lease.
    pub fn facts(&self) -> Facts {
        let readiness = match (self.stopping, self.synced) {
            (true, _) => Readiness::Leaving,
            (false, true) => Readiness::Ready,
            (false, false) => Readiness::Joining,
        };
        let generation = self.moves.map.as_ref().map_or(0, |map| map.content.generation);
        Facts {
            readiness,
            template: self.setup.template.clone(),
            generation,
            handovers: self.moves.handovers,
            objects: 0,
        }
    }

    /// Entries that are being handed over.
    pub fn handover(&self) -> Option<&Handover> {
        self.moves.handover.as_ref()
    }

    /// The coordinator's entry of the map.
    pub fn coordinator_entry(&self) -> Entry {
        Entry(self.setup.slots)
    }

    /// How long this member may wait for an input before it needs a time input, in `certain` time.
    pub fn next_tick(&self, now: Now) -> Duration {
        let timing = &self.setup.timing;
        let mut wait = timing.renew_interval.min(timing.attempt_timeout);
        let own = [self.own.due(timing), self.moves.due(timing)].map(|due| (due, now.possible));
        let others =
            [self.others.due(timing, &self.setup.incarnation, now.certain), self.moves.quiet_due(timing, now.certain)];
        let dues = own.into_iter().chain(others.map(|due| (due, now.certain)));
        // What is overdue already waits for an answer, not for the time.
        for left in dues.filter_map(|(due, now)| due?.checked_sub(now)).filter(|left| !left.is_zero()) {
            wait = wait.min(left);
        }
        wait
    }
}
