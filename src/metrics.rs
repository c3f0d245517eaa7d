//! Metrics: the recorder, and what each metric means. Names are controller-runtime's where it has one; no label holds
//! an object's name.

use std::time::Duration;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of durations, in seconds: controller-runtime's.
const SECONDS: [f64; 14] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// How often samples are sorted into buckets. No request is made.
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

/// Sorts samples into their buckets, for ever: where nobody scrapes, every one would be kept.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}

fn describe() {
    describe_counter!("controller_runtime_reconcile_total", "Reconciles by controller and result");
    describe_counter!("controller_runtime_reconcile_errors_total", "Reconciles that failed");
    describe_counter!("controller_runtime_reconcile_panics_total", "Reconciles that panicked");
    describe_histogram!("controller_runtime_reconcile_time_seconds", Unit::Seconds, "Time of one reconcile");
    describe_gauge!("controller_runtime_active_workers", "Reconciles that run");
    describe_gauge!(
        "controller_runtime_max_concurrent_reconciles",
        "Reconciles of one bench's sites that may run at once"
    );
    describe_gauge!("workqueue_depth", "Keys that wait");
    describe_counter!("workqueue_adds_total", "Keys that were queued");
    describe_counter!("workqueue_retries_total", "Keys that were queued again after a failure");
    describe_histogram!("workqueue_queue_duration_seconds", Unit::Seconds, "Time from queueing to start");
    describe_histogram!("workqueue_work_duration_seconds", Unit::Seconds, "Time of one key's work");
    describe_gauge!("frappe_operator_oldest_pending_seconds", "Time that the oldest waiting key has waited");
    describe_counter!("rest_client_requests_total", "Requests to the API server by verb, resource and code");
    describe_counter!("rest_client_response_bytes_total", "Bytes of answers of the API server, watches included");
    describe_histogram!("rest_client_request_duration_seconds", Unit::Seconds, "Time of one request");
    describe_counter!("sharding_refused_writes_total", "Writes that the gate refused");
    describe_counter!("sharding_watch_errors_total", "Watches that were interrupted");
    describe_gauge!("workqueue_unfinished_work_seconds", "Time that the running reconciles have taken, together");
    describe_gauge!("workqueue_longest_running_processor_seconds", "Time that the longest running reconcile has taken");
    describe_gauge!("frappe_operator_lanes", "Benches with sites that wait or run");
    describe_gauge!("frappe_operator_watches", "Kinds that are watched");
    describe_gauge!("frappe_operator_shard_slots", "Slots of this replica");
    describe_gauge!("frappe_operator_shard_sites", "Sites in them");
    describe_gauge!("frappe_operator_shard_draining_slots", "Slots that it is giving away");
    describe_gauge!(
        "frappe_operator_shard_acting",
        "1 while it may act: its Lease is renewed and the slot map was read"
    );
    describe_gauge!("frappe_operator_shard_coordinator", "1 while it is coordinator");
    describe_gauge!(
        "frappe_operator_shard_stale_sites",
        "Sites whose present spec was not reconciled for 2 minutes: alert on it"
    );
    describe_gauge!(
        "frappe_operator_shard_oldest_unreconciled_seconds",
        "Time that the oldest unreconciled spec has waited"
    );
    describe_counter!("frappe_operator_shard_gained_slots_total", "Slots that were taken over");
    describe_counter!("frappe_operator_shard_fenced_total", "Times that this replica was fenced and joined again");
    describe_gauge!("frappe_operator_fleet_members", "Replicas, as this one sees them");
    describe_gauge!("frappe_operator_fleet_unowned_slots", "Slots that nobody alive owns: alert on it");
    describe_gauge!("frappe_operator_config_bad_values", "Values of the ConfigMap that were not taken");
    describe_gauge!("frappe_operator_build_info", "Version of the operator; always 1");
}
