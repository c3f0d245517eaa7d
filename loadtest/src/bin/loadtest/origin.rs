//! Where and when a report is created.

use std::process::Command;

use frappe_loadtest::{cluster::Cluster, report::Origin};
use jiff::Timestamp;

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok();
    output.map_or(String::new(), |it| String::from_utf8_lossy(&it.stdout).trim().to_owned())
}

/// Everything that is known before a cluster runs. The command is without paths.
#[expect(clippy::disallowed_methods, reason = "the day of a report")]
pub(crate) fn read() -> anyhow::Result<Origin> {
    let file = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let found = text.lines().find(|line| line.starts_with(key)).and_then(|line| line.split(':').nth(1));
        found.unwrap_or_default().trim().to_owned()
    };
    let kibibytes: u64 = file("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let sources = ["status", "--porcelain", "--", ":!loadtest/reports", ":!loadtest/README.md"];
    let changed = !output("git", &sources).is_empty();
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    for path in ["--operator", "--out"] {
        if let Some(at) = arguments.iter().position(|it| it == path) {
            arguments.drain(at..(at + 2).min(arguments.len()));
        }
    }
    Ok(Origin {
        command: format!("loadtest {}", arguments.join(" ")),
        date: Timestamp::now().strftime("%Y-%m-%d").to_string(),
        commit: format!("{commit}{}", if changed { "-dirty" } else { "" }),
        machine: format!(
            "{}, {} cores, {} GiB",
            file("/proc/cpuinfo", "model name"),
            std::thread::available_parallelism()?,
            kibibytes >> 20
        ),
        kubernetes: String::new(),
    })
}

/// Version of a cluster's API server.
pub(crate) fn kubernetes(cluster: &Cluster) -> String {
    let answer = cluster.kubectl(&["get", "--raw", "/version"], "").map(|it| it.out).unwrap_or_default();
    let version: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    version["gitVersion"].as_str().unwrap_or("unknown").to_owned()
}
