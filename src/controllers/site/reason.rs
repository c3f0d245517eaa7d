//! Why a site is as it is: the fixed list of reasons in conditions and Events.

use crate::controllers::reason::{self, Class};

/// A reason. Its name is what people and tools read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[cfg_attr(test, derive(strum::VariantArray))]
pub enum Reason {
    /// The site is served.
    Ready,
    /// It waits for what comes before it.
    Waiting,
    /// Its bench does not exist.
    BenchNotFound,
    /// Its bench is not ready yet.
    BenchNotReady,
    /// Its bench is being deleted.
    BenchDeleting,
    /// Its bench does not allow it.
    BenchNotPermitted,
    /// Its bench is ready.
    BenchReady,
    /// What siteName, domain and suffix make together is no host name.
    HostInvalid,
    /// The host is not under one of the suffixes that the bench or the platform allows.
    HostNotAllowed,
    /// The ingress class, issuer or Gateway, or a wildcard, is not one that the site may use.
    RouteNotAllowed,
    /// The API of what is to lead to the site does not exist.
    RouteApiMissing,
    /// A Gateway or a router refuses the route.
    RouteRefused,
    /// An annotation would put text into the ingress controller's configuration.
    AnnotationRefused,
    /// An app is not one of the bench's.
    AppNotOnBench,
    /// The list of apps does not name one that the site has, nor does the list of those to be removed.
    AppNotRemoved,
    /// An app is to be installed and to be removed.
    AppsContradict,
    /// The spec is larger than any that makes sense.
    SpecTooLarge,
    /// An entry of siteConfig may not be set.
    SiteConfigRefused,
    /// The site asks for a server, or for more of one, than its bench allows.
    DatabaseNotAllowed,
    /// A Secret that siteConfigSecretRefs names does not exist.
    SiteConfigSecretMissing,
    /// The Secret with the account of a database that exists does not exist, or none is named.
    ConnectionSecretMissing,
    /// A Secret reference names another namespace.
    SecretNamespaceRefused,
    /// A Secret that is named was made by an operator, or has a server's administrator.
    SecretRefused,
    /// A Secret that is named does not say that it may be copied to the bench's namespace.
    SecretCopyRefused,
    /// Another site holds the host name.
    HostClaimed,
    /// The Secret with the password of Administrator does not exist.
    AdminPasswordSecretMissing,
    /// A Secret that was made once is gone.
    SecretLost,
    /// A Secret of the name that this operator needs belongs to somebody else.
    SecretForeign,
    /// An object of a name that this operator needs belongs to somebody else, or the API server refuses what is written.
    WriteRejected,
    /// The MariaDB operator is not installed.
    MariaDbOperatorMissing,
    /// No MariaDB object serves the site.
    DatabaseServerNotFound,
    /// The MariaDB operator could not make the database.
    DatabaseFailed,
    /// The database is being made.
    CreatingDatabase,
    /// Database, account and rights are there.
    DatabaseReady,
    /// The init Job runs.
    Initializing,
    /// The init Job failed and is tried again.
    InitRetrying,
    /// As many site Jobs of the bench run as may.
    WaitingForJobSlot,
    /// A backup is made or restored: nothing else is done to the site meanwhile.
    WaitingForBackup,
    /// The init Job failed for good.
    InitFailed,
    /// The site was created.
    Initialized,
    /// The configure Job runs.
    Configuring,
    /// The configure Job failed and is tried again.
    ConfigureRetrying,
    /// The configure Job failed for good.
    ConfigureFailed,
    /// Nothing is done for the site.
    Suspended,
    /// Ingress, HTTPRoute or Route lead to the site.
    RouteApplied,
    /// The site asks for no route.
    RouteDisabled,
    /// The site is being deleted.
    Deleting,
    /// The deletion waits for a person.
    DeletionBlocked,
    /// The site is to be backed up before it is removed, and was not.
    FinalBackupFailed,
    /// The delete Job failed and is tried again.
    DeletionRetrying,
    /// No pod of the site's Job can be made, or the pod does not start.
    JobNotStarting,
    /// The delete Job failed for good.
    DeletionFailed,
}

impl Reason {
    /// Whether it is a step on the way to being served, which the condition shows and no Event: every site takes it, and
    /// an Event is a write like any other.
    pub fn is_step(self) -> bool {
        matches!(self, Self::Waiting | Self::CreatingDatabase | Self::Initializing)
    }
}

impl reason::Reason for Reason {
    fn class(self) -> Class {
        match self {
            Self::Ready
            | Self::BenchReady
            | Self::DatabaseReady
            | Self::Initialized
            | Self::RouteApplied
            | Self::RouteDisabled => Class::Done,
            Self::CreatingDatabase | Self::Initializing | Self::Configuring | Self::Deleting => Class::Working,
            Self::Waiting
            | Self::BenchNotReady
            | Self::WaitingForJobSlot
            | Self::WaitingForBackup
            | Self::Suspended => Class::Waiting,
            Self::BenchNotFound
            | Self::BenchDeleting
            | Self::BenchNotPermitted
            | Self::HostInvalid
            | Self::HostNotAllowed
            | Self::RouteNotAllowed
            | Self::RouteApiMissing
            | Self::RouteRefused
            | Self::AnnotationRefused
            | Self::AppNotOnBench
            | Self::AppNotRemoved
            | Self::AppsContradict
            | Self::SpecTooLarge
            | Self::SiteConfigRefused
            | Self::DatabaseNotAllowed
            | Self::SiteConfigSecretMissing
            | Self::ConnectionSecretMissing
            | Self::SecretNamespaceRefused
            | Self::SecretRefused
            | Self::SecretCopyRefused
            | Self::HostClaimed
            | Self::AdminPasswordSecretMissing
            | Self::SecretLost
            | Self::SecretForeign
            | Self::WriteRejected
            | Self::MariaDbOperatorMissing
            | Self::DatabaseServerNotFound
            | Self::DeletionBlocked => Class::Refused,
            Self::DatabaseFailed
            | Self::InitRetrying
            | Self::InitFailed
            | Self::ConfigureRetrying
            | Self::ConfigureFailed
            | Self::FinalBackupFailed
            | Self::DeletionRetrying
            | Self::JobNotStarting
            | Self::DeletionFailed => Class::Failed,
        }
    }
}
