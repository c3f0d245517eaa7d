//! A member's own Lease: the proof that it is alive, and its right to act.
//!
//! Every renewal is a PUT with the resourceVersion of the last, so a compare-and-swap: whoever changed the Lease in
//! between wins, and this member's life ends. The right to act is counted from when the last successful renewal was
//! *sent*, on this machine's monotonic clock; clocks of two machines are never compared.
//!
//! The client that is passed in must not retry: a renewal that is sent again later would count from the wrong time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, timeout};

use crate::Incarnation;

/// Annotation with the id of the attempt that wrote the Lease: tells a lost answer from a lost Lease.
const ATTEMPT_ANNOTATION: &str = "kube-sharding/attempt";

/// Where a member's Lease is and how long it lasts.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// How long others wait, without a renewal, before they take the Lease. The member itself stops acting at 12/15
    /// of it, which tolerates clocks that run up to 11 % apart.
    pub duration: Duration,
    /// Time from one renewal to the next.
    pub renew_interval: Duration,
    /// How long one request may take.
    pub attempt_timeout: Duration,
}

impl LeaseSettings {
    /// How long a member may act after it sent its last successful renewal: 12/15 of the duration.
    pub fn right(&self) -> Duration {
        self.duration * 12 / 15
    }
}

/// Why a Lease was not acquired or not kept.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another member renews it.
    #[error("lease {namespace}/{name} is held by the live member {holder}")]
    HeldByLiveMember {
        /// Namespace of the Lease.
        namespace: String,
        /// Name of the Lease.
        name: String,
        /// Holder as the Lease names it.
        holder: String,
    },
    /// Somebody else changed the Lease: this incarnation is over.
    #[error("lease {0} was taken or removed: this incarnation is over")]
    Fenced(String),
    /// The API server could not be asked.
    #[error("request lease {name}")]
    Request {
        /// Name of the Lease.
        name: String,
        /// What went wrong.
        #[source]
        source: kube::Error,
    },
    /// The API server did not answer in time.
    #[error("request lease {0}: no answer in time")]
    Timeout(String),
}

/// Until when a member may act. Cheap to ask, from any thread.
#[derive(Debug)]
pub struct Right {
    origin: Instant,
    until_millis: AtomicU64,
}

impl Right {
    fn new(origin: Instant) -> Arc<Self> {
        Arc::new(Self { origin, until_millis: AtomicU64::new(0) })
    }

    /// A right that never ends, for a process that holds no Lease.
    pub fn unlimited() -> Arc<Self> {
        Arc::new(Self { origin: Instant::now(), until_millis: AtomicU64::new(u64::MAX) })
    }

    /// Whether the member may act at `now`.
    pub fn holds(&self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.origin).as_millis();
        elapsed < u128::from(self.until_millis.load(Ordering::Acquire))
    }

    fn extend(&self, until: Instant) {
        let millis = until.saturating_duration_since(self.origin).as_millis();
        self.until_millis.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Release);
    }

    fn end(&self) {
        self.until_millis.store(0, Ordering::Release);
    }
}

/// A Lease that this member holds.
pub struct MemberLease {
    api: Api<Lease>,
    settings: LeaseSettings,
    incarnation: Incarnation,
    right: Arc<Right>,
    current: Lease,
    /// Attempts whose answer is not known, with when each was sent.
    unanswered: Vec<(String, Instant)>,
    attempts: u64,
}

impl MemberLease {
    /// Takes the Lease, or says who holds it.
    ///
    /// A Lease of a holder that may be alive is watched for `duration`: if it is renewed meanwhile the holder lives.
    pub async fn acquire(
        client: Client,
        settings: LeaseSettings,
        incarnation: Incarnation,
    ) -> Result<Self, LeaseError> {
        let api: Api<Lease> = Api::namespaced(client, &settings.namespace);
        let mut lease = Self {
            api,
            right: Right::new(Instant::now()),
            current: Lease::default(),
            unanswered: Vec::new(),
            attempts: 0,
            settings,
            incarnation,
        };
        match lease.get().await? {
            None => lease.create().await?,
            Some(found) => lease.take(found).await?,
        }
        Ok(lease)
    }

    /// The member's right to act, which this Lease extends.
    pub fn right(&self) -> Arc<Right> {
        Arc::clone(&self.right)
    }

    /// Changes of holder so far: rises with every new incarnation.
    pub fn transitions(&self) -> i64 {
        self.current.spec.as_ref().and_then(|spec| spec.lease_transitions).map_or(0, i64::from)
    }

    /// Renews until the Lease is lost; an API server that does not answer is asked again, and the right ends by itself.
    pub async fn keep(&mut self) -> LeaseError {
        let mut ticks = tokio::time::interval(self.settings.renew_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.renew().await {
                Ok(()) => {}
                Err(error @ LeaseError::Fenced(_)) => {
                    self.right.end();
                    return error;
                }
                Err(error) => tracing::warn!(%error, "lease was not renewed"),
            }
        }
    }

    /// Gives the Lease back, so that the next member need not wait.
    ///
    /// A renewal that was given up half way may have been applied: then the Lease is read once, and given back if it
    /// is still this member's.
    pub async fn release(mut self) -> Result<(), LeaseError> {
        self.right.end();
        match self.put(self.released()).await {
            Err(error) if is_conflict(&error) || matches!(error, LeaseError::Timeout(_)) => {
                self.judge().await?;
                self.right.end();
                self.put(self.released()).await
            }
            other => other,
        }
    }

    fn released(&self) -> Lease {
        let mut lease = self.current.clone();
        if let Some(spec) = lease.spec.as_mut() {
            spec.holder_identity = Some(String::new());
        }
        lease
    }

    /// One renewal: a PUT; where its answer is missing or is a conflict, the Lease is read and judged by its content.
    async fn renew(&mut self) -> Result<(), LeaseError> {
        let sent = Instant::now();
        let (lease, attempt) = self.next_lease(self.current.clone());
        // What was sent longer ago than a right lasts can extend nothing any more.
        self.unanswered.retain(|(_, earlier)| earlier.elapsed() < self.settings.right());
        self.unanswered.push((attempt, sent));
        match self.put(lease).await {
            Ok(()) => {
                self.unanswered.clear();
                self.right.extend(sent + self.settings.right());
                Ok(())
            }
            Err(error) if is_conflict(&error) || matches!(error, LeaseError::Timeout(_)) => self.judge().await,
            Err(error) => Err(error),
        }
    }

    async fn judge(&mut self) -> Result<(), LeaseError> {
        let fenced = || LeaseError::Fenced(self.settings.name.clone());
        let Some(found) = self.get().await? else { return Err(fenced()) };
        if holder(&found) != self.incarnation.to_string() {
            return Err(fenced());
        }
        let written = found.annotations().get(ATTEMPT_ANNOTATION).cloned().unwrap_or_default();
        if let Some((_, sent)) = self.unanswered.iter().find(|(attempt, _)| *attempt == written) {
            self.right.extend(*sent + self.settings.right());
        }
        self.current = found;
        Ok(())
    }

    async fn take(&mut self, found: Lease) -> Result<(), LeaseError> {
        let former = holder(&found);
        let dead = former.is_empty() || Incarnation::parse(&former).is_some_and(|it| it.same_pod(&self.incarnation));
        if !dead {
            tracing::info!(holder = %former, wait = ?self.settings.duration, "waiting whether the lease's holder is alive");
            tokio::time::sleep(self.settings.duration).await;
            let again = self.get().await?;
            if again.as_ref().and_then(ResourceExt::resource_version) != found.resource_version() {
                return Err(self.held_by(&former));
            }
        }
        let sent = Instant::now();
        let (lease, _) = self.next_lease(found);
        match self.put(lease).await {
            Ok(()) => {
                self.right.extend(sent + self.settings.right());
                Ok(())
            }
            Err(error) if is_conflict(&error) => Err(self.held_by(&former)),
            Err(error) => Err(error),
        }
    }

    async fn create(&mut self) -> Result<(), LeaseError> {
        let sent = Instant::now();
        let blank = Lease {
            metadata: ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec::default()),
        };
        let (lease, _) = self.next_lease(blank);
        let name = self.settings.name.clone();
        let created = timeout(self.settings.attempt_timeout, self.api.create(&PostParams::default(), &lease)).await;
        match created.map_err(|_| LeaseError::Timeout(name.clone()))? {
            Ok(lease) => {
                self.current = lease;
                self.right.extend(sent + self.settings.right());
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Err(self.held_by("another member that just began")),
            Err(source) => Err(LeaseError::Request { name, source }),
        }
    }

    fn held_by(&self, holder: &str) -> LeaseError {
        LeaseError::HeldByLiveMember {
            namespace: self.settings.namespace.clone(),
            name: self.settings.name.clone(),
            holder: holder.to_owned(),
        }
    }

    /// The Lease as this member writes it next, and the id of that attempt.
    fn next_lease(&mut self, mut lease: Lease) -> (Lease, String) {
        self.attempts += 1;
        let attempt = format!("{}.{}", self.incarnation.nonce, self.attempts);
        let me = self.incarnation.to_string();
        #[expect(clippy::disallowed_methods, reason = "for people who read the Lease; no decision uses it")]
        let now = MicroTime(jiff::Timestamp::now());
        lease.annotations_mut().insert(ATTEMPT_ANNOTATION.to_owned(), attempt.clone());
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(me.as_str()) {
            spec.holder_identity = Some(me);
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
        }
        spec.lease_duration_seconds = i32::try_from(self.settings.duration.as_secs().max(1)).ok();
        spec.renew_time = Some(now);
        (lease, attempt)
    }

    async fn get(&self) -> Result<Option<Lease>, LeaseError> {
        let name = self.settings.name.clone();
        timeout(self.settings.attempt_timeout, self.api.get_opt(&name))
            .await
            .map_err(|_| LeaseError::Timeout(name.clone()))?
            .map_err(|source| LeaseError::Request { name, source })
    }

    async fn put(&mut self, lease: Lease) -> Result<(), LeaseError> {
        let name = self.settings.name.clone();
        let params = PostParams::default();
        let request = self.api.replace(&name, &params, &lease);
        self.current = timeout(self.settings.attempt_timeout, request)
            .await
            .map_err(|_| LeaseError::Timeout(name.clone()))?
            .map_err(|source| LeaseError::Request { name, source })?;
        Ok(())
    }
}

fn holder(lease: &Lease) -> String {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default()
}

/// 404 counts too: a Lease that is gone was removed by somebody.
fn is_conflict(error: &LeaseError) -> bool {
    matches!(error, LeaseError::Request { source: kube::Error::Api(status), .. } if status.code == 409 || status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_right_ends_when_it_is_not_extended() {
        let start = Instant::now();
        let right = Right::new(start);
        assert!(!right.holds(start), "nothing was granted yet");
        right.extend(start + Duration::from_secs(12));
        assert!(right.holds(start + Duration::from_millis(11_999)));
        assert!(!right.holds(start + Duration::from_secs(12)));
        right.end();
        assert!(!right.holds(start));
    }

    #[test]
    fn a_member_stops_before_others_may_take_over() {
        let settings = LeaseSettings {
            namespace: "n".into(),
            name: "l".into(),
            duration: Duration::from_secs(15),
            renew_interval: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(2),
        };
        assert_eq!(settings.right(), Duration::from_secs(12));
    }
}
