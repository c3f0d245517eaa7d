//! Clients: one for the work, whose writes pass the gate beneath the retry, and one for Leases and slot map, which never
//! retries.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, DynBody, retry::RetryPolicy},
};
use tower::{BoxError, Service, ServiceExt as _, buffer::BufferLayer, retry::RetryLayer, service_fn, util::BoxService};

use crate::{
    gate::{Gate, Scope},
    layer::{GateLayer, is_event},
    meter::{MeterLayer, REQUEST_TIMEOUT},
};

/// Requests that may wait behind the retry.
pub const QUEUED_REQUESTS_MAX: usize = 1024;
/// First and longest wait before a request is sent again on 429, 503 or 504, and how often.
const RETRY: (Duration, Duration, u32) = (Duration::from_millis(50), Duration::from_secs(2), 5);

type Builder = ClientBuilder<BoxService<Request<Body>, Response<Box<DynBody>>, BoxError>>;

/// How the API server is reached. Cheap to clone.
#[derive(Clone)]
pub struct Connection(Arc<dyn Fn() -> Result<Builder, kube::Error> + Send + Sync>);

impl Connection {
    /// As a configuration says. Its own retry is disabled, since it would lie above the gate.
    pub fn new(mut config: Config) -> Self {
        config.default_retry = false;
        Self(Arc::new(move || ClientBuilder::try_from(config.clone())))
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

impl From<Config> for Connection {
    fn from(config: Config) -> Self {
        Self::new(config)
    }
}

/// A client whose requests carry a scope.
pub fn scoped(client: &Client, scope: Scope) -> Client {
    let inner = client.clone();
    let service = service_fn(move |mut request: Request<Body>| {
        request.extensions_mut().insert(scope);
        let inner = inner.clone();
        async move { inner.send(request).await }
    });
    Client::new(service, client.default_namespace())
}

/// The client of reconcilers and watches.
pub fn gated(connection: &Connection, gate: Gate, meter: &MeterLayer) -> Result<Client, kube::Error> {
    Ok((connection.0)()?
        .with_layer(&GateLayer::new(gate, REQUEST_TIMEOUT, is_event))
        .with_layer(meter)
        .with_layer(&BufferLayer::new(QUEUED_REQUESTS_MAX))
        .with_layer(&RetryLayer::new(retries()))
        .build())
}

/// The retries of a client.
///
/// # Panics
/// Never: its shortest wait is not longer than its longest.
pub fn retries() -> RetryPolicy {
    let (first, longest, times) = RETRY;
    RetryPolicy::new(first, longest, times, true).expect("the shortest wait is not longer than the longest")
}

/// The client of the sharding protocol: one attempt a request.
pub fn for_protocol(connection: &Connection, meter: &MeterLayer) -> Result<Client, kube::Error> {
    Ok((connection.0)()?.with_layer(meter).build())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    /// A server that refuses the first request and answers each other; how many came.
    fn reluctant() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 4096]);
                let status =
                    if count.fetch_add(1, Ordering::SeqCst) == 0 { "503 Service Unavailable" } else { "200 OK" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
            }
        });
        (url, requests)
    }

    /// kube's own retry, which is in force by default, would send a write again without asking the gate.
    #[tokio::test]
    async fn kube_retries_nothing_by_itself() {
        let (url, requests) = reluctant();
        let config = Config::new(url.parse().expect("a URL"));
        let client = for_protocol(&Connection::new(config), &MeterLayer::default()).expect("a client");
        let answer = client.request_text(Request::get("/version").body(Vec::new()).expect("a request")).await;
        assert!(answer.is_err(), "the refusal reaches who asked");
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }
}
