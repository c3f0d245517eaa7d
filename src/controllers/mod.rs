//! The controllers: one for each kind that users write.
//!
//! | kind | reconcile |
//! |---|---|
//! | FrappeSite | [`site::reconcile`] |
//! | SiteBackup | [`backup::reconcile`] |
//! | FrappeBench | [`bench::reconcile`] |
//!
//! What is watched and whom that wakes: the table of [`crate::domain::kinds`], for users in `docs/permissions.md`.
//! Which change leads to which reconcile: `watch.rs` of each kind. Everything goes through the queue of
//! [`kube_sharding::lanes`]; each reconcile is observe → validate → plan → build → apply → status.

pub mod adoption;
pub mod backup;
pub mod bench;
pub mod context;
pub mod execute;
pub mod failure;
pub mod job;
#[cfg(test)]
mod leaves;
mod lint;
pub mod model;
pub mod objects;
pub mod phase;
pub mod reason;
pub mod site;
pub mod take_over;
