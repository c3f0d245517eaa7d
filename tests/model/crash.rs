//! The crash sweep: the replica is killed after its n-th write, for every n of an object's life cycle; the results must always
//! be the same. A crash after a read leaves the same objects as one after the write before it.

use kube_sharding_sim::{Call, Fault};

use crate::{
    lives::{Life, of_backup, of_bench, of_revision, of_secret, of_site, of_site_job, of_update},
    world::{QUIET, in_parallel, is_counted},
};

/// More writes than any life cycle needs: the sweep must end earlier.
const WRITES_MAX: usize = 150;

fn is_write(call: &Call) -> bool {
    is_counted(call) && call.is_write()
}

/// Kills the replica after every fifth write of a life cycle, which has at least this number of writes.
fn sweep(life: &Life, least: usize) {
    sweep_every(5, life, least);
}

/// The same after every n-th write: which of n depends on the number of writes, so that a change of the life cycle tries others. With the
/// environment variable MODEL_EVERY_WRITE, after each.
fn sweep_every(stride: usize, life: &Life, least: usize) {
    let stride = if std::env::var_os("MODEL_EVERY_WRITE").is_some() { 1 } else { stride };
    let (wanted, writes) = life.run_counting(is_write, "without faults", QUIET, |_| Fault::None);
    println!("{writes} writes, Jobs {:?}", wanted.jobs);
    assert!((least..WRITES_MAX).contains(&writes), "{writes} writes");
    let first = 1 + writes % stride;
    in_parallel(0..=(writes - first) / stride, |turn| {
        let number = first + turn * stride;
        let label = format!("killed after write {number} of {writes}");
        let crash = move |it| if it == number { Fault::Crash } else { Fault::None };
        let (found, _) = life.run_counting(is_write, &label, QUIET, crash);
        assert_eq!(found, wanted, "{label}");
    });
}

///
#[test]
fn a_site_survives_a_crash_after_any_write() {
    sweep(&of_site(), 30);
}

///
#[test]
fn a_bench_survives_a_crash_after_any_write() {
    sweep(&of_bench(), 30);
}

/// R-7, S-7.
#[test]
fn a_changed_secret_survives_a_crash_after_any_write() {
    sweep(&of_secret(), 30);
}

///
#[test]
fn a_backup_survives_a_crash_after_any_write() {
    sweep(&of_backup(), 15);
}

/// each runs once.
#[test]
fn a_sitejob_survives_a_crash_after_any_write() {
    sweep(&of_site_job(), 25);
}

///
#[test]
fn an_update_survives_a_crash_after_any_write() {
    sweep(&of_update(), 15);
}

///
#[test]
fn a_move_to_another_revision_survives_a_crash_after_any_write() {
    sweep_every(11, &of_revision(), 40);
}
