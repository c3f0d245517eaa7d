//! `status`: a table of benches, sites and SiteBackups, those that are not ready first, with rollouts and versions of Frappe.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use anyhow::Context as _;
use frappe_crds::{FrappeBench, FrappeSite, SiteBackup, bench::RolloutPhase};
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

/// What is listed, in this order.
const KINDS: [&str; 3] = ["bench", "site", "backup"];
/// Page size of a list request.
const PAGE_SIZE: u32 = 500;
/// Characters of a message that the table shows.
const MESSAGE_CHARACTERS: usize = 100;

/// How long a backup may wait for its start before it is late, in seconds: as long as an update or a restore of its site takes.
const LATE_SECONDS: i64 = 3600;

/// A row: a bench, site or SiteBackup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `bench`, `site` or `backup`.
    pub kind: &'static str,
    /// Its namespace and name.
    pub name: String,
    /// The bench of a site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bench: Option<String>,
    /// Version of Frappe whose schema a site has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How far the sites of a bench are on their way to its newest image, unless they have arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// Whether it is Ready with its newest spec; of a SiteBackup, whether its last backup succeeded and its next one is not late.
    pub settled: bool,
    /// Whether its condition Ready is True.
    pub ready: bool,
    /// Reason: one in docs/troubleshooting.md, or `NotReconciled`, `SpecNotObserved` or `BackupLate`, which the status does
    /// not contain.
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
    row.version = status.apps.iter().find(|it| it.name == "frappe").and_then(|it| it.version.clone());
    let is_suspended = |it: &Condition| it.reason == "Suspended";
    if let Some(it) = condition::find(&status.conditions, "Progressing").filter(|it| is_suspended(it)) {
        (row.settled, row.reason, row.message) = (false, it.reason.clone(), it.message.clone());
    }
    row
}

/// A bench's row.
pub fn of_bench(bench: &FrappeBench) -> Row {
    let status = bench.status.clone().unwrap_or_default();
    let mut row = row("bench", bench, &status.conditions, status.observed_generation);
    let rollout = status.rollout.filter(|it| it.phase != RolloutPhase::Completed || it.failed > 0);
    row.rollout = rollout.map(|it| {
        let reason = it.reason.map(|it| format!(" ({it:?})")).unwrap_or_default();
        format!(
            "to revision {}: {:?}{reason}, {} of {} sites have moved, {} failed, {} held",
            it.to, it.phase, it.updated, it.total, it.failed, it.held
        )
    });
    row
}

/// A SiteBackup's row.
pub fn of_backup(backup: &SiteBackup, now: Timestamp) -> Row {
    let status = backup.status.clone().unwrap_or_default();
    let mut row = row("backup", backup, &status.conditions, status.observed_generation);
    row.settled = row.ready && status.observed_generation == backup.metadata.generation;
    let is_suspended = backup.spec.suspend == Some(true);
    let due = status.next_schedule_time.filter(|_| row.settled && !is_suspended).map(|it| it.0);
    if let Some(due) = due.filter(|due| now.duration_since(*due).as_secs() > LATE_SECONDS) {
        let last = status.last_successful_backup.map_or_else(|| "none has succeeded".to_owned(), |it| it.name);
        (row.settled, row.since, row.reason) = (false, Some(due), "BackupLate".to_owned());
        row.message = format!("a backup is due since {due}; the last one: {last}");
    }
    row
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
        version: None,
        rollout: None,
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
    for kind in KINDS {
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
    text.push_str(&versions_and_rollouts(rows));
    let mut shown: Vec<&Row> = rows.iter().filter(|row| all || !row.settled).collect();
    if shown.is_empty() {
        return text;
    }
    shown.sort_by_key(|row| (row.settled, KINDS.iter().position(|it| *it == row.kind), row.since, &row.name));
    let width = shown.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(4);
    let _ = writeln!(text, "\n{:<6} {:<width$} {:<5} {:<22} {:>5} MESSAGE", "KIND", "NAME", "READY", "REASON", "FOR");
    for row in shown {
        let since = row.since.map_or_else(String::new, |since| age(now.duration_since(since).as_secs()));
        let message: String = row.message.chars().take(MESSAGE_CHARACTERS).collect();
        let line =
            format!("{:<6} {:<width$} {:<5} {:<22} {since:>5} {message}", row.kind, row.name, row.ready, row.reason);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// How many sites have each version of Frappe, and the rollouts that have not completed.
fn versions_and_rollouts(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for version in rows.iter().filter_map(|row| row.version.as_deref()) {
        *versions.entry(version).or_default() += 1;
    }
    let counts: Vec<_> =
        versions.iter().map(|(version, count)| format!("{version} in {}", counted(*count, "site"))).collect();
    if !counts.is_empty() {
        let _ = writeln!(text, "Frappe: {}", counts.join(", "));
    }
    for row in rows {
        if let Some(rollout) = &row.rollout {
            let _ = writeln!(text, "rollout of {} {rollout}", row.name);
        }
    }
    text
}

/// Prints the table.
#[expect(clippy::disallowed_methods, reason = "ages in the output")]
pub async fn status(arguments: StatusArguments, target: &TargetArguments) -> anyhow::Result<()> {
    let cluster = connect(target).await?;
    let client = &cluster.client;
    let (namespace, now) = (arguments.namespace.as_deref(), Timestamp::now());
    let benches = rows::<FrappeBench, _>(client, namespace, |it| FrappeBench::read(it).as_ref().map(of_bench));
    let mut rows: Vec<Row> = benches.await.context("list the benches")?;
    let sites = self::rows::<FrappeSite, _>(client, namespace, |it| FrappeSite::read(it).as_ref().map(of_site));
    rows.extend(sites.await.context("list the sites")?);
    let of_backup = |text: &str| {
        let backup: SiteBackup = serde_json::from_str(text).ok()?;
        Some((backup.spec.site_ref.name.clone(), of_backup(&backup, now)))
    };
    let backups = self::rows::<SiteBackup, _>(client, namespace, of_backup);
    let backups = backups.await.context("list the SiteBackups")?;
    if let Some(bench) = &arguments.bench {
        let bench = cluster.named(bench).to_string();
        rows.retain(|row| row.bench.as_ref().unwrap_or(&row.name) == &bench);
    }
    rows.extend(of_sites(&rows, arguments.bench.is_some(), backups));
    if arguments.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&rows)?));
    }
    print(&table(&rows, now, arguments.all))
}

/// The rows of SiteBackups, by the names of their sites; with `only_listed` those of sites that are listed.
fn of_sites(rows: &[Row], only_listed: bool, backups: Vec<(String, Row)>) -> Vec<Row> {
    let sites: BTreeSet<&str> = rows.iter().filter(|it| it.kind == "site").map(|it| it.name.as_str()).collect();
    let of = |(site, row): (String, Row)| {
        let namespace = row.name.split_once('/').map_or("", |it| it.0);
        (!only_listed || sites.contains(format!("{namespace}/{site}").as_str())).then_some(row)
    };
    backups.into_iter().filter_map(of).collect()
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

/// Lists page by page, to bound memory; `row` is None for what cannot be read.
async fn rows<K: Resource<DynamicType = ()>, R>(
    client: &Client,
    namespace: Option<&str>,
    row: impl Fn(&str) -> Option<R>,
) -> Result<Vec<R>, kube::Error> {
    let builder = Request::new(K::url_path(&(), namespace));
    let (mut rows, mut next) = (Vec::new(), Some(ListParams::default().limit(PAGE_SIZE)));
    while let Some(parameters) = next {
        let request = builder.list(&parameters).map_err(kube::Error::BuildRequest)?;
        let text = client.request_text(request).await?;
        let page: Page<'_> = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
        rows.extend(page.items.iter().filter_map(|it| row(it.get())));
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
        0 backups

        KIND   NAME           READY REASON                   FOR MESSAGE
        site   shops/new      false NotReconciled             3h not reconciled by any replica yet
        site   shops/changing true  Configuring               2h says Configuring
        site   shops/edited   true  SpecNotObserved           2h the current spec has not been reconciled yet
        site   shops/stuck    false HostClaimed               2h says HostClaimed
        ");
        assert!(table(&rows, now, true).lines().last().is_some_and(|line| line.contains("shops/served")));
        assert_eq!(rows[0].bench.as_deref(), Some("benches/main"));
    }

    #[test]
    fn a_fleet_without_problems_is_three_lines() {
        let rows = [of_site(&site("served", 1, &condition("True", "Ready")))];
        assert_eq!(table(&rows, Timestamp::UNIX_EPOCH, false), "0 benches\n1 site: 1 Ready\n0 backups\n");
    }

    #[test]
    fn versions_and_rollouts_are_named() {
        let with = |version: &str| {
            let mut status = condition("True", "Ready");
            status["apps"] = json!([{"name": "erpnext", "version": "1"}, {"name": "frappe", "version": version}]);
            of_site(&site(version, 1, &status))
        };
        let bench = |rollout: serde_json::Value| {
            let mut status = condition("True", "Ready");
            status["rollout"] = rollout;
            let bench = json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "spec": {"frappeVersion": "version-15"},
                               "metadata": {"name": "main", "namespace": "benches", "generation": 1}, "status": status});
            of_bench(&serde_json::from_value(bench).expect("a bench"))
        };
        let of = |phase: &str, failed: i32| json!({"to": 2, "phase": phase, "wave": 1, "waves": 1, "total": 3, "updated": 1, "failed": failed, "held": 0, "tolerated": 0});
        let rows = [bench(of("Paused", 1)), with("15.1.0"), with("15.2.0"), with("15.2.0")];
        let text = table(&rows, Timestamp::UNIX_EPOCH, false);
        assert!(text.contains("\nFrappe: 15.1.0 in 1 site, 15.2.0 in 2 sites\n"), "{text}");
        let wanted = "\nrollout of benches/main to revision 2: Paused, 1 of 3 sites have moved, 1 failed, 0 held\n";
        assert!(text.contains(wanted), "{text}");
        assert_eq!((bench(of("Completed", 0)).rollout, bench(json!(null)).rollout), (None, None));
    }

    #[test]
    fn late_and_failed_backups_are_listed() {
        let backup = |name: &str, ready: &str, reason: &str, next: &str, suspend: bool| {
            let mut status = condition(ready, reason);
            status["nextScheduleTime"] = json!(next);
            status["lastSuccessfulBackup"] = json!({"name": "backup-1", "succeeded": true});
            serde_json::from_value::<SiteBackup>(json!({
                "apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteBackup", "status": status,
                "metadata": {"name": name, "namespace": "shops", "generation": 1},
                "spec": {"siteRef": {"name": "shop"}, "schedule": "0 2 * * *", "suspend": suspend},
            }))
            .expect("a SiteBackup")
        };
        let all = [
            backup("good", "True", "BackupScheduled", "2026-01-01T02:45:00Z", false),
            backup("late", "True", "BackupScheduled", "2026-01-01T02:00:00Z", false),
            backup("suspended", "True", "BackupSuspended", "2026-01-01T02:00:00Z", true),
            backup("failed", "False", "BackupFailed", "2026-01-02T02:00:00Z", false),
        ];
        let now: Timestamp = "2026-01-01T03:30:00Z".parse().expect("a time");
        let rows: Vec<Row> = all.iter().map(|it| of_backup(it, now)).collect();
        insta::assert_snapshot!(table(&rows, now, false), @r"
        0 benches
        0 sites
        4 backups: 1 BackupFailed, 1 BackupLate, 1 BackupScheduled, 1 BackupSuspended

        KIND   NAME         READY REASON                   FOR MESSAGE
        backup shops/failed false BackupFailed              2h says BackupFailed
        backup shops/late   true  BackupLate               90m a backup is due since 2026-01-01T02:00:00Z; the last one: backup-1
        ");
        let (site, other) = (of_site(&site("shop", 1, &json!(null))), rows.clone());
        let of = |name: &str| other.iter().cloned().map(|row| (name.to_owned(), row)).collect();
        assert_eq!(of_sites(std::slice::from_ref(&site), true, of("shop")).len(), 4);
        assert_eq!(of_sites(std::slice::from_ref(&site), true, of("another")).len(), 0);
        assert_eq!(of_sites(&[site], false, of("another")).len(), 4);
    }
}
