//! What works in the background: one Deployment of workers for each queue, and the scheduler.

use frappe_crds::{bench::ComponentResources, common::Resources};
use serde_json::{Value, json};

use super::{
    pod::{Component, deployment},
    process::{catches_termination, until_it_can_be_stopped},
    scaling::{WORKERS, Worker, worker_scaling},
};
use crate::{
    controllers::bench::model::Input,
    domain::{
        labels,
        object::{Desired, Kind},
    },
};

/// Deployments of the scheduler and of the workers.
pub(super) fn deployments(input: &Input) -> Vec<Desired> {
    let resources = input.bench.spec.component_resources.clone().unwrap_or_default();
    let mut objects: Vec<Desired> = WORKERS.iter().map(|worker| workers(input, worker, &resources)).collect();
    objects.push(scheduler(input, resources.scheduler.as_ref()));
    objects
}

/// Without a number of replicas where KEDA sets it; an annotation says so, since nothing in the field itself does.
fn workers(input: &Input, worker: &Worker, resources: &ComponentResources) -> Desired {
    let scaling = worker_scaling(&input.bench.spec).into_iter().find(|it| it.queue == worker.queues[0]);
    let autoscaled = scaling.is_some_and(|it| it.is_by_keda(input.capabilities));
    let mut made = deployment(
        input,
        &Component {
            name: worker.component,
            container: json!({
                "command": ["bench", "worker", "--queue", worker.queues.join(",")],
                "lifecycle": until_it_can_be_stopped(worker.grace_seconds),
                "startupProbe": {
                    "exec": {"command": catches_termination()},
                    "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 150,
                },
                "livenessProbe": running("worker"),
            }),
            replicas: scaling.map_or(1, |it| it.fixed),
            resources: (worker.resources)(resources),
            default_resources: ["200m", "512Mi", "1", "2Gi"],
            grace_seconds: worker.grace_seconds,
            recreate: false,
            volumes: Vec::new(),
        },
    );
    if autoscaled {
        made.body["spec"].as_object_mut().map(|spec| spec.remove("replicas"));
        made.body["metadata"]["annotations"] = json!({labels::REPLICAS: labels::REPLICAS_BY_KEDA});
    }
    made
}

/// Exactly one: its lock is a file in the container, so two would queue every job twice.
fn scheduler(input: &Input, resources: Option<&Resources>) -> Desired {
    deployment(
        input,
        &Component {
            name: "scheduler",
            container: json!({
                "command": ["bench", "schedule"],
                "startupProbe": {
                    "exec": is_named("schedule"), "initialDelaySeconds": 5,
                    "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 45,
                },
                "livenessProbe": running("schedule"),
            }),
            replicas: 1,
            resources,
            default_resources: ["100m", "256Mi", "1", "1Gi"],
            // `bench schedule` ignores SIGTERM as PID 1: waiting longer gains nothing.
            grace_seconds: 5,
            recreate: true,
            volumes: Vec::new(),
        },
    )
}

/// Workers and scheduler answer no port: alive is whose main process became what the command makes of itself. A probe
/// that asked Redis would restart every worker in the middle of its job when Redis is away; workers reconnect by
/// themselves. `bench` replaces itself by Python, whose arguments name what it runs.
fn running(what: &str) -> Value {
    json!({"exec": is_named(what), "periodSeconds": 30, "timeoutSeconds": 5, "failureThreshold": 3})
}

fn is_named(what: &str) -> Value {
    json!({"command": ["grep", "-qaw", what, "/proc/1/cmdline"]})
}

/// Whether KEDA sets the number of replicas of a Deployment, by its annotation.
pub fn is_autoscaled(deployment: &Desired) -> bool {
    deployment.kind == Kind::Deployment
        && deployment.body["metadata"]["annotations"][labels::REPLICAS] == labels::REPLICAS_BY_KEDA
}
