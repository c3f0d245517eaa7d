//! How Prometheus finds the bench, where the bench asks for it and the Prometheus operator is installed.

use serde_json::json;

use crate::{
    controllers::bench::model::Input,
    domain::{
        labels,
        object::{Desired, Kind},
    },
};

/// Path of the metrics where the bench names none.
const PATH: &str = "/metrics";
/// Seconds between two scrapes where the bench names no number.
const INTERVAL_SECONDS: i32 = 30;

/// A ServiceMonitor of gunicorn's Service.
pub(super) fn service_monitor(input: &Input) -> Option<Desired> {
    let config = input.bench.spec.monitoring.clone().unwrap_or_default();
    if !input.capabilities.service_monitors || !config.enabled.unwrap_or(false) {
        return None;
    }
    let spec = json!({
        "selector": {"matchLabels": labels::component(&input.name(), "gunicorn")},
        "endpoints": [{
            "port": "http", "path": config.path.as_deref().unwrap_or(PATH),
            "interval": format!("{}s", config.interval_seconds.unwrap_or(INTERVAL_SECONDS)),
        }],
    });
    Some(input.object(Kind::ServiceMonitor, "gunicorn", "gunicorn", &spec))
}
