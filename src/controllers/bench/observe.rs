//! Reads the observed state of a bench, once, from caches.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use frappe_crds::{FrappeBench, FrappeSite, common::ReadSecret};
use k8s_openapi::api::{core::v1::PersistentVolumeClaimSpec, storage::v1::StorageClass};
use kube::{Api, ResourceExt, api::ListParams, core::DynamicObject};
use kube_sharding::{gate::Scope, named::Known};

use super::{
    model::{Class, Detected, Input, Observed, PodProblem, Rendered},
    placed::PlacedSite,
    revisions::counts_sites,
    seen::{End, configure_job, is_pending, size_bytes, unread_end},
};
use crate::{
    config::OperatorConfig,
    controllers::{bench::build, context::Context, job},
    domain::{content, key::Key, labels, live::spec, names::hash_hex, object::Kind, owner::Owner, uid},
    io::{live, random},
};

/// Reads the observed state of a bench.
pub async fn observe(context: &Context, bench: Arc<FrappeBench>) -> Result<Observed, kube::Error> {
    let key = Key::of(bench.as_ref());
    context.bench_children.read_strangers(&context.client, &key.to_string()).await?;
    let namespace = key.namespace;
    let (config, capabilities) = (context.config(), context.capabilities());
    let redis_secret = redis_secret(context, &bench).await?;
    let read_secret = read_secret(context, &bench, redis_secret.as_deref()).await?;
    let redis_secret_version = read_secret.as_ref().map(|it| it.version.clone());
    let own = Input::of(&bench, &config, capabilities);
    let input = Input { redis_secret_version: redis_secret_version.as_deref(), ..own };
    let rendered = build::render(&input);
    let live: BTreeMap<_, _> = rendered
        .all()
        .filter_map(|desired| {
            let object = context.bench_children.get(desired.kind, &desired.key)?;
            Owner::of(desired).has(&object).then(|| ((desired.kind, desired.key.name.clone()), object))
        })
        .collect();
    let retired = rendered
        .retired(&input)
        .into_iter()
        .filter_map(|(kind, key)| Some((kind, context.bench_children.get(kind, &key)?)))
        .collect();
    let deleting = bench.metadata.deletion_timestamp.is_some();
    let sites = if deleting { sites_on(context, &namespace, &bench.name_any()).await? } else { Vec::new() };
    let placed = placed(context, &bench);
    let configured = finished(context, &bench, rendered.revision(), &live).await?;
    let classes = classes(context, &rendered, &live).await?;
    // Pods that were deleted while another replica watched them are only recorded in the status.
    let exists = |it: &PodProblem| context.bench_children.get(Kind::Pod, &it.pod).is_some();
    let mut pod_problems = context.pod_problems.of(&Key::of(bench.as_ref()));
    pod_problems.retain(exists);
    Ok(Observed {
        detected_suffix: detected_suffix(context, &bench, &config),
        redis_secret,
        redis_secret_version,
        read_secrets: read_secret.into_iter().collect(),
        fresh_password: random::password(),
        live,
        retired,
        sites,
        placed,
        failure: configured.failure,
        inspection: configured.inspection,
        pod_problems,
        classes,
        capabilities,
        config,
        now: context.now(),
        bench,
    })
}

/// The sites of a bench with several revisions; they are watched meanwhile.
fn placed(context: &Context, bench: &FrappeBench) -> Option<Arc<Vec<PlacedSite>>> {
    let key = Key::of(bench);
    if counts_sites(bench) {
        return context.tallies.sites(&key);
    }
    context.tallies.forget(&key);
    None
}

/// The suffix in the external-dns annotation of the ingress controller's Service. The load balancer's host name is not used: it
/// belongs to the cloud provider, and users cannot create names below it.
fn detected_suffix(context: &Context, bench: &FrappeBench, config: &OperatorConfig) -> Detected {
    let domain = bench.spec.domain_config.clone().unwrap_or_default();
    let by_operator = || {
        let namespace = config.ingress_controller_namespace.clone();
        Some(Key::new(namespace?, config.ingress_controller_service.clone()?))
    };
    let own = Key::of(bench).namespace;
    let named = domain.ingress_controller_ref.map(|it| Key::new(it.namespace.unwrap_or(own), it.name));
    let needed =
        domain.auto_detect.unwrap_or(true) && domain.suffix.is_none() && config.default_domain_suffix.is_none();
    let Some(key) = named.or_else(by_operator).filter(|_| needed) else { return Detected::Suffix(None) };
    match context.ingress_services.get(&key) {
        Known::NotYet => Detected::NotYet,
        Known::Absent => Detected::Suffix(None),
        Known::There(service) => {
            Detected::Suffix(service.annotations().get(labels::EXTERNAL_DNS).and_then(|hosts| suffix_of(hosts)))
        }
    }
}

/// Both `*.apps.example.com` and `apps.example.com` are the suffix `apps.example.com`.
fn suffix_of(hosts: &str) -> Option<String> {
    let first = hosts.split(',').next()?.trim().trim_start_matches("*.");
    let name = |host: &str| host.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || ".-".contains(it));
    (!first.is_empty() && name(first)).then(|| format!(".{first}"))
}

/// Metadata of the bench's Secret for Redis: from the watch once the Secret has this operator's label, read live before.
async fn redis_secret(context: &Context, bench: &FrappeBench) -> Result<Option<Arc<DynamicObject>>, kube::Error> {
    let Some((_, name)) = build::redis_secret(bench) else { return Ok(None) };
    let key = Key::new(Key::of(bench).namespace, name);
    if let Some(cached) = context.user_secrets.get(&key) {
        return Ok(Some(cached));
    }
    live::secret_metadata(&context.client, &key).await
}

/// The record of that Secret, with the version that counts. This operator's label is set before the version is used.
async fn read_secret(
    context: &Context,
    bench: &FrappeBench,
    secret: Option<&DynamicObject>,
) -> Result<Option<ReadSecret>, kube::Error> {
    let Some((secret, (external, name))) = secret.zip(build::redis_secret(bench)) else { return Ok(None) };
    let records = bench.status.as_ref().map(|status| status.read_secrets.as_slice()).unwrap_or_default();
    let record = records.iter().find(|it| it.name == name);
    let keys: BTreeSet<String> = build::keys_read(external).iter().map(|key| (*key).to_owned()).collect();
    let present = version(secret);
    if content::answers(record, &present, &keys) {
        return Ok(record.cloned());
    }
    let watched = secret.labels().contains_key(labels::WATCHED);
    let found = if watched { context.contents.of(Scope::Coordinator, secret).await? } else { None };
    let read = found.as_deref().map_or(present, |it| version(&it.object));
    Ok(Some(content::counted(record, (&name, &read), &keys, found.as_deref().map(|it| &it.hashes))))
}

/// Changes with each version of a Secret.
fn version(secret: &DynamicObject) -> String {
    let version = secret.metadata.resource_version.clone().unwrap_or_default();
    hash_hex(&format!("{}{version}", uid::of(secret)), 16)
}

/// Sites on the bench, read live, because other members may own them. The deletion of a site triggers a reconcile of the bench. A site
/// without objects, because the bench does not allow it or is not ready, does not block the deletion of the bench.
async fn sites_on(context: &Context, namespace: &str, bench: &str) -> Result<Vec<String>, kube::Error> {
    let key = Key::new(namespace, bench);
    let here = |site: &FrappeSite| {
        let has_objects = site.status.as_ref().is_some_and(|it| it.identity.is_some() || it.database.is_some());
        has_objects && crate::controllers::site::watch::lane(site) == key
    };
    let selector = format!("{}={bench}", labels::BENCH_OF_SITE);
    let (mut items, version) = live::sites(&context.client, &context.namespaces, &selector).await?;
    items.retain(here);
    if !items.is_empty() {
        context.departures.expect(key.clone(), version);
    }
    let mut names: Vec<String> = items.iter().map(ResourceExt::name_any).collect();
    names.extend(context.sites.all().iter().filter(|site| here(site)).map(|site| site.name_any()));
    names.sort();
    names.dedup();
    Ok(names)
}

/// Result of the configure Job's pod.
#[derive(Default)]
struct Finished {
    failure: Option<job::Failure>,
    inspection: Option<job::Inspection>,
}

/// Result of the configure Job's pod, if the status does not contain it yet.
async fn finished(
    context: &Context,
    bench: &FrappeBench,
    revision: &str,
    live: &BTreeMap<(Kind, String), Arc<DynamicObject>>,
) -> Result<Finished, kube::Error> {
    let job = configure_job(live, &bench.name_any(), revision);
    let status = bench.status.clone().unwrap_or_default();
    let end = unread_end(job, &status, revision);
    let Some((job, end)) = job.zip(end) else { return Ok(Finished::default()) };
    let key = Key::new(Key::of(bench).namespace, job.name_any());
    let pods = live::pods_of(&context.client, &key).await?;
    Ok(match end {
        // A pod without a result is not read again.
        End::Failure => Finished {
            failure: Some(job::failure(job, &pods).unwrap_or_else(job::Failure::unknown)),
            ..Finished::default()
        },
        End::Apps => Finished { inspection: job::inspection(&pods), ..Finished::default() },
    })
}

/// StorageClasses of claims that are not bound or are being expanded.
async fn classes(
    context: &Context,
    rendered: &Rendered,
    live: &BTreeMap<(Kind, String), Arc<DynamicObject>>,
) -> Result<BTreeMap<String, Class>, kube::Error> {
    let mut found = BTreeMap::new();
    let claims = rendered.all().filter(|it| it.kind == Kind::PersistentVolumeClaim);
    for desired in claims {
        let Some(claim) = live.get(&(desired.kind, desired.key.name.clone())) else { continue };
        let there: PersistentVolumeClaimSpec = spec(claim);
        let grows = desired.spec().is_some_and(|wanted| size_bytes(&wanted) > size_bytes(&there));
        if is_pending(claim) || grows {
            let class = class(context, there.storage_class_name.as_deref()).await?;
            found.insert(desired.key.name.clone(), class);
        }
    }
    Ok(found)
}

async fn class(context: &Context, name: Option<&str>) -> Result<Class, kube::Error> {
    let classes: Api<StorageClass> = Api::all(context.client.clone());
    let found = match name {
        Some(name) => classes.get_opt(name).await?,
        None => classes.list(&ListParams::default()).await?.items.into_iter().find(|class| {
            class.annotations().get("storageclass.kubernetes.io/is-default-class").is_some_and(|it| it == "true")
        }),
    };
    Ok(match found {
        Some(class) => Class::Found { grows: class.allow_volume_expansion.unwrap_or(false) },
        None => Class::Missing(name.map(ToOwned::to_owned)),
    })
}
