//! What every reconcile costs without the API server: slot, queue, rendering, comparison.
#![allow(missing_docs, clippy::semicolon_if_nothing_returned, reason = "criterion's macros and closures")]

mod world;

use std::{hint::black_box, time::Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use frappe_crds::FrappeBench;
use frappe_operator::parts::{
    Capabilities, Desired, Lanes, OperatorConfig, Priority, bench, database, first_difference, site::plan,
};
use kube_sharding::Slot;

fn slot(criterion: &mut Criterion) {
    criterion.bench_function("slot of a uid", |it| {
        it.iter(|| Slot::of_uid(black_box("f81d4fae-7dec-11d0-a765-00a0c91e6bf6")))
    });
    criterion.bench_function("database name", |it| {
        it.iter(|| database(black_box("default"), black_box("customer-site"), black_box("5f2b1c")))
    });
}

fn lanes(criterion: &mut Criterion) {
    criterion.bench_function("push, pop and finish one of 100,000 keys in 50 lanes", |it| {
        let now = Instant::now();
        let mut lanes: Lanes<u32, u32> = Lanes::default();
        (0..100_000).for_each(|key| {
            lanes.push(key % 50, key, Priority::Normal, now);
        });
        it.iter(|| {
            let started = lanes.pop(|_| usize::MAX, |_| None).expect("keys wait");
            lanes.finish(&started.key, now, None);
            lanes.push(started.key % 50, started.key, Priority::Normal, now);
        });
    });
}

fn render(criterion: &mut Criterion) {
    let bench: FrappeBench = serde_json::from_value(serde_json::json!({
        "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "metadata": {"name": "b", "namespace": "n", "uid": "u"},
        "spec": {"frappeVersion": "15"},
    }))
    .expect("a bench");
    let config = OperatorConfig::default();
    let input = bench::Input::of(&bench, &config, Capabilities::default());
    criterion.bench_function("render a bench", |it| it.iter(|| bench::render(&input)));
    let objects = bench::render(&input).components;
    let live: Vec<_> = objects.iter().map(Desired::stamped).collect();
    criterion.bench_function("compare a bench's deployments with live ones", |it| {
        it.iter(|| {
            objects
                .iter()
                .zip(&live)
                .filter(|(wanted, live)| first_difference(&wanted.stamped(), live).is_some())
                .count()
        });
    });
}

fn site(criterion: &mut Criterion) {
    let new = world::new_site();
    criterion.bench_function("plan of a new site", |it| it.iter(|| plan(black_box(&new))));
    let plans = world::plans_to_served();
    let worlds: Vec<_> = (0..plans).map(world::site_after).collect();
    criterion.bench_function(&format!("the {plans} plans of a site until it is available"), |it| {
        it.iter(|| worlds.iter().map(plan).count())
    });
    let served = world::site_after(plans);
    criterion.bench_function("plan of an available site", |it| it.iter(|| plan(black_box(&served))));
}

criterion_group!(benches, slot, lanes, render, site);
criterion_main!(benches);
