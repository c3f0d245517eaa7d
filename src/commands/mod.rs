//! The commands except `run`. They read, and only `rollout`, `update`, `migrate` and `exec` write: what a user decides.

pub mod advice;
pub mod check;
pub mod exec;
pub mod fleet;
pub mod manifests;
pub(crate) mod output;
pub mod prerequisites;
pub mod rollout;
mod shards;
pub mod undo;
pub mod update;
pub mod why;
mod why_update;

pub use shards::shards;
