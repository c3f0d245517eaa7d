//! Routes of a site: TLS, Ingress, the Gateway API's HTTPRoute, OpenShift's Route.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS settings of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Whether the route uses TLS. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Secret with the certificate. Default: `SITE-tls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// cert-manager ClusterIssuer that issues the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("issuer must be the name of a ClusterIssuer, such as letsencrypt-prod"))]
    pub issuer: Option<String>,
}

/// The Ingress of a site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressConfig {
    /// Whether to create an Ingress. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Ingress class. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("className must be the name of an IngressClass, such as nginx"))]
    pub class_name: Option<String>,
    /// Annotations of the Ingress. Annotations that insert text into the controller's configuration are rejected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// TLS termination of an OpenShift Route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TlsTermination {
    /// The router terminates TLS.
    #[default]
    Edge,
    /// The pods terminate TLS.
    Passthrough,
    /// The router terminates TLS and uses TLS to the pods.
    Reencrypt,
}

/// Whether an OpenShift Route also serves subdomains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WildcardPolicy {
    /// No subdomains.
    #[default]
    None,
    /// All subdomains.
    Subdomain,
}

/// The OpenShift Route of a site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteConfig {
    /// Whether to create a Route. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Host of the Route. Default: the site's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message("host must be a DNS name in lower case, such as shop.example.com"))]
    pub host: Option<String>,
    /// TLS termination. Default: `edge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_termination: Option<TlsTermination>,
    /// Whether the Route also serves subdomains of its host. Default: `none`.
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
#[x_kube(validation = Rule::new("!self.enabled || size(self.parentRefs) > 0").message("httpRoute.parentRefs must reference a Gateway"))]
pub struct HttpRouteConfig {
    /// Whether to create an HTTPRoute. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Gateways to attach the route to.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub parent_refs: Vec<GatewayReference>,
    /// Annotations of the HTTPRoute.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// Reference to a Gateway, or to one of its listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayReference {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the Gateway. Default: the namespace of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Name of a listener of the Gateway. Default: all listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}
