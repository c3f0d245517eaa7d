//! The Jobs that create and drop a site.

use frappe_crds::site::Operation;
use serde_json::{Value, json};

use super::{Input, credentials_name};
use crate::{
    controllers::bench::build as bench,
    domain::{
        key::Key,
        labels,
        names::operation_job,
        object::{Desired, Kind},
    },
    runner,
};

/// Longest time of an init Job, in seconds.
const INIT_DEADLINE_SECONDS: i64 = 3600;
/// Longest time of a delete Job, in seconds.
const DELETE_DEADLINE_SECONDS: i64 = 900;
/// How long a finished Job is kept, in seconds: a create that comes late then meets it.
const KEPT_SECONDS: i64 = 3600;

/// The Job `SITE-init` (`SITE-init-2` …).
pub fn init_job(input: &Input, bench: &bench::Input, operation: &Operation) -> Desired {
    let mut request = request(input);
    request["apps"] = json!(input.valid.apps);
    let admin =
        json!({"secret": {"name": input.valid.admin_secret, "items": [{"key": "password", "path": "admin-password"}]}});
    let about = About { command: "init", component: "site-init", deadline_seconds: INIT_DEADLINE_SECONDS };
    job(input, bench, operation, &about, &request, &[credentials_source(input), admin])
}

/// The Job `SITE-delete`: drops the database with the site's own account and removes the files.
pub fn delete_job(input: &Input, bench: &bench::Input, operation: &Operation) -> Desired {
    let about = About { command: "drop", component: "site-delete", deadline_seconds: DELETE_DEADLINE_SECONDS };
    job(input, bench, operation, &about, &request(input), &[credentials_source(input)])
}

struct About {
    command: &'static str,
    component: &'static str,
    deadline_seconds: i64,
}

/// What the runner must know, without any secret.
fn request(input: &Input) -> Value {
    json!({
        "site": input.site.spec.site_name,
        "identity": input.identity,
        "database": {"host": input.valid.database_host, "port": input.valid.database_port, "name": input.database_name},
    })
}

fn credentials_source(input: &Input) -> Value {
    json!({"secret": {"name": credentials_name(&input.name()), "items": [
        {"key": "password", "path": "password"}, {"key": "encryption-key", "path": "encryption-key"},
    ]}})
}

fn job(
    input: &Input,
    bench: &bench::Input,
    operation: &Operation,
    about: &About,
    request: &Value,
    secrets: &[Value],
) -> Desired {
    let volume = json!({"name": "secrets", "projected": {"defaultMode": 0o440, "sources": secrets}});
    let mount = json!({"name": "secrets", "mountPath": runner::SECRETS, "readOnly": true});
    let pod = bench::runner_pod(bench, about.command, request, &[(volume, mount)]);
    let mut labels = input.labels();
    labels.insert("component".to_owned(), about.component.to_owned());
    let spec = json!({
        "backoffLimit": 0,
        "activeDeadlineSeconds": about.deadline_seconds,
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": {"metadata": {"labels": labels}, "spec": pod},
    });
    let mut metadata = input.owned_metadata();
    metadata["labels"] = json!(labels);
    metadata["annotations"] = json!({labels::IDENTITY: input.identity});
    let suffix = about.component.trim_start_matches("site-");
    let name = operation_job(&input.name(), suffix, operation.attempt);
    Desired::untyped(Kind::Job, Key::new(input.key("").namespace, name), metadata, &spec)
}
