//! The commands except `run`. They read, and only `rollout`, `update`, `migrate`, `exec`, `backup` and `restore` write: what a user
//! decides.

pub mod advice;
pub mod backup;
pub mod check;
mod ending;
pub mod exec;
pub mod fleet;
pub mod logs;
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
