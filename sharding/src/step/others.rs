//! The other members' Leases: which are alive, which are permanently dead, and fencing (M-3).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    model::{Effect, Failure, Member, Others, Seen},
    reads::LeasesRequest,
};
use crate::{
    member::{Incarnation, LeaseRecord, Readiness},
    timing::{Now, Timing},
};

impl Others {
    pub(super) fn listed(&mut self, leases: Vec<LeaseRecord>, now: Now) {
        let names: BTreeSet<Arc<str>> = leases.iter().map(|lease| Arc::clone(&lease.name)).collect();
        let gone: Vec<_> = self.seen.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in &gone {
            self.gone(name, now);
        }
        for lease in leases {
            self.seen(lease, now);
        }
        self.listed = true;
    }

    pub(super) fn seen(&mut self, lease: LeaseRecord, now: Now) {
        if let Some(ended) = lease.ended.clone().filter(|it| lease.holder.as_ref() != Some(it)) {
            self.ended.insert(ended);
        }
        let known = self.seen.get(&lease.name);
        // Versions of two Leases of one name are ordered too: one store numbers them.
        if known.is_some_and(|it| it.lease.version.number >= lease.version.number) {
            return;
        }
        let facts = |lease: &LeaseRecord| (lease.holder.clone(), lease.facts.readiness);
        if known.is_none_or(|it| facts(&it.lease) != facts(&lease)) {
            self.unchanged = now.certain;
        }
        self.seen.insert(Arc::clone(&lease.name), Seen { lease, since: now.certain, fenced_at: None });
    }

    pub(super) fn gone(&mut self, name: &str, now: Now) {
        self.went += 1;
        if self.seen.remove(name).is_some() {
            self.unchanged = now.certain;
        }
    }

    /// Answer to a fence: only a success makes the incarnation dead.
    pub(super) fn fenced(&mut self, name: &Arc<str>, answer: Result<LeaseRecord, Failure>, now: Now) {
        if let Some(seen) = self.seen.get_mut(name)
            && matches!(answer, Err(Failure::Conflict | Failure::NotFound))
        {
            // It is at a version that the watch has not told of.
            seen.since = now.certain;
        }
        if let Ok(lease) = answer {
            self.seen(lease, now);
        }
    }

    pub(super) fn count_afresh(&mut self, now: Now) {
        self.seen.values_mut().for_each(|seen| seen.since = now.certain);
        self.absent.values_mut().for_each(|since| *since = since.map(|_| now.certain));
    }

    /// Answer to a consistent list: whom it was asked for and does not name can never renew again, and acts no longer
    /// than a right lasts from when the list was served, which was before its answer came. (That a watch does not show
    /// a Lease proves nothing: it may be silent.)
    pub(super) fn leases_read(&mut self, request: &LeasesRequest, answer: Result<Vec<LeaseRecord>, Failure>, now: Now) {
        // `listing` stays where there is no answer: it paces the next.
        let Ok(leases) = answer else { return };
        if self.listing.as_ref() == Some(request) {
            self.listing = None;
        }
        let holders: BTreeSet<&Incarnation> = leases.iter().filter_map(|lease| lease.holder.as_ref()).collect();
        for (owner, since) in &mut self.absent {
            if request.missing.contains(owner) && !holders.contains(owner) && since.is_none() {
                *since = Some(now.certain);
            }
        }
        // One that this does not know of may have gone since: then the next list tells whether it is there.
        let overtaken = self.went != request.went;
        for lease in leases {
            if !overtaken || self.seen.contains_key(&lease.name) {
                self.seen(lease, now);
            }
        }
    }

    pub(super) fn is_ended(&self, incarnation: &Incarnation) -> bool {
        self.ended.contains(incarnation)
    }

    /// When something is due next, in `certain` time.
    pub(super) fn due(&self, timing: &Timing, me: &Incarnation, now: Duration) -> Option<Duration> {
        let held = |seen: &&Seen| seen.lease.holder.as_ref().is_some_and(|it| it != me);
        let fences = self.seen.values().filter(held).map(|seen| seen.since + timing.lease_duration);
        let quiet = self.unchanged + timing.debounce;
        let absences = self.absent.values().flatten().map(|since| *since + timing.lease_duration);
        fences.chain(absences).chain([quiet]).filter(|due| *due > now).min()
    }

    /// Members that may own slots, by name, with their Leases.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &Seen> {
        self.seen.values().filter(|seen| {
            let holder = seen.lease.holder.as_ref();
            holder.is_some_and(|it| !self.ended.contains(it)) && seen.lease.facts.readiness == Readiness::Ready
        })
    }
}

impl Member {
    /// Fences whose Lease stayed the same for its duration; notes whose Lease is gone; forgets the dead that own nothing.
    pub(super) fn judge_others(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !self.others.listed {
            return;
        }
        let (me, timing) = (self.setup.incarnation.clone(), self.setup.timing.clone());
        let (wait, again) = (timing.lease_duration, timing.attempt_timeout);
        let owners = self.moves.owners();
        self.note_absent(&owners, now, effects);
        for seen in self.others.seen.values_mut() {
            // One that is not answered is sent again after a while: only one of them can succeed.
            let pending = seen.fenced_at.is_some_and(|at| now.certain < at + again);
            let overdue = now.certain >= seen.since + wait && !pending;
            match &seen.lease.holder {
                Some(holder) if *holder != me && overdue => {
                    seen.fenced_at = Some(now.certain);
                    effects.push(Effect::Fence(Box::new(seen.lease.clone())));
                }
                None if overdue && seen.lease.ended.as_ref().is_none_or(|it| !owners.contains(it)) => {
                    seen.fenced_at = Some(now.certain);
                    effects.push(Effect::DeleteLease(Arc::clone(&seen.lease.name), seen.lease.version.clone()));
                }
                _ => {}
            }
        }
        let Others { ended, seen, .. } = &mut self.others;
        let named: BTreeSet<_> = seen.values().filter_map(|it| it.lease.ended.clone()).collect();
        ended.retain(|it| owners.contains(it) || named.contains(it));
    }

    /// An owner without a Lease is dead once a consistent list confirmed that, and the duration has passed since.
    fn note_absent(&mut self, owners: &BTreeSet<Incarnation>, now: Now, effects: &mut Vec<Effect>) {
        let timing = &self.setup.timing;
        let me = &self.setup.incarnation;
        let Others { seen, ended, absent, listing, went, .. } = &mut self.others;
        let holders: BTreeSet<&Incarnation> = seen.values().filter_map(|it| it.lease.holder.as_ref()).collect();
        let missing = |it: &&Incarnation| *it != me && !holders.contains(*it) && !ended.contains(*it);
        let missing: BTreeSet<Incarnation> = owners.iter().filter(missing).cloned().collect();
        absent.retain(|it, _| missing.contains(it));
        for owner in missing {
            if absent
                .entry(owner.clone())
                .or_default()
                .is_some_and(|since| now.certain >= since + timing.lease_duration)
            {
                absent.remove(&owner);
                ended.insert(owner);
            }
        }
        let unconfirmed: BTreeSet<_> =
            absent.iter().filter(|(_, since)| since.is_none()).map(|(it, _)| it.clone()).collect();
        let free = listing.as_ref().is_none_or(|request| now.certain >= request.sent + timing.attempt_timeout);
        if !unconfirmed.is_empty() && free {
            let request = LeasesRequest { sent: now.certain, missing: unconfirmed, went: *went };
            *listing = Some(request.clone());
            effects.push(Effect::ReadLeases(request));
        }
    }
}
