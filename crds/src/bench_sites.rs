//! Which sites a FrappeBench takes, and what they may ask for.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::Quantity;

/// Which sites a bench takes, and what they may ask for beyond their own data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedSites {
    /// The namespaces that may place sites on it. Default: only its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<AllowedNamespaces>,
    /// Entries that `siteConfig` and `siteConfigSecretRefs` of its sites may have beside the harmless ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    #[x_kube(validation = Rule::new("self.all(it, it.matches('^[A-Za-z_][A-Za-z0-9_]*$'))").message("siteConfigKeys must be names of entries: letters, digits and _"))]
    pub site_config_keys: Vec<String>,
    /// What its sites may ask for in `dbConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<AllowedDatabases>,
    /// What may lead to its sites of other namespaces. Which hosts they may have says `domainConfig.allowedSuffixes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<AllowedRoutes>,
    /// What SiteBackups of its sites may name of the bench's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<AllowedBackups>,
}

/// What SiteBackups may name of the bench's namespace: those of sites of other namespaces what is listed, those of the bench's own
/// namespace everything where nothing is listed, but never the volume of a bench or of a MariaDB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedBackups {
    /// PersistentVolumeClaims that backups may be kept on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub persistent_volume_claims: Vec<String>,
    /// ServiceAccounts that their Jobs may run as.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub service_accounts: Vec<String>,
}

/// What may lead to sites of other namespaces than their bench's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedRoutes {
    /// Ingress classes that they may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub ingress_classes: Vec<String>,
    /// Issuers and ClusterIssuers of cert-manager that they may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub issuers: Vec<String>,
    /// Gateways that they may name, as `NAMESPACE/NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 3, max = 317)))]
    #[x_kube(validation = Rule::new("self.all(it, it.matches('^[a-z0-9-]+/[a-z0-9.-]+$'))").message("gateways must be written as NAMESPACE/NAME"))]
    pub gateways: Vec<String>,
}

/// What sites may ask for in their own `dbConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedDatabases {
    /// Whether sites of other namespaces may have a server of their own (`mode: dedicated`). Default: only where the bench's
    /// `dbConfig` says dedicated. Sites of the bench's namespace may in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedicated: Option<bool>,
    /// Largest `storageSize` of such a server. Default: for sites of other namespaces the size that they get without asking,
    /// for those of the bench's namespace none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_storage_size: Option<Quantity>,
    /// Largest amount of each resource in `resources` of such a server, for example `memory: 4Gi`; one that is not named may
    /// not be asked for. Default: sites of other namespaces may ask for none, those of the bench's namespace for any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub max_resources: BTreeMap<String, Quantity>,
    /// Images that such a server may have beside the bench's and the operator's `defaultMariaDBImage`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 512)))]
    pub images: Vec<String>,
    /// MariaDB objects of the bench's namespace that sites of other namespaces may name in `mariadbRef`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub servers: Vec<String>,
}

/// Namespaces, chosen as the Gateway API's `allowedRoutes` does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.selector) == (has(self.from) && self.from == 'Selector')").message("selector must be given with from: Selector, and only then"))]
pub struct AllowedNamespaces {
    /// `Same` (default), `All` or `Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<NamespacesFrom>,
    /// Labels that an allowed namespace has, with `from: Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// How namespaces are chosen.
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
