//! The meter: a client layer between gate and retry that counts requests, by the names of controller-runtime, and limits their
//! duration.

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

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, combinators::MapFrame};
use kube::client::Body;
use metrics::{counter, histogram};
use tower::{BoxError, Layer, Service};

use crate::layer::Stopped;

/// Timeout of a request other than a watch.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Layer that adds the meter to a client.
#[derive(Clone, Default)]
pub struct MeterLayer {
    crash: Option<Arc<AtomicI64>>,
}

impl MeterLayer {
    /// With `crash_after_writes` the process aborts when the response to that many writes has arrived, to test crashes.
    pub fn new(crash_after_writes: Option<i64>) -> Self {
        Self { crash: crash_after_writes.map(|writes| Arc::new(AtomicI64::new(writes))) }
    }
}

impl<S> Layer<S> for MeterLayer {
    type Service = Meter<S>;

    fn layer(&self, inner: S) -> Meter<S> {
        Meter { inner, crash: self.crash.clone() }
    }
}

/// The meter as a service.
#[derive(Clone)]
pub struct Meter<S> {
    inner: S,
    crash: Option<Arc<AtomicI64>>,
}

impl<S, B> Service<Request<Body>> for Meter<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + 'static,
{
    type Response = Response<Counted<B>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let about = About::of(&request);
        let crash = self.crash.clone().filter(|_| about.counts_as_write);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let begun = Instant::now();
            let result = if about.verb == "watch" {
                answer.await
            } else {
                let late = || Err(Stopped::Timeout(REQUEST_TIMEOUT).into());
                tokio::time::timeout(REQUEST_TIMEOUT, answer).await.unwrap_or_else(|_| late())
            };
            about.count(begun.elapsed(), result.as_ref().map_or(0, |response| response.status().as_u16()));
            if crash.is_some_and(|left| left.fetch_sub(1, Ordering::SeqCst) == 1) {
                std::process::abort();
            }
            let bytes = counter!("rest_client_response_bytes_total", "method" => about.verb);
            result.map(|response| {
                response.map(|body| {
                    let count: Count = Box::new(move |frame: Frame<Bytes>| {
                        bytes.increment(frame.data_ref().map_or(0, |data| data.len() as u64));
                        frame
                    });
                    body.map_frame(count)
                })
            })
        })
    }
}

type Count = Box<dyn FnMut(Frame<Bytes>) -> Frame<Bytes> + Send>;
/// A response body whose bytes are counted.
type Counted<B> = MapFrame<B, Count>;

/// Labels of a request in metrics; never an object's name.
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

/// Resource (and subresource) of a request path, and whether it is of a single object.
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

    #[test]
    fn paths_name_their_resource() {
        let table = [
            ("/api/v1/namespaces/a/secrets/b", ("secrets", true)),
            ("/apis/example.com/v1/namespaces/a/widgets/b/status", ("widgets/status", true)),
            ("/apis/example.com/v1/widgets", ("widgets", false)),
            ("/apis/example.com/v1/hosts/x.example.com", ("hosts", true)),
            ("/api/v1/namespaces/a", ("namespaces", true)),
        ];
        for (path, (resource, named)) in table {
            assert_eq!(resource_of(path), (resource.to_owned(), named), "{path}");
        }
    }
}
