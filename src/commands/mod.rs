//! The commands except `run`. They read, and only `rollout` writes: what a user decides.

pub mod advice;
pub mod check;
pub mod fleet;
pub mod manifests;
pub(crate) mod output;
pub mod prerequisites;
pub mod rollout;
mod shards;
pub mod why;

pub use shards::shards;
