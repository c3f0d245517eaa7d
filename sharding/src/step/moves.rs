//! The map: making it, taking what is free, draining and giving what another should own (O-2, O-3, §5).
//!
//! Of this member's swaps at most one is under way. A swap whose answer is lost counts as given until the map has moved
//! past the version that it replaces: only then can it no longer land.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    model::{Effect, End, Failure, Handover, Member, Moves, Swap},
    reads::MapRequest,
};
use crate::{
    assignment::{Candidate, assign},
    map::{Content, Entry, SlotMap},
    member::Incarnation,
    timing::{Now, Timing},
};

/// Whom something is given to.
enum Receiver {
    Member(Incarnation),
    /// There is no other member: it is free.
    None,
}

impl Moves {
    pub(super) fn is_closed(&self, entry: Entry) -> bool {
        self.handover.as_ref().is_some_and(|it| it.entries.contains_key(&entry))
            || self.swap.as_ref().is_some_and(|it| it.gives.contains(&entry))
    }

    pub(super) fn owners(&self) -> BTreeSet<Incarnation> {
        let holdings = self.map.iter().flat_map(|map| &map.content.holdings);
        holdings.filter_map(|holding| holding.owner.clone()).collect()
    }

    pub(super) fn forget_map(&mut self) {
        self.map = None;
        self.handover = None;
        self.swap = None;
        self.must_read = true;
    }

    pub(super) fn drained(&mut self, drain: u64) {
        if let Some(handover) = self.handover.as_mut().filter(|it| it.drain == drain) {
            handover.drained = true;
        }
    }

    /// When something is due next, in `possible` time.
    pub(super) fn due(&self, timing: &Timing) -> Option<Duration> {
        let waits = [self.reading.as_ref().map(|request| request.sent), self.swap.as_ref().map(|swap| swap.sent)];
        waits.into_iter().flatten().map(|sent| sent + timing.attempt_timeout).min()
    }

    /// When waiting ends next, in `certain` time.
    pub(super) fn quiet_due(&self, timing: &Timing, now: Duration) -> Option<Duration> {
        let fresh = self.map.as_ref().is_some_and(|map| map.content.generation == 0);
        let granting = fresh.then_some(self.known_since + timing.lease_duration);
        let free = self.coordinator_free_since.map(|since| since + timing.lease_duration);
        [granting, free].into_iter().flatten().filter(|due| *due > now).min()
    }
}

impl Member {
    pub(super) fn read_map(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let timeout = self.setup.timing.attempt_timeout;
        if self.moves.reading.as_ref().is_some_and(|request| now.possible < request.sent + timeout) {
            return;
        }
        self.moves.must_read = false;
        let known = self.moves.map.as_ref().map(|map| map.version.number);
        let request = MapRequest { sent: now.possible, known };
        self.moves.reading = Some(request.clone());
        effects.push(Effect::ReadMap(request));
    }

    pub(super) fn map_read(&mut self, request: &MapRequest, answer: Result<Option<SlotMap>, Failure>, now: Now) {
        let waited_for = self.moves.reading.as_ref() == Some(request);
        let Ok(found) = answer else {
            // `reading` stays: it paces the next attempt. What an older one would have told, a newer one tells.
            self.moves.must_read |= waited_for;
            return;
        };
        if waited_for {
            self.moves.reading = None;
        }
        let known = request.known;
        let newest = self.moves.map.as_ref().map(|map| map.version.number);
        match found {
            Some(map) if known.is_some_and(|known| map.version.number < known) => self.end = Some(End::WentBack),
            Some(map) => {
                self.moves.read = self.moves.read.max(Some(request.sent));
                self.moves.absent = false;
                self.see_map(map, now);
            }
            // Made since the read was sent.
            None if newest != known => {}
            None => {
                self.moves.forget_map();
                self.moves.must_read = false;
                self.moves.absent = true;
            }
        }
    }

    /// Takes a version in unless a newer one is known. Versions of two maps are ordered too: one store numbers them.
    pub(super) fn see_map(&mut self, map: SlotMap, now: Now) {
        let known = self.moves.map.as_deref();
        if known.is_some_and(|known| known.version.number >= map.version.number) {
            return;
        }
        self.moves.absent = false;
        if known.is_none_or(|known| known.version.uid != map.version.uid) {
            self.moves.known_since = now.certain;
            self.moves.handover = None;
        }
        let settled = |swap: &Swap| swap.on.as_ref().is_none_or(|on| on.number < map.version.number);
        if self.moves.swap.as_ref().is_some_and(settled) {
            self.moves.swap = None;
        }
        let me = &self.setup.incarnation;
        if let Some(handover) = &mut self.moves.handover {
            handover.entries.retain(|entry, epoch| {
                map.content.holding(*entry).is_some_and(|it| it.owner.as_ref() == Some(me) && it.epoch == *epoch)
            });
            if handover.entries.is_empty() {
                self.moves.handover = None;
            }
        }
        let coordinator = map.content.holding(self.coordinator_entry()).is_some_and(|it| it.owner.as_ref() == Some(me));
        self.moves.coordinator_since = coordinator.then(|| self.moves.coordinator_since.unwrap_or(now.certain));
        self.moves.map = Some(Arc::new(map));
    }

    /// The watch told that the map went; one that was made since stays.
    pub(super) fn map_gone(&mut self, version: u64) {
        if self.moves.map.as_ref().is_some_and(|map| map.version.number <= version) {
            self.moves.forget_map();
        }
    }

    pub(super) fn map_written(&mut self, answer: Result<SlotMap, Failure>, now: Now) {
        match answer {
            Ok(map) => {
                let gave = self.moves.swap.as_ref().is_some_and(|swap| !swap.gives.is_empty());
                self.moves.handovers += u64::from(gave);
                self.see_map(map, now);
            }
            Err(_) => self.moves.must_read = true,
        }
    }

    /// Reads what must be read; then takes and gives.
    pub(super) fn move_slots(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let timeout = self.setup.timing.attempt_timeout;
        let overdue = self.moves.swap.as_ref().is_some_and(|swap| !swap.again && now.possible >= swap.sent + timeout);
        if self.moves.must_read || overdue || (self.moves.map.is_none() && !self.moves.absent) {
            if let Some(swap) = &mut self.moves.swap {
                swap.again = true;
            }
            self.read_map(now, effects);
        }
        let Some(map) = self.moves.map.clone() else { return self.make_map(now, effects) };
        if !self.others.listed {
            return;
        }
        let granting =
            map.content.generation > 0 || now.certain >= self.moves.known_since + self.setup.timing.lease_duration;
        if granting {
            let wanted = self.wanted(&map, now, effects);
            self.begin_handover(&map, &wanted, now, effects);
            self.swap(&map, &wanted, now, effects);
        }
        self.stop_if_done(&map);
    }

    fn make_map(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.moves.absent && !self.stopping && self.moves.swap.is_none() {
            self.moves.swap = Some(Swap { on: None, gives: BTreeSet::new(), sent: now.possible, again: false });
            effects.push(Effect::WriteMap { on: None, content: Content::free(self.setup.slots) });
        }
    }

    /// The desired owner of each entry; its present owner if this member does not decide about it now.
    fn wanted(&mut self, map: &SlotMap, now: Now, effects: &mut Vec<Effect>) -> Vec<Option<Incarnation>> {
        let candidates = self.candidates();
        let index: BTreeMap<&Incarnation, usize> =
            candidates.iter().enumerate().map(|(index, it)| (&it.incarnation, index)).collect();
        let slots = usize::from(self.setup.slots);
        let holdings = &map.content.holdings;
        let present: Vec<_> = holdings
            .iter()
            .take(slots)
            .map(|it| it.owner.as_ref().and_then(|owner| index.get(owner).copied()))
            .collect();
        let mut wanted: Vec<Option<Incarnation>> = assign(&present, &candidates)
            .into_iter()
            .map(|member| member.map(|it| candidates[it].incarnation.clone()))
            .collect();
        let coordinator = self.wanted_coordinator(map, &candidates, now, effects);
        wanted.push(coordinator);
        wanted
    }

    /// Members that may own slots, in the order of their Leases' names. This one counts by its own state,
    /// not by what its watch has shown so far: otherwise it would return at once what it was just assigned.
    fn candidates(&self) -> Vec<Candidate> {
        let me = &self.setup.incarnation;
        let others = self.others.candidates().filter(|seen| seen.lease.holder.as_ref() != Some(me));
        let mut able: Vec<(i64, &str, &Incarnation, &str)> = others
            .filter_map(|seen| {
                let lease = &seen.lease;
                Some((lease.created_seconds, &*lease.name, lease.holder.as_ref()?, lease.facts.template.as_str()))
            })
            .collect();
        if self.synced && !self.stopping {
            able.push((self.own.created_seconds, &self.setup.lease_name, me, &self.setup.template));
        }
        able.sort_by_key(|(_, name, ..)| *name);
        let youngest = able.iter().max_by_key(|(created, name, ..)| (*created, *name));
        let newest = youngest.map(|(.., template)| *template).unwrap_or_default();
        let candidate = |holder: &Incarnation, template: &str| Candidate {
            incarnation: holder.clone(),
            newest: template == newest,
        };
        able.iter().map(|(_, _, holder, template)| candidate(holder, template)).collect()
    }

    fn wanted_coordinator(
        &mut self,
        map: &SlotMap,
        candidates: &[Candidate],
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<Incarnation> {
        let (me, timing) = (self.setup.incarnation.clone(), self.setup.timing.clone());
        let owner = map.content.holding(self.coordinator_entry()).and_then(|it| it.owner.clone());
        let preferred = self.moves.preferred.as_ref().and_then(|name| self.others.seen.get(name));
        let preferred = preferred.and_then(|seen| seen.lease.holder.clone());
        let preferred = preferred.filter(|it| candidates.iter().any(|one| one.incarnation == *it));
        let any = candidates.iter().max_by_key(|it| it.newest).map(|it| it.incarnation.clone());
        match owner {
            Some(owner) if owner == me => {
                self.moves.coordinator_free_since = None;
                let settled =
                    self.moves.coordinator_since.is_some_and(|it| now.certain < it + timing.coordinator_tenure);
                match preferred {
                    _ if self.stopping => preferred.filter(|it| *it != me).or(any),
                    Some(other) if !settled => Some(other),
                    _ => Some(me),
                }
            }
            Some(owner) if !self.others.is_ended(&owner) => {
                self.moves.coordinator_free_since = None;
                Some(owner)
            }
            _ => {
                if self.moves.coordinator_free_since.is_none() {
                    self.moves.coordinator_free_since = Some(now.certain);
                    effects.push(Effect::Elect);
                }
                let since = self.moves.coordinator_free_since.unwrap_or(now.certain);
                // The election compares wall clocks and may take for ever; then anybody will do.
                let waited = now.certain >= since + timing.lease_duration;
                preferred.or(any.filter(|_| waited))
            }
        }
    }

    /// Closes what another should own, and has its work end.
    fn begin_handover(&mut self, map: &SlotMap, wanted: &[Option<Incarnation>], now: Now, effects: &mut Vec<Effect>) {
        let me = &self.setup.incarnation;
        let quiet = now.certain >= self.others.unchanged + self.setup.timing.debounce;
        if self.moves.handover.is_some() || self.moves.swap.is_some() || !(quiet || self.stopping) {
            return;
        }
        let gives: BTreeMap<Entry, i64> =
            map.owned_by(me).filter(|(entry, _)| self.receiver(*entry, wanted, now).is_some()).collect();
        if gives.is_empty() {
            return;
        }
        self.moves.drains += 1;
        effects.push(Effect::Drain(self.moves.drains, gives.keys().copied().collect()));
        self.moves.handover = Some(Handover { drain: self.moves.drains, entries: gives, drained: false });
    }

    /// Whom an entry of this member is given to; nothing where it is kept.
    fn receiver(&self, entry: Entry, wanted: &[Option<Incarnation>], now: Now) -> Option<Receiver> {
        let me = &self.setup.incarnation;
        let other = wanted.get(usize::from(entry.0)).cloned().flatten().filter(|it| it != me);
        let fresh = |it: &Incarnation| {
            let half = self.setup.timing.lease_duration / 2;
            self.others
                .candidates()
                .any(|seen| seen.lease.holder.as_ref() == Some(it) && now.certain < seen.since + half)
        };
        match other.filter(fresh) {
            Some(other) => Some(Receiver::Member(other)),
            None => self.stopping.then_some(Receiver::None),
        }
    }

    /// One swap: takes what is free or of the dead and wanted here, gives what was drained.
    fn swap(&mut self, map: &SlotMap, wanted: &[Option<Incarnation>], now: Now, effects: &mut Vec<Effect>) {
        let unsettled = |swap: &Swap| !swap.again || self.moves.reading.is_some();
        if self.moves.swap.as_ref().is_some_and(unsettled) {
            return;
        }
        let me = self.setup.incarnation.clone();
        let mut next = map.content.clone();
        for (entry, holding) in map.content.entries() {
            let free = holding.owner.as_ref().is_none_or(|owner| self.others.is_ended(owner));
            if free && !self.stopping && wanted.get(usize::from(entry.0)).cloned().flatten().as_ref() == Some(&me) {
                next.give(entry, Some(me.clone()), map.created_seconds);
            }
        }
        // What an earlier swap on this version may have given stays closed until the version is passed.
        let mut gives = self.moves.swap.take().map(|swap| swap.gives).unwrap_or_default();
        let mut handover = self.moves.handover.take();
        if let Some(drained) = handover.as_mut().filter(|it| it.drained) {
            // Entries without a receiver are open again.
            drained.entries.retain(|entry, _| self.receiver(*entry, wanted, now).is_some());
            for entry in drained.entries.keys() {
                let receiver = match self.receiver(*entry, wanted, now) {
                    Some(Receiver::Member(member)) => Some(member),
                    Some(Receiver::None) | None => None,
                };
                next.give(*entry, receiver, map.created_seconds);
                gives.insert(*entry);
            }
        }
        self.moves.handover = handover.filter(|it| !it.entries.is_empty());
        let again = !gives.is_empty();
        if next == map.content && !again {
            return;
        }
        next.count_change();
        let on = Some(map.version.clone());
        self.moves.swap = Some(Swap { on: on.clone(), gives, sent: now.possible, again: false });
        effects.push(Effect::WriteMap { on, content: next });
    }

    fn stop_if_done(&mut self, map: &SlotMap) {
        let owns = map.owned_by(&self.setup.incarnation).next().is_some();
        if self.stopping && !owns && self.moves.swap.is_none() {
            self.end = Some(End::Stopped);
        }
    }
}
