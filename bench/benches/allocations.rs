//! How often the pure core allocates: a count that does not depend on the machine. `cargo bench --bench allocations`.
#![allow(clippy::print_stdout, reason = "output for users")]

mod world;

use std::{hint::black_box, time::Instant};

use allocation_counter::{AllocationInfo, measure};
use frappe_operator::parts::{
    Capabilities, Desired, Lanes, OperatorConfig, Priority, bench, first_difference, site::plan,
};
use kube_sharding::{
    Incarnation, Slot,
    assignment::{Candidate, assign},
};

fn say(what: &str, info: &AllocationInfo) {
    println!("| {what} | {} | {} | {} |", info.count_total, info.bytes_total, info.bytes_max);
}

fn sharding() {
    let uid = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
    say("slot of a uid", &measure(|| assert!(usize::from(black_box(Slot::of_uid(black_box(uid))).number()) < 256)));
    let fleet = |members: usize| -> Vec<Candidate> {
        let name = |member| Incarnation::new(&format!("3b241101-e2bb-4255-8caf-{member:012}"), "abcdefgh");
        (0..members).map(|member| Candidate { incarnation: name(member), newest: true }).collect()
    };
    let (settled, eleven) = (assign(&[None; 256], &fleet(10)), fleet(11));
    say("ring: an eleventh member joins", &measure(|| drop(black_box(assign(&settled, &eleven)))));
}

fn lanes() {
    let now = Instant::now();
    let mut lanes: Lanes<u32, u32> = Lanes::default();
    for key in 0..100_000 {
        lanes.push(key % 50, key, Priority::Normal, now);
    }
    let mut turn = || {
        let started = lanes.pop(|_| usize::MAX, |_| None).expect("keys wait");
        lanes.finish(&started.key, now, None);
        lanes.push(started.key % 50, started.key, Priority::Normal, now);
    };
    turn();
    say("push, pop and finish one of 100,000 keys", &measure(turn));
}

fn site() {
    let new = world::new_site();
    say("plan of a new site", &measure(|| drop(black_box(plan(&new)))));
    let plans = world::plans_to_served();
    let mut sum = AllocationInfo::default();
    for done in 0..plans {
        let observed = world::site_after(done);
        sum += measure(|| drop(black_box(plan(&observed))));
    }
    say(&format!("the {plans} plans of a site until it is available"), &sum);
    let served = world::site_after(plans);
    say("plan of an available site", &measure(|| drop(black_box(plan(&served)))));
}

fn bench() {
    let (bench, config) = (world::bench(), OperatorConfig::default());
    let input = bench::Input::of(&bench, &config, Capabilities::default());
    say("render a bench", &measure(|| drop(black_box(bench::render(&input)))));
    let objects = bench::render(&input).components;
    let live: Vec<_> = objects.iter().map(Desired::stamped).collect();
    let wanted = live.clone();
    let compare = || {
        let differ = wanted.iter().zip(&live).filter(|(wanted, live)| first_difference(wanted, live).is_some());
        assert_eq!(black_box(differ.count()), 0);
    };
    say(&format!("compare a bench's {} components with live ones", objects.len()), &measure(compare));
}

fn main() {
    println!("| benchmark | allocations | bytes | peak bytes |\n|---|---|---|---|");
    sharding();
    lanes();
    site();
    bench();
}
