//! The site runner's ConfigMap and the Job that merges `common_site_config.json`.

use serde_json::{Value, json};

use super::{
    code,
    network::SOCKETIO_PORT,
    pod::{pod_labels, pod_spec},
    redis::{External, USER, redis_secret},
};
use crate::{
    controllers::bench::model::{BENCH_PATH, Input},
    domain::{
        key::Key,
        labels,
        names::{child, hash_hex},
        object::{Desired, Kind},
    },
    runner,
};

/// Where the runner is mounted.
const RUNNER_PATH: &str = "/opt/frappe-operator";
/// Longest time of the configure Job, in seconds.
const DEADLINE_SECONDS: i64 = 600;
/// Longest time of one that copies the image's code and installs apps, in seconds.
const INSTALL_DEADLINE_SECONDS: i64 = 3600;

/// The ConfigMap that ships the site runner to every Job of the bench.
pub fn runner_config_map(input: &Input) -> Desired {
    let key = Key::new(input.namespace(), child(&input.name(), "site-runner"));
    let metadata = json!({
        "labels": labels::component(&input.name(), "site-runner"), "ownerReferences": [input.owner()],
    });
    let mut desired = Desired::untyped(Kind::ConfigMap, key, metadata, &Value::Null);
    desired.body.as_object_mut().map(|body| body.remove("spec"));
    desired.body["data"] = runner::FILES.iter().map(|(name, source)| ((*name).to_owned(), json!(source))).collect();
    desired
}

/// The Job `BENCH-configure`. Its annotation holds a hash of what it does: another hash needs another run.
pub fn configure_job(input: &Input) -> Desired {
    let request = request(input);
    let mut pod = runner_pod(input, "configure", &request, &secrets(input));
    let mut deadline_seconds = DEADLINE_SECONDS;
    if let Some(code) = code::request(input) {
        pod["initContainers"] = json!([seed(&pod["containers"][0], &code)]);
        deadline_seconds = INSTALL_DEADLINE_SECONDS;
    }
    let spec = json!({
        "backoffLimit": 4,
        "activeDeadlineSeconds": deadline_seconds,
        "template": {"metadata": {"labels": pod_labels(input, "configure")}, "spec": pod},
    });
    let mut job = input.object(Kind::Job, "configure", "configure", &spec);
    job.body["metadata"]["annotations"] = json!({labels::APPLIED_HASH: revision(input)});
    job
}

/// Copies the image's code to the volume, before the copy is mounted over it.
fn seed(configure: &Value, code: &Value) -> Value {
    let mut container = configure.clone();
    container["name"] = json!("seed");
    container["args"] = json!(["seed", code.to_string()]);
    let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
    let own = mounts.into_iter().filter(|mount| mount.get("subPath").is_none() && mount["name"] != "secrets");
    container["volumeMounts"] = json!(own.collect::<Vec<_>>());
    container
}

/// Names what the components run: the image and what the configure Job makes of it.
fn revision(input: &Input) -> String {
    let secret = input.redis_secret_version.unwrap_or_default();
    let runner: String = runner::FILES.iter().map(|(_, source)| *source).collect();
    hash_hex(&format!("{}{}{runner}{secret}", request(input), input.image()), 16)
}

/// The Redis Secret as the runner reads it.
fn secrets(input: &Input) -> Vec<(Value, Value)> {
    let Some((external, name)) = redis_secret(input.bench) else { return Vec::new() };
    let items = match external {
        External::Password | External::Generated => json!([{"key": "password", "path": "redis-password"}]),
        External::Urls => {
            json!([{"key": "redis-cache", "path": "redis-cache"}, {"key": "redis-queue", "path": "redis-queue"}])
        }
    };
    let volume = json!({"name": "secrets", "secret": {"secretName": name, "items": items, "defaultMode": 0o440}});
    vec![(volume, json!({"name": "secrets", "mountPath": runner::SECRETS, "readOnly": true}))]
}

/// What `common_site_config.json` must say. `bench_id` names the queues in Redis: without it every bench has the same.
///
/// URLs with a secret in them are put together by the runner: `secret_urls` names the file of each whole URL,
/// `password_urls` the keys whose URLs get the password of the file `redis-password`.
fn request(input: &Input) -> Value {
    let redis = |server: &str| format!("redis://{}:6379", child(&input.name(), server));
    let mut request = json!({
        "common_site_config": {"bench_id": bench_id(input), "socketio_port": SOCKETIO_PORT},
    });
    // Frappe 14 reads redis_socketio, later versions read redis_queue for the same.
    let servers = [("redis_cache", "redis-cache"), ("redis_queue", "redis-queue"), ("redis_socketio", "redis-queue")];
    let external = redis_secret(input.bench).map(|(external, _)| external);
    for (key, server) in servers {
        match external {
            Some(External::Urls) => request["secret_urls"][key] = json!(server),
            _ => request["common_site_config"][key] = json!(redis(server)),
        }
    }
    if let Some(code) = code::request(input) {
        request["code"] = code;
    }
    if matches!(external, Some(External::Password | External::Generated)) {
        request["password_urls"] = json!(servers.map(|(key, _)| key));
    }
    if external == Some(External::Generated) {
        request["redis_user"] = json!(USER);
    }
    request
}

/// Name of the bench's queues, unique in a cluster.
pub fn bench_id(input: &Input) -> String {
    format!("{}-{}", input.namespace(), input.name())
}

/// The runner's files, and where they are mounted.
pub(super) fn runner_volume(input: &Input) -> (Value, Value) {
    (
        json!({"name": "runner", "configMap": {"name": child(&input.name(), "site-runner")}}),
        json!({"name": "runner", "mountPath": RUNNER_PATH, "readOnly": true}),
    )
}

/// The runner, run by the bench's own interpreter.
pub(super) fn runner_command() -> [String; 3] {
    [format!("{BENCH_PATH}/env/bin/python"), "-u".to_owned(), format!("{RUNNER_PATH}/{}", runner::FILE_NAME)]
}

/// A pod that runs the site runner: `command` with `request` as its only argument, and more volumes with their mounts.
///
/// The runner gets no password here: it reads them from mounted files.
pub(in crate::controllers) fn runner_pod(
    input: &Input,
    command: &str,
    request: &Value,
    extra: &[(Value, Value)],
) -> Value {
    let mut volumes = vec![
        runner_volume(input),
        (
            json!({"name": "home", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
            json!({"name": "home", "mountPath": runner::HOME}),
        ),
    ];
    volumes.extend_from_slice(extra);
    let container = json!({
        "name": command,
        "command": runner_command(),
        "args": [command, request.to_string()],
        "workingDir": BENCH_PATH,
        "env": [{"name": "HOME", "value": runner::HOME}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}},
    });
    let mut pod = pod_spec(input, container, 30, &volumes);
    pod["restartPolicy"] = json!("Never");
    pod
}
