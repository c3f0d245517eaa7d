//! The requests of the protocol: each is sent once, and waited for as long as its answer can still matter.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
    core::DynamicObject,
};
use tokio::time::timeout;

use super::settings::Settings;
use crate::{
    election::Boxed,
    map::Content,
    member::{Facts, Incarnation, LeaseRecord, Version},
    step::{Effect, Failure, Input},
    timing::Timing,
    wire::{LeaseToWrite, Names},
};

/// Attempts to delete the Lease at the end.
const RELEASE_ATTEMPTS: usize = 3;

/// Sends requests for one member.
#[derive(Clone)]
pub(super) struct Requests {
    client: Client,
    names: Arc<Names>,
    lease: Arc<str>,
    incarnation: Incarnation,
    timing: Timing,
    /// When this incarnation began, for people.
    acquired: Timestamp,
    objects: Arc<AtomicU64>,
}

#[expect(clippy::disallowed_methods, reason = "for people who read a Lease; no decision uses it")]
fn wall_clock() -> Timestamp {
    Timestamp::now()
}

impl Requests {
    pub(super) fn new(client: Client, settings: &Settings, objects: Arc<AtomicU64>) -> Self {
        Self {
            client,
            lease: settings.names.lease(&settings.member).into(),
            names: Arc::new(settings.names.clone()),
            incarnation: settings.incarnation.clone(),
            timing: settings.timing.clone(),
            acquired: wall_clock(),
            objects,
        }
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Carries out an effect that is a request.
    pub(super) fn carry_out(&self, effect: Effect) -> Boxed<Option<Input>> {
        let this = self.clone();
        Box::pin(async move {
            match effect {
                Effect::Renew { attempt, on, facts, ended } => {
                    let answer = this.renew(attempt, on.as_ref(), &facts, ended.as_ref()).await;
                    Some(Input::Renewed(attempt, answer))
                }
                Effect::ReadLease(request) => Some(Input::LeaseRead(request, this.read_lease().await)),
                Effect::ReadLeases(request) => {
                    let answer = this.read_leases(request.missing()).await;
                    Some(Input::LeasesRead(request, answer))
                }
                Effect::Fence(lease) => {
                    let answer = this.fence(&lease).await;
                    Some(Input::Fenced(lease.name, answer))
                }
                Effect::DeleteLease(name, version) => {
                    let _ = this.delete_lease(&name, &version).await;
                    None
                }
                Effect::ReadMap(request) => {
                    let found = this.within(this.maps().get_opt(&this.names.name)).await;
                    let found = found.map(|found| found.and_then(|map| this.names.read_map(&map)));
                    Some(Input::MapRead(request, found))
                }
                Effect::WriteMap { on, content } => {
                    Some(Input::MapWritten(this.write_map(on.as_ref(), &content).await))
                }
                Effect::Drain(..) | Effect::Elect | Effect::End(_) => None,
            }
        })
    }

    /// Deletes the member's own Lease, so that no one waits for it.
    pub(super) async fn release(&self, me: &Incarnation) {
        for _ in 0..RELEASE_ATTEMPTS {
            match self.read_lease().await {
                Ok(Some(lease)) if lease.holder.as_ref() == Some(me) => {
                    // A renewal that is on its way may come first: then once more.
                    if self.delete_lease(&lease.name, &lease.version).await.is_ok() {
                        return;
                    }
                }
                Ok(_) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn renew(
        &self,
        attempt: u64,
        on: Option<&Version>,
        facts: &Facts,
        ended: Option<&Incarnation>,
    ) -> Result<LeaseRecord, Failure> {
        let holder = Some(&self.incarnation);
        let facts = &Facts { objects: self.objects.load(Ordering::Relaxed), ..facts.clone() };
        let (acquired, renewed) = (self.acquired, wall_clock());
        let lease = LeaseToWrite { name: &self.lease, on, holder, attempt, ended, facts, acquired, renewed };
        self.put_lease(&lease).await
    }

    async fn fence(&self, seen: &LeaseRecord) -> Result<LeaseRecord, Failure> {
        tracing::info!(lease = %seen.name, holder = ?seen.holder, "fencing a replica that did not renew its Lease");
        self.put_lease(&LeaseToWrite {
            name: &seen.name,
            on: Some(&seen.version),
            holder: None,
            attempt: seen.attempt,
            ended: seen.holder.as_ref(),
            facts: &seen.facts,
            acquired: self.acquired,
            renewed: wall_clock(),
        })
        .await
    }

    async fn put_lease(&self, lease: &LeaseToWrite<'_>) -> Result<LeaseRecord, Failure> {
        let body = self.names.render_lease(lease, &self.timing);
        let (api, params) = (self.leases(), PostParams::default());
        let written = match lease.on {
            Some(_) => self.within(api.replace(lease.name, &params, &body)).await?,
            None => self.within(api.create(&params, &body)).await?,
        };
        self.names.read_lease(&written).ok_or(Failure::Unknown)
    }

    async fn read_lease(&self) -> Result<Option<LeaseRecord>, Failure> {
        let found = self.within(self.leases().get_opt(&self.lease)).await?;
        Ok(found.and_then(|lease| self.names.read_lease(&lease)))
    }

    async fn read_leases(&self, missing: &BTreeSet<Incarnation>) -> Result<Vec<LeaseRecord>, Failure> {
        tracing::info!(?missing, "owners in the slot map have no Lease: reading it");
        let (api, params) = (self.leases(), ListParams::default().labels(&self.names.lease_selector()));
        let listed = self.within(api.list(&params)).await?;
        Ok(listed.iter().filter_map(|lease| self.names.read_lease(lease)).collect())
    }

    async fn delete_lease(&self, name: &str, version: &Version) -> Result<(), Failure> {
        let preconditions =
            Preconditions { uid: Some(version.uid.to_string()), resource_version: Some(version.number.to_string()) };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        self.within(self.leases().delete(name, &params)).await.map(|_| ())
    }

    async fn write_map(&self, on: Option<&Version>, content: &Content) -> Result<crate::map::SlotMap, Failure> {
        let body = self.names.render_map(on, content);
        let (api, params) = (self.maps(), PostParams::default());
        let written = match on {
            Some(_) => self.within(api.replace(&self.names.name, &params, &body)).await?,
            None => self.within(api.create(&params, &body)).await?,
        };
        self.names.read_map(&written).ok_or(Failure::Unknown)
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.names.namespace)
    }

    fn maps(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.names.namespace, &self.names.map_resource())
    }

    /// An answer that comes later than the protocol asks again may still count, so it is waited for as long as a right
    /// lasts.
    async fn within<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Failure> {
        match timeout(self.timing.right(), request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Failure::Conflict),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Failure::NotFound),
            Ok(Err(kube::Error::Api(status))) => {
                tracing::warn!(error = status.message, code = status.code, "request of the sharding protocol failed");
                Err(Failure::Unknown)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "request of the sharding protocol failed");
                Err(Failure::Unknown)
            }
            Err(_) => Err(Failure::Unknown),
        }
    }
}
