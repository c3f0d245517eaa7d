//! What lies between a process and the server: latency, and everything that can happen to a request on its way.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use kube_sharding::gate::Scope;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::{sync::oneshot, time::sleep};
use tower::{BoxError, Service};

use crate::server::{Answer, Call, Server};

/// What may go wrong for one process, as chances of one in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// A request never arrives, and is never answered.
    pub(crate) request_lost: u32,
    /// A request arrives, its answer is lost.
    pub(crate) answer_lost: u32,
    /// A request stays on its way for up to 30 s.
    pub(crate) late: u32,
    /// The server answers 429, 500 or 503.
    pub(crate) refused: u32,
    /// A watch breaks, goes silent, or tells an event twice.
    pub(crate) watch: u32,
    /// Nothing gets through at all.
    pub(crate) cut: bool,
    /// Answers come up to this much later, though the requests are carried out in time: they overtake each other.
    pub(crate) slow: Duration,
}

/// What went wrong, and how often.
pub(crate) type Faults = BTreeMap<&'static str, usize>;

/// Writes of items that their sender waits for, by process and whose business they are.
type Writing = Arc<Mutex<BTreeMap<(usize, Scope), usize>>>;

/// Weather by process, and the dice. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sky {
    weather: Arc<Mutex<BTreeMap<usize, Weather>>>,
    dice: Arc<Mutex<StdRng>>,
    faults: Arc<Mutex<Faults>>,
    writing: Writing,
    /// Chance of a thousand that any request stays on its way, whatever the weather.
    late_always: u32,
}

impl Sky {
    pub(crate) fn new(seed: u64) -> Self {
        let dice = Arc::new(Mutex::new(StdRng::seed_from_u64(seed ^ 0x5eed)));
        Self { weather: Arc::default(), dice, faults: Arc::default(), writing: Arc::default(), late_always: 0 }
    }

    /// Requests of all are late now and then, in any weather.
    pub(crate) fn with_late_requests(self) -> Self {
        Self { late_always: 50, ..self }
    }

    /// What went wrong so far.
    pub(crate) fn faults(&self) -> Faults {
        self.faults.lock().unwrap().clone()
    }

    /// Whether a process waits for the answer to a write.
    pub(crate) fn writes(&self, process: usize, scope: Scope) -> bool {
        self.writing.lock().unwrap().contains_key(&(process, scope))
    }

    fn count(&self, fault: &'static str) {
        *self.faults.lock().unwrap().entry(fault).or_default() += 1;
    }

    pub(crate) fn set(&self, process: usize, weather: Weather) {
        self.weather.lock().unwrap().insert(process, weather);
    }

    pub(crate) fn of(&self, process: usize) -> Weather {
        self.weather.lock().unwrap().get(&process).copied().unwrap_or_default()
    }

    fn chance(&self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.dice.lock().unwrap().random_range(0..1000) < of_thousand
    }

    fn millis(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.dice.lock().unwrap().random_range(range))
    }
}

/// The way of one process to the server: a service to put beneath a `kube::Client`.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) server: Server,
    pub(crate) sky: Sky,
    pub(crate) process: usize,
}

/// Body of an answer.
pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

impl Service<Request<Body>> for Network {
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (network, (sender, answer)) = (self.clone(), oneshot::channel());
        let scope = request.extensions().get::<Scope>().copied();
        let awaited = scope.map(|scope| Awaited::new(self, scope));
        // What was sent goes its way, whatever becomes of who sent it.
        tokio::spawn(async move {
            if let Some(answer) = network.deliver(request).await {
                let _ = sender.send(answer);
            } else {
                // Never answered: who waits must have a limit of its own.
                sleep(Duration::from_secs(600)).await;
                drop(sender);
            }
        });
        Box::pin(async move {
            let _awaited = awaited;
            answer.await.map_err(|_| BoxError::from("the connection was reset"))
        })
    }
}

/// A write, for as long as its sender waits for its answer.
struct Awaited(Writing, (usize, Scope));

impl Awaited {
    fn new(network: &Network, scope: Scope) -> Self {
        let (writing, key) = (Arc::clone(&network.sky.writing), (network.process, scope));
        *writing.lock().unwrap().entry(key).or_default() += 1;
        Self(writing, key)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut writing = self.0.lock().unwrap();
        if let Some(count) = writing.get_mut(&self.1) {
            *count -= 1;
        }
        writing.retain(|_, count| *count > 0);
    }
}

impl Network {
    async fn deliver(&self, request: Request<Body>) -> Option<Response<AnswerBody>> {
        let call = self.read(request).await;
        let weather = self.sky.of(self.process);
        let write = call.method != http::Method::GET;
        let named = |read: &'static str, written: &'static str| if write { written } else { read };
        sleep(self.sky.millis(1..8)).await;
        if weather.cut || self.sky.chance(weather.request_lost) {
            self.sky.count(named("reads lost", "writes lost"));
            return None;
        }
        if self.sky.chance(weather.late.max(self.sky.late_always)) {
            self.sky.count(named("reads late", "writes late"));
            sleep(self.sky.millis(1000..30_000)).await;
        }
        if self.sky.chance(weather.refused) {
            self.sky.count(named("reads refused", "writes refused"));
            let status = Value::from(503);
            return Some(whole(
                503,
                &serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": status}),
            ));
        }
        let answer = self.server.answer(call);
        let lost = self.sky.chance(weather.answer_lost);
        sleep(
            self.sky.millis(1..8) + self.lateness(&weather, named("answers of reads late", "answers of writes late")),
        )
        .await;
        if lost || self.sky.of(self.process).cut {
            self.sky.count(named("answers of reads lost", "answers of writes lost"));
            return None;
        }
        Some(match answer {
            Answer::Whole(code, value) => whole(code, &value),
            Answer::Events(events) => self.events(events),
        })
    }

    /// How much later than usual an answer comes: any two may overtake each other.
    fn lateness(&self, weather: &Weather, what: &'static str) -> Duration {
        let mut most = u64::try_from(weather.slow.as_millis()).unwrap();
        if self.sky.chance(weather.late) {
            most = most.max(20_000);
        }
        if most == 0 {
            return Duration::ZERO;
        }
        self.sky.count(what);
        self.sky.millis(most / 3..most)
    }

    async fn read(&self, request: Request<Body>) -> Call {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let path = parts.uri.path().trim_end_matches('/');
        let words: Vec<&str> = path.split('/').collect();
        let place = words.iter().position(|word| *word == "namespaces").unwrap_or(0);
        let (collection, name) = match words.get(place + 3) {
            Some(name) => (words[..place + 3].join("/"), Some((*name).to_owned())),
            None => (path.to_owned(), None),
        };
        Call {
            method: parts.method,
            collection,
            name,
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            sender: self.process,
        }
    }

    /// A watch: in bad weather it breaks, goes silent, or tells an event twice.
    fn events(&self, events: tokio::sync::mpsc::UnboundedReceiver<Bytes>) -> Response<AnswerBody> {
        let network = self.clone();
        let end = tokio::time::Instant::now() + Duration::from_secs(25);
        let state = (events, None::<Bytes>);
        let stream = futures::stream::unfold(state, move |(mut events, mut twice)| {
            let network = network.clone();
            async move {
                if let Some(again) = twice.take() {
                    return Some((again, (events, None)));
                }
                let next = tokio::time::timeout_at(end, events.recv()).await.ok().flatten()?;
                let weather = network.sky.of(network.process);
                sleep(network.sky.millis(1..30)).await;
                if weather.cut {
                    network.sky.count("watches cut");
                    // Half-open: the connection stands, nothing comes.
                    sleep(Duration::from_secs(600)).await;
                }
                if network.sky.chance(weather.watch) {
                    network.sky.count("watches broken, silent or doubled");
                    match network.sky.millis(0..3).as_millis() {
                        0 => return None,
                        1 => sleep(Duration::from_secs(600)).await,
                        _ => twice = Some(next.clone()),
                    }
                }
                Some((next, (events, twice)))
            }
        });
        let frames = stream.map(|bytes| Ok::<_, Infallible>(http_body::Frame::data(bytes)));
        Response::new(UnsyncBoxBody::new(StreamBody::new(frames).map_err(|never| match never {})))
    }
}

fn whole(code: u16, value: &Value) -> Response<AnswerBody> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    Response::builder().status(code).body(UnsyncBoxBody::new(body)).unwrap()
}
