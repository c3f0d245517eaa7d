//! The fault sweep: requests of an object's whole life are rejected, or carried out and never answered; each time all comes to
//! the same end.

use std::time::Duration;

use kube_sharding_sim::Fault;

use crate::{
    lives::{Life, of_backup, of_bench, of_site},
    world::{QUIET, in_parallel},
};

/// What becomes of a request.
const FAULTS: [Fault; 4] = [Fault::Refused(409), Fault::Refused(500), Fault::Refused(403), Fault::AnswerLost];
/// One request in so many is disturbed, so that as many lives as this disturb every request.
const STRIDE: usize = 6;

/// Longer than a replica waits for any answer, and before it tries again.
const PATIENCE: Duration = Duration::from_secs(40);

/// Every request is disturbed in each way; each Job is still created once, and nothing is left.
fn sweep(life: &Life) {
    let (wanted, _) = life.lead("undisturbed", QUIET, |_| Fault::None);
    in_parallel(0..=FAULTS.len() * STRIDE - 1, |number| {
        let (fault, first) = (FAULTS[number / STRIDE], number % STRIDE);
        let told = format!("{fault:?} at each request {first} of {STRIDE}");
        let quiet = if matches!(fault, Fault::AnswerLost | Fault::Refused(403)) { PATIENCE } else { QUIET };
        let becomes = move |it| if it % STRIDE == first { fault } else { Fault::None };
        let (found, _) = life.lead(&told, quiet, becomes);
        assert_eq!(found, wanted, "{told}");
    });
}

#[test]
fn a_site_survives_a_disturbed_request() {
    sweep(&of_site());
}

#[test]
fn a_bench_survives_a_disturbed_request() {
    sweep(&of_bench());
}

#[test]
fn a_backup_survives_a_disturbed_request() {
    sweep(&of_backup());
}
