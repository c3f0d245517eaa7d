//! FrappeDomain: the claim of one host name, for the whole cluster.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Claim of a host name by a site. The host is the name of this object.
///
/// The API server lets only one site create the object. Only the operator creates and deletes these objects.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "vyogo.tech",
    version = "v1alpha1",
    kind = "FrappeDomain",
    plural = "frappedomains",
    shortname = "fd",
    category = "frappe",
    derive = "Default",
    derive = "PartialEq",
    doc = "A FrappeDomain says which site holds the host name that is the object's name. One host belongs to one site of the cluster.",
    validation = Rule::new("self.metadata.name.size() <= 253").message("metadata.name must be a host name of at most 253 characters"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.site.namespace"),
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.site.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct FrappeDomainSpec {
    /// The site that has the host.
    #[x_kube(validation = Rule::new("self == oldSelf").message("site cannot be changed: delete the FrappeDomain so that another site can claim the host"))]
    pub site: DomainHolder,
}

/// Reference to a site by name and UID: a new site with the same name has another UID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct DomainHolder {
    /// Namespace of the site.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the site.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// UID of the site.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}
