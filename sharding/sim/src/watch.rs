//! Watches: changes since a version, in order.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    call::{Call, Place},
    selector::Selector,
};

/// A version, and the object before and after it.
pub(crate) struct Step {
    pub(crate) version: u64,
    pub(crate) place: Place,
    pub(crate) before: Option<Arc<Value>>,
    pub(crate) after: Option<Arc<Value>>,
}

/// The server's side of a watch.
pub(crate) struct Watcher {
    selector: Selector,
    metadata_only: bool,
    events: mpsc::UnboundedSender<Bytes>,
}

impl Watcher {
    /// The watcher for a request, and the receiver of its events.
    pub(crate) fn new(call: &Call) -> (Self, mpsc::UnboundedReceiver<Bytes>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Self { selector: Selector::of(call), metadata_only: call.metadata_only, events }, receiver)
    }

    /// Sends a change of a watched object; returns whether the watch still exists.
    ///
    /// For an object that was deleted or is no longer selected, the last selected object is sent, at the version of the change.
    pub(crate) fn send_step(&self, step: &Step) -> bool {
        let selected = |object: &&Value| self.selector.selects(&step.place, object);
        let (before, after) = (step.before.as_deref().filter(selected), step.after.as_deref().filter(selected));
        match (before, after) {
            (None, None) => !self.events.is_closed(),
            (None, Some(object)) => self.send("ADDED", object),
            (Some(_), Some(object)) => self.send("MODIFIED", object),
            (Some(former), None) => {
                let mut object = former.clone();
                object["metadata"]["resourceVersion"] = json!(step.version.to_string());
                self.send("DELETED", &object)
            }
        }
    }

    /// Sends an object if it is watched.
    pub(crate) fn send_object(&self, kind: &str, place: &Place, object: &Value) {
        if self.selector.selects(place, object) {
            self.send(kind, object);
        }
    }

    /// Sends that the requested version is too old.
    pub(crate) fn send_expired(&self) {
        self.send("ERROR", &expired());
    }

    fn send(&self, kind: &str, object: &Value) -> bool {
        let metadata;
        let object = if self.metadata_only {
            metadata = metadata_of(object);
            &metadata
        } else {
            object
        };
        // Keys are in the order of a real server.
        self.events.send(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()).is_ok()
    }
}

/// The metadata of an object, as in a list or watch of metadata.
pub(crate) fn metadata_of(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn expired() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410,
           "message": "too old resource version"})
}
