//! Clients: one for the work, whose writes pass the gate beneath the retry, and one for Leases and
//! slot map, which never retries.

use std::time::Duration;

use http::{HeaderValue, header::USER_AGENT};
use kube::{
    Client, Config,
    client::{ClientBuilder, retry::RetryPolicy},
};
use kube_sharding::{gate::Gate, layer::GateLayer};
use tower::{buffer::BufferLayer, retry::RetryLayer};

use crate::io::meter::{MeterLayer, REQUEST_TIMEOUT, is_event};

/// Requests that may wait between retry and gate.
const QUEUED_REQUESTS_MAX: usize = 1024;
/// First and longest wait before a request is sent again on 429, 503 or 504, and how often.
const RETRY: (Duration, Duration, u32) = (Duration::from_millis(50), Duration::from_secs(2), 5);

/// The kubeconfig or in-cluster configuration, without kube's own retry (the gate would lie above it). `sender` is named
/// to the API server, so that its audit log tells replicas apart.
pub async fn config(sender: &str) -> anyhow::Result<Config> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    let agent = HeaderValue::try_from(format!("frappe-operator/{} ({sender})", env!("CARGO_PKG_VERSION")))?;
    config.headers.push((USER_AGENT, agent));
    Ok(config)
}

/// The client of reconcilers and watches.
pub fn gated(config: Config, gate: Gate, meter: &MeterLayer) -> anyhow::Result<Client> {
    let (first, longest, times) = RETRY;
    let policy = RetryPolicy::new(first, longest, times, true)?;
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&GateLayer::new(gate, REQUEST_TIMEOUT, is_event))
        .with_layer(meter)
        .with_layer(&BufferLayer::new(QUEUED_REQUESTS_MAX))
        .with_layer(&RetryLayer::new(policy))
        .build())
}

/// The client of the sharding protocol: one attempt a request.
pub fn for_protocol(config: Config, meter: &MeterLayer) -> anyhow::Result<Client> {
    Ok(ClientBuilder::try_from(config)?.with_layer(meter).build())
}
