//! Command line and environment. What may change while the operator runs is in the ConfigMap (`config.rs`) instead.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValue};
use kube_sharding::timing::Timing;

pub use self::verbs::{BackupArguments, CreateArguments, ExecArguments, LogsArguments, OutputFormat, RestoreArguments};
use crate::domain::capabilities::Api;

mod verbs;

/// Kubernetes operator for Frappe and ERPNext: the operator itself (`run`), and commands to inspect it.
#[derive(Debug, Parser)]
#[command(name = "frappe-operator", version, about, long_about = None)]
pub struct Cli {
    /// Command to run.
    #[command(subcommand)]
    pub command: Command,
    /// Which cluster and namespace.
    #[command(flatten)]
    pub target: TargetArguments,
}

/// Which cluster and namespace a command means: kubectl's own flags, before or after the command.
#[derive(Clone, Debug, Default, Args)]
pub struct TargetArguments {
    /// Namespace of names without one; default: that of the context.
    #[arg(long, short, global = true)]
    pub namespace: Option<String>,
    /// Context of the kubeconfig; default: its current one.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Path of the kubeconfig; default: as kubectl's.
    #[arg(long, global = true, value_hint = clap::ValueHint::FilePath)]
    pub kubeconfig: Option<std::path::PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Box<RunArguments>),
    /// List the operator's replicas and the share of the sites that each one owns.
    Shards(ShardsArguments),
    /// List benches, sites and SiteBackups that are not as they should be, longest-waiting first, with counts by reason, versions and rollouts.
    Status(StatusArguments),
    /// Explain why a site or bench is not ready, since when, and what to do about it.
    Why(WhyArguments),
    /// Show how far the sites of a bench are on their way to another image, and pause, resume, promote or abort that.
    Rollout(RolloutArguments),
    /// Set another tag of a bench's image, and wait until its sites have followed if asked.
    Update(UpdateArguments),
    /// Migrate a site now, also one that is up to date, whatever its policy, waves and windows say.
    Migrate(MigrateArguments),
    /// Run a command of Frappe, a method or a script for a site, and print its output.
    Exec(ExecArguments),
    /// Back up a site now, to the storage of its scheduled backups.
    Backup(BackupArguments),
    /// Restore a backup of a SiteBackup into a site.
    Restore(RestoreArguments),
    /// Print the logs of a site's Jobs, or of the pods of a bench.
    Logs(LogsArguments),
    /// Check that the cluster has what the operator needs: versions, CRDs, permissions, storage, other operators.
    Check(CheckArguments),
    /// Print the Kubernetes objects that the operator creates for a bench; needs no cluster.
    Render(RenderArguments),
    /// Print the CustomResourceDefinitions of this version as YAML.
    Crds,
    /// Print the optional ValidatingAdmissionPolicy that rejects late writes of replicas that have lost their slots.
    AdmissionFence(FenceArguments),
    /// Print the ValidatingAdmissionPolicies that let users reference only Secrets, MariaDBs, volumes and ServiceAccounts that they may use.
    AdmissionReferences,
    /// Upload or download a backup. Run by the operator's backup and restore Jobs, not by users.
    Transfer(TransferArguments),
    /// Print shell completions; for example `source <(frappe-operator completions bash)`.
    Completions {
        /// Shell to print completions for.
        shell: clap_complete::Shell,
    },
}

/// Arguments of `transfer`.
#[derive(Clone, Debug, Args)]
pub struct TransferArguments {
    /// The request, as JSON without secrets; see docs/backups.md.
    pub request: String,
    /// Directory that holds the backup during the transfer.
    #[arg(long, default_value = crate::transfer::request::STAGING)]
    pub staging: std::path::PathBuf,
    /// Directory with the files accessKey, secretKey, sessionToken and ca.crt of the bucket, as needed.
    #[arg(long, default_value = crate::transfer::request::CREDENTIALS)]
    pub credentials: std::path::PathBuf,
    /// Mount path of the volume that stores backups.
    #[arg(long, default_value = crate::transfer::request::VOLUME)]
    pub volume: std::path::PathBuf,
    /// File for the result, which the operator reads.
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: std::path::PathBuf,
}

/// Arguments of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArguments {
    /// List only this namespace; default: all namespaces.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// List only this bench with its sites and their SiteBackups: NAME or NAMESPACE/NAME.
    #[arg(long)]
    pub bench: Option<String>,
    /// Also list ready benches and sites, and good SiteBackups.
    #[arg(long, short)]
    pub all: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `why`.
#[derive(Clone, Debug, Args)]
pub struct WhyArguments {
    /// The site, or the bench with --bench: NAME or NAMESPACE/NAME.
    pub name: String,
    /// Explain a bench instead of a site.
    #[arg(long)]
    pub bench: bool,
    /// Namespace of the operator.
    #[arg(long, default_value = "frappe-operator-system")]
    pub operator_namespace: String,
}

/// Arguments of `rollout`.
#[derive(Clone, Debug, Args)]
pub struct RolloutArguments {
    /// The bench: NAME or NAMESPACE/NAME.
    pub bench: String,
    /// What to show or do.
    #[command(subcommand)]
    pub verb: RolloutVerb,
    /// Change nothing: the API server only checks the change.
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Print the state as JSON, and change nothing.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `rollout` shows or does.
#[derive(Clone, Debug, Subcommand)]
pub enum RolloutVerb {
    /// Show phase, wave, numbers of sites, and those that failed.
    Status,
    /// List the bench's revisions.
    History,
    /// Let no further site move (`updateStrategy.paused: true`).
    Pause,
    /// Let sites move again.
    Resume,
    /// Go on now: without waiting for the next wave, after the canary, or despite failures.
    Promote {
        /// Let all sites move at once.
        #[arg(long)]
        full: bool,
    },
    /// Let no further site move, and leave each where it is. Remove the annotation `frappe.vyogo.tech/abort` to go on.
    Abort,
    /// Set the image before the newest one: sites that were not migrated move to it.
    Undo {
        /// Undo the last update of this site instead, by the dump of before: what was written to it since is lost.
        #[arg(long)]
        site: Option<String>,
    },
}

/// Arguments of `update`.
#[derive(Clone, Debug, Args)]
pub struct UpdateArguments {
    /// The bench: NAME or NAMESPACE/NAME.
    pub bench: String,
    /// Tag of the image (`imageConfig.tag`).
    #[arg(long)]
    pub image_tag: String,
    /// Wait until the image is rolled out and the sites have followed; fail if a user must decide.
    #[arg(long)]
    pub wait: bool,
    /// Change nothing: the API server only checks the change.
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `migrate`.
#[derive(Clone, Debug, Args)]
pub struct MigrateArguments {
    /// The site: NAME or NAMESPACE/NAME.
    pub site: String,
    /// Change nothing: the API server only checks the change.
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArguments {
    /// Namespace of the operator.
    #[arg(long, default_value = "frappe-operator-system")]
    pub operator_namespace: String,
    /// ServiceAccount of the operator, whose permissions to check.
    #[arg(long, default_value = "frappe-operator")]
    pub service_account: String,
    /// Namespaces the operator watches, separated by commas; default: all.
    #[arg(long, value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The optional APIs on which the objects of a bench depend.
impl ValueEnum for Api {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let row = self.row();
        row.render.map(|name| PossibleValue::new(name).help(row.title))
    }
}

/// Arguments of `render`.
#[derive(Clone, Debug, Args)]
pub struct RenderArguments {
    /// YAML file with one or more FrappeBenches, or `-` for standard input. Other objects in the file are ignored.
    #[arg(long, short)]
    pub file: std::path::PathBuf,
    /// YAML file with the ConfigMap frappe-operator-config; default: the operator's defaults.
    #[arg(long)]
    pub config: Option<std::path::PathBuf>,
    /// Optional APIs that the cluster has, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub with: Vec<Api>,
    /// Namespace of benches that set none.
    #[arg(long, short, default_value = "default")]
    pub namespace: String,
}

/// Arguments of `shards`.
#[derive(Clone, Debug, Args)]
pub struct ShardsArguments {
    /// Namespace of the operator.
    #[arg(long, env = "POD_NAMESPACE", default_value = "frappe-operator-system")]
    pub namespace: String,
    /// Print again on every change, until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Subcommand; default: print the table.
    #[command(subcommand)]
    pub question: Option<ShardsQuestion>,
}

/// Subcommands of `shards`.
#[derive(Clone, Debug, Subcommand)]
pub enum ShardsQuestion {
    /// Print the pod that owns a site.
    Owner {
        /// The site: NAME or NAMESPACE/NAME.
        site: String,
    },
}

/// Arguments of `admission-fence`.
#[derive(Clone, Debug, Args)]
pub struct FenceArguments {
    /// Namespace of the operator.
    #[arg(long, env = "POD_NAMESPACE", default_value = "frappe-operator-system")]
    pub namespace: String,
    /// ServiceAccount of the operator.
    #[arg(long, default_value = "frappe-operator")]
    pub service_account: String,
}

/// Format of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Plain text.
    Text,
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// Namespace of the operator, with its ConfigMap frappe-operator-config, Leases and slot map.
    #[arg(long, env = "POD_NAMESPACE", default_value = "frappe-operator-system")]
    pub namespace: String,
    /// Pod name; also replica, Lease and Event source name. Generated if unset.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Pod UID. A restarted container of the same pod reclaims its Lease at once. Generated if unset.
    #[arg(long, env = "POD_UID")]
    pub pod_uid: Option<String>,
    /// Value of the pod's label pod-template-hash. During a rollout, slots move only to pods of the newest revision.
    #[arg(long, env = "POD_TEMPLATE_HASH", default_value = "")]
    pub pod_template_hash: String,
    /// Address that serves /metrics, /healthz, /readyz and /shards.
    #[arg(long, env = "METRICS_BIND_ADDRESS", default_value = "0.0.0.0:8080")]
    pub metrics_bind_address: SocketAddr,
    /// Time without a renewal after which a Lease expires and other replicas take over the slots.
    #[arg(long, env = "LEASE_DURATION", default_value = "15s", value_parser = duration)]
    pub lease_duration: Duration,
    /// Interval between Lease renewals; at most two fifths of the Lease duration.
    #[arg(long, env = "LEASE_RENEW_INTERVAL", default_value = "3s", value_parser = duration)]
    pub lease_renew_interval: Duration,
    /// Maximum concurrent site reconciles in this replica, over all benches.
    #[arg(long, env = "SITE_RECONCILES_MAX", default_value_t = 64)]
    pub site_reconciles_max: usize,
    /// Maximum concurrent bench reconciles.
    #[arg(long, env = "BENCH_RECONCILES_MAX", default_value_t = 4)]
    pub bench_reconciles_max: usize,
    /// Log level (error, warn, info, debug, trace), or a filter such as `info,frappe_operator=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info", alias = "zap-log-level")]
    pub log_level: String,
    /// Log format.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Image of this operator, which backup Jobs run. Without it backups are disabled.
    #[arg(long, env = "OPERATOR_IMAGE")]
    pub image: Option<String>,
    /// Namespaces to watch for benches, sites and MariaDB objects, separated by commas; default: all.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// For tests: abort after this many writes.
    #[arg(long, env = "CRASH_AFTER_WRITES", hide = true)]
    pub crash_after_writes: Option<i64>,
}

impl RunArguments {
    /// Whether the settings fit each other.
    pub fn check(&self) -> Result<(), String> {
        let timing = Timing { lease_duration: self.lease_duration, ..Timing::default() };
        // Two renewals must fit in before a member stops.
        if self.lease_renew_interval.is_zero() || self.lease_renew_interval * 2 > timing.right() {
            return Err(format!(
                "--lease-renew-interval {:?} must be at most two fifths of --lease-duration {:?}",
                self.lease_renew_interval, self.lease_duration
            ));
        }
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = self.watch_namespaces.iter().find(|it| it.is_empty() || !seen.insert(*it)) {
            return Err(format!("--watch-namespaces must not contain {twice:?} twice, or an empty name"));
        }
        Ok(())
    }
}

/// Reads `15s`, `500ms` or `1m`.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a duration such as 15s"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(format!("{text:?} is not a duration such as 15s, 500ms or 1m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What only the operator itself or its installation runs.
    const NOT_FOR_USERS: [&str; 5] = ["run", "crds", "admission-fence", "admission-references", "transfer"];

    #[test]
    fn the_plugins_page_names_every_verb() {
        let page = include_str!("../docs/cli.md");
        for verb in <Cli as clap::CommandFactory>::command().get_subcommands().map(clap::Command::get_name) {
            let is_named = page.contains(&format!("`{verb}`")) || page.contains(&format!("kubectl frappe {verb} "));
            assert!(is_named || NOT_FOR_USERS.contains(&verb), "docs/cli.md does not name {verb}");
        }
    }

    #[test]
    fn namespace_and_context_may_stand_before_and_after_the_verb() {
        for words in [["-n", "shops", "why", "shop"], ["why", "shop", "-n", "shops"], ["why", "-n", "shops", "shop"]] {
            let cli = Cli::try_parse_from(["kubectl-frappe"].iter().chain(&words)).expect("words");
            assert_eq!(cli.target.namespace.as_deref(), Some("shops"), "{words:?}");
        }
        let words = ["kubectl-frappe", "exec", "shop", "--context", "live", "--", "doctor", "-n", "x"];
        let target = Cli::try_parse_from(words).expect("words").target;
        assert_eq!((target.context.as_deref(), target.namespace), (Some("live"), None));
    }

    #[test]
    fn the_guides_log_flag_is_understood() {
        let cli = Cli::try_parse_from(["frappe-operator", "run", "--zap-log-level=debug"]).expect("the guide's flag");
        let Command::Run(arguments) = cli.command else { panic!("another command") };
        assert_eq!(arguments.log_level, "debug");
    }

    #[test]
    fn a_lease_that_could_not_be_renewed_in_time_is_refused() {
        for (interval, fits) in [("3s", true), ("6s", true), ("7s", false), ("0s", false)] {
            let cli =
                Cli::try_parse_from(["frappe-operator", "run", "--lease-renew-interval", interval]).expect("flags");
            let Command::Run(arguments) = cli.command else { panic!("another command") };
            assert_eq!(arguments.check().is_ok(), fits, "{interval}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("15").is_err());
        assert!(duration("soon").is_err());
    }
}
