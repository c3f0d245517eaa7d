//! Phase, conditions and component table of a bench. Pure.

use std::collections::BTreeMap;

use frappe_crds::{
    FrappeBenchStatus,
    bench::{BenchPhase, ComponentStatus, WorkerScalingStatus},
};
use kube::{ResourceExt, core::DynamicObject};

use super::{
    build::{self, Rendered},
    observe::Observed,
    reason::Reason,
};
use crate::{
    domain::{
        condition,
        condition::Conditions,
        names::child,
        object::{Desired, Kind},
    },
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
pub fn readiness(observed: &Observed, rendered: &Rendered) -> Report {
    let claims = observed.live.iter().filter(|((kind, _), _)| *kind == Kind::PersistentVolumeClaim);
    let mut waiting: Vec<String> = claims
        .filter(|(_, claim)| claim.data["status"]["phase"] != "Bound")
        .map(|((_, name), _)| format!("volume {name} is not bound"))
        .collect();
    let table = components(observed, rendered);
    let unready = |name: &str, it: &ComponentStatus| {
        it.desired < 0 || if scales(observed, name) { is_rolling(observed, name) } else { it.ready < it.desired }
    };
    waiting.extend(table.iter().filter(|(name, it)| unready(name, it)).map(|(name, it)| {
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
fn components(observed: &Observed, rendered: &Rendered) -> BTreeMap<String, ComponentStatus> {
    let workloads = rendered.all().filter(|it| matches!(it.kind, Kind::Deployment | Kind::StatefulSet));
    workloads
        .map(|it| {
            let component = it.body["metadata"]["labels"]["component"].as_str().unwrap_or_default().to_owned();
            let live = observed.live.get(&(it.kind, it.key.name.clone()));
            (component, live.map_or(ComponentStatus { ready: 0, desired: -1 }, |live| count(live)))
        })
        .collect()
}

/// Whether KEDA sets the number of a component's pods: how many are still starting says nothing about the bench then.
fn scales(observed: &Observed, component: &str) -> bool {
    let scaled = build::worker_scaling(&observed.bench.spec);
    let wanted = scaled.iter().any(|it| it.wanted.is_some() && component.strip_prefix("worker-") == Some(it.queue));
    observed.capabilities.keda && wanted
}

/// Whether pods of an old revision are left, or the workload's controller has not seen its spec.
fn is_rolling(observed: &Observed, component: &str) -> bool {
    let name = child(&observed.bench.name_any(), component);
    observed.live.get(&(Kind::Deployment, name)).is_none_or(|live| {
        let number = |field: &str| live.data["status"][field].as_i64().unwrap_or(0);
        number("observedGeneration") < live.metadata.generation.unwrap_or(0)
            || number("updatedReplicas") < number("replicas")
    })
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
pub fn status(observed: &Observed, rendered: &Rendered, report: &Report) -> FrappeBenchStatus {
    let former = observed.bench.status.clone().unwrap_or_default();
    let generation = observed.bench.metadata.generation;
    let spec = &observed.bench.spec;
    let mut conditions = Conditions::new(&former.conditions, generation, observed.now);
    let reason = report.reason.to_string();
    conditions.set("Ready", Some(report.phase == BenchPhase::Ready), &reason, &report.message);
    conditions.set("Progressing", Some(report.phase == BenchPhase::Progressing), &reason, &report.message);
    conditions.set("Degraded", Some(report.phase == BenchPhase::Failed), &reason, &report.message);
    if let Some((scaled, reason, message)) = autoscaling(observed, rendered) {
        conditions.set("WorkersAutoscaled", Some(scaled), &reason.to_string(), &message);
    }
    let table = components(observed, rendered);
    FrappeBenchStatus {
        phase: report.phase,
        conditions: conditions.finish(),
        git_enabled: Some(spec.git_config.as_ref().and_then(|it| it.enabled).unwrap_or(observed.config.git_enabled)),
        fpm_repositories: fpm_repositories(observed),
        observed_generation: generation,
        worker_scaling: worker_scaling(observed, &table),
        components: table.into_iter().filter(|(_, it)| it.desired >= 0).collect(),
        image: Some(observed.input().image()),
        installed_apps: former.installed_apps,
    }
}

/// Whether KEDA scales what the bench wants scaled; nothing if it wants nothing scaled.
fn autoscaling(observed: &Observed, rendered: &Rendered) -> Option<(bool, Reason, String)> {
    build::worker_scaling(&observed.bench.spec).iter().find(|it| it.wanted.is_some())?;
    if !observed.capabilities.keda {
        let message = "KEDA is not installed (no ScaledObject and TriggerAuthentication of keda.sh): workers run at a \
                       fixed number until it is";
        return Some((false, Reason::KedaMissing, message.to_owned()));
    }
    let scaled: Vec<&Desired> = rendered.components.iter().filter(|it| it.kind == Kind::ScaledObject).collect();
    let failed = scaled.iter().find_map(|desired| {
        let live = observed.live.get(&(desired.kind, desired.key.name.clone()))?;
        let conditions = live.data["status"]["conditions"].as_array()?;
        let ready = conditions.iter().find(|it| it["type"] == "Ready" && it["status"] == "False")?;
        Some(format!("ScaledObject {}: {}", desired.key.name, ready["message"].as_str().unwrap_or("not ready")))
    });
    Some(match failed {
        Some(message) => (false, Reason::ScalingFailed, message),
        None => (true, Reason::Autoscaled, format!("KEDA scales {} kinds of workers", scaled.len())),
    })
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
    let row = |scaling: build::Scaling| {
        let component = table.get(&format!("worker-{}", scaling.queue));
        let managed = observed.capabilities.keda && scaling.wanted.is_some();
        let live = component.map(|it| it.desired).filter(|desired| *desired >= 0);
        let status = WorkerScalingStatus {
            mode: if managed { "autoscaled" } else { "static" }.to_owned(),
            current_replicas: component.map_or(0, |it| it.ready),
            desired_replicas: if managed { live.unwrap_or(0) } else { scaling.fixed },
            keda_managed: managed,
        };
        (scaling.queue.to_owned(), status)
    };
    build::worker_scaling(&observed.bench.spec).into_iter().map(row).collect()
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
