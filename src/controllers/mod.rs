//! The controllers: one for each kind that users write.
//!
//! | kind | reconcile |
//! |---|---|
//! | FrappeSite | [`site::reconcile`] |
//! | SiteBackup | [`backup::reconcile`] |
//! | SiteJob | [`sitejob::reconcile`] |
//! | FrappeBench | [`bench::reconcile`] |
//!
//! Watches, and the reconciles that they trigger: the table of [`crate::domain::kinds`], also in `docs/permissions.md`.
//! Which changes trigger a reconcile: `watch.rs` of each kind. Everything goes through the queue of
//! [`kube_sharding::lanes`]; each reconcile is observe → validate → plan → build → apply → status.

pub mod adopt;
pub mod adoption;
pub mod backup;
pub mod bench;
pub mod companion;
pub mod contents;
pub mod context;
pub mod duration;
pub mod execute;
pub mod failure;
pub mod job;
#[cfg(test)]
mod leaves;
mod lint;
pub mod model;
pub mod objects;
pub mod phase;
pub mod ran;
pub mod reason;
pub mod schedule;
pub mod site;
pub mod sitejob;
pub mod windows;
