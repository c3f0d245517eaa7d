//! What answers requests: gunicorn, nginx, the websocket server, and their Services.

use frappe_crds::bench::WebConfig;
use serde_json::{Value, json};

use super::{
    configure::{runner_command, runner_volume},
    network::{NGINX_PORT, SOCKETIO_PORT},
    pod::{Component, deployment},
    process::until_it_can_be_stopped,
};
use crate::{
    controllers::bench::model::{BENCH_PATH, Input},
    domain::{
        labels,
        names::child,
        object::{Desired, Kind},
    },
};

/// Port of gunicorn.
const GUNICORN_PORT: i32 = 8000;

/// Seconds that a request may take where the bench names no number. A pod that ends has so long and 10 s.
const REQUEST_TIMEOUT_SECONDS: i32 = 120;
/// Processes of a gunicorn pod where the bench names no number, and threads of each.
pub(in crate::controllers) const GUNICORN_WORKERS_AND_THREADS: [i32; 2] = [2, 4];

/// The Services.
pub(super) fn services(input: &Input) -> Vec<Desired> {
    [("gunicorn", GUNICORN_PORT), ("nginx", NGINX_PORT), ("socketio", SOCKETIO_PORT)]
        .map(|(name, port)| {
            let spec = json!({
                "type": "ClusterIP", "selector": labels::selector(&input.name(), name),
                "ports": [{"name": "http", "port": port, "targetPort": "http", "protocol": "TCP"}],
            });
            input.object(Kind::Service, name, name, &spec)
        })
        .into()
}

/// The Deployments.
pub(super) fn deployments(input: &Input) -> Vec<Desired> {
    let resources = input.bench.spec.component_resources.clone().unwrap_or_default();
    let replicas = input.replicas();
    let web = input.bench.spec.web.clone().unwrap_or_default();
    let timeout_seconds = web.request_timeout_seconds.unwrap_or(REQUEST_TIMEOUT_SECONDS);
    let grace_seconds = i64::from(timeout_seconds) + 10;
    vec![
        deployment(
            input,
            &Component {
                name: "gunicorn",
                container: gunicorn(&web, grace_seconds),
                replicas: replicas.gunicorn.unwrap_or(1),
                resources: resources.gunicorn.as_ref(),
                default_resources: ["500m", "1Gi", "2", "4Gi"],
                grace_seconds,
                recreate: false,
                volumes: Vec::new(),
            },
        ),
        deployment(
            input,
            &Component {
                name: "nginx",
                container: nginx(input, &web),
                replicas: replicas.nginx.unwrap_or(1),
                resources: resources.nginx.as_ref(),
                default_resources: ["100m", "128Mi", "1", "512Mi"],
                grace_seconds,
                recreate: false,
                volumes: vec![runner_volume(input)],
            },
        ),
        deployment(
            input,
            &Component {
                name: "socketio",
                container: socketio(),
                replicas: replicas.socketio.unwrap_or(1),
                resources: resources.socketio.as_ref(),
                default_resources: ["100m", "256Mi", "1", "1Gi"],
                // node ignores SIGTERM as PID 1: waiting longer gains nothing.
                grace_seconds: 5,
                recreate: false,
                volumes: Vec::new(),
            },
        ),
    ]
}

/// Starts gunicorn by the image's own script; images of frappe_docker before 2026-05-18 have none, and a command with fixed
/// numbers.
const GUNICORN: &str = "command -v start.sh >/dev/null && exec start.sh; exec env/bin/gunicorn --chdir=sites \
    --bind=0.0.0.0:8000 --threads=$GUNICORN_THREADS --workers=$GUNICORN_WORKERS --worker-class=gthread \
    --worker-tmp-dir=/dev/shm --timeout=$GUNICORN_TIMEOUT --preload frappe.app:application";

/// A site in maintenance must not make the whole bench unready, so TCP probes.
fn gunicorn(web: &WebConfig, grace_seconds: i64) -> Value {
    let [workers, threads] = GUNICORN_WORKERS_AND_THREADS;
    let text = |number: Option<i32>, default: i32| number.unwrap_or(default).to_string();
    json!({
        "command": ["sh", "-c", GUNICORN],
        "workingDir": BENCH_PATH,
        "lifecycle": until_it_can_be_stopped(grace_seconds),
        "ports": [port(GUNICORN_PORT)],
        "env": [
            {"name": "GUNICORN_WORKERS", "value": text(web.gunicorn_workers, workers)},
            {"name": "GUNICORN_THREADS", "value": text(web.gunicorn_threads, threads)},
            {"name": "GUNICORN_TIMEOUT", "value": text(web.request_timeout_seconds, REQUEST_TIMEOUT_SECONDS)},
        ],
        "startupProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 5, "failureThreshold": 60},
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
    })
}

fn nginx(input: &Input, web: &WebConfig) -> Value {
    let timeout = web.request_timeout_seconds.unwrap_or(REQUEST_TIMEOUT_SECONDS).to_string();
    let proxy = web.trusted_proxy.as_deref().unwrap_or("127.0.0.1");
    let backend = format!("{}:{GUNICORN_PORT}", child(&input.name(), "gunicorn"));
    let websocket = format!("{}:{SOCKETIO_PORT}", child(&input.name(), "socketio"));
    let command: Vec<String> = runner_command().into_iter().chain(["nginx", "{}"].map(str::to_owned)).collect();
    json!({
        // The runner runs the image's own script, and tells nginx of changed hosts.
        "command": command,
        "workingDir": BENCH_PATH,
        "ports": [port(NGINX_PORT)],
        "env": [
            {"name": "BACKEND", "value": backend}, {"name": "SOCKETIO", "value": websocket},
            {"name": "FRAPPE_SITE_NAME_HEADER", "value": "$frappe_site"},
            {"name": "UPSTREAM_REAL_IP_ADDRESS", "value": proxy},
            {"name": "UPSTREAM_REAL_IP_HEADER", "value": "X-Forwarded-For"},
            {"name": "UPSTREAM_REAL_IP_RECURSIVE", "value": "off"},
            {"name": "PROXY_READ_TIMEOUT", "value": timeout},
            {"name": "CLIENT_MAX_BODY_SIZE", "value": web.max_body_size.as_deref().unwrap_or("50m")},
        ],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
    })
}

/// The server answers on this one path; any other hangs.
fn socketio() -> Value {
    let probe = json!({"path": "/socket.io/?EIO=4&transport=polling", "port": "http"});
    json!({
        "command": ["node", format!("{BENCH_PATH}/apps/frappe/socketio.js")],
        "ports": [port(SOCKETIO_PORT)],
        "readinessProbe": {"httpGet": probe, "periodSeconds": 5},
        "livenessProbe": {"httpGet": probe, "periodSeconds": 10, "failureThreshold": 6},
    })
}

fn port(number: i32) -> Value {
    json!({"name": "http", "containerPort": number, "protocol": "TCP"})
}
