//! Error codes of storage services.

use std::str::FromStr as _;

use bytes::Bytes;
use serde::Deserialize;
use strum::{Display, EnumString};

/// Error codes that are reported: those of S3, of Azure Blob Storage, of Google Cloud Storage, and of the services that give out tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, EnumString)]
pub enum ServiceCode {
    AccessDenied,
    AccountIsDisabled,
    AccountProblem,
    AllAccessDisabled,
    AuthenticationFailed,
    AuthenticationRequired,
    AuthorizationFailure,
    AuthorizationHeaderMalformed,
    AuthorizationPermissionMismatch,
    AuthorizationProtocolMismatch,
    AuthorizationResourceTypeMismatch,
    AuthorizationServiceMismatch,
    AuthorizationSourceIPMismatch,
    BadDigest,
    BlobNotFound,
    BucketAlreadyExists,
    ContainerBeingDeleted,
    ContainerDisabled,
    ContainerNotFound,
    EntityTooLarge,
    ExpiredToken,
    ExpiredTokenException,
    InsufficientAccountPermissions,
    InsufficientStorage,
    InternalError,
    InvalidAccessKeyId,
    InvalidArgument,
    InvalidAuthenticationInfo,
    InvalidBlockList,
    InvalidBucketName,
    InvalidClient,
    InvalidGrant,
    InvalidHeaderValue,
    InvalidIdentityToken,
    InvalidRequest,
    InvalidResourceName,
    InvalidSecurity,
    InvalidToken,
    KeyBasedAuthenticationNotPermitted,
    MethodNotAllowed,
    NoAuthenticationInformation,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    NotImplemented,
    OperationTimedOut,
    PermanentRedirect,
    QuotaExceeded,
    RequestTimeTooSkewed,
    RequestTimeout,
    ServerBusy,
    ServiceUnavailable,
    SignatureDoesNotMatch,
    SlowDown,
    TemporaryRedirect,
    TooManyRequests,
    UnauthorizedClient,
    UnsupportedHeader,
    XMinioAdminBucketQuotaExceeded,
    XMinioStorageFull,
}

/// Who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The bucket or container does not exist.
    BucketMissing,
    /// Access is denied.
    Denied,
    /// There is no room.
    Full,
    /// The object, or the upload in pieces, does not exist.
    ObjectMissing,
    /// Anything else.
    Other,
}

impl ServiceCode {
    /// Who must act.
    pub fn means(self) -> Meaning {
        match self {
            Self::NoSuchBucket | Self::ContainerNotFound => Meaning::BucketMissing,
            Self::AccessDenied
            | Self::AccountIsDisabled
            | Self::AuthenticationFailed
            | Self::AuthenticationRequired
            | Self::AuthorizationFailure
            | Self::AuthorizationPermissionMismatch
            | Self::AuthorizationProtocolMismatch
            | Self::AuthorizationResourceTypeMismatch
            | Self::AuthorizationServiceMismatch
            | Self::AuthorizationSourceIPMismatch
            | Self::ExpiredToken
            | Self::ExpiredTokenException
            | Self::InsufficientAccountPermissions
            | Self::InvalidAccessKeyId
            | Self::InvalidAuthenticationInfo
            | Self::InvalidClient
            | Self::InvalidGrant
            | Self::InvalidIdentityToken
            | Self::InvalidSecurity
            | Self::InvalidToken
            | Self::KeyBasedAuthenticationNotPermitted
            | Self::NoAuthenticationInformation
            | Self::SignatureDoesNotMatch
            | Self::UnauthorizedClient => Meaning::Denied,
            Self::InsufficientStorage
            | Self::QuotaExceeded
            | Self::XMinioAdminBucketQuotaExceeded
            | Self::XMinioStorageFull => Meaning::Full,
            Self::BlobNotFound | Self::NoSuchKey | Self::NoSuchUpload => Meaning::ObjectMissing,
            _ => Meaning::Other,
        }
    }

    /// The error code of a response, if known.
    pub fn of(text: &Bytes) -> Option<Self> {
        #[derive(Deserialize)]
        struct Xml {
            #[serde(rename = "Code")]
            code: Option<String>,
            #[serde(rename = "Error")]
            inner: Option<Inner>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Inner {
            code: String,
        }
        /// The form of services that give out tokens.
        #[derive(Deserialize)]
        struct Json {
            error: String,
        }
        let xml = || {
            let answer: Xml = quick_xml::de::from_reader(text.as_ref()).ok()?;
            answer.code.or(answer.inner.map(|it| it.code))
        };
        // `invalid_client` is InvalidClient.
        let camel = |it: &str| it.split('_').map(capitalized).collect::<String>();
        let word = serde_json::from_slice(text).map(|it: Json| camel(&it.error)).ok().or_else(xml)?;
        Self::from_str(&word).ok()
    }
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}
