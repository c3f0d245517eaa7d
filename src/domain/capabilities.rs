//! What the cluster offers beyond Kubernetes itself.

/// Optional APIs that exist and, where this operator makes such objects, are synced. They come and go while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// KEDA: `ScaledObject` and `TriggerAuthentication` of keda.sh.
    pub keda: bool,
    /// The Prometheus operator: `ServiceMonitor` of monitoring.coreos.com.
    pub service_monitors: bool,
    /// OpenShift: `SecurityContextConstraints` give pods their ids, so that none may be fixed.
    pub openshift: bool,
}
