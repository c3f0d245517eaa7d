//! Runs reconciles from lanes: one task owns the queue, each reconcile is a task of its own.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use dashmap::DashMap;
use metrics::{counter, gauge, histogram};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Lanes, Priority,
    rates::{Buckets, Rates},
};
use crate::gauges::MetricNames;

/// Shortest and longest wait before a reconcile that failed runs again.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Shortest and longest wait before something that is missing is looked for again.
const BACKOFF_MISSING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// Shortest and longest wait after a conflict: the watch brings what changed, mostly sooner.
const BACKOFF_CONFLICT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// Shortest and longest wait while the API server does not answer: what waits when it does again is not held up long.
const BACKOFF_UNAVAILABLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Failures after which the wait does not grow any more.
const BACKOFF_STEPS: usize = 12;
/// How often ages are reported while something waits or runs.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// How long running reconciles may take to end when the process stops.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// How long changes are gathered that no person waits for. What a reconcile writes comes back by the watches within
/// milliseconds, and one write makes other controllers write several times: one reconcile answers all of it.
pub const SETTLE: Duration = Duration::from_millis(100);

/// What a reconcile says at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing to do until something changes.
    Done,
    /// Run again after this time, unless something changes sooner.
    After(Duration),
    /// The world changed under it: run again with backoff, 50 ms to 30 s.
    Conflict,
    /// It waits for something that no watch shows: run again with backoff, 2 s to 1 min.
    Missing,
    /// The API server did not answer, or was too busy: run again with backoff, 1 s to 10 s.
    Unavailable,
    /// It failed: run again with backoff, 1 s to 5 min.
    Failed,
}

impl Outcome {
    fn result(self) -> &'static str {
        match self {
            Self::Done => "success",
            Self::After(_) | Self::Missing => "requeue_after",
            Self::Conflict => "requeue",
            Self::Unavailable | Self::Failed => "error",
        }
    }

    /// For those that run again with backoff: their place in [`Failures`], and the shortest and longest wait.
    fn backoff(self) -> Option<(usize, (Duration, Duration))> {
        match self {
            Self::Done | Self::After(_) => None,
            Self::Conflict => Some((0, BACKOFF_CONFLICT)),
            Self::Missing => Some((1, BACKOFF_MISSING)),
            Self::Unavailable => Some((2, BACKOFF_UNAVAILABLE)),
            Self::Failed => Some((3, BACKOFF)),
        }
    }
}

/// How often a key came to each outcome with backoff since it last came to its end. Each is counted for itself: what has
/// waited long for something that is missing is not a key that failed often.
type Failures = [usize; 4];

enum Message<L, K> {
    Push(L, K, Priority),
    Settle(L, K),
    LimitsChanged,
}

/// Where changes are put in. Cheap to clone.
pub struct Queue<L, K>(mpsc::UnboundedSender<Message<L, K>>);

impl<L, K> Clone for Queue<L, K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L, K> Queue<L, K> {
    /// Queues a key; nothing happens once the runner has ended. The channel holds what the runner has not taken yet;
    /// the queue behind it holds each key once.
    pub fn push(&self, lane: L, key: K, priority: Priority) {
        let _ = self.0.send(Message::Push(lane, key, priority));
    }

    /// Queues a key in [`SETTLE`], unless it is queued sooner: for changes that come in bursts.
    pub fn settle(&self, lane: L, key: K) {
        let _ = self.0.send(Message::Settle(lane, key));
    }

    /// A limit may have been raised.
    pub fn limits_changed(&self) {
        let _ = self.0.send(Message::LimitsChanged);
    }
}

/// By what a runner goes while it runs.
pub struct Terms<L> {
    /// How many of a lane may run at once.
    pub limit: Box<dyn Fn(&L) -> usize + Send + Sync>,
    /// How many may start in a second.
    pub rates: watch::Receiver<Rates>,
    /// Whether anything may start at all: while the member is suspended, keys wait.
    pub acting: watch::Receiver<bool>,
    /// Ends the runner.
    pub stop: CancellationToken,
}

/// A queue and the reconciles that it feeds.
pub struct Runner<L, K> {
    name: &'static str,
    metrics: MetricNames,
    receiver: mpsc::UnboundedReceiver<Message<L, K>>,
    lanes: Lanes<L, K>,
    failures: Arc<DashMap<K, Failures>>,
    in_flight_max: usize,
}

impl<L, K> Runner<L, K>
where
    L: Clone + Eq + Hash + Ord + Send + 'static,
    K: Clone + Eq + Hash + Ord + Send + Sync + 'static,
{
    /// A runner named as in metrics, with at most `in_flight_max` reconciles at once over all lanes.
    pub fn new(name: &'static str, in_flight_max: usize) -> (Queue<L, K>, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (lanes, failures) = (Lanes::default(), Arc::default());
        (Queue(sender), Self { name, metrics: MetricNames::default(), receiver, lanes, failures, in_flight_max })
    }

    /// With metrics of these names.
    #[must_use]
    pub fn with_metrics(self, metrics: MetricNames) -> Self {
        Self { metrics, ..self }
    }

    /// Runs until told to stop, then lets running reconciles end.
    pub async fn run<F, R>(mut self, mut terms: Terms<L>, reconcile: F)
    where
        F: Fn(K) -> R,
        R: Future<Output = Outcome> + Send + 'static,
    {
        let mut tasks: JoinSet<(K, Outcome, Duration)> = JoinSet::new();
        let mut running = HashMap::new();
        let mut buckets = Buckets::new(*terms.rates.borrow());
        loop {
            buckets.change(*terms.rates.borrow_and_update());
            self.lanes.expire(now());
            let acting = *terms.acting.borrow_and_update();
            let rest =
                if acting { self.start(&terms, &mut buckets, &reconcile, &mut tasks, &mut running) } else { None };
            self.report(&running);
            let timer = self.lanes.next_timer().into_iter().chain(rest).min();
            tokio::select! {
                biased;
                () = terms.stop.cancelled() => break,
                Some(ended) = tasks.join_next_with_id() => {
                    let id = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
                    let key = running.remove(&id).map(|(key, _)| key);
                    match ended {
                        Ok((_, (key, outcome, took))) => self.ended(&key, outcome, took),
                        Err(error) => self.panicked(key, &error),
                    }
                }
                message = self.receiver.recv() => match message {
                    Some(message) => self.handle(message),
                    None => break,
                },
                Ok(()) = terms.acting.changed() => {}
                Ok(()) = terms.rates.changed() => {}
                () = until(timer) => {}
                // What waits or runs grows older without anything happening.
                () = tokio::time::sleep(REPORT_INTERVAL), if self.lanes.depth() + self.lanes.running() > 0 => {}
            }
        }
        let drained = tokio::time::timeout(DRAIN_MAX, async { while tasks.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!(queue = self.name, left = tasks.len(), "reconciles cancelled at shutdown");
        }
    }

    /// Starts what may start; answers until when the member must rest.
    fn start<F, R>(
        &mut self,
        terms: &Terms<L>,
        buckets: &mut Buckets<L>,
        reconcile: &F,
        tasks: &mut JoinSet<(K, Outcome, Duration)>,
        running: &mut HashMap<tokio::task::Id, (K, Instant)>,
    ) -> Option<Instant>
    where
        F: Fn(K) -> R,
        R: Future<Output = Outcome> + Send + 'static,
    {
        while self.lanes.running() < self.in_flight_max && self.lanes.depth() > 0 {
            let rest = buckets.member_rest();
            if rest.is_some() {
                return rest;
            }
            let started = self.lanes.pop(&terms.limit, |lane| buckets.lane_rest(lane))?;
            buckets.started();
            histogram!("workqueue_queue_duration_seconds", "name" => self.name)
                .record(since(started.queued_at).as_secs_f64());
            let (key, work) = (started.key.clone(), reconcile(started.key));
            let task = tasks.spawn(timed(key.clone(), work));
            running.insert(task.id(), (key, now()));
        }
        None
    }

    fn handle(&mut self, first: Message<L, K>) {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Push(lane, key, priority) => {
                    if self.lanes.push(lane, key, priority, now()) {
                        counter!("workqueue_adds_total", "name" => self.name).increment(1);
                    }
                }
                Message::Settle(lane, key) => self.lanes.push_at(lane, key, now() + SETTLE),
                Message::LimitsChanged => self.lanes.limits_changed(),
            }
            next = self.receiver.try_recv().ok();
        }
    }

    fn ended(&mut self, key: &K, outcome: Outcome, took: Duration) {
        let name = self.name;
        counter!("controller_runtime_reconcile_total", "controller" => name, "result" => outcome.result()).increment(1);
        histogram!("controller_runtime_reconcile_time_seconds", "controller" => name).record(took.as_secs_f64());
        histogram!("workqueue_work_duration_seconds", "name" => name).record(took.as_secs_f64());
        if matches!(outcome, Outcome::Unavailable | Outcome::Failed) {
            counter!("controller_runtime_reconcile_errors_total", "controller" => name).increment(1);
            counter!("workqueue_retries_total", "name" => name).increment(1);
        }
        let wait = match outcome {
            Outcome::After(wait) => Some(wait),
            other => other.backoff().map(|backoff| self.next_backoff(key, backoff)),
        };
        if matches!(outcome, Outcome::Done | Outcome::After(_)) {
            self.failures.remove(key);
        }
        let ended_at = now();
        // What should run again after longer than a clock can count runs when it changes.
        self.lanes.finish(key, ended_at, wait.and_then(|wait| ended_at.checked_add(wait)));
    }

    fn panicked(&mut self, key: Option<K>, error: &tokio::task::JoinError) {
        counter!("controller_runtime_reconcile_panics_total", "controller" => self.name).increment(1);
        tracing::error!(queue = self.name, %error, "reconcile panicked: a bug, please report it");
        if let Some(key) = key {
            self.ended(&key, Outcome::Failed, Duration::ZERO);
        }
    }

    fn next_backoff(&self, key: &K, (place, (shortest, longest)): (usize, (Duration, Duration))) -> Duration {
        let mut of_key = self.failures.entry(key.clone()).or_default();
        let failures = &mut of_key[place];
        *failures = (*failures + 1).min(BACKOFF_STEPS);
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(shortest)
            .with_max_delay(longest)
            .with_max_times(BACKOFF_STEPS)
            .with_jitter()
            .build();
        waits.nth(*failures - 1).unwrap_or(longest)
    }

    fn report(&self, running: &HashMap<tokio::task::Id, (K, Instant)>) {
        #[allow(clippy::cast_precision_loss, reason = "a queue has less than 2^52 keys")]
        let number = |count: usize| count as f64;
        let name = self.name;
        gauge!("workqueue_depth", "name" => name).set(number(self.lanes.depth()));
        gauge!("controller_runtime_active_workers", "controller" => name).set(number(self.lanes.running()));
        let oldest = self.lanes.oldest().map_or(0.0, |queued_at| since(queued_at).as_secs_f64());
        gauge!(self.metrics.lanes, "name" => name).set(number(self.lanes.lanes()));
        gauge!(self.metrics.oldest_pending_seconds, "name" => name).set(oldest);
        let ages = running.values().map(|(_, begun)| since(*begun).as_secs_f64());
        gauge!("workqueue_longest_running_processor_seconds", "name" => name).set(ages.clone().fold(0.0, f64::max));
        gauge!("workqueue_unfinished_work_seconds", "name" => name).set(ages.sum::<f64>());
    }
}

/// The runtime's clock, so that tests may run in virtual time.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn since(instant: Instant) -> Duration {
    now().saturating_duration_since(instant)
}

async fn timed<K, R: Future<Output = Outcome>>(key: K, work: R) -> (K, Outcome, Duration) {
    let begun = now();
    let outcome = work.await;
    (key, outcome, since(begun))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
