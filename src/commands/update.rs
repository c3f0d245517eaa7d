//! `update` and `migrate`: another image for a bench, and the migration of one site. What they change, they change as the user who runs them.

use std::pin::pin;

use anyhow::{Context as _, bail};
use frappe_crds::{
    FrappeBench,
    bench::{BenchPhase, RolloutPhase, UpdateType},
};
use futures::StreamExt;
use jiff::Timestamp;
use kube::Client;
use kube_sharding::watch::{Query, Seen, follow};
use serde_json::json;

use super::{
    output::{connect, print},
    rollout,
};
use crate::{
    cli::{MigrateArguments, TargetArguments, UpdateArguments},
    domain::{condition, key::Key, labels},
    io::{
        cached::Cached,
        decision::{change_bench, change_site},
    },
};

/// Sets the tag of a bench's image, and waits for its sites if asked.
pub async fn update(arguments: UpdateArguments, target: &TargetArguments) -> anyhow::Result<()> {
    let cluster = connect(target).await?;
    let (client, key) = (&cluster.client, cluster.named(&arguments.bench));
    let change = json!({"spec": {"imageConfig": {"tag": arguments.image_tag}}});
    let changed = change_bench(client, &key, change, arguments.dry_run).await;
    let changed = changed.with_context(|| format!("change FrappeBench {key}"))?;
    let dry = if arguments.dry_run { " (dry run)" } else { "" };
    print(&format!("image tag of frappebench {key} is {}{dry}: {}\n", arguments.image_tag, what_follows(&changed)))?;
    if !arguments.wait || arguments.dry_run {
        return Ok(());
    }
    wait(client, &key, changed.metadata.generation.unwrap_or_default()).await
}

/// What a new image does to the sites of a bench.
fn what_follows(bench: &FrappeBench) -> &'static str {
    match bench.spec.update_strategy.as_ref().and_then(|it| it.kind).unwrap_or_default() {
        UpdateType::Revisions => "its sites move to it one by one",
        UpdateType::InPlace => {
            "its pods are replaced, and sites whose schema differs respond with 503 until each is migrated"
        }
    }
}

/// Follows the bench until the image is rolled out, and prints each change.
async fn wait(client: &Client, key: &Key, generation: i64) -> anyhow::Result<()> {
    let fields = format!("metadata.name={}", key.name);
    let query = Query { fields, ..Query::of::<FrappeBench>(&(), Some(&key.namespace)) };
    let mut seen = pin!(follow(client.clone(), query, FrappeBench::read, None));
    let mut last = String::new();
    while let Some(event) = seen.next().await {
        let bench = match event {
            Ok(Seen::Listed(benches, _)) => benches.into_iter().next(),
            Ok(Seen::Applied(bench)) => Some(bench),
            Ok(Seen::Deleted(_)) => None,
            Ok(Seen::UpTo(_)) | Err(_) => continue,
        };
        let Some(bench) = bench else { bail!("FrappeBench {key} does not exist any more") };
        let (state, text) = progress(key, &bench, generation, now());
        if text != last {
            print(&text)?;
            last = text;
        }
        match state {
            State::Goes => {}
            State::Done => return Ok(()),
            State::Stuck => bail!("the update of FrappeBench {key} needs a decision: see above"),
        }
    }
    bail!("the watch of FrappeBench {key} ended")
}

#[expect(clippy::disallowed_methods, reason = "ages in the output, and a value that was not used before")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Whether an update goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Goes,
    Done,
    /// A user must decide, or correct something.
    Stuck,
}

/// How far the update of a bench is, and what is printed about it.
fn progress(key: &Key, bench: &FrappeBench, generation: i64, now: Timestamp) -> (State, String) {
    let status = bench.status.clone().unwrap_or_default();
    let ready = condition::find(&status.conditions, "Ready");
    let message = ready.map(|it| format!("{}: {}", it.reason, it.message)).unwrap_or_default();
    if status.observed_generation.unwrap_or_default() < generation {
        return (State::Goes, String::new());
    }
    if status.phase == BenchPhase::Failed {
        return (State::Stuck, format!("frappebench {key}: {message}\n"));
    }
    let newest = status.revisions.last().map(|it| it.number);
    if let Some(rollout) = status.rollout.as_ref().filter(|it| Some(it.to) == newest) {
        let state = match rollout.phase {
            RolloutPhase::Completed if rollout.failed == 0 => State::Done,
            RolloutPhase::Paused | RolloutPhase::Aborted | RolloutPhase::Completed => State::Stuck,
            RolloutPhase::Preparing | RolloutPhase::Progressing | RolloutPhase::Soaking => State::Goes,
        };
        return (state, rollout::status(key, bench, now));
    }
    let done = status.phase == BenchPhase::Ready && status.running_revision == status.desired_revision;
    (if done { State::Done } else { State::Goes }, format!("frappebench {key}: {message}\n"))
}

/// Asks for the migration of a site.
pub async fn migrate(arguments: MigrateArguments, target: &TargetArguments) -> anyhow::Result<()> {
    let cluster = connect(target).await?;
    let (client, key) = (&cluster.client, cluster.named(&arguments.site));
    let change = json!({"metadata": {"annotations": {labels::MIGRATE: now().to_string()}}});
    change_site(client, &key, change, arguments.dry_run).await.with_context(|| format!("change FrappeSite {key}"))?;
    let dry = if arguments.dry_run { " (dry run)" } else { "" };
    print(&format!("frappesite {key} is migrated by a Job now{dry}; see kubectl frappe why {key}\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn bench(phase: &str, rollout: &Value) -> FrappeBench {
        let revisions =
            if rollout.is_null() { json!([]) } else { json!([{"number": 2, "image": "a:2", "cacheDatabase": 1}]) };
        serde_json::from_value(json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "metadata": {"name": "prod", "namespace": "shops"},
            "spec": {"frappeVersion": "15"},
            "status": {"phase": phase, "observedGeneration": 3, "rollout": rollout, "revisions": revisions, "runningRevision": "x", "desiredRevision": "x",
                "conditions": [{"type": "Ready", "status": "True", "reason": "Rolling", "message": "pods", "lastTransitionTime": "1970-01-01T00:00:00Z"}]},
        }))
        .expect("a bench")
    }

    fn state(bench: &FrappeBench, generation: i64) -> State {
        progress(&Key::new("shops", "prod"), bench, generation, Timestamp::UNIX_EPOCH).0
    }

    #[test]
    fn it_waits_until_all_sites_have_moved_or_a_user_must_decide() {
        let rollout = |phase: &str, failed: i32| json!({"to": 2, "phase": phase, "wave": 1, "waves": 1, "total": 9, "updated": 5, "failed": failed, "held": 0, "startedAt": null});
        for (phase, failed, wanted) in [
            ("Preparing", 0, State::Goes),
            ("Progressing", 1, State::Goes),
            ("Soaking", 0, State::Goes),
            ("Paused", 1, State::Stuck),
            ("Aborted", 0, State::Stuck),
            ("Completed", 0, State::Done),
            ("Completed", 1, State::Stuck),
        ] {
            assert_eq!(state(&bench("Ready", &rollout(phase, failed)), 3), wanted, "{phase} {failed}");
        }
        assert_eq!(state(&bench("Ready", &rollout("Completed", 0)), 4), State::Goes, "the change was not seen yet");
        assert_eq!(state(&bench("Failed", &rollout("Preparing", 0)), 3), State::Stuck);
    }

    #[test]
    fn in_place_it_waits_for_the_pods() {
        assert_eq!(state(&bench("Ready", &Value::Null), 3), State::Done);
        assert_eq!(state(&bench("Progressing", &Value::Null), 3), State::Goes);
        let (state, text) =
            progress(&Key::new("shops", "prod"), &bench("Failed", &Value::Null), 3, Timestamp::UNIX_EPOCH);
        assert_eq!((state, text.as_str()), (State::Stuck, "frappebench shops/prod: Rolling: pods\n"));
    }
}
