//! SiteJob: a command, a method or a script that is run once for a site.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::LocalReference;

/// What to run for a site, once.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "vyogo.tech",
    version = "v1alpha1",
    kind = "SiteJob",
    plural = "sitejobs",
    shortname = "sj",
    category = "frappe",
    namespaced,
    status = "SiteJobStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A SiteJob is a command of Frappe, a method or a script that is run for a site, once.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name of a SiteJob may have at most 63 characters"),
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.siteRef.name"),
    printcolumn(name = "Command", type_ = "string", json_path = ".spec.command.name"),
    printcolumn(name = "Method", type_ = "string", json_path = ".spec.method.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Exit", type_ = "integer", json_path = ".status.exitCode"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.command), has(self.method), has(self.script)].filter(it, it).size() == 1").message("set exactly one of command, method and script"),
    validation = Rule::new("has(self.command) == has(oldSelf.command) && has(self.method) == has(oldSelf.method) && has(self.script) == has(oldSelf.script) && (!has(self.command) || self.command == oldSelf.command) && (!has(self.method) || self.method == oldSelf.method) && (!has(self.script) || self.script == oldSelf.script)").message("command, method and script cannot be changed: create another SiteJob"),
    validation = Rule::new("has(self.maintenance) == has(oldSelf.maintenance) && (!has(self.maintenance) || self.maintenance == oldSelf.maintenance) && has(self.timeoutSeconds) == has(oldSelf.timeoutSeconds) && (!has(self.timeoutSeconds) || self.timeoutSeconds == oldSelf.timeoutSeconds) && has(self.captureOutput) == has(oldSelf.captureOutput) && (!has(self.captureOutput) || self.captureOutput == oldSelf.captureOutput) && has(self.outputLimitBytes) == has(oldSelf.outputLimitBytes) && (!has(self.outputLimitBytes) || self.outputLimitBytes == oldSelf.outputLimitBytes)").message("of a SiteJob only suspend and ttlSecondsAfterFinished can be changed: create another one")
)]
pub struct SiteJobSpec {
    /// The site, in the same namespace. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("siteRef cannot be changed: create another SiteJob"))]
    pub site_ref: LocalReference,
    /// A command of Frappe, as of `bench --site SITE COMMAND`. Only commands that change nothing but the site itself are allowed; the
    /// operator's setting `allowedSiteCommands` adds others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<JobCommand>,
    /// A Python function that is called with a connection to the site's database. Requires the right to `create` the resource
    /// `sitejobs/script`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<JobMethod>,
    /// A Python script that is run with a connection to the site's database. Requires the right to `create` the resource
    /// `sitejobs/script`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<JobScript>,
    /// Whether the site is in maintenance mode while it runs. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<bool>,
    /// Longest time in seconds that it may run. Default: 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout_seconds: Option<i32>,
    /// Seconds after its end at which the SiteJob is deleted, with its output. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i32>,
    /// If true, it does not start. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Whether output and result are shown: in the log of the pod and, their end, in the status. Default: Tail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_output: Option<CaptureOutput>,
    /// How many bytes of the output are written to the log of the pod. Default: 1048576.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16_777_216))]
    pub output_limit_bytes: Option<i32>,
}

/// A command of Frappe with its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.args) || self.args.map(it, it.size()).sum() <= 8192").message("args may have at most 8192 characters in all"))]
pub struct JobCommand {
    /// Name of the command, such as `clear-cache`.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][a-z0-9-]*$')").message("command.name must be the name of a command: lower-case letters, digits and hyphens"))]
    pub name: String,
    /// Its arguments, as they are: no shell reads them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 2048)))]
    #[x_kube(
        validation = Rule::new(r"self.all(it, !it.matches('[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x{9f}]'))").message("args must have no control characters, except tabs and line feeds"),
        validation = Rule::new("self.all(it, it != '--site' && !it.startsWith('--site='))").message("args must not contain --site: the site is siteRef")
    )]
    pub args: Vec<String>,
}

/// A Python function with its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobMethod {
    /// Path of the function, such as `frappe.utils.now`.
    #[schemars(length(min = 3, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)+$')").message("method.name must be the path of a Python function, such as frappe.utils.now"))]
    pub name: String,
    /// Its arguments by position: a list as JSON, as of `bench execute --args`, such as `["Customer", 10]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 8192))]
    #[x_kube(validation = Rule::new(r"self.matches('^[ \\t\\n]*\\[')").message("method.args must be a list as JSON, such as [1, \"a\"]"))]
    pub args: Option<String>,
    /// Its arguments by name: an object as JSON, as of `bench execute --kwargs`, such as `{"doctype": "Customer"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 8192))]
    #[x_kube(validation = Rule::new(r"self.matches('^[ \\t\\n]*\\{')").message("method.kwargs must be an object as JSON, such as {\"a\": 1}"))]
    pub kwargs: Option<String>,
}

/// A Python script.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobScript {
    /// Key of a ConfigMap in the same namespace. The user who creates the SiteJob must be allowed to `get` it.
    pub config_map_ref: ConfigMapKeyReference,
    /// SHA-256 of the script, in hexadecimal digits: another text is not run. Default: the text that the ConfigMap has when it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{64}$')").message("sha256 must be 64 hexadecimal digits in lower case"))]
    pub sha256: Option<String>,
}

/// Key of a ConfigMap in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ConfigMapKeyReference {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && self != '..'").message("key must be a key of a ConfigMap: letters, digits, -, _ and ."))]
    pub key: String,
}

/// What is shown of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaptureOutput {
    /// The beginning in the log of the pod, the end in the status. Secrets of the site's configuration are removed.
    #[default]
    Tail,
    /// Nothing.
    None,
}

/// Phase of a SiteJob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JobPhase {
    /// It has not started.
    #[default]
    Pending,
    /// Its Job is running.
    Running,
    /// It has succeeded.
    Succeeded,
    /// It has failed, or is refused.
    Failed,
}

/// Observed state of the SiteJob.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteJobStatus {
    /// Phase.
    #[serde(default)]
    pub phase: JobPhase,
    /// Conditions, each with the generation it was observed at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How it ended. It is never run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<JobOutcome>,
    /// Exit code of the process; negative if a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// End of what it printed, without secrets of the site's configuration: about 3000 bytes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Whether more was printed than `output` has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_truncated: Option<bool>,
    /// What the method returned, as JSON of at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Name of the Job, in the namespace of the bench.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Message about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// How a SiteJob ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobOutcome {
    /// Whether it succeeded.
    pub state: JobOutcomeState,
    /// Code of the failure (docs/troubleshooting.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Message, without any output.
    pub message: String,
    /// When it ended.
    pub finished_at: Time,
}

/// Whether a SiteJob succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JobOutcomeState {
    /// Its process ended with exit code 0.
    Succeeded,
    /// It failed.
    Failed,
}

/// A running SiteJob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobOperation {
    /// Name of the SiteJob.
    pub site_job: String,
    /// UID of the SiteJob.
    pub site_job_uid: String,
    /// Time at which the operation was recorded.
    pub started_at: Time,
    /// 1 for the run itself. Later Jobs only end the maintenance mode that an interrupted run has left.
    pub attempt: i32,
    /// Epoch of the slot's owner that recorded the operation.
    pub epoch: i64,
}
