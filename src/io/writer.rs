//! Every write of a reconcile. Each passes its scope to the gate, and is harmless if it arrives late: it has a
//! resourceVersion, a uid, or content that both owners would write.

use http::Request;
use kube::{
    Client,
    api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
    core::{DynamicObject, ObjectList, Request as Builder, Status, TypeMeta},
};
use kube_sharding::{gate::Scope, layer::Stopped};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    domain::{
        key::Key,
        labels::MANAGER,
        metadata::MetadataPatch,
        object::{Desired, Kind},
    },
    io::unread,
};

/// Field manager of replicas while their owner changes.
pub const REPLICAS_MANAGER: &str = "frappe-operator-replicas";

/// Error of a write.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The object was modified concurrently, or an object with this name exists.
    #[error("{verb} {kind:?} {key}: conflict: modified concurrently")]
    Conflict {
        /// Verb of the request.
        verb: &'static str,
        /// Kind of the object.
        kind: Kind,
        /// The object.
        key: Key,
    },
    /// The namespace is being deleted, so nothing can be created in it.
    #[error("{verb} {kind:?} {key}: the namespace is being deleted")]
    NamespaceTerminating {
        /// Verb of the request.
        verb: &'static str,
        /// Kind of the object.
        kind: Kind,
        /// The object.
        key: Key,
    },
    /// The API server rejected the write, and would reject it again.
    #[error("{verb} {kind:?} {key}: {message}")]
    Rejected {
        /// Verb of the request.
        verb: &'static str,
        /// Kind of the object.
        kind: Kind,
        /// The object.
        key: Key,
        /// The API server's message.
        message: String,
    },
    /// The object does not exist.
    #[error("{verb} {kind:?} {key}: not found")]
    NotFound {
        /// Verb of the request.
        verb: &'static str,
        /// Kind of the object.
        kind: Kind,
        /// The object.
        key: Key,
    },
    /// The gate was closed.
    #[error("{verb} {kind:?} {key}: this replica does not own the object")]
    NoRight {
        /// Verb of the request.
        verb: &'static str,
        /// Kind of the object.
        kind: Kind,
        /// The object.
        key: Key,
    },
    /// The API server was unreachable or overloaded.
    #[error("{verb} {kind:?} {key}")]
    Transient {
        /// Verb of the request.
        verb: &'static str,
        /// Kind of the object.
        kind: Kind,
        /// The object.
        key: Key,
        /// The error.
        #[source]
        source: kube::Error,
    },
}

impl WriteError {
    /// The object of this name belongs to another owner.
    pub fn not_ours(verb: &'static str, desired: &Desired) -> Self {
        Self::Rejected { verb, kind: desired.kind, key: desired.key.clone(), message: NOT_OURS.to_owned() }
    }
}

/// Writes for one scope.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    scope: Scope,
}

impl Writer {
    /// Writes of `scope` through `client`.
    pub fn new(client: Client, scope: Scope) -> Self {
        Self { client, scope }
    }

    /// Server-side apply: the object then has exactly our fields, and those of other field managers.
    ///
    /// `known` says that the object is ours: conflicts are then forced. Otherwise it is only created, or adopted without
    /// conflicts, so that another owner's object with the same name is never overwritten.
    pub async fn apply(&self, desired: &Desired, known: bool) -> Result<DynamicObject, WriteError> {
        let about = ("apply", desired.kind, &desired.key);
        let params = PatchParams { force: known, ..PatchParams::apply(MANAGER) };
        let body = desired.stamped();
        let request = builder(desired.kind, &desired.key).patch(&desired.key.name, &params, &Patch::Apply(&body));
        self.send(about, request).await
    }

    /// Server-side apply of only the replicas of `live`, as [`REPLICAS_MANAGER`]. Rejected if the Deployment changed since.
    pub async fn apply_replicas(&self, key: &Key, live: &DynamicObject) -> Result<DynamicObject, WriteError> {
        let params = PatchParams { force: true, ..PatchParams::apply(REPLICAS_MANAGER) };
        let body = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": key.name, "resourceVersion": live.metadata.resource_version},
            "spec": {"replicas": live.data["spec"]["replicas"]},
        });
        let request = builder(Kind::Deployment, key).patch(&key.name, &params, &Patch::Apply(&body));
        self.send(("apply", Kind::Deployment, key), request).await
    }

    /// Creates an object; an existing object with that name is a conflict.
    pub async fn create(&self, desired: &Desired) -> Result<DynamicObject, WriteError> {
        let about = ("create", desired.kind, &desired.key);
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        // What is kept as it should be later must carry the hash from the start.
        let body = if desired.kind == Kind::Domain { desired.stamped() } else { desired.body.clone() };
        let request = builder(desired.kind, &desired.key).create(&params, body.to_string().into_bytes());
        self.send(about, request).await
    }

    /// Lists an object that may not be watched; None if it does not exist.
    pub async fn find(&self, kind: Kind, key: &Key) -> Result<Option<DynamicObject>, WriteError> {
        let params = ListParams::default().fields(&format!("metadata.name={}", key.name));
        let about = ("list", kind, key);
        let text = self.send_for_text(about, builder(kind, key).list(&params)).await?;
        let found: ObjectList<DynamicObject> = whole(&text).map_err(|error| unread_answer(about, error))?;
        let resource = kind.resource();
        let types = TypeMeta { api_version: resource.api_version, kind: resource.kind };
        let first = found.items.into_iter().next();
        Ok(first.map(|it| without_secret(kind, DynamicObject { types: Some(types), ..it })))
    }

    /// Patches an object; `body` has the uid and resourceVersion that it is based on.
    pub async fn patch(
        &self,
        kind: Kind,
        key: &Key,
        body: &(impl Serialize + Sync),
    ) -> Result<DynamicObject, WriteError> {
        let request = builder(kind, key).patch(&key.name, &PatchParams::default(), &Patch::Merge(body));
        self.send(("patch", kind, key), request).await
    }

    /// Patches metadata.
    pub async fn patch_metadata(
        &self,
        kind: Kind,
        key: &Key,
        metadata: &MetadataPatch,
    ) -> Result<DynamicObject, WriteError> {
        self.patch(kind, key, &json!({ "metadata": metadata })).await
    }

    /// Changes the data of a Secret; `body` has the uid and resourceVersion that it is based on.
    pub async fn set_data(&self, secret: &Key, body: &Value) -> Result<DynamicObject, WriteError> {
        self.patch(Kind::Secret, secret, body).await
    }

    /// Replaces the status; `object` is the whole as JSON, with the uid and resourceVersion that it is based on.
    pub async fn replace_status(&self, kind: Kind, key: &Key, object: String) -> Result<DynamicObject, WriteError> {
        let params = PostParams::default();
        let request = builder(kind, key).replace_subresource("status", &key.name, &params, object.into_bytes());
        self.send(("update status of", kind, key), request).await
    }

    /// Reads the metadata of an object live, after a write met an unknown object.
    pub async fn get_metadata(&self, kind: Kind, key: &Key) -> Result<DynamicObject, WriteError> {
        let request = builder(kind, key).get_metadata(&key.name, &GetParams::default());
        self.send(("get", kind, key), request).await
    }

    /// Reads an object live. Only this returns the data of a Secret.
    pub async fn read(&self, kind: Kind, key: &Key) -> Result<DynamicObject, WriteError> {
        let request = builder(kind, key).get(&key.name, &GetParams::default());
        let about = ("get", kind, key);
        whole(&self.send_for_text(about, request).await?).map_err(|error| unread_answer(about, error))
    }

    /// Deletes this object by uid, not a new one with the same name. Returns None if it no longer exists.
    pub async fn delete(&self, kind: Kind, object: &DynamicObject) -> Result<Option<DynamicObject>, WriteError> {
        let key = Key::of(object);
        // A Job is gone only when its pods are: what comes after must not run beside them.
        let propagation = if kind == Kind::Job { PropagationPolicy::Foreground } else { PropagationPolicy::Background };
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: object.metadata.uid.clone(), resource_version: None }),
            propagation_policy: Some(propagation),
            ..DeleteParams::default()
        };
        let request = builder(kind, &key).delete(&key.name, &params);
        match self.send_for_text(("delete", kind, &key), request).await {
            Ok(text) if is_status(&text) => Ok(None),
            Ok(text) => Ok(unread::answer(&text).map(|it| without_secret(kind, it))),
            Err(WriteError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request whose response is an object. The write counts even if the response cannot be parsed.
    async fn send(
        &self,
        about: (&'static str, Kind, &Key),
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<DynamicObject, WriteError> {
        let text = self.send_for_text(about, request).await?;
        // Where there is not even metadata, the error says why.
        let known = unread::answer(&text).map_or_else(|| whole(&text), Ok);
        known.map(|it| without_secret(about.1, it)).map_err(|error| unread_answer(about, error))
    }

    async fn send_for_text(
        &self,
        (verb, kind, key): (&'static str, Kind, &Key),
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<String, WriteError> {
        let mut request = request.map_err(|error| classify(verb, kind, key, kube::Error::BuildRequest(error)))?;
        request.extensions_mut().insert(self.scope);
        self.client.request_text(request).await.map_err(|error| classify(verb, kind, key, error))
    }
}

/// The part of a response that may be kept: of a Secret only its metadata.
fn without_secret(kind: Kind, object: DynamicObject) -> DynamicObject {
    if kind == Kind::Secret { DynamicObject { data: Value::Null, ..object } } else { object }
}

/// The parsed response.
fn whole<T: DeserializeOwned>(text: &str) -> Result<T, kube::Error> {
    serde_json::from_str(text).map_err(kube::Error::SerdeError)
}

fn unread_answer((verb, kind, key): (&'static str, Kind, &Key), error: kube::Error) -> WriteError {
    classify(verb, kind, key, error)
}

/// Whether the response to a deletion is a Status and not the object.
fn is_status(text: &str) -> bool {
    serde_json::from_str::<TypeMeta>(text).is_ok_and(|it| it.kind == "Status")
}

/// Message of a [`WriteError::Rejected`] for an object that belongs to another owner.
pub const NOT_OURS: &str = "an object of this name exists and was not created for this object: rename or remove it";

fn builder(kind: Kind, key: &Key) -> Builder {
    let namespace = (!key.namespace.is_empty()).then_some(key.namespace.as_str());
    Builder::new(<DynamicObject as kube::Resource>::url_path(&kind.resource(), namespace))
}

/// Whether an object was not created because its namespace is being deleted.
pub fn is_terminating(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 && has_cause(status, "NamespaceTerminating"))
}

/// Whether the API server's error has this cause.
fn has_cause(status: &Status, cause: &str) -> bool {
    status.details.iter().flat_map(|it| &it.causes).any(|it| it.reason == cause)
}

/// The API server's message, or why there is none.
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn classify(verb: &'static str, kind: Kind, key: &Key, source: kube::Error) -> WriteError {
    let key = key.clone();
    match &source {
        kube::Error::Api(status) => match status.code {
            409 if has_cause(status, "FieldManagerConflict") => {
                let message = format!("{NOT_OURS} ({})", status.message);
                WriteError::Rejected { verb, kind, key, message }
            }
            409 => WriteError::Conflict { verb, kind, key },
            404 => WriteError::NotFound { verb, kind, key },
            403 if is_terminating(&source) => WriteError::NamespaceTerminating { verb, kind, key },
            400..=428 => WriteError::Rejected { verb, kind, key, message: status.message.clone() },
            // A field that this cluster's definition of the kind does not have: it is answered as if it were the server's fault.
            500 if status.message.contains("failed to create typed patch object") => {
                WriteError::Rejected { verb, kind, key, message: status.message.clone() }
            }
            _ => WriteError::Transient { verb, kind, key, source },
        },
        kube::Error::Service(error) if matches!(error.downcast_ref(), Some(Stopped::Refused(_))) => {
            WriteError::NoRight { verb, kind, key }
        }
        _ => WriteError::Transient { verb, kind, key, source },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::Response;
    use kube::{ResourceExt as _, client::Body};
    use tower::{BoxError, service_fn};

    use super::*;

    fn secret() -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n", "uid": "u"},
               "data": {"password": "c2VjcmV0"}})
    }

    /// A server that answers a list with a list, and everything else with a Secret.
    fn writer() -> Writer {
        let server = service_fn(|request: Request<Body>| {
            let is_list = request.uri().query().is_some_and(|it| it.contains("fieldSelector"));
            let list = json!({"apiVersion": "v1", "kind": "SecretList", "metadata": {}, "items": [secret()]});
            let body = if is_list { list } else { secret() };
            async move { Ok::<_, BoxError>(Response::new(Body::from(body.to_string().into_bytes()))) }
        });
        Writer::new(Client::new(server, "n"), Scope::Coordinator)
    }

    #[tokio::test]
    async fn only_the_read_that_copies_a_secret_returns_its_data() {
        let (writer, key) = (writer(), Key::new("n", "s"));
        let desired = Desired { kind: Kind::Secret, key: key.clone(), body: secret() };
        let held: DynamicObject = serde_json::from_value(secret()).expect("a Secret");
        let answers = [
            writer.apply(&desired, true).await.map(Some),
            writer.create(&desired).await.map(Some),
            writer.find(Kind::Secret, &key).await,
            writer.patch(Kind::Secret, &key, &json!({})).await.map(Some),
            writer.patch_metadata(Kind::Secret, &key, &MetadataPatch::default()).await.map(Some),
            writer.replace_status(Kind::Secret, &key, secret().to_string()).await.map(Some),
            writer.get_metadata(Kind::Secret, &key).await.map(Some),
            writer.delete(Kind::Secret, &held).await,
        ];
        for (number, answer) in answers.into_iter().enumerate() {
            let object = answer.expect("an answer").expect("an object");
            assert_eq!((object.name_any(), object.data), ("s".to_owned(), Value::Null), "{number}");
        }
        assert_eq!(writer.read(Kind::Secret, &key).await.expect("a Secret").data["data"], secret()["data"]);
    }

    /// Query and body of a request.
    type Asked = Arc<Mutex<Vec<(String, Value)>>>;

    /// A writer to a server that answers every request with this code and body, and what it was asked.
    fn answered(code: u16, answer: Value) -> (Writer, Asked) {
        let asked = Asked::default();
        let seen = Arc::clone(&asked);
        let server = service_fn(move |request: Request<Body>| {
            let (seen, answer) = (Arc::clone(&seen), answer.to_string());
            async move {
                let query = request.uri().query().unwrap_or_default().to_owned();
                let body = request.into_body().collect_bytes().await?;
                let body = serde_json::from_slice(&body).unwrap_or_default();
                seen.lock().expect("no test failed").push((query, body));
                Response::builder().status(code).body(Body::from(answer.into_bytes())).map_err(BoxError::from)
            }
        });
        (Writer::new(Client::new(server, "n"), Scope::Coordinator), asked)
    }

    fn status(code: u16, cause: Option<&str>) -> Value {
        let causes: Vec<_> = cause.into_iter().map(|it| json!({"reason": it})).collect();
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "m",
               "details": {"causes": causes}})
    }

    #[tokio::test]
    async fn an_object_is_deleted_by_its_uid_and_a_job_after_its_pods() {
        let held: DynamicObject = serde_json::from_value(secret()).expect("a Secret");
        for (kind, propagation) in [(Kind::Job, "Foreground"), (Kind::Secret, "Background")] {
            let (writer, asked) = answered(200, secret());
            writer.delete(kind, &held).await.expect("an answer");
            let (_, body) = asked.lock().expect("no test failed").remove(0);
            assert_eq!(
                (&body["preconditions"], &body["propagationPolicy"]),
                (&json!({"uid": "u"}), &json!(propagation))
            );
        }
        let (writer, _) = answered(404, status(404, None));
        assert!(writer.delete(Kind::Job, &held).await.expect("it is gone").is_none());
    }

    #[tokio::test]
    async fn only_a_known_object_is_overwritten() {
        let desired = Desired { kind: Kind::Ingress, key: Key::new("n", "s"), body: secret() };
        for known in [false, true] {
            let (writer, asked) = answered(200, secret());
            writer.apply(&desired, known).await.expect("an answer");
            let (query, _) = asked.lock().expect("no test failed").remove(0);
            assert_eq!(query.contains("force=true"), known, "{query}");
        }
    }

    #[tokio::test]
    async fn an_error_is_classified_by_code_and_cause() {
        let table = [
            (409, None, "conflict"),
            (409, Some("FieldManagerConflict"), "rejected"),
            (404, None, "not found"),
            (403, None, "rejected"),
            (403, Some("NamespaceTerminating"), "terminating"),
            (422, Some("FieldValueInvalid"), "rejected"),
            (429, None, "transient"),
            (500, None, "transient"),
        ];
        for (code, cause, wanted) in table {
            let (writer, _) = answered(code, status(code, cause));
            let found = match writer.patch(Kind::Ingress, &Key::new("n", "s"), &json!({})).await {
                Err(WriteError::Conflict { .. }) => "conflict",
                Err(WriteError::Rejected { .. }) => "rejected",
                Err(WriteError::NotFound { .. }) => "not found",
                Err(WriteError::NamespaceTerminating { .. }) => "terminating",
                Err(WriteError::Transient { .. }) => "transient",
                Err(WriteError::NoRight { .. }) | Ok(_) => "another",
            };
            assert_eq!(found, wanted, "{code} {cause:?}");
        }
    }
}
