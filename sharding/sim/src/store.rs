//! What is stored, and what was written.

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

/// What a write did to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was made.
    Added,
    /// It was changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// One write that took effect.
#[derive(Clone, Debug)]
pub struct Written {
    /// The version that it made.
    pub version: u64,
    /// The object's place.
    pub place: Place,
    /// The object after it; of one that is gone, as it was last.
    pub object: Arc<Value>,
    /// What was done.
    pub change: Change,
    /// The process that did it.
    pub sender: usize,
    /// When.
    pub at: Instant,
}

/// One request that was answered.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Verb of Kubernetes: get, list, watch, create, update, patch, apply or delete.
    pub verb: &'static str,
    /// What it was about.
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
    /// Up to this version nothing is remembered.
    pub(crate) compacted: u64,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) written: Vec<Written>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) notes: Vec<(Instant, String)>,
}

impl Store {
    /// Objects of a collection, by namespace and name.
    pub(crate) fn within<'a>(&'a self, collection: &'a Place) -> impl Iterator<Item = (&'a Place, &'a Arc<Value>)> {
        let first = Place { name: String::new(), ..collection.clone() };
        self.objects.range(first..).take_while(|(place, _)| collection.holds(place))
    }

    /// Puts an object in at its next version, or takes it out; watches are told.
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
        self.watchers.retain(|watcher| watcher.tell(&step));
        self.history.push_back(step);
        let (object, at) = (object, Instant::now());
        let write = Written { version, place: place.clone(), object: Arc::clone(&object), change, sender, at };
        self.written.push(write);
        object
    }

    /// Begins a watch.
    pub(crate) fn watch(&mut self, call: &Call) -> mpsc::UnboundedReceiver<Bytes> {
        let (watcher, receiver) = Watcher::new(call);
        let from: u64 = call.parameter("resourceVersion").parse().unwrap_or(0);
        if from == 0 {
            self.objects.iter().for_each(|(place, object)| watcher.show("ADDED", place, object));
        } else if from < self.compacted {
            watcher.refuse();
            return receiver;
        } else {
            // Versions rise: what is new is at the end.
            let begin = self.history.partition_point(|step| step.version <= from);
            for step in self.history.range(begin..) {
                watcher.tell(step);
            }
        }
        self.watchers.push(watcher);
        receiver
    }
}
