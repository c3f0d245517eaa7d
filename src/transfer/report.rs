//! What went wrong, for people and for the operator, which reads it from the pod's termination message.

use std::{error::Error, fmt};

/// A step that did not work. Its text begins with a word that the operator knows: `BucketMissing: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was being done.
    pub step: &'static str,
    /// Why it did not work.
    pub word: &'static str,
    /// The same for people.
    pub message: String,
}

impl Failure {
    /// What was stored is not what was made.
    pub fn broken(step: &'static str, message: impl Into<String>) -> Self {
        Self { step, word: "BackupBroken", message: message.into() }
    }

    /// The store answered with an error.
    pub fn of_store(step: &'static str, error: &object_store::Error) -> Self {
        Self { step, word: word_of(error), message: chain(error) }
    }

    /// The pod's own disk did.
    pub fn of_disk(step: &'static str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        let word = if full { "StagingFull" } else { "StagingFailed" };
        Self { step, word, message: format!("{}: {error}", path.display()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.word, self.message)
    }
}

/// The error and what lies under it, each once.
fn chain(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut under = error.source();
    while let Some(error) = under {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        under = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn word_of(error: &object_store::Error) -> &'static str {
    let text = chain(error);
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["NoSuchBucket"]) {
        return "BucketMissing";
    }
    if says(&["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken"]) {
        return "CredentialsRefused";
    }
    if says(&["No space left on device", "QuotaExceeded", "StorageFull", "InsufficientStorage"]) {
        return "StorageFull";
    }
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            "CredentialsRefused"
        }
        object_store::Error::NotFound { .. } => "BackupNotFound",
        object_store::Error::Generic { .. } if says(&["error sending request", "timed out", "connect", "dns"]) => {
            "StorageUnreachable"
        }
        _ => "StorageFailed",
    }
}

#[cfg(test)]
mod tests {
    use object_store::Error;

    use super::*;

    fn generic(text: &'static str) -> Error {
        Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn the_word_says_who_must_act() {
        for (text, word) in [
            ("<Code>NoSuchBucket</Code>", "BucketMissing"),
            ("<Code>SignatureDoesNotMatch</Code>", "CredentialsRefused"),
            ("error sending request for url", "StorageUnreachable"),
            ("No space left on device (os error 28)", "StorageFull"),
            ("503 SlowDown", "StorageFailed"),
        ] {
            assert_eq!(word_of(&generic(text)), word, "{text}");
        }
        let denied = Error::PermissionDenied { path: "a".into(), source: "no".into() };
        assert_eq!(word_of(&denied), "CredentialsRefused");
    }
}
