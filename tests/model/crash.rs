//! The crash sweep: the replica is killed after its n-th request, for every n of an object's whole life; each time all comes
//! to the same end.

use kube_sharding_sim::Fault;

use crate::{
    lives::{Life, of_backup, of_bench, of_site},
    world::{QUIET, in_parallel},
};

/// More requests than any life has: the sweep must end before.
const REQUESTS_MAX: usize = 250;

/// Kills the replica after each request; a life has so many requests at least.
fn sweep(life: &Life, least: usize) {
    let (wanted, requests) = life.lead("undisturbed", QUIET, |_| Fault::None);
    println!("{requests} requests, Jobs {:?}", wanted.jobs);
    assert!((least..REQUESTS_MAX).contains(&requests), "{requests} requests");
    in_parallel(1..=requests, |number| {
        let told = format!("killed after request {number} of {requests}");
        let crash = move |it| if it == number { Fault::Crash } else { Fault::None };
        let (found, _) = life.lead(&told, QUIET, crash);
        assert_eq!(found, wanted, "{told}");
    });
}

///
#[test]
fn a_site_survives_a_crash_after_any_request() {
    sweep(&of_site(), 30);
}

///
#[test]
fn a_bench_survives_a_crash_after_any_request() {
    sweep(&of_bench(), 30);
}

///
#[test]
fn a_backup_survives_a_crash_after_any_request() {
    sweep(&of_backup(), 15);
}
