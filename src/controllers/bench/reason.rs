//! Why a bench is as it is: the fixed list of reasons in conditions and Events.

use crate::controllers::reason::{self, Class};

/// A reason. Its name is what people and tools read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[cfg_attr(test, derive(strum::VariantArray))]
pub enum Reason {
    /// Every pod is ready.
    Ready,
    /// Volume, Redis and configuration are being made.
    Preparing,
    /// The configure Job failed.
    ConfigureFailed,
    /// Pods are starting.
    Starting,
    /// Pods of the former image are being replaced.
    Rolling,
    /// An image cannot be pulled.
    ImagePullFailed,
    /// A container ends again and again, or cannot be made.
    ContainerFailing,
    /// A pod fits no node.
    PodUnschedulable,
    /// A pod cannot be made, or does not start.
    PodsNotStarting,
    /// The storage class of a volume does not exist, or there is no default one.
    StorageClassMissing,
    /// A volume is not bound yet.
    VolumePending,
    /// The volume is larger than the bench asks for.
    VolumeCannotShrink,
    /// The volume's storage class does not let it grow.
    VolumeCannotGrow,
    /// The bench runs on one node, since its volume is on one.
    ReadWriteOnce,
    /// An app that the bench names is not in its image.
    AppMissing,
    /// An app is to come from the Frappe package manager.
    AppSourceNotSupported,
    /// An app is to come from Git, and that is not enabled.
    GitDisabled,
    /// Redis settings that this version does not know.
    RedisNotSupported,
    /// A Secret is named in another namespace.
    SecretNamespaceRefused,
    /// The Secret with the Redis password or URLs does not exist.
    RedisSecretMissing,
    /// A Secret of the name of the generated one is not this bench's.
    RedisSecretForeign,
    /// Redis has neither a password nor a NetworkPolicy.
    RedisOpen,
    /// The components learn the password; Redis asks for it once all know it.
    RedisProtecting,
    /// Redis asks for a password, and lets in only the bench's pods and KEDA.
    RedisProtected,
    /// The spec is larger than any that makes sense.
    SpecTooLarge,
    /// Workers are to be autoscaled, and KEDA is not installed.
    KedaMissing,
    /// KEDA is installed, and says nothing about what it is to scale.
    KedaNotResponding,
    /// KEDA says that it cannot scale.
    ScalingFailed,
    /// KEDA cannot ask Redis, and keeps workers at a fixed number.
    ScalingFallback,
    /// KEDA was told to pause.
    ScalingPaused,
    /// KEDA has not said yet whether it scales.
    ScalingStarting,
    /// KEDA scales.
    Autoscaled,
    /// The deletion waits for the bench's sites.
    DependentSitesExist,
}

impl reason::Reason for Reason {
    fn class(self) -> Class {
        match self {
            Self::Ready | Self::ReadWriteOnce | Self::RedisProtected | Self::Autoscaled => Class::Done,
            Self::Preparing | Self::Starting | Self::Rolling | Self::RedisProtecting => Class::Working,
            Self::VolumePending | Self::ScalingStarting => Class::Waiting,
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
            | Self::DependentSitesExist => Class::Refused,
            Self::ConfigureFailed
            | Self::ImagePullFailed
            | Self::ContainerFailing
            | Self::PodUnschedulable
            | Self::PodsNotStarting
            | Self::KedaNotResponding
            | Self::ScalingFallback
            | Self::ScalingFailed => Class::Failed,
        }
    }
}
