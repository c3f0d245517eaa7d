//! Election of the coordinator.
//!
//! The election only proposes a coordinator; the slot map decides: its mistakes cost no more than time.

#[cfg(all(feature = "election", not(feature = "kube-5")))]
use std::time::Duration;
use std::{pin::Pin, sync::Arc};

#[cfg(all(feature = "election", not(feature = "kube-5")))]
use kube::Client;
#[cfg(all(feature = "election", not(feature = "kube-5")))]
use kube_leader_election::{LeaseLock, LeaseLockParams, LeaseLockResult};

#[cfg(all(feature = "election", not(feature = "kube-5")))]
use crate::wire::Names;

/// A boxed future that can be sent between threads.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Proposes the coordinator.
pub trait Election: Send + Sync + 'static {
    /// Takes part in the election, or renews; returns the name of the elected member's Lease, if known.
    fn campaign(&self) -> Boxed<Option<Arc<str>>>;

    /// Steps down.
    fn step_down(&self) -> Boxed<()>;
}

/// Elects no member: a place that is free for a Lease's duration is taken by any member, and who stops hands it over at once.
///
/// Enough where the coordinator may be missing for two Leases' durations after a crash, and the choice where no election
/// is at hand (kube 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unelected;

impl Election for Unelected {
    fn campaign(&self) -> Boxed<Option<Arc<str>>> {
        Box::pin(async { None })
    }

    fn step_down(&self) -> Boxed<()> {
        Box::pin(async {})
    }
}

/// Election with a Lease, by kube-leader-election. That compares wall clocks and writes without resourceVersion.
#[cfg(all(feature = "election", not(feature = "kube-5")))]
pub struct LeaseElection {
    lock: Arc<LeaseLock>,
    timeout: Duration,
}

#[cfg(all(feature = "election", not(feature = "kube-5")))]
impl LeaseElection {
    /// An election in which `member`, the name of its Lease, takes part. `client` must not retry.
    pub fn new(client: Client, names: &Names, member: &str, lease_duration: Duration, timeout: Duration) -> Self {
        let params = LeaseLockParams {
            lease_name: names.coordinator_lease(),
            holder_id: member.to_owned(),
            lease_ttl: lease_duration,
        };
        Self { lock: Arc::new(LeaseLock::new(client, &names.namespace, params)), timeout }
    }
}

#[cfg(all(feature = "election", not(feature = "kube-5")))]
impl Election for LeaseElection {
    fn campaign(&self) -> Boxed<Option<Arc<str>>> {
        let (lock, limit) = (Arc::clone(&self.lock), self.timeout);
        Box::pin(async move {
            match tokio::time::timeout(limit, lock.try_acquire_or_renew()).await {
                Ok(Ok(LeaseLockResult::Acquired(lease) | LeaseLockResult::NotAcquired(lease))) => {
                    lease.spec?.holder_identity.filter(|it| !it.is_empty()).map(Arc::from)
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "election gave no answer");
                    None
                }
                Err(_) => None,
            }
        })
    }

    fn step_down(&self) -> Boxed<()> {
        let (lock, limit) = (Arc::clone(&self.lock), self.timeout);
        Box::pin(async move {
            // An error because this member does not hold the Lease is harmless.
            let _ = tokio::time::timeout(limit, lock.step_down()).await;
        })
    }
}
