//! What to do for a bench. Pure: every choice is made here, none where the plan is carried out.

use std::{sync::Arc, time::Duration};

use frappe_crds::bench::BenchPhase;
use kube::{ResourceExt, core::DynamicObject};
use serde_json::json;

use super::{
    autoscaling::autoscaling,
    build::{self, External},
    found::adopted,
    model::{Observed, Plan, Rendered, Report, Step},
    protection,
    reason::Reason,
    rollout,
    seen::{is_rolling, lacks_pods},
    sizes, status,
    validate::validate,
};
use crate::{
    controllers::job::{self, Begin, Failure, State},
    domain::{
        labels,
        object::{Desired, Kind, finalizers_without, is_controlled_by},
    },
};

/// The plan.
pub fn plan(observed: &Observed) -> Plan {
    if labels::has_unread_status(observed.bench.as_ref()) {
        // What was decided about the bench is not known: nothing is done, and nothing is written over it.
        return Plan::default();
    }
    let rendered = build::render(&observed.input());
    if observed.bench.metadata.deletion_timestamp.is_some() {
        return deletion(observed, &rendered);
    }
    let namespace = observed.bench.namespace().unwrap_or_default();
    if observed.bench.annotations().contains_key(labels::TOO_LARGE) {
        let message = "the object is too large (its spec takes more than 128 KiB) or nested too deeply, and is not read: \
                       take out what makes it so";
        let report = Report::new(BenchPhase::Failed, Reason::SpecTooLarge, message.to_owned());
        return told(observed, &rendered, Vec::new(), &report);
    }
    if let Err(problem) = validate(&observed.bench.spec, &namespace, status::git_enabled(observed)) {
        let report = Report::new(BenchPhase::Failed, problem.reason, problem.message);
        return told(observed, &rendered, Vec::new(), &report);
    }
    if let Some(status) = protection::record(observed) {
        // Nothing is made before it is decided how.
        return Plan { steps: adopt(observed).into_iter().collect(), status: Some(status), ..Plan::default() };
    }
    if let Some(early) = redis_secret(observed, &rendered) {
        return early;
    }
    let mut steps: Vec<Step> = adopt(observed).into_iter().collect();
    steps.extend(foundation(observed, &rendered));
    if let Err(report) = configure(observed, &rendered.configure, &mut steps) {
        // What runs already goes on running, and is kept as it should be.
        if observed.live.keys().any(|(kind, _)| *kind == Kind::Deployment) {
            steps.extend(components(observed, &rendered, true));
        }
        let obstacle = status::obstacle(observed).filter(|_| report.reason == Reason::Preparing);
        let report = obstacle.map_or(report, |(reason, message)| Report::new(BenchPhase::Progressing, reason, message));
        return told(observed, &rendered, adopted(observed, steps), &report);
    }
    if let Some(report) = awaits_redis(observed, &rendered) {
        return told(observed, &rendered, adopted(observed, steps), &report);
    }
    let missing = status::missing_app(observed, &rendered);
    steps.extend(components(observed, &rendered, missing.is_some()));
    steps = adopted(observed, steps);
    let report = missing.unwrap_or_else(|| status::readiness(observed, &rendered));
    let report = match changes(observed, &steps) {
        Some(name) if report.phase == BenchPhase::Ready => {
            Report::new(BenchPhase::Progressing, Reason::Starting, format!("{name} is changed"))
        }
        _ => report,
    };
    told(observed, &rendered, steps, &report)
}

/// The plan while the Secret for Redis is missing, or is not watched yet: nothing else is touched.
fn redis_secret(observed: &Observed, rendered: &Rendered) -> Option<Plan> {
    let (external, name) = build::redis_secret(&observed.bench)?;
    let Some(secret) = &observed.redis_secret else {
        let keys = match external {
            External::Generated => {
                let secret = build::password_secret(&observed.input(), &observed.fresh_password);
                return Some(Plan { steps: vec![Step::Create(secret)], ..Plan::default() });
            }
            External::Password => "the key password",
            External::Urls => "the keys redis-cache and redis-queue",
        };
        let message = format!("Secret {name} does not exist: create it with {keys}");
        let report = Report::new(BenchPhase::Progressing, Reason::RedisSecretMissing, message);
        return Some(Plan { missing: true, ..told(observed, rendered, Vec::new(), &report) });
    };
    if external == External::Generated && !protection::is_own(observed, secret) {
        let message =
            format!("Secret {name} exists and is not the one that was made for this bench: rename or remove it");
        let report = Report::new(BenchPhase::Failed, Reason::RedisSecretForeign, message);
        return Some(Plan { missing: true, ..told(observed, rendered, Vec::new(), &report) });
    }
    if secret.labels().contains_key(labels::WATCHED) {
        return None;
    }
    // The label changes the version: what depends on that waits for it, and the watch wakes the bench.
    Some(Plan { steps: vec![Step::Watch(Arc::clone(secret))], ..Plan::default() })
}

/// Before the first start of the components: workers and the websocket server end at once where Redis does not answer.
fn awaits_redis(observed: &Observed, rendered: &Rendered) -> Option<Report> {
    let is_there = |it: &Desired| observed.live.contains_key(&(it.kind, it.key.name.clone()));
    if rendered.components.iter().any(|it| it.kind == Kind::Deployment && is_there(it)) {
        return None;
    }
    let servers = rendered.foundation.iter().filter(|it| it.kind == Kind::StatefulSet);
    let mut names: Vec<&str> = Vec::new();
    for server in servers {
        let component = server.body["metadata"]["labels"]["component"].as_str().unwrap_or_default();
        if !is_there(server) || lacks_pods(observed, component) {
            names.push(&server.key.name);
        }
    }
    if names.is_empty() {
        return None;
    }
    let (reason, message) = status::obstacle(observed).unwrap_or_else(|| {
        (Reason::Preparing, format!("the components start once the pods of {} are ready", names.join(" and ")))
    });
    Some(Report::new(BenchPhase::Progressing, reason, message))
}

/// The first workload that this plan changes: what is known of its pods was before.
fn changes(observed: &Observed, steps: &[Step]) -> Option<String> {
    steps.iter().find_map(|step| {
        let Step::Ensure(desired) = step else { return None };
        let is_workload = matches!(desired.kind, Kind::Deployment | Kind::StatefulSet);
        (is_workload && is_changed(observed, desired)).then(|| desired.key.name.clone())
    })
}

/// Whether the object is there, and was applied with another content.
fn is_changed(observed: &Observed, desired: &Desired) -> bool {
    let live = observed.live.get(&(desired.kind, desired.key.name.clone()));
    live.is_some_and(|live| live.annotations().get(labels::APPLIED_HASH) != Some(&desired.applied_hash()))
}

/// What comes before the configuration, with volumes of the size that they can have.
fn foundation(observed: &Observed, rendered: &Rendered) -> impl Iterator<Item = Step> {
    let claims = sizes::sized(observed, rendered).claims;
    let others = rendered.foundation.iter().filter(|it| it.kind != Kind::PersistentVolumeClaim).cloned();
    let others: Vec<Desired> = others.map(|desired| sizes::keep_template(observed, desired)).collect();
    claims.into_iter().chain(others).map(Step::Ensure)
}

/// What must go goes first: while a ScaledObject is there, KEDA takes a fixed number of workers back.
fn components(observed: &Observed, rendered: &Rendered, held: bool) -> Vec<Step> {
    let staged = rollout::staged(observed, rendered, held);
    let in_use = held || staged.iter().any(|desired| is_changing(observed, desired));
    let mut steps: Vec<Step> = retire(observed, in_use).collect();
    for desired in staged {
        steps.extend(hand_over(observed, &desired));
        steps.push(Step::Ensure(desired));
    }
    steps
}

/// Whether pods of a former revision of this Deployment may still run.
fn is_changing(observed: &Observed, desired: &Desired) -> bool {
    let component = desired.body["metadata"]["labels"]["component"].as_str().unwrap_or_default();
    desired.kind == Kind::Deployment && (is_changed(observed, desired) || is_rolling(observed, component))
}

/// A Deployment whose replicas are KEDA's from now on keeps the number that it has: were it the last field manager's to
/// let the field go, the API server would set it to 1 and end workers.
fn hand_over(observed: &Observed, desired: &Desired) -> Option<Step> {
    let live = observed.live.get(&(desired.kind, desired.key.name.clone()))?;
    let handed = live.annotations().get(labels::REPLICAS).is_some_and(|it| it == labels::REPLICAS_BY_KEDA);
    (build::is_autoscaled(desired) && !handed).then(|| Step::HandOver(Arc::clone(live)))
}

fn told(observed: &Observed, rendered: &Rendered, steps: Vec<Step>, report: &Report) -> Plan {
    let status = status::status(observed, rendered, report);
    let notices = status::notices(observed, &status, report);
    let again_after = again_after(observed, rendered);
    Plan { steps, status: Some(status), notices, again_after, ..Plan::default() }
}

/// What the bench has from other settings goes, if it is this bench's own. A server goes only when nobody can use it any
/// more.
fn retire(observed: &Observed, in_use: bool) -> impl Iterator<Item = Step> {
    let own = |object: &DynamicObject| observed.bench.uid().is_some_and(|uid| is_controlled_by(object, &uid));
    let leaves = move |object: &DynamicObject| object.metadata.deletion_timestamp.is_none() && own(object);
    let serves = move |kind: Kind| in_use && matches!(kind, Kind::StatefulSet | Kind::Service);
    let retired = observed.retired.iter().filter(move |(kind, object)| leaves(object) && !serves(*kind));
    retired.map(|(kind, object)| Step::Delete(*kind, Arc::clone(object)))
}

fn adopt(observed: &Observed) -> Option<Step> {
    let finalizer = labels::BENCH_FINALIZER.to_owned();
    if observed.bench.finalizers().contains(&finalizer) {
        return None;
    }
    let mut finalizers = observed.bench.finalizers().to_vec();
    finalizers.push(finalizer);
    Some(patch(observed, &finalizers))
}

fn patch(observed: &Observed, finalizers: &[String]) -> Step {
    let bench = &observed.bench;
    Step::PatchBench(json!({"uid": bench.uid(), "resourceVersion": bench.resource_version(), "finalizers": finalizers}))
}

/// The configure Job: run once for each content of the configuration and each image.
fn configure(observed: &Observed, wanted: &Desired, steps: &mut Vec<Step>) -> Result<(), Report> {
    let preparing = |message: &str| Report::new(BenchPhase::Progressing, Reason::Preparing, message.to_owned());
    let Some(job) = observed.live.get(&(Kind::Job, wanted.key.name.clone())) else {
        steps.push(Step::Create(wanted.clone()));
        return Err(preparing("the configure Job is writing common_site_config.json"));
    };
    let hash = wanted.body["metadata"]["annotations"][labels::APPLIED_HASH].as_str();
    if job.annotations().get(labels::APPLIED_HASH).map(String::as_str) != hash {
        if job.metadata.deletion_timestamp.is_none() {
            steps.push(Step::Delete(Kind::Job, job.clone()));
        }
        return Err(preparing("running the configure Job again: the configuration changed"));
    }
    match job::state(job) {
        State::Complete => Ok(()),
        State::Running => Err(match begin(observed, job, wanted) {
            Begin::Stuck(why) => {
                let message = format!("Job {}: {why}", wanted.key.name);
                Report::new(BenchPhase::Progressing, Reason::PodsNotStarting, message)
            }
            _ => preparing("the configure Job is writing common_site_config.json"),
        }),
        State::Failed(_) => Err(configure_failed(observed, hash.unwrap_or_default(), &wanted.key.name)),
    }
}

/// How far the first pod of the configure Job is.
fn begin(observed: &Observed, job: &DynamicObject, wanted: &Desired) -> Begin {
    let with_steps = wanted.body["spec"]["template"]["spec"]["initContainers"].is_array();
    job::begin(job, with_steps, observed.now)
}

/// When the bench must be looked at again though nothing changes: what does not happen is no event.
fn again_after(observed: &Observed, rendered: &Rendered) -> Option<Duration> {
    let wanted = &rendered.configure;
    let job = observed.live.get(&(Kind::Job, wanted.key.name.clone())).map(|job| begin(observed, job, wanted));
    let soon = if let Some(Begin::Soon(left)) = job { Some(left) } else { None };
    soon.into_iter().chain(autoscaling(observed, rendered).and_then(|it| it.again_after)).min()
}

fn configure_failed(observed: &Observed, revision: &str, name: &str) -> Report {
    let why = status::configure_failure(observed, revision).map_or_else(|| Failure::unknown().message, |it| it.message);
    let message = format!("Job {name} failed: {why}; correct the cause and delete the Job to have it run again");
    Report::new(BenchPhase::Failed, Reason::ConfigureFailed, message)
}

/// A bench with sites is not deleted: its volume holds their files.
fn deletion(observed: &Observed, rendered: &Rendered) -> Plan {
    let finalizers = observed.bench.finalizers();
    if !finalizers.contains(&labels::BENCH_FINALIZER.to_owned()) {
        return Plan::default();
    }
    if observed.sites.is_empty() {
        let left = finalizers_without(observed.bench.as_ref(), labels::BENCH_FINALIZER);
        // What a volume's deletion policy says counts as it was said last, also if that was just before.
        let holds_volume = |it: &Desired| matches!(it.kind, Kind::PersistentVolumeClaim | Kind::StatefulSet);
        let there = |it: &Desired| observed.live.contains_key(&(it.kind, it.key.name.clone()));
        let last = |step: &Step| matches!(step, Step::Ensure(it) if holds_volume(it) && there(it));
        let steps = foundation(observed, rendered).filter(last).chain([patch(observed, &left)]).collect();
        return Plan { steps: adopted(observed, steps), ..Plan::default() };
    }
    let mut names = observed.sites.clone();
    names.sort();
    let shown = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(5);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message = format!("the bench has {} sites ({shown}{rest}): delete them first", names.len());
    let phase = observed.bench.status.clone().unwrap_or_default().phase;
    told(observed, rendered, Vec::new(), &Report::new(phase, Reason::DependentSitesExist, message))
}
