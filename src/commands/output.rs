//! Shared by the commands: a client, and output.

use std::io::Write as _;

use anyhow::Context as _;
use kube::Client;

use crate::io::client;

/// Prints to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// A client of the same cluster as kubectl's.
pub(crate) async fn connect() -> anyhow::Result<Client> {
    let config = client::config("command line").await.context("no cluster configured: set KUBECONFIG")?;
    client::for_commands(config)
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
    fn ages_are_short() {
        assert_eq!([-5, 119, 120, 7199, 7200, 172_800].map(age), ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }
}
