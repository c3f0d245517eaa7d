//! The fixed list of reasons in conditions and Events of sites.

use crate::controllers::reason::{self, Class};

/// A reason. Its name is shown to users and tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[cfg_attr(test, derive(strum::VariantArray))]
pub enum Reason {
    /// The site is available.
    Ready,
    /// The step waits for an earlier step.
    Waiting,
    /// The bench does not exist.
    BenchNotFound,
    /// The bench is not ready.
    BenchNotReady,
    /// The bench is being deleted.
    BenchDeleting,
    /// The bench does not admit the site.
    BenchNotPermitted,
    /// The bench is ready.
    BenchReady,
    /// `siteName`, `domain` and suffix do not form a valid host name.
    HostInvalid,
    /// The host is not under an allowed suffix of the bench or the platform.
    HostNotAllowed,
    /// The ingress class, issuer, Gateway or wildcard is not allowed for the site.
    RouteNotAllowed,
    /// The API of the requested route is not installed.
    RouteApiMissing,
    /// A Gateway or router rejected the route.
    RouteRefused,
    /// An annotation of the route, or its value, is not allowed.
    AnnotationRefused,
    /// An app is not one of the bench's apps.
    AppNotOnBench,
    /// An installed app is neither in `apps` nor in `removedApps`.
    AppNotRemoved,
    /// An app is in both `apps` and `removedApps`.
    AppsContradict,
    /// The spec is too large or nested too deeply, and is ignored.
    SpecTooLarge,
    /// An entry of `siteConfig` is not allowed.
    SiteConfigRefused,
    /// The requested database server, image, size or resources are not allowed by the bench.
    DatabaseNotAllowed,
    /// A Secret or key of `siteConfigSecretRefs` does not exist.
    SiteConfigSecretMissing,
    /// The Secret with the user of an existing database is not set or does not exist.
    ConnectionSecretMissing,
    /// A Secret of another namespace is referenced.
    SecretNamespaceRefused,
    /// A referenced Secret was created by an operator, or belongs to a MariaDB administrator.
    SecretRefused,
    /// A referenced Secret may not be copied to the bench's namespace.
    SecretCopyRefused,
    /// Another site uses the host.
    HostClaimed,
    /// The Secret with Administrator's password does not exist.
    AdminPasswordSecretMissing,
    /// A generated Secret was deleted.
    SecretLost,
    /// A Secret with a name that the operator needs was not created for this site.
    SecretForeign,
    /// The API server rejected a write, or an object with a needed name was not created for this site.
    WriteRejected,
    /// The MariaDB operator is not installed.
    MariaDbOperatorMissing,
    /// No MariaDB was found for the site.
    DatabaseServerNotFound,
    /// The MariaDB operator could not create the database.
    DatabaseFailed,
    /// The database is being created.
    CreatingDatabase,
    /// Database, user and grants exist.
    DatabaseReady,
    /// The init Job is running.
    Initializing,
    /// The init Job failed and is retried.
    InitRetrying,
    /// The bench is at its limit of concurrent site Jobs.
    WaitingForJobSlot,
    /// A backup or restore of the site is running; changes wait for it.
    WaitingForBackup,
    /// The init Job failed permanently.
    InitFailed,
    /// The site was created.
    Initialized,
    /// The configure Job is running.
    Configuring,
    /// The configure Job failed and is retried.
    ConfigureRetrying,
    /// The configure Job failed permanently.
    ConfigureFailed,
    /// The database has the schema of the bench's image.
    UpToDate,
    /// The schema of the database is not that of the bench's image.
    UpdateRequired,
    /// A user must request the migration.
    UpdateManual,
    /// The bench's image cannot serve the site: it lacks an app of the site, or has an earlier schema, and Frappe cannot migrate backwards.
    UpdateRefused,
    /// The site waits for a window in which it may move to another revision.
    OutsideWindow,
    /// A window of `update.windows` cannot be parsed, or never opens.
    WindowInvalid,
    /// A user undid the update of the site: the former revision serves it.
    UpdateUndone,
    /// The named update cannot be undone.
    UndoRefused,
    /// The update could not be undone; the site is as before.
    UndoFailed,
    /// Migrations are paused for the bench.
    UpdatePaused,
    /// The site is being migrated.
    Updating,
    /// The migration failed and is tried again.
    UpdateRetrying,
    /// The migration failed.
    UpdateFailed,
    /// The migration failed, and the database could not be restored.
    RollbackFailed,
    /// The site is suspended: no changes are applied.
    Suspended,
    /// The Ingress, HTTPRoute or Route exists.
    RouteApplied,
    /// The site has no route.
    RouteDisabled,
    /// The site is being deleted.
    Deleting,
    /// The deletion needs a decision by a user.
    DeletionBlocked,
    /// The final backup before the deletion failed.
    FinalBackupFailed,
    /// The delete Job failed and is retried.
    DeletionRetrying,
    /// The Job's pod cannot be created, or does not start.
    JobNotStarting,
    /// The delete Job failed permanently.
    DeletionFailed,
}

impl Reason {
    /// Whether it is an intermediate step of every new site, which gets no Event, because each Event is a write.
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
            | Self::RouteDisabled
            | Self::UpToDate => Class::Done,
            Self::CreatingDatabase | Self::Initializing | Self::Configuring | Self::Updating | Self::Deleting => {
                Class::Working
            }
            Self::Waiting
            | Self::BenchNotReady
            | Self::WaitingForJobSlot
            | Self::WaitingForBackup
            | Self::UpdateRequired
            | Self::UpdateManual
            | Self::OutsideWindow
            | Self::UpdateUndone
            | Self::UpdatePaused
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
            | Self::UpdateRefused
            | Self::WindowInvalid
            | Self::UndoRefused
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
            | Self::UpdateRetrying
            | Self::UpdateFailed
            | Self::UndoFailed
            | Self::RollbackFailed
            | Self::FinalBackupFailed
            | Self::DeletionRetrying
            | Self::JobNotStarting
            | Self::DeletionFailed => Class::Failed,
        }
    }
}
