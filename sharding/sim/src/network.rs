//! The network between a process and the server: latency, and faults of requests, responses and watches.

use std::{
    collections::{BTreeMap, BTreeSet},
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
use kube_sharding::{gate::Scope, kube::client::Body};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    time::{Instant, sleep, timeout_at},
};
use tower::{BoxError, Service};

use crate::{
    call::Call,
    server::{Answer, Server},
};

/// How long a watch lasts unless the client sets a timeout.
const WATCH_SECONDS: u64 = 25;
/// After this time, the connection of a request without a response is reset.
const SILENCE: Duration = Duration::from_secs(600);

/// Faults of one process's connection; numbers are chances in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkFaults {
    /// A request never arrives.
    pub request_lost: u32,
    /// A request is executed, but its response is lost.
    pub answer_lost: u32,
    /// A request is delayed by up to 30 s.
    pub late: u32,
    /// The server responds with 503.
    pub refused: u32,
    /// The server rejects a write with 409.
    pub conflict: u32,
    /// A watch ends, stalls, or sends an event twice.
    pub watch: u32,
    /// The process is disconnected.
    pub cut: bool,
    /// Responses are delayed by up to this time, although the requests are executed in time: responses overtake each other.
    pub slow: Duration,
}

/// The fault of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No fault.
    None,
    /// It is rejected with this status code.
    Refused(u16),
    /// It never arrives.
    Lost,
    /// It is executed, but its response is lost.
    AnswerLost,
    /// It is executed after this time, even if its sender has died.
    Late(Duration),
    /// It is executed, and its sender is dead from then on.
    Crash,
}

/// Number of faults by kind.
pub type Faults = BTreeMap<&'static str, usize>;

/// Chooses the fault of each request just before the server executes it.
type Intercept = Arc<dyn Fn(&Call) -> Fault + Send + Sync>;

/// Writes whose sender waits for the response, by process and entry.
type Writing = Arc<Mutex<BTreeMap<(usize, Scope), usize>>>;

/// Decides which requests fail, by a seed or by request. Cheap to clone.
#[derive(Clone)]
pub struct FaultInjector {
    link: Arc<Mutex<BTreeMap<usize, LinkFaults>>>,
    dice: Arc<Mutex<StdRng>>,
    faults: Arc<Mutex<Faults>>,
    writing: Writing,
    intercept: Arc<Mutex<Option<Intercept>>>,
    dead: Arc<tokio::sync::watch::Sender<BTreeSet<usize>>>,
    /// Chance in a thousand that a request of any process is delayed.
    late_always: u32,
}

impl FaultInjector {
    /// No faults; random numbers are from this seed.
    pub fn new(seed: u64) -> Self {
        let dice = Arc::new(Mutex::new(StdRng::seed_from_u64(seed ^ 0x5eed)));
        Self {
            link: Arc::default(),
            dice,
            faults: Arc::default(),
            writing: Arc::default(),
            intercept: Arc::default(),
            dead: Arc::default(),
            late_always: 0,
        }
    }

    /// Some requests of every process are delayed.
    #[must_use]
    pub fn with_late_requests(self) -> Self {
        Self { late_always: 50, ..self }
    }

    /// Number of faults so far, by kind.
    pub fn faults(&self) -> Faults {
        self.faults.lock().unwrap().clone()
    }

    /// Whether a process waits for the response to a write.
    pub fn writes(&self, process: usize, scope: Scope) -> bool {
        self.writing.lock().unwrap().contains_key(&(process, scope))
    }

    /// Sets the faults of one process's connection.
    pub fn set(&self, process: usize, link: LinkFaults) {
        self.link.lock().unwrap().insert(process, link);
    }

    /// The faults of one process's connection.
    pub fn of(&self, process: usize) -> LinkFaults {
        let mut link = self.link.lock().unwrap().get(&process).copied().unwrap_or_default();
        link.cut |= self.dead.borrow().contains(&process);
        link
    }

    /// From now on this function chooses the fault of each request of every process, just before the server executes it. It may
    /// also change objects by hand.
    pub fn intercept(&self, what: impl Fn(&Call) -> Fault + Send + Sync + 'static) {
        *self.intercept.lock().unwrap() = Some(Arc::new(what));
    }

    /// Removes the function set by `intercept`.
    pub fn stop_intercepting(&self) {
        *self.intercept.lock().unwrap() = None;
    }

    /// Marks the process as dead: none of its requests arrives, and it receives no responses.
    pub fn kill(&self, process: usize) {
        self.dead.send_modify(|dead| {
            dead.insert(process);
        });
    }

    /// Waits until the process is dead.
    pub async fn death_of(&self, process: usize) {
        let mut dead = self.dead.subscribe();
        // The sender is a field of `self`, so it is not dropped.
        let _ = dead.wait_for(|dead| dead.contains(&process)).await;
    }

    fn fault_of(&self, call: &Call) -> Fault {
        let intercept = self.intercept.lock().unwrap().clone();
        intercept.map_or(Fault::None, |decide| decide(call))
    }

    fn count(&self, fault: &'static str) {
        *self.faults.lock().unwrap().entry(fault).or_default() += 1;
    }

    fn chance(&self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.dice.lock().unwrap().random_range(0..1000) < of_thousand
    }

    fn millis(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.dice.lock().unwrap().random_range(range))
    }
}

/// The connection of one process to the server: a service for a `kube::Client`.
#[derive(Clone)]
pub struct Network {
    server: Server,
    injector: FaultInjector,
    process: usize,
}

/// Body of a response.
pub type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

impl Network {
    /// The connection of the process with this number.
    pub fn new(server: &Server, injector: &FaultInjector, process: usize) -> Self {
        Self { server: server.clone(), injector: injector.clone(), process }
    }
}

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
        // A sent request is executed even if its sender is gone.
        tokio::spawn(async move {
            if let Some(answer) = network.deliver(request).await {
                let _ = sender.send(answer);
            } else {
                // Without a response, the client must have a timeout.
                sleep(SILENCE).await;
                drop(sender);
            }
        });
        Box::pin(async move {
            let _awaited = awaited;
            answer.await.map_err(|_| BoxError::from("the connection was reset"))
        })
    }
}

/// A write, while its sender waits for the response.
struct Awaited(Writing, (usize, Scope));

impl Awaited {
    fn new(network: &Network, scope: Scope) -> Self {
        let (writing, key) = (Arc::clone(&network.injector.writing), (network.process, scope));
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
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let call = Call::read(&parts, &bytes, self.process);
        let link = self.injector.of(self.process);
        let write = call.is_write();
        let named = |read: &'static str, written: &'static str| if write { written } else { read };
        sleep(self.injector.millis(1..8)).await;
        if link.cut || self.injector.chance(link.request_lost) {
            self.injector.count(named("reads lost", "writes lost"));
            return None;
        }
        if self.injector.chance(link.late.max(self.injector.late_always)) {
            self.injector.count(named("reads late", "writes late"));
            sleep(self.injector.millis(1000..30_000)).await;
        }
        if self.injector.chance(link.refused) {
            self.injector.count(named("reads refused", "writes refused"));
            return Some(status(503));
        }
        if write && self.injector.chance(link.conflict) {
            self.injector.count("writes in conflict");
            return Some(status(409));
        }
        let fault = self.injector.fault_of(&call);
        if fault == Fault::Lost {
            return None;
        }
        if let Fault::Late(time) = fault {
            sleep(time).await;
        }
        let answer = match fault {
            Fault::Refused(code) => return Some(status(code)),
            _ => self.server.answer(&call),
        };
        if fault == Fault::Crash {
            self.injector.kill(self.process);
        }
        let lost = self.injector.chance(link.answer_lost) || fault == Fault::AnswerLost;
        sleep(
            self.injector.millis(1..8)
                + self.lateness(&link, named("responses to reads late", "responses to writes late")),
        )
        .await;
        if lost || self.injector.of(self.process).cut {
            self.injector.count(named("responses to reads lost", "responses to writes lost"));
            return None;
        }
        Some(match answer {
            Answer::Whole(code, value) => whole(code, &value),
            Answer::Events(events) => self.events(events, &call),
        })
    }

    /// How long a response is delayed: any two may overtake each other.
    fn lateness(&self, link: &LinkFaults, what: &'static str) -> Duration {
        let mut most = u64::try_from(link.slow.as_millis()).unwrap();
        if self.injector.chance(link.late) {
            most = most.max(20_000);
        }
        if most == 0 {
            return Duration::ZERO;
        }
        self.injector.count(what);
        self.injector.millis(most / 3..most)
    }

    /// The response of a watch, which may end, stall, or send an event twice. If it ends by its timeout, a bookmark is sent first.
    fn events(&self, events: UnboundedReceiver<Bytes>, call: &Call) -> Response<AnswerBody> {
        let network = self.clone();
        let seconds = call.parameter("timeoutSeconds").parse().unwrap_or(WATCH_SECONDS);
        let state = (Some(events), None::<Bytes>, Instant::now() + Duration::from_secs(seconds));
        let stream = futures::stream::unfold(state, move |(events, mut twice, end)| {
            let network = network.clone();
            async move {
                let mut events = events?;
                if let Some(again) = twice.take() {
                    return Some((again, (Some(events), None, end)));
                }
                let next = match timeout_at(end, events.recv()).await {
                    Ok(next) => next?,
                    Err(_) => return Some((network.server.bookmark(), (None, None, end))),
                };
                let link = network.injector.of(network.process);
                sleep(network.injector.millis(1..30)).await;
                if link.cut {
                    network.injector.count("watches cut");
                    // Half-open: the connection exists, but no data arrives.
                    sleep(SILENCE).await;
                }
                if network.injector.chance(link.watch) {
                    network.injector.count("watches ended, stalled or with duplicates");
                    match network.injector.millis(0..3).as_millis() {
                        0 => return None,
                        1 => sleep(SILENCE).await,
                        _ => twice = Some(next.clone()),
                    }
                }
                Some((next, (Some(events), twice, end)))
            }
        });
        let frames = stream.map(|bytes| Ok::<_, Infallible>(http_body::Frame::data(bytes)));
        Response::new(UnsyncBoxBody::new(StreamBody::new(frames).map_err(|never| match never {})))
    }
}

fn status(code: u16) -> Response<AnswerBody> {
    let reason = http::StatusCode::from_u16(code).ok().and_then(|it| it.canonical_reason()).unwrap_or_default();
    whole(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
                        "reason": reason.replace(' ', ""), "message": reason}),
    )
}

fn whole(code: u16, value: &Value) -> Response<AnswerBody> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    Response::builder().status(code).body(UnsyncBoxBody::new(body)).unwrap()
}
