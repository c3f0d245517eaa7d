//! `rollout`: how far the sites of a bench are on their way to another image, and what a user decides about it. What it changes, it
//! changes as the user who runs it: the spec, or an annotation of the bench.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use frappe_crds::{
    FrappeBench,
    bench::{PauseReason, Revision, Rollout, RolloutPhase},
};
use jiff::Timestamp;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{
    output::{age, connect, print},
    undo,
};
use crate::{
    cli::{RolloutArguments, RolloutVerb, TargetArguments},
    domain::{image, key::Key, labels},
    io::decision::change_bench,
};

/// Width of the bar of moved sites, in characters.
const BAR_CHARACTERS: usize = 30;

/// Prints the state of a rollout, or changes it.
#[expect(clippy::disallowed_methods, reason = "ages in the output")]
pub async fn rollout(arguments: RolloutArguments, target: &TargetArguments) -> anyhow::Result<()> {
    let cluster = connect(target).await?;
    let (client, key) = (&cluster.client, cluster.named(&arguments.bench));
    let benches: Api<FrappeBench> = Api::namespaced(client.clone(), &key.namespace);
    let bench = benches.get(&key.name).await.with_context(|| format!("get FrappeBench {key}"))?;
    if arguments.json {
        let status = bench.status.clone().unwrap_or_default();
        let shown = json!({"rollout": status.rollout, "revisions": status.revisions});
        return print(&format!("{shown:#}\n"));
    }
    let dry = if arguments.dry_run { " (dry run)" } else { "" };
    let (patch, done) = match arguments.verb {
        RolloutVerb::Status => return print(&status(&key, &bench, Timestamp::now())),
        RolloutVerb::History => return print(&history(&bench)),
        RolloutVerb::Pause => (paused(true), "paused: no further site moves, those that move complete".to_owned()),
        RolloutVerb::Resume => (paused(false), "resumed".to_owned()),
        RolloutVerb::Promote { full } => promotion(&key, &bench, full)?,
        RolloutVerb::Abort => {
            let number = running(&key, &bench)?.to;
            (
                annotated(labels::ABORT, &number.to_string()),
                format!("to revision {number} aborted: no further site moves"),
            )
        }
        RolloutVerb::Undo { site: Some(site) } => {
            let done = undo::of_site(client, &key, &site, arguments.dry_run).await?;
            return print(&format!("rollout of frappebench {key} {done}{dry}\n"));
        }
        RolloutVerb::Undo { site: None } => undo::of_bench(&key, &bench)?,
    };
    change_bench(client, &key, patch, arguments.dry_run).await.with_context(|| format!("change FrappeBench {key}"))?;
    print(&format!("rollout of frappebench {key} {done}{dry}\n"))
}

fn paused(paused: bool) -> Value {
    json!({"spec": {"updateStrategy": {"paused": paused}}})
}

fn annotated(name: &str, value: &str) -> Value {
    json!({"metadata": {"annotations": {name: value}}})
}

/// The rollout, if there is something to decide about.
fn running<'a>(key: &Key, bench: &'a FrappeBench) -> anyhow::Result<&'a Rollout> {
    let rollout = bench.status.as_ref().and_then(|it| it.rollout.as_ref());
    let Some(rollout) = rollout else { bail!("FrappeBench {key} has had only one revision: there is no rollout") };
    if rollout.phase == RolloutPhase::Completed {
        bail!("the rollout of FrappeBench {key} to revision {} is completed", rollout.to);
    }
    Ok(rollout)
}

/// Change and message of a promotion. The same can be requested again: then its value differs.
fn promotion(key: &Key, bench: &FrappeBench, full: bool) -> anyhow::Result<(Value, String)> {
    let number = running(key, bench)?.to;
    let value = if full { format!("{number}/full") } else { number.to_string() };
    let former = bench.annotations().get(labels::PROMOTE).cloned().unwrap_or_default();
    let (base, count) =
        former.rsplit_once('#').map_or((former.as_str(), 1), |(base, count)| (base, count.parse().unwrap_or(1)));
    let again = base.trim_end_matches('/') == value;
    let value = if again { format!("{value}//#{}", count + 1) } else { value };
    let what = if full { "all sites may move" } else { "the next wave may move" };
    Ok((annotated(labels::PROMOTE, &value), format!("to revision {number} promoted: {what}")))
}

/// The state of the rollout.
pub fn status(key: &Key, bench: &FrappeBench, now: Timestamp) -> String {
    let status = bench.status.clone().unwrap_or_default();
    let Some(rollout) = status.rollout else {
        return format!("frappebench {key} has had only one revision: its image is rolled out in place\n");
    };
    let mut text = format!("frappebench {key}: revision {} is {}\n", rollout.to, phase(&rollout, now));
    let wave = match rollout.wave {
        0 => "the canary".to_owned(),
        wave => format!("wave {wave} of {}", rollout.waves),
    };
    let _ = writeln!(text, "  {} {wave}", bar(&rollout));
    let Rollout { total, updated, failed, held, .. } = &rollout;
    let _ = writeln!(text, "  {updated} of {total} sites have moved, {failed} failed, {held} must not move");
    if !rollout.failures.is_empty() {
        text.push_str("\nFailed, and served by the former image\n");
    }
    for failure in &rollout.failures {
        let _ = writeln!(text, "  {}  {}", failure.site, failure.message);
    }
    let hint = match rollout.reason {
        Some(PauseReason::FailuresExceeded | PauseReason::AwaitingPromotion) => Some(format!(
            "\nTo go on: kubectl frappe rollout {key} promote; to stay: kubectl frappe rollout {key} abort\n"
        )),
        Some(PauseReason::PausedByUser) => Some(format!("\nTo go on: kubectl frappe rollout {key} resume\n")),
        None => None,
    };
    text.push_str(&hint.unwrap_or_default());
    text
}

fn phase(rollout: &Rollout, now: Timestamp) -> String {
    let since = |time: &Timestamp| age(now.duration_since(*time).as_secs());
    match (rollout.phase, rollout.reason) {
        (RolloutPhase::Preparing, _) => "preparing: its pods start".to_owned(),
        (RolloutPhase::Progressing, _) => "progressing: sites move".to_owned(),
        (RolloutPhase::Soaking, _) => {
            let left =
                rollout.soak_until.as_ref().map(|it| age(it.0.duration_since(now).as_secs())).unwrap_or_default();
            format!("soaking: the next wave follows in {left}")
        }
        (RolloutPhase::Paused, Some(PauseReason::FailuresExceeded)) => {
            "paused: more sites failed than maxFailures allows".to_owned()
        }
        (RolloutPhase::Paused, Some(PauseReason::AwaitingPromotion)) => {
            "paused: the canary awaits its promotion".to_owned()
        }
        (RolloutPhase::Paused, _) => "paused by updateStrategy.paused".to_owned(),
        (RolloutPhase::Aborted, _) => "aborted".to_owned(),
        (RolloutPhase::Completed, _) => {
            let ago = rollout.finished_at.as_ref().map(|it| since(&it.0)).unwrap_or_default();
            format!("completed {ago} ago")
        }
    }
}

/// The sites as a bar: moved, failed, others.
fn bar(rollout: &Rollout) -> String {
    let total = usize::try_from(rollout.total).unwrap_or_default().max(1);
    let part = |count: i32| usize::try_from(count).unwrap_or_default() * BAR_CHARACTERS / total;
    let (moved, failed) = (part(rollout.updated), part(rollout.failed));
    let left = BAR_CHARACTERS.saturating_sub(moved + failed);
    format!("[{}{}{}]", "#".repeat(moved), "x".repeat(failed), ".".repeat(left))
}

/// The revisions.
pub fn history(bench: &FrappeBench) -> String {
    let revisions = bench.status.clone().unwrap_or_default().revisions;
    if revisions.is_empty() {
        return "the bench has had only one revision\n".to_owned();
    }
    let mut text = format!("{:<9} {:<10} {:<22} IMAGE\n", "REVISION", "STATE", "FRAPPE");
    let newest = revisions.last().map(|it| it.number);
    for revision in &revisions {
        let version =
            revision.apps.iter().find(|it| it.name == "frappe").and_then(|it| it.version.clone()).unwrap_or_default();
        let _ = writeln!(
            text,
            "{:<9} {:<10} {version:<22} {}",
            revision.number,
            state(revision, newest),
            image_of(revision)
        );
    }
    text
}

fn state(revision: &Revision, newest: Option<i32>) -> &'static str {
    match revision {
        it if it.retired => "retired",
        it if !it.complete => "starting",
        it if Some(it.number) == newest => "newest",
        it if it.empty_since.is_some() => "empty",
        _ => "serving",
    }
}

fn image_of(revision: &Revision) -> String {
    let pinned = revision.image_digest.as_ref().map(|it| image::pinned(&revision.image, it));
    pinned.unwrap_or_else(|| revision.image.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(rollout: &Value) -> FrappeBench {
        let digest = format!("sha256:{}", "0".repeat(64));
        serde_json::from_value(json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "metadata": {"name": "prod", "namespace": "shops"},
            "spec": {"frappeVersion": "15"},
            "status": {"rollout": rollout, "revisions": [
                {"number": 1, "image": "frappe/erpnext:v15.1.0", "imageDigest": digest, "cacheDatabase": 0, "complete": true,
                    "apps": [{"name": "frappe", "version": "15.1.0"}]},
                {"number": 2, "image": "frappe/erpnext:v15.2.0", "cacheDatabase": 1, "complete": true}]},
        }))
        .expect("a bench")
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    #[test]
    fn a_rollout_looks_like_this() {
        let key = Key::new("shops", "prod");
        let rollout = json!({"to": 2, "phase": "Paused", "reason": "FailuresExceeded", "wave": 2, "waves": 3, "total": 120, "updated": 60,
            "failed": 4, "held": 1, "failures": [{"site": "shops/a", "message": "patch x"}], "startedAt": "1970-01-01T00:00:00Z"});
        let shown = status(&key, &bench(&rollout), at(60));
        assert_eq!(
            shown,
            "frappebench shops/prod: revision 2 is paused: more sites failed than maxFailures allows\n  [###############x..............] wave 2 of 3\n  \
             60 of 120 sites have moved, 4 failed, 1 must not move\n\nFailed, and served by the former image\n  shops/a  patch x\n\n\
             To go on: kubectl frappe rollout shops/prod promote; to stay: kubectl frappe rollout shops/prod abort\n"
        );
        let rollout = json!({"to": 2, "phase": "Soaking", "wave": 0, "waves": 1, "total": 0, "updated": 0, "failed": 0, "held": 0,
            "soakUntil": "1970-01-01T00:10:00Z", "startedAt": null});
        assert!(status(&key, &bench(&rollout), at(60)).contains("soaking: the next wave follows in 9m"));
        let table = history(&bench(&Value::Null));
        assert!(
            table.contains("1         serving    15.1.0                 frappe/erpnext:v15.1.0@sha256:"),
            "{table}"
        );
        assert!(table.contains("2         newest"), "{table}");
    }

    /// The operator handles each value once.
    #[test]
    fn a_promotion_can_be_repeated() {
        let key = Key::new("shops", "prod");
        let rollout = json!({"to": 2, "phase": "Paused", "wave": 0, "waves": 1, "total": 1, "updated": 0, "failed": 1, "held": 0, "startedAt": null});
        let mut bench = bench(&rollout);
        let mut seen = std::collections::BTreeSet::new();
        for (full, wanted) in [(false, "2"), (false, "2//#2"), (false, "2//#3"), (true, "2/full"), (true, "2/full//#2")]
        {
            let (patch, _) = promotion(&key, &bench, full).expect("a promotion");
            let value = patch["metadata"]["annotations"][labels::PROMOTE].as_str().expect("a value").to_owned();
            assert_eq!(value, wanted);
            bench.annotations_mut().insert(labels::PROMOTE.to_owned(), value.clone());
            assert!(seen.insert(value));
        }
        let completed = json!({"to": 2, "phase": "Completed", "wave": 1, "waves": 1, "total": 1, "updated": 1, "failed": 0, "held": 0, "startedAt": null});
        bench.status.as_mut().expect("a status").rollout = serde_json::from_value(completed).expect("a rollout");
        assert!(promotion(&key, &bench, true).expect_err("nothing to promote").to_string().contains("is completed"));
    }
}
