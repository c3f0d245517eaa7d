//! The fixed list of reasons in conditions and Events of benches.

use crate::controllers::reason::{self, Class};

/// A reason. Its name is shown to users and tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[cfg_attr(test, derive(strum::VariantArray))]
pub enum Reason {
    /// All pods are ready.
    Ready,
    /// Volume, Redis and configuration are being created.
    Preparing,
    /// The configure Job failed.
    ConfigureFailed,
    /// The hold Job failed, which stops the background jobs of sites whose schema is not that of the new image.
    HoldFailed,
    /// Pods are starting.
    Starting,
    /// Pods of the previous image are being replaced.
    Rolling,
    /// An image cannot be pulled.
    ImagePullFailed,
    /// A container crashes repeatedly, or cannot be created.
    ContainerFailing,
    /// A pod cannot be scheduled on any node.
    PodUnschedulable,
    /// A pod cannot be created, or does not start.
    PodsNotStarting,
    /// The StorageClass of a volume does not exist, or there is no default.
    StorageClassMissing,
    /// A volume is not bound yet.
    VolumePending,
    /// The volume is larger than the spec's size.
    VolumeCannotShrink,
    /// The volume's StorageClass does not allow expansion.
    VolumeCannotGrow,
    /// The bench runs on one node, because its volume is ReadWriteOnce.
    ReadWriteOnce,
    /// An app in the bench's spec is not in its image.
    AppMissing,
    /// An app is to be installed by the Frappe package manager, which is not supported.
    AppSourceNotSupported,
    /// An app is to be installed from Git, which is not enabled.
    GitDisabled,
    /// The Redis settings are not supported by this version.
    RedisNotSupported,
    /// A Secret of another namespace is referenced.
    SecretNamespaceRefused,
    /// The Secret with the Redis password or URLs does not exist.
    RedisSecretMissing,
    /// The Secret with the name of the generated one was not created for this bench.
    RedisSecretForeign,
    /// Redis has neither a password nor a NetworkPolicy.
    RedisOpen,
    /// The components get the Redis password; Redis requires it afterwards.
    RedisProtecting,
    /// Redis requires a password, and admits only the bench's pods and KEDA.
    RedisProtected,
    /// The container runtime reports no digest of the image: pods that start later may run other code of the same tag.
    DigestUnknown,
    /// The pods are pinned to the image's digest.
    Pinned,
    /// The spec is too large or nested too deeply, and is ignored.
    SpecTooLarge,
    /// Workers should be autoscaled, but KEDA is not installed.
    KedaMissing,
    /// KEDA is installed, but does not process a ScaledObject.
    KedaNotResponding,
    /// KEDA reports that it cannot scale.
    ScalingFailed,
    /// KEDA cannot query Redis, and keeps a fixed number of workers.
    ScalingFallback,
    /// A user paused a ScaledObject.
    ScalingPaused,
    /// KEDA has not processed a ScaledObject yet.
    ScalingStarting,
    /// KEDA scales the workers.
    Autoscaled,
    /// The deletion waits until the bench's sites are deleted.
    DependentSitesExist,
    /// Pods of another revision start.
    RolloutPreparing,
    /// Sites move to the newest revision.
    RolloutProgressing,
    /// Sites wait for a window in which they may move.
    RolloutOutsideWindow,
    /// A wave of sites has moved; the next one follows after a while.
    RolloutSoaking,
    /// A user paused the rollout.
    RolloutPaused,
    /// More sites failed to move than allowed: no further one moves.
    RolloutFailuresExceeded,
    /// The canary has moved; a user must promote the revision.
    RolloutAwaitingPromotion,
    /// A user aborted the rollout.
    RolloutAborted,
    /// Every site has moved, has failed, or must not move.
    RolloutCompleted,
    /// Another image waits until an earlier revision has no sites.
    TooManyRevisions,
    /// The bench cannot have a second set of pods.
    RevisionsNotSupported,
    /// A window of `updateStrategy.windows` cannot be parsed, or never opens.
    WindowInvalid,
    /// An entry of `commonSiteConfig` belongs to the operator.
    CommonSiteConfigRefused,
    /// A template of pods replaces what the operator needs.
    ComponentTemplateRefused,
}

impl reason::Reason for Reason {
    fn class(self) -> Class {
        match self {
            Self::Ready
            | Self::ReadWriteOnce
            | Self::RedisProtected
            | Self::Autoscaled
            | Self::Pinned
            | Self::RolloutCompleted
            | Self::DigestUnknown => Class::Done,
            Self::Preparing
            | Self::Starting
            | Self::Rolling
            | Self::RolloutPreparing
            | Self::RolloutProgressing
            | Self::RedisProtecting => Class::Working,
            Self::VolumePending
            | Self::ScalingStarting
            | Self::RolloutOutsideWindow
            | Self::RolloutSoaking
            | Self::RolloutPaused
            | Self::RolloutAwaitingPromotion
            | Self::RolloutAborted
            | Self::TooManyRevisions => Class::Waiting,
            Self::StorageClassMissing
            | Self::VolumeCannotShrink
            | Self::VolumeCannotGrow
            | Self::AppMissing
            | Self::AppSourceNotSupported
            | Self::GitDisabled
            | Self::RedisNotSupported
            | Self::SecretNamespaceRefused
            | Self::RedisSecretMissing
            | Self::RedisSecretForeign
            | Self::RedisOpen
            | Self::SpecTooLarge
            | Self::KedaMissing
            | Self::ScalingPaused
            | Self::RevisionsNotSupported
            | Self::WindowInvalid
            | Self::CommonSiteConfigRefused
            | Self::ComponentTemplateRefused
            | Self::DependentSitesExist => Class::Refused,
            Self::ConfigureFailed
            | Self::HoldFailed
            | Self::ImagePullFailed
            | Self::ContainerFailing
            | Self::PodUnschedulable
            | Self::PodsNotStarting
            | Self::RolloutFailuresExceeded
            | Self::KedaNotResponding
            | Self::ScalingFallback
            | Self::ScalingFailed => Class::Failed,
        }
    }
}
