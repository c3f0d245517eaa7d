//! What the cluster offers beyond Kubernetes itself.

/// Optional APIs that exist and, where this operator makes such objects, are synced. They come and go while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is an API that exists or not")]
pub struct Capabilities {
    /// KEDA: `ScaledObject` and `TriggerAuthentication` of keda.sh.
    pub keda: bool,
    /// The Prometheus operator: `ServiceMonitor` of monitoring.coreos.com.
    pub service_monitors: bool,
    /// OpenShift's router: `Route` of route.openshift.io.
    pub routes: bool,
    /// The Gateway API: `HTTPRoute` of gateway.networking.k8s.io.
    pub gateway: bool,
    /// OpenShift: `SecurityContextConstraints` give pods their ids, so that none may be fixed.
    pub openshift: bool,
}
