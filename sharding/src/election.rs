//! Election of the coordinator.
//!
//! The election only proposes a coordinator; the slot map decides: its mistakes cost no more than time.

use std::{pin::Pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

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

/// Election with a Lease: its holder is elected until it has not renewed it for the Lease's duration, by the candidates' wall
/// clocks. Each write names the version of the Lease that it follows from, so that of several candidates one succeeds.
pub struct LeaseElection {
    candidate: Arc<Candidate>,
    timeout: Duration,
}

impl LeaseElection {
    /// An election in which `member`, the name of its Lease, takes part. `client` must not retry.
    pub fn new(client: Client, names: &Names, member: &str, lease_duration: Duration, timeout: Duration) -> Self {
        let candidate = Candidate {
            leases: Api::namespaced(client, &names.namespace),
            lease: names.coordinator_lease(),
            member: member.to_owned(),
            seconds: i32::try_from(lease_duration.as_secs().max(1)).unwrap_or(i32::MAX),
        };
        Self { candidate: Arc::new(candidate), timeout }
    }
}

impl Election for LeaseElection {
    fn campaign(&self) -> Boxed<Option<Arc<str>>> {
        let (candidate, limit) = (Arc::clone(&self.candidate), self.timeout);
        Box::pin(async move {
            match tokio::time::timeout(limit, candidate.campaign()).await {
                Ok(Ok(elected)) => elected,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "election gave no answer");
                    None
                }
                Err(_) => None,
            }
        })
    }

    fn step_down(&self) -> Boxed<()> {
        let (candidate, limit) = (Arc::clone(&self.candidate), self.timeout);
        Box::pin(async move {
            // Without it, the others wait for the Lease's duration.
            let _ = tokio::time::timeout(limit, candidate.step_down()).await;
        })
    }
}

/// A member that takes part in the election.
struct Candidate {
    leases: Api<Lease>,
    /// Name of the election's Lease.
    lease: String,
    /// Name of the member's own Lease.
    member: String,
    /// How long it is elected without a renewal.
    seconds: i32,
}

impl Candidate {
    async fn campaign(&self) -> Result<Option<Arc<str>>, kube::Error> {
        let now = wall_clock();
        let Some(found) = self.leases.get_opt(&self.lease).await? else {
            let metadata = ObjectMeta { name: Some(self.lease.clone()), ..ObjectMeta::default() };
            let first = Lease { metadata, spec: self.next(&LeaseSpec::default(), now) };
            return Ok(holder(&self.leases.create(&PostParams::default(), &first).await?));
        };
        match self.next(&found.spec.clone().unwrap_or_default(), now) {
            Some(next) => Ok(holder(&self.write(&found, &next).await?)),
            None => Ok(holder(&found)),
        }
    }

    async fn step_down(&self) -> Result<(), kube::Error> {
        let Some(found) = self.leases.get_opt(&self.lease).await? else { return Ok(()) };
        if holder(&found).as_deref() == Some(self.member.as_str()) {
            let (holder_identity, lease_duration_seconds) = (Some(String::new()), Some(1));
            let vacant = LeaseSpec { holder_identity, lease_duration_seconds, ..LeaseSpec::default() };
            self.write(&found, &vacant).await?;
        }
        Ok(())
    }

    /// What the candidate makes of the Lease; None while another is elected.
    fn next(&self, found: &LeaseSpec, now: Timestamp) -> Option<LeaseSpec> {
        let holder = found.holder_identity.as_deref().filter(|it| !it.is_empty());
        if holder != Some(&self.member) && holder.is_some() && !is_over(found, now) {
            return None;
        }
        let (is_renewal, now) = (holder == Some(&self.member), MicroTime(now));
        Some(LeaseSpec {
            holder_identity: Some(self.member.clone()),
            lease_duration_seconds: Some(self.seconds),
            acquire_time: if is_renewal { found.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: found.lease_transitions.map(|it| it.saturating_add(i32::from(!is_renewal))).or(Some(0)),
            ..LeaseSpec::default()
        })
    }

    /// Changes the Lease, unless it has changed since.
    async fn write(&self, found: &Lease, spec: &LeaseSpec) -> Result<Lease, kube::Error> {
        let Lease { metadata: ObjectMeta { uid, resource_version, .. }, .. } = found;
        let change = json!({"metadata": {"uid": uid, "resourceVersion": resource_version}, "spec": spec});
        self.leases.patch(&self.lease, &PatchParams::default(), &Patch::Merge(&change)).await
    }
}

#[expect(clippy::disallowed_methods, reason = "candidates on several machines share no other clock")]
fn wall_clock() -> Timestamp {
    Timestamp::now()
}

fn holder(lease: &Lease) -> Option<Arc<str>> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref();
    holder.filter(|it| !it.is_empty()).map(Arc::from)
}

/// Whether the holder has not renewed for the Lease's duration. A Lease that does not say so is held by no one.
fn is_over(lease: &LeaseSpec, now: Timestamp) -> bool {
    let (Some(renewed), Some(seconds)) = (&lease.renew_time, lease.lease_duration_seconds) else { return true };
    now.as_millisecond().saturating_sub(renewed.0.as_millisecond()) > i64::from(seconds) * 1000
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use kube_sharding_sim::{Fault, FaultInjector, Network, Server, in_virtual_time};
    use serde_json::Value;

    use super::*;

    const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases";
    const DURATION: Duration = Duration::from_secs(15);

    fn election(server: &Server, injector: &FaultInjector, member: &str) -> LeaseElection {
        let names = Names::new("example.com", "system", "fleet");
        let client = Client::new(Network::new(server, injector, 0), "default");
        LeaseElection::new(client, &names, member, DURATION, Duration::from_secs(3))
    }

    fn lease(server: &Server) -> Arc<Value> {
        server.get(LEASES, "fleet-coordinator").expect("the election's Lease")
    }

    /// Lets the holder's last renewal be so long ago.
    fn age(server: &Server, age: Duration) {
        let renewed = MicroTime(wall_clock() - age);
        server.change(LEASES, "fleet-coordinator", |lease| lease["spec"]["renewTime"] = json!(renewed));
    }

    #[test]
    fn one_is_elected_until_it_no_longer_renews() {
        in_virtual_time(1, async {
            let (server, injector) = (Server::new(), FaultInjector::new(1));
            let (one, two) = (election(&server, &injector, "one"), election(&server, &injector, "two"));
            assert_eq!(one.campaign().await.as_deref(), Some("one"));
            assert_eq!(lease(&server)["spec"]["leaseTransitions"], 0);
            let acquired = lease(&server)["spec"]["acquireTime"].clone();
            assert_eq!(two.campaign().await.as_deref(), Some("one"), "it is elected already");
            age(&server, DURATION * 9 / 10);
            assert_eq!(two.campaign().await.as_deref(), Some("one"), "it may still renew");
            assert_eq!(one.campaign().await.as_deref(), Some("one"));
            let spec = lease(&server)["spec"].clone();
            assert_eq!((&spec["acquireTime"], &spec["leaseTransitions"]), (&acquired, &json!(0)), "a renewal");
            assert_eq!(two.campaign().await.as_deref(), Some("one"), "it has renewed");
            age(&server, DURATION + Duration::from_secs(1));
            assert_eq!(two.campaign().await.as_deref(), Some("two"));
            assert_eq!(lease(&server)["spec"]["leaseTransitions"], 1);
            assert_eq!(one.campaign().await.as_deref(), Some("two"));
        });
    }

    #[test]
    fn who_steps_down_makes_room_at_once_for_another() {
        in_virtual_time(2, async {
            let (server, injector) = (Server::new(), FaultInjector::new(1));
            let (one, two) = (election(&server, &injector, "one"), election(&server, &injector, "two"));
            two.step_down().await;
            assert!(server.get(LEASES, "fleet-coordinator").is_none(), "there is nothing to step down from");
            assert_eq!(one.campaign().await.as_deref(), Some("one"));
            two.step_down().await;
            assert_eq!(lease(&server)["spec"]["holderIdentity"], "one", "it is not the other's");
            one.step_down().await;
            assert_eq!(two.campaign().await.as_deref(), Some("two"));
        });
    }

    /// Of two candidates that find the same Lease one is elected: the write of the other is rejected.
    #[test]
    fn a_lease_that_changed_since_it_was_read_is_not_taken() {
        in_virtual_time(3, async {
            let (server, injector) = (Server::new(), FaultInjector::new(1));
            let (one, two) = (election(&server, &injector, "one"), election(&server, &injector, "two"));
            assert_eq!(one.campaign().await.as_deref(), Some("one"));
            age(&server, 2 * DURATION);
            let (others, once) = (server.clone(), Mutex::new(true));
            injector.intercept(move |call| {
                if call.is_write() && std::mem::take(&mut *once.lock().expect("no test panics while it holds it")) {
                    age(&others, Duration::ZERO);
                }
                Fault::None
            });
            assert_eq!(two.campaign().await, None, "it had read an older version");
            assert_eq!(two.campaign().await.as_deref(), Some("one"));
        });
    }

    /// What a user, or another program, made of the Lease hinders no election.
    #[test]
    fn a_lease_without_its_times_is_taken() {
        in_virtual_time(4, async {
            let (server, injector) = (Server::new(), FaultInjector::new(1));
            server.create_by_hand(LEASES, &json!({"metadata": {"name": "fleet-coordinator"}}));
            assert_eq!(election(&server, &injector, "one").campaign().await.as_deref(), Some("one"));
            server.change(LEASES, "fleet-coordinator", |lease| lease["spec"] = json!({"holderIdentity": "gone"}));
            assert_eq!(election(&server, &injector, "one").campaign().await.as_deref(), Some("one"));
        });
    }

    #[test]
    fn without_an_answer_none_is_elected() {
        in_virtual_time(5, async {
            let (server, injector) = (Server::new(), FaultInjector::new(1));
            let one = election(&server, &injector, "one");
            injector.intercept(|_| Fault::Lost);
            assert_eq!(one.campaign().await, None);
            injector.intercept(|_| Fault::Refused(500));
            assert_eq!(one.campaign().await, None);
        });
    }
}
