//! The gate: a layer of the client, beneath its retry, that every request passes.
//!
//! A write must say whose it is ([`Scope`]) and is refused once the member's right to act has ended. Because the gate
//! lies beneath the retry, a write that is sent again is judged again. It also counts requests and bounds their time.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{Method, Request, Response};
use kube::client::Body;
use kube_sharding::{Slot, lease::Right};
use metrics::{counter, histogram};
use tower::{BoxError, Layer, Service};

/// How long a request other than a watch may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Whose write it is: carried by the request from where it is made to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A write for a site, by the owner of its slot.
    Slot(Slot),
    /// A write for a bench, by the coordinator.
    Coordinator,
}

/// Why the gate refused a write.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The member's Lease was not renewed in time.
    #[error("the right to act has ended: the member's lease was not renewed in time")]
    RightEnded,
    /// A write that does not say whose it is: a bug.
    #[error("{method} {path} does not say whose write it is")]
    NoScope {
        /// Method of the request.
        method: Method,
        /// Path of the request.
        path: String,
    },
    /// No answer in time.
    #[error("no answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
}

/// Puts the gate into a client's stack.
#[derive(Clone)]
pub struct GateLayer {
    right: Arc<Right>,
    crash: Option<Arc<AtomicI64>>,
}

impl GateLayer {
    /// A gate that is open while the right holds.
    ///
    /// With `crash_after_writes` the process aborts when the answer to that many writes has arrived: a test of what a
    /// crash at this point leaves behind.
    pub fn new(right: Arc<Right>, crash_after_writes: Option<i64>) -> Self {
        Self { right, crash: crash_after_writes.map(|writes| Arc::new(AtomicI64::new(writes))) }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, gate: self.clone() }
    }
}

/// The gate as a service.
#[derive(Clone)]
pub struct Gate<S> {
    inner: S,
    gate: GateLayer,
}

impl<S, B> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Err(refusal) = judge(&request, &self.gate.right) {
            counter!("frappe_operator_refused_writes_total").increment(1);
            return Box::pin(async { Err(refusal.into()) });
        }
        let about = About::of(&request);
        let crash = self.gate.crash.clone().filter(|_| about.counts_as_write);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let begun = Instant::now();
            let result = if about.verb == "watch" {
                answer.await
            } else {
                tokio::time::timeout(REQUEST_TIMEOUT, answer).await.unwrap_or_else(|_| Err(Refusal::Timeout.into()))
            };
            about.count(begun.elapsed(), result.as_ref().map_or(0, |response| response.status().as_u16()));
            if crash.is_some_and(|left| left.fetch_sub(1, Ordering::SeqCst) == 1) {
                std::process::abort();
            }
            result
        })
    }
}

/// Reads pass; Events belong to nobody; any other write needs a scope and the right to act.
fn judge(request: &Request<Body>, right: &Right) -> Result<(), Refusal> {
    let path = request.uri().path();
    if request.method() == Method::GET || path.starts_with("/apis/events.k8s.io/") {
        return Ok(());
    }
    if request.extensions().get::<Scope>().is_none() {
        return Err(Refusal::NoScope { method: request.method().clone(), path: path.to_owned() });
    }
    if right.holds(tokio::time::Instant::now()) { Ok(()) } else { Err(Refusal::RightEnded) }
}

/// What metrics say of a request: never an object's name.
struct About {
    verb: &'static str,
    resource: String,
    counts_as_write: bool,
}

impl About {
    fn of(request: &Request<Body>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let watch = query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
        let (resource, named) = resource_of(request.uri().path());
        let verb = match *request.method() {
            Method::GET if watch => "watch",
            Method::GET if named => "get",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "other",
        };
        let counts_as_write = request.method() != Method::GET && resource != "events";
        Self { verb, resource, counts_as_write }
    }

    fn count(&self, elapsed: Duration, code: u16) {
        let labels =
            [("method", self.verb.to_owned()), ("resource", self.resource.clone()), ("code", code.to_string())];
        counter!("rest_client_requests_total", &labels).increment(1);
        if self.verb != "watch" {
            histogram!("rest_client_request_duration_seconds", "method" => self.verb).record(elapsed.as_secs_f64());
        }
    }
}

/// Plural (and subresource) of a request path, and whether it names one object.
fn resource_of(path: &str) -> (String, bool) {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let prefix = if parts.first() == Some(&"api") { 2 } else { 3 };
    parts.drain(..prefix.min(parts.len()));
    if parts.first() == Some(&"namespaces") && parts.len() > 2 {
        parts.drain(..2);
    }
    let plural = parts.first().copied().unwrap_or("other").to_owned();
    match parts.get(2) {
        Some(subresource) => (format!("{plural}/{subresource}"), true),
        None => (plural, parts.len() > 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, path: &str, scope: Option<Scope>) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        if let Some(scope) = scope {
            request.extensions_mut().insert(scope);
        }
        request
    }

    #[test]
    fn a_write_without_a_scope_is_refused() {
        let path = "/api/v1/namespaces/a/secrets";
        let right = Right::unlimited();
        let refused = judge(&request(Method::POST, path, None), &right);
        assert!(matches!(refused, Err(Refusal::NoScope { .. })));
        assert!(judge(&request(Method::POST, path, Some(Scope::Coordinator)), &right).is_ok());
        assert!(judge(&request(Method::GET, path, None), &right).is_ok());
    }

    #[test]
    fn paths_name_their_resource() {
        let table = [
            ("/api/v1/namespaces/a/secrets/b", ("secrets", true)),
            ("/apis/vyogo.tech/v1alpha1/namespaces/a/frappesites/b/status", ("frappesites/status", true)),
            ("/apis/vyogo.tech/v1alpha1/frappesites", ("frappesites", false)),
            ("/apis/vyogo.tech/v1alpha1/frappedomains/x.example.com", ("frappedomains", true)),
            ("/api/v1/namespaces/a", ("namespaces", true)),
        ];
        for (path, (resource, named)) in table {
            assert_eq!(resource_of(path), (resource.to_owned(), named), "{path}");
        }
    }
}
