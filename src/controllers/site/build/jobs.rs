//! The Jobs that create, change and drop a site.

use frappe_crds::site::Operation;
use serde_json::{Value, json};

use super::database::database_request;
use crate::{
    controllers::{
        adoption::is_asked,
        bench::{build as bench, model::Input as BenchInput},
        site::model::{Configuration, Database, Input, Subject},
    },
    domain::{
        labels,
        object::{Desired, Kind},
    },
    runner,
};

/// Longest time of a Job that creates a site or changes it, in seconds: an app may be installed.
const INIT_DEADLINE_SECONDS: i64 = 3600;
/// Longest time of a delete Job, in seconds.
const DELETE_DEADLINE_SECONDS: i64 = 900;
/// How long a finished Job is kept, in seconds: a create that comes late then meets it.
const KEPT_SECONDS: i64 = 3600;

/// The Job `SITE-init` (`SITE-init-2` …).
pub fn init_job(input: &Input, bench: &BenchInput, operation: &Operation, configuration: &Configuration) -> Desired {
    let about = About { command: "init", name: "init", deadline_seconds: INIT_DEADLINE_SECONDS };
    let mut request = with(request(input), &configuration.request);
    if is_asked(bench.bench) {
        request["adopt"] = json!(true);
    }
    let secrets = [account(input), vec![admin(input)], entries(input)].concat();
    job(input, bench, operation, &about, &request, &secrets)
}

/// The Job `SITE-apply`: settings, hosts, apps, and the password of Administrator where its Secret changed.
pub fn configure_job(
    input: &Input,
    bench: &BenchInput,
    operation: &Operation,
    configuration: &Configuration,
) -> Desired {
    let about = About { command: "apply", name: "apply", deadline_seconds: INIT_DEADLINE_SECONDS };
    let mut request = with(request(input), &configuration.request);
    let mut secrets = [account(input), entries(input)].concat();
    let status = input.site.status.as_ref();
    if operation.admin_password_version.is_some()
        && status.is_some_and(|status| status.admin_password_version != operation.admin_password_version)
    {
        request["set_admin_password"] = json!(true);
        secrets.push(admin(input));
    }
    job(input, bench, operation, &about, &request, &secrets)
}

/// The Job `SITE-delete`: drops the database with the site's own account and removes the files; without a database to log in at
/// it leaves that to the MariaDB operator.
pub fn delete_job(input: &Subject, bench: &BenchInput, operation: &Operation) -> Desired {
    let about = About { command: "drop", name: "delete", deadline_seconds: DELETE_DEADLINE_SECONDS };
    job(input, bench, operation, &about, &request(input), &account(input))
}

struct About {
    command: &'static str,
    name: &'static str,
    deadline_seconds: i64,
}

/// What the runner must know, without any secret.
pub(in crate::controllers) fn request(input: &Subject) -> Value {
    json!({
        "site": input.site.spec.site_name,
        "identity": input.known.identity,
        "database": input.database.map(|it| database_request(it, &input.known.name, &input.known.user)),
    })
}

/// A request with more entries.
pub(in crate::controllers) fn with(mut request: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        request[key] = value.clone();
    }
    request
}

/// The account of the database and the encryption key.
pub(in crate::controllers) fn account(input: &Subject) -> Vec<Value> {
    let Some(database) = input.database else { return Vec::new() };
    let mut sources = vec![json!({"secret": {"name": input.place.credentials().name}})];
    if let Database::Existing(existing) = database {
        let keys = ["username", "password", "host", "port", "database"];
        let items = keys.map(|key| json!({"key": key, "path": format!("connection/{key}")}));
        let name = input.place.mounted(&existing.secret);
        // Optional as a whole: of the keys three are, and the runner says which of the others is missing.
        sources.push(json!({"secret": {"name": name, "items": items, "optional": true}}));
    }
    sources
}

fn admin(input: &Input) -> Value {
    let name = input.valid.place.mounted(&input.valid.admin_secret);
    json!({"secret": {"name": name, "items": [{"key": "password", "path": "admin-password"}]}})
}

/// Secret entries of the site's configuration.
fn entries(input: &Input) -> Vec<Value> {
    let entries = input.site.spec.site_config_secret_refs.iter();
    entries
        .map(|(entry, from)| {
            let item = json!({"key": from.key, "path": format!("config/{entry}")});
            json!({"secret": {"name": input.valid.place.mounted(&from.name), "items": [item]}})
        })
        .collect()
}

fn job(
    input: &Subject,
    bench: &BenchInput,
    operation: &Operation,
    about: &About,
    request: &Value,
    secrets: &[Value],
) -> Desired {
    let volume = json!({"name": "secrets", "projected": {"defaultMode": 0o440, "sources": secrets}});
    let mount = json!({"name": "secrets", "mountPath": runner::SECRETS, "readOnly": true});
    let volumes: Vec<_> = (!secrets.is_empty()).then_some((volume, mount)).into_iter().collect();
    let pod = bench::runner_pod(bench, about.command, request, &volumes);
    let mut labels = input.labels();
    labels.insert("component".to_owned(), format!("site-{}", about.name));
    let spec = json!({
        "backoffLimit": 0,
        "activeDeadlineSeconds": about.deadline_seconds,
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": {"metadata": {"labels": labels}, "spec": pod},
    });
    let mut metadata = input.owned_metadata();
    metadata["labels"] = json!(labels);
    metadata["annotations"] = json!({labels::IDENTITY: input.known.identity});
    Desired::untyped(Kind::Job, input.place.job(about.name, operation.attempt), metadata, &spec)
}
