//! Number of workers of each queue: fixed, or set by KEDA according to the queued and running jobs.

use frappe_crds::{
    bench::{ComponentResources, FrappeBenchSpec, QueueAutoscaling},
    common::Resources,
};
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};

use super::{configure::bench_id, redis};
use crate::{
    controllers::bench::model::Input,
    domain::{
        capabilities::Capabilities,
        foreign::{Advanced, AutoscalerConfig, Fallback, Named, ScaleTarget, ScaledObjectSpec, Trigger},
        names::child,
        object::Desired,
    },
};

/// Default maximum number of workers.
const MOST_REPLICAS: i32 = 10;
/// Default number of queued jobs for each worker.
const TARGET_QUEUE_LENGTH: i32 = 5;
/// Default seconds without a job before the last workers are removed. Frappe's scheduler queues jobs every 240 s: with this time or
/// more, the last worker of a bench with a site would never be removed.
const COOLDOWN_SECONDS: i32 = 120;
/// Default seconds between two queries of a queue.
const POLLING_SECONDS: i32 = 15;
/// Failed queries after which KEDA uses the fallback's number of workers.
const FAILURE_THRESHOLD: i32 = 3;
/// Seconds for which fewer workers must be sufficient before one is removed.
const SCALE_DOWN_WINDOW_SECONDS: i32 = 300;

/// Workers of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// The queue.
    pub queue: &'static str,
    /// Workers while KEDA does not scale them.
    pub fixed: i32,
    /// Settings for KEDA, if the bench enables autoscaling.
    pub wanted: Option<Autoscaling>,
}

impl Scaling {
    /// Whether KEDA sets the number: it is enabled and installed.
    pub fn is_by_keda(&self, capabilities: Capabilities) -> bool {
        capabilities.keda && self.wanted.is_some()
    }
}

/// Settings for KEDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Autoscaling {
    /// Minimum number of workers.
    pub least: i32,
    /// Maximum number of workers.
    pub most: i32,
    target_queue_length: i32,
    cooldown_seconds: i32,
    polling_seconds: i32,
}

/// Scaling of the queues default, short and long.
///
/// The fixed number is `workerAutoscaling.QUEUE.staticReplicas`, else the deprecated `componentReplicas.workerQUEUE`,
/// else the minimum of the autoscaling but at least 1, because without KEDA nothing would scale up from zero.
pub fn worker_scaling(spec: &FrappeBenchSpec) -> [Scaling; 3] {
    let autoscaling = spec.worker_autoscaling.clone().unwrap_or_default();
    let components = spec.component_replicas.clone().unwrap_or_default();
    [
        of("default", autoscaling.default.as_ref(), components.worker_default),
        of("short", autoscaling.short.as_ref(), components.worker_short),
        of("long", autoscaling.long.as_ref(), components.worker_long),
    ]
}

fn of(queue: &'static str, entry: Option<&QueueAutoscaling>, deprecated: Option<i32>) -> Scaling {
    let fixed = entry.and_then(|it| it.static_replicas).or(deprecated);
    let least = entry.and_then(|it| it.min_replicas).unwrap_or(0);
    let wanted = entry.filter(|it| it.enabled.unwrap_or(true)).map(|it| Autoscaling {
        least,
        most: it.max_replicas.unwrap_or(MOST_REPLICAS),
        target_queue_length: it.target_queue_length.or(it.queue_length).unwrap_or(TARGET_QUEUE_LENGTH),
        cooldown_seconds: it.cooldown_period.unwrap_or(COOLDOWN_SECONDS),
        polling_seconds: it.polling_interval.unwrap_or(POLLING_SECONDS),
    });
    Scaling { queue, fixed: fixed.unwrap_or(least.max(1)), wanted }
}

/// ScaledObjects of the workers that KEDA scales, and its authentication for the queues.
pub(super) fn objects(input: &Input) -> Vec<Desired> {
    let objects = scaled_objects(input);
    let authentication = redis::keda_authentication(input).filter(|_| !objects.is_empty());
    authentication.into_iter().chain(objects).collect()
}

/// ScaledObjects of the workers that KEDA scales.
pub(super) fn scaled_objects(input: &Input) -> Vec<Desired> {
    if !input.capabilities.keda {
        return Vec::new();
    }
    let scaled = worker_scaling(&input.bench.spec);
    let of = |worker: &Worker| {
        let scaling = scaled.iter().find(|it| it.queue == worker.queues[0])?;
        Some(scaled_object(input, worker, scaling, &scaling.wanted?))
    };
    WORKERS.iter().filter_map(of).collect()
}

/// One trigger for queued and one for running jobs, for every queue of the workers. The list contains only queued jobs: without the
/// second trigger, the cooldown would end a long job. The number of workers is the largest of all triggers.
fn scaled_object(input: &Input, worker: &Worker, scaling: &Scaling, wanted: &Autoscaling) -> Desired {
    let component = input.component(worker.component);
    let name = child(&input.name(), &component);
    let policy = HPAScalingPolicy { type_: "Pods".to_owned(), value: 1, period_seconds: 60 };
    let scale_down = HPAScalingRules {
        stabilization_window_seconds: Some(SCALE_DOWN_WINDOW_SECONDS),
        policies: Some(vec![policy]),
        ..HPAScalingRules::default()
    };
    let behavior = HorizontalPodAutoscalerBehavior { scale_down: Some(scale_down), scale_up: None };
    let spec = ScaledObjectSpec {
        scale_target_ref: ScaleTarget { api_version: "apps/v1", kind: "Deployment", name: name.clone() },
        min_replica_count: wanted.least,
        max_replica_count: wanted.most,
        polling_interval: wanted.polling_seconds,
        cooldown_period: wanted.cooldown_seconds,
        // Otherwise a ScaledObject that was never active is scaled to the minimum at once.
        initial_cooldown_period: wanted.cooldown_seconds,
        // Keeps the workers while Redis does not respond. It does not scale up from zero, and KEDA 2.21 does not count failures of
        // an unreachable server, because it recreates its client first.
        fallback: Fallback {
            failure_threshold: FAILURE_THRESHOLD,
            replicas: scaling.fixed.clamp(1, wanted.most),
            behavior: "currentReplicasIfHigher",
        },
        advanced: Advanced { horizontal_pod_autoscaler_config: AutoscalerConfig { name, behavior } },
        triggers: worker.queues.iter().flat_map(|queue| triggers(input, queue, wanted)).collect(),
    };
    input.object(&component, &component, spec).into()
}

fn triggers(input: &Input, queue: &str, wanted: &Autoscaling) -> [Trigger; 2] {
    let [waiting, running] = queue_keys(&bench_id(input), queue);
    let connection = redis::queue_connection(input.bench);
    let trigger = |name: String, key: String, length: i32| {
        let metadata = [
            ("listName", key),
            ("listLength", length.to_string()),
            ("activationListLength", "0".to_owned()),
            ("enableTLS", connection.tls.unwrap_or(false).to_string()),
            ("databaseIndex", connection.database_index.unwrap_or(0).to_string()),
        ];
        let address = redis::queue_address(input).map(|address| ("address", address));
        let authentication_ref = redis::authentication_name(input).map(|name| Named { name });
        Trigger { type_: "redis", name, metadata: metadata.into_iter().chain(address).collect(), authentication_ref }
    };
    [
        trigger(format!("waiting-{queue}"), waiting, wanted.target_queue_length),
        trigger(format!("running-{queue}"), running, 1),
    ]
}

/// Keys of a queue in Redis: the list of queued jobs, and the sorted set of running jobs.
///
/// Source: `generate_qname` of Frappe 14 to 16, and rq 1.11 to 2.6 (`Queue.redis_queue_namespace_prefix`,
/// `StartedJobRegistry.key_template`); verified with a real worker by `tests/queues`.
pub fn queue_keys(bench_id: &str, queue: &str) -> [String; 2] {
    [format!("rq:queue:{bench_id}:{queue}"), format!("rq:wip:{bench_id}:{queue}")]
}

/// One kind of worker: the queues that it serves, first its own. Workers cover each other's queues.
pub(super) struct Worker {
    /// Name of its component.
    pub component: &'static str,
    /// The queues that it serves, first its own.
    pub queues: &'static [&'static str],
    /// Seconds to finish a job: the longest timeout of its queues (300 s, long 1500 s) and a minute.
    pub grace_seconds: i64,
    /// Resources of its container in the spec.
    pub resources: fn(&ComponentResources) -> Option<&Resources>,
}

/// The workers, with the same queues as in upstream's compose file.
pub(super) const WORKERS: [Worker; 3] = [
    Worker {
        component: "worker-default",
        queues: &["default", "short"],
        grace_seconds: 360,
        resources: |it| it.worker_default_dashed.as_ref().or(it.worker_default.as_ref()),
    },
    Worker {
        component: "worker-short",
        queues: &["short", "default"],
        grace_seconds: 360,
        resources: |it| it.worker_short_dashed.as_ref().or(it.worker_short.as_ref()),
    },
    Worker {
        component: "worker-long",
        queues: &["long", "default", "short"],
        grace_seconds: 1560,
        resources: |it| it.worker_long_dashed.as_ref().or(it.worker_long.as_ref()),
    },
];
