//! Phase, conditions and component table of a bench. Pure.

use std::collections::BTreeMap;

use frappe_crds::{
    FrappeBenchStatus,
    bench::{BenchPhase, ComponentStatus, WorkerScalingStatus},
};
use kube::{ResourceExt, core::DynamicObject};

use super::{
    build::{self, worker_replicas},
    observe::Observed,
    reason::Reason,
};
use crate::{
    domain::{condition, condition::Conditions, object::Kind},
    io::events::Notice,
};

/// Where a bench stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its phase.
    pub phase: BenchPhase,
    /// Why.
    pub reason: Reason,
    /// The same for people.
    pub message: String,
}

impl Report {
    /// A report.
    pub fn new(phase: BenchPhase, reason: Reason, message: String) -> Self {
        Self { phase, reason, message }
    }
}

/// Ready only when every pod is, of the present revision, and the volume is bound.
pub fn readiness(observed: &Observed) -> Report {
    let claims = observed.live.iter().filter(|((kind, _), _)| *kind == Kind::PersistentVolumeClaim);
    let mut waiting: Vec<String> = claims
        .filter(|(_, claim)| claim.data["status"]["phase"] != "Bound")
        .map(|((_, name), _)| format!("volume {name} is not bound"))
        .collect();
    let table = components(observed);
    let unready = |it: &ComponentStatus| it.ready < it.desired || it.desired < 0;
    waiting.extend(table.iter().filter(|(_, it)| unready(it)).map(|(name, it)| {
        if it.desired < 0 {
            format!("{name} is being made")
        } else {
            format!("{name} has {} of {} pods ready", it.ready, it.desired)
        }
    }));
    if waiting.is_empty() {
        return Report::new(BenchPhase::Ready, Reason::Ready, "every component is ready".to_owned());
    }
    Report::new(BenchPhase::Progressing, Reason::Starting, waiting.join(", "))
}

/// Ready and desired pods of each Deployment and StatefulSet; −1 desired for one that was not made yet.
fn components(observed: &Observed) -> BTreeMap<String, ComponentStatus> {
    let input = build::Input { bench: &observed.bench, config: &observed.config };
    let mut wanted = build::foundation(&input);
    wanted.extend(build::components(&input));
    let workloads = wanted.into_iter().filter(|it| matches!(it.kind, Kind::Deployment | Kind::StatefulSet));
    workloads
        .map(|it| {
            let component = it.body["metadata"]["labels"]["component"].as_str().unwrap_or_default().to_owned();
            let live = observed.live.get(&(it.kind, it.key.name.clone()));
            (component, live.map_or(ComponentStatus { ready: 0, desired: -1 }, |live| count(live)))
        })
        .collect()
}

/// Pods that are available and of the present revision, as far as the workload's controller has seen its spec.
fn count(workload: &DynamicObject) -> ComponentStatus {
    let number = |field: &str| workload.data["status"][field].as_i64().unwrap_or(0);
    let desired = workload.data["spec"]["replicas"].as_i64().unwrap_or(1);
    let current = number("observedGeneration") >= workload.metadata.generation.unwrap_or(0);
    let available =
        if workload.data["spec"]["serviceName"].is_string() { "readyReplicas" } else { "availableReplicas" };
    // Pods of an old revision that still run beside the new ones are not ready ones.
    let old = (number("replicas") - number("updatedReplicas")).max(0);
    let ready = if current { number(available).min(number("updatedReplicas")) - old } else { 0 };
    let narrow = |value: i64| i32::try_from(value.max(0)).unwrap_or(i32::MAX);
    ComponentStatus { ready: narrow(ready), desired: narrow(desired) }
}

/// The status that a report leads to.
pub fn status(observed: &Observed, report: &Report) -> FrappeBenchStatus {
    let former = observed.bench.status.clone().unwrap_or_default();
    let generation = observed.bench.metadata.generation;
    let spec = &observed.bench.spec;
    let mut conditions = Conditions::new(&former.conditions, generation, observed.now);
    let reason = report.reason.to_string();
    conditions.set("Ready", Some(report.phase == BenchPhase::Ready), &reason, &report.message);
    conditions.set("Progressing", Some(report.phase == BenchPhase::Progressing), &reason, &report.message);
    conditions.set("Degraded", Some(report.phase == BenchPhase::Failed), &reason, &report.message);
    let autoscaled = spec.worker_autoscaling.is_some();
    if autoscaled {
        let message = "this version runs workers at a fixed number: workerAutoscaling sets it and scales nothing";
        conditions.set("WorkersAutoscaled", Some(false), &Reason::StaticWorkers.to_string(), message);
    }
    let table = components(observed);
    let input = build::Input { bench: &observed.bench, config: &observed.config };
    FrappeBenchStatus {
        phase: report.phase,
        conditions: conditions.finish(),
        git_enabled: Some(spec.git_config.as_ref().and_then(|it| it.enabled).unwrap_or(observed.config.git_enabled)),
        fpm_repositories: fpm_repositories(observed),
        observed_generation: generation,
        worker_scaling: worker_scaling(observed, &table),
        components: table.into_iter().filter(|(_, it)| it.desired >= 0).collect(),
        image: Some(input.image()),
        installed_apps: former.installed_apps,
    }
}

/// Names of the repositories: the operator's, then the bench's.
fn fpm_repositories(observed: &Observed) -> Vec<String> {
    let own = observed.bench.spec.fpm_config.clone().unwrap_or_default().repositories;
    let shared = observed.config.fpm_repositories.iter().map(|it| it.name.clone());
    let mut names: Vec<String> = shared.chain(own.into_iter().map(|it| it.name)).collect();
    names.dedup();
    names
}

fn worker_scaling(
    observed: &Observed,
    table: &BTreeMap<String, ComponentStatus>,
) -> BTreeMap<String, WorkerScalingStatus> {
    let queues = worker_replicas(&observed.bench.spec);
    let row = |(queue, desired): (&'static str, i32)| {
        let current = table.get(&format!("worker-{queue}")).map_or(0, |it| it.ready);
        let status = WorkerScalingStatus {
            mode: "static".to_owned(),
            current_replicas: current,
            desired_replicas: desired,
            keda_managed: false,
        };
        (queue.to_owned(), status)
    };
    queues.into_iter().map(row).collect()
}

/// What people are told when a status changes: each phase and each reason once.
pub fn notice(observed: &Observed, next: &FrappeBenchStatus, report: &Report) -> Option<Notice> {
    let former = observed.bench.status.clone().unwrap_or_default();
    let word = report.reason.to_string();
    let before = condition::find(&former.conditions, "Ready").map(|it| it.reason.clone());
    if former.phase == next.phase && before.as_deref() == Some(word.as_str()) {
        return None;
    }
    let note = format!("FrappeBench {}: {}", observed.bench.name_any(), report.message);
    Some(Notice { warning: report.reason.is_warning(), reason: word, note })
}

/// What the status says now.
pub fn said(observed: &Observed) -> Option<String> {
    let status = observed.bench.status.clone().unwrap_or_default();
    condition::find(&status.conditions, "Ready").map(|it| it.message.clone())
}
