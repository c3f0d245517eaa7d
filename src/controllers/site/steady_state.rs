//! Phases of an initialized site: its route and its configuration. Pure.

use std::{collections::BTreeSet, sync::Arc};

use frappe_crds::{
    FrappeSite,
    site::{OperationKind, SitePhase},
};
use kube::{ResourceExt, core::DynamicObject};

use super::{
    adoption, build,
    model::{Configuration, Input, Observed, Part, Plan, Progress, Report, Stage, Step, verb},
    operation::{self, waits_message},
    reason::Reason,
    route::{self, Way},
    schema::{self, Fit, fit},
    under_way::under_way,
    valid_site::ValidSite,
};
use crate::{
    controllers::{
        bench::seen::{is_rolling_out, lacks_app},
        phase::Next,
    },
    domain::{
        labels, live,
        names::module,
        object::{Desired, Kind},
    },
};

/// Applies the chosen route and deletes the others.
pub(super) fn route(site: &ValidSite) -> Next<FrappeSite> {
    if site.input.valid.withholds(Part::Route) {
        return Next::go();
    }
    Next::write(route_steps(site.observed, &site.input, route::choose(site.observed).way))
}

/// Releases former hosts when they have no route.
pub(super) fn former_hosts(site: &ValidSite) -> Next<FrappeSite> {
    let withheld = site.input.valid.withholds(Part::Route);
    let former = site.observed.former_claims.iter().filter(|_| !withheld);
    Next::write(former.map(|claim| Step::Delete(Kind::Domain, claim.clone())))
}

/// Applies the site's configuration if it differs.
pub(super) fn configuration(site: &ValidSite) -> Next<FrappeSite> {
    let (observed, input) = (site.observed, &site.input);
    let mut plan = configure(observed, input, &site.wanted);
    let way = route::choose(observed).way;
    let former = observed.site.status.clone().unwrap_or_default();
    let created = former.operation.filter(|it| it.kind == OperationKind::Init && !former.initialized);
    for status in plan.statuses() {
        if let Some(operation) = &created {
            status.configuration.clone_from(&operation.configuration);
            status.admin_password_version.clone_from(&operation.admin_password_version);
            status.installed_apps = installed(input);
            status.apps.clone_from(&operation.apps);
        }
        status.initialized = true;
        status.route = way.map(|way| way.name().to_owned());
    }
    Next::End(plan)
}

fn installed(input: &Input) -> Vec<String> {
    ["frappe".to_owned()].into_iter().chain(input.valid.apps.iter().cloned()).collect()
}

/// Writes for the chosen route, and deletions of the others.
fn route_steps(observed: &Observed, input: &Input, way: Option<Way>) -> Vec<Step> {
    let wanted: Vec<Desired> = match way {
        Some(Way::Ingress) => vec![build::ingress(input)],
        Some(Way::HttpRoute) => vec![build::http_route(input)],
        Some(Way::Route) => input.valid.hosts.all().map(|host| build::route(input, host)).collect(),
        None => Vec::new(),
    };
    let is_wanted =
        |kind: Kind, it: &DynamicObject| wanted.iter().any(|w| w.kind == kind && w.key.name == it.name_any());
    let former: Vec<Step> = observed
        .routes
        .objects()
        .filter(|(kind, it)| !is_wanted(*kind, it))
        .map(|(kind, it)| Step::Delete(kind, it.clone()))
        .collect();
    let step = |desired: Desired| {
        let same =
            |(kind, it): &(Kind, &Arc<DynamicObject>)| *kind == desired.kind && it.name_any() == desired.key.name;
        let live = observed.routes.objects().find(same).map(|(_, it)| &**it);
        adoption::ensure(observed, desired, live)
    };
    wanted.into_iter().map(step).chain(former).collect()
}

/// Plans the configure Job; reports whether the site is available.
fn configure(observed: &Observed, input: &Input, wanted: &Configuration) -> Plan {
    let status = observed.site.status.clone().unwrap_or_default();
    let current = if status.initialized {
        status.configuration.clone()
    } else {
        // The site was just created, with the configuration that its operation records.
        status.operation.as_ref().and_then(|operation| operation.configuration.clone())
    };
    if current.as_deref() == Some(wanted.hash.as_str()) {
        return answered(observed, Plan::report(observed, &settled(observed, input), None));
    }
    if let Some(refusal) = input.valid.refused.first() {
        return Plan::report(observed, &refusal.existing_site_report(), None);
    }
    if let Some(message) = under_way(observed) {
        let report = moving(Reason::WaitingForBackup, format!("site is available; {message}"));
        return Plan::report(observed, &report, None);
    }
    if let Some(message) = waits_for_bench(observed, input).filter(|_| operation::running_job(observed).is_none()) {
        return Plan::report(observed, &moving(Reason::BenchNotReady, message), None);
    }
    match operation::progress(observed, OperationKind::Configure, Some(wanted)) {
        Progress::Done => {
            let mut plan = Plan::report(observed, &settled(observed, input), None);
            if let Some(next) = plan.status.as_mut() {
                let operation = status.operation.clone();
                let image = operation.as_ref().map(|it| it.apps.clone()).unwrap_or_default();
                next.configuration = operation.as_ref().and_then(|it| it.configuration.clone());
                next.admin_password_version = operation.and_then(|it| it.admin_password_version);
                let valid = &input.valid;
                let stays =
                    |app: &&String| *app != "frappe" && !valid.apps.contains(app) && !valid.removed_apps.contains(app);
                let former = status.installed_apps.iter().filter(stays).cloned();
                next.installed_apps = installed(input).into_iter().chain(former).collect();
                let before = schema::of_site(&status, observed.bench.as_deref());
                next.apps = schema::after_change(&before, &next.installed_apps, &image);
            }
            answered(observed, plan)
        }
        Progress::Run(operation) => {
            let waits = moving(Reason::WaitingForJobSlot, waits_message(observed));
            let name = input.valid.place.job(verb(OperationKind::Configure), operation.attempt).name;
            let runs =
                moving(Reason::Configuring, format!("site is available; Job {name} is applying its configuration"));
            let Some(bench) = observed.bench.as_deref() else { return Plan::report(observed, &waits, None) };
            let job = build::configure_job(input, &observed.bench_input(bench), &operation, wanted);
            Plan::start(observed, &waits, &runs, operation, job)
        }
        Progress::Retry { operation, after, message } => {
            let report = moving(Reason::ConfigureRetrying, message);
            Plan { again_after: Some(after), ..Plan::report(observed, &report, Some(operation)) }
        }
        Progress::Failed { operation, message } => {
            let report = Report::failed(Stage::Done, Stage::Init, Reason::ConfigureFailed, message);
            Plan::report(observed, &report, Some(operation))
        }
    }
}

/// Why a change waits for the bench. Frappe imports every app that the bench lists: all of the bench's jobs would fail in pods of another
/// image that lacks one.
fn waits_for_bench(observed: &Observed, input: &Input) -> Option<String> {
    let bench = observed.bench.as_deref()?;
    let status = observed.site.status.clone().unwrap_or_default();
    if let Fit::Differs(_) = fit(&status, Some(bench)) {
        return Some(
            "site is available; its change waits until it is migrated to the schema of the bench's image".to_owned(),
        );
    }
    if lacks_app(bench) {
        return Some(
            "site is available; its change waits until the image of its FrappeBench has all of the apps".to_owned(),
        );
    }
    let known = observed.site.status.as_ref().map(|status| status.installed_apps.as_slice()).unwrap_or_default();
    let new = input.valid.apps.iter().find(|app| !known.contains(app)).filter(|_| is_rolling_out(bench))?;
    Some(format!(
        "site is available; its change waits for the rollout of its FrappeBench, because pods of the previous image may lack \
         the app {new}"
    ))
}

/// Records the handled value of the reconcile annotation.
fn answered(observed: &Observed, mut plan: Plan) -> Plan {
    let annotations = observed.site.metadata.annotations.clone().unwrap_or_default();
    if let (Some(status), Some(asked)) = (plan.status.as_mut(), annotations.get(labels::RECONCILE)) {
        status.last_handled_reconcile_at = Some(asked.clone());
    }
    plan
}

/// Report: the site is available, and is being changed.
fn moving(reason: Reason, message: String) -> Report {
    Report::ready(reason, message).moving()
}

/// Report for a site whose configuration is applied.
pub(super) fn settled(observed: &Observed, input: &Input) -> Report {
    let report = keeps_apps(observed).unwrap_or_else(|| served(observed));
    match input.valid.refused.first() {
        Some(refusal) if report.phase == SitePhase::Ready => refusal.kept_report(),
        _ => report,
    }
}

/// Report for an app that is no longer in `apps`: it is not uninstalled, which would delete its data.
fn keeps_apps(observed: &Observed) -> Option<Report> {
    let status = observed.site.status.clone().unwrap_or_default();
    let spec = &observed.site.spec;
    let named = spec.apps.as_ref().filter(|_| status.initialized)?;
    let named: BTreeSet<String> = named.iter().chain(&spec.removed_apps).map(|app| module(app)).collect();
    let app = status.installed_apps.iter().find(|app| *app != "frappe" && !named.contains(*app))?;
    let message = format!(
        "app {app} is installed but no longer in apps: add it again, or add it to removedApps to uninstall it and delete its \
         data after a backup; the site stays available"
    );
    Some(Report::failed(Stage::Done, Stage::Init, Reason::AppNotRemoved, message))
}

/// Ready, unless the route is missing or was rejected.
fn served(observed: &Observed) -> Report {
    let choice = route::choose(observed);
    if choice.way.is_none() && !choice.unused.is_empty() {
        let message = format!("no route is available: {}", choice.unused.join("; "));
        return Report {
            phase: SitePhase::Pending,
            ..Report::failed(Stage::Route, Stage::Route, Reason::RouteApiMissing, message)
        };
    }
    if let Some(message) = refused(observed, choice.way) {
        return Report::failed(Stage::Route, Stage::Route, Reason::RouteRefused, message);
    }
    Report::available()
}

/// The message of a Gateway or router that rejected the route.
fn refused(observed: &Observed, way: Option<Way>) -> Option<String> {
    let routes = &observed.routes;
    let (objects, condition): (Vec<_>, &str) = match way? {
        Way::Ingress => return None,
        Way::HttpRoute => (routes.http_route.iter().collect(), "Accepted"),
        Way::Route => (routes.routes.values().collect(), "Admitted"),
    };
    let mut conditions = objects.into_iter().flat_map(|it| live::conditions_of_parents(it));
    let against = conditions.find(|it| it.fails(condition))?;
    let message = against.message().unwrap_or_default();
    Some(format!("{} was rejected: {}: {message}", way.map_or("", Way::name), against.reason()))
}
