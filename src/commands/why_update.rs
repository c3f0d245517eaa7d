//! What `why` says about the update of a site to another revision of its bench.

use frappe_crds::{
    FrappeBench, FrappeSite,
    bench::{PauseReason, RolloutPhase},
    site::{Move, OperationKind},
};
use jiff::Timestamp;

use super::advice;
use crate::{
    controllers::{site::revision, windows::Opening},
    domain::condition,
};

/// Why another revision than the newest one serves the site, or what an update did to it. None if there is nothing to say.
pub fn about(site: &FrappeSite, bench: Option<&FrappeBench>, now: Timestamp) -> Option<String> {
    let status = site.status.clone().unwrap_or_default();
    let (bench, moves) = (bench?, revision::destination(&status, bench)?);
    let Move { from, to } = moves;
    let serves = format!("revision {from} serves it, the newest is {to}");
    let runs = status.operation.as_ref().filter(|it| it.kind == OperationKind::Update && it.outcome.is_none());
    if runs.is_some_and(|it| it.update.as_ref().and_then(|it| it.moves) == Some(moves))
        && !condition::is_true(&status.conditions, "Ready")
    {
        return Some(format!("{serves}: its move has begun; it responds with 503 until that has ended"));
    }
    // What is particular to the site is in its condition.
    let particular = condition::find(&status.conditions, "UpToDate").filter(|it| it.status == "False");
    if let Some(it) = particular {
        let advice = advice::explanation(&it.reason).map(|it| format!("\n  {it}")).unwrap_or_default();
        return Some(format!("{serves}: {}: {}{advice}", it.reason, it.message));
    }
    Some(format!("{serves}: {}", waits(site, bench, moves, now)))
}

/// What a site waits for that may move.
fn waits(site: &FrappeSite, bench: &FrappeBench, moves: Move, now: Timestamp) -> String {
    let rollout = bench.status.as_ref().and_then(|it| it.rollout.as_ref()).filter(|it| it.to == moves.to);
    let Some(rollout) = rollout else { return "the rollout to it has not begun".to_owned() };
    let wave = match rollout.wave {
        0 => "the canary".to_owned(),
        wave => format!("wave {wave} of {}", rollout.waves),
    };
    match (rollout.phase, rollout.reason) {
        (RolloutPhase::Preparing, _) => return "its pods start".to_owned(),
        (RolloutPhase::Paused, Some(PauseReason::FailuresExceeded)) => {
            return format!(
                "the rollout is paused in {wave}, because {} sites failed: promote or abort it",
                rollout.failed
            );
        }
        (RolloutPhase::Paused, Some(PauseReason::AwaitingPromotion)) => {
            return "the rollout waits for a promotion after the canary".to_owned();
        }
        (RolloutPhase::Paused, _) => return "the rollout is paused by updateStrategy.paused".to_owned(),
        (RolloutPhase::Aborted, _) => return "the rollout was aborted".to_owned(),
        (RolloutPhase::Progressing | RolloutPhase::Soaking | RolloutPhase::Completed, _) => {}
    }
    if !revision::is_released(site, bench, moves) {
        let soaks = rollout.soak_until.as_ref().map(|it| format!(", and the next one follows at {}", it.0));
        return format!("it waits for its wave: the rollout is at {wave}{}", soaks.unwrap_or_default());
    }
    match revision::opening(site, bench, now) {
        Opening::Closed(Some(opens)) => format!("it waits for the window that opens at {opens}"),
        Opening::Closed(None) => "its windows never open".to_owned(),
        Opening::Open(_) => {
            "it may move, and waits for a job slot (siteJobConcurrency, updateStrategy.maxConcurrency) or for its pods"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn site(status: &Value) -> FrappeSite {
        serde_json::from_value(json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "metadata": {"name": "shop", "namespace": "shops", "uid": "u"},
            "spec": {"siteName": "shop", "benchRef": {"name": "prod"}}, "status": status,
        }))
        .expect("a site")
    }

    fn bench(strategy: &Value, rollout: &Value) -> FrappeBench {
        let base = json!({"to": 2, "wave": 1, "waves": 3, "total": 9, "updated": 5, "failed": 2, "held": 0, "startedAt": null, "released": {}});
        let mut whole = base;
        json_patch::merge(&mut whole, rollout);
        let revision = |number: i32| json!({"number": number, "image": "a:1", "cacheDatabase": 0, "complete": true});
        serde_json::from_value(json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "metadata": {"name": "prod", "namespace": "shops"},
            "spec": {"frappeVersion": "15", "updateStrategy": strategy}, "status": {"rollout": whole, "revisions": [revision(1), revision(2)]},
        }))
        .expect("a bench")
    }

    #[test]
    fn it_says_what_a_site_waits_for() {
        let all = json!({"upTo": "f".repeat(16)});
        let night = json!({"windows": [{"schedule": "0 1 * * *", "duration": "1h"}]});
        for (strategy, rollout, wanted) in [
            (json!({}), json!({"phase": "Preparing"}), "its pods start"),
            (json!({}), json!({"phase": "Progressing"}), "it waits for its wave: the rollout is at wave 1 of 3"),
            (
                json!({}),
                json!({"phase": "Soaking", "soakUntil": "1970-01-01T00:10:00Z"}),
                "the next one follows at 1970-01-01T00:10:00Z",
            ),
            (json!({}), json!({"phase": "Paused", "reason": "FailuresExceeded"}), "because 2 sites failed"),
            (
                json!({}),
                json!({"phase": "Paused", "reason": "AwaitingPromotion", "wave": 0}),
                "a promotion after the canary",
            ),
            (json!({}), json!({"phase": "Paused", "reason": "PausedByUser"}), "updateStrategy.paused"),
            (json!({}), json!({"phase": "Aborted"}), "was aborted"),
            (json!({}), json!({"phase": "Progressing", "to": 1}), "has not begun"),
            (night, json!({"phase": "Progressing", "released": all}), "the window that opens at 1970-01-01T01:00:00Z"),
            (json!({}), json!({"phase": "Progressing", "released": all}), "a job slot"),
        ] {
            let text =
                about(&site(&json!({"initialized": true})), Some(&bench(&strategy, &rollout)), Timestamp::UNIX_EPOCH)
                    .expect("a text");
            assert!(text.starts_with("revision 1 serves it, the newest is 2: ") && text.contains(wanted), "{text}");
        }
    }

    #[test]
    fn it_says_why_a_site_stays() {
        let bench = bench(&json!({}), &json!({"phase": "Progressing"}));
        let condition = |kind: &str, reason: &str| json!({"type": kind, "status": "False", "reason": reason, "message": "patch x", "lastTransitionTime": "1970-01-01T00:00:00Z"});
        let failed = site(&json!({"initialized": true, "conditions": [condition("UpToDate", "UpdateUndone")]}));
        let text = about(&failed, Some(&bench), Timestamp::UNIX_EPOCH).expect("a text");
        assert!(text.contains("UpdateUndone: patch x\n  A user undid"), "{text}");
        let operation = json!({"kind": "Update", "attempt": 1, "firstAttempt": 1, "generation": 1, "epoch": 1,
            "update": {"id": "0123abcd", "target": "x", "moves": {"from": 1, "to": 2}}});
        let moving =
            site(&json!({"initialized": true, "operation": operation, "conditions": [condition("Ready", "Updating")]}));
        assert!(about(&moving, Some(&bench), Timestamp::UNIX_EPOCH).expect("a text").contains("its move has begun"));
        let moved = site(&json!({"initialized": true, "revision": 2}));
        assert_eq!(about(&moved, Some(&bench), Timestamp::UNIX_EPOCH), None);
    }
}
