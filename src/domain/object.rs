//! The kinds that this operator makes or reads, and an object as it should be.

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, Service},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Resource, ResourceExt,
    core::{ApiResource, GroupVersionKind},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::domain::{
    key::Key,
    labels::{APPLIED_HASH, IDENTITY, MANAGED_BY, MANAGER},
    names::hash_hex,
};

/// Hex digits of the hash of an applied object.
const APPLIED_HASH_DIGITS: usize = 16;

/// A kind of object that this operator makes or reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// core/v1 ConfigMap
    ConfigMap,
    /// core/v1 Secret, of which caches hold the metadata only
    Secret,
    /// core/v1 PersistentVolumeClaim
    PersistentVolumeClaim,
    /// core/v1 Service
    Service,
    /// apps/v1 Deployment
    Deployment,
    /// apps/v1 StatefulSet
    StatefulSet,
    /// batch/v1 Job
    Job,
    /// networking.k8s.io/v1 Ingress
    Ingress,
    /// policy/v1 PodDisruptionBudget
    PodDisruptionBudget,
    /// networking.k8s.io/v1 NetworkPolicy
    NetworkPolicy,
    /// core/v1 Pod, never made by this operator itself
    Pod,
    /// keda.sh ScaledObject
    ScaledObject,
    /// keda.sh TriggerAuthentication
    TriggerAuthentication,
    /// monitoring.coreos.com ServiceMonitor
    ServiceMonitor,
    /// core/v1 Namespace, of which only the metadata is watched
    Namespace,
    /// gateway.networking.k8s.io HTTPRoute
    HttpRoute,
    /// route.openshift.io Route
    Route,
    /// k8s.mariadb.com Database
    Database,
    /// k8s.mariadb.com User
    User,
    /// k8s.mariadb.com Grant
    Grant,
    /// k8s.mariadb.com MariaDB, made only for a site that has its own
    MariaDb,
    /// vyogo.tech FrappeDomain
    Domain,
    /// vyogo.tech FrappeSite
    Site,
    /// vyogo.tech FrappeBench
    Bench,
    /// vyogo.tech SiteBackup
    SiteBackup,
}

impl Kind {
    /// How the API server names the kind.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Secret => ApiResource::erase::<Secret>(&()),
            Self::PersistentVolumeClaim => ApiResource::erase::<PersistentVolumeClaim>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Self::Job => ApiResource::erase::<Job>(&()),
            Self::Ingress => ApiResource::erase::<Ingress>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::Pod => ApiResource::erase::<Pod>(&()),
            Self::ScaledObject => foreign("keda.sh", "v1alpha1", "ScaledObject"),
            Self::TriggerAuthentication => foreign("keda.sh", "v1alpha1", "TriggerAuthentication"),
            Self::ServiceMonitor => foreign("monitoring.coreos.com", "v1", "ServiceMonitor"),
            Self::Namespace => ApiResource::erase::<Namespace>(&()),
            Self::HttpRoute => foreign("gateway.networking.k8s.io", "v1", "HTTPRoute"),
            Self::Route => foreign("route.openshift.io", "v1", "Route"),
            Self::Database => foreign("k8s.mariadb.com", "v1alpha1", "Database"),
            Self::User => foreign("k8s.mariadb.com", "v1alpha1", "User"),
            Self::Grant => foreign("k8s.mariadb.com", "v1alpha1", "Grant"),
            Self::MariaDb => foreign("k8s.mariadb.com", "v1alpha1", "MariaDB"),
            Self::Domain => ApiResource::erase::<frappe_crds::FrappeDomain>(&()),
            Self::Site => ApiResource::erase::<frappe_crds::FrappeSite>(&()),
            Self::Bench => ApiResource::erase::<frappe_crds::FrappeBench>(&()),
            Self::SiteBackup => ApiResource::erase::<frappe_crds::SiteBackup>(&()),
        }
    }

    /// Whether the kind belongs to the MariaDB operator, which may be absent.
    pub fn is_mariadb(self) -> bool {
        matches!(self, Self::Database | Self::User | Self::Grant | Self::MariaDb)
    }
}

/// A kind that another operator defines.
fn foreign(group: &str, version: &str, kind: &str) -> ApiResource {
    let plural = format!("{}s", kind.to_lowercase());
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural)
}

/// An object as it should be: exactly the fields that this operator owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: Key,
    /// The whole object, with apiVersion, kind and metadata.
    pub body: Value,
}

impl Desired {
    /// From a typed object of Kubernetes.
    ///
    /// # Panics
    /// Never: the types of k8s-openapi serialize.
    pub fn typed<K: Resource<DynamicType = ()> + Serialize>(kind: Kind, object: &K) -> Self {
        let body = serde_json::to_value(object).expect("a Kubernetes object serializes");
        Self { kind, key: Key::of(object), body }
    }

    /// From metadata (a JSON object with name, labels …) and a spec.
    pub fn untyped(kind: Kind, key: Key, mut metadata: Value, spec: &Value) -> Self {
        let resource = kind.resource();
        metadata["name"] = json!(key.name);
        if !key.namespace.is_empty() {
            metadata["namespace"] = json!(key.namespace);
        }
        let body = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec,
        });
        Self { kind, key, body }
    }

    /// The object as it is applied: with the hash of itself as an annotation.
    pub fn stamped(&self) -> Value {
        let mut body = self.body.clone();
        body["metadata"]["annotations"][APPLIED_HASH] = json!(self.applied_hash());
        body
    }

    /// Hash of what is applied, as the object carries it in `labels::APPLIED_HASH`.
    pub fn applied_hash(&self) -> String {
        hash_hex(&self.body.to_string(), APPLIED_HASH_DIGITS)
    }
}

/// Whether an object's controller has this uid.
pub fn is_controlled_by(object: &impl ResourceExt, uid: &str) -> bool {
    object.owner_references().iter().any(|it| it.controller == Some(true) && it.uid == uid)
}

/// The finalizers of an object without one of ours.
pub fn finalizers_without(object: &impl ResourceExt, ours: &str) -> Vec<String> {
    object.finalizers().iter().filter(|it| *it != ours).cloned().collect()
}

/// Whether a write let an object go that was being deleted: nothing holds it any more.
pub fn is_let_go(written: &impl ResourceExt) -> bool {
    written.meta().deletion_timestamp.is_some() && written.finalizers().is_empty()
}

/// Whether an object carries the identity of a site, which this operator writes on what it makes and keeps.
pub fn is_made(metadata: &kube::api::ObjectMeta) -> bool {
    metadata.annotations.as_ref().is_some_and(|it| it.contains_key(IDENTITY))
}

/// Whether an object carries this operator's mark.
pub fn is_ours(metadata: &kube::api::ObjectMeta) -> bool {
    metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|value| value == MANAGER)
}
