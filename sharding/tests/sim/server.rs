//! A model API server: objects in collections, one counter of versions, preconditions, watches that tell changes in
//! order, the slot map's schema. Just what a `kube::Client` asks of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};

/// Second at which the simulation begins, for creationTimestamps.
const EPOCH_SECONDS: i64 = 1_760_000_000;

/// A request as the server reads it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: http::Method,
    /// Path of the collection, and name where one object is meant.
    pub(crate) collection: String,
    pub(crate) name: Option<String>,
    pub(crate) query: String,
    pub(crate) body: Value,
    /// The process that sent it.
    pub(crate) sender: usize,
}

/// One write that took effect.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) version: u64,
    pub(crate) collection: String,
    pub(crate) object: Value,
    pub(crate) sender: usize,
    pub(crate) at: Instant,
}

struct Watcher {
    collection: String,
    labels: Vec<(String, String)>,
    events: mpsc::UnboundedSender<Bytes>,
}

#[derive(Default)]
struct Store {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    history: Vec<(u64, String, &'static str, Value)>,
    watchers: Vec<Watcher>,
    written: Vec<Written>,
    notes: Vec<(Instant, String)>,
}

/// The server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    store: Arc<Mutex<Store>>,
    begun: Instant,
    /// Schema of slot maps, by which what members write is judged.
    schema: Arc<Value>,
    /// Mutation of the tests: a write need not be based on the present version.
    heedless: bool,
}

/// What the server answers.
pub(crate) enum Answer {
    Whole(u16, Value),
    Events(mpsc::UnboundedReceiver<Bytes>),
}

fn failure(code: u16, reason: &str) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
                        "reason": reason, "message": reason});
    Answer::Whole(code, status)
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| text.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/").replace("%21", "!");
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), decode(value))).collect()
}

fn selected(object: &Value, labels: &[(String, String)]) -> bool {
    labels.iter().all(|(key, value)| object["metadata"]["labels"][key] == json!(value))
}

fn version_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|it| it.parse().ok()).unwrap_or(0)
}

impl Server {
    pub(crate) fn new(heedless: bool) -> Self {
        let definition = serde_json::to_value(crate::fleet::names().definition()).unwrap();
        let schema = Arc::new(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone());
        Self { store: Arc::default(), begun: Instant::now(), schema, heedless }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// Carries a request out at once.
    pub(crate) fn answer(&self, call: Call) -> Answer {
        let parameters = parameters(&call.query);
        match (call.method.as_str(), &call.name) {
            ("GET", None) if parameters.get("watch").is_some_and(|it| it == "true") => self.watch(&call, &parameters),
            ("GET", None) => self.list(&call.collection, &labels(&parameters)),
            ("GET", Some(name)) => match self.get(&call.collection, name) {
                Some(object) => Answer::Whole(200, object),
                None => failure(404, "NotFound"),
            },
            ("POST" | "PUT", _) if call.collection == crate::script::MAPS && !valid(&self.schema, &call.body) => {
                failure(422, "Invalid")
            }
            ("POST", _) => self.create(call),
            ("PUT", Some(name)) => self.replace(name.clone(), call),
            ("DELETE", Some(name)) => self.delete(&name.clone(), &call),
            _ => failure(405, "MethodNotAllowed"),
        }
    }

    pub(crate) fn get(&self, collection: &str, name: &str) -> Option<Value> {
        self.store().objects.get(&(collection.to_owned(), name.to_owned())).cloned()
    }

    /// Every write that took effect, in order.
    pub(crate) fn written(&self) -> Vec<Written> {
        self.store().written.clone()
    }

    /// Keeps what happened, to explain a failure.
    pub(crate) fn note(&self, text: String) {
        self.store().notes.push((Instant::now(), text));
    }

    /// An error; where `SIM_TRACE` is set, with everything that happened before.
    pub(crate) fn explain(&self, error: &str) -> String {
        if std::env::var_os("SIM_TRACE").is_some() {
            let store = self.store();
            let writes = store.written.iter().filter(|it| !it.collection.ends_with("configmaps"));
            let shown = writes
                .map(|it| (it.at, format!("process {} wrote {} {}", sender(it.sender), it.version, brief(&it.object))));
            let mut lines: Vec<(Instant, String)> = shown.chain(store.notes.iter().cloned()).collect();
            lines.sort_by_key(|(at, _)| *at);
            lines.iter().for_each(|(at, text)| println!("{:8.3} {text}", at.duration_since(self.begun).as_secs_f64()));
        }
        error.to_owned()
    }

    /// All objects of a collection.
    pub(crate) fn all(&self, collection: &str) -> Vec<Value> {
        self.store().objects.iter().filter(|((it, _), _)| it == collection).map(|(_, object)| object.clone()).collect()
    }

    fn list(&self, collection: &str, labels: &[(String, String)]) -> Answer {
        let items: Vec<Value> = self.all(collection).into_iter().filter(|it| selected(it, labels)).collect();
        let version = self.store().version;
        Answer::Whole(
            200,
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}, "items": items}),
        )
    }

    fn watch(&self, call: &Call, parameters: &BTreeMap<String, String>) -> Answer {
        let (sender, receiver) = mpsc::unbounded_channel();
        let from: u64 = parameters.get("resourceVersion").and_then(|it| it.parse().ok()).unwrap_or(0);
        let labels = labels(parameters);
        let mut store = self.store();
        for (version, collection, kind, object) in &store.history {
            if *version > from && *collection == call.collection && selected(object, &labels) {
                let _ = sender.send(event(kind, object));
            }
        }
        store.watchers.retain(|it| !it.events.is_closed());
        store.watchers.push(Watcher { collection: call.collection.clone(), labels, events: sender });
        Answer::Events(receiver)
    }

    fn create(&self, call: Call) -> Answer {
        let mut object = call.body.clone();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if self.get(&call.collection, &name).is_some() {
            return failure(409, "AlreadyExists");
        }
        let version = self.store().version + 1;
        let seconds = EPOCH_SECONDS + i64::try_from(self.begun.elapsed().as_secs()).unwrap();
        object["metadata"]["uid"] = json!(format!("uid-{version}-{name}"));
        object["metadata"]["creationTimestamp"] = json!(jiff::Timestamp::from_second(seconds).unwrap().to_string());
        self.put("ADDED", name, object, call)
    }

    fn replace(&self, name: String, call: Call) -> Answer {
        let Some(present) = self.get(&call.collection, &name) else {
            // A PUT with a uid never creates.
            return failure(409, "Conflict");
        };
        let wanted = &call.body["metadata"];
        let same = wanted["uid"].is_null() || wanted["uid"] == present["metadata"]["uid"];
        let item = call.collection.ends_with("configmaps");
        if !same || (version_of(&call.body) != version_of(&present) && !(self.heedless && item)) {
            return failure(409, "Conflict");
        }
        let mut object = call.body.clone();
        object["metadata"]["uid"] = present["metadata"]["uid"].clone();
        object["metadata"]["creationTimestamp"] = present["metadata"]["creationTimestamp"].clone();
        self.put("MODIFIED", name, object, call)
    }

    fn put(&self, kind: &'static str, name: String, mut object: Value, call: Call) -> Answer {
        let mut store = self.store();
        store.version += 1;
        let version = store.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        store.objects.insert((call.collection.clone(), name), object.clone());
        store.tell(version, &call.collection, kind, &object);
        let at = Instant::now();
        store.written.push(Written {
            version,
            collection: call.collection,
            object: object.clone(),
            sender: call.sender,
            at,
        });
        Answer::Whole(if kind == "ADDED" { 201 } else { 200 }, object)
    }

    fn delete(&self, name: &str, call: &Call) -> Answer {
        let Some(mut object) = self.get(&call.collection, name) else { return failure(404, "NotFound") };
        let wanted = &call.body["preconditions"];
        let differs = |key: &str| !wanted[key].is_null() && wanted[key] != object["metadata"][key];
        if differs("uid") || differs("resourceVersion") {
            return failure(409, "Conflict");
        }
        let mut store = self.store();
        store.version += 1;
        let version = store.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        store.objects.remove(&(call.collection.clone(), name.to_owned()));
        store.tell(version, &call.collection, "DELETED", &object);
        Answer::Whole(200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
    }

    /// Somebody removes an object by hand.
    pub(crate) fn remove(&self, collection: &str, name: &str) {
        let call = Call {
            method: http::Method::DELETE,
            collection: collection.to_owned(),
            name: Some(name.to_owned()),
            query: String::new(),
            body: Value::Null,
            sender: usize::MAX,
        };
        self.delete(name, &call);
    }

    /// Somebody writes an object by hand.
    pub(crate) fn change(&self, collection: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let Some(mut object) = self.get(collection, name) else { return };
        change(&mut object);
        let call = Call {
            method: http::Method::PUT,
            collection: collection.to_owned(),
            name: Some(name.to_owned()),
            query: String::new(),
            body: object.clone(),
            sender: usize::MAX,
        };
        self.put("MODIFIED", name.to_owned(), object, call);
    }
}

impl Store {
    fn tell(&mut self, version: u64, collection: &str, kind: &'static str, object: &Value) {
        self.history.push((version, collection.to_owned(), kind, object.clone()));
        for watcher in self.watchers.iter().filter(|it| it.collection == collection && selected(object, &it.labels)) {
            let _ = watcher.events.send(event(kind, object));
        }
    }
}

/// Whether a value keeps to a schema's types, bounds and lengths.
fn valid(schema: &Value, value: &Value) -> bool {
    let within = |number: f64, least: &str, most: &str| {
        schema[least].as_f64().is_none_or(|it| number >= it) && schema[most].as_f64().is_none_or(|it| number <= it)
    };
    #[expect(clippy::cast_precision_loss, reason = "lengths are small")]
    match schema["type"].as_str() {
        Some("object") => schema["properties"].as_object().is_none_or(|properties| {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.into_iter().all(|key| !value[key].is_null())
                && properties.iter().all(|(key, inner)| value[key].is_null() || valid(inner, &value[key]))
        }),
        Some("array") => value.as_array().is_some_and(|items| {
            within(items.len() as f64, "minItems", "maxItems") && items.iter().all(|it| valid(&schema["items"], it))
        }),
        Some("integer") => value.is_i64() && value.as_f64().is_some_and(|it| within(it, "minimum", "maximum")),
        Some("string") => value.as_str().is_some_and(|it| within(it.len() as f64, "minLength", "maxLength")),
        _ => true,
    }
}

fn labels(parameters: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let selector = parameters.get("labelSelector").cloned().unwrap_or_default();
    let pairs = selector.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn event(kind: &str, object: &Value) -> Bytes {
    // In the order of a real server.
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()
}

/// A Lease or a map in one line.
fn brief(object: &Value) -> String {
    if object["kind"] == "Lease" {
        let notes = &object["metadata"]["annotations"];
        return format!("{} held by {} {notes}", object["metadata"]["name"], object["spec"]["holderIdentity"]);
    }
    let owners = object["spec"]["owners"].as_array().cloned().unwrap_or_default();
    let mut loads = BTreeMap::new();
    owners.iter().for_each(|it| *loads.entry(it.to_string()).or_insert(0) += 1);
    format!(
        "map {} {} generation {} members {} loads {loads:?}",
        object["metadata"]["uid"],
        object["metadata"]["resourceVersion"],
        object["spec"]["generation"],
        object["spec"]["members"]
    )
}

fn sender(process: usize) -> String {
    if process == usize::MAX { "of a person".to_owned() } else { process.to_string() }
}
