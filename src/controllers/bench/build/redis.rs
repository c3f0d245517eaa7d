//! Redis for the cache (bounded, evicts, forgets) and for the queues (persists, never evicts).

use frappe_crds::{
    FrappeBench,
    bench::{RedisConfig, RedisSize, StorageDeletionPolicy},
};
use k8s_openapi::{
    api::{
        apps::v1::{StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec},
        core::v1::{
            Container, EmptyDirVolumeSource, PersistentVolumeClaimSpec, PodSpec, PodTemplateSpec, ResourceRequirements,
            Secret,
        },
        networking::v1::{NetworkPolicyPeer, NetworkPolicySpec},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{ResourceExt, api::ObjectMeta};
use serde::Serialize;

use super::pod::{is_component, resources, restricted, without_privileges};
use crate::{
    controllers::bench::model::Input,
    domain::{
        foreign::{SecretParameter, TriggerAuthenticationSpec},
        key::Key,
        labels,
        names::child,
        network::{allow_from, matching, namespaces, pods_of, ports, service},
        object::Desired,
        pod::{self, Mounted, Pod, answers, item, port},
        quantity,
        typed::{self, Object, entry, specs, storage},
        uid,
    },
};

/// uid and gid of the user `redis` in the official images.
const REDIS_USER: i64 = 999;
/// Folder and file of the password in a server's pod.
const PASSWORD_FOLDER: &str = "/run/redis-password";
const PASSWORD_FILE: &str = "/run/redis-password/password";
/// Volume of the password in a server's pod.
pub const PASSWORD_VOLUME: &str = "password";
/// The bench's own servers.
pub const SERVERS: [&str; 2] = ["redis-cache", "redis-queue"];
/// The user of Redis that a generated password is of. Named with the password, it is also let in by a server that asks for
/// none yet.
pub(super) const USER: &str = "default";
/// Label that the API server gives each namespace: its name.
pub(super) const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Port of Redis.
pub(super) const PORT: i32 = 6379;
/// `maxmemory` where the bench names none, in bytes: 400 MiB below the default limit of 512 MiB.
const DEFAULT_MEMORY_BYTES: i128 = 400 << 20;
/// Volume size of the queue where the bench names none.
const DEFAULT_QUEUE_SIZE: &str = "1Gi";

/// StatefulSet and Service of both servers.
pub(super) fn both(input: &Input) -> Vec<Desired> {
    let config = input.bench.spec.redis_config.clone().unwrap_or_default();
    if config.connection_secret_ref.is_some() {
        return Vec::new();
    }
    let cache_memory =
        memory(config.cache.as_ref()).or_else(|| config.max_memory.as_ref().and_then(|it| quantity::bytes(&it.0)));
    let cache = server(input, &config, "redis-cache", cache_memory, None);
    let size = config.storage_size.as_ref().map_or(DEFAULT_QUEUE_SIZE, |size| size.0.as_str());
    let queue = server(input, &config, "redis-queue", memory(config.queue.as_ref()), Some(size));
    [cache, queue].concat()
}

/// What a Secret says of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum External {
    /// The password of the bench's own servers, which was generated.
    Generated,
    /// The password of the bench's own servers.
    Password,
    /// The URLs of servers that exist.
    Urls,
}

/// The Secret that the bench reads for Redis, in its own namespace: the one that it names, else the one that was made for it.
pub fn redis_secret(bench: &FrappeBench) -> Option<(External, String)> {
    let config = bench.spec.redis_config.clone().unwrap_or_default();
    let urls = config.connection_secret_ref.map(|it| (External::Urls, it.name));
    let password = config.password_secret_ref.map(|it| (External::Password, it.name));
    let generated = || is_protected(bench).then(|| (External::Generated, child(&bench.name_any(), "redis-password")));
    urls.or(password).or_else(generated)
}

/// Whether Redis of the bench is protected without a word of the bench's: it was made so, or has taken it.
pub fn is_protected(bench: &FrappeBench) -> bool {
    bench.status.as_ref().and_then(|status| status.redis_protected) == Some(true)
}

/// The Secret with a generated password, which is deleted with the bench. It carries the label by which its changes are seen.
pub fn password_secret(input: &Input, password: &str) -> Desired {
    let key = Key::new(input.namespace(), child(&input.name(), "redis-password"));
    let mut labels = labels::component(&input.name(), "redis");
    labels.insert(labels::WATCHED.to_owned(), "true".to_owned());
    let annotations = Some(entry(labels::IDENTITY, uid::of(input.bench)));
    let secret = Secret {
        metadata: ObjectMeta { annotations, ..input.metadata(labels) },
        string_data: Some(
            [("username", USER), ("password", password)].map(|(key, it)| (key.to_owned(), it.to_owned())).into(),
        ),
        ..Secret::default()
    };
    typed::secret(key, secret)
}

/// What may reach the bench's own servers: its pods, and KEDA where it is installed.
pub(super) fn policy(input: &Input) -> Option<Desired> {
    let config = input.bench.spec.redis_config.clone().unwrap_or_default();
    if !is_protected(input.bench) || config.connection_secret_ref.is_some() {
        return None;
    }
    let mut from = vec![pods_of(matching(labels::pods(&input.name())))];
    from.extend(input.capabilities.keda.then(|| keda(input)));
    let servers = LabelSelector {
        match_labels: Some(labels::pods(&input.name())),
        match_expressions: Some(vec![is_component(&SERVERS)]),
    };
    let spec = NetworkPolicySpec {
        pod_selector: Some(servers),
        policy_types: Some(vec!["Ingress".to_owned()]),
        ingress: Some(vec![allow_from(from, Some(ports("TCP", &[PORT])))]),
        egress: None,
    };
    Some(input.object("redis", "network-policy", spec).into())
}

/// KEDA, by the namespace that the platform names: a label of pods is anybody's.
pub(super) fn keda(input: &Input) -> NetworkPolicyPeer {
    namespaces(matching(entry(NAMESPACE_NAME, &input.config.keda_namespace)))
}

/// Address of the queue's Redis for KEDA, which is in another namespace; None if a Secret holds it.
pub(super) fn queue_address(input: &Input) -> Option<String> {
    let own = redis_secret(input.bench).is_none_or(|(external, _)| external != External::Urls);
    own.then(|| format!("{}.{}.svc:{PORT}", child(&input.name(), "redis-queue"), input.namespace()))
}

/// Name of the TriggerAuthentication by which KEDA reads the Secret.
pub(super) fn authentication_name(input: &Input) -> Option<String> {
    redis_secret(input.bench).map(|_| child(&input.name(), "redis-queue"))
}

/// The TriggerAuthentication.
pub(super) fn keda_authentication(input: &Input) -> Option<Desired> {
    let (external, name) = redis_secret(input.bench)?;
    let parameter = |parameter, key| SecretParameter { parameter, name: name.clone(), key };
    let secret_target_ref = match external {
        External::Password => vec![parameter("password", "password")],
        External::Generated => vec![parameter("username", "username"), parameter("password", "password")],
        External::Urls => vec![parameter("address", "queue-address"), parameter("password", "queue-password")],
    };
    let spec = TriggerAuthenticationSpec { secret_target_ref };
    Some(input.object("redis-queue", "redis-queue", spec).into())
}

/// The command that gives a server its password. It is read from a file and handed to Redis as its configuration, on standard
/// input: not as an argument, nor in the environment. Quoted as redis.conf wants it.
fn with_password() -> Vec<String> {
    let script = format!("exec \"$@\" - <<END\nrequirepass \"$(sed 's/[\\\\\"]/\\\\&/g' {PASSWORD_FILE})\"\nEND\n");
    ["sh", "-c", &script, "sh"].map(str::to_owned).into()
}

fn memory(size: Option<&RedisSize>) -> Option<i128> {
    size?.memory.as_ref().and_then(|memory| quantity::bytes(&memory.0))
}

/// The spec of a StatefulSet with claims as they are applied: the API's own type would add apiVersion and kind to each.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerSpec {
    #[serde(flatten)]
    spec: StatefulSetSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_claim_templates: Option<[ClaimTemplate; 1]>,
}

specs! { ServerSpec => StatefulSet }

/// A claim that a StatefulSet makes.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct ClaimTemplate {
    metadata: ObjectMeta,
    spec: PersistentVolumeClaimSpec,
}

/// One server. With a volume it persists and refuses writes when full; without, it evicts the least recently used.
fn server(
    input: &Input,
    config: &RedisConfig,
    name: &str,
    memory_bytes: Option<i128>,
    volume: Option<&str>,
) -> Vec<Desired> {
    let bench = input.name();
    let policy = input.bench.spec.storage_deletion_policy.unwrap_or_default();
    let deleted = if policy == StorageDeletionPolicy::Delete { "Delete" } else { "Retain" };
    let retention = StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some(deleted.to_owned()),
        when_scaled: Some("Retain".to_owned()),
    };
    let labels = labels::component(&bench, name);
    let metadata = if input.open_servers.contains(&name) {
        ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }
    } else {
        input.pod_metadata(labels)
    };
    let spec = StatefulSetSpec {
        replicas: Some(1),
        service_name: Some(child(&bench, name)),
        // In order, a pod that never became ready would never be replaced, not even by one of a repaired template.
        pod_management_policy: Some("Parallel".to_owned()),
        selector: matching(labels::selector(&bench, name)),
        persistent_volume_claim_retention_policy: volume.map(|_| retention),
        template: PodTemplateSpec {
            metadata: Some(metadata),
            spec: Some(server_pod(input, config, name, memory_bytes, volume.is_some())),
        },
        ..StatefulSetSpec::default()
    };
    let spec = ServerSpec { spec, volume_claim_templates: volume.map(|size| [data_claim(input, size)]) };
    let service = service(labels::selector(&bench, name), "redis", PORT);
    vec![input.object(name, name, service).into(), input.object(name, name, spec).into()]
}

fn server_pod(input: &Input, config: &RedisConfig, name: &str, memory_bytes: Option<i128>, persists: bool) -> PodSpec {
    let open = input.open_servers.contains(&name);
    let password = match redis_secret(input.bench).filter(|_| !open) {
        Some((External::Password | External::Generated, secret)) => {
            Some(Mounted::secret(PASSWORD_VOLUME, PASSWORD_FOLDER, secret, vec![item("password", "password")]))
        }
        _ => None,
    };
    // The volume of one that persists is made by its StatefulSet.
    let data = Mounted::empty("data", "/data", EmptyDirVolumeSource::default());
    let mounts = [&data].into_iter().chain(&password).map(|it| it.mount.clone()).collect();
    let image = config.image.as_deref().unwrap_or(&input.config.default_redis_image);
    let container = Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        command: password.as_ref().map(|_| with_password()),
        args: Some(arguments(memory_bytes, persists)),
        ports: Some(vec![port("redis", PORT)]),
        readiness_probe: Some(answers("redis", 5, None)),
        liveness_probe: Some(answers("redis", 10, Some(6))),
        resources: Some(server_resources(config, memory_bytes)),
        security_context: Some(without_privileges()),
        volume_mounts: Some(mounts),
        ..Container::default()
    };
    let spec = PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(restricted(REDIS_USER, input.capabilities.openshift)),
        ..PodSpec::default()
    };
    let own = Some(data).filter(|_| !persists).into_iter().chain(password);
    Pod::new(spec).with_volumes(own.map(|it| it.volume)).then(container).build()
}

fn arguments(memory_bytes: Option<i128>, persists: bool) -> Vec<String> {
    let max_memory = memory_bytes.unwrap_or(DEFAULT_MEMORY_BYTES).to_string();
    let more = if persists {
        ["--appendonly", "yes", "--maxmemory-policy", "noeviction"].as_slice()
    } else {
        ["--appendonly", "no", "--save", "", "--maxmemory-policy", "allkeys-lru"].as_slice()
    };
    let first = ["redis-server", "--dir", "/data", "--maxmemory", max_memory.as_str()];
    first.iter().chain(more).map(|it| (*it).to_owned()).collect()
}

/// The claim that the queue's StatefulSet makes, at the size that it should have: the template of a StatefulSet cannot be
/// changed.
pub(super) fn queue_claim(input: &Input) -> Option<Desired> {
    let config = input.bench.spec.redis_config.clone().unwrap_or_default();
    if config.connection_secret_ref.is_some() {
        return None;
    }
    let size = config.storage_size.as_ref().map_or(DEFAULT_QUEUE_SIZE, |size| size.0.as_str());
    let key = Key::new(input.namespace(), format!("data-{}-0", child(&input.name(), "redis-queue")));
    let spec = PersistentVolumeClaimSpec { resources: Some(storage(size)), ..PersistentVolumeClaimSpec::default() };
    Some(Object { key, metadata: queue_metadata(input), spec }.into())
}

fn data_claim(input: &Input, size: &str) -> ClaimTemplate {
    ClaimTemplate {
        metadata: ObjectMeta { name: Some("data".to_owned()), ..queue_metadata(input) },
        spec: PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(storage(size)),
            ..PersistentVolumeClaimSpec::default()
        },
    }
}

fn queue_metadata(input: &Input) -> ObjectMeta {
    ObjectMeta { labels: Some(labels::component(&input.name(), "redis-queue")), ..ObjectMeta::default() }
}

/// A memory setting also sets the limit, a quarter above it: Redis needs room beside its data.
fn server_resources(config: &RedisConfig, memory_bytes: Option<i128>) -> ResourceRequirements {
    match memory_bytes {
        Some(bytes) if config.resources.is_none() => {
            let limit = (bytes + bytes / 4).to_string();
            pod::resources(["100m", &bytes.to_string(), "1", &limit])
        }
        _ => resources(config.resources.as_ref(), ["100m", "128Mi", "1", "512Mi"]),
    }
}
