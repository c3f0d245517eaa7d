//! The real runtime, gate and client of several processes on a model API server, in virtual time, with random faults. A failing seed
//! can be repeated: `SIM_SEED=<seed>`.
//!
//! Always checked: S-1, at most one process may act on an entry; S-2, while one may, no other process still works on the entry
//! or waits for a write. Checked at the end: S-3, no late write of a former owner
//! took effect after one of its successor; S-4, every entry has an owner again; S-6, balance; S-7, every item was
//! reconciled after its last change.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_for_each,
    clippy::needless_pass_by_value,
    clippy::significant_drop_in_scrutinee,
    clippy::struct_excessive_bools,
    clippy::duration_suboptimal_units,
    reason = "tests"
)]

mod by_hand;
mod fleet;
mod script;
mod trace;

use std::time::Instant;

use kube_sharding_sim::in_virtual_time;
use script::{Flaws, simulate};

/// Number of seeds; `SIM_SEEDS` sets another number, `SIM_SEED` another first seed.
const SEEDS: u64 = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64, flaws: Flaws) -> Result<script::Summary, String> {
    in_virtual_time(seed, simulate(seed, flaws))
}

/// Runs seeds on all cores; returns the totals and the failures.
fn sweep(seeds: std::ops::Range<u64>) -> (script::Summary, Vec<String>) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let results: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let seeds = seeds.clone();
                scope.spawn(move || {
                    let mine = seeds.filter(|seed| seed % threads == worker);
                    mine.map(|seed| run(seed, Flaws::default()).map_err(|it| format!("seed {seed}: {it}")))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|it| it.join().unwrap()).collect()
    });
    let mut total = script::Summary::default();
    let mut failed = Vec::new();
    for result in results {
        match result {
            Ok(summary) => total.add(&summary),
            Err(error) => failed.push(error),
        }
    }
    (total, failed)
}

/// S-1, S-2, S-3, S-4, S-6, S-7.
#[test]
fn one_member_acts_during_faults_and_every_slot_is_owned_afterwards() {
    let begun = Instant::now();
    let first = number("SIM_SEED");
    let many = number("SIM_SEEDS").unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let seeds = first.unwrap_or(0)..first.unwrap_or(0) + many;
    let count = seeds.end - seeds.start;
    let (total, failed) = sweep(seeds);
    println!("{count} seeds in {:.0} s: {total}", begun.elapsed().as_secs_f64());
    assert!(
        failed.is_empty(),
        "{} of {count} seeds failed; the first: {:?}",
        failed.len(),
        &failed[..failed.len().min(9)]
    );
}

/// S-4, O-5: an outage of the API server moves neither slots nor the coordinator.
#[test]
fn an_outage_moves_no_slots() {
    let failed: Vec<String> = (0..100)
        .filter_map(|seed| {
            in_virtual_time(seed, script::outage(seed)).err().map(|error| format!("seed {seed}: {error}"))
        })
        .collect();
    assert!(failed.is_empty(), "{} of 100 seeds: {:?}", failed.len(), failed.first());
}

/// S-4, S-6, S-7: after any edit of the map by a user, every slot gets an owner again.
#[test]
fn every_slot_is_owned_again_after_edits_of_the_map() {
    let first = number("SIM_SEED").unwrap_or(0);
    let many = number("SIM_SEEDS").unwrap_or(200).min(200);
    let failed: Vec<String> = (first..first + many)
        .filter_map(|seed| {
            in_virtual_time(seed, script::edited_by_hand(seed)).err().map(|error| format!("seed {seed}: {error}"))
        })
        .collect();
    assert!(failed.is_empty(), "{} of {many} seeds: {:?}", failed.len(), failed.first());
}

/// The same seed gives the same history.
#[test]
fn a_seed_reproduces() {
    for seed in [7, 42] {
        let (first, second) = (run(seed, Flaws::default()).unwrap(), run(seed, Flaws::default()).unwrap());
        assert_eq!(first.digest, second.digest, "seed {seed}");
    }
}

/// S-3 needs a precondition on the version in each write: without it, some seed has a late write.
#[test]
fn writes_without_a_version_are_detected() {
    let flaws = Flaws { without_version_checks: true };
    let found = (0..400).find_map(|seed| run(seed, flaws).err().map(|error| (seed, error)));
    let (seed, error) = found.expect("some seed detects the missing precondition");
    println!("seed {seed}: {error}");
    assert!(error.contains("S-3"), "{error}");
}
