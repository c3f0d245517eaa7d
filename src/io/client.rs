//! Clients: one for the work, whose writes pass the gate beneath the retry, one for Leases and slot map, which never
//! retries, and one for the commands that users run.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, header::USER_AGENT};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, DynBody, retry::RetryPolicy},
};
use kube_sharding::{gate::Gate, layer::GateLayer};
use tower::{BoxError, Service, ServiceExt as _, buffer::BufferLayer, retry::RetryLayer, util::BoxService};

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

type Builder = ClientBuilder<BoxService<Request<Body>, Response<Box<DynBody>>, BoxError>>;

/// How the API server is reached. Cheap to clone.
#[derive(Clone)]
pub struct Connection(Arc<dyn Fn() -> anyhow::Result<Builder> + Send + Sync>);

impl Connection {
    /// As a configuration says.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(move || Ok(ClientBuilder::try_from(config.clone())?)))
    }

    /// By a service that stands for it: a model of an API server.
    pub fn through<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone + Send + Sync + 'static,
        S::Future: Send,
        B: http_body::Body<Data = bytes::Bytes, Error = BoxError> + Send + Unpin + 'static,
    {
        Self(Arc::new(move || {
            let service = service.clone().map_response(|response| response.map(|body| Box::new(body) as Box<DynBody>));
            Ok(ClientBuilder::new(BoxService::new(service), "default"))
        }))
    }
}

/// The client of reconcilers and watches.
pub fn gated(connection: &Connection, gate: Gate, meter: &MeterLayer) -> anyhow::Result<Client> {
    Ok((connection.0)()?
        .with_layer(&GateLayer::new(gate, REQUEST_TIMEOUT, is_event))
        .with_layer(meter)
        .with_layer(&BufferLayer::new(QUEUED_REQUESTS_MAX))
        .with_layer(&RetryLayer::new(retries()?))
        .build())
}

/// The client of commands that users run. An API server that has just been given a CRD answers its first lists with 429.
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
pub fn for_protocol(connection: &Connection, meter: &MeterLayer) -> anyhow::Result<Client> {
    Ok((connection.0)()?.with_layer(meter).build())
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use axum::{Json, Router};
    use http::StatusCode;
    use k8s_openapi::api::core::v1::Node;
    use kube::{Api, api::ListParams};
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with each of these statuses in turn; an empty list is the body of each.
    async fn server(statuses: &'static [StatusCode]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answered = Arc::new(AtomicUsize::new(0));
        let answer = move || {
            let status = statuses[answered.fetch_add(1, Ordering::SeqCst)];
            async move { (status, Json(json!({"apiVersion": "v1", "kind": "NodeList", "metadata": {}, "items": []}))) }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        address
    }

    #[tokio::test]
    async fn a_command_waits_for_a_server_that_is_not_ready_yet() {
        let address = server(&[StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK]).await;
        let mut config = Config::new(format!("http://{address}").parse().unwrap());
        config.default_retry = false;
        let nodes: Api<Node> = Api::all(for_commands(config).unwrap());
        assert_eq!(nodes.list(&ListParams::default()).await.unwrap().items, []);
    }
}
