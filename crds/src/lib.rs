//! The API of the Frappe operator, group `vyogo.tech/v1alpha1`.
//!
//! This crate owns the types, their documentation (what `kubectl explain` shows) and the CEL rules that the API server
//! enforces. It performs no IO. The YAML files beside its `Cargo.toml` are generated from it by `crdgen`.
#![deny(missing_docs)]
#![allow(unreachable_pub, reason = "the derive macros generate items that the lint cannot see used")]

pub mod backup;
pub mod backup_storage;
pub mod bench;
mod bench_parts;
mod bench_sites;
mod bench_status;
mod bench_updates;
mod bench_waves;
pub mod common;
pub mod domain;
mod duration;
pub mod job;
pub mod manifest;
pub mod pod_templates;
pub mod site;
mod site_route;
mod site_updates;
mod text;
mod window;

pub use backup::{SiteBackup, SiteBackupSpec, SiteBackupStatus};
pub use bench::{FrappeBench, FrappeBenchSpec, FrappeBenchStatus};
pub use domain::{FrappeDomain, FrappeDomainSpec};
pub use job::{SiteJob, SiteJobSpec, SiteJobStatus};
pub use site::{FrappeSite, FrappeSiteSpec, FrappeSiteStatus};

/// API group of every kind of this crate.
pub const GROUP: &str = "vyogo.tech";
