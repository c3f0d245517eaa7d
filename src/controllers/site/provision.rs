//! Phases of a new site: finalizer, claims of hosts, database, init Job. Pure.

use std::time::Duration;

use frappe_crds::{FrappeSite, site::OperationKind};
use kube::ResourceExt;

use super::{
    adoption, build, database,
    model::{Database, Holder, Input, Observed, Part, Plan, Progress, Report, Server, Stage, Step},
    operation::{self, waits_message},
    place::Place,
    reason::Reason,
    revision,
    valid_site::{ValidSite, creating_database, failure_counts_after},
};
use crate::{
    controllers::{adoption::is_unchanged_since_adoption, phase::Next},
    domain::{
        foreign::Cleanup,
        labels::{self, has_labels},
        metadata::MetadataPatch,
        object::Kind,
        uid,
    },
};

/// Sets the labels of slot and bench, and the finalizer, in one patch.
pub(super) fn labels(site: &ValidSite) -> Next<FrappeSite> {
    let observed = &site.observed.site;
    let slot = uid::slot_of(observed.as_ref()).to_string();
    let place = Place::of(observed);
    let bench = observed.spec.bench_ref.name.clone();
    let mut wanted = vec![(labels::SLOT, slot), (labels::BENCH_OF_SITE, bench)];
    wanted.extend(place.is_foreign().then(|| (labels::BENCH_NAMESPACE, place.namespace.clone())));
    let finalizer = labels::SITE_FINALIZER.to_owned();
    let holds = observed.finalizers().contains(&finalizer);
    if has_labels(observed.as_ref(), &wanted) && holds {
        return Next::go();
    }
    let own = (!holds).then_some(finalizer);
    let metadata = MetadataPatch::of(observed.as_ref()).with_labels(wanted);
    let metadata = metadata.with_finalizers(observed.finalizers().iter().cloned().chain(own));
    Next::write([Step::Patch(observed.clone(), metadata)])
}

/// Claims the hosts of the spec. Former hosts are released last, when they have no route.
pub(super) fn claims(site: &ValidSite) -> Next<FrappeSite> {
    if site.input.valid.withholds(Part::Route) {
        return Next::go();
    }
    let mut steps = Vec::new();
    for claim in &site.observed.claims {
        let ours = build::claim(&site.input, &claim.host);
        match (&claim.holder, &claim.object) {
            (Holder::Unclaimed, _) => steps.push(Step::Create(ours)),
            (Holder::ThisSite, _) => steps.push(Step::Ensure(ours)),
            // The holder's finalizer was removed by a user: the claim is not used any more.
            (Holder::Gone, Some(dead)) => {
                steps.extend([Step::Delete(Kind::Domain, dead.clone()), Step::Create(ours)]);
            }
            _ => {}
        }
    }
    Next::write(steps)
}

/// Records decisions in the status before anything is created.
pub(super) fn decision(site: &ValidSite) -> Next<FrappeSite> {
    if site.is_recorded {
        return Next::go();
    }
    let report = site.database.clone().unwrap_or_else(creating_database);
    let again_after = site.database.is_none().then_some(Duration::ZERO);
    let last = site.secrets.iter().cloned().chain(made_objects(site)).collect();
    Next::End(Plan { last, again_after, ..Plan::report(site.observed, &report, None) })
}

/// Creates, labels and copies Secrets.
pub(super) fn secrets(site: &ValidSite) -> Next<FrappeSite> {
    Next::write(site.secrets.clone())
}

/// Applies server, database, user and grants.
pub(super) fn database_objects(site: &ValidSite) -> Next<FrappeSite> {
    Next::write(made_objects(site))
}

/// Waits until the MariaDB operator has created the database.
pub(super) fn database(site: &ValidSite) -> Next<FrappeSite> {
    match &site.database {
        Some(report) => {
            let again_after = failure_counts_after(site.observed);
            Next::End(Plan { again_after, ..Plan::report(site.observed, report, None) })
        }
        None => Next::go(),
    }
}

/// Waits for the versions of Secrets that were just created or labelled.
pub(super) fn versions(site: &ValidSite) -> Next<FrappeSite> {
    if site.secrets.is_empty() {
        return Next::go();
    }
    Next::End(Plan { again_after: Some(Duration::ZERO), ..Plan::default() })
}

/// Runs the init Job, once.
pub(super) fn init(site: &ValidSite) -> Next<FrappeSite> {
    let (observed, input) = (site.observed, &site.input);
    if observed.site.status.as_ref().is_some_and(|status| status.initialized) {
        return Next::go();
    }
    Next::End(match operation::progress(observed, OperationKind::Init, Some(&site.wanted)) {
        Progress::Done => return Next::go(),
        Progress::Run(operation) => {
            let waits = Report::provisioning(Stage::Init, Reason::WaitingForJobSlot, waits_message(observed));
            let name = input.valid.place.job("init", operation.attempt).name;
            let message = format!("Job {name} is creating the site");
            let runs = Report::provisioning(Stage::Init, Reason::Initializing, message);
            let Some(bench) = observed.bench.as_deref() else { return Next::End(Plan::report(observed, &waits, None)) };
            let home = revision::home(&observed.site.status.clone().unwrap_or_default(), Some(bench));
            let job = build::init_job(input, &observed.bench_input_of(bench, home), &operation, &site.wanted);
            let mut plan = Plan::start(observed, &waits, &runs, operation, job);
            plan.statuses().for_each(|status| status.revision = revision::recorded(home, Some(bench)));
            plan
        }
        Progress::Retry { operation, after, message } => {
            let report = Report::provisioning(Stage::Init, Reason::InitRetrying, message);
            Plan { again_after: Some(after), ..Plan::report(observed, &report, Some(operation)) }
        }
        Progress::Failed { operation, message } => {
            let report = Report::failed(Stage::Init, Stage::Init, Reason::InitFailed, message);
            Plan::report(observed, &report, Some(operation))
        }
    })
}

/// Database, user and grants, and the server if it is dedicated.
fn made_objects(site: &ValidSite) -> Vec<Step> {
    let (observed, input) = (site.observed, &site.input);
    let Database::Made(server) = &input.valid.database else { return Vec::new() };
    let mut steps = server_steps(observed, input, server);
    let objects = [build::database, build::user, build::grant].map(|it| it(input, server, Cleanup::Skip));
    let objects = objects.into_iter().zip(&observed.sql);
    steps.extend(objects.map(|(desired, live)| adoption::ensure(observed, desired, live.as_deref())));
    steps
}

/// A dedicated server, with its administrator's password.
fn server_steps(observed: &Observed, input: &Input, server: &Server) -> Vec<Step> {
    if !server.dedicated || input.valid.withholds(Part::Server) {
        return Vec::new();
    }
    let mut steps = Vec::new();
    if observed.root_secret.is_none() && observed.own_server().is_none() {
        steps.push(Step::Create(build::root_password(input, &observed.fresh.root_password)));
    }
    let config = observed.bench.as_deref().map(|bench| database::merged(observed, bench)).unwrap_or_default();
    let own = build::own_server(input, &config, &observed.config);
    let live = observed.own_server();
    // Another configuration would restart the server of an adopted site.
    if !live.is_some_and(|it| is_unchanged_since_adoption(it)) {
        steps.push(adoption::ensure(observed, own, live.map(|it| &**it)));
    }
    steps
}
