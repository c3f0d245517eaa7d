//! Who should be coordinator: kube-leader-election on a Lease that people can look at.
//!
//! It says who should, the slot map says who may: the crate compares wall clocks and writes without resourceVersion, so
//! its mistakes must cost time only.

use std::{pin::Pin, sync::Arc, time::Duration};

use kube::Client;
use kube_leader_election::{LeaseLock, LeaseLockParams, LeaseLockResult};

use crate::wire::Names;

/// A future that may be sent between threads.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Says which member should be coordinator.
pub trait Election: Send + Sync + 'static {
    /// Stands for election, or keeps the office: the name of the elected member's Lease, if that is known.
    fn stand(&self) -> Boxed<Option<Arc<str>>>;

    /// Gives the office back.
    fn withdraw(&self) -> Boxed<()>;
}

/// The election of a fleet.
pub struct LeaseElection {
    lock: Arc<LeaseLock>,
    timeout: Duration,
}

impl LeaseElection {
    /// `member` stands, by the name of its Lease. `client` must not retry.
    pub fn new(client: Client, names: &Names, member: &str, lease_duration: Duration, timeout: Duration) -> Self {
        let params = LeaseLockParams {
            lease_name: names.coordinator_lease(),
            holder_id: member.to_owned(),
            lease_ttl: lease_duration,
        };
        Self { lock: Arc::new(LeaseLock::new(client, &names.namespace, params)), timeout }
    }
}

impl Election for LeaseElection {
    fn stand(&self) -> Boxed<Option<Arc<str>>> {
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

    fn withdraw(&self) -> Boxed<()> {
        let (lock, limit) = (Arc::clone(&self.lock), self.timeout);
        Box::pin(async move {
            // One that does not hold the office is told so, and that is all right.
            let _ = tokio::time::timeout(limit, lock.step_down()).await;
        })
    }
}
