//! Arguments of the verbs that do something for one site.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Arguments of `exec`.
#[derive(Clone, Debug, Args)]
pub struct ExecArguments {
    /// The site: NAME or NAMESPACE/NAME.
    pub site: String,
    /// Python function to call instead of a command.
    #[arg(long, conflicts_with_all = ["script", "command"])]
    pub method: Option<String>,
    /// Arguments of the function by position, as a JSON list.
    #[arg(long, requires = "method", allow_hyphen_values = true)]
    pub args: Option<String>,
    /// Arguments of the function by name, as a JSON object.
    #[arg(long, requires = "method", allow_hyphen_values = true)]
    pub kwargs: Option<String>,
    /// File with a Python script to run instead of a command.
    #[arg(long, conflicts_with = "command")]
    pub script: Option<PathBuf>,
    /// Keep the site in maintenance mode meanwhile.
    #[arg(long)]
    pub maintenance: bool,
    /// Longest time that it may run, in seconds; default: 3600.
    #[arg(long)]
    pub timeout: Option<i32>,
    /// Keep nothing of the output.
    #[arg(long)]
    pub silent: bool,
    /// Seconds after its end at which the SiteJob is deleted.
    #[arg(long, default_value_t = 86_400)]
    pub ttl: i32,
    /// How it is created.
    #[command(flatten)]
    pub create: CreateArguments,
    /// The command with its arguments, after `--`.
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// How a verb creates the object that does its work.
#[derive(Clone, Debug, Args)]
pub struct CreateArguments {
    /// Name of the object; default: generated.
    #[arg(long)]
    pub name: Option<String>,
    /// Do not wait for its end.
    #[arg(long)]
    pub no_wait: bool,
    /// Create nothing: the API server only checks it.
    #[arg(long)]
    pub dry_run: bool,
    /// Print the object instead of what it did.
    #[arg(long, short)]
    pub output: Option<OutputFormat>,
}

/// Arguments of `backup`.
#[derive(Clone, Debug, Args)]
pub struct BackupArguments {
    /// The site: NAME or NAMESPACE/NAME.
    pub site: String,
    /// SiteBackup of the same namespace whose storage to use; default: that of the site with a schedule.
    #[arg(long, value_name = "SITEBACKUP")]
    pub like: Option<String>,
    /// How it is created.
    #[command(flatten)]
    pub create: CreateArguments,
}

/// Arguments of `restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArguments {
    /// The site: NAME or NAMESPACE/NAME. If the backup is of another site, it becomes a copy of that.
    pub site: String,
    /// SiteBackup of the same namespace that made the backup.
    #[arg(long, value_name = "SITEBACKUP")]
    pub from: String,
    /// Name of the backup, as in the history of the SiteBackup; default: its newest successful one.
    #[arg(long)]
    pub backup: Option<String>,
    /// Restore only the database.
    #[arg(long, conflicts_with = "files_only")]
    pub database_only: bool,
    /// Restore only the files.
    #[arg(long)]
    pub files_only: bool,
    /// Do not back up the site's present state before.
    #[arg(long)]
    pub no_safety_backup: bool,
    /// How it is created.
    #[command(flatten)]
    pub create: CreateArguments,
}

/// Arguments of `logs`.
#[derive(Clone, Debug, Args)]
pub struct LogsArguments {
    /// The site, whose newest Job is meant, or the bench with --bench: NAME or NAMESPACE/NAME.
    pub name: String,
    /// Logs of the bench's pods.
    #[arg(long)]
    pub bench: bool,
    /// Only pods of this component, such as `gunicorn`, or `init` for the Job that creates a site.
    #[arg(long, short)]
    pub component: Option<String>,
    /// Go on with what is logged from now on, until the pods end.
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the last lines of each container; default: all.
    #[arg(long)]
    pub tail: Option<i64>,
}

/// Format of an object that is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// JSON.
    Json,
}
