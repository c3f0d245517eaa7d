//! Redis for the cache (bounded, evicts, forgets) and for the queues (persists, never evicts).

use frappe_crds::{
    FrappeBench,
    bench::{RedisConfig, RedisSize, StorageDeletionPolicy},
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::pod::{ids, resources};
use crate::{
    controllers::bench::model::Input,
    domain::{
        key::Key,
        labels,
        names::child,
        object::{Desired, Kind},
        quantity,
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

/// The Secret with a generated password, which goes with the bench. It carries the label by which its changes are seen.
pub fn password_secret(input: &Input, password: &str) -> Desired {
    let key = Key::new(input.namespace(), child(&input.name(), "redis-password"));
    let mut labels = labels::component(&input.name(), "redis");
    labels.insert(labels::WATCHED.to_owned(), "true".to_owned());
    let metadata = json!({
        "labels": labels, "ownerReferences": [input.owner()],
        "annotations": {labels::IDENTITY: input.bench.uid().unwrap_or_default()},
    });
    let mut desired = Desired::untyped(Kind::Secret, key, metadata, &Value::Null);
    desired.body.as_object_mut().map(|body| body.remove("spec"));
    desired.body["stringData"] = json!({"username": USER, "password": password});
    desired
}

/// What may reach the bench's own servers: its pods, and KEDA where it is installed.
pub(super) fn policy(input: &Input) -> Option<Desired> {
    let config = input.bench.spec.redis_config.clone().unwrap_or_default();
    if !is_protected(input.bench) || config.connection_secret_ref.is_some() {
        return None;
    }
    let mut from = vec![json!({"podSelector": {"matchLabels": labels::pods(&input.name())}})];
    from.extend(input.capabilities.keda.then(|| keda(input)));
    let spec = json!({
        "podSelector": {
            "matchLabels": labels::pods(&input.name()),
            "matchExpressions": [{"key": "component", "operator": "In", "values": ["redis-cache", "redis-queue"]}],
        },
        "policyTypes": ["Ingress"],
        "ingress": [{"from": from, "ports": [{"protocol": "TCP", "port": PORT}]}],
    });
    Some(input.object(Kind::NetworkPolicy, "redis", "network-policy", &spec))
}

/// KEDA, by the namespace that the platform names: a label of pods is anybody's.
pub(super) fn keda(input: &Input) -> Value {
    json!({"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: input.config.keda_namespace}}})
}

/// Address of the queue's Redis for KEDA, which is in another namespace; nothing where a Secret holds it.
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
    let entry = |parameter: &str, key: &str| json!({"parameter": parameter, "name": name, "key": key});
    let entries = match external {
        External::Password => vec![entry("password", "password")],
        External::Generated => vec![entry("username", "username"), entry("password", "password")],
        External::Urls => vec![entry("address", "queue-address"), entry("password", "queue-password")],
    };
    let spec = json!({"secretTargetRef": entries});
    Some(input.object(Kind::TriggerAuthentication, "redis-queue", "redis-queue", &spec))
}

/// Gives a server its password. It is read from a file and handed to Redis as its configuration, on standard input: not as
/// an argument, nor in the environment. Quoted as redis.conf wants it.
fn protect(container: &mut Value, pod: &mut Value, secret: &str) {
    let script = format!("exec \"$@\" - <<END\nrequirepass \"$(sed 's/[\\\\\"]/\\\\&/g' {PASSWORD_FILE})\"\nEND\n");
    container["command"] = json!(["sh", "-c", script, "sh"]);
    let mount = json!({"name": PASSWORD_VOLUME, "mountPath": PASSWORD_FOLDER, "readOnly": true});
    let volume = json!({"name": PASSWORD_VOLUME, "secret": {
        "secretName": secret, "items": [{"key": "password", "path": "password"}], "defaultMode": 0o440,
    }});
    for (list, item) in [(&mut container["volumeMounts"], mount), (&mut pod["volumes"], volume)] {
        let mut items = list.as_array().cloned().unwrap_or_default();
        items.push(item);
        *list = json!(items);
    }
}

fn memory(size: Option<&RedisSize>) -> Option<i128> {
    size?.memory.as_ref().and_then(|memory| quantity::bytes(&memory.0))
}

/// One server. With a volume it persists and refuses writes when full; without, it evicts the least recently used.
fn server(
    input: &Input,
    config: &RedisConfig,
    name: &str,
    memory_bytes: Option<i128>,
    volume: Option<&str>,
) -> Vec<Desired> {
    let image = config.image.as_deref().unwrap_or(&input.config.default_redis_image);
    let max_memory = memory_bytes.unwrap_or(DEFAULT_MEMORY_BYTES).to_string();
    let mut args = vec!["redis-server", "--dir", "/data", "--maxmemory", max_memory.as_str()];
    args.extend(match volume {
        Some(_) => ["--appendonly", "yes", "--maxmemory-policy", "noeviction"].as_slice(),
        None => ["--appendonly", "no", "--save", "", "--maxmemory-policy", "allkeys-lru"].as_slice(),
    });
    let mut container = json!({
        "name": name, "image": image, "args": args,
        "ports": [{"name": "redis", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 10, "failureThreshold": 6},
        "resources": server_resources(config, memory_bytes),
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    });
    let mut pod = json!({
        "automountServiceAccountToken": false, "enableServiceLinks": false,
        "securityContext": ids(REDIS_USER, input.capabilities.openshift),
    });
    let bench = input.name();
    let mut spec = json!({
        "replicas": 1, "serviceName": child(&bench, name),
        // In order, a pod that never became ready would never be replaced, not even by one of a repaired template.
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": labels::selector(&bench, name)},
    });
    match volume {
        Some(size) => {
            spec["volumeClaimTemplates"] = json!([data_claim(input, size)]);
            let policy = input.bench.spec.storage_deletion_policy.unwrap_or_default();
            let deleted = if policy == StorageDeletionPolicy::Delete { "Delete" } else { "Retain" };
            spec["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": deleted, "whenScaled": "Retain"});
        }
        None => pod["volumes"] = json!([{"name": "data", "emptyDir": {}}]),
    }
    let open = input.open_servers.contains(&name);
    if let Some((External::Password | External::Generated, secret)) = redis_secret(input.bench).filter(|_| !open) {
        protect(&mut container, &mut pod, &secret);
    }
    pod["containers"] = json!([container]);
    let labels = labels::component(&bench, name);
    spec["template"] = json!({
        "metadata": if open { json!({"labels": labels}) } else { input.pod_metadata(&labels) }, "spec": pod,
    });
    let service = json!({
        "type": "ClusterIP", "selector": labels::selector(&bench, name),
        "ports": [{"name": "redis", "port": PORT, "targetPort": "redis", "protocol": "TCP"}],
    });
    vec![input.object(Kind::Service, name, name, &service), input.object(Kind::StatefulSet, name, name, &spec)]
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
    let metadata = json!({"labels": labels::component(&input.name(), "redis-queue")});
    let spec = json!({"resources": {"requests": {"storage": size}}});
    Some(Desired::untyped(Kind::PersistentVolumeClaim, key, metadata, &spec))
}

fn data_claim(input: &Input, size: &str) -> Value {
    json!({
        "metadata": {"name": "data", "labels": labels::component(&input.name(), "redis-queue")},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    })
}

/// A memory setting also sets the limit, a quarter above it: Redis needs room beside its data.
fn server_resources(config: &RedisConfig, memory_bytes: Option<i128>) -> Value {
    match memory_bytes {
        Some(bytes) if config.resources.is_none() => {
            let limit = (bytes + bytes / 4).to_string();
            json!({"requests": {"cpu": "100m", "memory": bytes.to_string()}, "limits": {"cpu": "1", "memory": limit}})
        }
        _ => resources(config.resources.as_ref(), ["100m", "128Mi", "1", "512Mi"]),
    }
}
