//! What went wrong, for people and for the operator, which reads it from the pod's termination message.

use std::{error::Error, fmt};

/// What comes before the status in an error of the store.
const STATUS: &str = "status code: ";
const STATUS_DIGITS: usize = 3;
/// Codes of S3 that are told as they are.
const S3_CODES: [&str; 30] = [
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "BadDigest",
    "BucketAlreadyExists",
    "EntityTooLarge",
    "ExpiredToken",
    "InsufficientStorage",
    "InternalError",
    "InvalidAccessKeyId",
    "InvalidArgument",
    "InvalidBucketName",
    "InvalidRequest",
    "InvalidToken",
    "MethodNotAllowed",
    "NoSuchBucket",
    "NoSuchKey",
    "NoSuchUpload",
    "NotImplemented",
    "PermanentRedirect",
    "QuotaExceeded",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "ServiceUnavailable",
    "SignatureDoesNotMatch",
    "SlowDown",
    "TemporaryRedirect",
    "TooManyRequests",
    "XMinioStorageFull",
];

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

    /// The store answered with an error. What else it answered is not told: it is whatever stands at that URL.
    pub fn of_store(step: &'static str, error: &object_store::Error) -> Self {
        Self { step, word: word_of(error), message: told(error) }
    }

    /// The volume that backups are kept on did.
    pub fn of_volume(step: &'static str, path: impl fmt::Display, error: &std::io::Error) -> Self {
        let word = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "StorageFull",
            std::io::ErrorKind::NotFound => "BackupNotFound",
            _ => "StorageFailed",
        };
        Self { step, word, message: format!("{path}: {error}") }
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

/// What of an error is told: the status of an answer, the words of S3 that are known, and why there was none.
fn told(error: &object_store::Error) -> String {
    let text = chain(error);
    let code = S3_CODES.iter().find(|it| text.contains(&format!("<Code>{it}</Code>")));
    let status =
        text.split_once(STATUS).map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    let status = status.filter(|it| it.len() == STATUS_DIGITS);
    match (status, code) {
        (Some(status), Some(code)) => return format!("the service answered {status} {code}"),
        (Some(status), None) if status.starts_with('3') => {
            return format!(
                "the service answered {status}: it redirects, which is not followed; name where it leads to"
            );
        }
        (Some(status), None) => return format!("the service answered {status}, and no error that S3 has"),
        (None, Some(code)) => return format!("the service answered {code}"),
        (None, None) => {}
    }
    let causes = [
        ("no address that may be reached", "its name leads to nothing that may be reached"),
        ("dns error", "its name does not resolve"),
        (
            "certificate",
            "its certificate is of another name, has ended, or is of an authority that caSecretRef has to name",
        ),
        ("refused", "the connection was refused"),
        ("timed out", "it did not answer in time"),
        ("timeout", "it did not answer in time"),
        ("No space left on device", "no space left on device"),
        ("redirect", "it redirects, and does not say where"),
        ("error sending request", "no request reached it"),
    ];
    let cause = causes.iter().find(|(sign, _)| text.contains(sign));
    cause.map_or("what it answered is not S3's", |(_, cause)| cause).to_owned()
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
    if says(&["status code: 401", "status code: 403"]) {
        return "CredentialsRefused";
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

    #[test]
    fn nothing_is_told_of_an_answer_but_its_status_and_words_of_s3() {
        for (text, says) in [
            (
                "Server returned non-2xx status code: 403 Forbidden: token=SSRF-READS-THIS",
                "the service answered 403, and no error that S3 has",
            ),
            (
                "Server returned non-2xx status code: 403 Forbidden: <Error><Code>AccessDenied</Code><Message>SSRF-READS-THIS</Message>",
                "the service answered 403 AccessDenied",
            ),
            ("Server returned error response: <Code>SSRF-READS-THIS</Code>", "what it answered is not S3's"),
            ("Got invalid list response: unknown variant `SSRF-READS-THIS`", "what it answered is not S3's"),
            ("status code: SSRF-READS-THIS", "what it answered is not S3's"),
            (
                "Server returned non-2xx status code: 302 Found: SSRF-READS-THIS",
                "the service answered 302: it redirects, which is not followed; name where it leads to",
            ),
        ] {
            assert_eq!(told(&generic(text)), says);
        }
    }
}
