//! Command line and environment. What may change while the operator runs is in the ConfigMap (`config.rs`) instead.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use kube_sharding::timing::Timing;

/// Runs Frappe and ERPNext on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "frappe-operator", version, about, long_about = None)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator until it is told to stop.
    Run(Box<RunArguments>),
    /// Show which replica owns what.
    Shards(ShardsArguments),
    /// Show benches and sites: how many there are of each reason, and those that wait, the longest first.
    Status(StatusArguments),
    /// Say what a site or a bench waits for, since when, and what to do.
    Why(WhyArguments),
    /// Say what the cluster lacks: versions, CRDs, other operators, rights, storage, replicas.
    Check(CheckArguments),
    /// Print the objects that a bench is made of, without a cluster.
    Render(RenderArguments),
    /// Print the CustomResourceDefinitions of this version.
    Crds,
    /// Print the ValidatingAdmissionPolicy that has the API server refuse writes of replicas that lost their slots.
    AdmissionFence(FenceArguments),
    /// Carry a backup between a Job's pod and where it is kept: the Jobs of backups and restores run this.
    Transfer(TransferArguments),
    /// Print completions for a shell: `source <(frappe-operator completions bash)`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What to carry.
#[derive(Clone, Debug, Args)]
pub struct TransferArguments {
    /// What to do, as JSON without a secret: docs/backups.md.
    pub request: String,
    /// Folder of the backup on its way.
    #[arg(long, default_value = crate::transfer::STAGING)]
    pub staging: std::path::PathBuf,
    /// Folder with accessKey, secretKey, sessionToken and ca.crt of a bucket, as far as they are needed.
    #[arg(long, default_value = crate::transfer::CREDENTIALS)]
    pub credentials: std::path::PathBuf,
    /// Where the volume that backups are kept on is mounted.
    #[arg(long, default_value = crate::transfer::VOLUME)]
    pub volume: std::path::PathBuf,
    /// Where the result is left for the operator.
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: std::path::PathBuf,
}

/// Which benches and sites to show.
#[derive(Clone, Debug, Args)]
pub struct StatusArguments {
    /// Only those of this namespace.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// Only this bench and its sites: NAME in the namespace default, or NAMESPACE/NAME.
    #[arg(long)]
    pub bench: Option<String>,
    /// Show those too that wait for nothing.
    #[arg(long, short)]
    pub all: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What to explain.
#[derive(Clone, Debug, Args)]
pub struct WhyArguments {
    /// The site: NAME in the namespace default, or NAMESPACE/NAME.
    pub name: String,
    /// It is a bench, not a site.
    #[arg(long)]
    pub bench: bool,
    /// Namespace of the operator.
    #[arg(long, default_value = "frappe-operator-system")]
    pub operator_namespace: String,
}

/// Whose installation to check.
#[derive(Clone, Debug, Args)]
pub struct CheckArguments {
    /// Namespace of the operator.
    #[arg(long, default_value = "frappe-operator-system")]
    pub operator_namespace: String,
    /// ServiceAccount of the operator, in that namespace: its rights are asked for.
    #[arg(long, default_value = "frappe-operator")]
    pub service_account: String,
    /// Namespaces that the operator looks after, where it does not look after all.
    #[arg(long, value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// An API that a cluster may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OptionalApi {
    /// KEDA.
    Keda,
    /// The Prometheus operator's ServiceMonitor.
    ServiceMonitor,
    /// OpenShift.
    Openshift,
}

/// What to render.
#[derive(Clone, Debug, Args)]
pub struct RenderArguments {
    /// File with one FrappeBench or several; `-` for standard input. Other objects in it are passed over.
    #[arg(long, short)]
    pub file: std::path::PathBuf,
    /// File with the ConfigMap frappe-operator-config.
    #[arg(long)]
    pub config: Option<std::path::PathBuf>,
    /// APIs that the cluster is to have.
    #[arg(long, value_delimiter = ',')]
    pub with: Vec<OptionalApi>,
    /// Namespace of a bench that names none.
    #[arg(long, short, default_value = "default")]
    pub namespace: String,
}

/// What to show of the shards.
#[derive(Clone, Debug, Args)]
pub struct ShardsArguments {
    /// Namespace of the operator.
    #[arg(long, env = "POD_NAMESPACE", default_value = "frappe-operator-system")]
    pub namespace: String,
    /// Show it again whenever it changes, until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// A question instead of the table.
    #[command(subcommand)]
    pub question: Option<ShardsQuestion>,
}

/// A question about the shards.
#[derive(Clone, Debug, Subcommand)]
pub enum ShardsQuestion {
    /// Which replica owns a site, so whose logs to read.
    Owner {
        /// The site: NAME in the namespace default, or NAMESPACE/NAME.
        site: String,
    },
}

/// Whom the fence is for.
#[derive(Clone, Debug, Args)]
pub struct FenceArguments {
    /// Namespace of the operator.
    #[arg(long, env = "POD_NAMESPACE", default_value = "frappe-operator-system")]
    pub namespace: String,
    /// ServiceAccount of the operator, in that namespace.
    #[arg(long, default_value = "frappe-operator")]
    pub service_account: String,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Settings of the process.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// Namespace of the operator: of its ConfigMap frappe-operator-config, its Leases and its slot map.
    #[arg(long, env = "POD_NAMESPACE", default_value = "frappe-operator-system")]
    pub namespace: String,
    /// Name of the pod: of the replica, of its Lease, and the source of Events. Made up where it is missing.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// uid of the pod. A restarted container of the same pod takes its Lease over at once.
    #[arg(long, env = "POD_UID")]
    pub pod_uid: Option<String>,
    /// pod-template-hash of the pod: in a rollout, slots move to the newest only, so about once.
    #[arg(long, env = "POD_TEMPLATE_HASH", default_value = "")]
    pub pod_template_hash: String,
    /// Address of /metrics, /healthz, /readyz and /shards.
    #[arg(long, env = "METRICS_BIND_ADDRESS", default_value = "0.0.0.0:8080")]
    pub metrics_bind_address: SocketAddr,
    /// How long other replicas wait, without a renewal of this one's Lease, before they take its slots over.
    #[arg(long, env = "LEASE_DURATION", default_value = "15s", value_parser = duration)]
    pub lease_duration: Duration,
    /// Time from one renewal of the Lease to the next.
    #[arg(long, env = "LEASE_RENEW_INTERVAL", default_value = "3s", value_parser = duration)]
    pub lease_renew_interval: Duration,
    /// Most reconciles of sites at once in this process, over all benches: bounds its memory.
    #[arg(long, env = "SITE_RECONCILES_MAX", default_value_t = 64)]
    pub site_reconciles_max: usize,
    /// Most reconciles of benches at once.
    #[arg(long, env = "BENCH_RECONCILES_MAX", default_value_t = 4)]
    pub bench_reconciles_max: usize,
    /// Log level, or a filter such as `info,frappe_operator=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info", alias = "zap-log-level")]
    pub log_level: String,
    /// How logs are written.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Image of this program, which the Jobs of backups run. Without it there are no backups.
    #[arg(long, env = "OPERATOR_IMAGE")]
    pub image: Option<String>,
    /// Namespaces whose benches, sites and MariaDB objects are looked after; all if none is given.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// For tests: abort when the answer to this many writes has arrived.
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
            return Err(format!("--watch-namespaces has {twice:?} twice, or empty"));
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
