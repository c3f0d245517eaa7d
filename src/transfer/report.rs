//! What went wrong, for people and for the operator, which reads it from the pod's termination message.

use std::fmt;

use serde_json::{Value, json};

use super::answer::{Cause, Refusal, S3Code};
use crate::domain::code::Code;

/// Most characters of an error that are left: as JSON one takes at most 6 bytes.
const ERROR_MAX_CHARACTERS: usize = 600;

/// A step that did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was being done.
    pub step: &'static str,
    /// Why it did not work.
    pub code: Code,
    /// The same for people.
    pub message: String,
}

impl Failure {
    /// What was stored is not what was made.
    pub fn broken(step: &'static str, message: impl Into<String>) -> Self {
        Self { step, code: Code::BackupBroken, message: message.into() }
    }

    /// The store answered with an error. What else it answered is not told: it is whatever stands at that URL.
    pub fn of_store(step: &'static str, error: &object_store::Error) -> Self {
        let cause = Cause::of(error);
        Self { step, code: code_of(cause), message: told(cause) }
    }

    /// The volume that backups are kept on did.
    pub fn of_volume(step: &'static str, path: impl fmt::Display, error: &std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::StorageFull,
            std::io::ErrorKind::NotFound => Code::BackupNotFound,
            _ => Code::StorageFailed,
        };
        Self { step, code, message: format!("{path}: {error}") }
    }

    /// The pod's own disk did.
    pub fn of_disk(step: &'static str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        let code = if full { Code::StagingFull } else { Code::StagingFailed };
        Self { step, code, message: format!("{}: {error}", path.display()) }
    }
}

impl Failure {
    /// What is left for the operator in the termination message, within the 4096 bytes that the kubelet keeps of one.
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

/// What of an error is told: the status of an answer, the codes of S3 that are known, and why there was none.
fn told(cause: Cause) -> String {
    match cause {
        Cause::Refused(Refusal { status, code: Some(code) }) => format!("the service answered {status} {code}"),
        Cause::Refused(Refusal { status: status @ 300..400, code: None }) => {
            format!("the service answered {status}: it redirects, which is not followed; name where it leads to")
        }
        Cause::Refused(Refusal { status, code: None }) => {
            format!("the service answered {status}, and no error that S3 has")
        }
        Cause::NotFound => "there is no such object".to_owned(),
        Cause::NothingToReach => "its name leads to nothing that may be reached".to_owned(),
        Cause::Unresolved => "its name does not resolve".to_owned(),
        Cause::Untrusted => {
            "its certificate is of another name, has ended, or is of an authority that caSecretRef has to name"
                .to_owned()
        }
        Cause::ConnectionRefused => "the connection was refused".to_owned(),
        Cause::TimedOut => "it did not answer in time".to_owned(),
        Cause::Unreachable => "no request reached it".to_owned(),
        Cause::DiskFull => "no space left on device".to_owned(),
        Cause::Unreadable => "what it answered is not S3's".to_owned(),
    }
}

/// Who must act.
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
    match code {
        Some(S3Code::NoSuchBucket) => Code::BucketMissing,
        Some(
            S3Code::AccessDenied
            | S3Code::ExpiredToken
            | S3Code::ExpiredTokenException
            | S3Code::InvalidAccessKeyId
            | S3Code::InvalidToken
            | S3Code::SignatureDoesNotMatch,
        ) => Code::CredentialsRefused,
        Some(
            S3Code::InsufficientStorage
            | S3Code::QuotaExceeded
            | S3Code::XMinioAdminBucketQuotaExceeded
            | S3Code::XMinioStorageFull,
        ) => Code::StorageFull,
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
    fn the_code_says_who_must_act() {
        let refused = |status, code| Cause::Refused(Refusal { status, code });
        for (cause, code) in [
            (refused(404, Some(S3Code::NoSuchBucket)), Code::BucketMissing),
            (refused(403, Some(S3Code::SignatureDoesNotMatch)), Code::CredentialsRefused),
            (refused(400, Some(S3Code::ExpiredToken)), Code::CredentialsRefused),
            (refused(403, None), Code::CredentialsRefused),
            (refused(507, Some(S3Code::XMinioStorageFull)), Code::StorageFull),
            (refused(503, Some(S3Code::SlowDown)), Code::StorageFailed),
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
    fn nothing_is_told_of_an_answer_but_its_status_and_codes_of_s3() {
        let refused = |status, code| told(Cause::Refused(Refusal { status, code }));
        assert_eq!(refused(403, None), "the service answered 403, and no error that S3 has");
        assert_eq!(refused(403, Some(S3Code::AccessDenied)), "the service answered 403 AccessDenied");
        let redirects = "the service answered 302: it redirects, which is not followed; name where it leads to";
        assert_eq!(refused(302, None), redirects);
    }
}
