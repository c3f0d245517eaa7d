//! What becomes of a reconcile that did not come to its end.

use std::time::Duration;

use crate::{
    controllers::{context::Context, execute::reference},
    domain::{key::Key, object::Kind},
    io::{events::Notice, writer::WriteError},
    lanes::runner::Outcome,
};

/// Reason of the Event about an object that the API server refused.
const WRITE_REJECTED: &str = "WriteRejected";
/// Wait before writes are tried again while the member has no right to act.
const WAIT_FOR_RIGHT: Duration = Duration::from_secs(1);

/// Why a reconcile did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something could not be read.
    #[error("observe {0:?} {1}")]
    Observe(Kind, Key, #[source] kube::Error),
    /// Something could not be written.
    #[error("write for {0:?} {1}")]
    Write(Kind, Key, #[source] WriteError),
}

/// A conflict is looked at again soon; a refusal is told to people; everything else is tried again with backoff.
pub async fn conclude(context: &Context, uid: Option<String>, error: Error) -> Outcome {
    if let Error::Write(kind, key, write) = &error {
        match write {
            WriteError::Conflict { .. } => return Outcome::Conflict,
            WriteError::NoRight { .. } => return Outcome::After(WAIT_FOR_RIGHT),
            WriteError::Rejected { .. } | WriteError::NamespaceTerminating { .. } => {
                let notice = Notice { warning: true, reason: WRITE_REJECTED.to_owned(), note: write.to_string() };
                context.events.publish(&reference(*kind, key, uid), &notice).await;
            }
            WriteError::Transient { .. } => {}
        }
    }
    tracing::warn!(error = %chain(&error), "reconcile failed");
    Outcome::Failed
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
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
}
