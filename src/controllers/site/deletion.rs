//! What to do for a site that is being deleted: route, then database and files, then secrets and claims, then the
//! finalizer. Nothing is dropped unless the policy says so, and nothing of another identity. Pure.

use std::sync::Arc;

use frappe_crds::{
    FrappeBench,
    site::{DeletionPolicy, OperationKind},
};
use kube::{ResourceExt, core::DynamicObject};
use serde_json::json;

use super::{
    build::{self, Cleanup},
    database,
    final_backup::{blocked as backup_blocked, final_backup},
    model::{Database, Holder, Input, Known, Observed, Plan, Progress, Report, Server, Stage, Step, Validated},
    operation::{self, waits_message},
    place::Place,
    reason::Reason,
    record,
};
use crate::{
    controllers::job::{self, State},
    domain::{
        key::Key,
        labels,
        object::{Kind, finalizers_without},
    },
};

/// What a person who set the annotation [`labels::FORCE_DELETE`] lets a deletion leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Force {
    /// Nothing.
    Nothing,
    /// The Job does not log in at the database: the MariaDB operator drops it where it made it, else it stays.
    SkipDatabase,
    /// There is no Job at all: files stay on the volume too.
    SkipJob,
}

/// The plan of a deletion.
pub(super) fn plan(observed: &Observed) -> Plan {
    let finalizer = labels::SITE_FINALIZER.to_owned();
    if !observed.site.finalizers().contains(&finalizer) {
        return Plan::default();
    }
    if observed.site.spec.deletion_protection == Some(true) {
        let message = "deletionProtection is true: set it to false to continue the deletion";
        return Plan::report(observed, &blocked(Reason::DeletionBlocked, message.to_owned()), None);
    }
    let routes = observed.routes.objects().map(|(kind, it)| Step::Delete(kind, it.clone()));
    let mut plan = match observed.site.spec.deletion_policy.unwrap_or_default() {
        DeletionPolicy::Retain => release(observed, copies(observed)),
        // No Job can be made any more: what is not backed up is not dropped either.
        DeletionPolicy::Backup if observed.namespace_terminating && owes_backup(observed) => {
            release(observed, copies(observed))
        }
        DeletionPolicy::Backup => last_backup(observed).unwrap_or_else(|| destroy(observed)),
        DeletionPolicy::Delete => destroy(observed),
    };
    plan.steps.splice(0..0, routes);
    plan
}

fn blocked(reason: Reason, message: String) -> Report {
    Report::failed(Stage::Done, Stage::Done, reason, message)
}

fn deleting(message: impl Into<String>) -> Report {
    Report::pending(Stage::Done, Stage::Done, Reason::Deleting, message.into())
}

fn force(observed: &Observed) -> Force {
    match observed.site.annotations().get(labels::FORCE_DELETE).map(String::as_str) {
        Some("skip-database") => Force::SkipDatabase,
        Some("skip-job") => Force::SkipJob,
        _ => Force::Nothing,
    }
}

/// Whether there may be something to lose, and nothing of it was dropped yet.
fn owes_backup(observed: &Observed) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    let begun = status.operation.is_some_and(|it| it.kind == OperationKind::Delete);
    (status.initialized || is_restored(observed)) && !begun
}

/// What of the site is left for the final backup, while the deletion waits for that and it can be made.
pub(in crate::controllers) fn awaits_backup(observed: &Observed) -> Option<Remains> {
    let spec = &observed.site.spec;
    let asked = spec.deletion_policy == Some(DeletionPolicy::Backup) && spec.deletion_protection != Some(true);
    let ours = observed.site.finalizers().iter().any(|it| it == labels::SITE_FINALIZER);
    let can = asked && ours && !observed.namespace_terminating && owes_backup(observed);
    can.then(|| backup_remains(observed).ok()).flatten()
}

/// What is left for the final backup, or the plan of a site of which none can be made.
fn backup_remains(observed: &Observed) -> Result<Remains, Box<Plan>> {
    // What a person lets the deletion leave out is no less worth a backup.
    let remains = Remains { skips_database: false, ..Remains::of(observed) };
    if observed.bench.is_none() {
        let name = &observed.site.spec.bench_ref.name;
        let message = format!("FrappeBench {name} no longer exists, so no backup Job can run");
        return Err(Box::new(backup_blocked(observed, &message)));
    }
    if remains.server_gone {
        return Err(Box::new(backup_blocked(observed, "the site's database server no longer exists")));
    }
    match lacks_secret(observed, &remains) {
        Some(report) => Err(Box::new(Plan { missing: true, ..Plan::report(observed, &report, None) })),
        None => Ok(remains),
    }
}

/// The plan while the backup that the policy asks for is not made; nothing once it is.
fn last_backup(observed: &Observed) -> Option<Plan> {
    if !owes_backup(observed) {
        return None;
    }
    match backup_remains(observed) {
        Ok(_) => final_backup(observed),
        Err(plan) => Some(*plan),
    }
}

/// Drops what the site has, step by step; each step begins when the one before is seen to have ended.
fn destroy(observed: &Observed) -> Plan {
    let remains = Remains::of(observed);
    let input = remains.input(observed);
    if let (true, Some(bench)) = (needs_job(observed, &remains), observed.bench.as_deref()) {
        if let Some(report) = lacks_secret(observed, &remains) {
            return Plan { missing: true, ..Plan::report(observed, &report, None) };
        }
        if let Some(running) = running_job(observed) {
            let stop = running.metadata.deletion_timestamp.is_none().then_some(Step::Delete(Kind::Job, running));
            let plan = Plan::report(observed, &deleting("stopping the running Job"), None);
            return Plan { steps: stop.into_iter().collect(), ..plan };
        }
        if let Some(plan) = drop_by_job(observed, &input, bench, remains.skips_database) {
            return plan;
        }
    }
    if let Database::Made(server) = &remains.valid.database {
        let steps = drop_objects(observed, &input, server);
        if observed.sql.iter().any(Option::is_some) {
            return Plan {
                steps,
                ..Plan::report(observed, &deleting("the MariaDB operator is removing the database user"), None)
            };
        }
        if let Some(own) = observed.own_server().filter(|_| server.dedicated && is_its_own(observed)) {
            let stop = own.metadata.deletion_timestamp.is_none().then(|| Step::Delete(Kind::MariaDb, own.clone()));
            let plan = Plan::report(observed, &deleting("the MariaDB operator is removing the site's server"), None);
            return Plan { steps: stop.into_iter().collect(), ..plan };
        }
    }
    release(observed, secrets(observed))
}

/// Whether the MariaDB of the site's own name was made for this site.
fn is_its_own(observed: &Observed) -> bool {
    let uid = observed.own_server().and_then(|it| it.labels().get(labels::SITE_UID));
    uid.is_some() && uid == observed.site.uid().as_ref()
}

/// An identity that is older than the site was restored with its Secret: its data may be there although this status
/// knows nothing of it.
fn is_restored(observed: &Observed) -> bool {
    let older = |secret: &Arc<DynamicObject>| secret.creation_timestamp() < observed.site.creation_timestamp();
    record::is_own_secret(observed) && observed.credentials.as_ref().is_some_and(older)
}

/// Whether a Job must drop the site: something may have been created, and a Job can be made.
fn needs_job(observed: &Observed, remains: &Remains) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    let begun = status.initialized || status.operation.is_some();
    let made = matches!(remains.valid.database, Database::Made(_));
    let gone = made && observed.sql.iter().all(Option::is_none) && !status.initialized;
    let can = !observed.namespace_terminating && force(observed) < Force::SkipJob;
    (begun || is_restored(observed)) && can && !gone && !is_dropped(observed)
}

fn is_dropped(observed: &Observed) -> bool {
    let operation = observed.site.status.as_ref().and_then(|status| status.operation.as_ref());
    let deleting = operation.is_some_and(|it| it.kind == OperationKind::Delete);
    deleting && operation::progress(observed, OperationKind::Delete, None) == Progress::Done
}

/// A Secret without which no Job can log in at the database.
fn lacks_secret(observed: &Observed, remains: &Remains) -> Option<Report> {
    if remains.skips_database {
        return None;
    }
    let connection = remains.valid.database.connection_secret();
    let name = match connection.filter(|name| !observed.secrets.contains_key(*name)) {
        Some(name) => name.to_owned(),
        None if !record::is_own_secret(observed) => Place::of(&observed.site).credentials().name,
        None => return None,
    };
    let message = format!(
        "Secret {name} is gone, so that no Job can drop the database: restore it, set deletionPolicy: Retain to keep database \
         and files, or set the annotation {}: skip-database to have it left out",
        labels::FORCE_DELETE
    );
    Some(blocked(Reason::DeletionBlocked, message))
}

fn running_job(observed: &Observed) -> Option<Arc<DynamicObject>> {
    let backup = observed.backup_job.clone().filter(|it| job::state(it) == State::Running);
    if backup.is_some() {
        return backup;
    }
    let operation = observed.site.status.as_ref()?.operation.as_ref()?;
    operation::running_job(observed).filter(|_| operation.kind != OperationKind::Delete).cloned()
}

/// The plan while the delete Job is not done; nothing once it is.
fn drop_by_job(observed: &Observed, input: &Input, bench: &FrappeBench, skips_database: bool) -> Option<Plan> {
    match operation::progress(observed, OperationKind::Delete, None) {
        Progress::Done => None,
        Progress::Run(operation) => {
            let job = Place::of(&observed.site).job("delete", operation.attempt);
            let waits = Report { reason: Reason::WaitingForJobSlot, ..deleting(waits_message(observed)) };
            let runs = deleting(format!("Job {} is dropping the site", job.name));
            let job = build::delete_job(input, &observed.bench_input(bench), &operation, skips_database);
            Some(Plan::start(observed, &waits, &runs, operation, job))
        }
        Progress::Retry { operation, after, message } => {
            let report = Report { reason: Reason::DeletionRetrying, ..deleting(message) };
            Some(Plan { again_after: Some(after), ..Plan::report(observed, &report, Some(operation)) })
        }
        Progress::Failed { operation, message } => {
            let message = format!(
                "{message}, or set the annotation {} to skip-database (the Job removes the files only) or skip-job",
                labels::FORCE_DELETE
            );
            Some(Plan::report(observed, &blocked(Reason::DeletionFailed, message), Some(operation)))
        }
    }
}

/// Grant, User and Database, in this order. Only now may the MariaDB operator drop the account; the database only
/// where no Job could do it (the bench, or the whole namespace, is gone).
fn drop_objects(observed: &Observed, input: &Input, server: &Server) -> Vec<Step> {
    let [database, user, grant] = &observed.sql;
    let by_operator = observed.bench.is_none() || observed.namespace_terminating || force(observed) > Force::Nothing;
    let database_cleanup = if by_operator { Cleanup::Delete } else { Cleanup::Skip };
    let wanted = [
        (Kind::Grant, grant, build::grant(input, server, Cleanup::Delete)),
        (Kind::User, user, build::user(input, server, Cleanup::Delete)),
        (Kind::Database, database, build::database(input, server, database_cleanup)),
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
    let admin = observed.admin_secret().cloned().filter(|_| generated);
    let uid = observed.site.uid();
    let root = observed.root_secret.clone().filter(|it| it.labels().get(labels::SITE_UID) == uid.as_ref());
    let own = [observed.credentials.clone(), admin].into_iter().flatten().filter(|it| record::is_own(observed, it));
    own.chain(root).map(|secret| Step::Delete(Kind::Secret, secret)).chain(copies(observed)).collect()
}

/// Copies of Secrets in another namespace.
fn copies(observed: &Observed) -> Vec<Step> {
    observed.copies.values().map(|copy| Step::Delete(Kind::Secret, copy.clone())).collect()
}

/// Gives the hosts back and lets the site go.
fn release(observed: &Observed, mut steps: Vec<Step>) -> Plan {
    let ours =
        observed.claims.iter().filter(|claim| claim.holder == Holder::Us).filter_map(|claim| claim.object.clone());
    steps.extend(ours.chain(observed.former_claims.iter().cloned()).map(|claim| Step::Delete(Kind::Domain, claim)));
    if Place::of(&observed.site).is_foreign() {
        // No owner in their namespace takes them along.
        steps.extend(observed.jobs.values().map(|job| Step::Delete(Kind::Job, job.clone())));
    }
    let site = &observed.site;
    let left = finalizers_without(site.as_ref(), labels::SITE_FINALIZER);
    let metadata = json!({"uid": site.uid(), "resourceVersion": site.resource_version(), "finalizers": left});
    Plan { steps, last: vec![Step::PatchSite(metadata)], ..Plan::default() }
}

/// What is left of a site's validation: its names, and its database as it was decided.
pub(in crate::controllers) struct Remains {
    valid: Validated,
    known: Known,
    /// Whether the Job has no database to log in at: its server is gone, or a person said to leave it out.
    skips_database: bool,
    /// Whether its server is gone.
    server_gone: bool,
}

impl Remains {
    fn of(observed: &Observed) -> Self {
        let chosen = database::remaining(observed);
        let dedicated = chosen.as_ref().is_some_and(|it| matches!(it, Database::Made(server) if server.dedicated));
        let server_gone = chosen.is_none() || (dedicated && observed.own_server().is_none());
        let nowhere = Server { key: Key::new("", ""), dedicated: false, host: String::new(), port: 0 };
        let valid = Validated {
            hosts: observed.hosts.clone(),
            database: chosen.unwrap_or(Database::Made(nowhere)),
            connections_max: 0,
            apps: Vec::new(),
            removed_apps: Vec::new(),
            admin_secret: String::new(),
            refused: Vec::new(),
            place: Place::of(&observed.site),
        };
        let skips_database = server_gone || force(observed) >= Force::SkipDatabase;
        Self { valid, known: record::known(observed), skips_database, server_gone }
    }

    /// What the builders need.
    pub(in crate::controllers) fn input<'a>(&'a self, observed: &'a Observed) -> Input<'a> {
        Input { site: &observed.site, valid: &self.valid, known: &self.known }
    }
}
