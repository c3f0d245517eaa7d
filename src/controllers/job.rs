//! State of a Job, and the termination messages of its pod. Pure.

use std::{collections::BTreeMap, time::Duration};

use frappe_crds::common::AppCode;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerStateTerminated, Pod},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::core::DynamicObject;
use serde::{Deserialize, de::IgnoredAny};

use crate::domain::{code::Code, image, live};

/// Attempts of an operation before it fails permanently.
pub const ATTEMPTS_MAX: i32 = 3;
/// Delay before the second attempt; each further delay is five times as long, at most [`WAIT_MAX`].
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// Longest delay between two attempts.
const WAIT_MAX: Duration = Duration::from_mins(5);
/// Delay between a permanent failure of a final backup or removal and its next try. Its Jobs, which are kept for an hour, are
/// deleted by then.
pub const AGAIN_AFTER: Duration = Duration::from_mins(70);
/// Time within which the pod of a new Job or StatefulSet is created, unless it is rejected.
const POD_MADE_MAX: Duration = Duration::from_secs(20);
/// Time within which the pod starts, including image pulls, unless something is missing.
const POD_STARTS_MAX: Duration = Duration::from_mins(1);
/// The kubelet's reason for a container of which a process was killed at the memory limit.
const OUT_OF_MEMORY: &str = "OOMKilled";
/// Characters of a termination message that are shown.
const MESSAGE_MAX_CHARACTERS: usize = 512;

/// State of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is running, or waits to start.
    Running,
    /// It succeeded.
    Complete,
    /// It failed, at this time.
    Failed(Timestamp),
}

/// State of the Job, by its conditions.
pub fn state(job: &DynamicObject) -> State {
    for condition in live::conditions(job) {
        if condition.holds("Complete") {
            return State::Complete;
        }
        if condition.holds("Failed") {
            return State::Failed(condition.since().unwrap_or(Timestamp::UNIX_EPOCH));
        }
    }
    State::Running
}

/// Whether the Job failed because it took longer than its deadline.
pub fn is_late(job: &DynamicObject) -> bool {
    deadline(job).is_some()
}

/// The condition of a Job that took longer than its deadline.
fn deadline(job: &DynamicObject) -> Option<live::Condition> {
    live::conditions(job).into_iter().find(|it| it.holds("Failed") && it.reason() == "DeadlineExceeded")
}

/// State of a Job's first pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It is running, or has run.
    Begun,
    /// Not yet running: check again after this time if nothing changes.
    Soon(Duration),
    /// A user must act: why, and where to look.
    Stuck(String),
}

/// State of a Job's first pod, by the Job's counts. A pod `with_steps` before its last container, which have no time limit, is not
/// checked further once it exists.
pub fn begin(job: &DynamicObject, with_steps: bool, now: Timestamp) -> Begin {
    let status = &job.data["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let is_there = count("active") > 0;
    let counted = ["ready", "succeeded", "failed", "terminating"].into_iter().any(|field| count(field) > 0);
    let uncounted = status["uncountedTerminatedPods"].as_object().is_some_and(|it| !it.is_empty());
    if state(job) != State::Running || counted || uncounted || (is_there && with_steps) {
        return Begin::Begun;
    }
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let (most, why) = if is_there {
        let why = format!(
            "its pod does not start (insufficient resources, or a missing image, volume or Secret): see \
             kubectl describe pod -l batch.kubernetes.io/job-name={name}"
        );
        (POD_STARTS_MAX, why)
    } else {
        let why = format!(
            "its pod cannot be created (rejected by a ResourceQuota, LimitRange or admission policy): see \
             kubectl describe job {name}"
        );
        (POD_MADE_MAX, why)
    };
    left(job, most, now).map_or(Begin::Stuck(why), Begin::Soon)
}

/// Time left until the first pod of a new object should exist; None if it has passed.
pub fn left_for_pod(object: &DynamicObject, now: Timestamp) -> Option<Duration> {
    left(object, POD_MADE_MAX, now)
}

fn left(object: &DynamicObject, most: Duration, now: Timestamp) -> Option<Duration> {
    let since = object.metadata.creation_timestamp.as_ref().map_or(now, |it| it.0);
    let elapsed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    most.checked_sub(elapsed).filter(|left| !left.is_zero())
}

/// Delay after a number of failures, from 1.
pub fn wait_after(failures: i32) -> Duration {
    let factor = 5_u32.saturating_pow(u32::try_from(failures - 1).unwrap_or(0));
    FIRST_WAIT.saturating_mul(factor).min(WAIT_MAX)
}

/// Time left until a permanent failure is retried; None if it has passed.
pub fn left_until_again(failed_at: Timestamp, now: Timestamp) -> Option<Duration> {
    let elapsed = Duration::try_from(now.duration_since(failed_at)).unwrap_or_default();
    AGAIN_AFTER.checked_sub(elapsed).filter(|left| !left.is_zero())
}

/// What the configure Job found in its image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Names of the apps.
    pub apps: Vec<String>,
    /// Versions and schemas of the apps.
    pub code: Vec<AppCode>,
    /// Digest of the image, if a registry serves it by that digest.
    pub digest: Option<String>,
}

/// What the configure Job found in the image, by its newest pod.
pub fn inspection(pods: &[Pod]) -> Option<Inspection> {
    match Ended::parse(newest(pods)?.state.message.as_deref()?) {
        Ended::Succeeded(result) => {
            Some(Inspection { apps: result.apps?, code: app_codes(result.code), digest: digest(pods) })
        }
        Ended::Failed(_) => None,
    }
}

fn app_codes(code: BTreeMap<String, VersionAndSchema>) -> Vec<AppCode> {
    let row = |(name, it): (String, VersionAndSchema)| AppCode { name, version: it.version, schema: it.schema };
    code.into_iter().map(row).collect()
}

/// Digest of the image that the newest of these pods runs.
fn digest(pods: &[Pod]) -> Option<String> {
    let newest = pods.iter().max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|it| it.0))?;
    let statuses = newest.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find_map(|it| image::digest_of(&it.image_id)).map(str::to_owned)
}

/// Why a Job failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Code.
    pub code: Code,
    /// Message for users.
    pub message: String,
    /// Number of the bench's revision in whose folder the site lies, if the Job reported it.
    pub revision: Option<i32>,
}

impl Failure {
    /// The failure of a Job whose containers wrote no termination message: they were killed, or never started.
    pub fn unknown() -> Self {
        Self { code: Code::Unknown, message: "see its log".to_owned(), revision: None }
    }

    /// The failure of a Job that took longer than its deadline.
    pub fn late() -> Self {
        Self { code: Code::DeadlineExceeded, message: "it took longer than its deadline".to_owned(), revision: None }
    }

    /// The failure in a termination message. Text that is not from the runner, such as the kubelet's, is only shown.
    fn parse(message: &str) -> Self {
        let left: Left = serde_json::from_str(message).unwrap_or_default();
        let code = left.code.as_deref().and_then(|word| word.parse().ok()).unwrap_or(Code::Unknown);
        let text = match (left.error, code) {
            (None, _) => message.to_owned(),
            (Some(error), Code::Unknown) => format!("step {}: {error}", left.step),
            (Some(error), code) => format!("step {}: {code}: {error}", left.step),
        };
        let revision = left.revision.filter(|it| *it > 0);
        Self { code, message: text.chars().take(MESSAGE_MAX_CHARACTERS).collect(), revision }
    }
}

/// Termination message of a failed container.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Left {
    step: String,
    code: Option<String>,
    error: Option<String>,
    revision: Option<i32>,
    result: Option<Done>,
}

/// The newest termination message.
pub fn message(pods: &[Pod]) -> Option<&str> {
    newest(pods)?.state.message.as_deref()
}

/// Result of a container: data for the operator, or any other text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Done {
    Known(Success),
    Other(IgnoredAny),
}

/// Termination message of a successful container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Success {
    /// Apps in the image.
    pub apps: Option<Vec<String>>,
    /// Versions and schemas of apps: of the image, or of those that are installed in the site.
    pub code: BTreeMap<String, VersionAndSchema>,
    /// Size of a backup in bytes.
    pub bytes: Option<i64>,
    /// Names of removed backups.
    pub removed: Vec<String>,
    /// Warning for users.
    pub warning: Option<String>,
}

/// Version and schema of an app in a termination message.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VersionAndSchema {
    /// Version of its code.
    pub version: Option<String>,
    /// Hash of the files that define its schema.
    pub schema: Option<String>,
}

/// Why a Job failed, by the newest container that failed, else by its pod, else by the Job's condition.
pub fn failure(job: &DynamicObject, pods: &[Pod]) -> Option<Failure> {
    let of_container = newest(pods).filter(|it| it.state.exit_code != 0).map(|it| it.failure());
    of_container.or_else(|| said_by_kubernetes(job, pods))
}

/// What Kubernetes says about a Job without a failed container: its pod was evicted or deleted, or its time was over.
fn said_by_kubernetes(job: &DynamicObject, pods: &[Pod]) -> Option<Failure> {
    let of_pod = pods.iter().find_map(|pod| {
        let status = pod.status.as_ref()?;
        Some(format!("{}: {}", status.reason.as_ref()?, status.message.as_deref().unwrap_or_default()))
    });
    // The condition of a Job whose pod failed only counts the pods.
    let of_job = || deadline(job)?.message().map(str::to_owned);
    of_pod.or_else(of_job).map(|message| Failure::parse(&message))
}

/// Result of a Job, from the newest termination message.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// It succeeded.
    Succeeded(Success),
    /// It failed.
    Failed(Failure),
}

impl Ended {
    /// Parses a termination message.
    pub fn parse(message: &str) -> Self {
        let left: Left = serde_json::from_str(message).unwrap_or_default();
        match left.result {
            Some(Done::Known(result)) => Self::Succeeded(result),
            Some(Done::Other(_)) => Self::Succeeded(Success::default()),
            None => Self::Failed(Failure::parse(message)),
        }
    }
}

/// Result of a Job that has ended.
pub fn ended(job: &DynamicObject, pods: &[Pod]) -> Option<Ended> {
    if matches!(state(job), State::Failed(_)) {
        return failure(job, pods).map(Ended::Failed);
    }
    newest(pods).and_then(|it| it.state.message.as_deref()).map(Ended::parse)
}

/// A container that has ended.
struct Finished<'a> {
    name: &'a str,
    state: &'a ContainerStateTerminated,
    memory_limit: Option<&'a Quantity>,
}

impl Finished<'_> {
    /// Why it failed: by its message, and by what the kubelet knows.
    fn failure(&self) -> Failure {
        let said = self.state.message.as_deref().filter(|it| !it.trim().is_empty()).map(Failure::parse);
        let reason = self.state.reason.as_deref().unwrap_or("Error");
        if reason != OUT_OF_MEMORY {
            let code = self.state.exit_code;
            let silent = || format!("container {} ended without a message ({reason}, exit code {code})", self.name);
            return said.unwrap_or_else(|| Failure { message: silent(), ..Failure::unknown() });
        }
        let limit = self.memory_limit.map(|it| format!(" of {}", it.0)).unwrap_or_default();
        let said = said.map(|it| format!(": {}", it.message)).unwrap_or_default();
        let message = format!("{}: container {} reached its memory limit{limit}{said}", Code::OutOfMemory, self.name);
        Failure {
            code: Code::OutOfMemory,
            message: message.chars().take(MESSAGE_MAX_CHARACTERS).collect(),
            revision: None,
        }
    }
}

/// The container that ended last, of those that failed or left a message. Of containers that ended in the same second, the later one
/// in the pod counts.
fn newest(pods: &[Pod]) -> Option<Finished<'_>> {
    pods.iter().flat_map(finished).max_by_key(|it| it.state.finished_at.as_ref().map(|time| time.0))
}

fn finished(pod: &Pod) -> impl Iterator<Item = Finished<'_>> {
    let statuses = pod.status.iter().flat_map(|status| {
        let first = status.init_container_statuses.iter().flatten();
        first.chain(status.container_statuses.iter().flatten())
    });
    statuses.filter_map(|status| {
        let state = status.state.as_ref()?.terminated.as_ref()?;
        let counts = state.exit_code != 0 || state.message.is_some();
        counts.then(|| Finished { name: &status.name, state, memory_limit: memory_limit(pod, &status.name) })
    })
}

fn memory_limit<'a>(pod: &'a Pod, container: &str) -> Option<&'a Quantity> {
    let spec = pod.spec.as_ref()?;
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.find(|it| it.name == container)?.resources.as_ref()?.limits.as_ref()?.get("memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_ten_seconds_to_five_minutes() {
        let seconds: Vec<u64> = (1..5).map(|failures| wait_after(failures).as_secs()).collect();
        assert_eq!(seconds, [10, 50, 250, 300]);
    }

    /// The conditions of a Job that cannot start report nothing until its deadline.
    #[test]
    fn a_job_that_cannot_start_has_a_report() {
        let at = |seconds: i64, status: serde_json::Value, with_steps: bool| {
            let job = serde_json::json!({"status": status,
                "metadata": {"name": "shop-init", "creationTimestamp": "1970-01-01T00:00:00Z"}});
            let job: DynamicObject = serde_json::from_value(job).expect("a Job");
            match begin(&job, with_steps, Timestamp::from_second(seconds).expect("a time")) {
                Begin::Begun => "begun".to_owned(),
                Begin::Soon(left) => left.as_secs().to_string(),
                Begin::Stuck(why) => why.split(" (").next().unwrap_or_default().to_owned(),
            }
        };
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        let refused = json("{}");
        assert_eq!(at(5, refused.clone(), false), "15");
        assert_eq!(at(20, refused.clone(), true), "its pod cannot be created");
        let pending = json(r#"{"active": 1, "ready": 0}"#);
        assert_eq!(at(20, pending.clone(), false), "40");
        assert_eq!(at(60, pending.clone(), false), "its pod does not start");
        assert_eq!(at(60, pending, true), "begun", "its first steps may take long");
        for begun in [
            r#"{"active": 1, "ready": 1}"#,
            r#"{"failed": 1}"#,
            r#"{"uncountedTerminatedPods": {"succeeded": ["u"]}}"#,
            r#"{"conditions": [{"type": "Complete", "status": "True"}]}"#,
        ] {
            assert_eq!(at(3600, json(begun), false), "begun", "{begun}");
        }
    }

    #[test]
    fn the_apps_of_an_image_are_read_from_the_runners_result() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"status": {"containerStatuses": [{
            "name": "configure", "image": "i", "imageID": format!("r.com/i@sha256:{}", "0".repeat(64)), "ready": false,
            "restartCount": 0, "state": {"terminated": {"exitCode": 0, "message": r#"{"result": {"apps": ["erpnext", "frappe"],
                "code": {"frappe": {"version": "15.2.0", "schema": "0f"}, "erpnext": {"schema": "1e"}}}}"#}},
        }]}}))
        .expect("a pod");
        let found = inspection(&[pod]).expect("a result");
        assert_eq!(found.apps, ["erpnext", "frappe"]);
        assert_eq!(found.digest, Some(format!("sha256:{}", "0".repeat(64))));
        let code = |name: &str, version: Option<&str>, schema: &str| AppCode {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            schema: Some(schema.to_owned()),
        };
        assert_eq!(found.code, [code("erpnext", None, "1e"), code("frappe", Some("15.2.0"), "0f")]);
        assert_eq!(inspection(&[]), None);
    }

    /// A result may be a single word; fields that it lacks are empty.
    #[test]
    fn a_result_may_be_a_word() {
        let whole = Success { bytes: Some(7), ..Success::default() };
        for (message, wanted) in [
            (r#"{"result": "restored"}"#, Some(Success::default())),
            (r#"{"result": {"bytes": 7, "of another version": []}}"#, Some(whole)),
            (r#"{"result": null}"#, None),
            (r#"{"step": "state", "code": "SiteLocked", "error": "no"}"#, None),
            ("Error", None),
        ] {
            let succeeded = match Ended::parse(message) {
                Ended::Succeeded(result) => Some(result),
                Ended::Failed(_) => None,
            };
            assert_eq!(succeeded, wanted, "{message}");
        }
    }

    /// A failed Job of a pod whose containers have these states.
    fn failure_of(status: &serde_json::Value, conditions: &serde_json::Value) -> Option<Failure> {
        let limited = serde_json::json!({"name": "init", "resources": {"limits": {"memory": "2Gi"}}});
        let pod = serde_json::json!({"spec": {"containers": [limited]}, "status": status});
        let job = serde_json::json!({"metadata": {"name": "shop-init"}, "status": {"conditions": conditions}});
        failure(&serde_json::from_value(job).expect("a Job"), &[serde_json::from_value(pod).expect("a pod")])
    }

    fn container(name: &str, terminated: &serde_json::Value) -> serde_json::Value {
        let state = serde_json::json!({"terminated": terminated});
        serde_json::json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state})
    }

    /// The container that is killed leaves no message, or the end of its log.
    #[test]
    fn what_killed_a_job_is_named() {
        let killed = |reason: &str, message: Option<&str>| {
            let ended = serde_json::json!({"exitCode": 137, "reason": reason, "message": message, "finishedAt": "1970-01-01T00:00:09Z"});
            let before = serde_json::json!({"exitCode": 0, "message": "{\"result\": \"ok\"}", "finishedAt": "1970-01-01T00:00:05Z"});
            let status = serde_json::json!({"initContainerStatuses": [container("first", &before)],
                "containerStatuses": [container("init", &ended)]});
            failure_of(&status, &serde_json::json!([])).map(|it| (it.code, it.message))
        };
        let at_limit = "OutOfMemory: container init reached its memory limit of 2Gi";
        assert_eq!(killed("OOMKilled", None), Some((Code::OutOfMemory, at_limit.to_owned())));
        let said = r#"{"step": "migrate", "code": "CommandFailed", "error": "exit code -9"}"#;
        let both = format!("{at_limit}: step migrate: CommandFailed: exit code -9");
        assert_eq!(killed("OOMKilled", Some(said)), Some((Code::OutOfMemory, both)));
        let silent = "container init ended without a message (Error, exit code 137)";
        assert_eq!(killed("Error", Some(" ")), Some((Code::Unknown, silent.to_owned())));
    }

    #[test]
    fn what_kubernetes_ended_is_named() {
        let message = |status: &serde_json::Value, conditions: &serde_json::Value| {
            failure_of(status, conditions).map(|it| it.message)
        };
        let evicted =
            serde_json::json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"});
        assert_eq!(message(&evicted, &serde_json::json!([])).as_deref(), Some("Evicted: The node was low on memory"));
        let late = |reason: &str| {
            let told =
                serde_json::json!([{"type": "Failed", "status": "True", "reason": reason, "message": "too long"}]);
            message(&serde_json::json!({}), &told)
        };
        assert_eq!(late("DeadlineExceeded").as_deref(), Some("too long"));
        assert_eq!(late("BackoffLimitExceeded"), None);
    }

    #[test]
    fn the_runners_error_is_shown_without_json() {
        let said = r#"{"step": "new-site", "code": "CommandFailed", "error": "no"}"#;
        let ended = container("init", &serde_json::json!({"exitCode": 30, "message": said}));
        let found = failure_of(&serde_json::json!({"containerStatuses": [ended]}), &serde_json::json!([]));
        let message = "step new-site: CommandFailed: no".to_owned();
        assert_eq!(found, Some(Failure { code: Code::CommandFailed, message, revision: None }));
        let unknown = |message: &str| Failure { code: Code::Unknown, message: message.to_owned(), revision: None };
        assert_eq!(Failure::parse("Evicted: "), unknown("Evicted: "), "the kubelet's");
        assert_eq!(Failure::parse(r#"{"step": "a", "error": "b"}"#), unknown("step a: b"), "another version's");
    }
}
