//! `status`: a table of benches and sites, those that are not ready first.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Context as _;
use frappe_crds::{FrappeBench, FrappeSite};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ListMeta};
use kube::{Client, Resource, ResourceExt, api::ListParams, core::Request};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::output::{age, connect, counted, print};
use crate::{
    cli::{StatusArguments, TargetArguments},
    controllers::site::watch::lane,
    domain::{condition, key::Key},
    io::{cached::Cached, live},
};

/// Page size of a list request.
const PAGE_SIZE: u32 = 500;
/// Characters of a message that the table shows.
const MESSAGE_CHARACTERS: usize = 100;

/// A row: a bench or site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `bench` or `site`.
    pub kind: &'static str,
    /// Its namespace and name.
    pub name: String,
    /// The bench of a site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bench: Option<String>,
    /// Whether it is Ready with its newest spec.
    pub settled: bool,
    /// Whether its condition Ready is True.
    pub ready: bool,
    /// Reason: one in docs/troubleshooting.md, or `NotReconciled` or `SpecNotObserved`, which the status does not contain.
    pub reason: String,
    /// Message of the reason.
    pub message: String,
    /// Last transition of the condition Ready.
    pub since: Option<Timestamp>,
}

/// A site's row.
pub fn of_site(site: &FrappeSite) -> Row {
    let status = site.status.clone().unwrap_or_default();
    let mut row = row("site", site, &status.conditions, status.observed_generation);
    row.bench = Some(lane(site).to_string());
    let is_suspended = |it: &Condition| it.reason == "Suspended";
    if let Some(it) = condition::find(&status.conditions, "Progressing").filter(|it| is_suspended(it)) {
        (row.settled, row.reason, row.message) = (false, it.reason.clone(), it.message.clone());
    }
    row
}

/// A bench's row.
pub fn of_bench(bench: &FrappeBench) -> Row {
    let status = bench.status.clone().unwrap_or_default();
    row("bench", bench, &status.conditions, status.observed_generation)
}

fn row<K: Resource>(kind: &'static str, object: &K, conditions: &[Condition], seen: Option<i64>) -> Row {
    let created = object.creation_timestamp().map(|it| it.0);
    let (ready, reason, message, since) = match condition::find(conditions, "Ready") {
        Some(it) => (it.status == "True", it.reason.clone(), it.message.clone(), Some(it.last_transition_time.0)),
        None => (false, "NotReconciled".to_owned(), "not reconciled by any replica yet".to_owned(), created),
    };
    let newest = seen == object.meta().generation;
    let (reason, message) = if ready && !newest {
        ("SpecNotObserved".to_owned(), "the current spec has not been reconciled yet".to_owned())
    } else {
        (reason, message)
    };
    Row {
        kind,
        name: Key::of(object).to_string(),
        bench: None,
        settled: ready && newest && reason == "Ready",
        ready,
        reason,
        message,
        since,
    }
}

/// The table: counts by reason, then the objects that are not settled, longest-waiting first; with `all` also the others.
pub fn table(rows: &[Row], now: Timestamp, all: bool) -> String {
    let mut text = String::new();
    for kind in ["bench", "site"] {
        let of_kind: Vec<&Row> = rows.iter().filter(|row| row.kind == kind).collect();
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &of_kind {
            *reasons.entry(&row.reason).or_default() += 1;
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
        let counts: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
        let _ = writeln!(text, "{}{counts}", counted(of_kind.len(), kind));
    }
    let mut shown: Vec<&Row> = rows.iter().filter(|row| all || !row.settled).collect();
    if shown.is_empty() {
        return text;
    }
    shown.sort_by_key(|row| (row.settled, row.kind, row.since, &row.name));
    let width = shown.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(4);
    let _ = writeln!(text, "\n{:<5} {:<width$} {:<5} {:<22} {:>5} MESSAGE", "KIND", "NAME", "READY", "REASON", "FOR");
    for row in shown {
        let since = row.since.map_or_else(String::new, |since| age(now.duration_since(since).as_secs()));
        let message: String = row.message.chars().take(MESSAGE_CHARACTERS).collect();
        let line =
            format!("{:<5} {:<width$} {:<5} {:<22} {since:>5} {message}", row.kind, row.name, row.ready, row.reason);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Prints the table.
#[expect(clippy::disallowed_methods, reason = "ages in the output")]
pub async fn status(arguments: StatusArguments, target: &TargetArguments) -> anyhow::Result<()> {
    let cluster = connect(target).await?;
    let client = &cluster.client;
    let namespace = arguments.namespace.as_deref();
    let mut rows: Vec<Row> = rows(client, namespace, of_bench).await.context("list the benches")?;
    rows.extend(self::rows(client, namespace, of_site).await.context("list the sites")?);
    if let Some(bench) = &arguments.bench {
        let bench = cluster.named(bench).to_string();
        rows.retain(|row| row.bench.as_ref().unwrap_or(&row.name) == &bench);
    }
    if arguments.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&rows)?));
    }
    print(&table(&rows, Timestamp::now(), arguments.all))
}

/// Gets a site, also one whose spec cannot be parsed.
pub(super) async fn site_of(client: &Client, key: &Key) -> anyhow::Result<FrappeSite> {
    let found = live::site(client, key).await.with_context(|| format!("get FrappeSite {key}"))?;
    found.with_context(|| format!("FrappeSite {key} not found"))
}

/// A page of a list, whose objects are text, so that an object that cannot be parsed does not hide the others.
#[derive(Deserialize)]
struct Page<'a> {
    metadata: ListMeta,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// Lists page by page, to bound memory.
async fn rows<K>(client: &Client, namespace: Option<&str>, row: fn(&K) -> Row) -> Result<Vec<Row>, kube::Error>
where
    K: Cached<Form = K> + Resource<DynamicType = ()>,
{
    let builder = Request::new(K::url_path(&(), namespace));
    let (mut rows, mut next) = (Vec::new(), Some(ListParams::default().limit(PAGE_SIZE)));
    while let Some(parameters) = next {
        let request = builder.list(&parameters).map_err(kube::Error::BuildRequest)?;
        let text = client.request_text(request).await?;
        let page: Page<'_> = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
        rows.extend(page.items.iter().filter_map(|it| K::read(it.get())).map(|object| row(&object)));
        let more = page.metadata.continue_.filter(|it| !it.is_empty());
        next = more.map(|token| ListParams::default().limit(PAGE_SIZE).continue_token(&token));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn site(name: &str, generation: i64, status: &serde_json::Value) -> FrappeSite {
        serde_json::from_value(json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite",
            "metadata": {"name": name, "namespace": "shops", "generation": generation, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"siteName": "a.example.com", "benchRef": {"name": "main", "namespace": "benches"}},
            "status": status,
        }))
        .expect("a site")
    }

    fn condition(status: &str, reason: &str) -> serde_json::Value {
        json!({"observedGeneration": 1, "conditions": [{"type": "Ready", "status": status, "reason": reason,
            "message": format!("says {reason}"), "lastTransitionTime": "2026-01-01T01:00:00Z"}]})
    }

    #[test]
    fn the_longest_waiting_come_first_and_ready_ones_are_only_counted() {
        let sites = [
            site("served", 1, &condition("True", "Ready")),
            site("edited", 2, &condition("True", "Ready")),
            site("changing", 1, &condition("True", "Configuring")),
            site("stuck", 1, &condition("False", "HostClaimed")),
            site("new", 1, &json!(null)),
        ];
        let rows: Vec<Row> = sites.iter().map(of_site).collect();
        let now: Timestamp = "2026-01-01T03:30:00Z".parse().expect("a time");
        insta::assert_snapshot!(table(&rows, now, false), @r"
        0 benches
        5 sites: 1 Configuring, 1 HostClaimed, 1 NotReconciled, 1 Ready, 1 SpecNotObserved

        KIND  NAME           READY REASON                   FOR MESSAGE
        site  shops/new      false NotReconciled             3h not reconciled by any replica yet
        site  shops/changing true  Configuring               2h says Configuring
        site  shops/edited   true  SpecNotObserved           2h the current spec has not been reconciled yet
        site  shops/stuck    false HostClaimed               2h says HostClaimed
        ");
        assert!(table(&rows, now, true).lines().last().is_some_and(|line| line.contains("shops/served")));
        assert_eq!(rows[0].bench.as_deref(), Some("benches/main"));
    }

    #[test]
    fn a_fleet_without_problems_is_two_lines() {
        let rows = [of_site(&site("served", 1, &condition("True", "Ready")))];
        assert_eq!(table(&rows, Timestamp::UNIX_EPOCH, false), "0 benches\n1 site: 1 Ready\n");
    }
}
