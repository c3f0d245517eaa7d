//! The ServiceMonitor, if the bench enables monitoring and the Prometheus operator is installed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::{
    controllers::bench::model::Input,
    domain::{
        foreign::{Endpoint, ServiceMonitorSpec},
        labels,
        object::Desired,
    },
};

/// Default path of the metrics.
const PATH: &str = "/metrics";
/// Default seconds between two scrapes.
const INTERVAL_SECONDS: i32 = 30;

/// The ServiceMonitor of gunicorn's Service.
pub(super) fn service_monitor(input: &Input) -> Option<Desired> {
    let config = input.bench.spec.monitoring.clone().unwrap_or_default();
    if !input.capabilities.service_monitors || !config.enabled.unwrap_or(false) {
        return None;
    }
    let labels = labels::component(&input.name(), "gunicorn");
    let endpoint = Endpoint {
        port: "http",
        path: config.path.unwrap_or_else(|| PATH.to_owned()),
        interval: format!("{}s", config.interval_seconds.unwrap_or(INTERVAL_SECONDS)),
    };
    let spec = ServiceMonitorSpec {
        selector: LabelSelector { match_labels: Some(labels), match_expressions: None },
        endpoints: vec![endpoint],
    };
    Some(input.object("gunicorn", "gunicorn", spec).into())
}
