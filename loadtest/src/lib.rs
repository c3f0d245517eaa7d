//! The test control plane, the operator as a process, and the evaluation of its audit log.
//!
//! Used by the integration tests of the operator, by the demo, and by the load test.

pub mod audit;
pub mod backups;
pub mod chaos;
pub mod cluster;
pub mod history;
pub mod members;
pub mod meter;
pub mod plot;
pub mod process;
pub mod proxy;
pub mod report;
pub mod rights;
pub mod scenario;
pub mod spread;
pub mod summary;
pub mod targets;
