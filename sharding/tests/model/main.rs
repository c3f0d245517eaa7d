//! Exhaustive exploration of the protocol: the real `Member::step` of a few members on a model API server, in every order of
//! requests, ticks, faults and work, within bounds.
//!
//! S-1 (at most one member may act on an entry) and S-3 (a late write of a former owner has no effect) must hold in
//! every state; and the exploration must detect each rule that is broken on purpose.
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

mod bounds;
mod server;
mod world;

use std::time::Instant;

use bounds::{Bounds, Broken, Mishap};
use stateright::{Checker, HasDiscoveries, Model};
use world::World;

/// Explores a model; returns the number of states and the names of violated properties.
fn explore(name: &str, bounds: Bounds) -> (usize, Vec<&'static str>) {
    let begun = Instant::now();
    let shown = format!("{bounds:?}");
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let checker =
        World { bounds }.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    let found: Vec<&'static str> = checker.discoveries().keys().copied().collect();
    let states = checker.unique_state_count();
    println!(
        "{name}, {shown}: {states} states in {:.1} s, depth {}, violated: {found:?}",
        begun.elapsed().as_secs_f64(),
        checker.max_depth()
    );
    for (property, path) in checker.discoveries() {
        println!("{name}: {property} after {:?}", path.into_actions());
    }
    (states, found)
}

/// Bounds from the environment: `MODEL_BOUNDS=members,slots,faults,stops,works,ticks`.
fn bounds_from_environment() -> Option<Bounds> {
    let text = std::env::var("MODEL_BOUNDS").ok()?;
    let numbers: Vec<u8> = text.split(',').map(|it| it.trim().parse().unwrap()).collect();
    let [members, slots, faults, stops, works, ticks] = numbers[..] else { panic!("MODEL_BOUNDS: six numbers") };
    Some(Bounds { members: members.into(), slots: slots.into(), faults, stops, works, ticks, ..Bounds::default() })
}

/// Bounds of a normal test run, and of the whole exploration (`MODEL_WHOLE=1`: some minutes and gigabytes).
fn histories(members: usize, slots: u16) -> Vec<Bounds> {
    if let Some(bounds) = bounds_from_environment() {
        return vec![bounds];
    }
    let whole = std::env::var_os("MODEL_WHOLE").is_some();
    let bounds = |faults, stops, ticks| Bounds { members, slots, faults, stops, ticks, ..Bounds::default() };
    match (members, whole) {
        (2, false) => vec![bounds(2, 0, 14), bounds(1, 1, 16)],
        (2, true) => vec![bounds(2, 0, 20), bounds(2, 1, 13), bounds(1, 1, 20)],
        (_, false) => vec![bounds(1, 0, 16), bounds(1, 1, 8)],
        (_, true) => vec![bounds(2, 0, 12), bounds(1, 1, 13), bounds(1, 0, 24)],
    }
}

/// S-1, S-3: two members, one slot.
#[test]
fn two_members_never_act_on_one_slot() {
    for bounds in histories(2, 1) {
        let (states, found) = explore("two members", bounds);
        assert!(found.is_empty(), "{found:?}");
        assert!(states > 10_000, "{states}");
    }
}

/// S-1, S-3: an error with an unknown outcome does not change a decision.
#[test]
fn an_unknown_outcome_decides_nothing() {
    let bounds = |members, slots, faults, ticks| Bounds {
        members,
        slots,
        faults,
        ticks,
        stops: 0,
        mishaps: Mishap::REPORTED,
        ..Bounds::default()
    };
    for bounds in [bounds(2, 1, 2, 10), bounds(3, 2, 1, 12)] {
        let (states, found) = explore("unknown outcomes", bounds);
        assert!(found.is_empty(), "{found:?}");
        assert!(states > 1000, "{states}");
    }
}

/// S-1, S-3: three members, two slots, of which one moves because a member joins.
#[test]
fn three_members_never_act_on_one_slot() {
    for bounds in histories(3, 2) {
        let (states, found) = explore("three members", bounds);
        assert!(found.is_empty(), "{found:?}");
        assert!(states > 10_000, "{states}");
    }
}

/// Each rule of the protocol is necessary: without it, the exploration finds a state in which two members act.
#[test]
fn every_broken_rule_is_detected() {
    for broken in Broken::EVERY {
        let bounds = Bounds { members: 2, slots: 1, faults: 2, ticks: 16, broken: Some(broken), ..Bounds::default() };
        let (_, found) = explore(&format!("{broken:?}"), bounds);
        assert!(!found.is_empty(), "{broken:?} was not detected");
    }
}
