//! Phase, conditions and component table of a bench. Pure.

use std::collections::BTreeMap;

use frappe_crds::{
    FrappeBenchStatus,
    bench::{BenchPhase, ComponentStatus, ConfigureFailure, WorkerScalingStatus},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use super::{
    adoption,
    autoscaling::autoscaling,
    build, code,
    model::{Class, Detected, Observed, PodProblem, Rendered, Report},
    protection,
    reason::Reason,
    revisions, rollout,
    seen::{configure_job, count, has_old_pods, is_bound, is_inspected, is_seen, servers_without_pods, workload},
    sizes,
};
use crate::{
    controllers::job,
    domain::{
        condition::{self, Conditions},
        live,
        names::module,
        object::Kind,
    },
    io::events::Notice,
};

/// Default priority of a repository, as in the guide.
const FPM_PRIORITY: i32 = 50;

/// Additional conditions of a bench.
const ASIDES: [&str; 4] = ["VolumesSized", "WorkersAutoscaled", "RedisProtected", "Updated"];

/// An app of the bench that its image does not have.
pub fn missing_app(observed: &Observed, rendered: &Rendered) -> Option<Report> {
    // The apps of another image are irrelevant.
    if !is_inspected(observed, rendered.revision()) {
        return None;
    }
    let found = installed(observed);
    let wanted = observed.bench.spec.apps.iter().map(|app| app.name.as_str());
    let missing: Vec<&str> = wanted.filter(|app| !found.is_empty() && !found.contains(&module(app))).collect();
    if missing.is_empty() {
        return None;
    }
    let message = format!(
        "apps: image {} does not contain {}: build it into the image or remove it from apps (the image has {})",
        observed.input().image(),
        missing.join(", "),
        found.join(", ")
    );
    Some(Report::new(BenchPhase::Failed, Reason::AppMissing, message))
}

/// Apps that were found in the image.
fn installed(observed: &Observed) -> Vec<String> {
    let former = observed.bench.status.clone().unwrap_or_default();
    observed.inspection.as_ref().map_or(former.installed_apps, |found| found.apps.clone())
}

/// Ready only if all pods of the current revision are ready and the volumes are bound.
pub fn readiness(observed: &Observed, rendered: &Rendered) -> Report {
    let table = components(observed, rendered);
    let settled = is_settled(observed, rendered);
    let short = table.iter().filter(|(name, it)| it.desired < 0 || is_unready(observed, name, it, settled));
    let waiting: Vec<String> = short
        .map(|(name, it)| match it.desired {
            ..0 => format!("{name} is being created"),
            desired => format!("{name} has {} of {desired} pods ready", it.ready),
        })
        .collect();
    let obstacle = obstacle(observed);
    let bound = observed.live.iter().all(|((kind, _), it)| *kind != Kind::PersistentVolumeClaim || is_bound(it));
    if waiting.is_empty() && bound {
        return Report::new(BenchPhase::Ready, Reason::Ready, "all components are ready".to_owned());
    }
    if let Some((reason, message)) = obstacle {
        return Report::new(BenchPhase::Progressing, reason, message);
    }
    if let Some(rollout) = rollout::rollout(observed, rendered) {
        let what = if rollout.from == rollout.to {
            "the changed Redis Secret".to_owned()
        } else {
            format!("from {} to {}", rollout.from, rollout.to)
        };
        let message = format!("rolling out {what}: {} left", rollout.left.join(", "));
        return Report::new(BenchPhase::Progressing, Reason::Rolling, message);
    }
    Report::new(BenchPhase::Progressing, Reason::Starting, waiting.join(", "))
}

/// The obstacle that a user must remove, causes before their effects.
pub fn obstacle(observed: &Observed) -> Option<(Reason, String)> {
    let unbound = unbound(observed);
    let missing = unbound.as_ref().filter(|(reason, _)| *reason == Reason::StorageClassMissing);
    // A pod whose volume is not bound is unschedulable for that reason.
    let follows = |it: &&PodProblem| it.reason != Reason::PodUnschedulable || unbound.is_none();
    let problem = observed.pod_problems.iter().find(follows).map(|first| {
        let more = observed.pod_problems.len() - 1;
        let rest = if more > 0 { format!("; {more} more pods are failing") } else { String::new() };
        (first.reason, format!("{}: pod {}: {}{rest}", first.component, first.pod.name, first.message))
    });
    missing.cloned().or_else(|| refused(observed)).or(problem).or(unbound)
}

/// The first workload whose pods the API server rejects.
fn refused(observed: &Observed) -> Option<(Reason, String)> {
    let mut deployments = observed.live.iter().filter(|((kind, _), _)| *kind == Kind::Deployment);
    let of_deployment = deployments.find_map(|((_, name), live)| {
        let failure = live::conditions(live).into_iter().find(|it| it.holds("ReplicaFailure"))?;
        let message = failure.message().unwrap_or_default();
        Some(format!("Deployment {name}: its pods are rejected: {message}"))
    });
    let server = || {
        let name = servers_without_pods(observed).find(|it| job::left_for_pod(it, observed.now).is_none())?.name_any();
        Some(format!("StatefulSet {name}: its pod cannot be created: see kubectl describe statefulset {name}"))
    };
    of_deployment.or_else(server).map(|message| (Reason::PodsNotStarting, message))
}

/// The first claim that is not bound, and why.
fn unbound(observed: &Observed) -> Option<(Reason, String)> {
    let mut claims = observed.live.iter().filter(|((kind, _), _)| *kind == Kind::PersistentVolumeClaim);
    let ((_, name), _) = claims.find(|(_, claim)| !is_bound(claim))?;
    Some(match observed.classes.get(name) {
        Some(Class::Missing(Some(class))) => {
            let message =
                format!("volume {name}: StorageClass {class} does not exist: create it, or create a new bench");
            (Reason::StorageClassMissing, message)
        }
        Some(Class::Missing(None)) => {
            let message = format!(
                "volume {name}: no default StorageClass exists: create one, or set spec.storageClassName in a new \
                bench"
            );
            (Reason::StorageClassMissing, message)
        }
        _ => (Reason::VolumePending, format!("volume {name} is not bound: see kubectl describe pvc {name}")),
    })
}

/// Ready and desired pods of each Deployment and StatefulSet; −1 desired if it does not exist yet.
fn components(observed: &Observed, rendered: &Rendered) -> BTreeMap<String, ComponentStatus> {
    let workloads = rendered.all().filter(|it| matches!(it.kind, Kind::Deployment | Kind::StatefulSet));
    let settled = is_settled(observed, rendered);
    workloads
        .map(|it| {
            let component = it.component().to_owned();
            let live = observed.live.get(&(it.kind, it.key.name.clone()));
            (component, live.map_or(ComponentStatus { ready: 0, desired: -1 }, |live| count(live, settled)))
        })
        .collect()
}

/// Whether a component is not ready. With KEDA, pods that are still starting do not count.
fn is_unready(observed: &Observed, component: &str, pods: &ComponentStatus, settled: bool) -> bool {
    let rolls = workload(observed, component).is_some_and(|it| has_old_pods(it) || !(settled || is_seen(it)));
    rolls || (!scales(observed, component) && pods.ready < pods.desired)
}

/// Whether the pods of every workload are of the present revision, even if a workload's controller has not observed its spec:
/// since the bench was Ready with its present objects, only numbers of pods were changed, by KEDA or manually. This
/// operator's own changes are reported in the same step.
fn is_settled(observed: &Observed, rendered: &Rendered) -> bool {
    let of_now = |status: &FrappeBenchStatus| {
        status.phase == BenchPhase::Ready
            && status.running_revision.as_deref() == Some(rendered.revision())
            && status.observed_generation == observed.bench.metadata.generation
    };
    observed.bench.status.as_ref().is_some_and(of_now)
}

fn scales(observed: &Observed, component: &str) -> bool {
    let queue = component.strip_prefix("worker-");
    let of_queue = build::worker_scaling(&observed.bench.spec).into_iter().find(|it| queue == Some(it.queue));
    of_queue.is_some_and(|it| it.is_by_keda(observed.capabilities))
}

/// The status for a report.
pub fn status(observed: &Observed, rendered: &Rendered, report: &Report) -> FrappeBenchStatus {
    let former = observed.bench.status.clone().unwrap_or_default();
    let generation = observed.bench.metadata.generation;
    let mut conditions = Conditions::new(&former.conditions, generation, observed.now);
    let reason = report.reason.to_string();
    conditions.set("Ready", Some(report.phase == BenchPhase::Ready), &reason, &report.message);
    conditions.set("Progressing", Some(report.phase == BenchPhase::Progressing), &reason, &report.message);
    conditions.set("Degraded", Some(report.phase == BenchPhase::Failed), &reason, &report.message);
    if observed.input().single_node() {
        let message = "the volume is ReadWriteOnce: all pods are pinned to one node; losing it takes the bench down";
        conditions.set("SingleNode", Some(true), &Reason::ReadWriteOnce.to_string(), message);
    }
    if let Some((reason, message)) = sizes::sized(observed, rendered).problem {
        conditions.set("VolumesSized", Some(false), &reason.to_string(), &message);
    }
    if let Some(scaling) = autoscaling(observed, rendered) {
        conditions.set("WorkersAutoscaled", scaling.works, &scaling.reason.to_string(), &scaling.message);
    }
    if let Some((protected, reason, message)) = protection::condition(observed) {
        conditions.set("RedisProtected", Some(protected), &reason.to_string(), &message);
    }
    if let Some((pinned, reason, message)) = code::pinning(observed, rendered) {
        conditions.set("ImagePinned", Some(pinned), &reason.to_string(), &message);
    }
    let table = components(observed, rendered);
    let revision = rendered.revision().to_owned();
    let code = code::code(observed, rendered);
    let is_ready = report.phase == BenchPhase::Ready;
    let revisions = revisions::revisions(observed, rendered, &code, is_ready);
    let rollout = revisions::rollout(observed, &revisions);
    if let Some((rollout, _)) = &rollout {
        let (moved, reason, message) = revisions::convergence(rollout);
        conditions.set("Updated", Some(moved), &reason.to_string(), &message);
    }
    let (rollout, promoted) = rollout.unzip();
    let running_revision = if is_ready { Some(revision.clone()) } else { former.running_revision };
    FrappeBenchStatus {
        phase: report.phase,
        conditions: conditions.finish(),
        adopted_volume: adoption::volume(observed),
        redis_protected: Some(protection::decision(observed)),
        read_secrets: observed.read_secrets.clone(),
        git_enabled: Some(git_enabled(observed)),
        fpm_repositories: fpm_repositories(observed),
        observed_generation: generation,
        worker_scaling: worker_scaling(observed, &table),
        components: table.into_iter().filter(|(_, it)| it.desired >= 0).collect(),
        image: Some(observed.input().image()),
        detected_domain_suffix: match &observed.detected_suffix {
            Detected::NotYet => former.detected_domain_suffix,
            Detected::Suffix(suffix) => suffix.clone(),
        },
        installed_apps: installed(observed),
        configure_failure: configure_failure(observed, &revision),
        frappe_version: code.apps.iter().find(|app| app.name == "frappe").and_then(|app| app.version.clone()),
        apps: code.apps,
        assumed_apps: code.assumed_apps,
        image_digest: code.digest,
        last_handled_redeploy: code.last_handled_redeploy,
        front_revision: code.front_revision,
        held_revision: code.held_revision,
        inspected_revision: code.inspected_revision,
        revisions,
        rollout,
        last_handled_promote: promoted.flatten().or(former.last_handled_promote),
        running_revision,
        desired_revision: Some(revision),
    }
}

/// Whether apps from Git are allowed: the bench's setting, else the operator's.
pub fn git_enabled(observed: &Observed) -> bool {
    let own = observed.bench.spec.git_config.as_ref().and_then(|it| it.enabled);
    own.unwrap_or(observed.config.git_enabled)
}

/// Names of the repositories, the default one first, then the one with the highest priority.
fn fpm_repositories(observed: &Observed) -> Vec<String> {
    let own = observed.bench.spec.fpm_config.clone().unwrap_or_default();
    let shared = observed.config.fpm_repositories.iter().map(|it| (it.name.clone(), it.priority));
    let mut known: Vec<(String, i32)> = Vec::new();
    let of_bench = own.repositories.into_iter().map(|it| (it.name, it.priority.unwrap_or(FPM_PRIORITY)));
    for (name, priority) in shared.chain(of_bench) {
        // The bench's repository replaces the operator's one of the same name.
        known.retain(|(other, _)| *other != name);
        known.push((name, priority));
    }
    known.sort_by_key(|(name, priority)| (own.default_repo.as_ref() != Some(name), -i64::from(*priority)));
    known.into_iter().map(|(name, _)| name).collect()
}

fn worker_scaling(
    observed: &Observed,
    table: &BTreeMap<String, ComponentStatus>,
) -> BTreeMap<String, WorkerScalingStatus> {
    let row = |scaling: build::Scaling| {
        let component = table.get(&format!("worker-{}", scaling.queue));
        let managed = scaling.is_by_keda(observed.capabilities);
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

/// Events for a change of the status: one for each new phase or reason.
pub fn notices(observed: &Observed, next: &FrappeBenchStatus, report: &Report) -> Vec<Notice> {
    let former = observed.bench.status.clone().unwrap_or_default();
    let word = |conditions: &[Condition], kind: &str| condition::find(conditions, kind).map(|it| it.reason.clone());
    let mut notices = Vec::new();
    if former.phase != next.phase || !report.is_known(&former.conditions) {
        notices.push(report.notice());
    }
    for aside in next.conditions.iter().filter(|it| ASIDES.contains(&it.type_.as_str())) {
        if word(&former.conditions, &aside.type_).as_ref() != Some(&aside.reason) {
            let note = aside.message.clone();
            notices.push(Notice { warning: aside.status == "False", reason: aside.reason.clone(), note });
        }
    }
    notices
}

/// Failure of the configure Job for a revision: as reported by its pod, else as recorded.
pub fn configure_failure(observed: &Observed, revision: &str) -> Option<ConfigureFailure> {
    let job = configure_job(&observed.live, &observed.bench.name_any(), revision)?;
    if !matches!(job::state(job), job::State::Failed(_)) {
        return None;
    }
    let read = observed.failure.as_ref().map(|failure| ConfigureFailure {
        revision: revision.to_owned(),
        code: failure.code.to_string(),
        message: failure.message.clone(),
    });
    let recorded = observed.bench.status.as_ref().and_then(|status| status.configure_failure.clone());
    read.or_else(|| recorded.filter(|it| it.revision == revision))
}
