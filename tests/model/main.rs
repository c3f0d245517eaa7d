//! Every effect of the controllers on a model API server, in virtual time: the whole replica (watches, queues, reconciles, the
//! sharding protocol) beneath which a server stands that can refuse, lose answers and forget, and at which the replica can be
//! killed after any request. What only a real API server shows is in `tests/it`.
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
mod crash;
mod effects;
mod failures;
mod faults;
mod fleet;
mod handover;
mod journey;
mod lives;
mod races;
mod replicas;
mod rest;
mod slots;
mod world;
