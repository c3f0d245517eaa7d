//! Events, as people see them with `kubectl describe`: on transitions only.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::domain::{key::Key, labels::MANAGER};

/// Longest note of an Event, in bytes (events.k8s.io/v1).
const NOTE_MAX_BYTES: usize = 1000;

/// Events after which a recorder is replaced: it keeps every Event of its last six minutes whole, to count repetitions,
/// and looks through all of them at each. Without this it held 15 MB when 2,000 sites had been made.
const RECORDER_EVENTS: usize = 256;

/// One thing to tell. Part of a plan, so that what is told is decided where it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether somebody should do something.
    pub warning: bool,
    /// A fixed reason, as in the conditions.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

/// Publishes Events. One that cannot be published is logged: it decides nothing.
#[derive(Clone)]
pub struct Events {
    client: Client,
    reporter: Reporter,
    /// The present recorder, and how many Events it was given.
    recorder: Arc<Mutex<(Recorder, usize)>>,
}

impl Events {
    /// Events of this operator, from the instance with this name.
    pub fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(instance.to_owned()) };
        let recorder = Recorder::new(client.clone(), reporter.clone());
        Self { client, reporter, recorder: Arc::new(Mutex::new((recorder, 0))) }
    }

    fn recorder(&self) -> Recorder {
        let mut present = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        if present.1 == RECORDER_EVENTS {
            *present = (Recorder::new(self.client.clone(), self.reporter.clone()), 0);
        }
        present.1 += 1;
        present.0.clone()
    }

    /// Publishes an Event about an object, and logs the same.
    pub async fn publish(&self, about: &ObjectReference, notice: &Notice) {
        let text = |it: &Option<String>| it.clone().unwrap_or_default();
        let (kind, namespace, name) = (text(&about.kind), text(&about.namespace), text(&about.name));
        let Notice { warning, reason, note } = notice;
        log_line(&format!("{kind} {}", Key { namespace, name }), *warning, reason, note);
        let event = Event {
            type_: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason.clone(),
            note: Some(shorten(&notice.note)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder().publish(&event, about).await {
            tracing::warn!(%error, reason = notice.reason, "Event not published");
        }
    }
}

/// One line of the log for one thing that happened to an object.
pub fn log_line(object: &str, warning: bool, reason: &str, note: &str) {
    if warning {
        tracing::warn!(object, reason, "{note}");
    } else {
        tracing::info!(object, reason, "{note}");
    }
}

fn shorten(note: &str) -> String {
    let mut end = note.len().min(NOTE_MAX_BYTES);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note[..end].to_owned()
}
