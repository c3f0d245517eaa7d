//! Watches: what changed since a version, in order.

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

/// Who is told of changes.
pub(crate) struct Watcher {
    selector: Selector,
    metadata_only: bool,
    events: mpsc::UnboundedSender<Bytes>,
}

impl Watcher {
    /// A watcher of what a request asks for, and where it is told.
    pub(crate) fn new(call: &Call) -> (Self, mpsc::UnboundedReceiver<Bytes>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Self { selector: Selector::of(call), metadata_only: call.metadata_only, events }, receiver)
    }

    /// Tells a change where it concerns what is watched; answers whether anybody still listens.
    ///
    /// Of one that is gone, or is not selected any more, that is the object as it was last selected, at the version of the change.
    pub(crate) fn tell(&self, step: &Step) -> bool {
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

    /// Tells of an object as it is, where that is watched.
    pub(crate) fn show(&self, kind: &str, place: &Place, object: &Value) {
        if self.selector.selects(place, object) {
            self.send(kind, object);
        }
    }

    /// Tells that the version from which it was to go on is forgotten.
    pub(crate) fn refuse(&self) {
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
        // In the order of a real server.
        self.events.send(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()).is_ok()
    }
}

/// The metadata of an object, as a list or watch of metadata has it.
pub(crate) fn metadata_of(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn expired() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410,
           "message": "too old resource version"})
}
