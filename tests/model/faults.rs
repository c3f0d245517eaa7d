//! The fault sweep: requests of an object's life cycle are rejected, or executed without a response; the results must always be
//! the same.

use std::time::Duration;

use kube_sharding_sim::Fault;

use crate::{
    lives::{Life, of_backup, of_bench, of_site},
    world::{QUIET, in_parallel},
};

/// The tested faults.
const FAULTS: [Fault; 4] = [Fault::Refused(409), Fault::Refused(500), Fault::Refused(403), Fault::AnswerLost];
/// One request in this number has a fault, so that as many runs as this cover every request.
const STRIDE: usize = 6;

/// Longer than a replica waits for a response or for a retry.
const PATIENCE: Duration = Duration::from_secs(40);

/// Every request has two of the faults, and its neighbours the other two: which, depends on the number of requests, so that a change of the life
/// cycle tries others. With the environment variable MODEL_EVERY_WRITE every request has each. Each Job is still created once, and nothing is left.
fn sweep(life: &Life) {
    let (wanted, requests) = life.run("without faults", QUIET, |_| Fault::None);
    let every = std::env::var_os("MODEL_EVERY_WRITE").is_some();
    let runs = FAULTS.len() * STRIDE / if every { 1 } else { 2 };
    in_parallel(0..=runs - 1, |run| {
        // Of the runs of one fault every second one, of the next fault those between.
        let number = if every { run } else { 2 * run + (2 * run / STRIDE + requests) % 2 };
        let (fault, first) = (FAULTS[number / STRIDE], number % STRIDE);
        let label = format!("{fault:?} at each request {first} of {STRIDE}");
        let quiet = if matches!(fault, Fault::AnswerLost | Fault::Refused(403)) { PATIENCE } else { QUIET };
        let becomes = move |it| if it % STRIDE == first { fault } else { Fault::None };
        let (found, _) = life.run(&label, quiet, becomes);
        assert_eq!(found, wanted, "{label}");
    });
}

#[test]
fn a_site_survives_a_fault_of_any_request() {
    sweep(&of_site());
}

#[test]
fn a_bench_survives_a_fault_of_any_request() {
    sweep(&of_bench());
}

#[test]
fn a_backup_survives_a_fault_of_any_request() {
    sweep(&of_backup());
}
