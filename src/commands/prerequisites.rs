//! Prerequisites of the operator in a cluster. Pure: facts in, findings out.

use std::collections::{BTreeMap, BTreeSet};

use frappe_crds::FrappeBench;
use kube_sharding::SLOTS;
use serde::Serialize;

use super::output::counted;
use crate::{
    config::OperatorConfig,
    controllers::site::validate::connections_max,
    domain::{
        capabilities::{Api, Missed},
        condition,
        key::Key,
    },
    fleet_report::Report,
};

/// Oldest Kubernetes version whose API server supports the CRDs' rules: 1.30, as in the chart.
const KUBERNETES_MINOR_MIN: u32 = 30;
/// Kubernetes version since which tokens are bound to their pod by default, which the admission fence needs.
const KUBERNETES_MINOR_FENCE: u32 = 32;
/// Number of sites above which one concurrent reconcile of the MariaDB operator is too slow.
const SITES_MANY: u64 = 100;
/// Maximum number of benches that a finding names.
const BENCHES_SHOWN: usize = 5;
/// Concurrent reconciles of the MariaDB operator that many sites need.
const MARIADB_RECONCILES_MIN: u32 = 10;
/// MariaDB's own default of `max_connections`.
const MARIADB_CONNECTIONS_DEFAULT: u32 = 151;

/// Generation of a slot map without any owner so far.
const GENERATION_OF_A_NEW_MAP: u64 = 1;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// No problem.
    Good,
    /// Something does not work, or not at this scale.
    Warning,
    /// The operator does not work.
    Bad,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Severity.
    pub level: Level,
    /// Subject.
    pub subject: &'static str,
    /// What was found, and what to do.
    pub message: String,
}

/// State of one of this operator's CRDs in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definition {
    /// It does not exist.
    Missing,
    /// It is of another version.
    Differs,
    /// It is of this version.
    Same,
}

/// A MariaDB object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its namespace and name.
    pub key: Key,
    /// Whether its condition Ready is True.
    pub ready: bool,
    /// `max_connections` of its `myCnf`.
    pub connections_max: Option<u32>,
}

/// Facts of a cluster. A fact that could not be read is an error message.
pub struct Facts {
    /// Minor version and full version of the API server.
    pub version: (u32, String),
    /// This operator's CRDs, by name.
    pub definitions: BTreeMap<String, Definition>,
    /// Names of all CRDs.
    pub optional: BTreeSet<String>,
    /// Name of the default StorageClass.
    pub default_storage_class: Option<String>,
    /// Number of StorageClasses.
    pub storage_classes: usize,
    /// Permissions that the operator's ServiceAccount lacks, and the number of checked ones.
    pub rights: Result<(Vec<String>, usize), String>,
    /// The replicas.
    pub replicas: Result<Report, String>,
    /// Number of sites.
    pub sites: u64,
    /// The benches.
    pub benches: Vec<FrappeBench>,
    /// The operator's settings.
    pub config: OperatorConfig,
    /// The MariaDB operators, with their concurrent reconciles.
    pub mariadb_operators: Vec<(Key, u32)>,
    /// The MariaDB objects.
    pub servers: Vec<Server>,
}

/// The findings for these facts.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![version(facts)];
    found.extend(definitions(facts));
    found.extend(rights(facts));
    found.push(replicas(facts));
    found.push(storage(facts));
    found.extend(optional(facts));
    found.extend(redis(facts));
    found.extend(databases(facts));
    found
}

fn finding(level: Level, subject: &'static str, message: impl Into<String>) -> Finding {
    Finding { level, subject, message: message.into() }
}

fn version(facts: &Facts) -> Finding {
    let (minor, full) = &facts.version;
    let (level, rest) = match *minor {
        it if it < KUBERNETES_MINOR_MIN => (Level::Bad, ": too old, the operator needs 1.30 or later"),
        it if it < KUBERNETES_MINOR_FENCE => (Level::Good, " (the optional admission fence needs 1.32)"),
        _ => (Level::Good, ""),
    };
    finding(level, "Kubernetes", format!("{full}{rest}"))
}

fn definitions(facts: &Facts) -> Vec<Finding> {
    let named = |wanted: Definition| {
        let names = facts.definitions.iter().filter(|(_, state)| **state == wanted);
        names.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let (missing, differs) = (named(Definition::Missing), named(Definition::Differs));
    let mut found = Vec::new();
    if !missing.is_empty() {
        let message =
            format!("missing: {missing}; install them: frappe-operator crds | kubectl apply --server-side -f -");
        found.push(finding(Level::Bad, "CRDs", message));
    }
    if !differs.is_empty() {
        found.push(finding(Level::Warning, "CRDs", format!("not of this program's version: {differs}; update them: helm upgrade, or frappe-operator crds | kubectl apply --server-side -f -")));
    }
    if found.is_empty() {
        found.push(finding(Level::Good, "CRDs", format!("all {} installed, of this version", facts.definitions.len())));
    }
    found
}

fn rights(facts: &Facts) -> Vec<Finding> {
    match &facts.rights {
        Err(why) => vec![finding(Level::Warning, "permissions", format!("not checked: {why}"))],
        Ok((lacking, all)) if lacking.is_empty() => {
            vec![finding(
                Level::Good,
                "permissions",
                format!("the operator's ServiceAccount has all {all} permissions it needs"),
            )]
        }
        Ok((lacking, _)) => lacking
            .iter()
            .map(|right| finding(Level::Bad, "permissions", format!("the operator's ServiceAccount may not {right}")))
            .collect(),
    }
}

fn replicas(facts: &Facts) -> Finding {
    match &facts.replicas {
        Err(why) => finding(Level::Bad, "replicas", why.clone()),
        Ok(report) if report.members.is_empty() => finding(
            Level::Bad,
            "replicas",
            "none found: is the operator running in this namespace? (--operator-namespace)",
        ),
        Ok(report) if report.unowned_slots == SLOTS && report.generation <= GENERATION_OF_A_NEW_MAP => finding(
            Level::Warning,
            "replicas",
            "no slot has an owner yet: new replicas take them over within one Lease duration (15 s); run check again",
        ),
        Ok(report) if report.unowned_slots > 0 => {
            let message = format!(
                "{} of {SLOTS} slots have no owner, so their sites are not reconciled: running replicas take them over \
                 within one Lease duration (15 s); if not, see their logs",
                report.unowned_slots
            );
            finding(Level::Bad, "replicas", message)
        }
        Ok(report) if report.coordinator.is_none() => {
            finding(Level::Bad, "replicas", "no coordinator: benches are not reconciled")
        }
        Ok(report) => {
            let alive = report.members.iter().filter(|it| it.state == "ready").count();
            let (level, rest) = if alive == 1 {
                (Level::Warning, ": run at least two for high availability")
            } else {
                (Level::Good, "")
            };
            finding(level, "replicas", format!("{alive} ready, every slot owned{rest}"))
        }
    }
}

fn storage(facts: &Facts) -> Finding {
    match (&facts.default_storage_class, facts.storage_classes) {
        (_, 0) => finding(Level::Bad, "storage", "no StorageClass: benches cannot get a volume"),
        (None, _) => finding(Level::Warning, "storage", "no default StorageClass: benches must set storageClassName"),
        (Some(name), _) => finding(
            Level::Good,
            "storage",
            format!(
                "default class {name}: if it does not support ReadWriteMany, benches need storageAccessMode: ReadWriteOnce"
            ),
        ),
    }
}

/// Findings about the optional APIs.
fn optional(facts: &Facts) -> Vec<Finding> {
    let of = |api: &Api| {
        let row = api.row();
        let crds = if api.kinds().count() > 1 { "its CRDs exist" } else { "its CRD exists" };
        let missed = match row.missed {
            Missed::Always => true,
            Missed::By(bench) => facts.benches.iter().any(|it| bench(&it.spec)),
            Missed::Never => false,
        };
        let exists = api.is_known_by(&facts.optional);
        let (level, message) = match (exists, missed, row.missed) {
            (true, ..) => (Level::Good, format!("installed ({crds})")),
            (false, true, _) => (Level::Warning, format!("not installed: {}", row.without)),
            (false, false, Missed::By(_)) => (Level::Good, "not installed, and no bench needs it".to_owned()),
            (false, false, _) => (Level::Good, "not installed (optional)".to_owned()),
        };
        let found = finding(level, row.title, message);
        let worse = if exists && *api == Api::Keda { not_scaled(facts) } else { None };
        worse.unwrap_or(found)
    };
    Api::ALL.iter().map(of).collect()
}

/// Benches whose workers KEDA should scale but does not.
fn not_scaled(facts: &Facts) -> Option<Finding> {
    let told = |bench: &FrappeBench| {
        let status = bench.status.clone().unwrap_or_default();
        let scaled = condition::find(&status.conditions, "WorkersAutoscaled").filter(|it| it.status == "False")?;
        Some(format!("{}: {}", Key::of(bench), scaled.reason))
    };
    let told: Vec<String> = facts.benches.iter().filter_map(told).collect();
    let shown = told.iter().take(BENCHES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let message = format!(
        "does not scale the workers of {} ({shown}): see the condition WorkersAutoscaled",
        counted(told.len(), "bench")
    );
    (!told.is_empty()).then(|| finding(Level::Warning, "KEDA", message))
}

/// Benches whose Redis is not protected.
fn redis(facts: &Facts) -> Option<Finding> {
    let open = |bench: &&FrappeBench| {
        let status = bench.status.clone().unwrap_or_default();
        condition::find(&status.conditions, "RedisProtected").is_some_and(|it| it.status == "False")
    };
    let open: Vec<String> = facts.benches.iter().filter(open).map(|it| Key::of(it).to_string()).collect();
    let shown = open.iter().take(BENCHES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let message = format!(
        "Redis of {} has no password or no NetworkPolicy ({shown}): set redisConfig.protected: true (docs/benches.md)",
        counted(open.len(), "bench")
    );
    (!open.is_empty()).then(|| finding(Level::Warning, "Redis", message))
}

/// Concurrency of the MariaDB operator, and the connections that benches may open on each server.
fn databases(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (key, reconciles) in &facts.mariadb_operators {
        if facts.sites >= SITES_MANY && *reconciles < MARIADB_RECONCILES_MIN {
            let message = format!(
                "{key}: --max-concurrent-reconciles is {reconciles}, too low for {} sites: set it to 10, --kube-api-qps to 100 and \
                 --kube-api-burst to 200 (docs/tuning.md)",
                facts.sites
            );
            found.push(finding(Level::Warning, "MariaDB operator", message));
        }
    }
    for server in &facts.servers {
        let benches: Vec<_> = facts.benches.iter().filter(|bench| served_by(bench, server, facts)).collect();
        let jobs = |bench: &FrappeBench| facts.config.site_job_limit(bench.spec.site_job_concurrency);
        let demand: usize =
            benches.iter().map(|bench| usize::try_from(connections_max(bench)).unwrap_or(0) + jobs(bench)).sum();
        let most = server.connections_max.unwrap_or(MARIADB_CONNECTIONS_DEFAULT);
        if !server.ready {
            found.push(finding(
                Level::Warning,
                "MariaDB",
                format!("{} is not Ready: new sites on it wait", server.key),
            ));
        }
        let (level, rest) = if demand > most as usize {
            (Level::Warning, ": raise it in spec.myCnf, or use more servers (docs/tuning.md)")
        } else {
            (Level::Good, "")
        };
        let message = format!(
            "{}: {} may open {demand} connections, max_connections is {most}{rest}",
            server.key,
            counted(benches.len(), "bench")
        );
        found.push(finding(level, "MariaDB", message));
    }
    found
}

/// Whether a bench's shared sites use a server: the one that the bench references, else the operator's default, else the only one
/// in its namespace.
fn served_by(bench: &FrappeBench, server: &Server, facts: &Facts) -> bool {
    let own = Key::of(bench).namespace;
    let named_by_bench = bench.spec.db_config.as_ref().and_then(|it| it.mariadb_ref.as_ref());
    match (named_by_bench, &facts.config.default_mariadb) {
        (Some(reference), _) => Key::new(reference.namespace.clone().unwrap_or(own), &reference.name) == server.key,
        (None, Some(default)) => *default == server.key,
        (None, None) => server.key.namespace == own,
    }
}

/// The findings as a table.
pub fn table(findings: &[Finding]) -> String {
    let line = |it: &Finding| {
        let mark = match it.level {
            Level::Good => "ok",
            Level::Warning => "WARN",
            Level::Bad => "FAIL",
        };
        format!("{mark:<4} {:<20} {}\n", it.subject, it.message)
    };
    findings.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
