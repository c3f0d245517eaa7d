//! The HTTP server for machines: /metrics, /healthz, /readyz, /shards.
//!
//! Any pod may reach it: connections are bounded in number and in time, and who comes last is served first, so that many that
//! say nothing keep no probe out.

use std::{collections::VecDeque, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use crate::fleet_report::Report;

/// Connections at once: of more, the oldest is closed.
const CONNECTIONS_MAX: usize = 128;
/// Time for the headers of a request, and for a connection with all its requests.
const HEADERS_MAX: Duration = Duration::from_secs(5);
const CONNECTION_MAX: Duration = Duration::from_mins(1);
/// Wait after a connection that could not be accepted, such as for want of file descriptors.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

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
    listen(TcpListener::bind(address).await?, router, stop).await;
    Ok(())
}

async fn listen(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let (mut tasks, mut open) = (JoinSet::new(), VecDeque::<AbortHandle>::new());
    loop {
        tokio::select! {
            () = &mut stop => return tasks.shutdown().await,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    open.retain(|task| !task.is_finished());
                    if open.len() >= CONNECTIONS_MAX && let Some(oldest) = open.pop_front() {
                        oldest.abort();
                    }
                    open.push_back(tasks.spawn(connection(stream, router.clone())));
                }
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_WAIT).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADERS_MAX);
    let served = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(CONNECTION_MAX, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection ended with an error"),
        Err(_) => tracing::debug!("connection closed: open for too long"),
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    match shared.ready.borrow().as_ref() {
        Ok(()) => (StatusCode::OK, "ok".to_owned()),
        Err(waiting) => (StatusCode::SERVICE_UNAVAILABLE, waiting.clone()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }

    /// Four times as many connections as there may be say nothing: a probe is answered, and they are closed.
    #[tokio::test]
    async fn connections_that_say_nothing_are_closed_and_keep_nobody_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/healthz", get(|| async { "ok" }));
        let server = tokio::spawn(listen(listener, router, std::future::pending()));
        let mut silent = Vec::new();
        for number in 0..4 * CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(address).await.expect("it accepts");
            // Half a request.
            let _ = stream.write_all(b"GET /healthz HT").await;
            silent.push(stream);
            if number % 100 == 0 {
                assert!(ask(address).await.ends_with("ok"), "after {number}");
            }
        }
        assert!(ask(address).await.ends_with("ok"));
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(1), silent[0].read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the oldest was closed at once");
        let last = silent.last_mut().expect("there are some");
        let ended = timeout(HEADERS_MAX + Duration::from_secs(5), last.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the last is closed when its headers do not come");
        server.abort();
    }
}
