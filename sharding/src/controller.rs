//! A controller: a queue with lanes, and the reconciles that it starts.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    failure::WAIT_FOR_RIGHT,
    gate::{Gate, Refusal, Scope},
    key::Key,
    lanes::{
        rates::Rates,
        runner::{Outcome, Runner, Terms},
    },
    readiness::Ready,
};

type Reconcile<S> = Arc<dyn Fn(Arc<S>, Key, Scope, i64) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

type Scopes<S> = Arc<dyn Fn(&S, &Key) -> Vec<Scope> + Send + Sync>;
type Limit<S> = Arc<dyn Fn(&S, &Key) -> usize + Send + Sync>;
type RatesOf<S> = Arc<dyn Fn(&S) -> watch::Receiver<Rates> + Send + Sync>;

/// A controller: which keys it reconciles, for whom, and how many at once. `S` is what an incarnation works with.
#[must_use = "it does nothing until it is added to a replica"]
pub struct Controller<S> {
    /// Name of its queue, as in metrics.
    pub(crate) name: &'static str,
    /// Reconciles at once, over all lanes.
    pub(crate) in_flight_max: usize,
    scopes: Scopes<S>,
    limit: Limit<S>,
    rates: RatesOf<S>,
    reconcile: Reconcile<S>,
}

impl<S> Clone for Controller<S> {
    fn clone(&self) -> Self {
        Self {
            scopes: Arc::clone(&self.scopes),
            limit: Arc::clone(&self.limit),
            rates: Arc::clone(&self.rates),
            reconcile: Arc::clone(&self.reconcile),
            ..*self
        }
    }
}

impl<S: Send + Sync + 'static> Controller<S> {
    /// A controller named as in metrics, with at most `in_flight_max` reconciles at once. `reconcile` is called with a key, one of
    /// its scopes and the epoch of that scope's owner, if this replica owns it and everything that it reads is listed.
    pub fn new<R>(
        name: &'static str,
        in_flight_max: usize,
        reconcile: impl Fn(Arc<S>, Key, Scope, i64) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = Outcome> + Send + 'static,
    {
        Self {
            name,
            in_flight_max,
            scopes: Arc::new(|_, _| vec![Scope::Coordinator]),
            limit: Arc::new(|_, _| usize::MAX),
            rates: Arc::new(|_| watch::channel(Rates::default()).1),
            reconcile: Arc::new(move |state, key, scope, epoch| Box::pin(reconcile(state, key, scope, epoch))),
        }
    }

    /// Whose business a key is, such as the slot of its object; none if there is nothing to do. Default: the coordinator's.
    pub fn scopes(mut self, scopes: impl Fn(&S, &Key) -> Vec<Scope> + Send + Sync + 'static) -> Self {
        self.scopes = Arc::new(scopes);
        self
    }

    /// Most reconciles of a lane at once, read whenever it starts one. Default: no limit.
    pub fn limit(mut self, limit: impl Fn(&S, &Key) -> usize + Send + Sync + 'static) -> Self {
        self.limit = Arc::new(limit);
        self
    }

    /// Reconciles that may start in a second. Default: no limit.
    #[cfg(feature = "rates")]
    pub fn rates(self, rates: impl Fn(&S) -> watch::Receiver<Rates> + Send + Sync + 'static) -> Self {
        self.with_rates(rates)
    }

    pub(crate) fn with_rates(mut self, rates: impl Fn(&S) -> watch::Receiver<Rates> + Send + Sync + 'static) -> Self {
        self.rates = Arc::new(rates);
        self
    }

    /// With another number of reconciles at once.
    pub(crate) fn at_once(self, in_flight_max: usize) -> Self {
        Self { in_flight_max, ..self }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(
        self,
        runner: Runner<Key, Key>,
        state: Arc<S>,
        gate: Gate,
        ready: Ready,
        stop: CancellationToken,
    ) {
        let (limit, limits) = (self.limit, Arc::clone(&state));
        let terms = Terms {
            limit: Box::new(move |lane: &Key| limit(&limits, lane)),
            rates: (self.rates)(&state),
            acting: gate.acting(),
            stop,
        };
        let (scopes, reconcile) = (self.scopes, self.reconcile);
        let each = move |key: Key| {
            let (state, gate, ready) = (Arc::clone(&state), gate.clone(), ready.clone());
            let (scopes, reconcile) = (Arc::clone(&scopes), Arc::clone(&reconcile));
            async move {
                let mut outcome = Outcome::Done;
                // What is not ready is queued again when everything of it is listed.
                for scope in scopes(&state, &key).into_iter().filter(|scope| ready.has(*scope)) {
                    let work = |epoch| reconcile(Arc::clone(&state), key.clone(), scope, epoch);
                    match admitted(&gate, scope, work).await {
                        Outcome::Done => {}
                        other => outcome = other,
                    }
                }
                outcome
            }
        };
        runner.run(terms, each).await;
    }
}

/// Does the work if the gate lets it start, until it must end.
async fn admitted<R: Future<Output = Outcome>>(gate: &Gate, scope: Scope, work: impl FnOnce(i64) -> R) -> Outcome {
    match gate.admit(scope) {
        Ok(permit) => tokio::select! {
            biased;
            () = permit.cancelled() => Outcome::Done,
            outcome = work(permit.epoch()) => outcome,
        },
        // Another member owns it now, and reconciles it.
        Err(Refusal::NotOwner) => Outcome::Done,
        Err(Refusal::Suspended) => Outcome::After(WAIT_FOR_RIGHT),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        future::{pending, ready},
        time::Duration,
    };

    use super::*;
    use crate::{clock::SystemClock, gate::Opening, slot::Slot};

    const SLOT: Scope = Scope::Slot(Slot::new(7));

    fn gate() -> Gate {
        Gate::open_for_all(Arc::new(SystemClock::default()))
    }

    #[tokio::test]
    async fn work_ends_with_its_slot() {
        let gate = gate();
        let work = tokio::spawn({
            let gate = gate.clone();
            async move { admitted(&gate, SLOT, |_| pending()).await }
        });
        while gate.in_flight_on(SLOT) == 0 {
            tokio::task::yield_now().await;
        }
        gate.cancel(SLOT.entry());
        let ended = tokio::time::timeout(Duration::from_secs(5), work).await.expect("it ends");
        assert_eq!(ended.expect("no panic"), Outcome::Done, "its next owner does it");
    }

    /// No list brings the key of a suspended member again, because no slot is lost.
    #[tokio::test]
    async fn a_suspended_member_keeps_the_key_and_one_that_owns_nothing_drops_it() {
        let gate = gate();
        let done = |_| ready(Outcome::Missing);
        assert_eq!(admitted(&gate, SLOT, done).await, Outcome::Missing, "what the work says");
        let entries = [(SLOT.entry(), 1)].into();
        gate.set(&Opening { until: Some(Duration::ZERO), entries, draining: BTreeSet::new() });
        assert_eq!(admitted(&gate, SLOT, done).await, Outcome::After(WAIT_FOR_RIGHT));
        gate.set(&Opening { until: Some(Duration::MAX), entries: [].into(), draining: BTreeSet::new() });
        assert_eq!(admitted(&gate, SLOT, done).await, Outcome::Done);
    }
}
