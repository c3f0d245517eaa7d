//! What sharding costs a member: who should own what, a step of the protocol, the gate.
#![allow(missing_docs, clippy::semicolon_if_nothing_returned, reason = "criterion's macros and closures")]

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use kube_sharding::{
    Incarnation, Slot, SlotSet,
    assignment::{Candidate, assign},
    clock::SystemClock,
    gate::{Gate, Scope},
    map::{Content, Holding, SlotMap},
    member::{Facts, LeaseRecord, Readiness, Version},
    step::{Effect, Input, LeaseRequest, MapRequest, Member, Setup},
    timing::{Now, Timing},
};

fn incarnation(member: usize) -> Incarnation {
    Incarnation::new(&format!("3b241101-e2bb-4255-8caf-{member:012}"), "abcdefgh")
}

fn assignment(criterion: &mut Criterion) {
    let fleet = |members: usize| -> Vec<Candidate> {
        (0..members).map(|member| Candidate { incarnation: incarnation(member), newest: true }).collect()
    };
    let settled = assign(&[None; 256], &fleet(10));
    criterion.bench_function("assignment: 10 members, nothing to move", |it| {
        let candidates = fleet(10);
        it.iter(|| assign(black_box(&settled), black_box(&candidates)))
    });
    criterion.bench_function("assignment: an eleventh member joins", |it| {
        let candidates = fleet(11);
        it.iter(|| assign(black_box(&settled), black_box(&candidates)))
    });
}

fn lease(member: usize, version: u64) -> LeaseRecord {
    LeaseRecord {
        name: format!("frappe-operator-{member}").into(),
        version: Version { uid: format!("lease-{member}").into(), number: version },
        created_seconds: 1,
        duration_seconds: 15,
        holder: Some(incarnation(member)),
        attempt: 1,
        ended: None,
        facts: Facts { readiness: Readiness::Ready, ..Facts::default() },
    }
}

fn lease_request(effect: &Effect) -> Option<LeaseRequest> {
    if let Effect::ReadLease(request) = effect { Some(request.clone()) } else { None }
}

fn map_request(effect: &Effect) -> Option<MapRequest> {
    if let Effect::ReadMap(request) = effect { Some(request.clone()) } else { None }
}

/// A member of a settled fleet of ten that sees another's renewal: what happens three times a second.
fn step(criterion: &mut Criterion) {
    let now = |millis: u64| Now { certain: Duration::from_millis(millis), possible: Duration::from_millis(millis) };
    let mut member = Member::new(Setup {
        incarnation: incarnation(0),
        lease_name: "frappe-operator-0".into(),
        template: String::new(),
        slots: 256,
        timing: Timing::default(),
    });
    let holdings = (0..257).map(|slot| Holding { owner: Some(incarnation(slot % 10)), epoch: 1 }).collect();
    let version = Version { uid: "map".into(), number: 1 };
    let map = SlotMap { version, created_seconds: 1, content: Content { generation: 1, holdings } };
    let mut effects = member.step(Input::Synced, now(0));
    effects.extend(member.step(Input::Tick, now(1)));
    for request in effects.iter().filter_map(lease_request) {
        member.step(Input::LeaseRead(request, Ok(None)), now(1));
    }
    let mut effects = member.step(Input::Tick, now(3001));
    for attempt in 1..=2 {
        effects
            .extend(member.step(Input::Renewed(attempt, Ok(LeaseRecord { attempt, ..lease(0, attempt) })), now(3010)));
    }
    for request in effects.iter().filter_map(map_request) {
        member.step(Input::MapRead(request, Ok(Some(map.clone()))), now(3020));
    }
    member.step(Input::LeasesListed((0..10).map(|other| lease(other, 5)).collect()), now(3030));
    assert!(member.acts(now(3040)), "the benchmark needs a member that acts");
    let mut seen = 5;
    criterion.bench_function("step: a renewal is seen in a settled fleet of ten", |it| {
        it.iter(|| {
            seen += 1;
            member.step(Input::LeaseSeen(lease(1 + usize::try_from(seen % 9).unwrap_or(0), seen)), now(3100))
        })
    });
}

fn gate(criterion: &mut Criterion) {
    let gate = Gate::open_for_all(Arc::new(SystemClock::default()));
    criterion.bench_function("gate: work begins and ends", |it| {
        it.iter(|| gate.admit(black_box(Scope::Slot(Slot::new(7)))).is_ok())
    });
    let odd: SlotSet = (0..=255).filter(|slot| slot % 2 == 1).map(Slot::new).collect();
    criterion
        .bench_function("selector of 128 slots by label", |it| it.iter(|| odd.label_selector(black_box("a/slot"))));
    criterion.bench_function("selector of 128 slots by hash range", |it| it.iter(|| odd.shard_selector()));
}

criterion_group!(benches, assignment, step, gate);
criterion_main!(benches);
