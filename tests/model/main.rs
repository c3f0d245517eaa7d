//! Every effect of the controllers, on a model API server in virtual time: the tests run whole replicas (watches, queues,
//! reconciles, the sharding protocol) on a server that can reject requests, lose responses and forget versions, and can kill a
//! replica after any write. What needs a real API server is in `tests/it`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    clippy::significant_drop_in_scrutinee,
    reason = "tests"
)]

mod backups;
mod cluster;
mod contents;
mod cost;
mod crash;
mod effects;
mod failures;
mod faults;
mod fleet;
mod handover;
mod journey;
mod lives;
mod races;
mod refused;
mod replicas;
mod rest;
mod revisions;
mod slots;
mod updates;
mod world;
