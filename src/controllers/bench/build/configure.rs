//! The site runner's ConfigMap and the Job that merges `common_site_config.json`.

use serde_json::{Value, json};

use super::{
    BENCH_PATH, Input,
    pod::{pod_labels, pod_spec},
    web::SOCKETIO_PORT,
};
use crate::{
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

/// The ConfigMap that ships the site runner to every Job of the bench.
pub fn runner_config_map(input: &Input) -> Desired {
    let key = Key::new(input.namespace(), child(&input.name(), "site-runner"));
    let metadata = json!({
        "labels": labels::component(&input.name(), "site-runner"), "ownerReferences": [input.owner()],
    });
    let mut desired = Desired::untyped(Kind::ConfigMap, key, metadata, &Value::Null);
    desired.body.as_object_mut().map(|body| body.remove("spec"));
    desired.body["data"] = json!({runner::FILE_NAME: runner::SOURCE});
    desired
}

/// The Job `BENCH-configure`. Its annotation holds a hash of what it does: another hash needs another run.
pub fn configure_job(input: &Input) -> Desired {
    let request = request(input);
    let pod = runner_pod(input, "configure", &request, &[]);
    let spec = json!({
        "backoffLimit": 4,
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "template": {"metadata": {"labels": pod_labels(input, "configure")}, "spec": pod},
    });
    let mut job = input.object(Kind::Job, "configure", "configure", &spec);
    job.body["metadata"]["annotations"] = json!({labels::APPLIED_HASH: revision(input)});
    job
}

/// Names what the components run: the image and what the configure Job makes of it.
pub fn revision(input: &Input) -> String {
    hash_hex(&format!("{}{}{}", request(input), input.image(), runner::SOURCE), 16)
}

/// What `common_site_config.json` must say. `bench_id` names the queues in Redis: without it every bench has the same.
fn request(input: &Input) -> Value {
    let redis = |server: &str| format!("redis://{}:6379", child(&input.name(), server));
    json!({
        "common_site_config": {
            "bench_id": bench_id(input),
            "redis_cache": redis("redis-cache"), "redis_queue": redis("redis-queue"),
            "redis_socketio": redis("redis-queue"), "socketio_port": SOCKETIO_PORT,
        },
    })
}

/// Name of the bench's queues, unique in a cluster.
pub fn bench_id(input: &Input) -> String {
    format!("{}-{}", input.namespace(), input.name())
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
    let runner_volume = json!({"name": "runner", "configMap": {"name": child(&input.name(), "site-runner")}});
    let mut volumes = vec![
        (runner_volume, json!({"name": "runner", "mountPath": RUNNER_PATH, "readOnly": true})),
        (
            json!({"name": "home", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
            json!({"name": "home", "mountPath": runner::HOME}),
        ),
    ];
    volumes.extend_from_slice(extra);
    let container = json!({
        "name": command,
        "command": [format!("{BENCH_PATH}/env/bin/python"), "-u", format!("{RUNNER_PATH}/{}", runner::FILE_NAME)],
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
