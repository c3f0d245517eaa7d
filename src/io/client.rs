//! Clients: their configuration, and the client of the commands that users run.

use std::path::Path;

use http::{HeaderValue, header::USER_AGENT};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use kube_sharding::client::{QUEUED_REQUESTS_MAX, retries};
use tower::{buffer::BufferLayer, retry::RetryLayer};

/// The kubeconfig or in-cluster configuration, without kube's own retry (the gate would lie above it). `sender` is named
/// to the API server, so that its audit log tells replicas apart.
pub async fn config(sender: &str) -> anyhow::Result<Config> {
    config_of(sender, None, None).await
}

/// Like [`config`], of this kubeconfig and this context of it, if they are given.
pub async fn config_of(sender: &str, kubeconfig: Option<&Path>, context: Option<&str>) -> anyhow::Result<Config> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let mut config = match kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
        None if context.is_some() => Config::from_kubeconfig(&options).await?,
        None => Config::infer().await?,
    };
    config.default_retry = false;
    let agent = HeaderValue::try_from(format!("frappe-operator/{} ({sender})", env!("CARGO_PKG_VERSION")))?;
    config.headers.push((USER_AGENT, agent));
    Ok(config)
}

/// The client of commands that users run. An API server that has just been given a CRD answers its first lists with 429.
pub fn for_commands(config: Config) -> anyhow::Result<Client> {
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&BufferLayer::new(QUEUED_REQUESTS_MAX))
        .with_layer(&RetryLayer::new(retries()))
        .build())
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
