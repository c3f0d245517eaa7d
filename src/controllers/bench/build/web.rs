//! Components that serve requests: gunicorn, nginx, the websocket server, and their Services.

use frappe_crds::bench::{ComponentScaling, ReplicasFrom, WebConfig};
use k8s_openapi::{
    api::{
        apps::v1::DeploymentSpec,
        core::v1::{Container, HTTPGetAction, Probe},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    configure::{runner_command, runner_volume},
    network::{NGINX_PORT, SOCKETIO_PORT},
    pod::{Component, Replicas, deployment},
    process::{DRAIN_SECONDS, drain_and_await_termination_handler, drain_requests},
};
use crate::{
    controllers::bench::model::{BENCH_PATH, Input, Pods},
    domain::{
        labels,
        network::service,
        object::Desired,
        pod::{answers, port, variable},
        typed::Object,
    },
};

/// Port of gunicorn.
const GUNICORN_PORT: i32 = 8000;

/// Default timeout of a request, in seconds. The grace period of a pod is 10 s longer, after requests are no longer routed to it.
const REQUEST_TIMEOUT_SECONDS: i32 = 120;
/// Default number of processes of a gunicorn pod, and of threads of each.
pub(in crate::controllers) const GUNICORN_WORKERS_AND_THREADS: [i32; 2] = [2, 4];

/// The Services.
pub(super) fn services(input: &Input) -> Vec<Desired> {
    [("gunicorn", GUNICORN_PORT), ("nginx", NGINX_PORT), ("socketio", SOCKETIO_PORT)]
        .map(|(name, port)| {
            let component = input.component(name);
            let selector = labels::selector(&input.name(), &component);
            input.object(&component, &component, service(selector, "http", port)).into()
        })
        .into()
}

/// The Deployments.
pub(super) fn deployments(input: &Input) -> Vec<Object<DeploymentSpec>> {
    let resources = input.bench.spec.component_resources.clone().unwrap_or_default();
    let wanted = input.replicas();
    let web = input.bench.spec.web.clone().unwrap_or_default();
    let timeout_seconds = web.request_timeout_seconds.unwrap_or(REQUEST_TIMEOUT_SECONDS);
    let request_seconds = i64::from(timeout_seconds) + 10;
    let grace_seconds = DRAIN_SECONDS + request_seconds;
    let scaling = input.bench.spec.web_autoscaling.clone().unwrap_or_default();
    vec![
        deployment(
            input,
            Component {
                name: "gunicorn",
                container: gunicorn(&web, request_seconds),
                replicas: replicas(input, scaling.gunicorn.as_ref(), wanted.gunicorn),
                resources: resources.gunicorn.as_ref(),
                default_resources: ["500m", "1Gi", "2", "4Gi"],
                grace_seconds,
                recreate: false,
                volumes: Vec::new(),
            },
        ),
        deployment(
            input,
            Component {
                name: "nginx",
                container: nginx(input, &web),
                replicas: replicas(input, scaling.nginx.as_ref(), wanted.nginx),
                resources: resources.nginx.as_ref(),
                default_resources: ["100m", "128Mi", "1", "512Mi"],
                grace_seconds,
                recreate: false,
                volumes: vec![runner_volume(input)],
            },
        ),
        deployment(
            input,
            Component {
                name: "socketio",
                container: socketio(),
                replicas: replicas(input, None, wanted.socketio),
                resources: resources.socketio.as_ref(),
                default_resources: ["100m", "256Mi", "1", "1Gi"],
                // node ignores SIGTERM as PID 1: a longer grace period is useless.
                grace_seconds: 5,
                recreate: false,
                volumes: Vec::new(),
            },
        ),
    ]
}

/// Who sets the number of pods of a component: an autoscaler of the user's only of the newest revision, whose Deployments keep their names.
fn replicas(input: &Input, scaling: Option<&ComponentScaling>, wanted: Option<i32>) -> Replicas {
    let by_user = scaling.and_then(|it| it.replicas_from) == Some(ReplicasFrom::Autoscaler);
    if by_user && !matches!(input.pods, Pods::Older(_)) {
        Replicas::By(labels::REPLICAS_BY_USER)
    } else {
        Replicas::Fixed(wanted.unwrap_or(1))
    }
}

/// Starts gunicorn by the image's script; images of frappe_docker before 2026-05-18 have no script, but a command with fixed numbers.
const GUNICORN: &str = "command -v start.sh >/dev/null && exec start.sh; exec env/bin/gunicorn --chdir=sites \
    --bind=0.0.0.0:8000 --threads=$GUNICORN_THREADS --workers=$GUNICORN_WORKERS --worker-class=gthread \
    --worker-tmp-dir=/dev/shm --timeout=$GUNICORN_TIMEOUT --preload frappe.app:application";

/// TCP probes, because a site in maintenance mode must not make the whole bench unready.
fn gunicorn(web: &WebConfig, request_seconds: i64) -> Container {
    let [workers, threads] = GUNICORN_WORKERS_AND_THREADS;
    let text = |number: Option<i32>, default: i32| number.unwrap_or(default).to_string();
    Container {
        command: Some(["sh", "-c", GUNICORN].map(str::to_owned).into()),
        working_dir: Some(BENCH_PATH.to_owned()),
        lifecycle: Some(drain_and_await_termination_handler(request_seconds)),
        ports: Some(vec![port("http", GUNICORN_PORT)]),
        env: Some(vec![
            variable("GUNICORN_WORKERS", text(web.gunicorn_workers, workers)),
            variable("GUNICORN_THREADS", text(web.gunicorn_threads, threads)),
            variable("GUNICORN_TIMEOUT", text(web.request_timeout_seconds, REQUEST_TIMEOUT_SECONDS)),
        ]),
        startup_probe: Some(answers("http", 5, Some(60))),
        readiness_probe: Some(answers("http", 5, None)),
        liveness_probe: Some(answers("http", 10, Some(6))),
        ..Container::default()
    }
}

fn nginx(input: &Input, web: &WebConfig) -> Container {
    let timeout = web.request_timeout_seconds.unwrap_or(REQUEST_TIMEOUT_SECONDS).to_string();
    let proxy = web.trusted_proxy.as_deref().unwrap_or("127.0.0.1");
    let backend = format!("{}:{GUNICORN_PORT}", input.child_of("gunicorn"));
    let websocket = format!("{}:{SOCKETIO_PORT}", input.child_of("socketio"));
    Container {
        // The runner runs the image's script, and reloads nginx when hosts change.
        command: Some(runner_command().into_iter().chain(["nginx", "{}"].map(str::to_owned)).collect()),
        working_dir: Some(BENCH_PATH.to_owned()),
        lifecycle: Some(drain_requests()),
        ports: Some(vec![port("http", NGINX_PORT)]),
        env: Some(vec![
            variable("BACKEND", backend),
            variable("SOCKETIO", websocket),
            variable("FRAPPE_SITE_NAME_HEADER", "$frappe_site"),
            variable("UPSTREAM_REAL_IP_ADDRESS", proxy),
            variable("UPSTREAM_REAL_IP_HEADER", "X-Forwarded-For"),
            variable("UPSTREAM_REAL_IP_RECURSIVE", "off"),
            variable("PROXY_READ_TIMEOUT", timeout),
            variable("CLIENT_MAX_BODY_SIZE", web.max_body_size.as_deref().unwrap_or("50m")),
        ]),
        readiness_probe: Some(answers("http", 5, None)),
        liveness_probe: Some(answers("http", 10, Some(6))),
        ..Container::default()
    }
}

/// The server responds only on this path; other requests hang.
fn socketio() -> Container {
    let probe = |period_seconds: i32, failure_threshold: Option<i32>| Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/socket.io/?EIO=4&transport=polling".to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold,
        ..Probe::default()
    };
    Container {
        command: Some(vec!["node".to_owned(), format!("{BENCH_PATH}/apps/frappe/socketio.js")]),
        ports: Some(vec![port("http", SOCKETIO_PORT)]),
        readiness_probe: Some(probe(5, None)),
        liveness_probe: Some(probe(10, Some(6))),
        ..Container::default()
    }
}
