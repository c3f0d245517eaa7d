//! The state of one member, what it takes in and what is to be done: data alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::reads::{LeaseRequest, LeasesRequest, MapRequest};
use crate::{
    Incarnation,
    map::{Content, Entry, SlotMap},
    member::{Facts, LeaseRecord, Version},
    timing::Timing,
};

/// What a member is and how the protocol runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Setup {
    /// Who this member is.
    pub incarnation: Incarnation,
    /// Name of its Lease.
    pub lease_name: Arc<str>,
    /// Which build it is.
    pub template: String,
    /// Number of slots of the map.
    pub slots: u16,
    /// Times of the protocol.
    pub timing: Timing,
}

/// Why a request has no answer that says what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The object is at another version, or is there already: the write did not happen.
    Conflict,
    /// There is no such object.
    NotFound,
    /// Nothing is known: the write may have happened, or may happen yet.
    Unknown,
}

/// What a member learns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time went by.
    Tick,
    /// The shared caches are synced: the member may be given slots.
    Synced,
    /// The member is to end: it gives everything away first.
    Stop,
    /// Answer to [`Effect::Renew`] of this attempt.
    Renewed(u64, Result<LeaseRecord, Failure>),
    /// Answer to [`Effect::ReadLease`]; nothing where there is no Lease.
    LeaseRead(LeaseRequest, Result<Option<LeaseRecord>, Failure>),
    /// Answer to [`Effect::Fence`] of the Lease with this name.
    Fenced(Arc<str>, Result<LeaseRecord, Failure>),
    /// Answer to [`Effect::ReadLeases`].
    LeasesRead(LeasesRequest, Result<Vec<LeaseRecord>, Failure>),
    /// Every member's Lease, from the watch's list.
    LeasesListed(Vec<LeaseRecord>),
    /// A Lease, from the watch.
    LeaseSeen(LeaseRecord),
    /// A Lease is gone, from the watch.
    LeaseGone(Arc<str>),
    /// Answer to [`Effect::ReadMap`]; nothing where there is no map.
    MapRead(MapRequest, Result<Option<SlotMap>, Failure>),
    /// Answer to [`Effect::WriteMap`].
    MapWritten(Result<SlotMap, Failure>),
    /// The map, from the watch.
    MapSeen(SlotMap),
    /// The map is gone, from the watch, since this resourceVersion.
    MapGone(u64),
    /// All work of this drain has ended.
    Drained(u64),
    /// Name of the Lease of the member that should be coordinator, as the election says.
    Preferred(Option<Arc<str>>),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Write this member's Lease: create it where `on` is nothing, else replace that version. `ended` is the
    /// incarnation that this ends.
    Renew {
        /// Number of the attempt, to be written into the Lease.
        attempt: u64,
        /// The version that is replaced.
        on: Option<Version>,
        /// What the Lease tells.
        facts: Facts,
        /// The former holder.
        ended: Option<Incarnation>,
    },
    /// Read this member's Lease, consistently.
    ReadLease(LeaseRequest),
    /// List every member's Lease, consistently.
    ReadLeases(LeasesRequest),
    /// Replace this version of another member's Lease by one without holder.
    Fence(Box<LeaseRecord>),
    /// Delete exactly this version of a Lease that nobody holds.
    DeleteLease(Arc<str>, Version),
    /// Read the map, consistently.
    ReadMap(MapRequest),
    /// Write the map: create it where `on` is nothing, else replace that version.
    WriteMap {
        /// The version that is replaced.
        on: Option<Version>,
        /// What it will say.
        content: Content,
    },
    /// Let the work on these entries end, cancel it when it takes too long, then answer [`Input::Drained`] with this
    /// number. No new work begins, since the view does not hold them any more.
    Drain(u64, BTreeSet<Entry>),
    /// Ask the election at once who should be coordinator.
    Elect,
    /// This incarnation has ended.
    End(End),
}

/// Why an incarnation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Another took or removed its Lease: everything is dropped, the process joins again.
    Fenced,
    /// The API server's store went back in time: nothing that was known counts any more.
    WentBack,
    /// It gave everything away and was told to end.
    Stopped,
}

/// The state of one member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    pub(super) setup: Arc<Setup>,
    pub(super) own: Own,
    pub(super) others: Others,
    pub(super) moves: Moves,
    pub(super) synced: bool,
    pub(super) stopping: bool,
    pub(super) end: Option<End>,
}

/// A renewal whose outcome is not known yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    pub(super) number: u64,
    /// When it was sent, in `possible` time.
    pub(super) sent: Duration,
    /// Whether its answer is still waited for.
    pub(super) waiting: bool,
}

/// Another's Lease of this member's name, while joining.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Former {
    pub(super) lease: LeaseRecord,
    /// Since when it is at this version, in `certain` time.
    pub(super) since: Duration,
}

/// What is known of this member's Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Own {
    pub(super) joined: bool,
    /// When the newest renewal that succeeded was sent, in `possible` time.
    pub(super) renewed: Option<Duration>,
    /// When its Lease was created, in seconds since 1970.
    pub(super) created_seconds: i64,
    pub(super) version: Option<Version>,
    /// Whether the Lease was read since this member began.
    pub(super) looked: bool,
    pub(super) former: Option<Former>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) number: u64,
    pub(super) told: Facts,
    /// The newest read of the Lease, while its answer is waited for; an older one's answer counts by its own request.
    pub(super) reading: Option<LeaseRequest>,
    pub(super) must_read: bool,
    pub(super) next: Duration,
}

/// A Lease and since when it is at this version, in `certain` time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    pub(super) lease: LeaseRecord,
    pub(super) since: Duration,
    /// When a fence of this version was sent last, in `certain` time.
    pub(super) fenced_at: Option<Duration>,
}

/// What is known of the Leases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Others {
    pub(super) seen: BTreeMap<Arc<str>, Seen>,
    /// Whether every Lease was listed once.
    pub(super) listed: bool,
    /// Incarnations that are dead for good.
    pub(super) ended: BTreeSet<Incarnation>,
    /// Owners in the map whose Lease was not seen: since when a consistent list confirms that, in `certain` time.
    pub(super) absent: BTreeMap<Incarnation, Option<Duration>>,
    /// The newest such list, while its answer is waited for; an older one's answer counts by its own request.
    pub(super) listing: Option<LeasesRequest>,
    /// How many Leases were seen to go: a list that was sent before may show them yet.
    pub(super) went: u64,
    /// Since when the members that may own slots are the same, in `certain` time.
    pub(super) unchanged: Duration,
}

/// Entries that are being given away: no new work begins on them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Handover {
    /// Number of the drain: an answer to another counts for nothing.
    pub drain: u64,
    /// The entries, at the epochs they had when the drain began.
    pub entries: BTreeMap<Entry, i64>,
    /// Whether their work has ended.
    pub drained: bool,
}

/// A change of the map that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Swap {
    pub(super) on: Option<Version>,
    pub(super) gives: BTreeSet<Entry>,
    pub(super) sent: Duration,
    /// Whether it may be sent again: its answer said nothing, or is overdue and the map was read since.
    pub(super) again: bool,
}

/// What is known of the map, and what is being moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Moves {
    pub(super) map: Option<Arc<SlotMap>>,
    /// When the newest successful read of the map was sent, in `possible` time.
    pub(super) read: Option<Duration>,
    pub(super) preferred: Option<Arc<str>>,
    pub(super) handover: Option<Handover>,
    /// Swaps that gave something to another.
    pub(super) handovers: u64,
    /// The newest read, while its answer is waited for; an older one's answer counts by its own request.
    pub(super) reading: Option<MapRequest>,
    pub(super) must_read: bool,
    /// A consistent read found no map.
    pub(super) absent: bool,
    /// Since when the present map is known, in `certain` time.
    pub(super) known_since: Duration,
    pub(super) swap: Option<Swap>,
    pub(super) drains: u64,
    pub(super) coordinator_since: Option<Duration>,
    pub(super) coordinator_free_since: Option<Duration>,
}
