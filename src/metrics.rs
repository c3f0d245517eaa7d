//! Metrics: recorder and descriptions. Names follow controller-runtime where it has the same metric; no label has an object's
//! name.

use std::time::Duration;

use kube_sharding::gauges::MetricNames;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of durations, in seconds: controller-runtime's.
const SECONDS: [f64; 14] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Interval in which samples are sorted into buckets.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Installs the recorder for the whole process.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    describe();
    gauge!("frappe_operator_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Sorts samples into buckets periodically: without scrapes, all samples would be kept.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}

fn describe() {
    for Metric { kind, name, help, .. } in METRICS {
        match kind {
            Counter => describe_counter!(*name, *help),
            Gauge => describe_gauge!(*name, *help),
            Histogram => describe_histogram!(*name, Unit::Seconds, *help),
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its type.
    pub kind: MetricKind,
    /// Its name; a counter's ends with `_total`, a duration's with `_seconds`.
    pub name: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Its description (HELP).
    pub help: &'static str,
}

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Counter.
    Counter,
    /// Gauge.
    Gauge,
    /// Histogram of durations in seconds.
    Histogram,
}
use MetricKind::{Counter, Gauge, Histogram};

const fn metric(kind: MetricKind, name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { kind, name, labels, help }
}

/// Names of what the sharding shows.
pub const SHARDING_METRICS: MetricNames = MetricNames {
    lanes: "frappe_operator_lanes",
    oldest_pending_seconds: "frappe_operator_oldest_pending_seconds",
    watches: "frappe_operator_watches",
    slots: "frappe_operator_shard_slots",
    objects: "frappe_operator_shard_sites",
    draining_slots: "frappe_operator_shard_draining_slots",
    acting: "frappe_operator_shard_acting",
    coordinator: "frappe_operator_shard_coordinator",
    members: "frappe_operator_fleet_members",
    unowned_slots: "frappe_operator_fleet_unowned_slots",
    gained_slots: "frappe_operator_shard_gained_slots_total",
    fenced: "frappe_operator_shard_fenced_total",
};

/// Every metric of this program. `name` is the queue, `frappesite`, `sitebackup`, `sitejob` or `frappebench`; so is `controller`.
pub const METRICS: &[Metric] = &[
    metric(
        Counter,
        "frappe_operator_backups_total",
        &["operation", "result"],
        "Finished backups, restores and removals of backups, by result: succeeded, failed or missed",
    ),
    metric(
        Counter,
        "frappe_operator_site_jobs_total",
        &["result"],
        "SiteJobs that have ended, by result: succeeded or failed",
    ),
    metric(
        Counter,
        "controller_runtime_reconcile_total",
        &["controller", "result"],
        "Reconciles by controller and result",
    ),
    metric(Counter, "controller_runtime_reconcile_errors_total", &["controller"], "Reconciles that failed"),
    metric(Counter, "controller_runtime_reconcile_panics_total", &["controller"], "Reconciles that panicked"),
    metric(Histogram, "controller_runtime_reconcile_time_seconds", &["controller"], "Duration of reconciles"),
    metric(Gauge, "controller_runtime_active_workers", &["controller"], "Running reconciles"),
    metric(
        Gauge,
        "controller_runtime_max_concurrent_reconciles",
        &["controller"],
        "Limit of concurrent site reconciles per bench",
    ),
    metric(Gauge, "workqueue_depth", &["name"], "Objects waiting in the queue"),
    metric(Counter, "workqueue_adds_total", &["name"], "Objects added to the queue"),
    metric(Counter, "workqueue_retries_total", &["name"], "Objects queued again after a failure"),
    metric(
        Histogram,
        "workqueue_queue_duration_seconds",
        &["name"],
        "Time an object waited in the queue before its reconcile started",
    ),
    metric(Histogram, "workqueue_work_duration_seconds", &["name"], "Duration of reconciles"),
    metric(
        Gauge,
        "frappe_operator_oldest_pending_seconds",
        &["name"],
        "Age of the object that has waited longest in the queue",
    ),
    metric(
        Counter,
        "rest_client_requests_total",
        &["method", "resource", "code"],
        "Requests to the API server by verb, resource and code",
    ),
    metric(
        Counter,
        "rest_client_response_bytes_total",
        &["method"],
        "Response bytes received from the API server, including watches",
    ),
    metric(Histogram, "rest_client_request_duration_seconds", &["method"], "Duration of requests to the API server"),
    metric(
        Counter,
        "sharding_map_corrections_total",
        &[],
        "Invalid entries of the slot map that were corrected on read; caused by manual edits",
    ),
    metric(Counter, "sharding_refused_writes_total", &[], "Writes refused because this replica did not own the object"),
    metric(Counter, "sharding_watch_errors_total", &[], "Interrupted watches"),
    metric(Gauge, "workqueue_unfinished_work_seconds", &["name"], "Total elapsed time of running reconciles"),
    metric(
        Gauge,
        "workqueue_longest_running_processor_seconds",
        &["name"],
        "Elapsed time of the longest-running reconcile",
    ),
    metric(Gauge, "frappe_operator_lanes", &["name"], "Benches with sites in the queue or being reconciled"),
    metric(Gauge, "frappe_operator_watches", &[], "Watched kinds"),
    metric(Gauge, "frappe_operator_shard_slots", &[], "Slots this replica owns"),
    metric(Gauge, "frappe_operator_shard_sites", &[], "FrappeSites in the slots this replica owns"),
    metric(Gauge, "frappe_operator_shard_draining_slots", &[], "Slots being handed over by this replica"),
    metric(
        Gauge,
        "frappe_operator_shard_acting",
        &[],
        "1 while this replica may act: its Lease is renewed and it has read the slot map",
    ),
    metric(Gauge, "frappe_operator_shard_coordinator", &[], "1 while this replica is the coordinator"),
    metric(
        Gauge,
        "frappe_operator_shard_stale_sites",
        &[],
        "Sites whose spec has not been reconciled for 2 minutes; 0 when healthy",
    ),
    metric(
        Gauge,
        "frappe_operator_shard_oldest_unreconciled_seconds",
        &[],
        "Age of the oldest spec not yet reconciled",
    ),
    metric(Counter, "frappe_operator_shard_gained_slots_total", &[], "Slots this replica took over"),
    metric(
        Counter,
        "frappe_operator_shard_fenced_total",
        &[],
        "Times this replica was fenced (lost its Lease) and rejoined",
    ),
    metric(Gauge, "frappe_operator_fleet_members", &[], "Live replicas, as seen by this one"),
    metric(Gauge, "frappe_operator_fleet_unowned_slots", &[], "Slots without a live owner; 0 when healthy"),
    metric(Gauge, "frappe_operator_config_bad_values", &[], "Invalid values in the operator's ConfigMap"),
    metric(Gauge, "frappe_operator_build_info", &["version"], "Version of the operator; always 1"),
];
