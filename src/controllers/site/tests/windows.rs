//! a site moves only in a window, its own or its bench's, unless a user asks for it now.

use std::time::Duration;

use frappe_crds::bench::RolloutPhase;

use super::{
    revisions::{released, second_revision},
    update::{annotate, condition_of, pair, site_of, status, strategy},
    *,
};

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn nightly() -> Value {
    json!([{"schedule": "0 1 * * *", "duration": "2h"}])
}

/// A site that may move at noon, whose bench has these windows.
fn waiting(of_bench: &Value, of_site: &Value) -> Observed {
    let mut world = site_of("a", json!({"update": {"windows": of_site}}));
    second_revision(&mut world, "b", true);
    strategy(&mut world, json!({"type": "Revisions", "windows": of_bench}));
    world.now = at("2026-11-27T12:00:00Z");
    world
}

/// It costs no write: the bench says until when its sites wait.
#[test]
fn a_site_waits_for_a_window_of_its_bench() {
    let mut world = waiting(&nightly(), &json!([]));
    let next = plan(&world);
    assert!(is_empty(&world, &next), "it is served, and nothing is written");
    assert_eq!(next.again_after, Some(Duration::from_hours(13)), "exactly when it opens");
    world.now = at("2026-11-28T01:00:00Z");
    assert!(plan(&world).job.is_some());
    world.now = at("2026-11-28T03:00:00Z");
    assert!(plan(&world).job.is_none(), "it is closed again");
    // What runs when it closes completes.
    world.now = at("2026-11-28T02:59:59Z");
    let next = plan(&world);
    apply(&mut world, &next, "Suspended");
    world.now = at("2026-11-28T03:10:00Z");
    world.jobs.clear();
    converge(&mut world, "Complete");
    assert_eq!(status(&world).revision, Some(2));
}

/// Its own windows replace those of the bench, and it says until when it waits.
#[test]
fn a_site_waits_for_its_own_window() {
    let mut world = waiting(&json!([{"schedule": "* * * * *", "duration": "1h"}]), &nightly());
    let (made, _) = converge(&mut world, "Complete");
    assert!(made.iter().all(|it| it.kind != Kind::Job));
    assert_eq!(condition_of(&world, "UpToDate"), pair("False", "OutsideWindow"));
    assert_eq!(condition_of(&world, "Ready").0, "True");
    let found = condition::find(&status(&world).conditions, "UpToDate").expect("the condition").message.clone();
    assert!(found.contains("2026-11-28T01:00:00Z") && found.contains(labels::UPDATE_NOW), "{found}");
    world.now = at("2026-11-27T20:00:00Z");
    assert!(is_empty(&world, &plan(&world)), "written once");
    world.now = at("2026-11-28T01:00:00Z");
    converge(&mut world, "Complete");
    assert_eq!((status(&world).revision, condition_of(&world, "UpToDate")), (Some(2), pair("True", "UpToDate")));
    // Before its wave, it waits for that, and says nothing.
    let mut world = waiting(&json!([]), &nightly());
    released(&mut world, RolloutPhase::Progressing, "0000000000000001");
    assert!(is_empty(&world, &plan(&world)));
}

#[test]
fn a_user_moves_a_site_now() {
    for policy in ["Automatic", "Manual"] {
        let mut world = waiting(&nightly(), &nightly());
        Arc::make_mut(&mut world.site).spec.update.as_mut().expect("an update").policy =
            serde_json::from_value(json!(policy)).expect("a policy");
        released(&mut world, RolloutPhase::Paused, "0000000000000001");
        annotate(&mut world, labels::UPDATE_NOW, "1");
        let (made, _) = converge(&mut world, "Complete");
        assert!(made.iter().all(|it| it.kind != Kind::Job), "another revision is named");
        annotate(&mut world, labels::UPDATE_NOW, "2");
        converge(&mut world, "Complete");
        assert_eq!(status(&world).revision, Some(2), "{policy}");
        assert!(is_empty(&world, &plan(&world)), "once");
    }
}

#[test]
fn a_window_that_never_opens_is_refused() {
    let mut world = waiting(&json!([]), &json!([{"schedule": "0 0 30 2 *", "duration": "1h"}]));
    converge(&mut world, "Complete");
    assert_eq!(condition_of(&world, "Ready"), pair("False", "WindowInvalid"));
    assert_eq!(status(&world).revision, None);
}
