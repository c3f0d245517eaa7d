//! What a read was asked with. Its answer comes back with it and is judged by it alone, however late it comes and
//! whatever was asked since.

use std::{collections::BTreeSet, time::Duration};

use crate::member::Incarnation;

/// A read of the map.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MapRequest {
    /// When it was sent, in `possible` time.
    pub(super) sent: Duration,
    /// The newest version that was known then: the store cannot have an older one.
    pub(super) known: Option<u64>,
}

/// A read of the member's own Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseRequest {
    /// When it was sent, in `possible` time.
    pub(super) sent: Duration,
    /// The newest attempt that was sent before it; of later ones its answer says nothing.
    pub(super) attempt: u64,
    /// Whether the Lease was known to be the member's then: only so does an answer that shows another's fence it.
    pub(super) joined: bool,
}

/// A list of every member's Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeasesRequest {
    /// When it was sent, in `certain` time.
    pub(super) sent: Duration,
    /// Owners in the map whose Lease was not seen then: of others its answer says nothing.
    pub(super) missing: BTreeSet<Incarnation>,
    /// How many Leases had been seen to go.
    pub(super) went: u64,
}

impl LeasesRequest {
    /// Owners in the map whose Lease was not seen when it was sent.
    pub fn missing(&self) -> &BTreeSet<Incarnation> {
        &self.missing
    }
}
