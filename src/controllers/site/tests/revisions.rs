//! sites of a bench with several revisions: each is served, changed and deleted where it is, and moves when the newest one is complete.

use frappe_crds::{
    bench::{PauseReason, Released, Revision, Rollout, RolloutPhase},
    site::{Move, OperationKind, UpdateResult},
};

use super::{
    update::{Stage, annotate, code, condition_of, fails, image, pair, request, site_of, status},
    *,
};
use crate::controllers::job::Failure;

/// The bench has another image as revision 2, beside revision 1 with the image of before.
pub(super) fn second_revision(world: &mut Observed, schema: &str, complete: bool) {
    let before = world.bench.as_ref().and_then(|it| it.status.clone()).expect("a status").apps;
    image(world, schema, if complete { Stage::Complete } else { Stage::Inspected });
    let mut bench = FrappeBench::clone(world.bench.as_deref().expect("a bench"));
    let status = bench.status.get_or_insert_default();
    let revision = |number, image: &str, digest: &str, apps| Revision {
        number,
        image: image.to_owned(),
        image_digest: Some(digest.to_owned()),
        cache_database: number - 1,
        apps,
        complete: true,
        ..Revision::default()
    };
    let first = revision(1, "frappe/erpnext:v15.1.0", "sha256:01", before);
    let second = Revision { complete, ..revision(2, "frappe/erpnext:v15.2.0", "sha256:02", status.apps.clone()) };
    status.revisions = vec![first, second];
    let released = Released { canary: false, up_to: Some("f".repeat(16)) };
    status.rollout = Some(Rollout { to: 2, phase: RolloutPhase::Progressing, released, ..Rollout::default() });
    world.bench = Some(Arc::new(bench));
}

/// The rollout is in this phase, and sites up to this rank may move.
pub(super) fn released(world: &mut Observed, phase: RolloutPhase, up_to: &str) {
    let mut bench = FrappeBench::clone(world.bench.as_deref().expect("a bench"));
    let rollout = bench.status.get_or_insert_default().rollout.as_mut().expect("a rollout");
    rollout.phase = phase;
    rollout.reason = (phase == RolloutPhase::Paused).then_some(PauseReason::FailuresExceeded);
    rollout.released.up_to = Some(up_to.to_owned());
    world.bench = Some(Arc::new(bench));
}

/// Image, folder and number of the revision of a Job's container.
pub(super) fn runs_in(job: &Desired) -> (String, Option<String>, String) {
    let container = &job.body["spec"]["template"]["spec"]["containers"][0];
    let find = |list: &str, key: &str, value: &str| {
        let all = container[list].as_array().expect("a list");
        all.iter().find(|it| it[key] == value).cloned().unwrap_or_default()
    };
    let sites = find("volumeMounts", "mountPath", "/home/frappe/frappe-bench/sites");
    let number = find("env", "name", "SITE_RUNNER_REVISION");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    (text(&container["image"]).expect("an image"), text(&sites["subPath"]), text(&number["value"]).unwrap_or_default())
}

#[test]
fn a_site_stays_as_it_is_until_the_newest_revision_is_complete() {
    let mut world = site_of("a", json!({}));
    second_revision(&mut world, "b", false);
    assert!(is_empty(&world, &plan(&world)), "it is served, and nothing is written");
    // It can be changed meanwhile, where it is.
    Arc::make_mut(&mut world.site).spec.maintenance_mode = Some(true);
    let job = plan(&world).job.expect("a Job");
    let (image, folder, number) = runs_in(&job);
    assert_eq!((image.as_str(), folder, number.as_str()), ("frappe/erpnext:v15.1.0@sha256:01", None, "1"));
    converge(&mut world, "Complete");
    assert!(status(&world).apps.iter().all(|it| it.schema.as_deref().is_some_and(|it| it.ends_with("-a"))));
    second_revision(&mut world, "b", true);
    for (phase, up_to) in [
        (RolloutPhase::Paused, "ffffffffffffffff"),
        (RolloutPhase::Progressing, "0000000000000001"),
        (RolloutPhase::Aborted, "ffffffffffffffff"),
    ] {
        released(&mut world, phase, up_to);
        assert!(is_empty(&world, &plan(&world)), "{phase:?} {up_to}");
    }
    released(&mut world, RolloutPhase::Soaking, "ffffffffffffffff");
    assert!(plan(&world).job.is_some(), "one that was released earlier");
}

#[test]
fn a_site_moves_by_one_job() {
    let mut world = site_of("a", json!({}));
    second_revision(&mut world, "b", true);
    let next = plan(&world);
    assert_eq!(reason(&next), "Updating");
    let job = next.job.clone().expect("a Job");
    let (image, folder, number) = runs_in(&job);
    assert!(!image.contains("v15.1.0"), "{image}");
    assert_eq!((folder.as_deref(), number.as_str()), (Some(".revisions/2"), "2"));
    assert_eq!(request(&job)["update"]["from"], 1);
    apply(&mut world, &next, "Suspended");
    let recorded = status(&world);
    assert_eq!(recorded.operation.and_then(|it| it.update).and_then(|it| it.moves), Some(Move { from: 1, to: 2 }));
    assert_eq!(recorded.revision, None, "it has not moved yet");
    world.jobs.clear();
    converge(&mut world, "Complete");
    let after = status(&world);
    assert_eq!((after.revision, after.phase), (Some(2), SitePhase::Ready));
    assert_eq!(after.apps[1].schema.as_deref(), Some("frappe-b"));
    assert_eq!(condition_of(&world, "UpToDate"), pair("True", "UpToDate"));
    assert!(is_empty(&world, &plan(&world)));
    // From now on its Jobs run there.
    Arc::make_mut(&mut world.site).spec.maintenance_mode = Some(true);
    let job = plan(&world).job.expect("a Job");
    assert_eq!(runs_in(&job).1.as_deref(), Some(".revisions/2"));
    being_deleted(&mut world);
    let (made, _) = converge(&mut world, "Complete");
    let drop = made.iter().find(|it| it.key.name.contains("delete")).expect("a Job that drops it");
    assert_eq!(runs_in(drop).1.as_deref(), Some(".revisions/2"));
}

/// Equal schemas: nothing is migrated, but the code of the newest revision serves the site.
#[test]
fn a_site_moves_to_an_equal_schema_too() {
    let mut world = site_of("a", json!({}));
    second_revision(&mut world, "a", true);
    converge(&mut world, "Complete");
    assert_eq!(status(&world).revision, Some(2));
}

#[test]
fn a_site_whose_move_fails_is_served_as_before() {
    let mut world = site_of("a", json!({}));
    second_revision(&mut world, "b", true);
    fails(&mut world, "UpdateFailed");
    let after = status(&world);
    assert_eq!((after.revision, after.phase), (None, SitePhase::Ready));
    assert_eq!(after.last_update.as_ref().map(|it| it.result), Some(UpdateResult::RolledBack));
    assert_eq!(condition_of(&world, "UpToDate"), pair("False", "UpdateFailed"));
    assert_eq!(condition_of(&world, "Ready").0, "True");
    world.jobs.clear();
    world.now = Timestamp::from_second(1_000_000).expect("a time");
    let (made, _) = converge(&mut world, "Complete");
    assert!(made.iter().all(|it| it.kind != Kind::Job), "the same move is not tried again by itself");
    let mut again = site_of("a", json!({}));
    second_revision(&mut again, "b", true);
    fails(&mut again, "UpdateFailed");
    annotate(&mut again, labels::RETRY, "1");
    converge(&mut again, "Complete");
    assert_eq!(status(&again).revision, Some(2), "a user asked for another attempt");
    // Without a dump there is no way back: it stays where it is, and says so.
    let mut stuck = site_of("a", json!({}));
    second_revision(&mut stuck, "b", true);
    stuck.failure = Some(Failure { revision: Some(2), ..Failure::unknown() });
    fails(&mut stuck, "UpdateFailed");
    assert_eq!((status(&stuck).revision, condition_of(&stuck, "Ready")), (Some(2), pair("False", "UpdateFailed")));
    // A database that could not be restored is not served.
    let mut broken = site_of("a", json!({}));
    second_revision(&mut broken, "b", true);
    for _ in 0..6 {
        fails(&mut broken, "RollbackFailed");
    }
    assert_eq!(condition_of(&broken, "Ready"), pair("False", "RollbackFailed"));
}

/// The directory decides where a site is, not what was recorded.
#[test]
fn a_job_that_finds_the_site_elsewhere_corrects_the_record() {
    let mut world = site_of("a", json!({}));
    second_revision(&mut world, "a", false);
    Arc::make_mut(&mut world.site).spec.maintenance_mode = Some(true);
    world.failure = Some(Failure { revision: Some(2), ..Failure::unknown() });
    let first = fails(&mut world, "SiteElsewhere");
    assert_eq!((runs_in(&first).1, status(&world).revision), (None, Some(2)));
    world.now = world.now.checked_add(k8s_openapi::jiff::SignedDuration::from_hours(1)).expect("a time");
    assert_eq!(runs_in(&plan(&world).job.expect("the next attempt")).1.as_deref(), Some(".revisions/2"));
    // A number that no revision has is not believed.
    let mut world = site_of("a", json!({}));
    second_revision(&mut world, "a", false);
    Arc::make_mut(&mut world.site).spec.maintenance_mode = Some(true);
    world.failure = Some(Failure { revision: Some(7), ..Failure::unknown() });
    fails(&mut world, "SiteElsewhere");
    assert_eq!(status(&world).revision, None);
}

/// While its background jobs run, nothing is tried, and it is served.
#[test]
fn a_busy_site_is_served_between_the_attempts() {
    let mut world = site_of("a", json!({}));
    second_revision(&mut world, "b", true);
    fails(&mut world, "JobsRunning");
    assert_eq!(condition_of(&world, "Ready"), pair("True", "UpdateRetrying"));
    fails(&mut world, "DatabaseFailed");
    assert_eq!(condition_of(&world, "Ready").0, "False", "it may be half migrated");
}

#[test]
fn a_new_site_is_created_on_the_newest_complete_revision() {
    for (complete, wanted, folder) in [(false, 1, None), (true, 2, Some(".revisions/2"))] {
        let mut world = observed(json!({}));
        image(&mut world, "a", Stage::Complete);
        second_revision(&mut world, "b", complete);
        let (made, _) = converge(&mut world, "Suspended");
        let job = made.iter().rfind(|it| it.kind == Kind::Job).expect("a Job").clone();
        assert_eq!(runs_in(&job).1.as_deref(), folder);
        assert_eq!(status(&world).revision, Some(wanted), "it is recorded with the Job");
        assert_eq!(status(&world).operation.map(|it| it.kind), Some(OperationKind::Init));
        // Where it is created does not change any more.
        second_revision(&mut world, "b", true);
        let job = plan(&world).job.expect("the same Job");
        assert_eq!(runs_in(&job).1.as_deref(), folder);
    }
}

#[test]
fn a_site_that_the_newest_revision_cannot_serve_stays() {
    let version = |world: &mut Observed, version: &str| {
        let mut bench = FrappeBench::clone(world.bench.as_deref().expect("a bench"));
        bench.status.as_mut().expect("a status").apps.iter_mut().for_each(|it| it.version = Some(version.to_owned()));
        world.bench = Some(Arc::new(bench));
    };
    let mut world = site_of("a", json!({}));
    second_revision(&mut world, "b", true);
    version(&mut world, "15.1.9");
    let (made, _) = converge(&mut world, "Complete");
    assert!(made.iter().all(|it| it.kind != Kind::Job), "a database is never migrated backwards");
    assert_eq!(condition_of(&world, "UpToDate"), pair("False", "UpdateRefused"));
    assert_eq!(condition_of(&world, "Ready"), pair("True", "Ready"));
    version(&mut world, "15.10.0");
    converge(&mut world, "Complete");
    assert_eq!(status(&world).revision, Some(2), "numbers are compared, not letters");
    // In place, such an image holds the site.
    let mut world = site_of("a", json!({}));
    image(&mut world, "b", Stage::Complete);
    version(&mut world, "15.1.9");
    let (made, _) = converge(&mut world, "Complete");
    assert!(made.iter().all(|it| it.kind != Kind::Job));
    assert_eq!(condition_of(&world, "Ready"), pair("False", "UpdateRefused"));
    // An app that it lacks.
    let mut world = site_of("a", json!({}));
    second_revision(&mut world, "b", true);
    let mut bench = FrappeBench::clone(world.bench.as_deref().expect("a bench"));
    bench.status.as_mut().expect("a status").apps = code("b").into_iter().filter(|it| it.name != "erpnext").collect();
    world.bench = Some(Arc::new(bench));
    converge(&mut world, "Complete");
    assert_eq!(condition_of(&world, "UpToDate"), pair("False", "UpdateRefused"));
}

#[test]
fn a_manual_site_moves_when_a_user_says_so() {
    let mut world = site_of("a", json!({"update": {"policy": "Manual"}}));
    second_revision(&mut world, "b", true);
    converge(&mut world, "Complete");
    assert_eq!((status(&world).revision, condition_of(&world, "UpToDate")), (None, pair("False", "UpdateManual")));
    assert_eq!(condition_of(&world, "Ready").0, "True");
    annotate(&mut world, labels::MIGRATE, "now");
    converge(&mut world, "Complete");
    assert_eq!(status(&world).revision, Some(2));
    assert_eq!(status(&world).last_handled_migrate.as_deref(), Some("now"));
}
