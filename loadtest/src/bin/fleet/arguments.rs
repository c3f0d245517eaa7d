//! The options of the command line.

use std::path::PathBuf;

use clap::Parser;

/// Measures the resource usage of replicas and their behaviour with faults.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Arguments {
    /// The program frappe-operator.
    #[arg(long)]
    pub(crate) operator: PathBuf,
    /// Number of sites to create.
    #[arg(long, default_value_t = 2000)]
    pub(crate) sites: usize,
    /// Number of benches.
    #[arg(long, default_value_t = 10)]
    pub(crate) benches: usize,
    /// Number of replicas to scale to.
    #[arg(long, default_value_t = 5)]
    pub(crate) members: usize,
    /// Edits of sites per second.
    #[arg(long, default_value_t = 50)]
    pub(crate) edits_per_second: u32,
    /// Seconds for which resource usage is measured.
    #[arg(long, default_value_t = 40)]
    pub(crate) cost_seconds: u64,
    /// Run only the scenarios whose names contain this.
    #[arg(long, default_value = "")]
    pub(crate) only: String,
    /// Feature gates of the API server, such as ShardedListAndWatch=true.
    #[arg(long)]
    pub(crate) feature_gates: Option<String>,
}
