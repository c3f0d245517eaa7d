//! Jobs that create, change and drop a site.

use std::{collections::BTreeMap, time::Duration};

use frappe_crds::{bench::SafetyBackupMode, common::SecretKeyReference, site::Operation};
use k8s_openapi::api::{
    batch::v1::JobSpec,
    core::v1::{PodTemplateSpec, VolumeProjection},
};
use serde::Serialize;

use super::database::{DatabaseRequest, database_request};
use crate::{
    controllers::{
        adoption::is_adoption_requested,
        bench::{build as bench, model::Input as BenchInput},
        duration,
        site::model::{Configuration, ConfigurationRequest, Database, Input, Subject},
    },
    domain::{
        key::Key,
        object::Desired,
        pod::{item, origins, projected, projected_if_there},
        wire,
    },
};

/// Longest time of a Job that creates or changes a site, in seconds: it may install apps.
const INIT_DEADLINE_SECONDS: i64 = 3600;
/// Default longest time of a migration.
const UPDATE_DEADLINE: Duration = Duration::from_hours(1);
/// A Job that restores the dump of a migration may take this many times as long.
const BACK_DEADLINE_FACTOR: i64 = 4;
/// Default longest wait for running background jobs of a site.
const DRAIN: Duration = Duration::from_mins(5);
/// How long the dump of a migration is kept by default.
const KEEP_DUMP: Duration = Duration::from_hours(72);
/// Longest time of a delete Job, in seconds.
const DELETE_DEADLINE_SECONDS: i64 = 900;
/// How long a finished Job is kept, in seconds: a late creation of the same Job then fails.
const KEPT_SECONDS: i32 = 3600;

/// The Job `SITE-init` (`SITE-init-2` …).
pub fn init_job(input: &Input, bench: &BenchInput, operation: &Operation, configuration: &Configuration) -> Desired {
    let about = About { command: "init", name: "init", deadline_seconds: INIT_DEADLINE_SECONDS };
    let more = Setup {
        configuration: &configuration.request,
        adopt: is_adoption_requested(bench.bench),
        set_admin_password: false,
    };
    let secrets = [account_sources(input), vec![admin(input)], entries(input)].concat();
    job(input, bench, operation, &about, &request(input, more), secrets)
}

/// The Job `SITE-apply`: settings, hosts, apps, and the Administrator's password if its Secret changed.
pub fn configure_job(
    input: &Input,
    bench: &BenchInput,
    operation: &Operation,
    configuration: &Configuration,
) -> Desired {
    let about = About { command: "apply", name: "apply", deadline_seconds: INIT_DEADLINE_SECONDS };
    let mut secrets = [account_sources(input), entries(input)].concat();
    let status = input.site.status.as_ref();
    let set_admin_password = operation.admin_password_version.is_some()
        && status.is_some_and(|status| status.admin_password_version != operation.admin_password_version);
    if set_admin_password {
        secrets.push(admin(input));
    }
    let more = Setup { configuration: &configuration.request, adopt: false, set_admin_password };
    job(input, bench, operation, &about, &request(input, more), secrets)
}

/// The Job `SITE-update`: migrates the site, or restores the dump of before.
pub fn update_job(input: &Input, bench: &BenchInput, operation: &Operation) -> Desired {
    let strategy = bench.bench.spec.update_strategy.clone().unwrap_or_default();
    let goal = operation.update.as_ref();
    let goes_back = goal.is_some_and(|it| it.back_only);
    let seconds = |asked, default| i64::try_from(duration::of(asked, default).as_secs()).unwrap_or(i64::MAX);
    let deadline_seconds = seconds(strategy.progress_deadline.as_ref(), UPDATE_DEADLINE);
    let factor = if goes_back { BACK_DEADLINE_FACTOR } else { 1 };
    let about = About { command: "update", name: "update", deadline_seconds: factor * deadline_seconds };
    let backup = strategy.safety_backup.unwrap_or_default();
    let of_site = input.site.spec.update.as_ref().and_then(|it| it.skip_failing_patches);
    let update = Update {
        id: goal.map(|it| it.id.as_str()).unwrap_or_default(),
        drain_seconds: seconds(strategy.drain_timeout.as_ref(), DRAIN),
        // What was written since an update that is undone is kept.
        dump: goal.is_some_and(|it| it.undoes.is_some()) || backup.mode.unwrap_or_default() == SafetyBackupMode::Volume,
        skip_failing: of_site.or(strategy.skip_failing_patches).unwrap_or(false),
        back_only: goes_back,
        keep_seconds: seconds(backup.keep_for.as_ref(), KEEP_DUMP),
        force: goal.is_some_and(|it| it.migrate.is_some()),
        from: goal.and_then(|it| it.moves).map(|it| it.from),
        undoes: goal.and_then(|it| it.undoes.as_deref()),
    };
    job(input, bench, operation, &about, &request(input, Updating { update }), account_sources(input))
}

/// The Job `SITE-delete`: drops the database with the site's account and removes the files; if it cannot log in to a database, the
/// MariaDB operator drops it.
pub fn delete_job(input: &Subject, bench: &BenchInput, operation: &Operation) -> Desired {
    let about = About { command: "drop", name: "delete", deadline_seconds: DELETE_DEADLINE_SECONDS };
    job(input, bench, operation, &about, &request(input, Nothing {}), account_sources(input))
}

struct About {
    command: &'static str,
    name: &'static str,
    deadline_seconds: i64,
}

/// The runner's request for a site, without secrets, with additional fields.
#[derive(Serialize)]
pub(in crate::controllers) struct Request<'a, M> {
    site: &'a str,
    identity: &'a str,
    /// None if the database is not accessed.
    database: Option<DatabaseRequest<'a>>,
    #[serde(flatten)]
    more: M,
}

/// A request, and the Secrets and keys of the runner's files, for its messages.
#[derive(Serialize)]
struct Named<'a, R> {
    #[serde(flatten)]
    request: &'a R,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<String, [String; 2]>,
}

/// No additional fields.
#[derive(Serialize)]
struct Nothing {}

/// Additional fields to create or change a site.
#[derive(Serialize)]
struct Setup<'a> {
    #[serde(flatten)]
    configuration: &'a ConfigurationRequest,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    adopt: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    set_admin_password: bool,
}

/// Additional field to migrate a site.
#[derive(Serialize)]
struct Updating<'a> {
    update: Update<'a>,
}

/// How a site is migrated.
#[allow(clippy::struct_excessive_bools, reason = "they are the fields of the runner's request")]
#[derive(Serialize)]
struct Update<'a> {
    /// Names the dump on the volume.
    id: &'a str,
    /// Longest wait for running background jobs.
    drain_seconds: i64,
    /// Whether the database is dumped first.
    dump: bool,
    /// Whether patches that fail are skipped.
    skip_failing: bool,
    /// Whether the dump is only restored.
    back_only: bool,
    /// How long the dump is kept.
    keep_seconds: i64,
    /// Whether to migrate a site that has the schema of the image already.
    force: bool,
    /// The revision from which the site moves to that of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<i32>,
    /// The update that is undone: its dump is loaded instead of a migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    undoes: Option<&'a str>,
}

/// The runner's request, without secrets.
pub(in crate::controllers) fn request<'a, M: Serialize>(input: &Subject<'a>, more: M) -> Request<'a, M> {
    Request {
        site: &input.site.spec.site_name,
        identity: &input.known.identity,
        database: input.database.map(|it| database_request(it, &input.known.name, &input.known.user)),
        more,
    }
}

/// Volume sources of the database account and the encryption key.
pub(in crate::controllers) fn account_sources(input: &Subject) -> Vec<VolumeProjection> {
    let Some(database) = input.database else { return Vec::new() };
    let mut sources = vec![projected(input.place.credentials().name, None)];
    if let Database::Existing(existing) = database {
        let keys = ["username", "password", "host", "port", "database"];
        let items = keys.map(|key| item(key, format!("connection/{key}")));
        // Three keys may be missing.
        sources.push(projected_if_there(input.place.mounted(&existing.secret), items.into()));
    }
    sources
}

fn admin(input: &Input) -> VolumeProjection {
    let name = input.valid.place.mounted(&input.valid.admin_secret);
    let keys = vec![item("password", "admin-password")];
    match input.site.spec.admin_password_secret_ref {
        Some(_) => projected_if_there(name, keys),
        None => projected(name, Some(keys)),
    }
}

/// Volume sources of secret entries of the site's configuration.
fn entries(input: &Input) -> Vec<VolumeProjection> {
    let entries = input.site.spec.site_config_secret_refs.iter();
    let of = |(entry, from): (&String, &SecretKeyReference)| {
        projected_if_there(input.valid.place.mounted(&from.name), vec![item(&from.key, format!("config/{entry}"))])
    };
    entries.map(of).collect()
}

fn job(
    input: &Subject,
    bench: &BenchInput,
    operation: &Operation,
    about: &About,
    request: &impl Serialize,
    secrets: Vec<VolumeProjection>,
) -> Desired {
    let request = Named { request, secrets: origins(&secrets) };
    let volumes: Vec<_> = (!secrets.is_empty()).then(|| bench::runner_secrets(secrets)).into_iter().collect();
    let container = bench::runner_container(bench, about.command, &wire::text(&request), &volumes);
    let pod = bench::runner_pod(bench, &volumes).then(container);
    let key = input.place.job(about.name, operation.attempt);
    let time = Time { deadline_seconds: about.deadline_seconds, kept_seconds: KEPT_SECONDS };
    let component = format!("site-{}", about.name);
    let pods = bench::for_job(bench, labels_of(input, &component), pod);
    job_of(input, key, &component, &time, pods)
}

/// Time limits of a Job, in seconds.
pub(in crate::controllers) struct Time {
    /// Longest duration.
    pub deadline_seconds: i64,
    /// How long it is kept after it finished.
    pub kept_seconds: i32,
}

/// Labels of a Job of the site and of its pods.
pub(in crate::controllers) fn labels_of(input: &Subject, component: &str) -> BTreeMap<String, String> {
    let mut labels = input.labels();
    labels.insert("component".to_owned(), component.to_owned());
    labels
}

/// A Job of the site.
pub(in crate::controllers) fn job_of(
    input: &Subject,
    key: Key,
    component: &str,
    time: &Time,
    pods: PodTemplateSpec,
) -> Desired {
    let spec = JobSpec {
        backoff_limit: Some(0),
        active_deadline_seconds: Some(time.deadline_seconds),
        ttl_seconds_after_finished: Some(time.kept_seconds),
        template: pods,
        ..JobSpec::default()
    };
    let mut job = input.owned(key, spec);
    (job.metadata.labels, job.metadata.annotations) = (Some(labels_of(input, component)), Some(input.identity()));
    job.into()
}
