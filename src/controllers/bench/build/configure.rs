//! The site runner's ConfigMap and the Job that merges `common_site_config.json`.

use std::{collections::BTreeMap, sync::LazyLock};

use frappe_crds::pod_templates::JOBS;
use k8s_openapi::{
    api::{
        batch::v1::{JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule},
        core::v1::{ConfigMap, Container, EmptyDirVolumeSource, PodSpec, PodTemplateSpec, VolumeProjection},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::api::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

use super::{
    code,
    network::{NGINX_PORT, SOCKETIO_PORT},
    pod::{RUNNER_VOLUME, bench_pod, container, pod_labels, resources, written},
    redis::{External, USER, redis_secret},
    template,
};
use crate::{
    controllers::bench::{
        model::{BENCH_PATH, FIRST_REVISION, Input, Pods, redeploy},
        placed::revisions,
    },
    domain::{
        key::Key,
        labels,
        names::{child, hash_hex, module},
        object::Desired,
        pod::{Mounted, Pod, item, origins, projected, projected_if_there, variable},
        typed::{self, entry},
        wire,
    },
    runner,
};

/// Mount path of the runner.
const RUNNER_PATH: &str = "/opt/frappe-operator";
/// Longest time of the configure Job, in seconds.
const DEADLINE_SECONDS: i64 = 600;
/// Longest time of a configure Job that copies the image's code and installs apps, in seconds.
const INSTALL_DEADLINE_SECONDS: i64 = 3600;
/// How long the hold Job waits for other Jobs that work on a site, in seconds.
const HOLD_WAIT_SECONDS: u32 = 300;
/// How long the finished hold Job is kept, in seconds.
const HOLD_KEPT_SECONDS: i32 = 3600;
/// Termination grace period of a Job's pod, in seconds.
pub(super) const GRACE_SECONDS: i64 = 30;
/// Volume with the Secrets that the runner reads.
const SECRETS_VOLUME: &str = "secrets";

/// The ConfigMap with the site runner, which every Job of the bench mounts.
pub fn runner_config_map(input: &Input) -> Desired {
    let key = Key::new(input.namespace(), child(&input.name(), "site-runner"));
    let files = runner::FILES.iter().map(|(name, source)| ((*name).to_owned(), (*source).to_owned()));
    let object = ConfigMap {
        metadata: input.metadata(labels::component(&input.name(), "site-runner")),
        data: Some(files.collect()),
        ..ConfigMap::default()
    };
    typed::config_map(key, object)
}

/// The Job `BENCH-configure`. Its annotation contains a hash of its request: another hash needs another run.
pub fn configure_job(input: &Input) -> Desired {
    let extra = secrets(input);
    let asked = Request { assume: assumes(input), older: older(input), ..request(input) };
    let mut configure = runner_container(input, "configure", &wire::text(&asked), &extra);
    if input.digest.is_none() && redeploy(input.bench).is_some() {
        // The node may have an earlier image of the tag.
        configure.image_pull_policy =
            configure.image_pull_policy.filter(|it| it == "Never").or(Some("Always".to_owned()));
    }
    let code = code::request(input);
    let number = input.pods.number();
    let folder = (number > FIRST_REVISION).then(|| before(&configure, "folder", &wire::text(&Folder { number })));
    let seed = code.as_ref().map(|code| before(&configure, "seed", &wire::text(code)));
    let pod = folder.into_iter().chain(seed).chain([configure]).fold(runner_pod(input, &extra), Pod::then);
    let spec = JobSpec {
        backoff_limit: Some(4),
        pod_failure_policy: Some(fails_at_once()),
        active_deadline_seconds: Some(if code.is_some() { INSTALL_DEADLINE_SECONDS } else { DEADLINE_SECONDS }),
        template: for_job(input, pod_labels(input, "configure"), pod),
        ..JobSpec::default()
    };
    let mut job = input.object("configure", "configure", spec);
    job.metadata.annotations = Some(entry(labels::APPLIED_HASH, revision(input)));
    job.into()
}

/// The Job `BENCH-hold`: it stops the background jobs of sites whose schema is not that of the image, before workers of the image start.
pub fn hold_job(input: &Input) -> Desired {
    let container = runner_container(input, "hold", &wire::text(&Hold { drain_seconds: HOLD_WAIT_SECONDS }), &[]);
    let spec = JobSpec {
        backoff_limit: Some(4),
        active_deadline_seconds: Some(DEADLINE_SECONDS),
        ttl_seconds_after_finished: Some(HOLD_KEPT_SECONDS),
        template: for_job(input, pod_labels(input, "hold"), runner_pod(input, &[]).then(container)),
        ..JobSpec::default()
    };
    let mut job = input.object("hold", "hold", spec);
    job.metadata.annotations = Some(entry(labels::APPLIED_HASH, revision(input)));
    job.into()
}

/// Request of the hold Job.
#[derive(Serialize)]
struct Hold {
    drain_seconds: u32,
}

/// Whether sites without a recorded schema may be assumed to have the image's: an earlier version of the operator created them, and the
/// image has not changed since.
pub fn assumes(input: &Input) -> bool {
    let image = input.image();
    let before = input.bench.status.as_ref().filter(|it| it.apps.is_empty() && it.running_revision.is_some());
    before.is_some_and(|status| status.image == Some(image))
}

/// What is wrong in the spec or in a Secret is reported by the first pod: another would fail, too.
fn fails_at_once() -> PodFailurePolicy {
    let on_exit_codes = PodFailurePolicyOnExitCodesRequirement {
        container_name: Some("configure".to_owned()),
        operator: "In".to_owned(),
        values: vec![runner::INVALID],
    };
    let rule = PodFailurePolicyRule {
        action: "FailJob".to_owned(),
        on_exit_codes: Some(on_exit_codes),
        ..PodFailurePolicyRule::default()
    };
    PodFailurePolicy { rules: vec![rule] }
}

/// Runs another command of the runner before the folders of the volume that it creates are mounted: the folder of a revision, or a copy
/// of the image's code.
fn before(configure: &Container, command: &str, request: &str) -> Container {
    let mut container =
        Container { name: command.to_owned(), args: Some(arguments(command, request)), ..configure.clone() };
    let mounts = container.volume_mounts.iter_mut();
    mounts.for_each(|it| it.retain(|mount| mount.sub_path.is_none() && mount.name != SECRETS_VOLUME));
    container
}

/// Revision that the components run: the image and the configure Job's request.
fn revision(input: &Input) -> String {
    static RUNNER: LazyLock<String> =
        LazyLock::new(|| hash_hex(&runner::FILES.iter().map(|(_, source)| *source).collect::<String>(), 16));
    let secret = input.redis_secret_version.unwrap_or_default();
    let redeploy = redeploy(input.bench).map(String::as_str).unwrap_or_default();
    hash_hex(&format!("{}{}{}{secret}{redeploy}", wire::text(&request(input)), input.image(), *RUNNER), 16)
}

/// The mounted Redis Secret for the runner.
fn secrets(input: &Input) -> Vec<Mounted> {
    let sources: Vec<_> = redis_keys(input).into_iter().collect();
    if sources.is_empty() { Vec::new() } else { vec![runner_secrets(sources)] }
}

/// Volume source of the Redis Secret. The runner reports a missing key.
fn redis_keys(input: &Input) -> Option<VolumeProjection> {
    let (external, name) = redis_secret(input.bench)?;
    let password = vec![item("password", "redis-password")];
    Some(match external {
        External::Generated => projected(name, Some(password)),
        External::Password => projected_if_there(name, password),
        External::Urls => {
            projected_if_there(name, vec![item("redis-cache", "redis-cache"), item("redis-queue", "redis-queue")])
        }
    })
}

/// Request of the configure Job.
///
/// The runner builds URLs that contain a secret: `secret_urls` is the file of each complete URL, `password_urls` are the keys whose
/// URLs get the password in the file `redis-password`.
#[derive(Serialize)]
struct Request<'a> {
    common_site_config: CommonConfig<'a>,
    /// Entries that the user sets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    settings: &'a BTreeMap<String, Value>,
    /// Apps of the bench: if the image does not have one of them, pods of the previous image continue.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    apps: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    secret_urls: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<code::Request<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_urls: Option<[&'a str; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_user: Option<&'a str>,
    /// Whether sites without a recorded schema have the image's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    assume: bool,
    /// Host and port of nginx of each earlier revision, by number.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    older: BTreeMap<i32, String>,
    /// Secret and key of each file with a secret, for messages.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<String, [String; 2]>,
}

/// Entries of `common_site_config.json`. `bench_id` is part of the queues' names in Redis, which would be the same for every bench
/// without it.
#[derive(Serialize)]
struct CommonConfig<'a> {
    bench_id: String,
    socketio_port: i32,
    #[serde(flatten)]
    redis: BTreeMap<&'a str, String>,
}

/// Request of the configure Job.
fn request<'a>(input: &Input<'a>) -> Request<'a> {
    // Frappe 14 reads redis_socketio; later versions read redis_queue instead.
    let servers = [("redis_cache", "redis-cache"), ("redis_queue", "redis-queue"), ("redis_socketio", "redis-queue")];
    let external = redis_secret(input.bench).map(|(external, _)| external);
    let has_urls = external == Some(External::Urls);
    let url = |server: &str| format!("redis://{}:6379", child(&input.name(), server));
    let database = input.pods.revision().map(|it| it.cache_database).filter(|it| *it > 0);
    let database = |key: &str| database.filter(|_| key == "redis_cache").map(|it| format!("/{it}")).unwrap_or_default();
    let redis = servers.map(|(key, server)| (key, url(server) + &database(key)));
    let has_password = matches!(external, Some(External::Password | External::Generated));
    Request {
        common_site_config: CommonConfig {
            bench_id: bench_id(input),
            socketio_port: SOCKETIO_PORT,
            redis: if has_urls { BTreeMap::new() } else { redis.into() },
        },
        settings: &input.bench.spec.common_site_config,
        apps: input.bench.spec.apps.iter().map(|app| module(&app.name)).collect(),
        secret_urls: if has_urls { servers.into() } else { BTreeMap::new() },
        code: code::request(input),
        password_urls: has_password.then(|| servers.map(|(key, _)| key)),
        redis_user: (external == Some(External::Generated)).then_some(USER),
        assume: false,
        older: BTreeMap::new(),
        secrets: redis_keys(input).map(|it| origins(&[it])).unwrap_or_default(),
    }
}

/// Name of the queues of a bench's revision, unique in a cluster.
pub fn bench_id(input: &Input) -> String {
    let bench = format!("{}-{}", input.namespace(), input.name());
    match input.pods.number() {
        FIRST_REVISION => bench,
        number => format!("{bench}-r{number}"),
    }
}

/// Request to create the folder of a revision.
#[derive(Serialize)]
struct Folder {
    number: i32,
}

/// Addresses of nginx of earlier revisions. They are no part of the hash: the newest pods do not change when an earlier revision goes.
fn older(input: &Input) -> BTreeMap<i32, String> {
    let Pods::Newest(_) = input.pods else { return BTreeMap::new() };
    let address = |it: Input| format!("{}:{NGINX_PORT}", it.child_of("nginx"));
    older_inputs(input).map(|it| (it.pods.number(), address(it))).collect()
}

/// Inputs of the earlier revisions that have pods.
pub(super) fn older_inputs<'a>(input: &'a Input<'a>) -> impl Iterator<Item = Input<'a>> {
    let earlier = revisions(input.bench).split_last().map(|(_, earlier)| earlier).unwrap_or_default();
    earlier.iter().filter(|it| !it.retired).map(|revision| input.of_older(revision))
}

/// The runner's files and their mount.
pub(super) fn runner_volume(input: &Input) -> Mounted {
    Mounted::config_map(RUNNER_VOLUME, RUNNER_PATH, child(&input.name(), "site-runner"))
}

/// Command of the runner, with the bench's Python interpreter.
pub(super) fn runner_command() -> [String; 3] {
    [format!("{BENCH_PATH}/env/bin/python"), "-u".to_owned(), format!("{RUNNER_PATH}/{}", runner::FILE_NAME)]
}

/// Volumes of every container with the runner, and additional ones.
pub(super) fn runner_volumes(input: &Input, extra: &[Mounted]) -> Vec<Mounted> {
    let memory =
        EmptyDirVolumeSource { medium: Some("Memory".to_owned()), size_limit: Some(Quantity("16Mi".to_owned())) };
    let own = [runner_volume(input), Mounted::empty("home", runner::HOME, memory)];
    own.into_iter().chain(extra.iter().cloned()).chain(written(input, JOBS)).collect()
}

/// The volumes with Secrets that a runner reads.
pub(in crate::controllers) fn runner_secrets(sources: Vec<VolumeProjection>) -> Mounted {
    Mounted::secrets(SECRETS_VOLUME, runner::SECRETS, sources)
}

/// A pod for containers with the site runner, with additional volumes.
pub(in crate::controllers) fn runner_pod(input: &Input, extra: &[Mounted]) -> Pod {
    bench_pod(input, JOBS, GRACE_SECONDS, &runner_volumes(input, extra))
}

/// A pod of a Job of the bench without the bench's volumes.
pub(in crate::controllers) fn bare_pod(input: &Input) -> Pod {
    super::pod::empty_pod(input, JOBS, GRACE_SECONDS)
}

/// The pod of a Job, with what the bench's templates add: its containers are not restarted.
pub(in crate::controllers) fn for_job(input: &Input, labels: BTreeMap<String, String>, pod: Pod) -> PodTemplateSpec {
    let metadata = Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() });
    let spec = Some(PodSpec { restart_policy: Some("Never".to_owned()), ..pod.build() });
    template::with(template::template(input.bench, JOBS), None, PodTemplateSpec { metadata, spec })
}

/// A container that runs the site runner: `command` with a request as its only argument.
///
/// The request contains no passwords: the runner reads them from mounted files.
pub(in crate::controllers) fn runner_container(
    input: &Input,
    command: &str,
    request: &str,
    extra: &[Mounted],
) -> Container {
    container(input, JOBS, runner_own(input, command, request), &runner_volumes(input, extra))
}

/// Arguments of the runner. The kubelet replaces `$(NAME)` and `$$` in arguments: the request, which is JSON, has another form of `$`.
fn arguments(command: &str, request: &str) -> Vec<String> {
    vec![command.to_owned(), request.replace('$', "\\u0024")]
}

/// The container's own part of [`runner_container`].
pub(super) fn runner_own(input: &Input, command: &str, request: &str) -> Container {
    let chosen = input.bench.spec.component_resources.as_ref().and_then(|it| it.jobs.as_ref());
    Container {
        name: command.to_owned(),
        command: Some(runner_command().into()),
        args: Some(arguments(command, request)),
        working_dir: Some(BENCH_PATH.to_owned()),
        env: Some(vec![variable("HOME", runner::HOME)]),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        resources: Some(resources(chosen, ["500m", "512Mi", "2", "2Gi"])),
        ..Container::default()
    }
}
