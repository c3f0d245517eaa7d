//! The stored objects, and the log of writes and requests.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    call::{Call, Place},
    watch::{Step, Watcher},
};

/// The effect of a write on an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was created.
    Added,
    /// It was changed.
    Modified,
    /// It was deleted.
    Deleted,
}

/// One write that took effect.
#[derive(Clone, Debug)]
pub struct Written {
    /// The new version.
    pub version: u64,
    /// The object's path.
    pub place: Place,
    /// The object after the write; for a deletion, the last object.
    pub object: Arc<Value>,
    /// The effect.
    pub change: Change,
    /// The process that sent it.
    pub sender: usize,
    /// When.
    pub at: Instant,
}

/// One request that the server executed.
#[derive(Clone, Debug)]
pub struct Requested {
    /// Kubernetes verb: get, list, watch, create, update, patch, apply or delete.
    pub verb: &'static str,
    /// The object or collection.
    pub place: Place,
    /// Subresource.
    pub subresource: Option<String>,
    /// Status code.
    pub code: u16,
    /// The process that sent it.
    pub sender: usize,
    /// When.
    pub at: Instant,
}

#[derive(Default)]
pub(crate) struct Store {
    pub(crate) version: u64,
    pub(crate) objects: BTreeMap<Place, Arc<Value>>,
    pub(crate) history: VecDeque<Step>,
    /// Changes up to this version are forgotten.
    pub(crate) compacted: u64,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) written: Vec<Written>,
    pub(crate) requests: Vec<Requested>,
    pub(crate) notes: Vec<(Instant, String)>,
}

impl Store {
    /// Objects of a collection, by namespace and name.
    pub(crate) fn within<'a>(&'a self, collection: &'a Place) -> impl Iterator<Item = (&'a Place, &'a Arc<Value>)> {
        let first = Place { name: String::new(), ..collection.clone() };
        self.objects.range(first..).take_while(|(place, _)| collection.holds(place))
    }

    /// Stores an object at the next version, or removes it, and sends the change to watches.
    pub(crate) fn commit(&mut self, place: &Place, after: Value, gone: bool, sender: usize) -> Arc<Value> {
        self.version += 1;
        let version = self.version;
        let mut object = after;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let object = Arc::new(object);
        let before =
            if gone { self.objects.remove(place) } else { self.objects.insert(place.clone(), Arc::clone(&object)) };
        let change = match (&before, gone) {
            (_, true) => Change::Deleted,
            (None, false) => Change::Added,
            (Some(_), false) => Change::Modified,
        };
        let step = Step { version, place: place.clone(), before, after: (!gone).then(|| Arc::clone(&object)) };
        self.watchers.retain(|watcher| watcher.send_step(&step));
        self.history.push_back(step);
        let (object, at) = (object, Instant::now());
        let write = Written { version, place: place.clone(), object: Arc::clone(&object), change, sender, at };
        self.written.push(write);
        object
    }

    /// Starts a watch.
    pub(crate) fn watch(&mut self, call: &Call) -> mpsc::UnboundedReceiver<Bytes> {
        let (watcher, receiver) = Watcher::new(call);
        let from: u64 = call.parameter("resourceVersion").parse().unwrap_or(0);
        if from == 0 {
            self.objects.iter().for_each(|(place, object)| watcher.send_object("ADDED", place, object));
        } else if from < self.compacted {
            watcher.send_expired();
            return receiver;
        } else {
            // Versions rise: new changes are at the end.
            let begin = self.history.partition_point(|step| step.version <= from);
            for step in self.history.range(begin..) {
                watcher.send_step(step);
            }
        }
        self.watchers.push(watcher);
        receiver
    }
}
