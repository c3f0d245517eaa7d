//! Redis for the cache (bounded, evicts, not persistent) and for the queues (persistent, never evicts).

use frappe_crds::{
    FrappeBench,
    bench::{QueueConnection, RedisConfig, RedisSize, StorageDeletionPolicy},
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

use super::{
    pod::{is_component, pull_secrets, resources, restricted},
    template,
};
use crate::{
    controllers::bench::model::Input,
    domain::{
        foreign::{SecretParameter, TriggerAuthenticationSpec},
        key::Key,
        labels,
        names::child,
        network::{allow_from, matching, namespaces, pods_of, ports, service},
        object::Desired,
        pod::{self, Mounted, Pod, answers, item, merged, port, without_privileges},
        quantity,
        typed::{self, Object, entry, specs, storage},
        uid,
    },
};

/// uid and gid of the user `redis` in the official images.
const REDIS_USER: i64 = 999;
/// Folder and file name of the password in a server's pod.
const PASSWORD_FOLDER: &str = "/run/redis-password";
const PASSWORD_FILE: &str = "/run/redis-password/password";
/// Volume with the password in a server's pod.
pub const PASSWORD_VOLUME: &str = "password";
/// The bench's servers.
pub const SERVERS: [&str; 2] = ["redis-cache", "redis-queue"];
/// The Redis user of a generated password. A server that requires no password yet also accepts this user with a password.
pub(super) const USER: &str = "default";
/// Label with its name that the API server sets on each namespace.
pub(super) const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Port of Redis.
pub(super) const PORT: i32 = 6379;
/// Default `maxmemory` in bytes: 400 MiB, below the default limit of 512 MiB.
const DEFAULT_MEMORY_BYTES: i128 = 400 << 20;
/// Default volume size of the queue.
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

/// Contents of a Secret for Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum External {
    /// The generated password of the bench's servers.
    Generated,
    /// The user's password of the bench's servers.
    Password,
    /// The URLs of external servers.
    Urls,
}

/// The bench's Secret for Redis, in its namespace: the referenced one, else the generated one.
pub fn redis_secret(bench: &FrappeBench) -> Option<(External, String)> {
    let config = bench.spec.redis_config.clone().unwrap_or_default();
    let urls = config.connection_secret_ref.map(|it| (External::Urls, it.name));
    let password = config.password_secret_ref.map(|it| (External::Password, it.name));
    let generated = || is_protected(bench).then(|| (External::Generated, child(&bench.name_any(), "redis-password")));
    urls.or(password).or_else(generated)
}

/// Keys of the Secret for Redis that pods of the bench read.
pub fn keys_read(external: External) -> &'static [&'static str] {
    match external {
        External::Generated | External::Password => &["password"],
        External::Urls => &["redis-cache", "redis-queue"],
    }
}

/// Whether the bench's Redis is protected by default: since its creation, or since its spec requested it.
pub fn is_protected(bench: &FrappeBench) -> bool {
    bench.status.as_ref().and_then(|status| status.redis_protected) == Some(true)
}

/// The Secret with a generated password, which is deleted with the bench. It has the label by which it is watched.
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

/// The NetworkPolicy of the bench's servers: it admits the bench's pods, and KEDA if installed.
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

/// KEDA, by the namespace in the operator's settings: any user could set a label of pods.
pub(super) fn keda(input: &Input) -> NetworkPolicyPeer {
    namespaces(matching(entry(NAMESPACE_NAME, &input.config.keda_namespace)))
}

/// Address of the queue's Redis for KEDA, which is in another namespace; None if it is in a Secret.
pub(super) fn queue_address(input: &Input) -> Option<String> {
    let own = redis_secret(input.bench).is_none_or(|(external, _)| external != External::Urls);
    own.then(|| format!("{}.{}.svc:{PORT}", child(&input.name(), "redis-queue"), input.namespace()))
}

/// How KEDA connects to an existing server.
pub(super) fn queue_connection(bench: &FrappeBench) -> QueueConnection {
    bench.spec.redis_config.as_ref().and_then(|it| it.queue_connection.clone()).unwrap_or_default()
}

/// Name of the TriggerAuthentication by which KEDA reads the Secret.
pub(super) fn authentication_name(input: &Input) -> Option<String> {
    redis_secret(input.bench).map(|_| child(&input.name(), "redis-queue"))
}

/// The TriggerAuthentication.
pub(super) fn keda_authentication(input: &Input) -> Option<Desired> {
    let (external, name) = redis_secret(input.bench)?;
    let parameter = |parameter, key: &str| SecretParameter { parameter, name: name.clone(), key: key.to_owned() };
    let secret_target_ref = match external {
        External::Password => vec![parameter("password", "password")],
        External::Generated => vec![parameter("username", "username"), parameter("password", "password")],
        External::Urls => {
            let address = [parameter("address", "queue-address"), parameter("password", "queue-password")];
            let user = queue_connection(input.bench).username_key;
            let user = user.map(|key| SecretParameter { parameter: "username", name: name.clone(), key });
            address.into_iter().chain(user).collect()
        }
    };
    let spec = TriggerAuthenticationSpec { secret_target_ref };
    Some(input.object("redis-queue", "redis-queue", spec).into())
}

/// The command that passes the password to a server. It is read from a file and passed as configuration on standard input, neither
/// as an argument nor in the environment, and quoted as in redis.conf.
fn with_password() -> Vec<String> {
    let script = format!("exec \"$@\" - <<END\nrequirepass \"$(sed 's/[\\\\\"]/\\\\&/g' {PASSWORD_FILE})\"\nEND\n");
    ["sh", "-c", &script, "sh"].map(str::to_owned).into()
}

fn memory(size: Option<&RedisSize>) -> Option<i128> {
    size?.memory.as_ref().and_then(|memory| quantity::bytes(&memory.0))
}

/// The spec of a StatefulSet with its claim templates; the API's type would add apiVersion and kind to each.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerSpec {
    #[serde(flatten)]
    spec: StatefulSetSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_claim_templates: Option<[ClaimTemplate; 1]>,
}

specs! { ServerSpec => StatefulSet }

/// A claim template of a StatefulSet.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct ClaimTemplate {
    metadata: ObjectMeta,
    spec: PersistentVolumeClaimSpec,
}

/// One server. With a volume it is persistent and rejects writes when full; without one, it evicts the least recently used keys.
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
    let selector = matching(labels::selector(&bench, name));
    let pod = server_pod(input, config, name, memory_bytes, volume.is_some());
    let pods = PodTemplateSpec { metadata: Some(metadata), spec: Some(pod) };
    let spec = StatefulSetSpec {
        replicas: Some(1),
        service_name: Some(child(&bench, name)),
        // With the policy OrderedReady, a pod that never became ready would never be replaced, even by one of a corrected template.
        pod_management_policy: Some("Parallel".to_owned()),
        template: template::with(template::template(input.bench, name), Some(&selector), pods),
        selector,
        persistent_volume_claim_retention_policy: volume.map(|_| retention),
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
    // The StatefulSet creates the volume of a persistent server.
    let data = Mounted::empty("data", "/data", EmptyDirVolumeSource::default());
    let mounts = [&data].into_iter().chain(&password).map(|it| it.mount.clone()).collect();
    let image = config.image.as_deref().unwrap_or(&input.config.default_redis_image);
    let own = template::template(input.bench, name);
    let container = Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        command: password.as_ref().map(|_| with_password()),
        args: Some(arguments(memory_bytes, persists)),
        ports: Some(vec![port("redis", PORT)]),
        readiness_probe: Some(answers("redis", 5, None)),
        liveness_probe: Some(answers("redis", 10, Some(6))),
        resources: Some(server_resources(config, memory_bytes)),
        security_context: Some(merged(without_privileges(), own.security_context)),
        volume_mounts: Some(mounts),
        ..Container::default()
    };
    let spec = PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(merged(restricted(REDIS_USER, input.capabilities.openshift), own.pod_security_context)),
        image_pull_secrets: pull_secrets(input),
        ..PodSpec::default()
    };
    let volumes = Some(data).filter(|_| !persists).into_iter().chain(password);
    Pod::new(spec).with_volumes(volumes.map(|it| it.volume)).then(container).build()
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

/// The claim of the queue's StatefulSet with the desired size: the claim template of a StatefulSet is immutable.
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

/// A memory setting also sets the limit, a quarter above it, because Redis needs more memory than its data.
fn server_resources(config: &RedisConfig, memory_bytes: Option<i128>) -> ResourceRequirements {
    match memory_bytes {
        Some(bytes) if config.resources.is_none() => {
            let limit = (bytes + bytes / 4).to_string();
            pod::resources(["100m", &bytes.to_string(), "1", &limit])
        }
        _ => resources(config.resources.as_ref(), ["100m", "128Mi", "1", "512Mi"]),
    }
}
