//! What answers requests: gunicorn, nginx, the websocket server, and their Services.

use serde_json::{Value, json};

use super::{
    BENCH_PATH, Input,
    pod::{Component, deployment},
};
use crate::domain::{
    labels,
    names::child,
    object::{Desired, Kind},
};

/// Port of gunicorn.
const GUNICORN_PORT: i32 = 8000;
/// Port of nginx, which routes go to.
pub(in crate::controllers) const NGINX_PORT: i32 = 8080;
/// Port of the websocket server.
pub(super) const SOCKETIO_PORT: i32 = 9000;
/// Seconds that a request in flight has when a pod ends: gunicorn's own timeout and some.
const GRACE_SECONDS: i64 = 130;

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
    vec![
        deployment(
            input,
            &Component {
                name: "gunicorn",
                container: gunicorn(),
                replicas: replicas.gunicorn.unwrap_or(1),
                resources: resources.gunicorn.as_ref(),
                default_resources: ["500m", "1Gi", "2", "4Gi"],
                grace_seconds: GRACE_SECONDS,
                recreate: false,
            },
        ),
        deployment(
            input,
            &Component {
                name: "nginx",
                container: nginx(input),
                replicas: replicas.nginx.unwrap_or(1),
                resources: resources.nginx.as_ref(),
                default_resources: ["100m", "128Mi", "1", "512Mi"],
                grace_seconds: GRACE_SECONDS,
                recreate: false,
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
            },
        ),
    ]
}

/// The image's own command starts gunicorn; a site in maintenance must not make the whole bench unready, so TCP probes.
fn gunicorn() -> Value {
    json!({
        "ports": [port(GUNICORN_PORT)],
        "env": [
            {"name": "GUNICORN_WORKERS", "value": "2"}, {"name": "GUNICORN_THREADS", "value": "4"},
            {"name": "GUNICORN_TIMEOUT", "value": "120"},
        ],
        "startupProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 5, "failureThreshold": 60},
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
    })
}

fn nginx(input: &Input) -> Value {
    let backend = format!("{}:{GUNICORN_PORT}", child(&input.name(), "gunicorn"));
    let websocket = format!("{}:{SOCKETIO_PORT}", child(&input.name(), "socketio"));
    json!({
        "args": ["nginx-entrypoint.sh"],
        "ports": [port(NGINX_PORT)],
        "env": [
            {"name": "BACKEND", "value": backend}, {"name": "SOCKETIO", "value": websocket},
            {"name": "FRAPPE_SITE_NAME_HEADER", "value": "$host"},
            {"name": "UPSTREAM_REAL_IP_ADDRESS", "value": "127.0.0.1"},
            {"name": "UPSTREAM_REAL_IP_HEADER", "value": "X-Forwarded-For"},
            {"name": "UPSTREAM_REAL_IP_RECURSIVE", "value": "off"},
            {"name": "PROXY_READ_TIMEOUT", "value": "120"}, {"name": "CLIENT_MAX_BODY_SIZE", "value": "50m"},
        ],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
    })
}

/// The server answers on this one path; any other hangs.
fn socketio() -> Value {
    let probe = json!({"path": "/socket.io/?EIO=4&transport=polling", "port": "http"});
    json!({
        "args": ["node", format!("{BENCH_PATH}/apps/frappe/socketio.js")],
        "ports": [port(SOCKETIO_PORT)],
        "readinessProbe": {"httpGet": probe, "periodSeconds": 5},
        "livenessProbe": {"httpGet": probe, "periodSeconds": 10, "failureThreshold": 6},
    })
}

fn port(number: i32) -> Value {
    json!({"name": "http", "containerPort": number, "protocol": "TCP"})
}
