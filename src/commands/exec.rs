//! `exec`: runs a command, a method or a script for a site, by a SiteJob that it creates as the user who runs it.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, bail};
use frappe_crds::{
    SiteJob, SiteJobSpec,
    common::LocalReference,
    job::{CaptureOutput, ConfigMapKeyReference, JobCommand, JobMethod, JobOutcomeState, JobPhase, JobScript},
};
use kube::Client;
use sha2::{Digest, Sha256};

use super::{
    fleet::named,
    output::{connect, print},
};
use crate::{
    cli::{ExecArguments, OutputFormat},
    domain::{
        key::Key,
        names::{child, hex},
        wire,
    },
    io::{jobs, random},
};

/// Name of the script in its ConfigMap.
const SCRIPT: &str = "script.py";
/// Characters of the random part of a name.
const RANDOM_CHARACTERS: usize = 8;

/// Creates a SiteJob, waits for its end, and prints what it has printed.
pub async fn exec(arguments: ExecArguments) -> anyhow::Result<()> {
    let site = named(&arguments.site);
    let random: String = random::id().chars().take(RANDOM_CHARACTERS).collect();
    let name = arguments.name.clone().unwrap_or_else(|| child(&site.name, &format!("exec-{random}")));
    let script = arguments.script.as_deref().map(read).transpose()?;
    let job = site_job(&site, &name, &arguments, script.as_deref())?;
    let client = connect().await?;
    let key = Key::new(&site.namespace, &name);
    let made = jobs::create(&client, &job, script.as_deref().map(|text| (SCRIPT, text)), arguments.dry_run)
        .await
        .with_context(|| format!("create SiteJob {key}"))?;
    if arguments.dry_run || arguments.no_wait {
        let dry = if arguments.dry_run { " (dry run)" } else { "" };
        return shown(&arguments, &made, &format!("sitejob {key} created{dry}\n"));
    }
    let ended = until_its_end(&client, &key).await?;
    shown(&arguments, &ended, &output_of(&ended))?;
    match outcome(&ended) {
        (JobOutcomeState::Succeeded, _) => Ok(()),
        (JobOutcomeState::Failed, message) => bail!("sitejob {key}: {message}"),
    }
}

fn shown(arguments: &ExecArguments, job: &SiteJob, text: &str) -> anyhow::Result<()> {
    match arguments.output {
        Some(OutputFormat::Json) => print(&format!("{:#}\n", wire::json(job))),
        None => print(text),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// The SiteJob for these arguments.
fn site_job(site: &Key, name: &str, arguments: &ExecArguments, script: Option<&str>) -> anyhow::Result<SiteJob> {
    let command =
        arguments.command.split_first().map(|(name, args)| JobCommand { name: name.clone(), args: args.to_vec() });
    let method = arguments.method.as_ref().map(|name| JobMethod {
        name: name.clone(),
        args: arguments.args.clone(),
        kwargs: arguments.kwargs.clone(),
    });
    let script = script.map(|text| JobScript {
        config_map_ref: ConfigMapKeyReference { name: name.to_owned(), key: SCRIPT.to_owned() },
        sha256: Some(hex(&Sha256::digest(text.as_bytes()))),
    });
    if [command.is_some(), method.is_some(), script.is_some()].into_iter().filter(|it| *it).count() != 1 {
        bail!("name exactly one of -- COMMAND, --method and --script");
    }
    let spec = SiteJobSpec {
        site_ref: LocalReference { name: site.name.clone() },
        command,
        method,
        script,
        maintenance: arguments.maintenance.then_some(true),
        timeout_seconds: arguments.timeout,
        ttl_seconds_after_finished: Some(arguments.ttl),
        capture_output: arguments.silent.then_some(CaptureOutput::None),
        ..SiteJobSpec::default()
    };
    let mut job = SiteJob::new(name, spec);
    job.metadata.namespace = Some(site.namespace.clone());
    Ok(job)
}

/// Waits for the end of the SiteJob; what it waits for is printed on standard error.
async fn until_its_end(client: &Client, key: &Key) -> anyhow::Result<SiteJob> {
    let mut said = String::new();
    let ended = jobs::until(client, key, |job| {
        let status = job.status.clone().unwrap_or_default();
        let message = status.message.unwrap_or_default();
        if status.outcome.is_none() && !message.is_empty() && message != said {
            eprintln!("{message}");
            said = message;
        }
        status.outcome.is_some() || is_refused(job)
    });
    ended.await.with_context(|| format!("watch SiteJob {key}"))
}

/// Whether it fails without having been run.
fn is_refused(job: &SiteJob) -> bool {
    job.status.as_ref().is_some_and(|it| it.phase == JobPhase::Failed)
}

fn outcome(job: &SiteJob) -> (JobOutcomeState, String) {
    let status = job.status.clone().unwrap_or_default();
    let refused = (JobOutcomeState::Failed, status.message.unwrap_or_default());
    status.outcome.map_or(refused, |it| (it.state, it.message))
}

/// What it has printed, and its result.
fn output_of(job: &SiteJob) -> String {
    let status = job.status.clone().unwrap_or_default();
    let mut text = String::new();
    if status.output_truncated == Some(true) {
        let name = status.job.unwrap_or_default();
        let _ = writeln!(text, "[this is the end of the output; more of it: kubectl logs job/{name}]");
    }
    text.push_str(&status.output.unwrap_or_default());
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if let Some(result) = status.result {
        let _ = writeln!(text, "{result}");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;
    use crate::cli::{Cli, Command};

    fn made(words: &[&str], script: Option<&str>) -> anyhow::Result<serde_json::Value> {
        let words = ["kubectl-frappe", "exec"].iter().chain(words);
        let Command::Exec(arguments) = Cli::try_parse_from(words)?.command else { bail!("another command") };
        let job = site_job(&named(&arguments.site), "job", &arguments, script)?;
        Ok(wire::json(&job.spec))
    }

    #[test]
    fn words_after_the_dashes_are_the_command() {
        let spec = made(
            &["shops/shop", "--maintenance", "--timeout", "60", "--", "doctor", "--help", "--", "-o", "json", "*"],
            None,
        );
        let wanted = json!({"siteRef": {"name": "shop"}, "maintenance": true, "timeoutSeconds": 60, "ttlSecondsAfterFinished": 86400,
                            "command": {"name": "doctor", "args": ["--help", "--", "-o", "json", "*"]}});
        assert_eq!(spec.expect("a spec"), wanted);
    }

    #[test]
    fn a_method_or_a_script_takes_the_place_of_a_command() {
        let spec = made(&["shop", "--method", "frappe.ping", "--args", "[1]"], None).expect("a spec");
        assert_eq!(spec["method"], json!({"name": "frappe.ping", "args": "[1]"}));
        let spec = made(&["shop", "--script", "x.py"], Some("print(1)\n")).expect("a spec");
        assert_eq!(spec["script"]["configMapRef"], json!({"name": "job", "key": "script.py"}));
        assert_eq!(spec["script"]["sha256"].as_str().map(str::len), Some(64));
        for words in [&["shop"][..], &["shop", "--method", "frappe.ping", "--", "doctor"], &["shop", "--args", "[]"]] {
            assert!(made(words, None).is_err(), "{words:?}");
        }
    }

    #[test]
    fn output_and_result_are_printed() {
        let mut job = SiteJob::new("job", SiteJobSpec::default());
        let status = json!({"phase": "Succeeded", "output": "a\nb", "result": "[1]", "outputTruncated": true, "job": "shop-job-1"});
        job.status = Some(serde_json::from_value(status).expect("a status"));
        assert_eq!(
            output_of(&job),
            "[this is the end of the output; more of it: kubectl logs job/shop-job-1]\na\nb\n[1]\n"
        );
    }
}
