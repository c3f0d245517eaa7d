//! Prints the history of a failure if `SIM_TRACE` is set.

use std::collections::BTreeMap;

use kube_sharding_sim::{BY_HAND, Server};
use serde_json::Value;
use tokio::time::Instant;

/// Returns the error, and prints the history if `SIM_TRACE` is set.
pub(crate) fn explain(server: &Server, error: &str) -> String {
    if std::env::var_os("SIM_TRACE").is_some() {
        let written = server.written();
        let writes = written.iter().filter(|it| it.place.plural() != "configmaps");
        let shown = writes
            .map(|it| (it.at, format!("process {} wrote {} {}", sender(it.sender), it.version, brief(&it.object))));
        let mut lines: Vec<(Instant, String)> = shown.chain(server.notes()).collect();
        lines.sort_by_key(|(at, _)| *at);
        let since = |at: &Instant| at.duration_since(server.begun()).as_secs_f64();
        lines.iter().for_each(|(at, text)| println!("{:8.3} {text}", since(at)));
    }
    error.to_owned()
}

/// A Lease or a map in one line.
fn brief(object: &Value) -> String {
    if object["kind"] == "Lease" {
        let notes = &object["metadata"]["annotations"];
        return format!("{} held by {} {notes}", object["metadata"]["name"], object["spec"]["holderIdentity"]);
    }
    let owners = object["spec"]["owners"].as_array().cloned().unwrap_or_default();
    let mut loads = BTreeMap::new();
    owners.iter().for_each(|it| *loads.entry(it.to_string()).or_insert(0) += 1);
    format!(
        "map {} {} generation {} members {} loads {loads:?}",
        object["metadata"]["uid"],
        object["metadata"]["resourceVersion"],
        object["spec"]["generation"],
        object["spec"]["members"]
    )
}

fn sender(process: usize) -> String {
    if process == BY_HAND { "of the test".to_owned() } else { process.to_string() }
}
