//! Shares the objects of a Kubernetes controller between replicas, by fixed slots and Leases.
//!
//! An object belongs to one of [`SLOTS`] slots, by the hash of its uid; a member (one replica) owns slots. This crate
//! holds what one member needs: the [`hash`], the [`slot`], an [`assignment`] of slots to members, and the member's
//! own Lease ([`lease`]). It knows nothing of the objects that are shared.
#![deny(missing_docs)]

pub mod assignment;
pub mod hash;
pub mod lease;
pub mod member;
pub mod slot;

pub use assignment::Assignment;
pub use member::Incarnation;
pub use slot::{SLOTS, Slot, SlotSet};
