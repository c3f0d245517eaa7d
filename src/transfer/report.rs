//! Failures of a transfer, written to the pod's termination message.

use std::fmt;

use serde_json::{Value, json};

use super::{
    answer::{Cause, Refusal},
    service_code::{Meaning, ServiceCode},
};
use crate::domain::code::Code;

/// Maximum characters of an error message; each takes at most 6 bytes as JSON.
const ERROR_MAX_CHARACTERS: usize = 600;

/// A failed step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Name of the step.
    pub step: &'static str,
    /// Code.
    pub code: Code,
    /// Message for users.
    pub message: String,
}

impl Failure {
    /// The backup is corrupt.
    pub fn broken(step: &'static str, message: impl Into<String>) -> Self {
        Self { step, code: Code::BackupBroken, message: message.into() }
    }

    /// The storage failed. Its response is not included, because it is not trusted.
    pub fn of_store(step: &'static str, error: &object_store::Error) -> Self {
        let cause = Cause::of(error);
        Self { step, code: code_of(cause), message: describe(cause) }
    }

    /// A Secret's key does not have the form that the storage requires. Without a Secret, the pod's ServiceAccount has no identity.
    pub fn of_secret(secret: Option<&str>, keys: &str) -> Self {
        let message = match secret {
            Some(secret) => format!("{keys} in Secret {secret} is not of the required form"),
            None => "the environment of the pod's ServiceAccount is not of the required form".to_owned(),
        };
        Self { step: "secrets", code: Code::SecretInvalid, message }
    }

    /// The backup volume failed.
    pub fn of_volume(step: &'static str, path: impl fmt::Display, error: &std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::StorageFull,
            std::io::ErrorKind::NotFound => Code::BackupNotFound,
            _ => Code::StorageFailed,
        };
        Self { step, code, message: format!("{path}: {error}") }
    }

    /// The pod's disk failed.
    pub fn of_disk(step: &'static str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        let code = if full { Code::StagingFull } else { Code::StagingFailed };
        Self { step, code, message: format!("{}: {error}", path.display()) }
    }
}

impl Failure {
    /// The termination message, within the kubelet's limit of 4096 bytes.
    pub fn left(&self) -> Value {
        let error: String = self.message.chars().take(ERROR_MAX_CHARACTERS).collect();
        json!({"step": self.step, "code": self.code.to_string(), "error": error})
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code, self.message)
    }
}

/// The message for an error: the status of a response and known codes, or why there was no response.
fn describe(cause: Cause) -> String {
    match cause {
        Cause::Refused(Refusal { status, code: Some(code) }) => format!("the storage service returned {status} {code}"),
        Cause::Refused(Refusal { status: status @ 300..400, code: None }) => {
            format!("the storage service returned {status}: redirects are not followed; set endpoint to the final URL")
        }
        Cause::Refused(Refusal { status, code: None }) => {
            format!("the storage service returned {status} without a known error code")
        }
        Cause::NotFound => "the object does not exist".to_owned(),
        Cause::NothingToReach => "the endpoint resolves only to addresses that are not allowed".to_owned(),
        Cause::Unresolved => "the endpoint's host name does not resolve".to_owned(),
        Cause::Untrusted => {
            "the endpoint's certificate is expired, is for another name, or is not signed by a known CA: set caSecretRef"
                .to_owned()
        }
        Cause::ConnectionRefused => "connection refused".to_owned(),
        Cause::TimedOut => "timeout".to_owned(),
        Cause::Unreachable => "the endpoint is unreachable".to_owned(),
        Cause::DiskFull => "no space left on device".to_owned(),
        Cause::Unreadable => "the response is not that of a storage service".to_owned(),
    }
}

/// Code of a cause.
fn code_of(cause: Cause) -> Code {
    match cause {
        Cause::Refused(refusal) => code_of_answer(refusal),
        Cause::NotFound => Code::BackupNotFound,
        Cause::DiskFull => Code::StorageFull,
        Cause::Unreadable => Code::StorageFailed,
        Cause::NothingToReach
        | Cause::Unresolved
        | Cause::Untrusted
        | Cause::ConnectionRefused
        | Cause::TimedOut
        | Cause::Unreachable => Code::StorageUnreachable,
    }
}

fn code_of_answer(Refusal { status, code }: Refusal) -> Code {
    match code.map(ServiceCode::means) {
        Some(Meaning::BucketMissing) => Code::BucketMissing,
        Some(Meaning::Denied) => Code::CredentialsRefused,
        Some(Meaning::Full) => Code::StorageFull,
        _ if matches!(status, 401 | 403) => Code::CredentialsRefused,
        _ => Code::StorageFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_any_length_leaves_its_code() {
        for letter in ["x", "\u{1}", "\"", "\u{1f4a9}"] {
            let failure = Failure { step: "fetch", code: Code::BackupBroken, message: letter.repeat(5000) };
            assert!(failure.left().to_string().len() < 4096, "{letter}");
        }
    }

    #[test]
    fn the_code_shows_who_must_act() {
        let refused = |status, code| Cause::Refused(Refusal { status, code });
        for (cause, code) in [
            (refused(404, Some(ServiceCode::NoSuchBucket)), Code::BucketMissing),
            (refused(403, Some(ServiceCode::SignatureDoesNotMatch)), Code::CredentialsRefused),
            (refused(400, Some(ServiceCode::ExpiredToken)), Code::CredentialsRefused),
            (refused(404, Some(ServiceCode::ContainerNotFound)), Code::BucketMissing),
            (refused(401, Some(ServiceCode::InvalidClient)), Code::CredentialsRefused),
            (refused(403, None), Code::CredentialsRefused),
            (refused(507, Some(ServiceCode::XMinioStorageFull)), Code::StorageFull),
            (refused(503, Some(ServiceCode::SlowDown)), Code::StorageFailed),
            (refused(302, None), Code::StorageFailed),
            (Cause::NotFound, Code::BackupNotFound),
            (Cause::DiskFull, Code::StorageFull),
            (Cause::Untrusted, Code::StorageUnreachable),
            (Cause::Unreadable, Code::StorageFailed),
        ] {
            assert_eq!(code_of(cause), code, "{cause:?}");
        }
    }

    #[test]
    fn only_the_status_and_known_code_of_an_answer_are_reported() {
        let refused = |status, code| describe(Cause::Refused(Refusal { status, code }));
        assert_eq!(refused(403, None), "the storage service returned 403 without a known error code");
        assert_eq!(refused(403, Some(ServiceCode::AccessDenied)), "the storage service returned 403 AccessDenied");
        let redirects = "the storage service returned 302: redirects are not followed; set endpoint to the final URL";
        assert_eq!(refused(302, None), redirects);
    }
}
