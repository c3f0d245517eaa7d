//! Background components: one Deployment of workers for each queue, and the scheduler.

use frappe_crds::{bench::ComponentResources, common::Resources};
use k8s_openapi::api::{
    apps::v1::DeploymentSpec,
    core::v1::{Container, ExecAction, Probe},
};

use super::{
    pod::{Component, Replicas, deployment, name_of_user},
    process::{await_termination_handler, catches_termination},
    scaling::{WORKERS, Worker, worker_scaling},
};
use crate::{
    controllers::bench::model::Input,
    domain::{
        labels,
        object::{Desired, Kind},
        typed::Object,
    },
};

/// Deployments of the scheduler and of the workers.
pub(super) fn deployments(input: &Input) -> Vec<Object<DeploymentSpec>> {
    let resources = input.bench.spec.component_resources.clone().unwrap_or_default();
    let mut objects: Vec<_> = WORKERS.iter().map(|worker| workers(input, worker, &resources)).collect();
    objects.push(scheduler(input, resources.scheduler.as_ref()));
    objects
}

fn workers(input: &Input, worker: &Worker, resources: &ComponentResources) -> Object<DeploymentSpec> {
    let scaling = worker_scaling(&input.bench.spec).into_iter().find(|it| it.queue == worker.queues[0]);
    let autoscaled = scaling.is_some_and(|it| it.is_by_keda(input.capabilities));
    let fixed = Replicas::Fixed(scaling.map_or(1, |it| it.fixed));
    deployment(
        input,
        Component {
            name: worker.component,
            container: Container {
                command: Some(["bench", "worker", "--queue", &worker.queues.join(",")].map(str::to_owned).into()),
                env: name_of_user(input, worker.component),
                lifecycle: Some(await_termination_handler(worker.grace_seconds)),
                startup_probe: Some(Probe {
                    period_seconds: Some(2),
                    failure_threshold: Some(150),
                    ..probe(&catches_termination())
                }),
                liveness_probe: Some(running("worker")),
                ..Container::default()
            },
            replicas: if autoscaled { Replicas::By(labels::REPLICAS_BY_KEDA) } else { fixed },
            resources: (worker.resources)(resources),
            default_resources: ["200m", "512Mi", "1", "2Gi"],
            grace_seconds: worker.grace_seconds,
            recreate: false,
            volumes: Vec::new(),
        },
    )
}

/// Exactly one replica: its lock is a file in the container, so two would queue every job twice.
fn scheduler(input: &Input, resources: Option<&Resources>) -> Object<DeploymentSpec> {
    deployment(
        input,
        Component {
            name: "scheduler",
            container: Container {
                command: Some(["bench", "schedule"].map(str::to_owned).into()),
                env: name_of_user(input, "scheduler"),
                startup_probe: Some(Probe {
                    initial_delay_seconds: Some(5),
                    period_seconds: Some(2),
                    failure_threshold: Some(45),
                    ..probe(&is_named("schedule"))
                }),
                liveness_probe: Some(running("schedule")),
                ..Container::default()
            },
            replicas: Replicas::Fixed(1),
            resources,
            default_resources: ["100m", "256Mi", "1", "1Gi"],
            // `bench schedule` ignores SIGTERM as PID 1: a longer grace period is useless.
            grace_seconds: 5,
            recreate: true,
            volumes: Vec::new(),
        },
    )
}

/// Workers and scheduler have no port: the probe checks the arguments of the main process, because `bench` replaces itself by Python.
/// A probe of Redis would restart every worker during its job when Redis is unavailable, although workers reconnect by themselves.
fn running(what: &str) -> Probe {
    Probe { period_seconds: Some(30), failure_threshold: Some(3), ..probe(&is_named(what)) }
}

fn is_named(what: &str) -> [&str; 4] {
    ["grep", "-qaw", what, "/proc/1/cmdline"]
}

/// Whether a command succeeds in the container.
fn probe(command: &[&str]) -> Probe {
    Probe {
        exec: Some(ExecAction { command: Some(command.iter().map(|it| (*it).to_owned()).collect()) }),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

/// Who sets the number of replicas of a Deployment, if not its spec, by its annotation.
pub fn scaled_by(deployment: &Desired) -> Option<&str> {
    deployment.annotation(labels::REPLICAS).filter(|_| deployment.kind == Kind::Deployment)
}
