//! What to do for a site. Pure: every choice is made here, none where the plan is carried out.

use std::{collections::BTreeSet, time::Duration};

use frappe_crds::{
    FrappeSiteSpec, FrappeSiteStatus,
    site::{Operation, OperationKind, SitePhase},
};
use kube::{ResourceExt, core::DynamicObject};
use serde_json::{Value, json};

use super::{
    build::{self, Cleanup, Input},
    observe::{Holder, Observed},
    operation::{self, Progress},
    reason::Reason,
    status::{self, Report, Stage},
    validate::{Validated, validate},
};
use crate::{
    domain::{
        condition, labels,
        names::{self, operation_job},
        object::{Desired, Kind},
    },
    io::events::Notice,
};

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Change the site's own metadata.
    PatchSite(Value),
    /// Give a Secret of the user's the slot label, so that its changes are seen.
    LabelSecret(std::sync::Arc<DynamicObject>, Value),
    /// Create what must not be there yet.
    Create(Desired),
    /// Bring an object to what it should be, if it differs.
    Ensure(Desired),
    /// Delete exactly this object.
    Delete(Kind, std::sync::Arc<DynamicObject>),
}

/// What to do, in this order: steps, status, the Job, the last steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Writes before the status.
    pub steps: Vec<Step>,
    /// The status. It records an operation before its Job is made.
    pub status: Option<FrappeSiteStatus>,
    /// The Job of the recorded operation.
    pub job: Option<Desired>,
    /// Writes after the status: the finalizer goes last.
    pub last: Vec<Step>,
    /// When to look again although nothing changed.
    pub again_after: Option<Duration>,
    /// Whether something is missing that no watch shows: look again with backoff.
    pub missing: bool,
    /// What to tell people.
    pub notice: Option<Notice>,
}

/// Word for an operation in the names of its Jobs.
pub fn verb(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Init => "init",
        OperationKind::Delete => "delete",
    }
}

/// Whether the site has an Ingress.
pub fn wants_ingress(spec: &FrappeSiteSpec) -> bool {
    spec.ingress.as_ref().and_then(|ingress| ingress.enabled).unwrap_or(true)
}

/// The plan.
pub fn plan(observed: &Observed) -> Plan {
    if observed.site.metadata.deletion_timestamp.is_some() {
        return super::deletion::plan(observed);
    }
    let valid = match validate(observed) {
        Ok(valid) => valid,
        Err(report) => return Plan::report(observed, &report, None),
    };
    if let Holder::Other(holder) = &observed.holder {
        let message =
            format!("host {} is held by FrappeSite {holder}: delete that site or choose another siteName", valid.host);
        let report = Report::pending(Stage::Database, Stage::Route, Reason::HostClaimed, message);
        return Plan::report(observed, &report, None);
    }
    if let Some(name) = lost_secret(observed) {
        let message = format!(
            "Secret {name} is gone and is not made anew, since the database still has the old password: restore it from a \
             backup; the site is served meanwhile"
        );
        let report = Report::failed(Stage::Database, Stage::Database, Reason::SecretLost, message);
        return Plan { missing: true, ..Plan::report(observed, &report, None) };
    }
    if let Some(secret) = observed.credentials.as_ref().filter(|it| !it.annotations().contains_key(labels::IDENTITY)) {
        let message =
            format!("Secret {} exists and was not made for this site: rename or remove it", secret.name_any());
        return Plan::report(
            observed,
            &Report::failed(Stage::Database, Stage::Database, Reason::SecretForeign, message),
            None,
        );
    }
    provision(observed, &valid)
}

impl Plan {
    /// A plan that only says where the site stands, with the operation that it records.
    pub fn report(observed: &Observed, report: &Report, operation: Option<Operation>) -> Self {
        let mut status = status::status(observed, report);
        if operation.is_some() {
            status.operation = operation;
        }
        let notice = status::notice(observed, &status, report.reason);
        Self { status: Some(status), notice, ..Self::default() }
    }
}

/// A Secret that was there once: its password is in the database, so another would lock the site out.
fn lost_secret(observed: &Observed) -> Option<String> {
    let site = observed.site.name_any();
    let status = observed.site.status.clone().unwrap_or_default();
    let had = status.identity.is_some() || observed.sql[1].is_some();
    if had && observed.credentials.is_none() {
        return Some(build::credentials_name(&site));
    }
    let generated = observed.site.spec.admin_password_secret_ref.is_none();
    (status.identity.is_some() && generated && observed.admin_secret.is_none())
        .then(|| build::admin_password_name(&site))
}

/// Identity and database name: those of the Secret, else decided now.
pub fn identity(observed: &Observed) -> (String, String) {
    let annotation = |name: &str| observed.credentials.as_ref().and_then(|it| it.annotations().get(name).cloned());
    let namespace = observed.site.namespace().unwrap_or_default();
    let database = || names::database(&namespace, &observed.site.name_any());
    (
        annotation(labels::IDENTITY).unwrap_or_else(|| observed.fresh.identity.clone()),
        annotation(labels::DATABASE).unwrap_or_else(database),
    )
}

fn provision(observed: &Observed, valid: &Validated) -> Plan {
    let (identity, database_name) = identity(observed);
    let input = Input { site: &observed.site, valid, identity: &identity, database_name: &database_name };
    let mut steps: Vec<Step> = adopt(observed).into_iter().collect();
    steps.extend(claim(observed, &input));
    steps.extend(secrets(observed, &input));
    steps.extend([
        Step::Ensure(build::database(&input, Cleanup::Skip)),
        Step::Ensure(build::user(&input, Cleanup::Skip)),
        Step::Ensure(build::grant(&input, Cleanup::Skip)),
    ]);
    let mut plan = match sql_report(observed) {
        Some(report) => Plan::report(observed, &report, None),
        None => initialize(observed, &input),
    };
    if let Some(status) = plan.status.as_mut() {
        status.database_name = Some(database_name.clone());
        status.database_credentials_secret = Some(build::credentials_name(&observed.site.name_any()));
        // The Secret is there when this is written: from then on its absence is a loss.
        status.identity = Some(identity.clone());
    }
    steps.append(&mut plan.steps);
    plan.steps = steps;
    plan
}

/// Slot, bench and finalizer, in one patch.
fn adopt(observed: &Observed) -> Option<Step> {
    let site = &observed.site;
    let slot = kube_sharding::Slot::of_uid(&site.uid().unwrap_or_default()).to_string();
    let wanted = [(labels::SLOT, slot.as_str()), (labels::BENCH_OF_SITE, site.spec.bench_ref.name.as_str())];
    let labelled = wanted.iter().all(|(key, value)| site.labels().get(*key).is_some_and(|it| it == value));
    let finalizer = labels::SITE_FINALIZER.to_owned();
    if labelled && site.finalizers().contains(&finalizer) {
        return None;
    }
    let mut finalizers = site.finalizers().to_vec();
    if !finalizers.contains(&finalizer) {
        finalizers.push(finalizer);
    }
    let labels: std::collections::BTreeMap<&str, &str> = wanted.into();
    Some(Step::PatchSite(json!({
        "resourceVersion": site.resource_version(), "uid": site.uid(), "finalizers": finalizers, "labels": labels,
    })))
}

fn claim(observed: &Observed, input: &Input) -> Vec<Step> {
    match (&observed.holder, &observed.claim) {
        (Holder::Nobody, _) => vec![Step::Create(build::claim(input))],
        // The holder's finalizer was removed by force: its claim is dead.
        (Holder::Us, _) => vec![Step::Ensure(build::claim(input))],
        (Holder::Gone, Some(dead)) => vec![Step::Delete(Kind::Domain, dead.clone()), Step::Create(build::claim(input))],
        _ => Vec::new(),
    }
}

fn secrets(observed: &Observed, input: &Input) -> Vec<Step> {
    let mut steps = Vec::new();
    let fresh = &observed.fresh;
    match &observed.credentials {
        None => {
            let secret = build::credentials(input, &fresh.database_password, &fresh.encryption_key);
            steps.push(Step::Create(secret));
        }
        Some(secret) => steps.extend(relabel(observed, secret)),
    }
    match (&observed.admin_secret, &observed.site.spec.admin_password_secret_ref) {
        (None, None) => steps.push(Step::Create(build::admin_password(input, &fresh.admin_password))),
        (None, Some(_)) => {}
        (Some(secret), _) => steps.extend(relabel(observed, secret)),
    }
    steps
}

/// A Secret without the site's slot label is not seen by the watch.
fn relabel(observed: &Observed, secret: &std::sync::Arc<DynamicObject>) -> Option<Step> {
    let slot = kube_sharding::Slot::of_uid(&observed.site.uid().unwrap_or_default()).to_string();
    if secret.labels().get(labels::SLOT).is_some_and(|it| *it == slot) {
        return None;
    }
    let metadata = json!({
        "uid": secret.uid(), "resourceVersion": secret.resource_version(),
        "labels": {labels::SLOT: slot, "site": observed.site.name_any()},
    });
    Some(Step::LabelSecret(secret.clone(), metadata))
}

/// What the MariaDB operator has not done yet, if anything.
fn sql_report(observed: &Observed) -> Option<Report> {
    let served = observed.site.status.as_ref().is_some_and(|status| status.initialized);
    for (object, kind) in observed.sql.iter().zip(["Database", "User", "Grant"]) {
        let conditions = object.as_ref().map(|it| it.data["status"]["conditions"].clone()).unwrap_or_default();
        let conditions: Vec<_> = serde_json::from_value(conditions).unwrap_or_default();
        let ready = condition::find(&conditions, "Ready");
        if ready.is_some_and(|it| it.status == "True") {
            continue;
        }
        return match ready.filter(|it| it.reason == "Failed") {
            Some(failed) => {
                let message = format!("the MariaDB operator could not make the {kind}: {}", failed.message);
                Some(Report {
                    phase: SitePhase::Provisioning,
                    ..Report::failed(Stage::Database, Stage::Database, Reason::DatabaseFailed, message)
                })
            }
            // A site that is served does not stop being so because an object is being made again.
            None if served => None,
            None => {
                let message = "the MariaDB operator is making database, account and rights";
                Some(Report::provisioning(Stage::Database, Reason::CreatingDatabase, message))
            }
        };
    }
    None
}

/// Creates the site, once. From then on only the route is kept.
fn initialize(observed: &Observed, input: &Input) -> Plan {
    let status = observed.site.status.clone().unwrap_or_default();
    if status.initialized {
        return serve(observed, input);
    }
    if observed.admin_secret.is_none() && observed.site.spec.admin_password_secret_ref.is_some() {
        let message = format!("Secret {} does not exist: create it with the key password", input.valid.admin_secret);
        let report = Report::pending(Stage::Init, Stage::Init, Reason::AdminPasswordSecretMissing, message);
        return Plan { missing: true, ..Plan::report(observed, &report, None) };
    }
    let progress = operation::progress(observed, OperationKind::Init);
    let job = |operation: &Operation| {
        let bench = observed.bench_input(observed.bench.as_deref()?);
        Some(build::init_job(input, &bench, operation))
    };
    let name = |operation: &Operation| operation_job(&observed.site.name_any(), "init", operation.attempt);
    match progress {
        Progress::Done => serve(observed, input),
        Progress::Run(operation) if waits_for_room(observed, &name(&operation)) => {
            let report = Report::provisioning(Stage::Init, Reason::WaitingForJobSlot, waits_message(observed));
            Plan::report(observed, &report, None)
        }
        Progress::Run(operation) => {
            let message = format!("Job {} creates the site", name(&operation));
            let report = Report::provisioning(Stage::Init, Reason::Initializing, message);
            Plan { job: job(&operation), ..Plan::report(observed, &report, Some(operation)) }
        }
        Progress::Retry { after, message } => {
            let report = Report::provisioning(Stage::Init, Reason::InitRetrying, message);
            Plan { again_after: Some(after), ..Plan::report(observed, &report, None) }
        }
        Progress::Failed { message } => {
            Plan::report(observed, &Report::failed(Stage::Init, Stage::Init, Reason::InitFailed, message), None)
        }
    }
}

/// Whether this Job is still to be started, and the bench's budget has no room for it.
pub(super) fn waits_for_room(observed: &Observed, job: &str) -> bool {
    !observed.may_start_job && !observed.jobs.contains_key(job)
}

/// Without numbers: it is written once, however long the site waits.
pub(super) fn waits_message(observed: &Observed) -> String {
    let bench = &observed.site.spec.bench_ref.name;
    format!("as many site Jobs of bench {bench} as its siteJobConcurrency allows are running: it waits for one to end")
}

/// The site exists: its host leads to it.
fn serve(observed: &Observed, input: &Input) -> Plan {
    let mut steps = Vec::new();
    if wants_ingress(&observed.site.spec) {
        steps.push(Step::Ensure(build::ingress(input)));
    } else if let Some(ingress) = &observed.ingress {
        steps.push(Step::Delete(Kind::Ingress, ingress.clone()));
    }
    let mut plan = Plan::report(observed, &served(observed), None);
    if let Some(status) = plan.status.as_mut() {
        if !status.initialized {
            status.installed_apps = ["frappe".to_owned()].into_iter().chain(input.valid.apps.iter().cloned()).collect();
        }
        status.initialized = true;
    }
    Plan { steps, ..plan }
}

/// Ready, unless the spec asks for other apps than those that the site was created with.
fn served(observed: &Observed) -> Report {
    let status = observed.site.status.clone().unwrap_or_default();
    let installed: BTreeSet<&String> = status.installed_apps.iter().filter(|app| *app != "frappe").collect();
    let named = observed.site.spec.apps.as_ref();
    let wanted: Option<BTreeSet<&String>> = named.map(|apps| apps.iter().filter(|app| *app != "frappe").collect());
    if status.initialized && wanted.is_some_and(|wanted| wanted != installed) {
        let message = format!(
            "apps changed after the site was created with {}: this version installs apps only when a site is created; \
             change apps back; the site is served meanwhile",
            status.installed_apps.join(", ")
        );
        return Report::failed(Stage::Done, Stage::Init, Reason::AppsChangeNotSupported, message);
    }
    let message = "the site was created and its host leads to it".to_owned();
    Report { phase: SitePhase::Ready, reached: Stage::Done, at: Stage::Done, reason: Reason::Ready, message }
}
