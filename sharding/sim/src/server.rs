//! The server: executes requests, one after the other.

use std::sync::{Arc, Mutex, MutexGuard};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    apply,
    call::{BY_HAND, Call, Place},
    garbage::{FOREGROUND, NAMESPACES, finalizers, is_deleting},
    patch::{is_other_spec, keep_own, merge, set_or_remove},
    schema,
    selector::Selector,
    store::{Requested, Store, Written},
    watch::metadata_of,
};

/// Second at which the wall clock starts.
const EPOCH_SECONDS: i64 = 1_760_000_000;

/// A response of the server.
#[derive(Debug)]
pub enum Answer {
    /// A status code and a body.
    Whole(u16, Value),
    /// The events of a watch.
    Events(mpsc::UnboundedReceiver<Bytes>),
}

/// Why a request was rejected.
#[derive(Debug)]
struct Refused {
    code: u16,
    reason: &'static str,
    message: String,
    causes: Vec<Value>,
}

fn refused(code: u16, reason: &'static str, message: impl Into<String>) -> Refused {
    Refused { code, reason, message: message.into(), causes: Vec::new() }
}

impl Refused {
    fn answer(self) -> Answer {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": self.code,
                            "reason": self.reason, "message": self.message, "details": {"causes": self.causes}});
        Answer::Whole(self.code, status)
    }
}

/// A model API server. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    store: Arc<Mutex<Store>>,
    begun: Instant,
    changed: Arc<watch::Sender<u64>>,
    schemas: Arc<Vec<(String, Value)>>,
    tracks_managers: bool,
    selects_shards: bool,
    without_version_checks_of: Option<String>,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// A server without objects.
    pub fn new() -> Self {
        Self {
            store: Arc::default(),
            begun: Instant::now(),
            changed: Arc::default(),
            schemas: Arc::default(),
            tracks_managers: false,
            selects_shards: false,
            without_version_checks_of: None,
        }
    }

    /// The same with the schema of a CustomResourceDefinition's first version: invalid objects are rejected (422).
    #[must_use]
    pub fn with_definition(mut self, definition: &Value) -> Self {
        let spec = &definition["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let version = &spec["versions"][0];
        let [group, version_name, plural] =
            [text(&spec["group"]), text(&version["name"]), text(&spec["names"]["plural"])];
        let schema = version["schema"]["openAPIV3Schema"].clone();
        Arc::make_mut(&mut self.schemas).push((format!("/apis/{group}/{version_name}/{plural}"), schema));
        self
    }

    /// The same with managers of fields, which server-side apply needs to find conflicts.
    #[must_use]
    pub fn with_field_managers(self) -> Self {
        Self { tracks_managers: true, ..self }
    }

    /// The same, which selects objects by ranges of the hash of their uid (`shardSelector`, KEP-5866).
    #[must_use]
    pub fn selecting_shards(self) -> Self {
        Self { selects_shards: true, ..self }
    }

    /// A flaw for tests of tests: the version in writes of these objects is not checked.
    #[must_use]
    pub fn without_version_checks_of(self, plural: &str) -> Self {
        Self { without_version_checks_of: Some(plural.to_owned()), ..self }
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// The server's wall clock, which follows virtual time.
    pub fn now(&self) -> Timestamp {
        let gone = i64::try_from(self.begun.elapsed().as_millis()).unwrap();
        Timestamp::from_millisecond(EPOCH_SECONDS * 1000 + gone).unwrap()
    }

    /// The time in whole seconds, as in objects.
    fn stamp(&self) -> String {
        Timestamp::from_second(self.now().as_second()).unwrap().to_string()
    }

    /// When the server was created.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// The version of the last write.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Executes a request at once.
    pub fn answer(&self, call: &Call) -> Answer {
        // An unknown parameter is ignored.
        let unknown = (!self.selects_shards && call.query.contains_key("shardSelector")).then_some("shardSelector");
        let without = unknown.map(|name| call.without(name));
        let call = without.as_ref().unwrap_or(call);
        let answer = if call.is_watch() {
            Answer::Events(self.store().watch(call))
        } else {
            self.carry_out(call).unwrap_or_else(Refused::answer)
        };
        let code = if let Answer::Whole(code, _) = &answer { *code } else { 200 };
        let (place, subresource) = (call.place.clone(), call.subresource.clone());
        let asked = Requested { verb: verb(call), place, subresource, code, sender: call.sender, at: Instant::now() };
        self.store().requests.push(asked);
        self.notify_changes();
        answer
    }

    /// Wakes the receivers of `changes`.
    pub(crate) fn notify_changes(&self) {
        let version = self.store().version;
        self.changed.send_if_modified(|known| std::mem::replace(known, version) != version);
    }

    fn carry_out(&self, call: &Call) -> Result<Answer, Refused> {
        let named = !call.place.name.is_empty();
        let (code, object) = match (call.method.as_str(), named) {
            ("GET", false) => return Ok(self.list(call)),
            ("GET", true) => (200, self.found(&call.place)?),
            ("POST", false) => (201, self.create(call)?),
            ("PUT", true) => (200, self.replace(call)?),
            ("PATCH", true) if call.applies => self.apply(call)?,
            ("PATCH", true) => (200, self.patch(call)?),
            ("DELETE", true) => {
                let gone =
                    || Arc::new(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}));
                (200, self.delete(call)?.unwrap_or_else(gone))
            }
            _ => return Err(refused(405, "MethodNotAllowed", "the server does not allow this method")),
        };
        let body = if call.metadata_only { metadata_of(&object) } else { Value::clone(&object) };
        Ok(Answer::Whole(code, body))
    }

    fn found(&self, place: &Place) -> Result<Arc<Value>, Refused> {
        let found = self.store().objects.get(place).cloned();
        found.ok_or_else(|| refused(404, "NotFound", format!("{} {:?} not found", place.plural(), place.name)))
    }

    fn list(&self, call: &Call) -> Answer {
        let selector = Selector::of(call);
        let store = self.store();
        let selected = store.within(&call.place).filter(|(place, object)| selector.selects(place, object));
        let items: Vec<Value> = selected
            .map(|(place, object)| {
                if call.metadata_only {
                    return metadata_of(object);
                }
                let mut item = Value::clone(object);
                if let Some(fields) = item.as_object_mut().filter(|_| place.is_built_in()) {
                    fields.remove("apiVersion");
                    fields.remove("kind");
                }
                item
            })
            .collect();
        let (kind, api_version) =
            if call.metadata_only { ("PartialObjectMetadataList", "meta.k8s.io/v1") } else { ("List", "v1") };
        let metadata = json!({"resourceVersion": store.version.to_string()});
        Answer::Whole(200, json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items}))
    }

    /// Whether an object may be created in a namespace. The namespace must exist if there are any namespaces.
    fn may_create(&self, place: &Place) -> Result<(), Refused> {
        if place.namespace.is_empty() {
            return Ok(());
        }
        let store = self.store();
        let namespaces = Place { resource: NAMESPACES.into(), ..Place::default() };
        match store.objects.get(&namespaces.named(&place.namespace)) {
            None if store.within(&namespaces).next().is_some() => {
                Err(refused(404, "NotFound", format!("namespaces {:?} not found", place.namespace)))
            }
            Some(namespace) if is_deleting(namespace) => {
                let message = format!("unable to create new content in namespace {}", place.namespace);
                let causes = vec![json!({"reason": "NamespaceTerminating", "field": "metadata.namespace"})];
                Err(Refused { causes, ..refused(403, "Forbidden", message) })
            }
            _ => Ok(()),
        }
    }

    fn create(&self, call: &Call) -> Result<Arc<Value>, Refused> {
        let mut object = call.body.clone();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let place = call.place.named(&name);
        self.may_create(&place)?;
        if self.store().objects.contains_key(&place) {
            return Err(refused(409, "AlreadyExists", format!("{} {name:?} already exists", place.plural())));
        }
        if call.sender != BY_HAND
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        self.put(&place, None, object, call)
    }

    /// The object that a write is based on, if it is the current version.
    fn present(&self, call: &Call, needs_version: bool) -> Result<Arc<Value>, Refused> {
        let present = self.found(&call.place)?;
        let wanted = &call.body["metadata"];
        let heedless = self.without_version_checks_of.as_deref() == Some(call.place.plural());
        let differs = |key: &str| !wanted[key].is_null() && wanted[key] != present["metadata"][key];
        let old = differs("resourceVersion") || (needs_version && wanted["resourceVersion"].is_null());
        if differs("uid") || (old && !heedless) {
            return Err(refused(409, "Conflict", "the object has been modified"));
        }
        Ok(present)
    }

    fn replace(&self, call: &Call) -> Result<Arc<Value>, Refused> {
        let present = match self.present(call, true) {
            // A PUT with a uid never creates.
            Err(error) if error.code == 404 && !call.body["metadata"]["uid"].is_null() => {
                return Err(refused(409, "Conflict", "the object is gone"));
            }
            other => other?,
        };
        let mut object = call.body.clone();
        if call.subresource.as_deref() == Some("status") {
            object = Value::clone(&present);
            set_or_remove(&mut object, "status", &call.body["status"]);
        } else if call.sender != BY_HAND {
            set_or_remove(&mut object, "status", &present["status"]);
        }
        self.put(&call.place, Some(&present), object, call)
    }

    fn patch(&self, call: &Call) -> Result<Arc<Value>, Refused> {
        let present = self.present(call, false)?;
        let mut object = Value::clone(&present);
        let mut patch = call.body.clone();
        let is_status = call.subresource.as_deref() == Some("status");
        if let Some(fields) = patch.as_object_mut().filter(|_| call.sender != BY_HAND) {
            fields.retain(|key, _| (key == "status") == is_status);
        }
        merge(&mut object, &patch);
        self.put(&call.place, Some(&present), object, call)
    }

    fn apply(&self, call: &Call) -> Result<(u16, Arc<Value>), Refused> {
        let before = match self.present(call, false) {
            Ok(present) => Some(present),
            Err(error) if error.code == 404 && call.body["metadata"]["uid"].is_null() => {
                self.may_create(&call.place)?;
                None
            }
            Err(error) => return Err(error),
        };
        let object = apply::apply(before.as_deref(), call, &self.stamp()).map_err(|conflicts| {
            let shown: Vec<String> = conflicts.iter().map(|it| format!("{}: {}", it.manager, it.field)).collect();
            let causes = conflicts.iter().map(|it| json!({"reason": "FieldManagerConflict", "field": it.field}));
            let message = format!("Apply failed with {} conflicts: {}", shown.len(), shown.join(", "));
            Refused { causes: causes.collect(), ..refused(409, "Conflict", message) }
        })?;
        let code = if before.is_some() { 200 } else { 201 };
        Ok((code, self.put(&call.place, before.as_deref(), object, call)?))
    }

    /// Stores an object, with the fields that the server sets.
    fn put(
        &self,
        place: &Place,
        before: Option<&Value>,
        mut object: Value,
        call: &Call,
    ) -> Result<Arc<Value>, Refused> {
        if place.plural() == "secrets" {
            encode(&mut object);
        }
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(place.name);
        if !place.namespace.is_empty() {
            metadata["namespace"] = json!(place.namespace);
        }
        keep_own(&mut object, before.unwrap_or(&Value::Null));
        if before.is_none() {
            let version = self.store().version + 1;
            object["metadata"]["uid"] = json!(format!("uid-{version}-{}", place.name));
            object["metadata"]["creationTimestamp"] = json!(self.stamp());
            object["metadata"]["generation"] = json!(1);
        }
        if let Some((_, schema)) = self.schemas.iter().find(|(resource, _)| *resource == place.resource) {
            schema::set_defaults(schema, &mut object);
            // A test may store invalid objects.
            if call.sender != BY_HAND && !schema::valid(schema, &object) {
                return Err(refused(422, "Invalid", format!("{} {:?} is invalid", place.plural(), place.name)));
            }
        }
        if self.tracks_managers && !call.applies {
            apply::note(&mut object, before, call, &self.stamp());
        }
        let Some(before) = before else {
            return Ok(self.store().commit(place, object, false, call.sender));
        };
        if is_deleting(before) && finalizers(&object).iter().any(|it| !finalizers(before).contains(it)) {
            return Err(refused(422, "Invalid", "no new finalizers can be added if the object is being deleted"));
        }
        let mut store = self.store();
        if object == *before {
            return Ok(Arc::new(object));
        }
        if is_other_spec(&object, before) {
            object["metadata"]["generation"] = json!(before["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        let gone = is_deleting(before) && finalizers(&object).is_empty() && place.resource != NAMESPACES;
        Ok(store.commit(place, object, gone, call.sender))
    }

    fn delete(&self, call: &Call) -> Result<Option<Arc<Value>>, Refused> {
        let present = self.found(&call.place)?;
        let wanted = &call.body["preconditions"];
        let differs = |key: &str| !wanted[key].is_null() && wanted[key] != present["metadata"][key];
        if differs("uid") || differs("resourceVersion") {
            return Err(refused(409, "Conflict", "the preconditions do not hold"));
        }
        let policy = call.body["propagationPolicy"].as_str().unwrap_or_default();
        let more: &[&str] = if policy == "Foreground" { &[FOREGROUND] } else { &[] };
        let stamp = self.stamp();
        Ok(self.store().delete(&call.place, more, &stamp, call.sender))
    }
}

/// Access for tests.
impl Server {
    /// An object, by its collection's path and its name.
    pub fn get(&self, collection: &str, name: &str) -> Option<Arc<Value>> {
        self.store().objects.get(&Place::parse(collection).0.named(name)).cloned()
    }

    /// All objects of a collection, by its path.
    pub fn all(&self, collection: &str) -> Vec<Arc<Value>> {
        let collection = Place::parse(collection).0;
        self.store().within(&collection).map(|(_, object)| Arc::clone(object)).collect()
    }

    /// Every object of every kind.
    pub fn everything(&self) -> Vec<(Place, Arc<Value>)> {
        self.store().objects.iter().map(|(place, object)| (place.clone(), Arc::clone(object))).collect()
    }

    /// Every write that took effect, in order.
    pub fn written(&self) -> Vec<Written> {
        self.store().written.clone()
    }

    /// Every write after a version.
    pub fn written_after(&self, version: u64) -> Vec<Written> {
        let store = self.store();
        // Versions rise: new writes are at the end.
        let begin = store.written.partition_point(|it| it.version <= version);
        store.written[begin..].to_vec()
    }

    /// Every request that the server executed, in order.
    pub fn requests(&self) -> Vec<Requested> {
        self.store().requests.clone()
    }

    /// Adds a note, which helps to explain a failure.
    pub fn note(&self, text: String) {
        self.store().notes.push((Instant::now(), text));
    }

    /// The notes and their times.
    pub fn notes(&self) -> Vec<(Instant, String)> {
        self.store().notes.clone()
    }

    /// Creates an object by hand, with its status.
    pub fn create_by_hand(&self, collection: &str, object: &Value) -> Arc<Value> {
        let call = Call::by_hand(http::Method::POST, Place::parse(collection).0, object.clone());
        assert!(matches!(self.answer(&call), Answer::Whole(201, _)), "{collection}: {object}");
        self.get(collection, object["metadata"]["name"].as_str().unwrap_or_default()).unwrap()
    }

    /// Deletes an object by hand.
    pub fn remove(&self, collection: &str, name: &str) {
        self.answer(&Call::by_hand(http::Method::DELETE, Place::parse(collection).0.named(name), Value::Null));
    }

    /// Changes an object by hand, if it exists; its status too.
    pub fn change(&self, collection: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let Some(object) = self.get(collection, name) else { return };
        let mut object = Value::clone(&object);
        change(&mut object);
        let call = Call::by_hand(http::Method::PUT, Place::parse(collection).0.named(name), object);
        assert!(matches!(self.answer(&call), Answer::Whole(200, _)), "{collection} {name}");
    }
}

fn verb(call: &Call) -> &'static str {
    match call.method.as_str() {
        "GET" if call.is_watch() => "watch",
        "GET" if call.place.name.is_empty() => "list",
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" if call.applies => "apply",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "other",
    }
}

/// Moves the `stringData` of a Secret into its `data`.
fn encode(secret: &mut Value) {
    let texts = secret.as_object_mut().and_then(|it| it.remove("stringData"));
    for (key, text) in texts.as_ref().and_then(Value::as_object).into_iter().flatten() {
        secret["data"][key] = json!(STANDARD.encode(text.as_str().unwrap_or_default()));
    }
}
