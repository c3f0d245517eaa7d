//! Responses and errors of a storage service, parsed once into data.
//!
//! A response is not trusted: only its status and known error codes are kept.

use std::{error::Error, io};

use futures::{future, stream};
use http_body_util::{BodyExt as _, Collected, Limited, StreamBody};
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService};

use super::service_code::{Meaning, ServiceCode};

/// Maximum bytes of a response that are searched for its code.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Maximum bytes of the response to the removal of 256 objects.
const REMOVED_BYTES_MAX: usize = 1 << 20;

/// An error response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the storage service returned {status}")]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Its error code, if known.
    pub code: Option<ServiceCode>,
}

/// The host name resolves only to addresses that are not allowed.
#[derive(Debug, thiserror::Error)]
#[error("the host name resolves only to addresses that are not allowed")]
pub struct NothingToReach;

/// The host name does not resolve.
#[derive(Debug, thiserror::Error)]
#[error("the host name does not resolve")]
pub struct Unresolved;

/// Cause of a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The service returned an error.
    Refused(Refusal),
    /// The object does not exist.
    NotFound,
    /// The host name resolves only to addresses that are not allowed.
    NothingToReach,
    /// The host name does not resolve.
    Unresolved,
    /// The certificate is not trusted.
    Untrusted,
    /// Connection refused.
    ConnectionRefused,
    /// Timeout.
    TimedOut,
    /// The connection failed or broke.
    Unreachable,
    /// The pod's disk or a volume is full.
    DiskFull,
    /// The response is not that of a storage service.
    Unreadable,
}

impl Cause {
    /// The most specific cause of an error, by the types in its chain.
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

/// The chain of an error, including the inner error of an `io::Error`, which `source` skips.
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

/// A client that returns error responses as [`Refusal`]s.
#[derive(Debug)]
pub struct Judged(pub reqwest::Client);

#[async_trait::async_trait]
impl HttpService for Judged {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asked = Asked::of(request.uri().query().unwrap_or_default());
        check_response(self.0.call(request).await?, asked).await
    }
}

/// Kind of a request, by the form of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// A list.
    List,
    /// Several requests in one: the response has the results of all.
    Batch,
    /// Anything else.
    Other,
}

impl Asked {
    fn of(query: &str) -> Self {
        let has = |text: &str| query.split('&').any(|it| it == text);
        if has("list-type=2") || has("comp=list") {
            Self::List
        } else if has("comp=batch") {
            Self::Batch
        } else {
            Self::Other
        }
    }
}

/// Statuses that the store handles itself: not found, exists already, precondition failed, not modified, forbidden.
const STORES_OWN: [u16; 6] = [404, 409, 412, 304, 401, 403];

async fn check_response(answer: HttpResponse, asked: Asked) -> Result<HttpResponse, HttpError> {
    let status = answer.status();
    if status.is_success() {
        return if asked == Asked::Batch { removed(answer).await } else { Ok(answer) };
    }
    let (parts, body) = answer.into_parts();
    let text = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map(Collected::to_bytes).unwrap_or_default();
    let refusal = Refusal { status: status.as_u16(), code: ServiceCode::of(&text) };
    if status.is_redirection() && status.as_u16() != 304 {
        return Err(HttpError::new(HttpErrorKind::Unknown, refusal));
    }
    let says_more = refusal.code.is_some_and(|it| it.means() != Meaning::ObjectMissing);
    if asked == Asked::Other && STORES_OWN.contains(&refusal.status) && !says_more {
        return Ok(HttpResponse::from_parts(parts, text.into()));
    }
    // The store retries by the status, and reads the body when it is done.
    let failed = stream::once(future::ready(Err(HttpError::new(HttpErrorKind::Unknown, refusal))));
    Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(StreamBody::new(failed))))
}

/// The response to a batch of removals; an error if one of them failed, unless its object is gone already.
async fn removed(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = answer.into_parts();
    let text = Limited::new(body, REMOVED_BYTES_MAX).collect().await.map(Collected::to_bytes);
    let text = text.map_err(|error| HttpError::new_boxed(HttpErrorKind::Decode, error))?;
    let mut failed: Option<Refusal> = None;
    for line in String::from_utf8_lossy(&text).lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match (words.as_slice(), &mut failed) {
            (["HTTP/1.1", status, ..], failed) => {
                if failed.is_some() {
                    break;
                }
                let status = status.parse().unwrap_or(0);
                *failed = (!matches!(status, 200..300 | 404)).then_some(Refusal { status, code: None });
            }
            (["x-ms-error-code:", code], Some(refusal)) => refusal.code = code.parse().ok(),
            _ => {}
        }
    }
    match failed {
        Some(refusal) => Err(HttpError::new(HttpErrorKind::Unknown, refusal)),
        None => Ok(HttpResponse::from_parts(parts, text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, text: &'static str) -> HttpResponse {
        let body = HttpResponseBody::from(text.to_owned());
        http::Response::builder().status(status).body(body).expect("a response")
    }

    /// The store's result for a response: the status is checked, then the body is read.
    async fn refused(asked: Asked, status: u16, text: &'static str) -> Option<Refusal> {
        let failed = match check_response(answer(status, text), asked).await {
            Ok(answer) => answer.into_body().bytes().await.err()?,
            Err(error) => error,
        };
        chain(&failed).iter().find_map(|it| it.downcast_ref::<Refusal>()).copied()
    }

    #[tokio::test]
    async fn only_the_status_and_known_code_of_an_answer_are_kept() {
        let missing = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>no</Message></Error>";
        let quota = "<Error><Code>XMinioAdminBucketQuotaExceeded</Code></Error>";
        let refusal = |status, code| Some(Refusal { status, code });
        for (asked, status, text, code) in [
            (Asked::Other, 404, missing, Some(ServiceCode::NoSuchBucket)),
            (Asked::Other, 403, "<Error><Code>AccessDenied</Code></Error>", Some(ServiceCode::AccessDenied)),
            (
                Asked::List,
                404,
                "<?xml version=\"1.0\"?><Error><Code>ContainerNotFound</Code></Error>",
                Some(ServiceCode::ContainerNotFound),
            ),
            (
                Asked::Other,
                401,
                "{\"error\":\"invalid_client\",\"error_codes\":[7000215]}",
                Some(ServiceCode::InvalidClient),
            ),
            (
                Asked::Other,
                400,
                "<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>",
                Some(ServiceCode::InvalidIdentityToken),
            ),
            (Asked::Other, 400, "{\"error\":\"SECRET\"}", None),
            (Asked::List, 403, "<Error><Code>SECRET</Code></Error>", None),
            (Asked::List, 403, "a page about NoSuchBucket", None),
            (Asked::Other, 302, "", None),
            (Asked::Other, 503, "<Error><Code>SlowDown</Code></Error>", Some(ServiceCode::SlowDown)),
            (Asked::Other, 400, quota, Some(ServiceCode::XMinioAdminBucketQuotaExceeded)),
        ] {
            assert_eq!(refused(asked, status, text).await, refusal(status, code), "{text}");
        }
        let large = Box::leak(format!("<Error><Code>SlowDown</Code>{}</Error>", " ".repeat(1 << 20)).into_boxed_str());
        assert_eq!(refused(Asked::Other, 503, large).await, refusal(503, None), "it is not read");
    }

    #[tokio::test]
    async fn an_object_that_was_not_removed_is_an_error() {
        let whole = "--batch_1\r\nContent-ID: 0\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n--batch_1\r\nContent-ID: 1\r\n\r\n\
                     HTTP/1.1 404 Not Found\r\nx-ms-error-code: BlobNotFound\r\n\r\n--batch_1--\r\n";
        assert_eq!(refused(Asked::Batch, 202, whole).await, None);
        let kept = "--batch_1\r\n\r\nHTTP/1.1 403 Denied\r\nx-ms-error-code: AuthorizationPermissionMismatch\r\n\r\n\
                    --batch_1\r\n\r\nHTTP/1.1 202 Accepted\r\nx-ms-error-code: BlobNotFound\r\n\r\n--batch_1--\r\n";
        let denied = Some(Refusal { status: 403, code: Some(ServiceCode::AuthorizationPermissionMismatch) });
        assert_eq!(refused(Asked::Batch, 202, kept).await, denied);
        assert_eq!(refused(Asked::Other, 202, kept).await, None);
        let queries =
            ["restype=container&comp=batch", "list-type=2&prefix=comp", "restype=container&comp=list", "uploadId=comp"];
        assert_eq!(queries.map(Asked::of), [Asked::Batch, Asked::List, Asked::List, Asked::Other]);
    }

    #[tokio::test]
    async fn errors_of_the_store_itself_are_kept() {
        for status in [200, 206, 304, 401, 403, 404, 409, 412] {
            let text = "<Error><Code>NoSuchKey</Code></Error>";
            let kept = check_response(answer(status, text), Asked::Other).await.expect("an answer");
            assert_eq!(kept.status(), status);
            assert_eq!(kept.into_body().bytes().await.expect("its body"), text);
        }
        let listed = check_response(answer(404, "a page"), Asked::List).await.expect("an answer");
        assert!(listed.into_body().bytes().await.is_err(), "of a list a 404 is an error like any other");
    }

    #[test]
    fn a_cause_is_recognized_by_its_type() {
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
