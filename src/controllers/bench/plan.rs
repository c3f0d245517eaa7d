//! The plan of a bench. Pure: every decision is made here, none in its execution.

use std::{sync::Arc, time::Duration};

use frappe_crds::{FrappeBench, bench::BenchPhase};
use kube::{ResourceExt, core::DynamicObject};

use super::{
    adoption,
    autoscaling::autoscaling,
    build::{self, External},
    model::{Observed, Plan, Rendered, Report, Step},
    protection,
    reason::Reason,
    revisions,
    rollout::{self, Staged},
    seen::{is_rolling, lacks_pods, servers_without_pods},
    sizes, status,
    validate::{Problem, Valid, validate},
};
use crate::{
    controllers::{
        job::{self, Begin, Failure, State},
        phase::{Next, Planned, fold},
    },
    domain::{
        labels,
        metadata::MetadataPatch,
        object::{Desired, Kind, finalizers_without, is_controlled_by},
    },
};

/// A bench with its rendered objects; its spec may be invalid.
struct Look<'a> {
    observed: &'a Observed,
    rendered: Rendered,
}

/// A bench whose spec is valid.
struct Bench<'a> {
    look: &'a Look<'a>,
    /// Objects applied before the configure Job, with volumes of the possible size.
    foundation: Vec<Step>,
}

/// A phase of a valid bench: its name and its function.
type Phase = (&'static str, fn(&Bench<'_>) -> Next<FrappeBench>);

/// A phase of any bench.
type LookPhase = (&'static str, fn(&Look<'_>) -> Next<FrappeBench>);

/// The phases of a bench whose spec is valid.
const PHASES: &[Phase] = &[
    ("protection", decision),
    ("Secret for Redis", redis_secret),
    ("finalizer", finalizer),
    ("revision", revision),
    ("foundation", foundation),
    ("configure Job", configure),
    ("Redis", redis),
    ("earlier revisions", earlier_revisions),
    ("components", components),
];

/// The phases of a bench that is being deleted.
const DELETION: &[LookPhase] = &[("finalizer", held), ("sites", sites), ("release", release)];

/// The plan, with the phase that ended it.
pub fn planned(observed: &Observed) -> Planned<FrappeBench> {
    if labels::has_unread_status(observed.bench.as_ref()) {
        // The recorded decisions about the bench cannot be read: nothing is done, and nothing is overwritten.
        return Planned { phase: "unread status", plan: Plan::default() };
    }
    let rendered = rollout::with_present_references(observed, build::render(&observed.input()));
    let look = Look { observed, rendered };
    if observed.bench.metadata.deletion_timestamp.is_some() {
        return fold(DELETION, &look);
    }
    match validate(&observed.bench, status::git_enabled(observed)) {
        Ok(valid) => fold(PHASES, &Bench::of(&look, &valid)),
        // Unsupported or incompletely read specs are rejected.
        Err(Problem { reason, message }) => {
            let plan = look.report(Vec::new(), &Report::new(BenchPhase::Failed, reason, message));
            Planned { phase: "validation", plan }
        }
    }
}

/// Records decisions before anything is created.
fn decision(bench: &Bench) -> Next<FrappeBench> {
    match protection::record(bench.look.observed) {
        Some(status) => Next::End(Plan {
            steps: add_finalizer(bench.look.observed).into_iter().collect(),
            status: Some(status),
            ..Plan::default()
        }),
        None => Next::go(),
    }
}

/// Waits while the Secret for Redis is missing or not watched yet.
fn redis_secret(bench: &Bench) -> Next<FrappeBench> {
    let observed = bench.look.observed;
    let Some((external, name)) = build::redis_secret(&observed.bench) else { return Next::go() };
    let missing = |phase, reason, message: String| {
        Next::End(Plan { missing: true, ..bench.look.report(Vec::new(), &Report::new(phase, reason, message)) })
    };
    let Some(secret) = &observed.redis_secret else {
        let keys = match external {
            External::Generated => {
                let secret = build::password_secret(&observed.input(), &observed.fresh_password);
                return Next::End(Plan { steps: vec![Step::Create(secret)], ..Plan::default() });
            }
            External::Password => "the key password",
            External::Urls => "the keys redis-cache and redis-queue",
        };
        let message = format!("Secret {name} does not exist: create it with {keys}");
        return missing(BenchPhase::Progressing, Reason::RedisSecretMissing, message);
    };
    if external == External::Generated && !protection::is_own(observed, secret) {
        let message = format!("Secret {name} exists and was not created for this bench: rename or remove it");
        return missing(BenchPhase::Failed, Reason::RedisSecretForeign, message);
    }
    if secret.labels().contains_key(labels::WATCHED) {
        return Next::go();
    }
    // The label changes the version: the plan waits for it, and the watch triggers the next reconcile.
    Next::End(Plan { steps: vec![Step::WatchSecret(Arc::clone(secret))], ..Plan::default() })
}

/// Adds the finalizer: from here on the bench has objects that must be deleted before it.
fn finalizer(bench: &Bench) -> Next<FrappeBench> {
    Next::write(add_finalizer(bench.look.observed))
}

/// Records another revision before anything of it is created.
fn revision(bench: &Bench) -> Next<FrappeBench> {
    match revisions::record(bench.look.observed) {
        Ok(None) => Next::go(),
        Ok(Some(status)) => Next::End(Plan { status: Some(status), ..Plan::default() }),
        Err(report) => bench.look.only_report(&report),
    }
}

/// Applies volumes, Redis, and the other objects before the configure Job.
fn foundation(bench: &Bench) -> Next<FrappeBench> {
    Next::write(bench.foundation.clone())
}

/// Waits for the configure Job. Running components keep running and are still reconciled.
fn configure(bench: &Bench) -> Next<FrappeBench> {
    let observed = bench.look.observed;
    let Some((mut steps, report)) = configuring(observed, &bench.look.rendered.configure) else {
        return Next::go();
    };
    if observed.live.keys().any(|(kind, _)| *kind == Kind::Deployment) {
        steps.extend(present_components(bench.look));
    }
    // What a pod reports is more exact than that it has not started in time.
    let is_vague = matches!(report.reason, Reason::Preparing | Reason::PodsNotStarting);
    let obstacle = status::obstacle(observed).filter(|_| is_vague);
    let report = obstacle.map_or(report, |(reason, message)| Report::new(BenchPhase::Progressing, reason, message));
    Next::End(bench.look.report(steps, &report))
}

/// Waits for Redis before the first start of the components.
fn redis(bench: &Bench) -> Next<FrappeBench> {
    awaits_redis(bench.look.observed, &bench.look.rendered)
        .map_or_else(Next::go, |report| bench.look.only_report(&report))
}

/// The components with their present code.
fn present_components(look: &Look) -> Vec<Step> {
    let staged = rollout::staged(look.observed, &look.rendered, true);
    steps(look.observed, &look.rendered, staged, true)
}

/// Starts pods of the former code beside the present ones. These are replaced only when the others run.
fn earlier_revisions(bench: &Bench) -> Next<FrappeBench> {
    let Look { observed, rendered } = bench.look;
    let older = revisions::older(observed, rendered).into_iter();
    let steps: Vec<Step> = older.filter_map(|desired| adoption::ensure(observed, desired)).collect();
    let awaited = revisions::awaited(observed, rendered);
    if awaited.is_empty() {
        return Next::write(steps);
    }
    let steps = steps.into_iter().chain(present_components(bench.look)).collect();
    let message = format!("pods of the former image start beside the present ones: {} left", awaited.join(", "));
    let (reason, message) = status::obstacle(observed).unwrap_or((Reason::Rolling, message));
    Next::End(bench.look.report(steps, &Report::new(BenchPhase::Progressing, reason, message)))
}

/// Rolls out the components stage by stage, and reports the bench's state.
fn components(bench: &Bench) -> Next<FrappeBench> {
    let Look { observed, rendered } = bench.look;
    let missing = status::missing_app(observed, rendered);
    let staged = rollout::staged(observed, rendered, missing.is_some());
    let held = staged.awaits_hold.then(|| holding(observed, rendered));
    let steps = steps(observed, rendered, staged, missing.is_some());
    let report = missing.or(held).unwrap_or_else(|| status::readiness(observed, rendered));
    let report = match changes(observed, bench.foundation.iter().chain(&steps)) {
        Some(name) if report.phase == BenchPhase::Ready => {
            Report::new(BenchPhase::Progressing, Reason::Starting, format!("{name} is changed"))
        }
        _ => report,
    };
    Next::End(bench.look.report(steps, &report))
}

/// Ends the plan of a bench without our finalizer.
fn held(look: &Look) -> Next<FrappeBench> {
    let ours = look.observed.bench.finalizers().iter().any(|it| it == labels::BENCH_FINALIZER);
    if ours { Next::go() } else { Next::End(Plan::default()) }
}

/// Waits until the bench has no sites: its volume holds their files.
fn sites(look: &Look) -> Next<FrappeBench> {
    let observed = look.observed;
    if observed.sites.is_empty() {
        return Next::go();
    }
    let mut names = observed.sites.clone();
    names.sort();
    let shown = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(5);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message = format!("the bench has {} sites ({shown}{rest}): delete them first", names.len());
    let phase = observed.bench.status.clone().unwrap_or_default().phase;
    look.only_report(&Report::new(phase, Reason::DependentSitesExist, message))
}

/// Removes the finalizer. The latest deletion policy of the volumes applies, even if it was changed during the deletion.
fn release(look: &Look) -> Next<FrappeBench> {
    let observed = look.observed;
    let holds_volume = |it: &Desired| matches!(it.kind, Kind::PersistentVolumeClaim | Kind::StatefulSet);
    let there = |it: &Desired| observed.live.contains_key(&(it.kind, it.key.name.clone()));
    let last = founded(observed, &look.rendered).into_iter().filter(|it| holds_volume(it) && there(it));
    let left = finalizers_without(observed.bench.as_ref(), labels::BENCH_FINALIZER);
    let steps =
        last.filter_map(|desired| adoption::ensure(observed, desired)).chain([patch(observed, &left)]).collect();
    Next::End(Plan { steps, ..Plan::default() })
}

impl<'a> Bench<'a> {
    /// Data of a bench with a valid spec.
    fn of(look: &'a Look<'a>, _: &Valid) -> Self {
        let kept = |it: &Desired| protection::awaits_configure(look.observed, it, look.rendered.revision());
        let founded = founded(look.observed, &look.rendered).into_iter().filter(|it| !kept(it));
        Self { look, foundation: founded.filter_map(|desired| adoption::ensure(look.observed, desired)).collect() }
    }
}

impl Look<'_> {
    /// A plan with these writes and a report.
    fn report(&self, steps: Vec<Step>, report: &Report) -> Plan {
        let status = status::status(self.observed, &self.rendered, report);
        let notices = status::notices(self.observed, &status, report);
        let again_after = again_after(self.observed, &self.rendered);
        Plan { steps, status: Some(status), notices, again_after, ..Plan::default() }
    }

    /// A plan with only a report.
    fn only_report(&self, report: &Report) -> Next<FrappeBench> {
        Next::End(self.report(Vec::new(), report))
    }
}

/// Waits for Redis before the first start: workers and the websocket server exit if Redis does not respond.
fn awaits_redis(observed: &Observed, rendered: &Rendered) -> Option<Report> {
    let is_there = |it: &Desired| observed.live.contains_key(&(it.kind, it.key.name.clone()));
    if rendered.components.iter().any(|it| it.kind == Kind::Deployment && is_there(it)) {
        return None;
    }
    let servers = rendered.foundation.iter().filter(|it| it.kind == Kind::StatefulSet);
    let mut names: Vec<&str> = Vec::new();
    for server in servers {
        let component = server.component();
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

/// The first workload that this plan changes: the observed state of its pods is outdated then.
fn changes<'a>(observed: &Observed, mut steps: impl Iterator<Item = &'a Step>) -> Option<String> {
    steps.find_map(|step| {
        let Step::Ensure(desired) = step else { return None };
        let is_workload = matches!(desired.kind, Kind::Deployment | Kind::StatefulSet);
        (is_workload && is_changed(observed, desired)).then(|| desired.key.name.clone())
    })
}

/// Whether the object exists and was applied with other content.
fn is_changed(observed: &Observed, desired: &Desired) -> bool {
    let live = observed.live.get(&(desired.kind, desired.key.name.clone()));
    live.is_some_and(|live| live.annotations().get(labels::APPLIED_HASH) != Some(&desired.applied_hash()))
}

/// Objects applied before the configure Job, with volumes of the possible size.
fn founded(observed: &Observed, rendered: &Rendered) -> Vec<Desired> {
    let claims = sizes::sized(observed, rendered).claims;
    let others = rendered.foundation.iter().filter(|it| it.kind != Kind::PersistentVolumeClaim).cloned();
    claims.into_iter().chain(others.map(|desired| sizes::keep_template(observed, desired))).collect()
}

/// Deletions come first: while a ScaledObject exists, KEDA resets a fixed number of workers.
fn steps(observed: &Observed, rendered: &Rendered, staged: Staged, held: bool) -> Vec<Step> {
    let Staged { components, awaits_hold } = staged;
    let in_use = held || components.iter().any(|desired| is_changing(observed, desired));
    let mut steps: Vec<Step> = retire(observed, in_use).collect();
    for desired in components {
        steps.extend(hand_over(observed, &desired));
        steps.extend(adoption::ensure(observed, desired));
    }
    steps.extend(awaits_hold.then(|| hold(observed, rendered)).flatten());
    steps
}

/// Runs the hold Job of this revision.
fn hold(observed: &Observed, rendered: &Rendered) -> Option<Step> {
    match observed.live.get(&(Kind::Job, rendered.hold.key.name.clone())) {
        None => adoption::create(observed, rendered.hold.clone()),
        Some(_) if rollout::hold_job(observed, rendered).is_some() => None,
        Some(other) => delete(other),
    }
}

/// Deletes a Job of another revision.
fn delete(job: &Arc<DynamicObject>) -> Option<Step> {
    job.metadata.deletion_timestamp.is_none().then(|| Step::Delete(Kind::Job, Arc::clone(job)))
}

/// Report while workers of another image wait for the hold Job.
fn holding(observed: &Observed, rendered: &Rendered) -> Report {
    let name = &rendered.hold.key.name;
    let job = rollout::hold_job(observed, rendered);
    if job.is_some_and(|job| matches!(job::state(job), State::Failed(_))) {
        let message = format!(
            "Job {name} failed, so that workers of the new image do not start: see kubectl logs job/{name}; correct the cause and \
             delete the Job to run it again"
        );
        return Report::new(BenchPhase::Failed, Reason::HoldFailed, message);
    }
    if let Some(Begin::Stuck(why)) = job.map(|job| begin(observed, job, &rendered.hold)) {
        return Report::new(BenchPhase::Progressing, Reason::PodsNotStarting, format!("Job {name}: {why}"));
    }
    let message = format!(
        "Job {name} stops the background jobs of sites with another schema before workers of the new image start"
    );
    Report::new(BenchPhase::Progressing, Reason::Rolling, message)
}

/// Whether pods of a former revision of this Deployment may still run.
fn is_changing(observed: &Observed, desired: &Desired) -> bool {
    let component = desired.component();
    desired.kind == Kind::Deployment && (is_changed(observed, desired) || is_rolling(observed, component))
}

/// A Deployment that an autoscaler scales from now on keeps its current replicas: if the last field manager gave the field up, the API
/// server would reset it to 1 and terminate workers.
fn hand_over(observed: &Observed, desired: &Desired) -> Option<Step> {
    let live = observed.live.get(&(desired.kind, desired.key.name.clone()))?;
    let handed = live.annotations().contains_key(labels::REPLICAS);
    (build::scaled_by(desired).is_some() && !handed).then(|| adoption::hand_over(observed, live)).flatten()
}

/// Deletes the bench's objects that the settings no longer need. A Redis server is deleted only when no component uses it.
fn retire(observed: &Observed, in_use: bool) -> impl Iterator<Item = Step> {
    let own = |object: &DynamicObject| observed.bench.uid().is_some_and(|uid| is_controlled_by(object, &uid));
    let leaves = move |object: &DynamicObject| object.metadata.deletion_timestamp.is_none() && own(object);
    let serves = move |kind: Kind| in_use && matches!(kind, Kind::StatefulSet | Kind::Service);
    let retired = observed.retired.iter().filter(move |(kind, object)| leaves(object) && !serves(*kind));
    retired.map(|(kind, object)| Step::Delete(*kind, Arc::clone(object)))
}

fn add_finalizer(observed: &Observed) -> Option<Step> {
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
    let metadata = MetadataPatch::of(bench.as_ref()).with_finalizers(finalizers.iter().cloned());
    Step::Patch(Arc::clone(bench), metadata)
}

/// The plan while the configure Job has not succeeded. It runs once for each configuration and image.
fn configuring(observed: &Observed, wanted: &Desired) -> Option<(Vec<Step>, Report)> {
    let preparing = |message: &str| Report::new(BenchPhase::Progressing, Reason::Preparing, message);
    let Some(job) = observed.live.get(&(Kind::Job, wanted.key.name.clone())) else {
        let steps = adoption::create(observed, wanted.clone()).into_iter().collect();
        return Some((steps, preparing("the configure Job is writing common_site_config.json")));
    };
    let hash = wanted.annotation(labels::APPLIED_HASH);
    if job.annotations().get(labels::APPLIED_HASH).map(String::as_str) != hash {
        return Some((
            delete(job).into_iter().collect(),
            preparing("running the configure Job again: the configuration changed"),
        ));
    }
    let report = match job::state(job) {
        State::Complete => return None,
        State::Running => match begin(observed, job, wanted) {
            Begin::Stuck(why) => {
                let message = format!("Job {}: {why}", wanted.key.name);
                Report::new(BenchPhase::Progressing, Reason::PodsNotStarting, message)
            }
            _ => preparing("the configure Job is writing common_site_config.json"),
        },
        State::Failed(_) => configure_failed(observed, hash.unwrap_or_default(), &wanted.key.name),
    };
    Some((Vec::new(), report))
}

/// State of the configure Job's first pod.
fn begin(observed: &Observed, job: &DynamicObject, wanted: &Desired) -> Begin {
    let with_steps = wanted.body["spec"]["template"]["spec"]["initContainers"].is_array();
    job::begin(job, with_steps, observed.now)
}

/// Time until the next reconcile if nothing changes, to notice what did not happen in time.
fn again_after(observed: &Observed, rendered: &Rendered) -> Option<Duration> {
    let jobs = [&rendered.configure, &rendered.hold].into_iter().filter_map(|wanted| {
        let job = observed.live.get(&(Kind::Job, wanted.key.name.clone()))?;
        Some(begin(observed, job, wanted))
    });
    let soon = jobs.filter_map(|begin| if let Begin::Soon(left) = begin { Some(left) } else { None });
    let pods = servers_without_pods(observed).filter_map(|it| job::left_for_pod(it, observed.now));
    let scaling = autoscaling(observed, rendered).and_then(|it| it.again_after);
    soon.chain(pods).chain(scaling).chain(revisions::again_after(observed)).min()
}

fn configure_failed(observed: &Observed, revision: &str, name: &str) -> Report {
    let why = status::configure_failure(observed, revision).map_or_else(|| Failure::unknown().message, |it| it.message);
    let message = format!("Job {name} failed: {why}; correct the cause and delete the Job to run it again");
    Report::new(BenchPhase::Failed, Reason::ConfigureFailed, message)
}
