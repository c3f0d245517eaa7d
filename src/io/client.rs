//! Clients: one for the work, whose writes pass the gate beneath the retry, and one for the Lease, which never retries.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, header::USER_AGENT};
use kube::{
    Client, Config,
    client::{ClientBuilder, retry::RetryPolicy},
};
use kube_sharding::lease::Right;
use tower::{buffer::BufferLayer, retry::RetryLayer};

use crate::io::gate::GateLayer;

/// Requests that may wait between retry and gate.
const QUEUED_REQUESTS_MAX: usize = 1024;
/// First and longest wait before a request is sent again on 429, 503 or 504, and how often.
const RETRY: (Duration, Duration, u32) = (Duration::from_millis(50), Duration::from_secs(2), 5);

/// The kubeconfig or in-cluster configuration, without kube's own retry (the gate would lie above it).
pub async fn config() -> anyhow::Result<Config> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    let agent = HeaderValue::from_static(concat!("frappe-operator/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    Ok(config)
}

/// The client of reconcilers and watches.
pub fn gated(config: Config, right: Arc<Right>, crash_after_writes: Option<i64>) -> anyhow::Result<Client> {
    let (first, longest, times) = RETRY;
    let policy = RetryPolicy::new(first, longest, times, true)?;
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&GateLayer::new(right, crash_after_writes))
        .with_layer(&BufferLayer::new(QUEUED_REQUESTS_MAX))
        .with_layer(&RetryLayer::new(policy))
        .build())
}

/// The client of the member's Lease: one attempt a request.
pub fn for_lease(config: Config) -> anyhow::Result<Client> {
    Ok(Client::try_from(config)?)
}
