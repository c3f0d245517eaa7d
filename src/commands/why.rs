//! `why`: what a bench or site waits for, since when, what to do about it, and the replica whose logs to read.

use std::fmt::Write as _;

use anyhow::Context as _;
use frappe_crds::{FrappeBench, FrappeSite, SiteBackup};
use jiff::Timestamp;
use k8s_openapi::{api::batch::v1::Job, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::{
    advice,
    fleet::{Row, of_bench, of_site, site_of},
    output::{age, connect, print},
    shards, why_update,
};
use crate::{
    cli::{TargetArguments, WhyArguments},
    controllers::site::{model::verb, place::Place, under_way::job_key, watch::lane},
    domain::{condition, key::Key, names::child},
    fleet_report::names,
};

/// The Job of a site's last operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFacts {
    /// Its namespace and name.
    pub key: Key,
    /// Its state; None if it does not exist.
    pub state: Option<String>,
}

/// Facts about one object.
pub struct Facts {
    /// Its row in the table.
    pub row: Row,
    /// Prefix of the names of its objects.
    pub stem: String,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// The bench of a site, if the bench is not settled.
    pub bench: Option<Row>,
    /// The Job of the last operation, or of the running backup or restore.
    pub job: Option<JobFacts>,
    /// Code of the last failed Job.
    pub code: Option<String>,
    /// What is to be said about the update of a site to another revision.
    pub update: Option<String>,
    /// The SiteBackups of a site.
    pub backups: Vec<SiteBackup>,
    /// The pod that owns it, or why there is none.
    pub replica: Result<String, String>,
}

/// The explanation.
pub fn explain(facts: &Facts, now: Timestamp) -> String {
    let Row { kind, name, reason, message, .. } = &facts.row;
    let since =
        facts.row.since.map_or_else(String::new, |it| format!(" for {}", age(now.duration_since(it).as_secs())));
    let state = match (facts.row.ready, facts.row.settled) {
        (true, true) => format!("Ready{since}"),
        (true, false) => format!("Ready{since}, and changing: {reason}"),
        (false, _) => format!("not Ready{since}: {reason}"),
    };
    let mut text = format!("{kind} {name} is {state}\n  {message}\n");
    if let Some(advice) = advice::explanation(reason).filter(|_| !facts.row.settled) {
        let _ = writeln!(text, "\nWhat it means\n  {}", with_names(advice, kind, &facts.stem));
    }
    if let Some((code, advice)) = facts
        .code
        .as_deref()
        .filter(|_| !facts.row.settled)
        .and_then(|code| Some((code, advice::code_explanation(code)?)))
    {
        let _ = writeln!(text, "\n{code}\n  {advice}");
    }
    if let Some(bench) = &facts.bench {
        let _ = writeln!(text, "\nBench {} is {}\n  {}", bench.name, bench.reason, bench.message);
        if let Some(advice) = advice::explanation(&bench.reason) {
            let name = bench.name.rsplit('/').next().unwrap_or(&bench.name);
            let _ = writeln!(text, "  {}", with_names(advice, bench.kind, name));
        }
    }
    if let Some(update) = &facts.update {
        let _ = writeln!(text, "\nUpdate\n  {update}");
    }
    if let Some(job) = &facts.job {
        let state = job.state.as_deref().unwrap_or("does not exist (finished Jobs are removed after an hour)");
        let _ = writeln!(text, "\nJob {} {state}", job.key);
        if job.state.is_some() {
            let _ = writeln!(text, "  kubectl -n {} logs job/{}", job.key.namespace, job.key.name);
        }
    }
    if !facts.backups.is_empty() {
        text.push_str("\nBackups\n");
    }
    for it in &facts.backups {
        let _ = writeln!(text, "{}", of_backup(it, now));
    }
    if !facts.conditions.is_empty() {
        text.push_str("\nConditions\n");
    }
    for it in &facts.conditions {
        let line = format!("  {:<16} {:<7} {:<22} {}", it.type_, it.status, it.reason, it.message);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let _ = match &facts.replica {
        Ok(pod) => writeln!(text, "\nOwned by replica {pod}; see its logs."),
        Err(why) => writeln!(text, "\nNo owner found: {why}"),
    };
    text
}

/// The advice with the object's names in place of `SITE-init`, `BENCH-configure` and the like.
fn with_names(advice: &str, kind: &str, stem: &str) -> String {
    let placeholder = format!("{}-", kind.to_uppercase());
    let mut parts = advice.split(&placeholder);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|it: char| !it.is_ascii_lowercase() && it != '-').unwrap_or(part.len());
        text.push_str(&child(stem, &part[..end]));
        text.push_str(&part[end..]);
    }
    text
}

/// A SiteBackup: its state, the age of its newest backup, and when the next one is due.
fn of_backup(backup: &SiteBackup, now: Timestamp) -> String {
    let status = backup.status.clone().unwrap_or_default();
    let mut text = format!("  {}", backup.name_any());
    match condition::find(&status.conditions, "Ready") {
        Some(ready) => {
            let _ = write!(text, " {}: {}", ready.reason, ready.message);
        }
        None => text.push_str(" not reconciled yet"),
    }
    let code = status.outcome.as_ref().and_then(|it| it.code.as_deref());
    if let Some(advice) = code.and_then(advice::code_explanation) {
        let _ = write!(text, " ({advice})");
    }
    if let Some(last) = &status.last_successful_backup
        && let Some(finished) = &last.finished_at
    {
        let _ = write!(text, "; last successful {} ago: {}", age(now.duration_since(finished.0).as_secs()), last.name);
    }
    if let Some(next) = &status.next_schedule_time {
        let word = if next.0 < now { "due since" } else { "next at" };
        let _ = write!(text, "; {word} {}", next.0);
    }
    text
}

/// Prints the explanation.
#[expect(clippy::disallowed_methods, reason = "ages in the output")]
pub async fn why(arguments: WhyArguments, target: &TargetArguments) -> anyhow::Result<()> {
    let cluster = connect(target).await?;
    let (client, key) = (&cluster.client, cluster.named(&arguments.name));
    let now = Timestamp::now();
    let facts = if arguments.bench {
        of_the_bench(client, &key, &arguments.operator_namespace).await?
    } else {
        of_the_site(client, &key, &arguments.operator_namespace, now).await?
    };
    print(&explain(&facts, now))
}

async fn of_the_bench(client: &Client, key: &Key, operator: &str) -> anyhow::Result<Facts> {
    let benches: Api<FrappeBench> = Api::namespaced(client.clone(), &key.namespace);
    let bench = benches.get(&key.name).await.with_context(|| format!("get FrappeBench {key}"))?;
    Ok(Facts {
        row: of_bench(&bench),
        stem: key.name.clone(),
        code: bench.status.as_ref().and_then(|it| it.configure_failure.clone()).map(|it| it.code),
        conditions: bench.status.map(|it| it.conditions).unwrap_or_default(),
        bench: None,
        job: None,
        update: None,
        backups: Vec::new(),
        replica: shards::coordinator(client, &names(operator)).await,
    })
}

async fn of_the_site(client: &Client, key: &Key, operator: &str, now: Timestamp) -> anyhow::Result<Facts> {
    let site = site_of(client, key).await?;
    let bench_key = lane(&site);
    let benches: Api<FrappeBench> = Api::namespaced(client.clone(), &bench_key.namespace);
    let bench = benches.get_opt(&bench_key.name).await.context("get the site's bench")?;
    Ok(Facts {
        row: of_site(&site),
        stem: Place::of(&site).stem,
        code: site.status.as_ref().and_then(|it| it.operation.clone()?.outcome).map(|it| it.code),
        bench: bench.as_ref().map(of_bench).filter(|row| !row.settled),
        job: job(client, &site).await?,
        update: why_update::about(&site, bench.as_ref(), now),
        backups: backups(client, key).await?,
        replica: shards::owner_of_site(client, &names(operator), &site).await,
        conditions: site.status.map(|it| it.conditions).unwrap_or_default(),
    })
}

async fn backups(client: &Client, site: &Key) -> anyhow::Result<Vec<SiteBackup>> {
    let api: Api<SiteBackup> = Api::namespaced(client.clone(), &site.namespace);
    let mut found = api.list(&ListParams::default()).await.context("list the site's SiteBackups")?.items;
    found.retain(|it| it.spec.site_ref.name == site.name);
    found.sort_by_key(ResourceExt::name_any);
    Ok(found)
}

async fn job(client: &Client, site: &FrappeSite) -> anyhow::Result<Option<JobFacts>> {
    let status = site.status.clone().unwrap_or_default();
    let place = Place::of(site);
    let key = match (&status.backup, &status.operation) {
        (Some(backup), _) => job_key(&place, backup),
        (None, Some(operation)) => place.job(verb(operation.kind), operation.attempt),
        (None, None) => return Ok(None),
    };
    let jobs: Api<Job> = Api::namespaced(client.clone(), &key.namespace);
    let found = jobs.get_opt(&key.name).await.context("get the site's Job")?;
    Ok(Some(JobFacts { key, state: found.map(|it| state(&it)) }))
}

/// State of a Job.
fn state(job: &Job) -> String {
    let status = job.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    match conditions.iter().find(|it| it.status == "True" && ["Complete", "Failed"].contains(&it.type_.as_str())) {
        Some(it) if it.type_ == "Complete" => "is complete".to_owned(),
        Some(it) => format!("failed: {}", it.message.clone().unwrap_or_default()),
        None if status.ready.unwrap_or(0) > 0 => "is running".to_owned(),
        None => "is waiting for its pod to start".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &'static str, ready: bool, reason: &str) -> Row {
        Row {
            kind,
            name: "shops/one".into(),
            bench: None,
            version: None,
            rollout: None,
            settled: ready && reason == "Ready",
            ready,
            reason: reason.into(),
            message: "it says so".into(),
            since: Some(Timestamp::UNIX_EPOCH),
        }
    }

    fn nightly() -> SiteBackup {
        let run = serde_json::json!({"name": "nightly-1970-01-01-0000", "succeeded": true, "finishedAt": "1970-01-01T00:01:00Z"});
        let ready = serde_json::json!({"type": "Ready", "status": "False", "reason": "BackupFailed", "message": "BucketMissing",
            "lastTransitionTime": "1970-01-01T00:02:00Z"});
        serde_json::from_value(serde_json::json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteBackup", "metadata": {"name": "nightly"},
            "spec": {"siteRef": {"name": "one"}},
            "status": {"conditions": [ready], "outcome": {"kind": "Backup", "state": "Failed", "code": "BucketMissing", "message": "no", "finishedAt": "1970-01-01T00:02:00Z"},  "lastSuccessfulBackup": run, "nextScheduleTime": "1970-01-01T00:10:00Z"},
        }))
        .expect("a SiteBackup")
    }

    #[test]
    fn why_has_reason_remedy_bench_job_and_replica() {
        let facts = Facts {
            row: row("site", false, "HostClaimed"),
            stem: "one".into(),
            conditions: Vec::new(),
            bench: Some(row("bench", false, "VolumePending")),
            job: Some(JobFacts { key: Key::new("benches", "one-init"), state: Some("runs".into()) }),
            code: Some("DatabaseNotEmpty".into()),
            update: Some("revision 1 serves it".into()),
            backups: vec![nightly(), SiteBackup { metadata: nightly().metadata, ..SiteBackup::default() }],
            replica: Err("slots without an owner".into()),
        };
        let text = explain(&facts, Timestamp::from_second(300).expect("a time"));
        for part in [
            "site shops/one is not Ready for 5m: HostClaimed",
            "Another site, named in the message, already uses the host",
            "Bench shops/one is VolumePending",
            "A volume is not bound yet",
            "\nDatabaseNotEmpty\n  The database has tables that no FrappeSite created",
            "\nUpdate\n  revision 1 serves it",
            "kubectl -n benches logs job/one-init",
            "nightly BackupFailed: BucketMissing (The bucket does not exist. Create it, or correct its name.); last successful 4m ago: nightly-1970-01-01-0000; next at 1970-01-01T00:10:00Z",
            "nightly not reconciled yet",
            "No owner found: slots without an owner",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn nothing_is_reported_about_a_ready_object() {
        let facts = Facts {
            row: row("site", true, "Ready"),
            stem: "one".into(),
            conditions: Vec::new(),
            bench: None,
            job: None,
            code: None,
            update: None,
            backups: Vec::new(),
            replica: Ok("pod-a".into()),
        };
        let text = explain(&facts, Timestamp::UNIX_EPOCH);
        assert!(text.starts_with("site shops/one is Ready for 0s\n"), "{text}");
        assert!(!text.contains("What it means"), "{text}");
    }

    #[test]
    fn an_advice_names_the_objects_of_the_site_or_bench() {
        for (kind, reason, stem, wanted) in [
            (
                "site",
                "Initializing",
                "shop",
                "The Job `shop-init` is creating the site. `kubectl logs job/shop-init` shows",
            ),
            ("bench", "Preparing", "main", "The Job `main-configure` must complete"),
        ] {
            let facts = Facts {
                row: row(kind, false, reason),
                stem: stem.into(),
                conditions: Vec::new(),
                bench: (kind == "site").then(|| row("bench", false, "Preparing")),
                job: None,
                code: None,
                update: None,
                backups: Vec::new(),
                replica: Ok("pod-a".into()),
            };
            let text = explain(&facts, Timestamp::UNIX_EPOCH);
            assert!(text.contains(wanted), "{wanted} in {text}");
            assert!(!text.contains("SITE-") && !text.contains("BENCH-"), "{text}");
        }
    }
}
