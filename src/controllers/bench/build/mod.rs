//! How each object of a bench looks. Pure and infallible: what can be wrong was found by `validate`.

mod budget;
mod code;
mod configure;
mod monitor;
mod network;
mod pod;
mod redis;
mod scaling;
mod storage;
mod web;
mod workers;

pub(in crate::controllers) use configure::runner_pod;
pub use configure::{bench_id, configure_job, runner_config_map};
pub use redis::{External, PASSWORD_VOLUME, SERVERS, is_protected, password_secret, redis_secret};
pub use scaling::{Autoscaling, Scaling, queue_keys, worker_scaling};
pub(in crate::controllers) use web::{GUNICORN_WORKERS_AND_THREADS, NGINX_PORT};
pub use workers::is_autoscaled;

use std::collections::BTreeMap;

use frappe_crds::{
    FrappeBench,
    bench::{ComponentReplicas, StorageAccessMode},
};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{
    config::OperatorConfig,
    domain::{
        capabilities::Capabilities,
        image,
        key::Key,
        labels,
        names::child,
        object::{Desired, Kind},
    },
};

/// Path of the bench in every image.
pub const BENCH_PATH: &str = "/home/frappe/frappe-bench";

/// What the builders need to know of a bench.
pub struct Input<'a> {
    /// The bench.
    pub bench: &'a FrappeBench,
    /// The operator's settings.
    pub config: &'a OperatorConfig,
    /// What the cluster offers.
    pub capabilities: Capabilities,
    /// Version of the Secret that [`redis_secret`] names; nothing where there is none, or where it does not matter.
    pub redis_secret_version: Option<&'a str>,
    /// Servers of Redis that do not ask for the generated password yet, since not every component has it.
    pub open_servers: Vec<&'static str>,
}

impl Input<'_> {
    fn name(&self) -> String {
        self.bench.name_any()
    }

    fn namespace(&self) -> String {
        self.bench.namespace().unwrap_or_default()
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

    fn replicas(&self) -> ComponentReplicas {
        self.bench.spec.component_replicas.clone().unwrap_or_default()
    }

    /// An object of this bench: with its labels, owned by it.
    fn object(&self, kind: Kind, suffix: &str, component: &str, spec: &Value) -> Desired {
        let key = Key::new(self.namespace(), child(&self.name(), suffix));
        let metadata = json!({
            "labels": labels::component(&self.name(), component),
            "ownerReferences": [self.owner()],
        });
        Desired::untyped(kind, key, metadata, spec)
    }

    /// Metadata of pods that hold a connection to Redis: those of another version of its Secret are other pods.
    fn pod_metadata(&self, labels: &BTreeMap<String, String>) -> Value {
        let mut metadata = json!({"labels": labels});
        if let Some(version) = self.redis_secret_version {
            metadata["annotations"] = json!({labels::REDIS_SECRET: version});
        }
        metadata
    }

    fn owner(&self) -> Value {
        json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "name": self.name(),
            "uid": self.bench.uid().unwrap_or_default(), "controller": true, "blockOwnerDeletion": true,
        })
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

/// Renders a bench.
pub fn render(input: &Input) -> Rendered {
    let mut foundation = vec![storage::sites_claim(input), runner_config_map(input)];
    foundation.extend(redis::both(input));
    foundation.extend(web::services(input));
    foundation.extend(network::policy(input));
    foundation.extend(redis::policy(input));
    let mut components = web::deployments(input);
    components.extend(workers::deployments(input));
    components.extend(budget::budgets(input, &components));
    components.extend(scaling::objects(input));
    components.extend(monitor::service_monitor(input));
    Rendered {
        foundation,
        configure: configure_job(input),
        components,
        claims: redis::queue_claim(input).into_iter().collect(),
    }
}

impl Rendered {
    /// Every object.
    pub fn all(&self) -> impl Iterator<Item = &Desired> {
        self.foundation.iter().chain([&self.configure]).chain(&self.components).chain(&self.claims)
    }

    /// Names what the components run: the image and what the configure Job makes of it.
    pub fn revision(&self) -> &str {
        self.configure.body["metadata"]["annotations"][labels::APPLIED_HASH].as_str().unwrap_or_default()
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
