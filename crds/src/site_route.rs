//! How a host leads to a site: TLS, Ingress, the Gateway API's HTTPRoute, OpenShift's Route.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Whether the route speaks TLS. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Secret with the certificate. Default: `SITE-tls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// cert-manager ClusterIssuer that makes the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("issuer must be the name of a ClusterIssuer, such as letsencrypt-prod"))]
    pub issuer: Option<String>,
}

/// The Ingress of a site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressConfig {
    /// Whether there is one. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Ingress class; the cluster's default if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("className must be the name of an IngressClass, such as nginx"))]
    pub class_name: Option<String>,
    /// Annotations of the Ingress. Those that put text into the controller's configuration are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// How an OpenShift Route treats TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TlsTermination {
    /// The router ends TLS.
    #[default]
    Edge,
    /// The pods end TLS.
    Passthrough,
    /// The router ends TLS and speaks TLS to the pods.
    Reencrypt,
}

/// Which hosts below its own an OpenShift Route serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WildcardPolicy {
    /// None.
    #[default]
    None,
    /// All of the domain.
    Subdomain,
}

/// The OpenShift Route of a site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteConfig {
    /// Whether there is one. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Host of the Route; the site's host if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("host must be a DNS name in lower case, such as shop.example.com"))]
    pub host: Option<String>,
    /// Who ends TLS. Default: `edge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_termination: Option<TlsTermination>,
    /// Which hosts below its own the Route serves. Default: `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wildcard_policy: Option<WildcardPolicy>,
    /// Annotations of the Route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// The HTTPRoute of a site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.enabled || size(self.parentRefs) > 0").message("httpRoute.parentRefs must name a Gateway"))]
pub struct HttpRouteConfig {
    /// Whether there is one. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Gateways that the route is attached to.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub parent_refs: Vec<GatewayReference>,
    /// Annotations of the HTTPRoute.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// Names a Gateway, or one listener of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayReference {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the Gateway; that of the route if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Listener of the Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}
