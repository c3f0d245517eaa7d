//! Tests of the queue: invariants of ARCHITECTURE.md.
#![allow(clippy::single_match_else, reason = "both arms are equally important")]

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use proptest::prelude::*;

use super::*;

fn unlimited(_: &&str) -> usize {
    usize::MAX
}

fn never(_: &&str) -> Option<Instant> {
    None
}

/// a key that has waited longer than the head start of another priority is not overtaken.
#[test]
fn higher_priorities_come_first_and_nothing_starves() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    let at = |millis| now + Duration::from_millis(millis);
    lanes.push("a", 1, Priority::Low, now);
    lanes.push("a", 2, Priority::Normal, now);
    lanes.push("a", 3, Priority::High, at(900));
    lanes.push("a", 4, Priority::High, at(1100));
    lanes.push("a", 5, Priority::High, at(10_100));
    let order: Vec<i32> = (0..5).filter_map(|_| lanes.pop(unlimited, never)).map(|it| it.key).collect();
    assert_eq!(order, [3, 2, 4, 1, 5]);
}

#[test]
fn a_higher_priority_speeds_up_a_waiting_key_which_keeps_its_age() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    lanes.push("a", 1, Priority::Low, now);
    lanes.push("a", 2, Priority::Normal, now);
    let later = now + Duration::from_millis(10);
    assert!(lanes.push("a", 1, Priority::High, later));
    assert!(!lanes.push("a", 1, Priority::Low, later), "and is not delayed again");
    assert_eq!((lanes.depth(), lanes.oldest()), (2, Some(now)));
    assert_eq!(lanes.pop(unlimited, never), Some(Started { key: 1, queued_at: now }));
    assert_eq!(lanes.pop(unlimited, never).map(|it| it.key), Some(2));
    assert_eq!((lanes.depth(), lanes.oldest()), (0, None));
}

#[test]
fn a_key_that_moves_to_another_lane_leaves_nothing_behind() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    lanes.push("a", 1, Priority::Low, now);
    assert!(lanes.push("b", 1, Priority::High, now));
    assert_eq!((lanes.lanes(), lanes.depth()), (1, 1));
    assert_eq!(lanes.pop(|lane| usize::from(*lane == "b"), never).map(|it| it.key), Some(1));
    assert_eq!(lanes.pop(unlimited, never), None);
    lanes.finish(&1, now, None);
    assert_eq!(lanes.lanes(), 0);
}

/// A lane that has used up its rate waits; other lanes continue.
#[test]
fn a_lane_at_its_rate_limit_blocks_no_other() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    let until = now + Duration::from_secs(1);
    for (lane, key) in [("a", 1), ("a", 2), ("b", 10)] {
        lanes.push(lane, key, Priority::Normal, now);
    }
    let rest = |lane: &&str| (*lane == "a").then_some(until);
    assert_eq!(lanes.pop(unlimited, rest).map(|it| it.key), Some(10));
    assert_eq!(lanes.pop(unlimited, rest), None);
    lanes.push("a", 3, Priority::High, now);
    assert_eq!(lanes.pop(unlimited, never), None, "the lane still waits");
    assert_eq!(lanes.next_timer(), Some(until));
    lanes.expire(until);
    assert_eq!(lanes.pop(unlimited, never).map(|it| it.key), Some(3));
}

#[test]
fn a_key_waits_at_most_once() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    assert!(lanes.push("a", 1, Priority::Normal, now));
    assert!(!lanes.push("a", 1, Priority::Normal, now));
    assert_eq!(lanes.depth(), 1);
}

/// two reconciles of one key never run at once.
#[test]
fn a_key_that_changes_while_it_runs_runs_again_after() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    lanes.push("a", 1, Priority::Normal, now);
    assert_eq!(lanes.pop(unlimited, never).map(|it| it.key), Some(1));
    assert!(lanes.push("a", 1, Priority::Normal, now));
    assert!(!lanes.push("a", 1, Priority::Normal, now));
    assert_eq!(lanes.pop(unlimited, never), None);
    lanes.finish(&1, now, None);
    assert_eq!(lanes.pop(unlimited, never).map(|it| it.key), Some(1));
    lanes.finish(&1, now, None);
    assert_eq!(lanes.pop(unlimited, never), None);
}

/// A user's edit while a key runs for another reason does not wait like that reason.
#[test]
fn what_changed_while_it_ran_has_the_highest_priority_it_was_given() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    lanes.push("a", 1, Priority::Normal, now);
    assert!(lanes.pop(unlimited, never).is_some());
    assert!(lanes.push("a", 1, Priority::Low, now));
    assert!(lanes.push("a", 1, Priority::High, now), "it changes when it runs again");
    assert!(!lanes.push("a", 1, Priority::Normal, now));
    lanes.push("a", 2, Priority::Normal, now);
    lanes.finish(&1, now, None);
    assert_eq!(lanes.pop(unlimited, never).map(|it| it.key), Some(1));
}

/// a lane that floods the queue does not delay another.
#[test]
fn lanes_take_turns() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    (0..100).for_each(|key| {
        lanes.push("flood", key, Priority::Normal, now);
    });
    lanes.push("small", 1000, Priority::Normal, now);
    let first_two: Vec<i32> = (0..2).filter_map(|_| lanes.pop(unlimited, never)).map(|it| it.key).collect();
    assert_eq!(first_two, [0, 1000]);
}

#[test]
fn a_lane_at_its_limit_blocks_no_other_and_continues_below_it() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    (0..3).for_each(|key| {
        lanes.push("a", key, Priority::Normal, now);
    });
    lanes.push("b", 10, Priority::Normal, now);
    let limit = |lane: &&str| if *lane == "a" { 1 } else { 5 };
    assert_eq!(lanes.pop(limit, never).map(|it| it.key), Some(0));
    assert_eq!(lanes.pop(limit, never).map(|it| it.key), Some(10));
    assert_eq!(lanes.pop(limit, never), None);
    lanes.finish(&0, now, None);
    assert_eq!(lanes.pop(limit, never).map(|it| it.key), Some(1));
}

/// A limit that is 0 by mistake stops nothing for good.
#[test]
fn a_lane_may_always_run_one() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    (0..2).for_each(|key| {
        lanes.push("a", key, Priority::Normal, now);
    });
    assert_eq!(lanes.pop(|_| 0, never).map(|it| it.key), Some(0));
    assert_eq!(lanes.pop(|_| 0, never), None);
}

/// limits are read when a key starts.
#[test]
fn a_raised_limit_takes_effect_at_once() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    (0..3).for_each(|key| {
        lanes.push("a", key, Priority::Normal, now);
    });
    assert!(lanes.pop(|_| 1, never).is_some());
    assert!(lanes.pop(|_| 1, never).is_none());
    lanes.limits_changed();
    assert!(lanes.pop(|_| 2, never).is_some());
}

#[test]
fn a_timer_queues_its_key_once_and_the_earlier_timer_is_used() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    let seconds = |count| now + Duration::from_secs(count);
    lanes.push_at("a", 1, seconds(10));
    lanes.push_at("a", 1, seconds(5));
    lanes.push_at("a", 1, seconds(20));
    assert_eq!(lanes.next_timer(), Some(seconds(5)));
    lanes.expire(seconds(4));
    assert_eq!(lanes.depth(), 0);
    lanes.expire(seconds(30));
    assert_eq!(lanes.depth(), 1);
    assert!(lanes.pop(unlimited, never).is_some());
    lanes.finish(&1, seconds(30), None);
    lanes.expire(seconds(60));
    assert_eq!((lanes.depth(), lanes.next_timer()), (0, None));
}

/// What was gathered for a moment comes before what is looked at to be sure.
#[test]
fn what_a_timer_queues_has_the_priority_of_a_change() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    let later = now + Duration::from_secs(1);
    lanes.push_at("a", 1, later);
    lanes.push("a", 2, Priority::Low, now);
    lanes.expire(later);
    assert_eq!(lanes.pop(unlimited, never).map(|it| it.key), Some(1));
}

/// What runs again anyway needs no timer, which would wake the runner for nothing.
#[test]
fn what_will_run_again_gets_no_timer() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    let later = now + Duration::from_secs(1);
    lanes.push("a", 1, Priority::Normal, now);
    lanes.push_at("a", 1, later);
    assert_eq!(lanes.next_timer(), None, "it waits");
    assert!(lanes.pop(unlimited, never).is_some());
    lanes.push("a", 1, Priority::Normal, now);
    lanes.push_at("a", 1, later);
    assert_eq!(lanes.next_timer(), None, "it changed while it ran");
}

#[test]
fn a_change_cancels_a_timer() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    lanes.push_at("a", 1, now + Duration::from_secs(5));
    lanes.push("a", 1, Priority::Normal, now);
    assert!(lanes.pop(unlimited, never).is_some());
    lanes.finish(&1, now, None);
    assert_eq!(lanes.next_timer(), None);
    assert!(lanes.places.is_empty() && lanes.lanes.is_empty(), "nothing is kept of an idle key");
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8, u8),
    PushAt(u8, u8),
    Pop,
    Finish(u8),
    Advance(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..12u8, 0..3u8).prop_map(|(key, priority)| Step::Push(key, priority)),
        (0..12u8, 0..9u8).prop_map(|(key, after)| Step::PushAt(key, after)),
        Just(Step::Pop),
        Just(Step::Pop),
        any::<u8>().prop_map(Step::Finish),
        (0..5u8).prop_map(Step::Advance),
    ]
}

proptest! {
        /// in any sequence, no key runs twice at the same time, no lane exceeds its limit, no lane with work below its limit is
        /// skipped, and every queued key runs eventually.
    #[test]
    fn the_queue_satisfies_its_invariants(steps in proptest::collection::vec(step(), 1..200)) {
        const LIMIT: usize = 2;
        let lane_of = |key: u8| key % 3;
        let mut now = Instant::now();
        let mut lanes: Lanes<u8, u8> = Lanes::default();
        let mut running: Vec<u8> = Vec::new();
        let mut owed: HashSet<u8> = HashSet::new();
        for step in steps {
            match step {
                Step::Push(key, priority) => {
                    let priority = [Priority::High, Priority::Normal, Priority::Low][usize::from(priority)];
                    lanes.push(lane_of(key), key, priority, now); owed.insert(key);
                }
                Step::PushAt(key, after) => {
                    lanes.push_at(lane_of(key), key, now + Duration::from_secs(u64::from(after)));
                    owed.insert(key);
                }
                Step::Pop => match lanes.pop(|_| LIMIT, |_| None) {
                    Some(started) => {
                        prop_assert!(!running.contains(&started.key));
                        running.push(started.key);
                        owed.remove(&started.key);
                    }
                    None => {
                        let mut room: HashMap<u8, usize> = HashMap::new();
                        for key in &running {
                            *room.entry(lane_of(*key)).or_default() += 1;
                        }
                        for (name, lane) in &lanes.lanes {
                            prop_assert!(lane.waiting.is_empty() || room.get(name) == Some(&LIMIT));
                        }
                    }
                },
                Step::Finish(index) if !running.is_empty() => {
                    let key = running.remove(usize::from(index) % running.len());
                    lanes.finish(&key, now, None);
                }
                Step::Finish(_) => {}
                Step::Advance(seconds) => {
                    now += Duration::from_secs(u64::from(seconds));
                    lanes.expire(now);
                }
            }
            let in_lane = |lane| running.iter().filter(|key| lane_of(**key) == lane).count();
            prop_assert!((0..3).all(|lane| in_lane(lane) <= LIMIT));
        }
        now += Duration::from_secs(60);
        lanes.expire(now);
        for _ in 0..100 {
            running.drain(..).for_each(|key| lanes.finish(&key, now, None));
            while let Some(started) = lanes.pop(|_| LIMIT, |_| None) {
                owed.remove(&started.key);
                running.push(started.key);
            }
        }
        prop_assert!(owed.is_empty(), "never ran: {:?}", owed);
        prop_assert!(lanes.places.is_empty() && lanes.lanes.is_empty());
    }
}
