//! What to do for a site that is being deleted: route, then database and files, then secrets and claim, then the
//! finalizer. Nothing is dropped unless the policy says so, and nothing of another identity. Pure.

use std::sync::Arc;

use frappe_crds::{
    FrappeBench,
    site::{DeletionPolicy, Operation, OperationKind},
};
use kube::{ResourceExt, core::DynamicObject};
use serde_json::json;

use super::{
    build::{self, Cleanup, Input},
    observe::{Holder, Observed},
    operation::{self, Progress},
    plan::{self, Plan, Step},
    reason::Reason,
    status::{Report, Stage},
    validate::Validated,
};
use crate::{
    controllers::job::{self, State},
    domain::{key::Key, labels, names::operation_job, object::Kind},
};

/// The plan of a deletion.
pub(super) fn plan(observed: &Observed) -> Plan {
    let finalizer = labels::SITE_FINALIZER.to_owned();
    if !observed.site.finalizers().contains(&finalizer) {
        return Plan::default();
    }
    if observed.site.spec.deletion_protection == Some(true) {
        let message = "deletionProtection is true: set it to false to let the deletion go on";
        return Plan::report(observed, &blocked(Reason::DeletionBlocked, message.to_owned()), None);
    }
    let route: Vec<Step> = observed.ingress.iter().map(|it| Step::Delete(Kind::Ingress, it.clone())).collect();
    let retain = observed.site.spec.deletion_policy.unwrap_or_default() == DeletionPolicy::Retain;
    let mut plan = if retain { release(observed, Vec::new()) } else { destroy(observed) };
    plan.steps.splice(0..0, route);
    plan
}

fn blocked(reason: Reason, message: String) -> Report {
    Report::failed(Stage::Done, Stage::Done, reason, message)
}

/// Drops what the site has, step by step; each step begins when the one before is seen to have ended.
fn destroy(observed: &Observed) -> Plan {
    let input = Remains::of(observed);
    let input = input.input(observed);
    if let (true, Some(bench)) = (needs_job(observed), observed.bench.as_deref()) {
        if observed.credentials.is_none() {
            let name = build::credentials_name(&observed.site.name_any());
            let message = format!(
                "Secret {name} is gone, so that no Job can drop the site: restore it, or set deletionPolicy: Retain to keep \
                 database and files"
            );
            let report = blocked(Reason::DeletionBlocked, message);
            return Plan { missing: true, ..Plan::report(observed, &report, None) };
        }
        if let Some(running) = running_init(observed) {
            let report =
                Report::pending(Stage::Done, Stage::Done, Reason::Deleting, "the init Job is being stopped".to_owned());
            let stop = running.metadata.deletion_timestamp.is_none().then_some(Step::Delete(Kind::Job, running));
            return Plan { steps: stop.into_iter().collect(), ..Plan::report(observed, &report, None) };
        }
        if let Some(plan) = drop_by_job(observed, &input, bench) {
            return plan;
        }
    }
    let sql = drop_objects(observed, &input);
    if observed.sql.iter().any(Option::is_some) {
        let report = Report::pending(
            Stage::Done,
            Stage::Done,
            Reason::Deleting,
            "the MariaDB operator removes the account".to_owned(),
        );
        return Plan { steps: sql, ..Plan::report(observed, &report, None) };
    }
    release(observed, secrets(observed))
}

/// Whether a Job must drop the site: something may have been created, and a Job can be made.
///
/// An identity that is older than the site was restored with its Secret: its data may be there although this status
/// knows nothing of it.
fn needs_job(observed: &Observed) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    let begun = status.initialized || status.operation.is_some();
    let restored = observed
        .credentials
        .as_ref()
        .is_some_and(|secret| secret.creation_timestamp() < observed.site.creation_timestamp());
    let gone = observed.sql.iter().all(Option::is_none);
    (begun || restored) && !observed.namespace_terminating && !gone && !is_dropped(observed)
}

fn is_dropped(observed: &Observed) -> bool {
    let operation = observed.site.status.as_ref().and_then(|status| status.operation.as_ref());
    let deleting = operation.is_some_and(|it| it.kind == OperationKind::Delete);
    deleting && operation::progress(observed, OperationKind::Delete) == Progress::Done
}

fn running_init(observed: &Observed) -> Option<Arc<DynamicObject>> {
    let operation = observed.site.status.as_ref()?.operation.as_ref().filter(|it| it.kind == OperationKind::Init)?;
    let name = operation_job(&observed.site.name_any(), "init", operation.attempt);
    observed.jobs.get(&name).filter(|it| job::state(it) == State::Running).cloned()
}

/// The plan while the delete Job is not done; nothing once it is.
fn drop_by_job(observed: &Observed, input: &Input, bench: &FrappeBench) -> Option<Plan> {
    let deleting = |message: String| Report::pending(Stage::Done, Stage::Done, Reason::Deleting, message);
    let name = |operation: &Operation| operation_job(&observed.site.name_any(), "delete", operation.attempt);
    match operation::progress(observed, OperationKind::Delete) {
        Progress::Done => None,
        Progress::Run(operation) if plan::waits_for_room(observed, &name(&operation)) => {
            let report = Report { reason: Reason::WaitingForJobSlot, ..deleting(plan::waits_message(observed)) };
            Some(Plan::report(observed, &report, None))
        }
        Progress::Run(operation) => {
            let report = deleting(format!("Job {} drops the site", name(&operation)));
            let job = build::delete_job(input, &observed.bench_input(bench), &operation);
            Some(Plan { job: Some(job), ..Plan::report(observed, &report, Some(operation)) })
        }
        Progress::Retry { after, message } => {
            let report = Report { reason: Reason::DeletionRetrying, ..deleting(message) };
            Some(Plan { again_after: Some(after), ..Plan::report(observed, &report, None) })
        }
        Progress::Failed { message } => Some(Plan::report(observed, &blocked(Reason::DeletionFailed, message), None)),
    }
}

/// Grant, User and Database, in this order. Only now may the MariaDB operator drop the account; the database only
/// where no Job could do it (the bench, or the whole namespace, is gone).
fn drop_objects(observed: &Observed, input: &Input) -> Vec<Step> {
    let [database, user, grant] = &observed.sql;
    let by_operator = observed.bench.is_none() || observed.namespace_terminating;
    let database_cleanup = if by_operator { Cleanup::Delete } else { Cleanup::Skip };
    let wanted = [
        (Kind::Grant, grant, build::grant(input, Cleanup::Delete)),
        (Kind::User, user, build::user(input, Cleanup::Delete)),
        (Kind::Database, database, build::database(input, database_cleanup)),
    ];
    let mut steps = Vec::new();
    for (kind, live, desired) in wanted {
        let Some(live) = live.as_ref().filter(|it| it.metadata.deletion_timestamp.is_none()) else { continue };
        let mut metadata = json!({"uid": live.uid(), "labels": live.labels()});
        metadata["name"] = json!(live.name_any());
        // Only the policy changes: everything else stays as it was when the object was made.
        let mut spec = live.data["spec"].clone();
        spec["cleanupPolicy"] = desired.body["spec"]["cleanupPolicy"].clone();
        if live.data["spec"]["cleanupPolicy"] != spec["cleanupPolicy"] {
            steps.push(Step::Ensure(crate::domain::object::Desired::untyped(kind, desired.key, metadata, &spec)));
        }
        steps.push(Step::Delete(kind, live.clone()));
    }
    steps
}

/// The Secrets that this operator made; a Secret that the user named stays.
fn secrets(observed: &Observed) -> Vec<Step> {
    let generated = observed.site.spec.admin_password_secret_ref.is_none();
    let admin = observed.admin_secret.clone().filter(|_| generated);
    let own = [observed.credentials.clone(), admin].into_iter().flatten();
    own.map(|secret| Step::Delete(Kind::Secret, secret)).collect()
}

/// Gives the host back and lets the site go.
fn release(observed: &Observed, mut steps: Vec<Step>) -> Plan {
    if let (Holder::Us, Some(claim)) = (&observed.holder, &observed.claim) {
        steps.push(Step::Delete(Kind::Domain, claim.clone()));
    }
    let site = &observed.site;
    let left: Vec<String> = site.finalizers().iter().filter(|it| *it != labels::SITE_FINALIZER).cloned().collect();
    let metadata = json!({"uid": site.uid(), "resourceVersion": site.resource_version(), "finalizers": left});
    Plan { steps, last: vec![Step::PatchSite(metadata)], ..Plan::default() }
}

/// What is left of a site's validation: its names, and the server as its objects have it.
struct Remains {
    valid: Validated,
    identity: String,
    database_name: String,
}

impl Remains {
    fn of(observed: &Observed) -> Self {
        let (identity, database_name) = plan::identity(observed);
        let reference =
            observed.sql.iter().flatten().next().map(|it| it.data["spec"]["mariaDbRef"].clone()).unwrap_or_default();
        let text = |name: &str| reference[name].as_str().unwrap_or_default().to_owned();
        let server = Key::new(text("namespace"), text("name"));
        let found = observed.servers.iter().find(|it| Key::of(it.as_ref()) == server);
        let (database_host, database_port) = super::validate::address(&server, found.map(AsRef::as_ref));
        let valid = Validated {
            host: observed.site.spec.site_name.clone(),
            server,
            database_host,
            database_port,
            connections_max: 0,
            apps: Vec::new(),
            admin_secret: String::new(),
        };
        Self { valid, identity, database_name }
    }

    fn input<'a>(&'a self, observed: &'a Observed) -> Input<'a> {
        Input { site: &observed.site, valid: &self.valid, identity: &self.identity, database_name: &self.database_name }
    }
}
