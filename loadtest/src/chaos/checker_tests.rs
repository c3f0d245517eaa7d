//! Audit events, and their evaluation.

use serde_json::json;

use super::*;

#[allow(clippy::needless_pass_by_value, reason = "an object is made for one event")]
pub(in crate::chaos) fn event(verb: &str, resource: &str, agent: &str, second: u32, object: Value) -> Value {
    json!({
        "verb": verb, "userAgent": agent, "stageTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
        "objectRef": {"resource": resource}, "responseStatus": {"code": 200}, "responseObject": object,
    })
}

pub(in crate::chaos) fn map_of(version: u32, generation: i64, owner: &str, epoch: i64) -> Value {
    let (owners, epochs) = (vec![if owner.is_empty() { -1 } else { 0 }; 257], vec![epoch; 257]);
    json!({
        "metadata": {"uid": "map", "resourceVersion": version.to_string()},
        "spec": {"generation": generation, "members": [owner], "owners": owners, "epochs": epochs},
    })
}

pub(in crate::chaos) fn site(version: u32, generation: i64, observed: i64) -> Value {
    json!({
        "metadata": {"uid": "u", "name": "shop", "resourceVersion": version.to_string(), "generation": generation},
        "status": {"observedGeneration": observed},
    })
}

pub(in crate::chaos) fn member(pod: &str) -> String {
    format!("frappe-operator/0.1.0 (name; {pod})")
}

pub(in crate::chaos) fn found(events: &[Value]) -> Findings {
    let mut reader = Reader::default();
    for event in events {
        reader.take(event);
    }
    reader.end()
}

/// Known values, so that both implementations cannot have the same error.
#[test]
fn slots_are_those_of_the_protocol() {
    assert_eq!(slot_of("00000000-0000-0000-0000-000000000000"), 0x7c);
    assert_eq!(slot_of("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), 0xbd);
}

#[test]
fn a_write_by_a_non_owner_is_found() {
    let write = |version, pod: &str, second| event("update", "frappesites", &member(pod), second, site(version, 1, 1));
    let map = |version, generation, owner, epoch, second| {
        event("update", "slotmaps", &member("a"), second, map_of(version, generation, owner, epoch))
    };
    let good = found(&[map(1, 1, "a_1", 1, 1), write(2, "a", 2), map(3, 2, "b_1", 2, 3), write(4, "b", 4)]).check(4.0);
    assert_eq!((good.writes, good.violations.len(), good.epochs.len()), (2, 0, 0));
    let bad = found(&[map(1, 1, "a_1", 1, 1), map(3, 2, "b_1", 1, 3), write(4, "a", 4)]).check(4.0);
    assert_eq!((bad.violations.len(), bad.epochs.len()), (1, 257), "{bad:?}");
    let missing = found(&[map(1, 1, "a_1", 1, 1), write(4, "b", 4), map(5, 3, "c_1", 3, 5)]).check(4.0);
    assert_eq!((missing.violations.len(), missing.undecided), (0, 1), "b may have been the owner in between");
    let unowned = found(&[write(4, "a", 4)]).check(4.0);
    assert_eq!(unowned.violations.len(), 1);
}

#[test]
fn an_owner_may_notice_late_that_a_user_removed_its_slot() {
    let events = |late| {
        [
            event("update", "slotmaps", &member("a"), 1, map_of(1, 1, "a_1", 1)),
            event("patch", "slotmaps", "kubectl/1", 3, map_of(3, 1, "", 1)),
            event("update", "frappesites", &member("a"), late, site(4, 1, 1)),
        ]
    };
    let soon = found(&events(3)).check(4.0);
    assert_eq!((soon.violations.len(), soon.after_hand.len()), (0, 1), "{soon:?}");
    assert_eq!(found(&events(7)).check(4.0).violations.len(), 1);
}

/// An epoch of 0 that a user writes frees a slot: another member may take it over before its owner notices.
#[test]
fn a_slot_freed_by_hand_may_have_a_new_owner() {
    let by_hand = |agent: &str| {
        [
            event("update", "slotmaps", &member("a"), 1, map_of(1, 1, "a_1", 5)),
            event("update", "slotmaps", agent, 3, map_of(2, 1, "a_1", 0)),
            event("update", "slotmaps", &member("b"), 3, map_of(3, 2, "b_1", 6)),
            event("update", "frappesites", &member("a"), 4, site(4, 1, 1)),
        ]
    };
    let verdict = found(&by_hand("kubectl/1")).check(4.0);
    assert_eq!((verdict.violations.len(), verdict.after_hand.len()), (0, 1), "{verdict:?}");
    assert_eq!(found(&by_hand(&member("b"))).check(4.0).violations.len(), 1, "no user did");
}

#[test]
fn a_response_that_changed_nothing_is_not_a_write() {
    let twice = [
        event("update", "frappesites", &member("a"), 1, site(2, 1, 1)),
        event("update", "frappesites", &member("b"), 2, site(2, 1, 1)),
    ];
    assert_eq!(found(&twice).check(4.0).writes, 1);
}

#[test]
fn an_edit_waits_until_a_status_shows_its_generation() {
    let edit = |version, generation, second| event("patch", "frappesites", "", second, site(version, generation, 0));
    let status = |version, generation, observed, second| {
        event("update", "frappesites", &member("a"), second, site(version, generation, observed))
    };
    let findings = found(&[edit(1, 1, 1), edit(2, 2, 5), status(3, 2, 1, 6), edit(4, 3, 7), status(5, 3, 3, 9)]);
    let waits: Vec<f64> = findings.waits(Timestamp::UNIX_EPOCH).iter().map(|(seconds, _)| *seconds).collect();
    assert_eq!(waits, [2.0, 4.0, 5.0]);
    assert!(findings.lost().is_empty());
    let lost = found(&[edit(1, 1, 1), status(3, 2, 1, 6), edit(4, 2, 7)]);
    assert_eq!(lost.lost().len(), 1);
    let went = json!({"kind": "Status", "details": {"uid": "u"}});
    let gone = found(&[edit(1, 1, 1), edit(2, 2, 2), event("delete", "frappesites", "", 3, went)]);
    assert_eq!((gone.lost().len(), gone.deleted), (0, 1), "a site without finalizers is deleted at once");
}
