//! Logs: JSON or text, filtered by level.

use tracing_subscriber::EnvFilter;

use crate::cli::{LogFormat, RunArguments};

/// Starts logging. A filter that cannot be read is replaced by `info`.
pub fn init(arguments: &RunArguments) {
    let filter = EnvFilter::try_new(&arguments.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Json => logs.json().flatten_event(true).init(),
        LogFormat::Text => logs.init(),
    }
}
