//! Events, as users see them with `kubectl describe`: on transitions only.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::{
    domain::{key::Key, labels::MANAGER},
    io::writer::{is_terminating, words},
};

/// Longest note of an Event, in bytes (events.k8s.io/v1).
const NOTE_MAX_BYTES: usize = 1000;

/// Events after which a recorder is replaced: it keeps every Event of its last six minutes whole, to count repetitions,
/// and looks through all of them at each. Without this it held 15 MB when 2,000 sites had been made.
const RECORDER_EVENTS: usize = 256;

/// One Event. It is part of a plan, so that it is decided where its cause is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether someone should do something.
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
    recorder: Arc<Mutex<Present>>,
}

/// The present recorder. It counts an Event of the same object and reason as a repetition of the first, whatever its note
/// says, so a note that changed gets a new recorder.
struct Present {
    recorder: Recorder,
    /// How many Events it was given.
    events: usize,
    /// The last note of each object (its uid, else its name) and reason.
    notes: HashMap<(String, String), String>,
}

impl Events {
    /// Events of this operator, from the instance with this name.
    pub fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(instance.to_owned()) };
        let recorder = Recorder::new(client.clone(), reporter.clone());
        let present = Present { recorder, events: 0, notes: HashMap::new() };
        Self { client, reporter, recorder: Arc::new(Mutex::new(present)) }
    }

    fn recorder(&self, about: &ObjectReference, notice: &Notice) -> Recorder {
        let mut present = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let object = about.uid.clone().or_else(|| about.name.clone()).unwrap_or_default();
        let key = (object, notice.reason.clone());
        let changed = present.notes.get(&key).is_some_and(|last| *last != notice.note);
        if present.events == RECORDER_EVENTS || changed {
            present.recorder = Recorder::new(self.client.clone(), self.reporter.clone());
            present.events = 0;
            present.notes.clear();
        }
        present.notes.insert(key, notice.note.clone());
        present.events += 1;
        present.recorder.clone()
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
        match self.recorder(about, notice).publish(&event, about).await {
            // Nothing can be made in a namespace that is being deleted, so not an Event either.
            Err(error) if is_terminating(&error) => {
                tracing::debug!(reason = notice.reason, "Event not published: the namespace is being deleted");
            }
            Err(error) => tracing::warn!(error = words(&error), reason = notice.reason, "Event not published"),
            Ok(()) => {}
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

#[cfg(test)]
mod tests {
    use http::{Method, Request, Response};
    use kube::client::Body;
    use serde_json::Value;
    use tower::{BoxError, service_fn};

    use super::*;

    type Sent = Arc<Mutex<Vec<(Method, Value)>>>;

    /// Events of a cluster that takes every Event, and what was sent.
    fn events() -> (Events, Sent) {
        let sent = Sent::default();
        let seen = Arc::clone(&sent);
        let server = service_fn(move |request: Request<Body>| {
            let seen = Arc::clone(&seen);
            async move {
                let method = request.method().clone();
                let bytes = request.into_body().collect_bytes().await?;
                seen.lock().unwrap().push((method, serde_json::from_slice(&bytes)?));
                Ok::<_, BoxError>(Response::new(Body::from(bytes)))
            }
        });
        (Events::new(Client::new(server, "shops"), "pod-a"), sent)
    }

    fn about(name: &str) -> ObjectReference {
        let text = |it: &str| Some(it.to_owned());
        ObjectReference { namespace: text("shops"), name: text(name), uid: text(name), ..ObjectReference::default() }
    }

    /// A site that got another host is not told to be served at the former one.
    #[tokio::test]
    async fn a_changed_note_is_a_new_event_and_an_equal_one_is_counted() {
        let (events, sent) = events();
        for (name, note) in
            [("one", "at a"), ("two", "at a"), ("one", "at b"), ("one", "at b"), ("one", "at a"), ("one", "at b")]
        {
            let notice = Notice { warning: false, reason: "Ready".into(), note: note.into() };
            events.publish(&about(name), &notice).await;
        }
        let sent: Vec<_> = sent.lock().unwrap().drain(..).collect();
        let shown = sent.iter().map(|(method, event)| {
            format!("{method} {} {} {}", event["regarding"]["name"], event["note"], event["series"]["count"])
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                r#"POST "one" "at a" null"#,
                r#"POST "two" "at a" null"#,
                r#"POST "one" "at b" null"#,
                r#"PATCH "one" "at b" 2"#,
                r#"POST "one" "at a" null"#,
                r#"POST "one" "at b" null"#,
            ]
        );
    }
}
