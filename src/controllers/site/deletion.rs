//! What to do for a site that is being deleted: route, then database and files, then secrets and claims, then the
//! finalizer. Data is dropped only if the policy says so, and never that of another identity. Pure.

use std::sync::Arc;

use frappe_crds::{
    FrappeBench, FrappeSite,
    site::{DeletionPolicy, OperationKind},
};
use kube::{ResourceExt, core::DynamicObject};

use super::{
    build, database,
    final_backup::{blocked as backup_blocked, final_backup},
    model::{Database, Holder, Known, Observed, Plan, Progress, Report, Stage, Step, Subject},
    operation::{self, waits_message},
    place::Place,
    reason::Reason,
    record,
};
use crate::{
    controllers::{
        job::{self, State},
        phase::Next,
    },
    domain::{
        foreign::{Cleanup, Existing},
        labels,
        metadata::MetadataPatch,
        object::{Kind, finalizers_without},
    },
};

/// What a deletion skips with the annotation [`labels::FORCE_DELETE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Force {
    /// Nothing.
    Nothing,
    /// The Job does not drop the database: the MariaDB operator drops it if it created it, else it stays.
    SkipDatabase,
    /// No Job runs: the files stay on the volume too.
    SkipJob,
}

/// A phase: its name and its function.
pub(super) type Phase = (&'static str, fn(&Remains<'_>) -> Next<FrappeSite>);

/// The phases of a site that is being deleted. Each starts when the previous one is observed to be complete.
pub(super) const PHASES: &[Phase] = &[
    ("finalizer", finalizer),
    ("protection", protection),
    ("routes", routes),
    ("site job", site_job),
    ("migration", migration),
    ("retention", retention),
    ("final backup", backed_up),
    ("account", account),
    ("running Job", running),
    ("delete Job", delete_job),
    ("database objects", database_objects),
    ("server", server),
    ("release", released),
];

/// Ends the plan of a site without our finalizer.
fn finalizer(remains: &Remains) -> Next<FrappeSite> {
    let ours = remains.observed.site.finalizers().iter().any(|it| it == labels::SITE_FINALIZER);
    if ours { Next::go() } else { Next::End(Plan::default()) }
}

/// Blocks the deletion while `deletionProtection` is true.
fn protection(remains: &Remains) -> Next<FrappeSite> {
    if remains.observed.site.spec.deletion_protection != Some(true) {
        return Next::go();
    }
    let message = "deletionProtection is true: set it to false to continue the deletion";
    remains.ends(&blocked(Reason::DeletionBlocked, message.to_owned()))
}

/// Deletes the routes.
fn routes(remains: &Remains) -> Next<FrappeSite> {
    Next::write(remains.observed.routes.objects().map(|(kind, it)| Step::Delete(kind, it.clone())))
}

/// Stops a running SiteJob.
fn site_job(remains: &Remains) -> Next<FrappeSite> {
    match remains.observed.site_job.clone().filter(|it| job::state(it) == State::Running) {
        Some(job) => remains.waits(Kind::Job, &job, "stopping the running SiteJob"),
        None => Next::go(),
    }
}

/// Waits for a running migration if the data is kept: without its Job, it would be kept half migrated.
fn migration(remains: &Remains) -> Next<FrappeSite> {
    let observed = remains.observed;
    let keeps = observed.site.spec.deletion_policy.unwrap_or_default() != DeletionPolicy::Delete;
    let operation = observed.site.status.as_ref().and_then(|status| status.operation.as_ref());
    let updates = operation.is_some_and(|it| it.kind == OperationKind::Update);
    match operation::running_job(observed).filter(|_| keeps && updates && remains.job_on.is_some()) {
        Some(job) => remains.ends(&deleting(format!("waiting until Job {} has migrated the site", job.name_any()))),
        None => Next::go(),
    }
}

/// With `deletionPolicy: Retain`, removes the finalizer.
fn retention(remains: &Remains) -> Next<FrappeSite> {
    let observed = remains.observed;
    let stays = match observed.site.spec.deletion_policy.unwrap_or_default() {
        DeletionPolicy::Retain => true,
        // No Job can be created, so there is no final backup: data is not dropped.
        DeletionPolicy::Backup => observed.namespace_terminating && owes_backup(observed),
        DeletionPolicy::Delete => false,
    };
    if stays { Next::End(release(observed, copies(observed))) } else { Next::go() }
}

/// Waits for the final backup, if the policy requires one.
fn backed_up(remains: &Remains) -> Next<FrappeSite> {
    let observed = remains.observed;
    if observed.site.spec.deletion_policy.unwrap_or_default() != DeletionPolicy::Backup || !owes_backup(observed) {
        return Next::go();
    }
    let plan = match can_be_backed_up(observed) {
        Ok(_) => final_backup(observed),
        Err(plan) => Some(*plan),
    };
    plan.map_or_else(Next::go, Next::End)
}

/// Blocks the deletion if the delete Job could not log in to the database.
fn account(remains: &Remains) -> Next<FrappeSite> {
    match remains.job_on.and_then(|_| lacks_secret(remains)) {
        Some(report) => Next::End(Plan { missing: true, ..Plan::report(remains.observed, &report, None) }),
        None => Next::go(),
    }
}

/// Stops a running Job of the site.
fn running(remains: &Remains) -> Next<FrappeSite> {
    match remains.job_on.and_then(|_| running_job(remains.observed)) {
        Some(job) => remains.waits(Kind::Job, &job, "stopping the running Job"),
        None => Next::go(),
    }
}

/// Runs the delete Job.
fn delete_job(remains: &Remains) -> Next<FrappeSite> {
    let Some(bench) = remains.job_on else { return Next::go() };
    drop_by_job(remains, bench).map_or_else(Next::go, Next::End)
}

/// Deletes the database user, and the database if no Job could drop it.
fn database_objects(remains: &Remains) -> Next<FrappeSite> {
    let observed = remains.observed;
    if matches!(remains.database, Some(Database::Existing(_))) {
        return Next::go();
    }
    let steps = drop_objects(remains);
    if observed.sql.iter().all(Option::is_none) {
        return Next::write(steps);
    }
    let report = deleting("the MariaDB operator is removing the database user");
    Next::End(Plan { steps, ..Plan::report(observed, &report, None) })
}

/// Deletes a dedicated server.
fn server(remains: &Remains) -> Next<FrappeSite> {
    let dedicated = matches!(&remains.database, Some(Database::Made(server)) if server.dedicated);
    match remains.observed.own_server().filter(|_| dedicated && is_its_own(remains.observed)) {
        Some(own) => remains.waits(Kind::MariaDb, own, "the MariaDB operator is removing the site's server"),
        None => Next::go(),
    }
}

/// Deletes Secrets and claims, and removes the finalizer.
fn released(remains: &Remains) -> Next<FrappeSite> {
    Next::End(release(remains.observed, secrets(remains.observed)))
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

/// Whether the site may have data, of which nothing was dropped yet.
fn owes_backup(observed: &Observed) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    let begun = status.operation.is_some_and(|it| it.kind == OperationKind::Delete);
    (status.initialized || is_restored(observed)) && !begun
}

/// The site's remains for the final backup, while the deletion waits for it.
pub(in crate::controllers) fn awaits_backup(observed: &Observed) -> Option<Remains<'_>> {
    let spec = &observed.site.spec;
    let asked = spec.deletion_policy == Some(DeletionPolicy::Backup) && spec.deletion_protection != Some(true);
    let ours = observed.site.finalizers().iter().any(|it| it == labels::SITE_FINALIZER);
    let can = asked && ours && !observed.namespace_terminating && owes_backup(observed);
    can.then(|| can_be_backed_up(observed).ok()).flatten()
}

/// The site's remains for the final backup, or the plan if none can be made.
fn can_be_backed_up(observed: &Observed) -> Result<Remains<'_>, Box<Plan>> {
    // Data that the annotation lets the deletion skip is backed up, too.
    let remains = Remains { skips_database: false, ..Remains::of(observed) };
    if observed.bench.is_none() {
        let name = &observed.site.spec.bench_ref.name;
        let message = format!("FrappeBench {name} no longer exists, so no backup Job can run");
        return Err(Box::new(backup_blocked(observed, &message)));
    }
    if remains.server_gone {
        return Err(Box::new(backup_blocked(observed, "the site's database server no longer exists")));
    }
    match lacks_secret(&remains) {
        Some(report) => Err(Box::new(Plan { missing: true, ..Plan::report(observed, &report, None) })),
        None => Ok(remains),
    }
}

/// Whether the MariaDB with the name of the site's dedicated one was created for this site.
fn is_its_own(observed: &Observed) -> bool {
    let uid = observed.own_server().and_then(|it| it.labels().get(labels::SITE_UID));
    uid.is_some() && uid == observed.site.uid().as_ref()
}

/// An identity that is older than the site was restored with its Secret: its data may exist although the status does not record it.
fn is_restored(observed: &Observed) -> bool {
    let older = |secret: &Arc<DynamicObject>| secret.creation_timestamp() < observed.site.creation_timestamp();
    record::is_own_secret(observed) && observed.credentials.as_ref().is_some_and(older)
}

/// Whether a Job must drop the site: something may have been created, and a Job can be made.
fn needs_job(observed: &Observed, database: Option<&Database>) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    let begun = status.initialized || status.operation.is_some();
    let made = !matches!(database, Some(Database::Existing(_)));
    let gone = made && observed.sql.iter().all(Option::is_none) && !status.initialized;
    let can = !observed.namespace_terminating && force(observed) < Force::SkipJob;
    (begun || is_restored(observed)) && can && !gone && !is_dropped(observed)
}

fn is_dropped(observed: &Observed) -> bool {
    let operation = observed.site.status.as_ref().and_then(|status| status.operation.as_ref());
    let deleting = operation.is_some_and(|it| it.kind == OperationKind::Delete);
    deleting && operation::progress(observed, OperationKind::Delete, None) == Progress::Done
}

/// The missing Secret without which no Job can log in to the database.
fn lacks_secret(remains: &Remains) -> Option<Report> {
    if remains.skips_database {
        return None;
    }
    let observed = remains.observed;
    let connection = remains.database.as_ref().and_then(Database::connection_secret);
    let name = match connection.filter(|name| !observed.secrets.contains_key(*name)) {
        Some(name) => name.to_owned(),
        None if !record::is_own_secret(observed) => Place::of(&observed.site).credentials().name,
        None => return None,
    };
    let message = format!(
        "Secret {name} does not exist, so no Job can drop the database: restore it, set deletionPolicy: Retain to keep \
         database and files, or set the annotation {}: skip-database to delete only the files",
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

/// The plan until the delete Job has succeeded; None afterwards.
fn drop_by_job(remains: &Remains, bench: &FrappeBench) -> Option<Plan> {
    let observed = remains.observed;
    match operation::progress(observed, OperationKind::Delete, None) {
        Progress::Done => None,
        Progress::Run(operation) => {
            let job = Place::of(&observed.site).job("delete", operation.attempt);
            let waits = Report { reason: Reason::WaitingForJobSlot, ..deleting(waits_message(observed)) };
            let runs = deleting(format!("Job {} is dropping the site", job.name));
            let job = build::delete_job(&remains.subject(), &observed.bench_input(bench), &operation);
            Some(Plan::start(observed, &waits, &runs, operation, job))
        }
        Progress::Retry { operation, after, message } => {
            let report = Report { reason: Reason::DeletionRetrying, ..deleting(message) };
            Some(Plan { again_after: Some(after), ..Plan::report(observed, &report, Some(operation)) })
        }
        Progress::Failed { operation, message } => {
            let message = format!(
                "{message}, or set the annotation {} to skip-database (the Job deletes only the files) or skip-job",
                labels::FORCE_DELETE
            );
            Some(Plan::report(observed, &blocked(Reason::DeletionFailed, message), Some(operation)))
        }
    }
}

/// Grant, User and Database, in this order. Only now may the MariaDB operator drop the account; the database only
/// where no Job could do it (the bench, or the whole namespace, is gone).
fn drop_objects(remains: &Remains) -> Vec<Step> {
    let Remains { observed, place, .. } = remains;
    let [database, user, grant] = &observed.sql;
    let by_operator = observed.bench.is_none() || observed.namespace_terminating || force(observed) > Force::Nothing;
    let database_cleanup = if by_operator { Cleanup::Delete } else { Cleanup::Skip };
    let wanted = [
        (Kind::Grant, "grant", grant, Cleanup::Delete),
        (Kind::User, "user", user, Cleanup::Delete),
        (Kind::Database, "db", database, database_cleanup),
    ];
    let mut steps = Vec::new();
    for (kind, suffix, live, cleanup) in wanted {
        let Some(live) = live.as_ref().filter(|it| it.metadata.deletion_timestamp.is_none()) else { continue };
        // Only the policy is changed: all other fields remain as created.
        let changed = Existing::of(live).with(cleanup);
        steps.extend(changed.map(|spec| Step::Ensure(spec.desired(kind, place.key(suffix), live))));
        steps.push(Step::Delete(kind, live.clone()));
    }
    steps
}

/// Secrets created by this operator; a user's Secrets are kept.
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

/// Releases the hosts and removes the finalizer.
fn release(observed: &Observed, mut steps: Vec<Step>) -> Plan {
    let ours = observed
        .claims
        .iter()
        .filter(|claim| claim.holder == Holder::ThisSite)
        .filter_map(|claim| claim.object.clone());
    steps.extend(ours.chain(observed.former_claims.iter().cloned()).map(|claim| Step::Delete(Kind::Domain, claim)));
    // In another namespace, and in a deletion in the foreground, they have no owner that would delete them.
    let without_owner = observed.jobs.values().filter(|job| job.owner_references().is_empty());
    steps.extend(without_owner.map(|job| Step::Delete(Kind::Job, job.clone())));
    let site = &observed.site;
    let left = finalizers_without(site.as_ref(), labels::SITE_FINALIZER);
    let metadata = MetadataPatch::of(site.as_ref()).with_finalizers(left);
    Plan { steps, last: vec![Step::Patch(site.clone(), metadata)], ..Plan::default() }
}

/// Remains of a site that is being deleted: its names, and its recorded database.
pub(in crate::controllers) struct Remains<'a> {
    observed: &'a Observed,
    place: Place,
    known: Known,
    /// Its database; None if its location is not known any more.
    database: Option<Database>,
    /// Whether its server no longer exists.
    server_gone: bool,
    /// Whether the delete Job skips the database: its server no longer exists, or a user requested it.
    skips_database: bool,
    /// The bench on which the delete Job runs.
    job_on: Option<&'a FrappeBench>,
}

impl<'a> Remains<'a> {
    /// The remains of a site.
    pub(super) fn of(observed: &'a Observed) -> Self {
        let database = database::remaining(observed);
        let dedicated = matches!(&database, Some(Database::Made(server)) if server.dedicated);
        let server_gone = database.is_none() || (dedicated && observed.own_server().is_none());
        let needed = needs_job(observed, database.as_ref());
        Self {
            observed,
            place: Place::of(&observed.site),
            known: record::known(observed),
            server_gone,
            skips_database: server_gone || force(observed) >= Force::SkipDatabase,
            job_on: observed.bench.as_deref().filter(|_| needed),
            database,
        }
    }

    /// Input of its Jobs.
    pub(in crate::controllers) fn subject(&self) -> Subject<'_> {
        let database = self.database.as_ref().filter(|_| !self.skips_database);
        Subject { site: &self.observed.site, place: &self.place, known: &self.known, database }
    }

    /// A plan with only a report.
    fn ends(&self, report: &Report) -> Next<FrappeSite> {
        Next::End(Plan::report(self.observed, report, None))
    }

    /// The plan while an object is being deleted.
    fn waits(&self, kind: Kind, object: &Arc<DynamicObject>, message: &str) -> Next<FrappeSite> {
        let stop = object.metadata.deletion_timestamp.is_none().then(|| Step::Delete(kind, object.clone()));
        let plan = Plan::report(self.observed, &deleting(message), None);
        Next::End(Plan { steps: stop.into_iter().collect(), ..plan })
    }
}
