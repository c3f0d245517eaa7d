//! Tests of the runner, in virtual time: when keys run, and run again.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinHandle;

use super::*;

/// A timer is rounded up to this.
const TICK: Duration = Duration::from_millis(1);

/// What has not started after this time never starts.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// A running runner, which allows four reconciles at once and one of a lane.
struct Running {
    queue: Queue<&'static str, u8>,
    /// Keys, and when they started.
    started: mpsc::UnboundedReceiver<(u8, Instant)>,
    rates: watch::Sender<Rates>,
    acting: watch::Sender<bool>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// `reconcile` is given how many reconciles started before.
    fn new<R>(reconcile: impl Fn(usize) -> R + Send + Sync + 'static) -> Self
    where
        R: Future<Output = Outcome> + Send + 'static,
    {
        let (queue, runner) = Runner::<&str, u8>::new("test", 4);
        let (sender, started) = mpsc::unbounded_channel();
        let (stop, count) = (CancellationToken::new(), AtomicUsize::new(0));
        let (rates, acting) = (watch::Sender::new(Rates::default()), watch::Sender::new(true));
        let (limit, terms_stop) = (Box::new(|_: &&str| 1), stop.clone());
        let terms = Terms { limit, rates: rates.subscribe(), acting: acting.subscribe(), stop: terms_stop };
        let task = tokio::spawn(runner.run(terms, move |key| {
            let _ = sender.send((key, now()));
            reconcile(count.fetch_add(1, Ordering::SeqCst))
        }));
        Self { queue, started, rates, acting, stop, task }
    }

    /// The same, of reconciles that end at once.
    fn ending(outcome: impl Fn(usize) -> Outcome + Send + Sync + 'static) -> Self {
        Self::new(move |before| std::future::ready(outcome(before)))
    }

    /// When the next reconciles start.
    async fn starts(&mut self, count: usize) -> Vec<Instant> {
        let mut starts = Vec::new();
        while starts.len() < count {
            let next = tokio::time::timeout(PATIENCE, self.started.recv()).await.expect("it starts");
            starts.push(next.expect("it runs").1);
        }
        starts
    }

    async fn end(&mut self) {
        self.stop.cancel();
        (&mut self.task).await.expect("the runner ends");
    }
}

/// A panic of one reconcile ends neither the others nor the key: it runs again.
#[tokio::test(start_paused = true)]
async fn a_reconcile_that_panics_runs_again() {
    let mut running = Running::new(|before| async move {
        assert!(before > 0, "the first run panics on purpose");
        Outcome::Done
    });
    running.queue.push("lane", 1, Priority::Normal);
    running.starts(2).await;
    running.end().await;
}

/// What is missing for long and then meets an outage runs again soon after it, and so does what has met many.
#[tokio::test(start_paused = true)]
async fn an_outage_is_no_failure_of_the_key() {
    let mut running = Running::ending(|before| if before < 20 { Outcome::Missing } else { Outcome::Unavailable });
    running.queue.push("lane", 1, Priority::Normal);
    let starts = running.starts(40).await;
    running.end().await;
    let wait = |index: usize| starts[index + 1].saturating_duration_since(starts[index]);
    // Jitter adds up to as much again.
    assert!(wait(18) >= BACKOFF_MISSING.1, "{:?}", wait(18));
    assert!(wait(20) <= 2 * BACKOFF_UNAVAILABLE.0 + TICK, "{:?}", wait(20));
    let longest = (20..39).map(wait).max().unwrap_or_default();
    assert!(longest <= 2 * BACKOFF_UNAVAILABLE.1 + TICK, "{longest:?}");
}

/// A key that came to its end and fails again much later is retried as after its first failure.
#[tokio::test(start_paused = true)]
async fn a_success_ends_the_backoff() {
    for success in [Outcome::Done, Outcome::After(SETTLE)] {
        let mut running = Running::ending(move |before| if before == 6 { success } else { Outcome::Failed });
        running.queue.push("lane", 1, Priority::High);
        let failed = running.starts(7).await;
        let waited = failed[6] - failed[5];
        assert!(waited >= 32 * BACKOFF.0, "{waited:?}");
        running.queue.push("lane", 1, Priority::High);
        let failed = running.starts(2).await;
        let waited = failed[1] - failed[0];
        running.end().await;
        assert!((BACKOFF.0..=2 * BACKOFF.0 + TICK).contains(&waited), "after {success:?}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_that_asks_for_it_runs_again_after_its_time() {
    let hour = Duration::from_secs(3600);
    let mut running = Running::ending(move |before| Outcome::After(if before == 0 { hour } else { Duration::MAX }));
    running.queue.push("lane", 1, Priority::High);
    let starts = running.starts(2).await;
    let waited = starts[1] - starts[0];
    assert!((hour..=hour + TICK).contains(&waited), "{waited:?}");
    // A time that no clock can count: it runs when it changes.
    running.queue.push("lane", 1, Priority::High);
    running.starts(1).await;
    running.end().await;
}

/// A burst of changes that no user waits for is one reconcile; an edit by a user is not delayed by it.
#[tokio::test(start_paused = true)]
async fn a_burst_is_batched_and_edits_by_users_do_not_wait() {
    let begun = now();
    let mut running = Running::ending(|_| Outcome::Done);
    for _ in 0..5 {
        running.queue.settle("lane", 1);
        running.queue.settle("lane", 2);
        tokio::time::sleep(SETTLE / 10).await;
    }
    running.queue.push("lane", 2, Priority::High);
    tokio::time::sleep(SETTLE * 10).await;
    running.end().await;
    let mut runs = Vec::new();
    while let Ok((key, at)) = running.started.try_recv() {
        runs.push((key, at - begun));
    }
    assert_eq!(runs, [(2, SETTLE / 2), (1, SETTLE)]);
}

/// While the member may not act, keys wait; then they run.
#[tokio::test(start_paused = true)]
async fn nothing_starts_while_the_member_may_not_act() {
    let mut running = Running::ending(|_| Outcome::Done);
    running.acting.send_replace(false);
    running.queue.push("lane", 1, Priority::High);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(running.started.try_recv().is_err(), "it may not act");
    running.acting.send_replace(true);
    running.starts(1).await;
    running.end().await;
}

/// After a conflict a key runs again within a fraction of a second, even if no watch shows a change.
#[tokio::test(start_paused = true)]
async fn a_conflict_runs_again_soon() {
    let mut running = Running::ending(|before| if before == 0 { Outcome::Conflict } else { Outcome::Done });
    running.queue.push("lane", 1, Priority::High);
    let starts = running.starts(2).await;
    running.end().await;
    let waited = starts[1] - starts[0];
    // Jitter adds up to as much again.
    assert!((BACKOFF_CONFLICT.0..=2 * BACKOFF_CONFLICT.0 + TICK).contains(&waited), "{waited:?}");
}

/// A runner that is told to stop starts nothing more, and ends with what runs.
#[tokio::test(start_paused = true)]
async fn what_runs_ends_before_the_runner() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let mut running = Running::new(move |_| {
        let count = Arc::clone(&count);
        async move {
            tokio::time::sleep(DRAIN_MAX / 2).await;
            count.fetch_add(1, Ordering::SeqCst);
            Outcome::Done
        }
    });
    running.queue.push("lane", 1, Priority::High);
    running.queue.push("lane", 2, Priority::High);
    running.starts(1).await;
    running.end().await;
    assert_eq!(ended.load(Ordering::SeqCst), 1, "one of a lane at once");
}

/// Rates hold for what starts, and a change of them counts at once.
#[cfg(feature = "rates")]
#[tokio::test(start_paused = true)]
async fn no_more_start_in_a_second_than_the_rates_allow() {
    let mut running = Running::ending(|_| Outcome::Done);
    running.rates.send_replace(Rates { member_per_second: 10, lane_per_second: 0 });
    (0..70).for_each(|key| running.queue.push("lane", key, Priority::High));
    let starts = running.starts(70).await;
    let took = starts[69] - starts[0];
    // Twenty at once, and then ten in a second.
    assert!((Duration::from_secs(5)..Duration::from_millis(5200)).contains(&took), "{took:?}");
    running.rates.send_replace(Rates { member_per_second: 0, lane_per_second: 1 });
    (0..4).for_each(|key| running.queue.push("one", key, Priority::High));
    (4..8).for_each(|key| running.queue.push("other", key, Priority::High));
    let starts = running.starts(8).await;
    running.end().await;
    let took = starts[7] - starts[0];
    assert!((Duration::from_secs(2)..Duration::from_millis(2200)).contains(&took), "two at once of each: {took:?}");
}
