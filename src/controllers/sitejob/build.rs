//! The Job of a SiteJob: a pod that has only the site's own directory of the bench's sites, and no Secrets. Pure.

use frappe_crds::{
    SiteJob,
    job::{CaptureOutput, JobOperation, JobScript},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::Value;

use crate::{
    controllers::{
        bench::{build as bench, model::Input as BenchInput},
        site::{
            build::{Time, job_of, labels_of, request},
            model::Subject,
            under_way::site_job_key,
        },
    },
    domain::{
        object::Desired,
        pod::{Mounted, item},
        uid, wire,
    },
    runner,
};

/// Component in the labels of Job and pod.
const COMPONENT: &str = "site-job";
/// Default longest time of a run, in seconds.
const TIMEOUT_SECONDS: i32 = 3600;
/// How much longer the Job may take, in seconds: for the start of its pod, and the wait until web workers know the maintenance mode.
const MORE_SECONDS: i64 = 900;
/// Longest time of a Job that only ends the maintenance mode, in seconds.
const SETTLE_SECONDS: i64 = 600;
/// How long a finished Job is kept if the SiteJob is kept longer, in seconds: its result is read long before.
const KEPT_SECONDS: i32 = 7 * 86_400;
/// Default of how many bytes of the output are written to the log.
const OUTPUT_BYTES: i32 = 1 << 20;

/// What to run, in the runner's request.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Run<'a> {
    /// A command with its arguments.
    Command {
        /// Both.
        command: Vec<&'a str>,
    },
    /// A function with its arguments.
    Method {
        /// Its path.
        method: &'a str,
        /// By position.
        args: Value,
        /// By name.
        kwargs: Value,
    },
    /// A script.
    Script {
        /// Its key.
        script: &'a str,
        /// Name of the ConfigMap.
        config_map: &'a str,
        /// Its SHA-256.
        #[serde(skip_serializing_if = "Option::is_none")]
        sha256: Option<&'a str>,
    },
}

/// The runner's request for a run.
#[derive(Serialize)]
struct More<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a Run<'a>>,
    timeout_seconds: i32,
    capture: bool,
    output_bytes: i32,
    /// Entries of the site's configuration that are secret.
    secret_config: Vec<&'a String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    maintenance: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    settle: bool,
}

/// What to run; why not, if the arguments of its method are no JSON.
pub(super) fn asked(job: &SiteJob) -> Result<Run<'_>, String> {
    let spec = &job.spec;
    if let Some(command) = &spec.command {
        let words = std::iter::once(command.name.as_str()).chain(command.args.iter().map(String::as_str));
        return Ok(Run::Command { command: words.collect() });
    }
    if let Some(method) = &spec.method {
        let parsed = |name: &str, text: Option<&String>, empty: &str| {
            let value: Result<Value, _> = serde_json::from_str(text.map_or(empty, String::as_str));
            value.map_err(|error| format!("spec.method.{name} is no JSON: {error}"))
        };
        let args = parsed("args", method.args.as_ref(), "[]")?;
        let kwargs = parsed("kwargs", method.kwargs.as_ref(), "{}")?;
        return Ok(Run::Method { method: &method.name, args, kwargs });
    }
    let Some(JobScript { config_map_ref, sha256 }) = &spec.script else {
        return Err("set exactly one of command, method and script".to_owned());
    };
    Ok(Run::Script { script: &config_map_ref.key, config_map: &config_map_ref.name, sha256: sha256.as_deref() })
}

/// The Job of this attempt: the first one runs it, later ones only end the maintenance mode that it has left.
pub(super) fn job(
    input: &Subject,
    bench: &BenchInput,
    job: &SiteJob,
    run: &Run<'_>,
    operation: &JobOperation,
) -> Desired {
    let spec = &job.spec;
    let settle = operation.attempt > 1;
    let timeout_seconds = spec.timeout_seconds.unwrap_or(TIMEOUT_SECONDS);
    let more = More {
        run: Some(run).filter(|_| !settle),
        timeout_seconds,
        capture: spec.capture_output.unwrap_or_default() == CaptureOutput::Tail,
        output_bytes: spec.output_limit_bytes.unwrap_or(OUTPUT_BYTES),
        secret_config: input.site.spec.site_config_secret_refs.keys().collect(),
        maintenance: spec.maintenance.unwrap_or(false),
        settle,
    };
    // Its site's configuration has the account of the database.
    let subject = Subject { database: None, ..*input };
    let request = wire::text(&request(&subject, more));
    let script = spec.script.as_ref().filter(|_| !settle).map(|it| {
        let JobScript { config_map_ref, .. } = it;
        let key = item(&config_map_ref.key, runner::SCRIPT);
        Mounted::config_map_key_if_there("script", runner::SCRIPTS, config_map_ref.name.clone(), key)
    });
    let extra: Vec<Mounted> = script.into_iter().collect();
    let container = bench::narrow_container(bench, &input.site.spec.site_name, "run", &request, &extra);
    let pod = bench::narrow_pod(bench, &extra).then(container);
    let pods = bench::for_job(bench, labels_of(input, COMPONENT), pod);
    let deadline_seconds = if settle { SETTLE_SECONDS } else { i64::from(timeout_seconds) + MORE_SECONDS };
    let time = Time { deadline_seconds, kept_seconds: KEPT_SECONDS };
    let key = site_job_key(input.place, operation);
    let mut made = job_of(input, key, COMPONENT, &time, pods);
    if !input.place.is_foreign() {
        // It is deleted with the SiteJob.
        made.body["metadata"]["ownerReferences"] = wire::json(&[owner(job)]);
    }
    made
}

fn owner(job: &SiteJob) -> OwnerReference {
    OwnerReference {
        api_version: SiteJob::api_version(&()).into_owned(),
        kind: SiteJob::kind(&()).into_owned(),
        name: job.name_any(),
        uid: uid::of(job).to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}
