//! An API server of ConfigMaps for tests of watches: lists and watch events come when the test says so, and every request
//! is written down.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tower::{BoxError, service_fn};

use crate::watch::Query;

type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

#[derive(Default)]
struct State {
    version: u64,
    /// Name, which is the uid too, and version.
    objects: Vec<(String, u64)>,
    requests: Vec<String>,
    watches: Vec<mpsc::UnboundedSender<Bytes>>,
    /// Status codes that the next requests are answered with instead.
    refusals: Vec<u16>,
}

/// The server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    lists: watch::Sender<bool>,
}

/// An object. That named `deep` has values nested beyond what a parser follows, and not even the metadata of that named
/// `broken` can be read.
pub(crate) fn object(name: &str, version: u64) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap",
           "metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": version.to_string()}});
    match name {
        "deep" => object["data"] = json!({"nested": (0..200).fold(Value::Null, |inner, _| json!([inner]))}),
        "broken" => object["metadata"]["labels"] = json!(5),
        _ => {}
    }
    object
}

/// All ConfigMaps.
pub(crate) fn query() -> Query {
    Query::of::<ConfigMap>(&(), None)
}

/// Lets everything that can happen now happen.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

impl Server {
    /// With objects of these names, at versions from 1 on.
    pub(crate) fn new(names: &[&str]) -> Self {
        let this = Self { state: Arc::default(), lists: watch::Sender::new(true) };
        for name in names {
            this.change(name);
        }
        this
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        Client::new(
            service_fn(move |request: Request<Body>| {
                let server = server.clone();
                async move { Ok::<_, BoxError>(server.answer(&request.uri().to_string()).await) }
            }),
            "default",
        )
    }

    /// Whether lists are answered.
    pub(crate) fn answer_lists(&self, now: bool) {
        self.lists.send_replace(now);
    }

    /// The next request is answered with this status.
    pub(crate) fn refuse(&self, code: u16) {
        self.state().refusals.push(code);
    }

    /// Requests since this was asked last: `list` or the version that a watch goes on from, and the label selector.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }

    /// An object is new or changed: answers its version.
    pub(crate) fn change(&self, name: &str) -> u64 {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        state.objects.retain(|(other, _)| other != name);
        state.objects.push((name.to_owned(), version));
        state.send("MODIFIED", &object(name, version));
        version
    }

    /// The same without a word to the watches, as if their connections were dead.
    pub(crate) fn change_unseen(&self, name: &str) -> u64 {
        let watches = std::mem::take(&mut self.state().watches);
        let version = self.change(name);
        self.state().watches = watches;
        version
    }

    pub(crate) fn delete(&self, name: &str) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        state.objects.retain(|(other, _)| other != name);
        state.send("DELETED", &object(name, version));
    }

    /// Nothing changed up to now, as watch number so much is told.
    pub(crate) fn bookmark(&self, watch: usize, version: u64) {
        let bookmark =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": version.to_string()}});
        self.state().send_one(watch, "BOOKMARK", &bookmark);
    }

    /// A watch is told that its version is too old.
    pub(crate) fn expire(&self, watch: usize) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                            "message": "too old", "reason": "Expired", "code": 410});
        self.state().send_one(watch, "ERROR", &status);
    }

    /// The connections of all watches end.
    pub(crate) fn hang_up(&self) {
        self.state().watches.clear();
    }

    async fn answer(&self, uri: &str) -> Answer {
        let parameter = |name: &str| {
            let (_, query) = uri.split_once('?')?;
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
        };
        let labels = parameter("labelSelector").map(|it| format!(" {}", it.replace("%28", "(").replace("%29", ")")));
        let from = parameter("watch").and(parameter("resourceVersion"));
        let shown = format!("{}{}", from.as_deref().unwrap_or("list"), labels.unwrap_or_default());
        self.state().requests.push(shown);
        let refusal = self.state().refusals.pop();
        if let Some(code) = refusal {
            return whole(
                code,
                &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "", "reason": "", "code": code}),
            );
        }
        let Some(from) = from.map(|it| it.parse().unwrap_or(0)) else {
            // It cannot fail: the sender is this server's own.
            let _ = self.lists.subscribe().wait_for(|now| *now).await;
            return self.list();
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state();
        // What happened since then comes first; of what is gone there is no record here.
        for (name, version) in state.objects.iter().filter(|(_, version)| *version > from) {
            let _ = sender.send(line("MODIFIED", &object(name, *version)));
        }
        state.watches.push(sender);
        let frames = futures::stream::unfold(receiver, |mut receiver| async move {
            let bytes = receiver.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(bytes)), receiver))
        });
        Response::new(UnsyncBoxBody::new(StreamBody::new(frames).map_err(|never| match never {})))
    }

    fn list(&self) -> Answer {
        let state = self.state();
        let items: Vec<Value> = state.objects.iter().map(|(name, version)| object(name, *version)).collect();
        let version = json!({"resourceVersion": state.version.to_string()});
        whole(200, &json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": version, "items": items}))
    }
}

impl State {
    fn send(&mut self, kind: &str, object: &Value) {
        for watch in 0..self.watches.len() {
            self.send_one(watch, kind, object);
        }
    }

    fn send_one(&mut self, watch: usize, kind: &str, object: &Value) {
        // Whose request has ended hears nothing.
        let _ = self.watches[watch].send(line(kind, object));
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    // In the order of a real server: what the type is not known of would have to be kept as a tree.
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()
}

fn whole(code: u16, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    Response::builder().status(code).body(UnsyncBoxBody::new(body)).unwrap()
}
