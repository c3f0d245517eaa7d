//! Errors of reconciles and their retries.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_sharding::{failure::WAIT_FOR_RIGHT, lanes::runner::Outcome};
use serde_json::json;

use crate::{
    controllers::execute::{Attempt, Failed, Held},
    domain::{condition::Conditions, key::Key, object::Kind, wire},
    io::{
        events::Notice,
        writer::{WriteError, words},
    },
};

/// Reason of the Event for a rejected write.
pub const WRITE_REJECTED: &str = "WriteRejected";

/// Error of a reconcile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read failed.
    #[error("observe {0:?} {1}")]
    Observe(Kind, Key, #[source] kube::Error),
    /// A write failed.
    #[error("write for {0:?} {1}")]
    Write(Kind, Key, #[source] WriteError),
}

impl Error {
    /// The error of the write that decides about the retry.
    pub fn of<K: Held>(key: &Key, failed: Failed<K>) -> Self {
        Self::Write(K::KIND, key.clone(), failed.first.1)
    }

    /// Whether the API server was unreachable or overloaded, so that a retry may succeed soon.
    fn is_unanswered(&self) -> bool {
        match self {
            Self::Observe(_, _, kube::Error::Api(status)) => !(400..=428).contains(&status.code),
            Self::Observe(..) | Self::Write(_, _, WriteError::Transient { .. }) => true,
            Self::Write(..) => false,
        }
    }
}

/// Conflicts and requests without a response are retried soon, everything else with backoff; a rejection is reported on its
/// object.
pub async fn conclude<K: Held>(attempt: &Attempt<'_>, about: Option<&Arc<K>>, error: Error) -> Outcome {
    let Error::Write(_, _, write) = &error else { return retried(&error) };
    match write {
        WriteError::Conflict { .. } => Outcome::Conflict,
        // One of several objects that are reconciled together was deleted.
        WriteError::NotFound { .. } if K::TOGETHER => Outcome::Conflict,
        WriteError::NoRight { .. } => Outcome::After(WAIT_FOR_RIGHT),
        WriteError::Rejected { .. } | WriteError::NotFound { .. } | WriteError::NamespaceTerminating { .. } => {
            let notice = Notice { warning: true, reason: WRITE_REJECTED.to_owned(), note: write.to_string() };
            if let Some(about) = about {
                // In a namespace that is being deleted, no Event can be created.
                if !matches!(write, WriteError::NamespaceTerminating { .. }) {
                    // The Event is logged as this line.
                    attempt.publish::<K>(about, &notice).await;
                }
                not_ready(attempt, about, &notice.note).await;
            } else {
                tracing::warn!(key = %attempt.key, error = notice.note, "a write was refused that is for no object");
            }
            Outcome::Failed
        }
        WriteError::Transient { .. } => retried(&error),
    }
}

/// Requests without a response are retried soon, everything else with backoff.
pub fn retried(error: &Error) -> Outcome {
    tracing::warn!(error = chain(error), "reconcile failed, will be retried");
    if error.is_unanswered() { Outcome::Unavailable } else { Outcome::Failed }
}

/// Reports the rejection in the Ready condition; the rest of the status is unchanged.
async fn not_ready<K: Held>(attempt: &Attempt<'_>, about: &Arc<K>, message: &str) {
    let Some(known) = K::newest_of(attempt.context, about) else { return };
    let mut body = wire::json(&known.status().cloned().unwrap_or_default());
    let former: Vec<Condition> = serde_json::from_value(body["conditions"].clone()).unwrap_or_default();
    let mut conditions = Conditions::new(&former, known.meta().generation, attempt.context.now());
    conditions.set("Ready", Some(false), WRITE_REJECTED, message);
    former.iter().filter(|it| it.type_ != "Ready").for_each(|it| conditions.keep(it));
    body["conditions"] = json!(conditions.finish());
    let Ok(next) = serde_json::from_value::<K::Status>(body) else { return };
    if let Err(error) = attempt.write_status::<K>(&known, &next).await {
        tracing::debug!(%error, "status not updated with the rejection");
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.downcast_ref().map_or_else(|| source.to_string(), words);
        text = format!("{text}: {words}");
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_with_its_causes() {
        let key = Key::new("default", "shop");
        let write = WriteError::Rejected { verb: "apply", kind: Kind::Ingress, key: key.clone(), message: "no".into() };
        let error = Error::Write(Kind::Site, key, write);
        assert_eq!(chain(&error), "write for Site default/shop: apply Ingress default/shop: no");
    }

    #[test]
    fn a_missing_response_is_distinguished_from_a_rejection() {
        let key = Key::new("default", "shop");
        let answer = |code| kube::Error::Api(kube::core::Status::failure("no", "").with_code(code).boxed());
        let observe = |source| Error::Observe(Kind::Site, key.clone(), source);
        let write = |error| Error::Write(Kind::Site, key.clone(), error);
        let transient = WriteError::Transient {
            verb: "apply",
            kind: Kind::Ingress,
            key: key.clone(),
            source: kube::Error::LinesCodecMaxLineLengthExceeded,
        };
        assert!(observe(kube::Error::LinesCodecMaxLineLengthExceeded).is_unanswered());
        assert!(observe(answer(503)).is_unanswered() && observe(answer(429)).is_unanswered());
        assert!(write(transient).is_unanswered());
        assert!(!observe(answer(403)).is_unanswered());
        let rejected =
            WriteError::Rejected { verb: "apply", kind: Kind::Ingress, key: key.clone(), message: "no".into() };
        assert!(!write(rejected).is_unanswered());
    }
}
