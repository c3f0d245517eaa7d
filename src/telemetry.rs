//! Logs: one line for each thing that happened, as JSON or as text. Secrets are never logged.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::cli::{LogFormat, RunArguments};

/// The client library, in the names of what it logs.
const CLIENT: &str = "kube_client";

/// Starts logging to standard error. A filter that cannot be read is replaced by `info`.
pub fn init(arguments: &RunArguments) {
    let filter = filter(&arguments.log_level);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    // Each record of the other facade becomes a record of this one, whose filter decides.
    log::set_max_level(if filter.max_level_hint() >= Some(LevelFilter::DEBUG) {
        log::LevelFilter::Debug
    } else {
        log::LevelFilter::Warn
    });
    let subscriber = subscriber(arguments.log_format, filter, colour, std::io::stderr);
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        // No one else may have set one: this is the process's first act.
        let _ = log::set_logger(&Libraries);
    }
}

/// The filter for a level. The client library warns of each answer that is no object, such as the one for an API that does not exist;
/// the operator reports its own errors. With `debug`, or by its name, it speaks as well.
fn filter(level: &str) -> EnvFilter {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let quiet = filter.max_level_hint() < Some(LevelFilter::DEBUG) && !level.contains(CLIENT);
    match format!("{CLIENT}=error").parse() {
        Ok(directive) if quiet => filter.add_directive(directive),
        _ => filter,
    }
}

/// Writes lines of this format; below `info` each also says where in the program it comes from.
fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    colour: bool,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let verbose = filter.max_level_hint() >= Some(LevelFilter::DEBUG);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(writer);
    match format {
        LogFormat::Json => Box::new(lines.json().flatten_event(true).with_current_span(false).finish()),
        LogFormat::Text => Box::new(lines.with_target(verbose).finish()),
    }
}

/// What libraries say by way of the crate `log`, such as the election's crate: their warnings as they are, all else at
/// debug, and never the path of their source.
struct Libraries;

impl log::Log for Libraries {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        let (library, message) = (record.target(), record.args());
        match record.level() {
            log::Level::Error | log::Level::Warn => tracing::warn!(library, "{message}"),
            _ => tracing::debug!(library, "{message}"),
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use log::Log as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics while it writes").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged at this level while the election's crate speaks, and this program.
    fn logged(format: LogFormat, level: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(format, filter(level), false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let say = |level, message: &str| {
                let target = "kube_leader_election::lease";
                let file = Some("/registry/src/kube-leader-election/src/lease.rs");
                let arguments = format_args!("{message}");
                Libraries.log(&log::Record::builder().level(level).target(target).file(file).args(arguments).build());
            };
            say(log::Level::Info, "lease is held by another");
            say(log::Level::Warn, "lease is broken");
            tracing::warn!(target: "kube_client::client", "Unsuccessful data error parse: 404 page not found");
            tracing::info!(object = "FrappeSite shops/one", reason = "Ready", "served");
        });
        let bytes = lines.0.lock().expect("no test panics while it writes").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn messages_of_the_election_are_debug_and_no_line_has_a_path() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let text = logged(format, "info");
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(!text.contains("held by another") && text.contains("lease is broken"), "{text}");
            assert!(!text.contains("404 page not found"), "{text}");
            assert!(logged(format, "info,kube_client=warn").contains("404 page not found"));
            let text = logged(format, "debug");
            assert_eq!(text.lines().count(), 4, "{text}");
            assert!(text.contains("held by another") && !text.contains("lease.rs"), "{text}");
        }
    }

    #[test]
    fn a_line_is_one_json_object_or_a_sentence_with_its_fields() {
        let text = logged(LogFormat::Json, "info");
        let line: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
        assert_eq!(line["message"], "served");
        assert_eq!([&line["level"], &line["object"], &line["reason"]], ["INFO", "FrappeSite shops/one", "Ready"]);
        let text = logged(LogFormat::Text, "info");
        let line = text.lines().last().expect("a line");
        assert!(line.contains("INFO served object=\"FrappeSite shops/one\" reason=\"Ready\""), "{line}");
    }
}
