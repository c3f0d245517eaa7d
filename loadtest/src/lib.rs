//! The test control plane from Rust, the operator as a process beside it, and what its audit log says.
//!
//! Used by the integration tests of the operator and by the demo.

pub mod audit;
pub mod cluster;
pub mod history;
pub mod process;
pub mod proxy;
