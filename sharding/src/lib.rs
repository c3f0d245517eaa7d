//! Shares the objects of a Kubernetes controller between replicas, by fixed slots and Leases.
//!
//! An object belongs to one of [`SLOTS`] slots, by the hash of its uid; a member (one replica) owns slots, as one small
//! object, the slot [`map`], says. A member is alive while it renews its Lease. No rebalance writes to the objects that
//! are shared. Start with [`sharded()`]; a quick start is in `README.md`, the rules are in `PROTOCOL.md`, what a controller must
//! do in `CONTROLLER.md`.
//!
//! | module | owns |
//! |---|---|
//! | [`objects`], [`kind`], [`context`] | the builder of a controller, and what its reconcile is given |
//! | [`mod@sharded`], [`session`], [`controller`], [`readiness`] | a replica's life, beneath the builder: for controllers with caches of their own |
//! | [`cache`], [`keep`], [`feed`], [`ownership`] | objects of one kind, how they are kept, the watch that delivers them, the slots that it follows |
//! | [`lanes`] | the queue in front of a reconcile: priorities, turns, limits and rates by lane; and its runner |
//! | [`client`], [`meter`] | clients whose writes pass the gate, and are counted |
//! | [`index`], [`named`] | objects by something else than their name; watches of single objects |
//! | [`key`], [`uid`] | namespace and name of an object, and its uid |
//! | [`hash`], [`slot`] | which slot an object belongs to, and selectors of slots |
//! | [`assignment`] | which member should own which slot |
//! | [`map`], [`member`], [`wire`] | the slot map and the members' Leases, and how they are stored |
//! | [`step`] | what one member does: the protocol, pure |
//! | [`runtime`], [`election`] | carries it out |
//! | [`gate`], [`layer`] | may this member act? asked at the queue, and beneath the client's retry |
//! | [`fleet`], [`changes`], [`gauges`] | who owns what, for people, as it changes, and as metrics |
//! | [`reading`] | objects from their text, of which none stops the others |
//! | [`watch`], [`groups`], [`namespaces`] | watches that go on from a version, by hash range, in groups of slots |
#![deny(missing_docs)]

/// The Kubernetes API's types, of the version that goes with [`kube`].
#[cfg(feature = "kube-5")]
pub extern crate k8s_openapi_0_29 as k8s_openapi;
/// The client library, of the version that the features say.
#[cfg(feature = "kube-5")]
pub extern crate kube_5 as kube;

#[cfg(not(any(feature = "kube-4", feature = "kube-5")))]
compile_error!("kube-sharding needs one of its features kube-4 and kube-5");

pub mod assignment;
pub mod cache;
pub mod changes;
pub mod client;
pub mod clock;
pub mod context;
pub mod controller;
mod doors;
pub mod election;
pub mod failure;
pub mod feed;
pub mod fleet;
pub mod gate;
pub mod gauges;
pub mod groups;
pub mod hash;
pub mod index;
pub mod keep;
pub mod key;
pub mod kind;
pub mod lanes;
pub mod layer;
pub mod map;
pub mod member;
pub mod meter;
pub mod named;
pub mod namespaces;
pub mod objects;
pub mod ownership;
pub mod readiness;
pub mod reading;
pub mod runtime;
#[cfg(test)]
mod scripted;
pub mod session;
pub mod sharded;
mod shown;
pub mod slot;
pub mod step;
mod strangers;
mod sync;
pub mod timing;
pub mod uid;
pub mod watch;
pub mod wire;

/// The Kubernetes API's types, of the version that goes with [`kube`].
#[cfg(not(feature = "kube-5"))]
pub use k8s_openapi;
/// The client library, of the version that the features say.
#[cfg(not(feature = "kube-5"))]
pub use kube;

pub use client::Connection;
pub use context::Context;
pub use kind::Kind;
pub use lanes::runner::Outcome;
pub use member::Incarnation;
pub use objects::{Objects, coordinated, sharded};
pub use sharded::{Settings, Sharded, Work};
pub use slot::{SLOTS, Slot, SlotSet};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the example of the guide.
#[cfg(doctest)]
#[doc = include_str!("../GUIDE.md")]
struct Guide;
