//! How each object of a bench looks. Pure and infallible: what can be wrong was found by `validate`.

mod budget;
mod configure;
mod pod;
mod redis;
mod storage;
mod web;
mod workers;

pub(in crate::controllers) use configure::runner_pod;
pub use configure::{configure_job, runner_config_map};
pub(in crate::controllers) use web::NGINX_PORT;
pub use workers::worker_replicas;

use frappe_crds::{FrappeBench, bench::ComponentReplicas};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{
    config::OperatorConfig,
    domain::{
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

    fn owner(&self) -> Value {
        json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "name": self.name(),
            "uid": self.bench.uid().unwrap_or_default(), "controller": true, "blockOwnerDeletion": true,
        })
    }
}

/// Everything that a bench has before its `common_site_config.json` is written.
pub fn foundation(input: &Input) -> Vec<Desired> {
    let mut objects = vec![storage::sites_claim(input), runner_config_map(input)];
    objects.extend(redis::both(input));
    objects.extend(web::services(input));
    objects
}

/// The components that need the configuration: they come after it.
pub fn components(input: &Input) -> Vec<Desired> {
    let mut objects = web::deployments(input);
    objects.extend(workers::deployments(input));
    objects.extend(budget::budgets(input, &objects));
    objects
}

/// Objects that a bench has at some settings and not at these: they go. `wanted` is what it has.
pub fn retired(wanted: &[Desired]) -> Vec<(Kind, Key)> {
    let deployments = wanted.iter().filter(|it| it.kind == Kind::Deployment);
    let has_budget = |key: &Key| wanted.iter().any(|it| it.kind == Kind::PodDisruptionBudget && it.key == *key);
    let without = deployments.map(|it| it.key.clone()).filter(|key| !has_budget(key));
    without.map(|key| (Kind::PodDisruptionBudget, key)).collect()
}
