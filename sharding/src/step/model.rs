//! State, inputs and effects of one member: data only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::reads::{LeaseRequest, LeasesRequest, MapRequest};
use crate::{
    map::{Content, Entry, SlotMap},
    member::{Facts, Incarnation, LeaseRecord, Version},
    timing::Timing,
};

/// Settings of a member and of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Setup {
    /// This member.
    pub incarnation: Incarnation,
    /// Name of its Lease.
    pub lease_name: Arc<str>,
    /// Its build.
    pub template: String,
    /// Number of slots of the map.
    pub slots: u16,
    /// Timing of the protocol.
    pub timing: Timing,
}

/// Failure of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The object has another version, or exists already: the write did not happen.
    Conflict,
    /// The object does not exist.
    NotFound,
    /// Unknown: the write may have happened, or may still happen.
    Unknown,
}

/// Input of a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The shared caches are synced: the member may get slots.
    Synced,
    /// The member must stop, after handing everything over.
    Stop,
    /// Response to [`Effect::Renew`] of this attempt.
    Renewed(u64, Result<LeaseRecord, Failure>),
    /// Response to [`Effect::ReadLease`]; None if there is no Lease.
    LeaseRead(LeaseRequest, Result<Option<LeaseRecord>, Failure>),
    /// Response to [`Effect::Fence`] of the Lease with this name.
    Fenced(Arc<str>, Result<LeaseRecord, Failure>),
    /// Response to [`Effect::ReadLeases`].
    LeasesRead(LeasesRequest, Result<Vec<LeaseRecord>, Failure>),
    /// All members' Leases, from the watch's list.
    LeasesListed(Vec<LeaseRecord>),
    /// A Lease, from the watch.
    LeaseSeen(LeaseRecord),
    /// A Lease was deleted, from the watch.
    LeaseGone(Arc<str>),
    /// Response to [`Effect::ReadMap`]; None if there is no map.
    MapRead(MapRequest, Result<Option<SlotMap>, Failure>),
    /// Response to [`Effect::WriteMap`].
    MapWritten(Result<SlotMap, Failure>),
    /// The map, from the watch.
    MapSeen(SlotMap),
    /// The map was deleted, from the watch, at this resourceVersion.
    MapGone(u64),
    /// All work of this drain has ended.
    Drained(u64),
    /// Name of the Lease of the elected coordinator.
    Preferred(Option<Arc<str>>),
}

/// Effect for the runtime to execute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Write this member's Lease: create it if `on` is None, else replace that version. `ended` is the incarnation that this ends.
    Renew {
        /// Number of the attempt, to be written into the Lease.
        attempt: u64,
        /// The version to replace.
        on: Option<Version>,
        /// Report of the member.
        facts: Facts,
        /// The previous holder.
        ended: Option<Incarnation>,
    },
    /// Read this member's Lease, consistently.
    ReadLease(LeaseRequest),
    /// List all members' Leases, consistently.
    ReadLeases(LeasesRequest),
    /// Replace this version of another member's Lease with one without a holder.
    Fence(Box<LeaseRecord>),
    /// Delete this version of a Lease without a holder.
    DeleteLease(Arc<str>, Version),
    /// Read the map, consistently.
    ReadMap(MapRequest),
    /// Write the map: create it if `on` is None, else replace that version.
    WriteMap {
        /// The version to replace.
        on: Option<Version>,
        /// The new map.
        content: Content,
    },
    /// Wait for the work on these entries, cancel it if it takes too long, then pass [`Input::Drained`] with this number. No new
    /// work starts, because the view does not contain them any more.
    Drain(u64, BTreeSet<Entry>),
    /// Query the election for the coordinator at once.
    Elect,
    /// This incarnation has ended.
    End(End),
}

/// Why an incarnation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Another member took or deleted its Lease: everything is dropped, and the process joins again.
    Fenced,
    /// The API server's store was restored to an earlier state: all known state is invalid.
    WentBack,
    /// It was stopped, and has handed everything over.
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
    /// Whether its response is outstanding.
    pub(super) waiting: bool,
}

/// Another member's Lease with this member's name, while joining.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Former {
    pub(super) lease: LeaseRecord,
    /// Since when it has this version, in `certain` time.
    pub(super) since: Duration,
}

/// Known state of this member's Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Own {
    pub(super) joined: bool,
    /// When the newest renewal that succeeded was sent, in `possible` time.
    pub(super) renewed: Option<Duration>,
    /// When its Lease was created, in seconds since 1970.
    pub(super) created_seconds: i64,
    pub(super) version: Option<Version>,
    /// Whether the Lease was read since this member started.
    pub(super) looked: bool,
    pub(super) former: Option<Former>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) number: u64,
    pub(super) told: Facts,
    /// The newest read of the Lease while its response is outstanding; responses to older reads are matched to their own request.
    pub(super) reading: Option<LeaseRequest>,
    pub(super) must_read: bool,
    pub(super) next: Duration,
}

/// A Lease, and since when it has this version, in `certain` time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    pub(super) lease: LeaseRecord,
    pub(super) since: Duration,
    /// When this version was last fenced, in `certain` time.
    pub(super) fenced_at: Option<Duration>,
}

/// Known state of all Leases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Others {
    pub(super) seen: BTreeMap<Arc<str>, Seen>,
    /// Whether all Leases were listed once.
    pub(super) listed: bool,
    /// Dead incarnations.
    pub(super) ended: BTreeSet<Incarnation>,
    /// Owners in the map without a Lease: since when a consistent list confirms that, in `certain` time.
    pub(super) absent: BTreeMap<Incarnation, Option<Duration>>,
    /// The newest such list while its response is outstanding; responses to older lists are matched to their own request.
    pub(super) listing: Option<LeasesRequest>,
    /// Number of deleted Leases: a list that was sent before may still contain them.
    pub(super) went: u64,
    /// Since when the set of members that may own slots is unchanged, in `certain` time.
    pub(super) unchanged: Duration,
}

/// Entries that are being handed over: no new work starts on them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Handover {
    /// Number of the drain; responses to other drains are ignored.
    pub drain: u64,
    /// The entries, with their epochs at the start of the drain.
    pub entries: BTreeMap<Entry, i64>,
    /// Whether their work has ended.
    pub drained: bool,
}

/// A sent change of the map.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Swap {
    pub(super) on: Option<Version>,
    pub(super) gives: BTreeSet<Entry>,
    pub(super) sent: Duration,
    /// Whether it may be sent again: its response was inconclusive, or is overdue and the map was read since.
    pub(super) again: bool,
}

/// Known state of the map, and current handovers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Moves {
    pub(super) map: Option<Arc<SlotMap>>,
    /// When the newest successful read of the map was sent, in `possible` time.
    pub(super) read: Option<Duration>,
    pub(super) preferred: Option<Arc<str>>,
    pub(super) handover: Option<Handover>,
    /// Number of handovers to other members.
    pub(super) handovers: u64,
    /// The newest read while its response is outstanding; responses to older reads are matched to their own request.
    pub(super) reading: Option<MapRequest>,
    pub(super) must_read: bool,
    /// Whether a consistent read found no map.
    pub(super) absent: bool,
    /// Since when the current map is known, in `certain` time.
    pub(super) known_since: Duration,
    pub(super) swap: Option<Swap>,
    pub(super) drains: u64,
    pub(super) coordinator_since: Option<Duration>,
    pub(super) coordinator_free_since: Option<Duration>,
}
