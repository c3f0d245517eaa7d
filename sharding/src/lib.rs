//! Shares the objects of a Kubernetes controller between replicas, by fixed slots and Leases.
//!
//! An object belongs to one of [`SLOTS`] slots, by the hash of its uid; a member (one replica) owns slots, as one small
//! object, the slot [`map`], says. A member is alive while it renews its Lease. No rebalance writes to the objects that
//! are shared. The rules are in `PROTOCOL.md`, what a controller must do in `CONTROLLER.md`; an operator that does it is
//! `examples/configmaps.rs`.
//!
//! | module | owns |
//! |---|---|
//! | [`hash`], [`slot`] | which slot an object belongs to, and selectors of slots |
//! | [`assignment`] | which member should own which slot |
//! | [`map`], [`member`], [`wire`] | the slot map and the members' Leases, and how they are stored |
//! | [`step`] | what one member does: the protocol, pure |
//! | [`runtime`], [`election`] | carries it out |
//! | [`gate`], [`layer`] | may this member act? asked at the queue, and beneath the client's retry |
//! | [`lanes`] | the queue in front of a reconcile: priorities, turns, limits and rates by lane; and its runner |
//! | [`queue`] | keys that wait until they were worked on, whatever becomes of the member |
//! | [`reading`] | objects from their text, of which none stops the others |
//! | [`watch`], [`groups`] | watches that go on from a version, by hash range, in groups of slots |
//! | [`key`], [`uid`] | namespace and name of an object, and its uid |
//! | [`cache`], [`keep`], [`feed`] | objects of one kind, how they are kept, and the watch that delivers them |
//! | [`ownership`] | the slots that watches follow |
#![deny(missing_docs)]

pub mod assignment;
pub mod cache;
pub mod clock;
mod doors;
pub mod election;
pub mod feed;
pub mod gate;
pub mod groups;
pub mod hash;
pub mod keep;
pub mod key;
pub mod lanes;
pub mod layer;
pub mod map;
pub mod member;
pub mod namespaces;
pub mod ownership;
pub mod queue;
pub mod reading;
pub mod runtime;
#[cfg(test)]
mod scripted;
pub mod slot;
pub mod step;
mod strangers;
pub mod timing;
pub mod uid;
pub mod watch;
pub mod wire;

/// The primitives of [`doors`], which the test of its threads replaces.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
}

pub use member::Incarnation;
pub use slot::{SLOTS, Slot, SlotSet};
