//! `exec`: runs a command, a method or a script for a site, by a SiteJob that it creates as the user who runs it.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, bail};
use frappe_crds::{
    SiteJob, SiteJobSpec,
    common::LocalReference,
    job::{CaptureOutput, ConfigMapKeyReference, JobCommand, JobMethod, JobOutcomeState, JobPhase, JobScript},
};
use sha2::{Digest, Sha256};

use super::{
    ending::{Ends, made_name, until_its_end},
    output::connect,
};
use crate::{
    cli::{ExecArguments, TargetArguments},
    domain::{key::Key, names::hex},
    io::jobs,
};

/// Name of the script in its ConfigMap.
const SCRIPT: &str = "script.py";

/// Creates a SiteJob, waits for its end, and prints what it has printed.
pub async fn exec(arguments: ExecArguments, target: &TargetArguments) -> anyhow::Result<()> {
    let cluster = connect(target).await?;
    let site = cluster.named(&arguments.site);
    let name = made_name(&site, "exec", &arguments.create);
    let script = arguments.script.as_deref().map(read).transpose()?;
    let job = site_job(&site, &name, &arguments, script.as_deref())?;
    let key = Key::new(&site.namespace, &name);
    let with = script.as_deref().map(|text| (SCRIPT, text));
    let made = jobs::create(&cluster.client, &job, with, arguments.create.dry_run)
        .await
        .with_context(|| format!("create SiteJob {key}"))?;
    until_its_end(&cluster.client, made, &arguments.create, output_of).await
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

impl Ends for SiteJob {
    const NOUN: &str = "sitejob";

    fn message(&self) -> Option<&str> {
        self.status.as_ref()?.message.as_deref()
    }

    fn end(&self) -> Option<Result<(), String>> {
        let status = self.status.as_ref()?;
        let said = |message: &str| Err(message.to_owned());
        match &status.outcome {
            Some(it) if it.state == JobOutcomeState::Succeeded => Some(Ok(())),
            Some(it) => Some(said(&it.message)),
            // It was refused, and has not run.
            None if status.phase == JobPhase::Failed => Some(said(status.message.as_deref().unwrap_or_default())),
            None => None,
        }
    }
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
    use crate::{
        cli::{Cli, Command},
        commands::output::named_in,
        domain::wire,
    };

    fn made(words: &[&str], script: Option<&str>) -> anyhow::Result<serde_json::Value> {
        let words = ["kubectl-frappe", "exec"].iter().chain(words);
        let Command::Exec(arguments) = Cli::try_parse_from(words)?.command else { bail!("another command") };
        let job = site_job(&named_in("default", &arguments.site), "job", &arguments, script)?;
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
