//! Typed objects, as builders make them. They become JSON only as [`Desired`], which is what is compared and sent. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{DeploymentSpec, StatefulSetSpec},
        batch::v1::JobSpec,
        core::v1::{ConfigMap, PersistentVolumeClaimSpec, Secret, ServiceSpec, VolumeResourceRequirements},
        networking::v1::{IngressSpec, NetworkPolicySpec},
        policy::v1::PodDisruptionBudgetSpec,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::api::ObjectMeta;
use serde::Serialize;

use super::{
    key::Key,
    object::{Desired, Kind},
};

/// The spec of a kind that this operator makes.
pub trait Spec: Serialize {
    /// The kind.
    const KIND: Kind;
}

/// Says which kind each spec is of.
macro_rules! specs {
    ($($spec:ident => $kind:ident),* $(,)?) => {
        $(impl $crate::domain::typed::Spec for $spec {
            const KIND: $crate::domain::object::Kind = $crate::domain::object::Kind::$kind;
        })*
    };
}
pub(crate) use specs;

specs! {
    DeploymentSpec => Deployment,
    StatefulSetSpec => StatefulSet,
    JobSpec => Job,
    PersistentVolumeClaimSpec => PersistentVolumeClaim,
    ServiceSpec => Service,
    IngressSpec => Ingress,
    NetworkPolicySpec => NetworkPolicy,
    PodDisruptionBudgetSpec => PodDisruptionBudget,
}

/// An object that has a spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<S> {
    /// Its namespace and name.
    pub key: Key,
    /// Labels, annotations and owners; the key says its name.
    pub metadata: ObjectMeta,
    /// What it should be.
    pub spec: S,
}

/// An object with a spec, on its way to JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole<'a, S> {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: &'a S,
}

impl<S: Spec> From<Object<S>> for Desired {
    fn from(object: Object<S>) -> Self {
        with_spec(S::KIND, object.key, object.metadata, &object.spec)
    }
}

/// An object of a kind with that kind's spec.
pub(super) fn with_spec(kind: Kind, key: Key, metadata: ObjectMeta, spec: &impl Serialize) -> Desired {
    let resource = kind.resource();
    let metadata = key.named(metadata);
    let whole = Whole { api_version: resource.api_version, kind: resource.kind, metadata, spec };
    Desired::of(kind, key, &whole)
}

/// A ConfigMap.
pub fn config_map(key: Key, mut object: ConfigMap) -> Desired {
    object.metadata = key.named(object.metadata);
    Desired::of(Kind::ConfigMap, key, &object)
}

/// A Secret.
pub fn secret(key: Key, mut object: Secret) -> Desired {
    object.metadata = key.named(object.metadata);
    Desired::of(Kind::Secret, key, &object)
}

/// A Secret with keys whose values are added when it is written.
#[derive(Serialize)]
struct SecretCopy<'a> {
    #[serde(flatten)]
    secret: Secret,
    data: BTreeMap<&'a str, Option<String>>,
}

/// A Secret with these keys of another: their values are added when it is written.
pub fn secret_copy(key: Key, mut secret: Secret, keys: &[&str]) -> Desired {
    secret.metadata = key.named(secret.metadata);
    let copy = SecretCopy { secret, data: keys.iter().map(|it| (*it, None)).collect() };
    Desired::of(Kind::Secret, key, &copy)
}

/// Amounts of resources.
pub fn quantities<const N: usize>(amounts: [(&str, &str); N]) -> BTreeMap<String, Quantity> {
    amounts.map(|(resource, amount)| (resource.to_owned(), Quantity(amount.to_owned()))).into()
}

/// What a claim asks for.
pub fn storage(size: &str) -> VolumeResourceRequirements {
    VolumeResourceRequirements { requests: Some(quantities([("storage", size)])), limits: None }
}

/// One entry of labels or annotations.
pub fn entry(key: &str, value: impl Into<String>) -> BTreeMap<String, String> {
    [(key.to_owned(), value.into())].into()
}
