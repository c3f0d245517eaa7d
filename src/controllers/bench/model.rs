//! What a bench is about, as data: what is known of the world, what it is made of, where it stands, what is to be written.

use std::{collections::BTreeMap, sync::Arc};

use frappe_crds::{
    FrappeBench, FrappeBenchStatus,
    bench::{BenchPhase, ComponentReplicas, StorageAccessMode},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt, api::ObjectMeta, core::DynamicObject};

use super::reason::Reason;
use crate::{
    config::OperatorConfig,
    controllers::{
        job,
        model::{self, Reconciled},
    },
    domain::{
        capabilities::Capabilities,
        image,
        key::Key,
        labels,
        names::child,
        object::{Desired, Kind},
        typed::{Object, entry},
        uid,
    },
};

/// Path of the bench in every image.
pub const BENCH_PATH: &str = "/home/frappe/frappe-bench";

/// Volumes of the folders of the image in which a component writes, beside those that are volumes anyway, where it may write
/// nowhere else: locks of Frappe's scheduler, and what nginx is configured with and keeps of large requests.
pub const WRITTEN: [&str; 4] = ["config", "nginx-configuration", "nginx-state", "run"];

/// What the builders need to know of a bench.
pub struct Input<'a> {
    /// The bench.
    pub bench: &'a FrappeBench,
    /// The operator's settings.
    pub config: &'a OperatorConfig,
    /// What the cluster offers.
    pub capabilities: Capabilities,
    /// Version of the Secret that `build::redis_secret` names; None if there is none, or where it does not matter.
    pub redis_secret_version: Option<&'a str>,
    /// Servers of Redis that do not ask for the generated password yet, since not every component has it.
    pub open_servers: Vec<&'static str>,
}

impl Input<'_> {
    /// Name of the bench.
    pub fn name(&self) -> String {
        self.bench.name_any()
    }

    /// Namespace of the bench.
    pub fn namespace(&self) -> String {
        Key::of(self.bench).namespace
    }

    /// Image of every component.
    pub fn image(&self) -> String {
        image::bench(&self.bench.spec, self.config.default_frappe_image.as_deref())
    }

    /// Whether every pod that mounts the volume must run on one node.
    pub fn single_node(&self) -> bool {
        let found = self.bench.status.as_ref().and_then(|status| status.adopted_volume);
        found.or(self.bench.spec.storage_access_mode) == Some(StorageAccessMode::ReadWriteOnce)
    }

    /// How many pods each component has, as the spec has it.
    pub fn replicas(&self) -> ComponentReplicas {
        self.bench.spec.component_replicas.clone().unwrap_or_default()
    }

    /// An object of this bench: with its labels, owned by it.
    pub fn object<S>(&self, suffix: &str, component: &str, spec: S) -> Object<S> {
        let key = Key::new(self.namespace(), child(&self.name(), suffix));
        Object { key, metadata: self.metadata(labels::component(&self.name(), component)), spec }
    }

    /// Metadata of an object of this bench that is deleted with it.
    pub fn metadata(&self, labels: BTreeMap<String, String>) -> ObjectMeta {
        ObjectMeta { labels: Some(labels), owner_references: Some(vec![self.owner()]), ..ObjectMeta::default() }
    }

    /// Metadata of pods that hold a connection to Redis: those of another version of its Secret are other pods.
    pub fn pod_metadata(&self, labels: BTreeMap<String, String>) -> ObjectMeta {
        let annotations = self.redis_secret_version.map(|version| entry(labels::REDIS_SECRET, version));
        ObjectMeta { labels: Some(labels), annotations, ..ObjectMeta::default() }
    }

    /// The bench as the owner of an object.
    fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: FrappeBench::api_version(&()).into_owned(),
            kind: FrappeBench::kind(&()).into_owned(),
            name: self.name(),
            uid: uid::of(self.bench).to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}

/// Everything that a bench is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// What it has before its `common_site_config.json` is written.
    pub foundation: Vec<Desired>,
    /// The Job that writes it.
    pub configure: Desired,
    /// The components that need the configuration: they come after it, in this order.
    pub components: Vec<Desired>,
    /// Claims that a StatefulSet makes: once they exist, they are brought to this size.
    pub claims: Vec<Desired>,
}

impl Rendered {
    /// Every object.
    pub fn all(&self) -> impl Iterator<Item = &Desired> {
        self.foundation.iter().chain([&self.configure]).chain(&self.components).chain(&self.claims)
    }

    /// Names what the components run: the image and what the configure Job makes of it.
    pub fn revision(&self) -> &str {
        self.configure.annotation(labels::APPLIED_HASH).unwrap_or_default()
    }

    /// Objects that a bench has at some settings and not at these: they go.
    pub fn retired(&self, input: &Input) -> Vec<(Kind, Key)> {
        let named = |suffix: &str| Key::new(input.namespace(), child(&input.name(), suffix));
        let of_deployments = self
            .components
            .iter()
            .filter(|it| it.kind == Kind::Deployment)
            .flat_map(|it| [Kind::ScaledObject, Kind::PodDisruptionBudget].map(|kind| (kind, it.key.clone())));
        let single = [
            (Kind::NetworkPolicy, named("pods")),
            (Kind::NetworkPolicy, named("redis")),
            (Kind::ServiceMonitor, named("gunicorn")),
            (Kind::TriggerAuthentication, named("redis-queue")),
            (Kind::StatefulSet, named("redis-cache")),
            (Kind::StatefulSet, named("redis-queue")),
            (Kind::Service, named("redis-cache")),
            (Kind::Service, named("redis-queue")),
        ];
        let wanted = |kind: Kind, key: &Key| self.all().any(|it| it.kind == kind && it.key == *key);
        of_deployments.chain(single).filter(|(kind, key)| !wanted(*kind, key)).collect()
    }
}

/// The world, as far as one bench is concerned.
pub struct Observed {
    /// The bench.
    pub bench: Arc<FrappeBench>,
    /// The operator's settings.
    pub config: Arc<OperatorConfig>,
    /// What the cluster offers.
    pub capabilities: Capabilities,
    /// The Secret that it names for Redis: metadata.
    pub redis_secret: Option<Arc<DynamicObject>>,
    /// Hash of the Secret's version.
    pub redis_secret_version: Option<String>,
    /// A new password for Redis.
    pub fresh_password: String,
    /// Its objects, by kind and name.
    pub live: BTreeMap<(Kind, String), Arc<DynamicObject>>,
    /// Objects that it had at other settings.
    pub retired: Vec<(Kind, Arc<DynamicObject>)>,
    /// Names of the sites on it; read live while it is being deleted.
    pub sites: Vec<String>,
    /// What the configure Job's pod said when it failed.
    pub failure: Option<job::Failure>,
    /// Apps that it found in the image, where the status does not hold them yet.
    pub apps_found: Option<Vec<String>>,
    /// What keeps pods from running.
    pub troubles: Vec<Trouble>,
    /// Storage classes of claims that are not bound or not as large as they should be, by the claims' names.
    pub classes: BTreeMap<String, Class>,
    /// Suffix of hosts that the ingress controller's Service names.
    pub detected_suffix: Detected,
    /// The time.
    pub now: Timestamp,
}

/// A storage class, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// There is none of this name; without a name, none is the cluster's default.
    Missing(Option<String>),
    /// It exists, and lets volumes grow or not.
    Found {
        /// Whether it does.
        grows: bool,
    },
}

/// Suffix of hosts that an ingress controller's Service names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detected {
    /// The Service is not known yet.
    NotYet,
    /// The suffix; None if it names none, or none is asked for.
    Suffix(Option<String>),
}

impl Reconciled for FrappeBench {
    type Detail = ();
    type Phase = BenchPhase;
    type Reason = Reason;
    type Recorded = FrappeBenchStatus;

    const KIND: Kind = Kind::Bench;
}

/// One write for a bench.
pub type Step = model::Step<FrappeBench>;
/// What to do for a bench.
pub type Plan = model::Plan<FrappeBench>;
/// Where a bench stands.
pub type Report = model::Report<FrappeBench>;

/// What keeps one pod from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The pod.
    pub pod: Key,
    /// The bench's component that it is of.
    pub component: String,
    /// What it is.
    pub reason: Reason,
    /// What the kubelet or the scheduler says, of the container or the pod.
    pub message: String,
}
