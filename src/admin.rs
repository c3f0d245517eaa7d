//! The HTTP server for machines: /metrics, /healthz, /readyz, /shards.

use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use crate::shards::Report;

/// What the server answers from.
struct Shared {
    metrics: PrometheusHandle,
    ready: watch::Receiver<Result<(), String>>,
    shards: watch::Receiver<Report>,
}

/// Serves until `stop` ends. Ready while `ready` is Ok, else 503 with what it waits for.
pub async fn serve(
    address: SocketAddr,
    metrics: PrometheusHandle,
    ready: watch::Receiver<Result<(), String>>,
    shards: watch::Receiver<Report>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(|State(shared): State<Arc<Shared>>| async move { shared.metrics.render() }))
        .route("/shards", get(|State(shared): State<Arc<Shared>>| async move { Json(shared.shards.borrow().clone()) }))
        .with_state(Arc::new(Shared { metrics, ready, shards }));
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, router).with_graceful_shutdown(stop).await?;
    Ok(())
}

async fn readyz(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    match shared.ready.borrow().as_ref() {
        Ok(()) => (StatusCode::OK, "ok".to_owned()),
        Err(waiting) => (StatusCode::SERVICE_UNAVAILABLE, waiting.clone()),
    }
}
