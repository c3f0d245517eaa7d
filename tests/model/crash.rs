//! The crash sweep: the replica is killed after its n-th request, for every n of an object's life cycle; the results must always
//! be the same.

use kube_sharding_sim::Fault;

use crate::{
    lives::{Life, of_backup, of_bench, of_site, of_update},
    world::{QUIET, in_parallel},
};

/// More requests than any life cycle needs: the sweep must end earlier.
const REQUESTS_MAX: usize = 250;

/// Kills the replica after each request of a life cycle, which has at least this number of requests.
fn sweep(life: &Life, least: usize) {
    let (wanted, requests) = life.run("without faults", QUIET, |_| Fault::None);
    println!("{requests} requests, Jobs {:?}", wanted.jobs);
    assert!((least..REQUESTS_MAX).contains(&requests), "{requests} requests");
    in_parallel(1..=requests, |number| {
        let label = format!("killed after request {number} of {requests}");
        let crash = move |it| if it == number { Fault::Crash } else { Fault::None };
        let (found, _) = life.run(&label, QUIET, crash);
        assert_eq!(found, wanted, "{label}");
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

///
#[test]
fn an_update_survives_a_crash_after_any_request() {
    sweep(&of_update(), 15);
}
