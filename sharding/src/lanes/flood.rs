//! Tests of the runner under floods, in virtual time: what a lane that fails costs the others, and who starves.
#![allow(clippy::print_stdout, reason = "what was measured")]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Priority,
    rates::Rates,
    runner::{Outcome, Queue, Runner, Terms},
};

/// Lane and number of a key.
type Key = (u8, u32);

/// What was seen of the reconciles.
#[derive(Default)]
struct Seen {
    in_flight: HashMap<u8, usize>,
    /// Most of a lane at once, since it was last asked.
    most: HashMap<u8, usize>,
    delays: Vec<Duration>,
    runs: HashMap<Key, u32>,
}

struct World {
    queue: Queue<u8, Key>,
    seen: Arc<Mutex<Seen>>,
    limit: Arc<AtomicUsize>,
    /// When a key of the lanes that are not flooded was queued.
    queued: Arc<Mutex<HashMap<Key, Instant>>>,
    stop: CancellationToken,
}

/// Runs reconciles that take `work` each; those of lane 0 fail if it `floods`.
fn world(in_flight_max: usize, limit: usize, work: Duration, floods: bool) -> World {
    let (queue, runner) = Runner::<u8, Key>::new("flood", in_flight_max);
    let world = World {
        queue,
        seen: Arc::default(),
        limit: Arc::new(AtomicUsize::new(limit)),
        queued: Arc::default(),
        stop: CancellationToken::new(),
    };
    let (limit, seen, queued) = (Arc::clone(&world.limit), Arc::clone(&world.seen), Arc::clone(&world.queued));
    let stop = world.stop.clone();
    tokio::spawn(async move {
        let (_rates, rates) = watch::channel(Rates::default());
        let (_acting, acting) = watch::channel(true);
        let limit = Box::new(move |_: &u8| limit.load(Ordering::SeqCst));
        let reconcile = move |key: Key| {
            let (seen, queued) = (Arc::clone(&seen), Arc::clone(&queued));
            async move {
                {
                    let mut seen = seen.lock().unwrap();
                    let now = *seen.in_flight.entry(key.0).and_modify(|it| *it += 1).or_insert(1);
                    seen.most.entry(key.0).and_modify(|it| *it = now.max(*it)).or_insert(now);
                    *seen.runs.entry(key).or_default() += 1;
                    let since = queued.lock().unwrap().remove(&key);
                    seen.delays.extend(since.map(|since| since.elapsed()));
                }
                tokio::time::sleep(work).await;
                *seen.lock().unwrap().in_flight.entry(key.0).or_insert(1) -= 1;
                if floods && key.0 == 0 { Outcome::Failed } else { Outcome::Done }
            }
        };
        runner.run(Terms { limit, rates, acting, stop }, reconcile).await;
    });
    world
}

/// ten lanes, one with 1,000 keys that all fail, while the limit is changed.
#[tokio::test(start_paused = true)]
async fn a_lane_of_failing_keys_delays_no_other_and_keeps_its_limit() {
    let world = world(64, 5, Duration::from_millis(50), true);
    (0..1000).for_each(|key| world.queue.push(0, (0, key), Priority::High));
    let mut shown = Vec::new();
    for limit in [5, 12, 2] {
        world.limit.store(limit, Ordering::SeqCst);
        world.queue.limits_changed();
        // What runs above a limit that was lowered ends first.
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.seen.lock().unwrap().most.clear();
        for round in 0..50 {
            for lane in 1..10 {
                let key = (lane, round);
                world.queued.lock().unwrap().insert(key, Instant::now());
                world.queue.push(lane, key, Priority::Normal);
            }
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        let most = world.seen.lock().unwrap().most[&0];
        shown.push(format!("limit {limit}: at most {most} at once"));
        assert_eq!(most, limit, "the flooded lane uses its limit, and no more");
    }
    world.stop.cancel();
    let mut delays = std::mem::take(&mut world.seen.lock().unwrap().delays);
    delays.sort_unstable();
    let p99 = delays[delays.len() * 99 / 100];
    println!(
        "{}; the others' start delay: p99 {p99:?}, at most {:?} of {}",
        shown.join(", "),
        delays.last().unwrap(),
        delays.len()
    );
    assert!(p99 <= Duration::from_millis(5), "{p99:?}");
}

/// a closed loop over capacity: 2,000 keys, 20 at once, 10 ms each, wanted again 200 ms after: ten times more than
/// can run. Each has its turn.
#[tokio::test(start_paused = true)]
async fn nobody_starves_in_a_closed_loop_over_capacity() {
    let world = world(20, 20, Duration::from_millis(10), false);
    let priority = |key: u32| [Priority::High, Priority::Normal, Priority::Low][(key % 3) as usize];
    for _ in 0..125 {
        (0..2000_u32).for_each(|key| world.queue.push(0, (0, key), priority(key)));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.stop.cancel();
    let seen = world.seen.lock().unwrap();
    let of = |wanted: u32| {
        (0..2000).filter(move |key| key % 3 == wanted).map(|key| seen.runs.get(&(0, key)).copied().unwrap_or(0))
    };
    let range = |wanted| (of(wanted).min().unwrap(), of(wanted).max().unwrap());
    println!("runs in 25 s of a key, least and most: high {:?}, normal {:?}, low {:?}", range(0), range(1), range(2));
    assert!((0..2000).all(|key| seen.runs.contains_key(&(0, key))), "none starves, of whatever priority");
}

/// However many lanes have work and room, no more run at once than the member allows, and all that it allows.
#[tokio::test(start_paused = true)]
async fn no_more_run_at_once_than_the_member_allows() {
    const AT_ONCE: usize = 7;
    let work = Duration::from_millis(50);
    let world = world(AT_ONCE, 5, work, false);
    (0..10).for_each(|lane| (0..5).for_each(|key| world.queue.push(lane, (lane, key), Priority::Normal)));
    let begun = Instant::now();
    let mut most = 0;
    while world.seen.lock().unwrap().runs.len() < 50 {
        tokio::time::sleep(work / 2).await;
        most = most.max(world.seen.lock().unwrap().in_flight.values().sum());
    }
    let took = begun.elapsed();
    world.stop.cancel();
    assert_eq!(most, AT_ONCE);
    assert!(took < 9 * work, "{took:?}");
}

/// a raised limit counts at once, also where nothing ends.
#[tokio::test(start_paused = true)]
async fn a_raised_limit_starts_what_waits() {
    let world = world(64, 1, Duration::from_secs(3600), false);
    (0..5).for_each(|key| world.queue.push(0, (0, key), Priority::Normal));
    let in_flight = async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.seen.lock().unwrap().in_flight.get(&0).copied()
    };
    assert_eq!(in_flight().await, Some(1));
    world.limit.store(3, Ordering::SeqCst);
    world.queue.limits_changed();
    assert_eq!(in_flight().await, Some(3));
    world.stop.cancel();
}
