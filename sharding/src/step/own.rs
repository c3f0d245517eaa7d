//! This member's own Lease (M-1, M-2, M-4).
//!
//! A renewal is a compare-and-swap that carries its attempt's number. An answer that is missing or a conflict decides
//! nothing: the Lease is read, and judged by what it holds. A renewal that is answered late still counts, from when it
//! was sent.

use std::time::Duration;

use super::{
    model::{Attempt, Effect, End, Failure, Former, Member, Own},
    reads::LeaseRequest,
};
use crate::{
    member::{Incarnation, LeaseRecord, Version},
    timing::{Now, Timing},
};

impl Own {
    /// When something is due next, in `possible` time.
    pub(super) fn due(&self, timing: &Timing) -> Option<Duration> {
        let unanswered = self.attempts.iter().filter(|it| it.waiting).map(|it| it.sent);
        let answers =
            unanswered.chain(self.reading.as_ref().map(|it| it.sent)).map(|sent| sent + timing.attempt_timeout);
        answers.chain([self.next]).min()
    }

    fn adopt(&mut self, lease: LeaseRecord) {
        self.created_seconds = lease.created_seconds;
        if let Some(attempt) = self.attempts.iter().find(|it| it.number == lease.attempt) {
            self.renewed = self.renewed.max(Some(attempt.sent));
            let sent = attempt.sent;
            self.attempts.retain(|it| it.sent > sent);
            self.joined = true;
        }
        self.version = Some(lease.version);
    }
}

impl Member {
    /// Answer to a renewal, however late.
    pub(super) fn renewed(&mut self, number: u64, answer: Result<LeaseRecord, Failure>) {
        if let Some(attempt) = self.own.attempts.iter_mut().find(|it| it.number == number) {
            attempt.waiting = false;
        }
        match answer {
            Ok(lease) if self.own.version.as_ref().is_none_or(|known| is_newer(&lease.version, known)) => {
                self.own.adopt(lease);
            }
            // A newer answer overtook it; when it was sent counts all the same, if nothing was fenced since.
            Ok(_) => {}
            Err(failure) => {
                if !self.own.joined && failure != Failure::Unknown {
                    // It did not happen: there is nothing that could be undone.
                    self.own.attempts.retain(|it| it.number != number);
                }
                self.own.must_read = true;
            }
        }
    }

    /// The Lease as it is: who holds it, and which attempt wrote it.
    pub(super) fn lease_read(
        &mut self,
        request: &LeaseRequest,
        answer: Result<Option<LeaseRecord>, Failure>,
        now: Now,
    ) {
        let waited_for = self.own.reading.as_ref() == Some(request);
        let Ok(found) = answer else {
            // `reading` stays: it paces the next attempt. What an older one would have told, a newer one tells.
            self.own.must_read |= waited_for;
            return;
        };
        if waited_for {
            self.own.reading = None;
            self.own.must_read = false;
        }
        self.own.looked = true;
        if !self.own.joined {
            return self.look_before_joining(request, found, now);
        }
        match found {
            Some(lease) if lease.holder.as_ref() == Some(&self.setup.incarnation) => {
                match &self.own.version {
                    Some(known) if known.uid != lease.version.uid => self.end = Some(End::Fenced),
                    // An answer to a renewal may have overtaken this read; the store is judged by the map's reads.
                    Some(known) if !is_newer(&lease.version, known) => {}
                    _ => self.own.adopt(lease),
                }
            }
            _ if request.joined => self.end = Some(End::Fenced),
            // It may have been looked at before this member joined.
            _ => self.own.must_read = true,
        }
    }

    /// A Lease that was sent and is missing now may have existed: others may have fenced it since, and consider this
    /// incarnation permanently dead. Then only another incarnation can join.
    fn look_before_joining(&mut self, request: &LeaseRequest, found: Option<LeaseRecord>, now: Now) {
        let sent = self.own.attempts.iter().any(|it| it.number <= request.attempt);
        let sent_since = self.own.number > request.attempt;
        let lease = match found {
            Some(lease) if lease.holder.as_ref() == Some(&self.setup.incarnation) => {
                self.own.adopt(lease);
                self.end = (!self.own.joined).then_some(End::Fenced);
                return;
            }
            _ if sent => {
                self.end = Some(End::Fenced);
                return;
            }
            // It was looked at before the attempt arrived: that says nothing of it.
            _ if sent_since => return,
            other => other,
        };
        if self.own.number == 0 {
            // Nothing was tried yet, so there is nothing to wait for.
            self.own.next = now.possible;
        }
        let Some(lease) = lease else {
            self.own.former = None;
            return;
        };
        let known = self.own.former.as_ref().map(|former| former.lease.version.number);
        if known.is_none_or(|known| known < lease.version.number) {
            self.own.former = Some(Former { lease, since: now.certain });
        }
    }

    /// Renews when it is time, reads when an answer is missing.
    pub(super) fn keep_lease(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let timing = &self.setup.timing;
        let overdue = |it: &Attempt| it.waiting && now.possible >= it.sent + timing.attempt_timeout;
        let first_look = !self.own.looked && !self.own.joined;
        let must_read = self.own.must_read || first_look || self.own.attempts.iter().any(overdue);
        let free = self.own.reading.as_ref().is_none_or(|it| now.possible >= it.sent + timing.attempt_timeout);
        if must_read && free {
            self.own.attempts.iter_mut().filter(|it| overdue(it)).for_each(|it| it.waiting = false);
            self.own.must_read = false;
            let request = LeaseRequest { sent: now.possible, attempt: self.own.number, joined: self.own.joined };
            self.own.reading = Some(request.clone());
            effects.push(Effect::ReadLease(request));
        }
        let news = self.own.joined && self.facts().readiness != self.own.told.readiness;
        if now.possible >= self.own.next || news {
            self.renew(now, effects);
        }
    }

    fn renew(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let timing = self.setup.timing.clone();
        self.own.next = now.possible + timing.renew_interval;
        if !self.own.joined && (!self.own.attempts.is_empty() || self.own.reading.is_some()) {
            // What became of the first attempt, or of another's Lease, must be known before the next.
            return;
        }
        let Some((on, ended)) = self.what_to_replace(now) else {
            // Another member's: read it again, it may end or have ended.
            self.own.must_read |= self.own.looked;
            return;
        };
        // What was sent longer ago than a right lasts can extend nothing any more.
        self.own.attempts.retain(|it| now.possible < it.sent + timing.right());
        self.own.number += 1;
        let attempt = self.own.number;
        self.own.attempts.push(Attempt { number: attempt, sent: now.possible, waiting: true });
        self.own.told = self.facts();
        let facts = self.own.told.clone();
        effects.push(Effect::Renew { attempt, on, facts, ended });
        if self.own.joined {
            // Each renewal is followed by a read of the map (M-2).
            self.read_map(now, effects);
        }
    }

    /// The version that the next renewal replaces (None: it creates the Lease) and the incarnation that it ends; None if the
    /// Lease belongs to a member that may be alive.
    fn what_to_replace(&self, now: Now) -> Option<(Option<Version>, Option<Incarnation>)> {
        if self.own.joined {
            return Some((self.own.version.clone(), None));
        }
        if !self.own.looked {
            return None;
        }
        let Some(former) = &self.own.former else { return Some((None, None)) };
        let on = Some(former.lease.version.clone());
        let Some(holder) = &former.lease.holder else { return Some((on, former.lease.ended.clone())) };
        let waited = now.certain >= former.since + self.setup.timing.lease_duration;
        (waited || holder.same_pod(&self.setup.incarnation)).then(|| (on, Some(holder.clone())))
    }
}

/// Whether a version of one object is newer than another.
fn is_newer(version: &Version, than: &Version) -> bool {
    version.uid != than.uid || version.number > than.number
}
