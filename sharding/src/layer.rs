//! The gate as a layer of a client, to lie beneath its retry: a write that is sent again is judged again.
//!
//! A write carries its [`Scope`] as an extension of the request; it is refused where the gate is closed, and given up
//! when the right ends. Reads pass, and reviews (of a token, of access), which are asked for by POST and change nothing. A write that was let through belongs to the gate: it is finished even when who sent it is
//! cancelled, and a handover waits for its answer.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Method, Request, Response};
use kube::client::Body;
use metrics::counter;
use tower::{BoxError, Layer, Service};

use crate::gate::{Gate, Refusal, Scope};

/// Why a write was not sent, or its answer not waited for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// The gate is closed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A write that does not say whose it is: a bug.
    #[error("{method} {path} does not say whose write it is")]
    NoScope {
        /// Method of the request.
        method: Method,
        /// Path of the request.
        path: String,
    },
    /// No answer in the time that was left.
    #[error("no response within {0:?}")]
    Timeout(Duration),
}

/// Puts a gate into a client's stack.
#[derive(Clone)]
pub struct GateLayer {
    gate: Gate,
    request_timeout: Duration,
    exempt: fn(&Request<Body>) -> bool,
}

impl GateLayer {
    /// Writes must pass `gate` and time out after `request_timeout`; those that `exempt` names have no owner (such as
    /// Events).
    pub fn new(gate: Gate, request_timeout: Duration, exempt: fn(&Request<Body>) -> bool) -> Self {
        Self { gate, request_timeout, exempt }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> GateService<S> {
        GateService { inner, layer: self.clone() }
    }
}

/// The gate as a service.
#[derive(Clone)]
pub struct GateService<S> {
    inner: S,
    layer: GateLayer,
}

impl<S, B> Service<Request<Body>> for GateService<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if changes_nothing(&request) || (self.layer.exempt)(&request) {
            return Box::pin(self.inner.call(request));
        }
        let Some(scope) = request.extensions().get::<Scope>().copied() else {
            let stopped = Stopped::NoScope { method: request.method().clone(), path: request.uri().path().to_owned() };
            return Box::pin(async { Err(stopped.into()) });
        };
        let (permit, left) = match self.layer.gate.admit_write(scope) {
            Ok(permitted) => permitted,
            Err(refusal) => {
                counter!("sharding_refused_writes_total").increment(1);
                return Box::pin(async move { Err(Stopped::Refused(refusal).into()) });
            }
        };
        let most = left.min(self.layer.request_timeout);
        let answer = self.inner.call(request);
        let sent = tokio::spawn(async move {
            let _permit = permit;
            tokio::time::timeout(most, answer).await.unwrap_or_else(|_| Err(Stopped::Timeout(most).into()))
        });
        Box::pin(async move { sent.await.unwrap_or_else(|error| Err(error.into())) })
    }
}

/// Whether a request writes an Event, which has no owner.
pub fn is_event(request: &Request<Body>) -> bool {
    request.uri().path().starts_with("/apis/events.k8s.io/")
}

/// Groups whose kinds are questions: the API server answers them and stores nothing.
const REVIEWS: [&str; 2] = ["/apis/authentication.k8s.io/", "/apis/authorization.k8s.io/"];

fn changes_nothing(request: &Request<Body>) -> bool {
    let method = request.method();
    method.is_safe() || (method == Method::POST && REVIEWS.iter().any(|group| request.uri().path().starts_with(group)))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{clock::SystemClock, gate::Opening, slot::Slot};

    const SCOPE: Scope = Scope::Slot(Slot::new(3));

    fn write(scope: Option<Scope>) -> Request<Body> {
        let mut request = Request::post("/api/v1/namespaces/a/secrets").body(Body::empty()).unwrap();
        if let Some(scope) = scope {
            request.extensions_mut().insert(scope);
        }
        request
    }

    fn stopped(error: &BoxError) -> &Stopped {
        error.downcast_ref().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_needs_a_scope_and_an_open_gate_and_outlives_its_sender() {
        let clock = Arc::new(SystemClock::default());
        let gate = Gate::new(clock);
        let landed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&landed);
        let server = service_fn(move |_: Request<Body>| {
            let count = Arc::clone(&count);
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                count.fetch_add(1, Ordering::SeqCst);
                Ok::<_, BoxError>(Response::new(Body::empty()))
            }
        });
        let layered = GateLayer::new(gate.clone(), Duration::from_secs(10), |_| false).layer(server);
        let refused = layered.clone().oneshot(write(Some(SCOPE))).await.unwrap_err();
        assert!(matches!(stopped(&refused), Stopped::Refused(Refusal::Suspended)));
        assert!(matches!(stopped(&layered.clone().oneshot(write(None)).await.unwrap_err()), Stopped::NoScope { .. }));
        for method in [Method::DELETE, Method::PATCH, Method::PUT] {
            let mut request = write(None);
            *request.method_mut() = method;
            *request.uri_mut() = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews/a".parse().unwrap();
            assert!(layered.clone().oneshot(request).await.is_err());
        }
        assert_eq!(landed.load(Ordering::SeqCst), 0);
        let entries = [(SCOPE.entry(), 1)].into();
        gate.set(&Opening { until: Some(Duration::from_secs(3600)), entries, draining: BTreeSet::new() });
        let sent = tokio::spawn(layered.oneshot(write(Some(SCOPE))));
        tokio::time::sleep(Duration::from_millis(10)).await;
        sent.abort();
        assert_eq!(gate.in_flight(), 1, "a handover waits for it");
        gate.idle(&[SCOPE.entry()].into()).await;
        assert_eq!(landed.load(Ordering::SeqCst), 1);
    }

    /// Reads and reviews have no owner: they pass a closed gate.
    #[tokio::test]
    async fn a_read_passes() {
        let gate = Gate::new(Arc::new(SystemClock::default()));
        let server = service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(Response::new(Body::empty())) });
        let layered = GateLayer::new(gate, Duration::from_secs(10), |_| false).layer(server);
        let asked = [
            Request::get("/api/v1/namespaces/a/secrets/b"),
            Request::head("/api/v1/namespaces/a/secrets/b"),
            Request::post("/apis/authentication.k8s.io/v1/tokenreviews"),
            Request::post("/apis/authorization.k8s.io/v1/namespaces/a/localsubjectaccessreviews"),
        ];
        for request in asked {
            layered.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        }
    }

    /// S-2: a write is given up when the right ends, or when it took too long.
    #[tokio::test(start_paused = true)]
    async fn no_write_outlives_the_right_or_its_time() {
        for (right, most) in [(3, 3), (3600, 10)] {
            let gate = Gate::new(Arc::new(SystemClock::default()));
            let entries = [(SCOPE.entry(), 1)].into();
            gate.set(&Opening { until: Some(Duration::from_secs(right)), entries, draining: BTreeSet::new() });
            let server = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, BoxError>>());
            let layered = GateLayer::new(gate.clone(), Duration::from_secs(10), |_| false).layer(server);
            let begun = tokio::time::Instant::now();
            let error = layered.oneshot(write(Some(SCOPE))).await.unwrap_err();
            assert!(matches!(stopped(&error), Stopped::Timeout(_)));
            assert!(begun.elapsed() <= Duration::from_secs(most), "{:?}", begun.elapsed());
            assert_eq!(gate.in_flight_on(SCOPE), 0);
        }
    }
}
