//! Phase and conditions of a site. Pure.

use frappe_crds::{
    FrappeSiteStatus,
    site::{Operation, SitePhase},
};

use super::{
    model::{Observed, Plan, Report, Stage, Start},
    operation,
    reason::Reason,
    route::{self, encrypted, url},
};
use crate::{
    controllers::job::{self, Begin},
    domain::{
        condition::{self, Conditions},
        object::Desired,
    },
    io::events::Notice,
};

/// The conditions of the stages: type, reason and message when complete.
const STAGES: [(Stage, &str, Reason, &str); 4] = [
    (Stage::Bench, "BenchReady", Reason::BenchReady, "bench is ready"),
    (Stage::Database, "DatabaseReady", Reason::DatabaseReady, "database, user and grants exist"),
    (Stage::Init, "SiteInitialized", Reason::Initialized, "site is initialized"),
    (Stage::Route, "RouteReady", Reason::RouteApplied, ""),
];

/// The status for a report; the rest is kept from the previous status.
pub fn status(observed: &Observed, report: &Report) -> FrappeSiteStatus {
    let former = observed.site.status.clone().unwrap_or_default();
    let generation = observed.site.metadata.generation;
    let mut conditions = Conditions::new(&former.conditions, generation, observed.now);
    let ready = report.phase == SitePhase::Ready;
    conditions.set("Ready", Some(ready), &report.reason.to_string(), &report.message);
    let moving = report.detail.moving || report.reason == Reason::Deleting;
    conditions.set("Progressing", Some(moving), &report.reason.to_string(), &report.message);
    let reached = |stage: Stage| stage < report.detail.reached || (stage == Stage::Init && former.initialized);
    // A completed stage of an available site stays complete while another change is blocked.
    let kept = |stage: Stage| (former.initialized && stage != report.detail.at) || report.detail.at == Stage::Done;
    for (stage, kind, reason, message) in STAGES {
        let before = condition::find(&former.conditions, kind).filter(|_| !ready && kept(stage));
        if let Some(before) = before {
            conditions.keep(before);
        } else if stage == report.detail.at && !ready {
            let state = stage == Stage::Init && former.initialized;
            conditions.set(kind, Some(state), &report.reason.to_string(), &report.message);
        } else if reached(stage) {
            let (reason, message) =
                if stage == Stage::Route { route_state(observed) } else { (reason, message.to_owned()) };
            conditions.set(kind, Some(true), &reason.to_string(), &message);
        } else {
            let message = format!("not started: blocked by {}", blocker(report));
            conditions.set(kind, Some(false), &Reason::Waiting.to_string(), &message);
        }
    }
    let conditions = conditions.finish();
    let known = report.detail.reached > Stage::Bench;
    let hosts = &observed.hosts;
    FrappeSiteStatus {
        phase: report.phase,
        bench_ready: condition::is_true(&conditions, "BenchReady"),
        database_ready: condition::is_true(&conditions, "DatabaseReady"),
        conditions,
        site_url: ready.then(|| url(&hosts.primary, encrypted(observed))).or(former.site_url),
        resolved_domain: known.then(|| hosts.primary.clone()).or(former.resolved_domain),
        domain_source: known.then(|| hosts.source.to_owned()).or(former.domain_source),
        observed_generation: generation,
        // Until something is done with what was read, the record may still begin with another version.
        read_secrets: if former.initialized || former.operation.is_some() {
            observed.read_secrets.clone()
        } else {
            former.read_secrets
        },
        // Kept in every status.
        operation: operation::ended(observed),
        ..former
    }
}

/// The condition that the reason is about; else that of the first incomplete stage.
fn blocker(report: &Report) -> &'static str {
    let kind = |stage: Stage| STAGES.iter().find(|it| it.0 == stage).map(|it| it.1);
    kind(report.detail.at).or_else(|| kind(report.detail.reached)).unwrap_or("Ready")
}

/// The route in use, and unused routes of the spec.
fn route_state(observed: &Observed) -> (Reason, String) {
    let choice = route::choose(observed);
    let (reason, begin) = match choice.way {
        Some(way) => (Reason::RouteApplied, format!("{} routes to the site", way.name())),
        None => (Reason::RouteDisabled, "no route: ingress.enabled is false".to_owned()),
    };
    (reason, std::iter::once(begin).chain(choice.unused).collect::<Vec<_>>().join("; "))
}

/// The status of a suspended site, of which the rest is unchanged.
pub fn suspended(observed: &Observed) -> FrappeSiteStatus {
    let former = observed.site.status.clone().unwrap_or_default();
    let mut conditions = Conditions::new(&former.conditions, observed.site.metadata.generation, observed.now);
    for condition in former.conditions.iter().filter(|it| it.type_ != "Progressing") {
        conditions.keep(condition);
    }
    let message = "suspended (spec.suspend is true): changes are not applied until it is false";
    conditions.set("Progressing", Some(false), &Reason::Suspended.to_string(), message);
    FrappeSiteStatus { conditions: conditions.finish(), operation: operation::ended(observed), ..former }
}

/// Events for a change of the status: one for each new phase or reason, except for intermediate steps.
fn notice(observed: &Observed, next: &FrappeSiteStatus, report: &Report) -> Option<Notice> {
    let former = observed.site.status.clone().unwrap_or_default();
    if report.reason.is_step() || (former.phase == next.phase && report.is_known(&former.conditions)) {
        return None;
    }
    let notice = report.notice();
    Some(match report.reason {
        Reason::Ready => {
            Notice { note: format!("site is available at {}", next.site_url.clone().unwrap_or_default()), ..notice }
        }
        _ => notice,
    })
}

impl Plan {
    /// A plan with only a status, which may record an operation.
    pub fn report(observed: &Observed, report: &Report, operation: Option<Operation>) -> Self {
        let mut next = status(observed, report);
        if operation.is_some() {
            next.operation = operation;
            next.read_secrets.clone_from(&observed.read_secrets);
        }
        let notices = notice(observed, &next, report).into_iter().collect();
        Self { status: Some(next), notices, ..Self::default() }
    }

    /// A plan with a Job that needs a job slot: it reports `waits` without one, and `runs` with one.
    pub fn start(observed: &Observed, waits: &Report, runs: &Report, operation: Operation, job: Desired) -> Self {
        let begin = observed.jobs.get(&job.key.name).map(|it| job::begin(it, false, observed.now));
        let mut runs = runs.clone();
        let again_after = match begin {
            Some(Begin::Stuck(why)) => {
                runs.reason = Reason::JobNotStarting;
                runs.message = format!("{}, but {why}", runs.message);
                None
            }
            Some(Begin::Soon(left)) => Some(left),
            Some(Begin::Begun) | None => None,
        };
        let Self { status, notices, .. } = Self::report(observed, &runs, Some(operation));
        let start = Some(Box::new(Start { job, status, notices, runs: None, waits: None }));
        Self { start, again_after, ..Self::report(observed, waits, None) }
    }
}
