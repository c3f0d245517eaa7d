//! The API server's audit log: the operator's requests.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use jiff::Timestamp;
use serde_json::Value;

/// One completed request.
#[derive(Clone, Debug)]
pub struct Request {
    /// get, list, watch, create, update, patch or delete.
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural of the kind, with a subresource after a slash.
    pub resource: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// HTTP status.
    pub code: i64,
    /// When the server received it.
    pub at: Timestamp,
    /// How long the server took to respond, in milliseconds.
    pub answered_milliseconds: f64,
    /// The pod whose process sent it.
    pub pod: String,
}

impl Request {
    /// Whether it is part of the operator's work: not a Lease, slot map or Event.
    pub fn is_work(&self) -> bool {
        !["leases", "slotmaps", "events"].contains(&self.resource.as_str())
    }

    /// Whether it is a write of the operator's work.
    pub fn is_work_write(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str()) && self.is_work()
    }
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}/{} {}", self.verb, self.resource, self.namespace, self.name, self.code)
    }
}

/// Every event of the audit logs in a folder: the API server starts a new file at 100 MB.
pub fn events(folder: &Path) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Value>>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("audit") && path.extension().is_some_and(|it| it == "log") {
            files.push(path);
        }
    }
    // Files with a time in their name are older, in order; audit.log is the newest.
    files.sort_by_key(|path| (path.ends_with("audit.log"), path.clone()));
    let files: Vec<File> = files.iter().map(File::open).collect::<Result<_, _>>()?;
    let lines = files.into_iter().flat_map(|file| BufReader::new(file).lines());
    Ok(lines.filter_map(|line| match line {
        // The last line may be incomplete.
        Ok(line) => serde_json::from_str(&line).ok().map(Ok),
        Err(error) => Some(Err(error.into())),
    }))
}

/// Which clients' requests to read, by their user agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agents {
    /// This project's operator.
    Ours,
    /// Every client that is not part of the cluster or of the load test: another operator.
    Others,
}

impl Agents {
    fn wants(self, agent: &str) -> bool {
        let known = ["kube-", "kubectl/", "kwok", "Go-http-client", "kubernetes"];
        match self {
            Self::Ours => agent.starts_with("frappe-operator/"),
            // kube-rs' own client, which the load test uses, sends none.
            Self::Others => !agent.is_empty() && !known.iter().any(|it| agent.starts_with(it)),
        }
    }
}

/// The operator's requests since a time, from the folder of a cluster's audit logs.
pub fn requests(logs: &Path, since: Timestamp) -> anyhow::Result<Vec<Request>> {
    Ok(requests_by(logs, &Agents::Ours)?.into_iter().filter(|request| request.at >= since).collect())
}

/// All requests of these clients, in the order of their responses.
pub fn requests_by(logs: &Path, agents: &Agents) -> anyhow::Result<Vec<Request>> {
    let mut found = Vec::new();
    for event in events(logs)? {
        let event = event?;
        if agents.wants(event["userAgent"].as_str().unwrap_or_default()) {
            found.push(parse(&event));
        }
    }
    Ok(found)
}

fn parse(event: &Value) -> Request {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let subresource = text(&object["subresource"]);
    let resource = text(&object["resource"]);
    let time = |name: &str| event[name].as_str().and_then(|it| it.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH);
    let at = time("requestReceivedTimestamp");
    Request {
        verb: text(&event["verb"]),
        group: text(&object["apiGroup"]),
        version: text(&object["apiVersion"]),
        resource: if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") },
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        code: event["responseStatus"]["code"].as_i64().unwrap_or(0),
        at,
        answered_milliseconds: time("stageTimestamp").duration_since(at).as_secs_f64() * 1e3,
        pod: pod_of(event).to_owned(),
    }
}

/// The pod in an audit event's user agent: `frappe-operator/0.1.0 (pod; uid)`.
pub fn pod_of(event: &Value) -> &str {
    let agent = event["userAgent"].as_str().unwrap_or_default();
    agent.split_once('(').and_then(|(_, rest)| rest.split_once(';')).map_or("", |(pod, _)| pod)
}

/// Number of requests by verb and resource.
pub fn count<'a>(requests: impl IntoIterator<Item = &'a Request>) -> BTreeMap<(String, String), usize> {
    let mut table = BTreeMap::new();
    for request in requests {
        *table.entry((request.verb.clone(), request.resource.clone())).or_insert(0) += 1;
    }
    table
}
