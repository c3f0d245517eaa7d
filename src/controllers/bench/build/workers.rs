//! What works in the background: one Deployment of workers for each queue, and the scheduler.

use frappe_crds::{
    bench::{ComponentReplicas, FrappeBenchSpec, QueueAutoscaling},
    common::Resources,
};
use serde_json::json;

use super::{
    Input,
    pod::{Component, deployment},
};
use crate::domain::object::Desired;

/// Seconds that a worker has to finish its job: the queue's timeout (300 s, long 1500 s) and a minute.
const GRACE_SECONDS: [i64; 2] = [360, 1560];

/// One kind of worker: the queues that it serves, first those of its name. Workers cover each other's queues.
struct Worker<'a> {
    component: &'static str,
    queues: &'static str,
    grace_seconds: i64,
    replicas: i32,
    resources: Option<&'a Resources>,
}

/// Static workers of the queues default, short and long.
///
/// The number is `workerAutoscaling.QUEUE.staticReplicas`, else the deprecated `componentReplicas.workerQUEUE`, else
/// the least number of the autoscaling but at least 1, since nothing starts a worker from zero here.
pub fn worker_replicas(spec: &FrappeBenchSpec) -> [(&'static str, i32); 3] {
    let autoscaling = spec.worker_autoscaling.clone().unwrap_or_default();
    let components = spec.component_replicas.clone().unwrap_or_default();
    let count = |queue: Option<&QueueAutoscaling>, deprecated: fn(&ComponentReplicas) -> Option<i32>| {
        let fixed = queue.and_then(|it| it.static_replicas).or(deprecated(&components));
        fixed.unwrap_or_else(|| queue.and_then(|it| it.min_replicas).unwrap_or(1).max(1))
    };
    [
        ("default", count(autoscaling.default.as_ref(), |it| it.worker_default)),
        ("short", count(autoscaling.short.as_ref(), |it| it.worker_short)),
        ("long", count(autoscaling.long.as_ref(), |it| it.worker_long)),
    ]
}

/// Deployments of the scheduler and of the workers.
pub(super) fn deployments(input: &Input) -> Vec<Desired> {
    let resources = input.bench.spec.component_resources.clone().unwrap_or_default();
    let [(_, default), (_, short), (_, long)] = worker_replicas(&input.bench.spec);
    let workers = [
        Worker {
            component: "worker-default",
            queues: "default,short",
            grace_seconds: GRACE_SECONDS[0],
            replicas: default,
            resources: resources.worker_default_dashed.as_ref().or(resources.worker_default.as_ref()),
        },
        Worker {
            component: "worker-short",
            queues: "short,default",
            grace_seconds: GRACE_SECONDS[0],
            replicas: short,
            resources: resources.worker_short_dashed.as_ref().or(resources.worker_short.as_ref()),
        },
        Worker {
            component: "worker-long",
            queues: "long,default,short",
            grace_seconds: GRACE_SECONDS[1],
            replicas: long,
            resources: resources.worker_long_dashed.as_ref().or(resources.worker_long.as_ref()),
        },
    ];
    let mut objects = vec![scheduler(input, resources.scheduler.as_ref())];
    objects.extend(workers.iter().map(|worker| {
        deployment(
            input,
            &Component {
                name: worker.component,
                container: json!({"args": ["bench", "worker", "--queue", worker.queues]}),
                replicas: worker.replicas,
                resources: worker.resources,
                default_resources: ["200m", "512Mi", "1", "2Gi"],
                grace_seconds: worker.grace_seconds,
                recreate: false,
            },
        )
    }));
    objects
}

/// Exactly one: its lock is a file in the container, so two would queue every job twice.
fn scheduler(input: &Input, resources: Option<&Resources>) -> Desired {
    deployment(
        input,
        &Component {
            name: "scheduler",
            container: json!({"args": ["bench", "schedule"]}),
            replicas: 1,
            resources,
            default_resources: ["100m", "256Mi", "1", "1Gi"],
            // `bench schedule` ignores SIGTERM as PID 1: waiting longer gains nothing.
            grace_seconds: 5,
            recreate: true,
        },
    )
}
