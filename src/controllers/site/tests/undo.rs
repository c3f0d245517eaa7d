//! a user undoes the last update of a site, by its name only.

use frappe_crds::{
    bench::RolloutPhase,
    site::{Move, UpdateResult},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use super::{
    revisions::{released, runs_in, second_revision},
    update::{annotate, condition_of, fails, pair, request, site_of, status, strategy},
    *,
};
use crate::controllers::bench::placed::{PlacedSite, Way};

/// A site that has moved to revision 2 with another schema.
fn moved() -> Observed {
    let mut world = site_of("a", json!({}));
    second_revision(&mut world, "b", true);
    converge(&mut world, "Complete");
    assert_eq!(status(&world).revision, Some(2));
    world.jobs.clear();
    world.now = world.now.checked_add(SignedDuration::from_hours(1)).expect("a time");
    world
}

/// Id of the last update.
fn last(world: &Observed) -> String {
    status(world).last_update.expect("an update").id
}

fn way(world: &Observed) -> String {
    format!("{:?}", PlacedSite::of(&world.site).expect("a site with data").way(2))
}

/// The revisions in the status of the bench.
fn revise(world: &mut Observed, change: impl Fn(&mut frappe_crds::bench::Revision)) {
    let mut bench = FrappeBench::clone(world.bench.as_deref().expect("a bench"));
    bench.status.as_mut().expect("a status").revisions.iter_mut().filter(|it| it.number == 1).for_each(change);
    world.bench = Some(Arc::new(bench));
}

fn undone(world: &Observed) -> Option<(String, String)> {
    let status = plan(world).status.unwrap_or_else(|| status(world));
    condition::find(&status.conditions, "Undone").map(|it| (it.reason.clone(), it.message.clone()))
}

#[test]
fn a_site_returns_to_the_revision_that_it_left() {
    let mut world = moved();
    let update = last(&world);
    released(&mut world, RolloutPhase::Paused, "ffffffffffffffff");
    strategy(&mut world, json!({"type": "Revisions", "safetyBackup": {"mode": "None"}}));
    annotate(&mut world, labels::ROLLBACK, &update);
    let next = plan(&world);
    let job = next.job.clone().expect("a Job");
    let (image, folder, number) = runs_in(&job);
    assert_eq!((image.as_str(), folder, number.as_str()), ("frappe/erpnext:v15.1.0@sha256:01", None, "1"));
    let asked = request(&job)["update"].clone();
    assert_eq!((&asked["from"], &asked["undoes"]), (&json!(2), &json!(update)));
    assert_eq!(asked["dump"], true, "what was written since is kept");
    apply(&mut world, &next, "Suspended");
    assert_eq!(PlacedSite::of(&world.site).expect("a site").goes_to, Some(1), "its pods stay meanwhile");
    world.jobs.clear();
    converge(&mut world, "Complete");
    let after = status(&world);
    assert_eq!((after.revision, after.phase), (Some(1), SitePhase::Ready));
    assert!(after.apps.iter().all(|it| it.schema.as_deref().is_some_and(|it| it.ends_with("-a"))));
    let recorded = after.last_update.expect("an update");
    assert_eq!((recorded.result, recorded.moves), (UpdateResult::Undone, Some(Move { from: 1, to: 2 })));
    assert_eq!(recorded.undoes, Some(update));
    assert_eq!(condition_of(&world, "UpToDate"), pair("False", "UpdateUndone"));
    // The rollout does not take it along again, and does not count it as failed.
    released(&mut world, RolloutPhase::Progressing, "ffffffffffffffff");
    world.jobs.clear();
    assert!(is_empty(&world, &plan(&world)));
    assert_eq!(way(&world), format!("{:?}", Way::Held));
    annotate(&mut world, labels::MIGRATE, "again");
    converge(&mut world, "Complete");
    assert_eq!((status(&world).revision, condition_of(&world, "UpToDate")), (Some(2), pair("True", "UpToDate")));
    world.jobs.clear();
    let (made, _) = converge(&mut world, "Complete");
    assert!(
        made.iter().all(|it| it.kind != Kind::Job),
        "the annotation names an update that is not the last one any more"
    );
    assert_eq!(undone(&world).expect("the condition").0, "UndoRefused");
}

#[test]
fn what_cannot_be_undone_is_refused() {
    let mut world = moved();
    assert_eq!(undone(&world), None);
    annotate(&mut world, labels::ROLLBACK, "01234567");
    let (made, _) = converge(&mut world, "Complete");
    assert!(made.iter().all(|it| it.kind != Kind::Job));
    let (reason, message) = undone(&world).expect("the condition");
    assert_eq!(reason, "UndoRefused");
    assert!(message.contains(&last(&world)), "{message}");
    assert_eq!(condition_of(&world, "UpToDate"), pair("True", "UpToDate"), "and it is up to date as before");
    let update = last(&world);
    annotate(&mut world, labels::ROLLBACK, &update);
    assert!(plan(&world).job.is_some());
    let now = world.now;
    revise(&mut world, |it| it.empty_since = Some(Time(now)));
    assert!(plan(&world).job.is_some(), "its pods run for ten minutes");
    world.now = now.checked_add(SignedDuration::from_secs(9 * 60 + 1)).expect("a time");
    assert!(plan(&world).job.is_none(), "they may be removed while it is on its way");
    assert!(undone(&world).expect("the condition").1.contains("scaleDownDelay"));
    revise(&mut world, |it| it.retired = true);
    assert!(plan(&world).job.is_none());
    // In place, nobody runs the former image.
    let mut world = site_of("a", json!({}));
    super::update::image(&mut world, "b", super::update::Stage::Complete);
    converge(&mut world, "Complete");
    let update = last(&world);
    annotate(&mut world, labels::ROLLBACK, &update);
    assert!(undone(&world).expect("the condition").1.contains("in place"));
}

#[test]
fn a_return_that_fails_leaves_the_site_as_it_was() {
    for code in ["DumpMissing", "UpdateFailed"] {
        let mut world = moved();
        let update = last(&world);
        annotate(&mut world, labels::ROLLBACK, &update);
        fails(&mut world, code);
        assert_eq!(
            (status(&world).revision, condition_of(&world, "Ready")),
            (Some(2), pair("True", "Ready")),
            "{code}"
        );
        assert_eq!(condition_of(&world, "UpToDate"), pair("True", "UpToDate"));
        let (reason, message) = undone(&world).expect("the condition");
        assert!(reason == "UndoFailed" && message.contains(code), "{reason}: {message}");
        world.jobs.clear();
        assert!(is_empty(&world, &plan(&world)), "once");
        annotate(&mut world, labels::RETRY, "1");
        converge(&mut world, "Complete");
        assert_eq!((status(&world).revision, undone(&world)), (Some(1), None));
    }
}

#[test]
fn a_site_whose_database_is_neither_is_not_served() {
    let mut world = moved();
    let update = last(&world);
    annotate(&mut world, labels::ROLLBACK, &update);
    for _ in 0..6 {
        fails(&mut world, "RollbackFailed");
    }
    assert_eq!(condition_of(&world, "Ready"), pair("False", "RollbackFailed"));
    world.jobs.clear();
    Arc::make_mut(&mut world.site).spec.maintenance_mode = Some(true);
    assert!(plan(&world).job.is_none(), "nothing automatic touches it");
    Arc::make_mut(&mut world.site).spec.maintenance_mode = None;
    annotate(&mut world, labels::RETRY, "1");
    converge(&mut world, "Complete");
    assert_eq!(status(&world).revision, Some(1));
}
