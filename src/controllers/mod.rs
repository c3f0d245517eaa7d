//! The controllers. The table says what each watches and where its reconcile is.
//!
//! | kind | watches | reconcile |
//! |---|---|---|
//! | FrappeSite | sites; their Secrets (metadata), Jobs, Ingresses, Databases, Users, Grants; FrappeDomains; MariaDBs; benches | [`site::reconcile`] |
//! | SiteBackup | what the site watches; SiteBackups, with the label of their site's slot and without | [`backup::reconcile`] |
//! | FrappeBench | benches; their ConfigMaps, PersistentVolumeClaims, Services, Deployments, StatefulSets, Jobs; sites | [`bench::reconcile`] |
//!
//! Which change leads to which reconcile: `watch.rs` of each kind. Everything goes through the queue of
//! [`crate::lanes`]; each reconcile is observe → validate → plan → build → apply → status.

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
pub mod site;
pub mod take_over;
