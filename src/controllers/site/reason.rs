//! Why a site is as it is: the fixed list of reasons in conditions and Events.

use std::fmt;

/// A reason. Its name is what people and tools read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The spec asks for a database that this version does not make.
    DatabaseNotSupported,
    /// The spec asks for a host name other than siteName.
    DomainNotSupported,
    /// The host is not under one of the bench's `domainConfig.allowedSuffixes`.
    HostNotAllowed,
    /// The spec asks for an OpenShift Route.
    RouteNotSupported,
    /// An annotation would put text into the ingress controller's configuration.
    AnnotationRefused,
    /// An app is not one of the bench's.
    AppNotOnBench,
    /// The list of apps was changed after the site was created.
    AppsChangeNotSupported,
    /// A Secret reference names another namespace.
    SecretNamespaceRefused,
    /// Another site holds the host name.
    HostClaimed,
    /// The Secret with the password of Administrator does not exist.
    AdminPasswordSecretMissing,
    /// A Secret that was made once is gone.
    SecretLost,
    /// A Secret of the name that this operator needs belongs to somebody else.
    SecretForeign,
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
    /// The init Job failed for good.
    InitFailed,
    /// The site was created.
    Initialized,
    /// The Ingress leads to the site.
    IngressApplied,
    /// The site asks for no route.
    RouteDisabled,
    /// The site is being deleted.
    Deleting,
    /// The deletion waits for a person.
    DeletionBlocked,
    /// The delete Job failed and is tried again.
    DeletionRetrying,
    /// The delete Job failed for good.
    DeletionFailed,
}

impl Reason {
    /// Whether a person should look at it.
    pub fn is_warning(self) -> bool {
        !matches!(
            self,
            Self::Ready
                | Self::Waiting
                | Self::BenchNotReady
                | Self::BenchReady
                | Self::CreatingDatabase
                | Self::DatabaseReady
                | Self::Initializing
                | Self::Initialized
                | Self::IngressApplied
                | Self::RouteDisabled
                | Self::Deleting
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}
