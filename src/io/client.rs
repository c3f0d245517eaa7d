//! Clients: one for the work, whose writes pass the gate beneath the retry, one for Leases and slot map, which never
//! retries, and one for the commands that people run.

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
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&GateLayer::new(gate, REQUEST_TIMEOUT, is_event))
        .with_layer(meter)
        .with_layer(&BufferLayer::new(QUEUED_REQUESTS_MAX))
        .with_layer(&RetryLayer::new(retries()?))
        .build())
}

/// The client of commands that people run. An API server that has just been given a CRD answers its first lists with 429.
pub fn for_commands(config: Config) -> anyhow::Result<Client> {
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&BufferLayer::new(QUEUED_REQUESTS_MAX))
        .with_layer(&RetryLayer::new(retries()?))
        .build())
}

fn retries() -> anyhow::Result<RetryPolicy> {
    let (first, longest, times) = RETRY;
    Ok(RetryPolicy::new(first, longest, times, true)?)
}

/// The client of the sharding protocol: one attempt a request.
pub fn for_protocol(config: Config, meter: &MeterLayer) -> anyhow::Result<Client> {
    Ok(ClientBuilder::try_from(config)?.with_layer(meter).build())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use k8s_openapi::api::core::v1::Node;
    use kube::{Api, api::ListParams};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Answers one request a connection, with these statuses in turn; an empty list is the body of each.
    async fn server(statuses: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for status in statuses {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                assert_ne!(connection.read(&mut request).await.unwrap(), 0, "a request");
                let body = r#"{"apiVersion":"v1","kind":"NodeList","metadata":{},"items":[]}"#;
                let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                connection.write_all((head + body).as_bytes()).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_command_waits_for_a_server_that_is_not_ready_yet() {
        let address = server(&["429 Too Many Requests", "503 Service Unavailable", "200 OK"]).await;
        let mut config = Config::new(format!("http://{address}").parse().unwrap());
        config.default_retry = false;
        let nodes: Api<Node> = Api::all(for_commands(config).unwrap());
        assert_eq!(nodes.list(&ListParams::default()).await.unwrap().items, []);
    }
}
