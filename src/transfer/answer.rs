//! What a bucket's service answered, or why it did not: read once, where the answer comes in, and carried on as data.
//!
//! An answer is whatever stands at the URL of a SiteBackup. Of it only the status and a code that S3 has are kept.

use std::{error::Error, io};

use bytes::Bytes;
use futures::{future, stream};
use http_body_util::{BodyExt as _, Collected, Limited, StreamBody};
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService};
use serde::Deserialize;
use strum::{Display, EnumString};

/// Bytes of an answer that are read for its code.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Bytes of an answer about a thousand objects that were to be removed.
const REMOVED_BYTES_MAX: usize = 8 << 20;

/// Codes of S3 that are told as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString)]
pub enum S3Code {
    AccessDenied,
    AccountProblem,
    AllAccessDisabled,
    AuthorizationHeaderMalformed,
    BadDigest,
    BucketAlreadyExists,
    EntityTooLarge,
    ExpiredToken,
    ExpiredTokenException,
    InsufficientStorage,
    InternalError,
    InvalidAccessKeyId,
    InvalidArgument,
    InvalidBucketName,
    InvalidRequest,
    InvalidToken,
    MethodNotAllowed,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    NotImplemented,
    PermanentRedirect,
    QuotaExceeded,
    RequestTimeTooSkewed,
    RequestTimeout,
    ServiceUnavailable,
    SignatureDoesNotMatch,
    SlowDown,
    TemporaryRedirect,
    TooManyRequests,
    XMinioAdminBucketQuotaExceeded,
    XMinioStorageFull,
}

/// An answer that is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the storage service returned {status}")]
pub struct Refusal {
    /// Its HTTP status.
    pub status: u16,
    /// Its code, where it is one of S3's.
    pub code: Option<S3Code>,
}

/// A service's name resolves only to addresses that are not allowed.
#[derive(Debug, thiserror::Error)]
#[error("the host name resolves only to addresses that are not allowed")]
pub struct NothingToReach;

/// The name of a service does not resolve.
#[derive(Debug, thiserror::Error)]
#[error("the host name does not resolve")]
pub struct Unresolved;

/// Why a request came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The service answered with an error.
    Refused(Refusal),
    /// The service has no such object.
    NotFound,
    /// Its name leads to no address that may be reached.
    NothingToReach,
    /// Its name does not resolve.
    Unresolved,
    /// Its certificate is not trusted.
    Untrusted,
    /// No one listens there.
    ConnectionRefused,
    /// It did not answer in time.
    TimedOut,
    /// The connection did not come about, or broke.
    Unreachable,
    /// No room is left on the pod's disk, or on a volume.
    DiskFull,
    /// It answered, and not as S3 does.
    Unreadable,
}

impl Cause {
    /// The most exact cause that an error has. Each is told by the type of what failed.
    pub fn of(error: &object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => return Self::NotFound,
            object_store::Error::PermissionDenied { .. } => return Self::Refused(Refusal { status: 403, code: None }),
            object_store::Error::Unauthenticated { .. } => return Self::Refused(Refusal { status: 401, code: None }),
            _ => {}
        }
        let causes: Vec<&(dyn Error + 'static)> = chain(error);
        let exact = causes.iter().find_map(|it| Self::exact(*it));
        exact.or_else(|| causes.iter().find_map(|it| Self::of_transport(*it))).unwrap_or(Self::Unreadable)
    }

    fn exact(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return Some(Self::Refused(*refusal));
        }
        if error.is::<NothingToReach>() {
            return Some(Self::NothingToReach);
        }
        if error.is::<Unresolved>() {
            return Some(Self::Unresolved);
        }
        if matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return Some(Self::Untrusted);
        }
        match error.downcast_ref::<io::Error>()?.kind() {
            io::ErrorKind::ConnectionRefused => Some(Self::ConnectionRefused),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Self::DiskFull),
            io::ErrorKind::TimedOut => Some(Self::TimedOut),
            _ => None,
        }
    }

    fn of_transport(error: &(dyn Error + 'static)) -> Option<Self> {
        match error.downcast_ref::<HttpError>()?.kind() {
            HttpErrorKind::Timeout => Some(Self::TimedOut),
            HttpErrorKind::Connect | HttpErrorKind::Request | HttpErrorKind::Interrupted => Some(Self::Unreachable),
            _ => None,
        }
    }
}

/// An error and what lies under it. An `io::Error` hides what it was made of from `source`.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut found = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        found.push(error);
        let hidden = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = hidden.map(|it| it as &(dyn Error + 'static)).or_else(|| error.source());
    }
    found
}

/// A client whose answers that are errors are [`Refusal`]s.
#[derive(Debug)]
pub struct Judged(pub reqwest::Client);

#[async_trait::async_trait]
impl HttpService for Judged {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asked = Asked::of(request.uri().query().unwrap_or_default());
        judge(self.0.call(request).await?, asked).await
    }
}

/// What a request asks for, as far as its answers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// A list.
    List,
    /// The removal of objects: an answer of 200 may say that one was not removed.
    Removal,
    /// Anything else.
    Other,
}

impl Asked {
    fn of(query: &str) -> Self {
        let has = |name: &str| query.split('&').any(|it| it.split('=').next() == Some(name));
        if has("list-type") {
            Self::List
        } else if has("delete") {
            Self::Removal
        } else {
            Self::Other
        }
    }
}

/// Statuses whose meaning the store knows, where nothing more is said: nothing there, there already, not what was expected,
/// unchanged, not allowed.
const STORES_OWN: [u16; 6] = [404, 409, 412, 304, 401, 403];

async fn judge(answer: HttpResponse, asked: Asked) -> Result<HttpResponse, HttpError> {
    let status = answer.status();
    if status.is_success() {
        return if asked == Asked::Removal { removed(answer).await } else { Ok(answer) };
    }
    let (parts, body) = answer.into_parts();
    let text = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map(Collected::to_bytes).unwrap_or_default();
    let refusal = Refusal { status: status.as_u16(), code: code(&text) };
    if status.is_redirection() && status.as_u16() != 304 {
        return Err(HttpError::new(HttpErrorKind::Unknown, refusal));
    }
    let says_more = refusal.code.is_some_and(|it| !matches!(it, S3Code::NoSuchKey | S3Code::NoSuchUpload));
    if asked == Asked::Other && STORES_OWN.contains(&refusal.status) && !says_more {
        return Ok(HttpResponse::from_parts(parts, text.into()));
    }
    // The store retries by the status, and reads the body when it is done.
    let failed = stream::once(future::ready(Err(HttpError::new(HttpErrorKind::Unknown, refusal))));
    Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(StreamBody::new(failed))))
}

/// The answer to a removal; an error where it says that something was not removed.
async fn removed(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    #[derive(Default, Deserialize)]
    struct Removed {
        #[serde(rename = "Error", default)]
        errors: Vec<Left>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Left {
        code: String,
    }
    let (parts, body) = answer.into_parts();
    let text = Limited::new(body, REMOVED_BYTES_MAX).collect().await.map(Collected::to_bytes);
    let text = text.map_err(|error| HttpError::new_boxed(HttpErrorKind::Decode, error))?;
    let result: Removed = quick_xml::de::from_reader(text.as_ref()).unwrap_or_default();
    match result.errors.first() {
        Some(left) => {
            let refusal = Refusal { status: parts.status.as_u16(), code: left.code.parse().ok() };
            Err(HttpError::new(HttpErrorKind::Unknown, refusal))
        }
        None => Ok(HttpResponse::from_parts(parts, text.into())),
    }
}

/// The code of an answer, where it is one of S3's.
fn code(text: &Bytes) -> Option<S3Code> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        code: String,
    }
    let answer: Answer = quick_xml::de::from_reader(text.as_ref()).ok()?;
    answer.code.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, text: &'static str) -> HttpResponse {
        let body = HttpResponseBody::from(text.to_owned());
        http::Response::builder().status(status).body(body).expect("a response")
    }

    /// What a store makes of an answer: the status is judged, then the body is read.
    async fn refused(asked: Asked, status: u16, text: &'static str) -> Option<Refusal> {
        let failed = match judge(answer(status, text), asked).await {
            Ok(answer) => answer.into_body().bytes().await.err()?,
            Err(error) => error,
        };
        chain(&failed).iter().find_map(|it| it.downcast_ref::<Refusal>()).copied()
    }

    #[tokio::test]
    async fn of_an_answer_the_status_and_a_code_of_s3_are_kept() {
        let missing = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>no</Message></Error>";
        let quota = "<Error><Code>XMinioAdminBucketQuotaExceeded</Code></Error>";
        let refusal = |status, code| Some(Refusal { status, code });
        for (asked, status, text, code) in [
            (Asked::Other, 404, missing, Some(S3Code::NoSuchBucket)),
            (Asked::Other, 403, "<Error><Code>AccessDenied</Code></Error>", Some(S3Code::AccessDenied)),
            (Asked::List, 403, "<Error><Code>SECRET</Code></Error>", None),
            (Asked::List, 403, "a page about NoSuchBucket", None),
            (Asked::Other, 302, "", None),
            (Asked::Other, 503, "<Error><Code>SlowDown</Code></Error>", Some(S3Code::SlowDown)),
            (Asked::Other, 400, quota, Some(S3Code::XMinioAdminBucketQuotaExceeded)),
        ] {
            assert_eq!(refused(asked, status, text).await, refusal(status, code), "{text}");
        }
        let large = Box::leak(format!("<Error><Code>SlowDown</Code>{}</Error>", " ".repeat(1 << 20)).into_boxed_str());
        assert_eq!(refused(Asked::Other, 503, large).await, refusal(503, None), "it is not read");
    }

    #[tokio::test]
    async fn what_was_not_removed_is_an_error() {
        let whole = "<DeleteResult xmlns=\"a\"><Deleted><Key>a</Key></Deleted></DeleteResult>";
        assert_eq!(refused(Asked::Removal, 200, whole).await, None);
        let kept = "<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code></Error></DeleteResult>";
        let denied = Some(Refusal { status: 200, code: Some(S3Code::AccessDenied) });
        assert_eq!(refused(Asked::Removal, 200, kept).await, denied);
        assert_eq!(refused(Asked::Other, 200, kept).await, None);
        let queries = ["delete", "delete=", "list-type=2&prefix=delete", "uploadId=delete"].map(Asked::of);
        assert_eq!(queries, [Asked::Removal, Asked::Removal, Asked::List, Asked::Other]);
    }

    #[tokio::test]
    async fn what_the_store_knows_itself_stays() {
        for status in [200, 206, 304, 401, 403, 404, 409, 412] {
            let text = "<Error><Code>NoSuchKey</Code></Error>";
            let kept = judge(answer(status, text), Asked::Other).await.expect("an answer");
            assert_eq!(kept.status(), status);
            assert_eq!(kept.into_body().bytes().await.expect("its body"), text);
        }
        let listed = judge(answer(404, "a page"), Asked::List).await.expect("an answer");
        assert!(listed.into_body().bytes().await.is_err(), "of a list a 404 is an error like any other");
    }

    #[test]
    fn a_cause_is_told_by_its_type() {
        let generic = |source: Box<dyn Error + Send + Sync>| object_store::Error::Generic { store: "S3", source };
        let transport = |kind, cause: io::Error| generic(Box::new(HttpError::new(kind, cause)));
        let io = |kind: io::ErrorKind| io::Error::from(kind);
        let certificate = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        for (error, cause) in [
            (transport(HttpErrorKind::Connect, io(io::ErrorKind::ConnectionRefused)), Cause::ConnectionRefused),
            (transport(HttpErrorKind::Connect, io::Error::other(certificate)), Cause::Untrusted),
            (transport(HttpErrorKind::Connect, io::Error::other(Unresolved)), Cause::Unresolved),
            (transport(HttpErrorKind::Connect, io::Error::other(NothingToReach)), Cause::NothingToReach),
            (transport(HttpErrorKind::Timeout, io(io::ErrorKind::Other)), Cause::TimedOut),
            (transport(HttpErrorKind::Interrupted, io(io::ErrorKind::BrokenPipe)), Cause::Unreachable),
            (generic(Box::new(io(io::ErrorKind::StorageFull))), Cause::DiskFull),
            (generic("connect, dns, timed out, NoSuchBucket".into()), Cause::Unreadable),
        ] {
            assert_eq!(Cause::of(&error), cause);
        }
    }
}
