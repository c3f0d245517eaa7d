//! The read-only commands: all except `run`.

pub mod advice;
pub mod check;
pub mod fleet;
pub mod manifests;
pub(crate) mod output;
pub mod prerequisites;
mod shards;
pub mod why;

pub use shards::shards;
