//! Shared by the commands: a client, and output.

use std::io::Write as _;

use anyhow::Context as _;
use kube::Client;

use crate::{cli::TargetArguments, domain::key::Key, io::client};

/// Prints to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The cluster that a command means, and the namespace of names without one.
pub(crate) struct Cluster {
    /// A client of it.
    pub(crate) client: Client,
    namespace: String,
}

impl Cluster {
    /// NAME in the namespace of the command line or of the context, or NAMESPACE/NAME.
    pub(crate) fn named(&self, text: &str) -> Key {
        named_in(&self.namespace, text)
    }
}

/// Connects to the cluster of the command line; by default to kubectl's.
pub(crate) async fn connect(target: &TargetArguments) -> anyhow::Result<Cluster> {
    let config = client::config_of("command line", target.kubeconfig.as_deref(), target.context.as_deref()).await;
    let config = config.context("no cluster: set KUBECONFIG, or --kubeconfig and --context")?;
    let namespace = target.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    Ok(Cluster { client: client::for_commands(config)?, namespace })
}

/// NAME in a namespace, or NAMESPACE/NAME.
pub(crate) fn named_in(namespace: &str, text: &str) -> Key {
    let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
    Key::new(namespace, name)
}

/// An error with its causes, each said once; of a refusal of the API server only its message, as kubectl prints it.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            parts.push(status.message.clone());
            break;
        }
        let text = cause.to_string();
        // Many errors say what their cause says, too.
        let own = cause.source().and_then(|it| text.strip_suffix(&it.to_string()));
        parts.push(own.unwrap_or(&text).trim_end_matches([':', ' ']).to_owned());
    }
    parts.retain(|it| !it.is_empty());
    parts.join(": ")
}

/// An age in kubectl's format: `45s`, `12m`, `5h`, `3d`.
pub(crate) fn age(seconds: i64) -> String {
    match seconds.max(0) {
        it @ ..120 => format!("{it}s"),
        it @ ..7200 => format!("{}m", it / 60),
        it @ ..172_800 => format!("{}h", it / 3600),
        it => format!("{}d", it / 86400),
    }
}

/// `1 bench`, `2 benches`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    let ending = match noun {
        _ if number == 1 => "",
        it if it.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{number} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_follow_their_number() {
        let all =
            [counted(0, "bench"), counted(1, "bench"), counted(2, "bench"), counted(1, "site"), counted(0, "site")];
        assert_eq!(all, ["0 benches", "1 bench", "2 benches", "1 site", "0 sites"]);
    }

    #[test]
    fn a_refusal_is_told_once_in_the_api_servers_words() {
        let status = kube::core::Status::failure("shops is forbidden", "Forbidden").with_code(403);
        let refused = kube::Error::Api(status.boxed());
        let watched = kube::runtime::watcher::Error::InitialListFailed(refused);
        let error = anyhow::Error::new(watched).context("watch sitejob shops/a");
        let text = told(&error);
        assert!(text.starts_with("watch sitejob shops/a: ") && text.ends_with(": shops is forbidden"), "{text}");
        assert_eq!(text.matches("forbidden").count(), 1, "{text}");
        let error = anyhow::anyhow!("no such file").context("read a.py");
        assert_eq!(told(&error), "read a.py: no such file");
    }

    #[test]
    fn ages_are_short() {
        assert_eq!([-5, 119, 120, 7199, 7200, 172_800].map(age), ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }
}
