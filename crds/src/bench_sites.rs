//! Which sites a FrappeBench takes, and what they may ask for.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::Quantity;

/// Which sites may use a bench, and what they may request beyond their own data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedSites {
    /// Namespaces whose sites may use the bench. Default: only its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<AllowedNamespaces>,
    /// Entries that sites may set in `siteConfig` and `siteConfigSecretRefs`, beyond those that are always allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    #[x_kube(validation = Rule::new("self.all(it, it.matches('^[A-Za-z_][A-Za-z0-9_]*$'))").message("siteConfigKeys must have only letters, digits and _, and not begin with a digit"))]
    pub site_config_keys: Vec<String>,
    /// What sites may request in `dbConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<AllowedDatabases>,
    /// Ingress classes, issuers and Gateways that sites of other namespaces may use. For their hosts see
    /// `domainConfig.allowedSuffixes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<AllowedRoutes>,
    /// Objects in the bench's namespace that SiteBackups of its sites may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<AllowedBackups>,
}

/// Objects in the bench's namespace that SiteBackups may use. SiteBackups of other namespaces may use only what is listed. Those of the
/// bench's namespace may use anything if nothing is listed, except volumes of benches and MariaDBs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedBackups {
    /// PersistentVolumeClaims that may store backups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub persistent_volume_claims: Vec<String>,
    /// ServiceAccounts that backup Jobs may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub service_accounts: Vec<String>,
    /// StorageClasses of staging volumes of backup Jobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub staging_storage_classes: Vec<String>,
}

/// Ingress classes, issuers and Gateways that sites of other namespaces may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedRoutes {
    /// Allowed ingress classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub ingress_classes: Vec<String>,
    /// Allowed Issuers and ClusterIssuers of cert-manager.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub issuers: Vec<String>,
    /// Allowed Gateways, as `NAMESPACE/NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 3, max = 317)))]
    #[x_kube(validation = Rule::new("self.all(it, it.matches('^[a-z0-9-]+/[a-z0-9.-]+$'))").message("gateways must be written as NAMESPACE/NAME"))]
    pub gateways: Vec<String>,
}

/// What sites may request in their own `dbConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedDatabases {
    /// Whether sites of other namespaces may have a dedicated server (`mode: dedicated`). Default: only if the bench's `dbConfig` is
    /// dedicated. Sites of the bench's namespace always may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedicated: Option<bool>,
    /// Maximum `storageSize` of a dedicated server. Default: the default size for sites of other namespaces; unlimited for sites of
    /// the bench's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_storage_size: Option<Quantity>,
    /// Maximum of each resource in `resources` of a dedicated server, for example `memory: 4Gi`. Resources not listed may not be
    /// requested. Default: none for sites of other namespaces; unlimited for sites of the bench's namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub max_resources: BTreeMap<String, Quantity>,
    /// Images that a dedicated server may use, in addition to the bench's and the operator's `defaultMariaDBImage`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 512)))]
    pub images: Vec<String>,
    /// MariaDB objects in the bench's namespace that sites of other namespaces may reference in `mariadbRef`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub servers: Vec<String>,
}

/// Selection of namespaces, as in the Gateway API's `allowedRoutes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.selector) == (has(self.from) && self.from == 'Selector')").message("selector is required with from: Selector, and not allowed otherwise"))]
pub struct AllowedNamespaces {
    /// `Same` (default), `All` or `Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<NamespacesFrom>,
    /// Labels of allowed namespaces. Required with `from: Selector`, and only then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// How namespaces are selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NamespacesFrom {
    /// The bench's own namespace.
    #[default]
    Same,
    /// Every namespace.
    All,
    /// Namespaces with the labels of `selector`.
    Selector,
}
