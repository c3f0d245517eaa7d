//! Data of a bench: observed state, rendered objects, report, plan.

use std::{collections::BTreeMap, sync::Arc};

use frappe_crds::{
    FrappeBench, FrappeBenchStatus,
    bench::{BenchPhase, ComponentReplicas, Revision, StorageAccessMode},
    common::ReadSecret,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt, api::ObjectMeta, core::DynamicObject};

pub use super::placed::FIRST_REVISION;
use super::{
    placed::{PlacedSite, revisions},
    reason::Reason,
};
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

/// Path of the bench in the image.
pub const BENCH_PATH: &str = "/home/frappe/frappe-bench";

/// Volumes for folders of the image to which a component writes if its root file system is read-only: locks of Frappe's scheduler, nginx's
/// configuration and large requests, and a folder that is empty, but without which `bench` has no commands.
pub const WRITTEN: [&str; 5] = ["config", "nginx-configuration", "nginx-state", "run", "pids"];

/// Input of the builders of a bench's objects.
pub struct Input<'a> {
    /// The bench.
    pub bench: &'a FrappeBench,
    /// The operator's settings.
    pub config: &'a OperatorConfig,
    /// Optional APIs of the cluster.
    pub capabilities: Capabilities,
    /// Version of the Secret in `build::redis_secret`; None if there is none, or if it is not needed.
    pub redis_secret_version: Option<&'a str>,
    /// Digest of the image, if it is known.
    pub digest: Option<&'a str>,
    /// Redis servers that do not require the generated password yet, because not every component has it.
    pub open_servers: Vec<&'static str>,
    /// The revision whose pods are rendered.
    pub pods: Pods<'a>,
}

impl<'a> Input<'a> {
    /// Input for the newest pods of a bench, without what is read from other objects.
    pub fn of(bench: &'a FrappeBench, config: &'a OperatorConfig, capabilities: Capabilities) -> Self {
        Self {
            bench,
            config,
            capabilities,
            redis_secret_version: None,
            digest: None,
            open_servers: Vec::new(),
            pods: Pods::newest(bench),
        }
    }

    /// The same for pods of an earlier revision.
    #[must_use]
    pub fn of_older(&self, revision: &'a Revision) -> Self {
        Self { open_servers: self.open_servers.clone(), pods: Pods::Older(revision), ..*self }
    }

    /// The same, with the recorded digest, if it is of this image and no user has requested another look at the registry since.
    #[must_use]
    pub fn with_recorded_digest(self) -> Self {
        let bench: &'a FrappeBench = self.bench;
        let status = bench.status.as_ref().filter(|status| {
            let same = status.image.as_deref() == Some(&self.image());
            same && status.last_handled_redeploy.as_ref() == redeploy(bench)
        });
        Self { digest: status.and_then(|status| status.image_digest.as_deref()), ..self }
    }
}

/// Value of the annotation by which a user requests the present image of the tag.
pub fn redeploy(bench: &FrappeBench) -> Option<&String> {
    bench.annotations().get(labels::REDEPLOY)
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
        match self.pods {
            Pods::Older(revision) => revision.image.clone(),
            Pods::Only | Pods::Newest(_) => image::bench(&self.bench.spec, self.config.default_frappe_image.as_deref()),
        }
    }

    /// The image, pinned to its digest if that is known: pods that start later run the same code.
    pub fn pinned_image(&self) -> String {
        let image = self.image();
        let digest = match self.pods {
            Pods::Older(revision) => revision.image_digest.as_deref(),
            Pods::Only | Pods::Newest(_) => self.digest,
        };
        digest.map_or_else(|| image.clone(), |digest| image::pinned(&image, digest))
    }

    /// Whether every pod that mounts the volume must run on one node.
    pub fn single_node(&self) -> bool {
        let found = self.bench.status.as_ref().and_then(|status| status.adopted_volume);
        found.or(self.bench.spec.storage_access_mode) == Some(StorageAccessMode::ReadWriteOnce)
    }

    /// Replicas of each component in the spec.
    pub fn replicas(&self) -> ComponentReplicas {
        self.bench.spec.component_replicas.clone().unwrap_or_default()
    }

    /// Name of a component: of an earlier revision with its number, because the selectors of the newest one's objects must not match.
    pub fn component(&self, name: &str) -> String {
        match self.pods {
            Pods::Older(revision) => format!("{name}-r{}", revision.number),
            Pods::Only | Pods::Newest(_) => name.to_owned(),
        }
    }

    /// Name of an object of a component.
    pub fn child_of(&self, component: &str) -> String {
        child(&self.name(), &self.component(component))
    }

    /// An object with the bench's labels and an owner reference to the bench.
    pub fn object<S>(&self, suffix: &str, component: &str, spec: S) -> Object<S> {
        let key = Key::new(self.namespace(), child(&self.name(), suffix));
        Object { key, metadata: self.metadata(labels::component(&self.name(), component)), spec }
    }

    /// Metadata with the bench's labels and an owner reference.
    pub fn metadata(&self, labels: BTreeMap<String, String>) -> ObjectMeta {
        ObjectMeta { labels: Some(labels), owner_references: Some(vec![self.owner()]), ..ObjectMeta::default() }
    }

    /// Metadata of pods with a connection to Redis: a new version of its Secret changes the pods.
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

/// The pods that are rendered, of a bench that may have several revisions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pods<'a> {
    /// Of a bench that has had only one revision.
    Only,
    /// Of the newest revision.
    Newest(&'a Revision),
    /// Of an earlier revision, beside the newest.
    Older(&'a Revision),
}

impl<'a> Pods<'a> {
    /// Of the newest revision of a bench.
    pub fn newest(bench: &'a FrappeBench) -> Self {
        revisions(bench).last().map_or(Pods::Only, Pods::Newest)
    }

    /// Of the revision with this number, if it has pods.
    pub fn of(bench: &'a FrappeBench, number: i32) -> Option<Self> {
        let revisions = revisions(bench);
        if revisions.is_empty() {
            return Some(Pods::Only).filter(|_| number == FIRST_REVISION);
        }
        let found = revisions.iter().find(|it| it.number == number && !it.retired)?;
        let is_newest = revisions.last().is_some_and(|it| it.number == number);
        Some(if is_newest { Pods::Newest(found) } else { Pods::Older(found) })
    }

    /// The recorded revision; None for a bench that has had only one.
    pub fn revision(self) -> Option<&'a Revision> {
        match self {
            Pods::Only => None,
            Pods::Newest(revision) | Pods::Older(revision) => Some(revision),
        }
    }

    /// Number of the revision.
    pub fn number(self) -> i32 {
        self.revision().map_or(FIRST_REVISION, |it| it.number)
    }

    /// Folder of the volume with the sites; None for its root.
    pub fn folder(self) -> Option<String> {
        (self.number() > FIRST_REVISION).then(|| format!("{REVISIONS_FOLDER}/{}", self.number()))
    }
}

/// Folder of the volume with the folders of other revisions.
pub const REVISIONS_FOLDER: &str = ".revisions";

/// All objects of a bench.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// Objects applied before the configure Job.
    pub foundation: Vec<Desired>,
    /// The configure Job, which writes `common_site_config.json`.
    pub configure: Desired,
    /// The hold Job, which runs before the workers of another image start.
    pub hold: Desired,
    /// Components, applied in this order after the configure Job has succeeded.
    pub components: Vec<Desired>,
    /// Claims created by a StatefulSet: once they exist, they are resized.
    pub claims: Vec<Desired>,
    /// Objects of earlier revisions that have sites.
    pub older: Vec<Desired>,
    /// Objects of earlier revisions without sites: they are deleted.
    pub outlived: Vec<(Kind, Key)>,
}

impl Rendered {
    /// Every object.
    pub fn all(&self) -> impl Iterator<Item = &Desired> {
        let own =
            self.foundation.iter().chain([&self.configure, &self.hold]).chain(&self.components).chain(&self.claims);
        own.chain(&self.older)
    }

    /// Revision of image and configuration that the components run.
    pub fn revision(&self) -> &str {
        self.configure.annotation(labels::APPLIED_HASH).unwrap_or_default()
    }

    /// Objects that other settings need and these do not: they are deleted.
    pub fn retired(&self, input: &Input) -> Vec<(Kind, Key)> {
        let named = |suffix: &str| Key::new(input.namespace(), child(&input.name(), suffix));
        let of_deployments = self
            .components
            .iter()
            .chain(&self.older)
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
        let outlived = self.outlived.iter().cloned();
        of_deployments.chain(single).chain(outlived).filter(|(kind, key)| !wanted(*kind, key)).collect()
    }
}

/// Observed state of a bench and everything that it depends on.
pub struct Observed {
    /// The bench.
    pub bench: Arc<FrappeBench>,
    /// The operator's settings.
    pub config: Arc<OperatorConfig>,
    /// Optional APIs of the cluster.
    pub capabilities: Capabilities,
    /// Metadata of the Secret for Redis.
    pub redis_secret: Option<Arc<DynamicObject>>,
    /// Hash of the Secret's version that counts.
    pub redis_secret_version: Option<String>,
    /// The Secrets that were read, for the status.
    pub read_secrets: Vec<ReadSecret>,
    /// A new password for Redis.
    pub fresh_password: String,
    /// Its objects, by kind and name.
    pub live: BTreeMap<(Kind, String), Arc<DynamicObject>>,
    /// Existing objects that only other settings need.
    pub retired: Vec<(Kind, Arc<DynamicObject>)>,
    /// Its sites, if it has several revisions; None while they are not known.
    pub placed: Option<Arc<Vec<PlacedSite>>>,
    /// Names of its sites; read live during its deletion.
    pub sites: Vec<String>,
    /// Failure reported by the configure Job.
    pub failure: Option<job::Failure>,
    /// What that Job found in the image, if it is not in the status yet.
    pub inspection: Option<job::Inspection>,
    /// Why pods do not run.
    pub pod_problems: Vec<PodProblem>,
    /// StorageClasses of claims that are not bound or have to be expanded, by the claims' names.
    pub classes: BTreeMap<String, Class>,
    /// Host suffix from the ingress controller's Service.
    pub detected_suffix: Detected,
    /// The time.
    pub now: Timestamp,
}

/// State of a StorageClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// It does not exist; without a name: there is no default.
    Missing(Option<String>),
    /// It exists.
    Found {
        /// Whether it allows volume expansion.
        grows: bool,
    },
}

/// Host suffix from an ingress controller's Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detected {
    /// The Service is not known yet.
    NotYet,
    /// The suffix; None if the Service has none, or if it is not needed.
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
/// Plan of a bench.
pub type Plan = model::Plan<FrappeBench>;
/// Phase, reason and message of a bench.
pub type Report = model::Report<FrappeBench>;

/// Why a pod does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodProblem {
    /// The pod.
    pub pod: Key,
    /// Component of the bench.
    pub component: String,
    /// The reason.
    pub reason: Reason,
    /// Message of the kubelet or the scheduler.
    pub message: String,
}
