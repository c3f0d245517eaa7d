//! Everything a plan needs to know of the world, read once, from caches.
#![allow(clippy::disallowed_methods, reason = "the time is observed here, for the plan")]

use std::{collections::BTreeMap, sync::Arc};

use frappe_crds::{FrappeBench, FrappeSite};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::ListParams,
    core::{DynamicObject, PartialObjectMeta},
};

use crate::{
    config::OperatorConfig,
    controllers::{bench::build, context::Context, job},
    domain::{capabilities::Capabilities, condition, key::Key, names::child, object::Kind},
};

/// The world, as far as one bench is concerned.
pub struct Observed {
    /// The bench.
    pub bench: Arc<FrappeBench>,
    /// The operator's settings.
    pub config: Arc<OperatorConfig>,
    /// What the cluster offers.
    pub capabilities: Capabilities,
    /// Its objects, by kind and name.
    pub live: BTreeMap<(Kind, String), Arc<DynamicObject>>,
    /// Objects that it had at other settings.
    pub retired: Vec<(Kind, Arc<DynamicObject>)>,
    /// Names of the sites on it; read live while it is being deleted.
    pub sites: Vec<String>,
    /// What the configure Job's pod said when it failed.
    pub failure: Option<String>,
    /// The time.
    pub now: Timestamp,
}

/// Reads the world of one bench.
pub async fn observe(context: &Context, bench: Arc<FrappeBench>) -> Result<Observed, kube::Error> {
    let namespace = bench.namespace().unwrap_or_default();
    let (config, capabilities) = (context.config(), context.capabilities());
    let input = build::Input { bench: &bench, config: &config, capabilities };
    let rendered = build::render(&input);
    let live: BTreeMap<_, _> = rendered
        .all()
        .filter_map(|desired| {
            let object = context.bench_children.get(desired.kind, &desired.key)?;
            Some(((desired.kind, desired.key.name.clone()), object))
        })
        .collect();
    let retired = rendered
        .retired(&input)
        .into_iter()
        .filter_map(|(kind, key)| Some((kind, context.bench_children.get(kind, &key)?)))
        .collect();
    let deleting = bench.metadata.deletion_timestamp.is_some();
    let sites = if deleting { sites_on(context, &namespace, &bench.name_any()).await? } else { Vec::new() };
    let failure = failure(context, &bench, &live).await?;
    Ok(Observed { live, retired, sites, failure, capabilities, config, now: Timestamp::now(), bench })
}

impl Observed {
    /// What the builders need to know.
    pub fn input(&self) -> build::Input<'_> {
        build::Input { bench: &self.bench, config: &self.config, capabilities: self.capabilities }
    }
}

/// Sites on the bench, read afresh: other members know them, this one need not. The departure of one wakes the bench.
async fn sites_on(context: &Context, namespace: &str, bench: &str) -> Result<Vec<String>, kube::Error> {
    let api: Api<PartialObjectMeta<FrappeSite>> = Api::namespaced(context.client.clone(), namespace);
    let selector = format!("{}={bench}", crate::domain::labels::BENCH_OF_SITE);
    let list = api.list(&ListParams::default().labels(&selector)).await?;
    if !list.items.is_empty() {
        let version = list.metadata.resource_version.clone().unwrap_or_default();
        context.departures.expect(Key::new(namespace, bench), version);
    }
    let cached = |site: &FrappeSite| crate::controllers::site::watch::lane(site) == Key::new(namespace, bench);
    let mut names: Vec<String> = list.items.iter().map(ResourceExt::name_any).collect();
    names.extend(context.sites.all().iter().filter(|site| cached(site)).map(|site| site.name_any()));
    names.sort();
    names.dedup();
    Ok(names)
}

/// What the configure Job's pod said, where the status does not hold it yet.
async fn failure(
    context: &Context,
    bench: &FrappeBench,
    live: &BTreeMap<(Kind, String), Arc<DynamicObject>>,
) -> Result<Option<String>, kube::Error> {
    let name = child(&bench.name_any(), "configure");
    let failed = live.get(&(Kind::Job, name.clone())).is_some_and(|it| matches!(job::state(it), job::State::Failed(_)));
    let status = bench.status.clone().unwrap_or_default();
    let told = condition::find(&status.conditions, "Ready").is_some_and(|it| it.reason == "ConfigureFailed");
    if !failed || told {
        return Ok(None);
    }
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &bench.namespace().unwrap_or_default());
    let list = pods.list(&ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"))).await?;
    Ok(job::termination_message(&list.items))
}
