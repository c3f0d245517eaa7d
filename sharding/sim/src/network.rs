//! What lies between a process and the server: latency, and everything that can happen to a request on its way.

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
use kube::client::Body;
use kube_sharding::gate::Scope;
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

/// How long a watch lasts where the client does not say.
const WATCH_SECONDS: u64 = 25;
/// For how long nothing comes of what is never answered.
const SILENCE: Duration = Duration::from_mins(10);

/// What may go wrong for one process, as chances of one in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// A request never arrives, and is never answered.
    pub request_lost: u32,
    /// A request arrives, its answer is lost.
    pub answer_lost: u32,
    /// A request stays on its way for up to 30 s.
    pub late: u32,
    /// The server answers 503.
    pub refused: u32,
    /// A watch breaks, goes silent, or tells an event twice.
    pub watch: u32,
    /// Nothing gets through at all.
    pub cut: bool,
    /// Answers come up to this much later, though the requests are carried out in time: they overtake each other.
    pub slow: Duration,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing goes wrong.
    None,
    /// It is not carried out, and answered with this status code.
    Refused(u16),
    /// It never arrives, and is never answered.
    Lost,
    /// It is carried out, and never answered.
    AnswerLost,
    /// It is carried out only after this time, whatever became of its sender.
    Late(Duration),
    /// It is carried out, and its sender is dead from then on.
    Crash,
}

/// What went wrong, and how often.
pub type Faults = BTreeMap<&'static str, usize>;

/// Decides what becomes of each request, at the moment at which the server would carry it out.
type Intercept = Arc<dyn Fn(&Call) -> Fault + Send + Sync>;

/// Writes that their sender waits for, by process and entry.
type Writing = Arc<Mutex<BTreeMap<(usize, Scope), usize>>>;

/// Weather by process, and the dice. Cheap to clone.
#[derive(Clone)]
pub struct Sky {
    weather: Arc<Mutex<BTreeMap<usize, Weather>>>,
    dice: Arc<Mutex<StdRng>>,
    faults: Arc<Mutex<Faults>>,
    writing: Writing,
    intercept: Arc<Mutex<Option<Intercept>>>,
    dead: Arc<tokio::sync::watch::Sender<BTreeSet<usize>>>,
    /// Chance of a thousand that any request stays on its way, whatever the weather.
    late_always: u32,
}

impl Sky {
    /// Fair weather, and dice that this seed throws.
    pub fn new(seed: u64) -> Self {
        let dice = Arc::new(Mutex::new(StdRng::seed_from_u64(seed ^ 0x5eed)));
        Self {
            weather: Arc::default(),
            dice,
            faults: Arc::default(),
            writing: Arc::default(),
            intercept: Arc::default(),
            dead: Arc::default(),
            late_always: 0,
        }
    }

    /// Requests of all are late now and then, in any weather.
    #[must_use]
    pub fn with_late_requests(self) -> Self {
        Self { late_always: 50, ..self }
    }

    /// What went wrong so far.
    pub fn faults(&self) -> Faults {
        self.faults.lock().unwrap().clone()
    }

    /// Whether a process waits for the answer to a write.
    pub fn writes(&self, process: usize, scope: Scope) -> bool {
        self.writing.lock().unwrap().contains_key(&(process, scope))
    }

    /// Sets the weather of one process.
    pub fn set(&self, process: usize, weather: Weather) {
        self.weather.lock().unwrap().insert(process, weather);
    }

    /// The weather of one process.
    pub fn of(&self, process: usize) -> Weather {
        let mut weather = self.weather.lock().unwrap().get(&process).copied().unwrap_or_default();
        weather.cut |= self.dead.borrow().contains(&process);
        weather
    }

    /// From now on this decides about each request, of whatever process, just before the server would carry it out: it may
    /// change objects by hand too.
    pub fn intercept(&self, what: impl Fn(&Call) -> Fault + Send + Sync + 'static) {
        *self.intercept.lock().unwrap() = Some(Arc::new(what));
    }

    /// No request is decided about any more.
    pub fn let_be(&self) {
        *self.intercept.lock().unwrap() = None;
    }

    /// The process is dead: nothing that it sends arrives, and nothing reaches it.
    pub fn kill(&self, process: usize) {
        self.dead.send_modify(|dead| {
            dead.insert(process);
        });
    }

    /// Ends once the process is dead.
    pub async fn death_of(&self, process: usize) {
        let mut dead = self.dead.subscribe();
        // The sender is this sky's own.
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

/// The way of one process to the server: a service to put beneath a `kube::Client`.
#[derive(Clone)]
pub struct Network {
    server: Server,
    sky: Sky,
    process: usize,
}

/// Body of an answer.
pub type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

impl Network {
    /// The way of a process, which tests know by this number.
    pub fn new(server: &Server, sky: &Sky, process: usize) -> Self {
        Self { server: server.clone(), sky: sky.clone(), process }
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
        // What was sent goes its way, whatever becomes of who sent it.
        tokio::spawn(async move {
            if let Some(answer) = network.deliver(request).await {
                let _ = sender.send(answer);
            } else {
                // Never answered: who waits must have a limit of its own.
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
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let call = Call::read(&parts, &bytes, self.process);
        let weather = self.sky.of(self.process);
        let write = call.is_write();
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
            return Some(status(503));
        }
        let fault = self.sky.fault_of(&call);
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
            self.sky.kill(self.process);
        }
        let lost = self.sky.chance(weather.answer_lost) || fault == Fault::AnswerLost;
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
            Answer::Events(events) => self.events(events, &call),
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

    /// A watch: in bad weather it breaks, goes silent, or tells an event twice. Before it ends by itself, a bookmark comes.
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
                let weather = network.sky.of(network.process);
                sleep(network.sky.millis(1..30)).await;
                if weather.cut {
                    network.sky.count("watches cut");
                    // Half-open: the connection stands, nothing comes.
                    sleep(SILENCE).await;
                }
                if network.sky.chance(weather.watch) {
                    network.sky.count("watches broken, silent or doubled");
                    match network.sky.millis(0..3).as_millis() {
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
