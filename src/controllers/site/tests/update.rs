//! migration of a site to the schema of its bench's image.

use frappe_crds::{
    common::AppCode,
    site::{OperationKind, UpdateResult},
};
use k8s_openapi::jiff::SignedDuration;

use super::*;
use crate::controllers::job::Failure;

pub(super) fn code(schema: &str) -> Vec<AppCode> {
    let app = |name: &str| AppCode {
        name: name.to_owned(),
        version: Some("15.2.0".to_owned()),
        schema: Some(format!("{name}-{schema}")),
    };
    ["erpnext", "frappe", "hrms"].map(app).into()
}

/// Stages of the rollout of an image.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// The image was looked at, and no pod of nginx runs it.
    Inspected,
    /// All pods of nginx run it.
    Front,
    /// All pods run it.
    Complete,
}

pub(super) fn image(world: &mut Observed, schema: &str, stage: Stage) {
    let mut bench = FrappeBench::clone(world.bench.as_deref().expect("a bench"));
    let status = bench.status.get_or_insert_default();
    status.apps = code(schema);
    status.desired_revision = Some(schema.to_owned());
    let run =
        |completes: bool, before: &Option<String>| if completes { Some(schema.to_owned()) } else { before.clone() };
    status.front_revision = run(!matches!(stage, Stage::Inspected), &status.front_revision);
    status.running_revision = run(matches!(stage, Stage::Complete), &status.running_revision);
    world.bench = Some(Arc::new(bench));
}

pub(super) fn strategy(world: &mut Observed, strategy: Value) {
    let mut bench = FrappeBench::clone(world.bench.as_deref().expect("a bench"));
    bench.spec.update_strategy = serde_json::from_value(strategy).expect("a strategy");
    world.bench = Some(Arc::new(bench));
}

/// A site that was created with this schema.
pub(super) fn site_of(schema: &str, spec: Value) -> Observed {
    let mut world = observed(spec);
    image(&mut world, schema, Stage::Complete);
    converge(&mut world, "Complete");
    world
}

pub(super) fn status(world: &Observed) -> FrappeSiteStatus {
    world.site.status.clone().expect("a status")
}

pub(super) fn condition_of(world: &Observed, kind: &str) -> (String, String) {
    let status = plan(world).status.unwrap_or_else(|| status(world));
    let found = condition::find(&status.conditions, kind).expect("the condition");
    (found.status.clone(), found.reason.clone())
}

pub(super) fn annotate(world: &mut Observed, name: &str, value: &str) {
    Arc::make_mut(&mut world.site).annotations_mut().insert(name.to_owned(), value.to_owned());
}

pub(super) fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

pub(super) fn request(job: &Desired) -> Value {
    let text = job.body["spec"]["template"]["spec"]["containers"][0]["args"][1].as_str().expect("a request");
    serde_json::from_str(text).expect("JSON")
}

/// Executes one plan, whose Job fails with this code, and returns the Job.
pub(super) fn fails(world: &mut Observed, code: &str) -> Desired {
    world.now = world.now.checked_add(SignedDuration::from_hours(1)).expect("a time");
    let next = plan(world);
    let job = next.job.clone().expect("a Job");
    apply(world, &next, "Failed");
    let mut failed = DynamicObject::clone(&world.jobs[&job.key.name]);
    failed.data["status"]["conditions"][0]["lastTransitionTime"] = json!(world.now.to_string());
    world.jobs.insert(job.key.name.clone(), Arc::new(failed));
    let revision = world.failure.take().and_then(|it| it.revision);
    world.failure =
        Some(Failure { code: code.parse().expect("a code"), message: format!("step migrate: {code}"), revision });
    let next = plan(world);
    apply(world, &next, "Failed");
    world.failure = None;
    job
}

#[test]
fn a_new_site_has_the_schema_of_the_image() {
    let world = site_of("a", json!({}));
    let apps: Vec<_> = status(&world).apps.into_iter().map(|it| it.schema.expect("a schema")).collect();
    assert_eq!(apps, ["erpnext-a", "frappe-a"], "of the installed apps");
    assert_eq!(condition_of(&world, "UpToDate"), pair("True", "UpToDate"));
}

/// Ready says what a request gets: until nginx runs the image completely, the site is served by the previous one.
#[test]
fn a_site_is_migrated_when_all_pods_run_the_image() {
    let mut world = site_of("a", json!({}));
    image(&mut world, "b", Stage::Inspected);
    assert!(is_empty(&world, &plan(&world)), "nothing is written while the previous image serves it");
    image(&mut world, "b", Stage::Front);
    converge(&mut world, "Complete");
    assert_eq!(
        (status(&world).phase, condition_of(&world, "Ready")),
        (SitePhase::Provisioning, pair("False", "UpdateRequired"))
    );
    assert_eq!(condition_of(&world, "UpToDate"), pair("False", "UpdateRequired"));
    assert_eq!(condition_of(&world, "SiteInitialized").0, "True");
    image(&mut world, "b", Stage::Complete);
    let next = plan(&world);
    assert_eq!(reason(&next), "Updating");
    let job = next.job.clone().expect("a Job");
    assert_eq!((job.key.name.as_str(), lint(&job)), ("shop-update", Vec::new()));
    let update = &request(&job)["update"];
    let wanted = json!({"id": update["id"], "drain_seconds": 300, "dump": true, "skip_failing": false, "back_only": false,
        "keep_seconds": 259_200, "force": false});
    assert_eq!(*update, wanted);
    assert_eq!(job.body["spec"]["activeDeadlineSeconds"], 3600);
    apply(&mut world, &next, "Suspended");
    assert_eq!(condition_of(&world, "UpToDate"), pair("False", "Updating"));
    assert_eq!(status(&world).operation.map(|it| it.kind), Some(OperationKind::Update));
    world.jobs.clear();
    converge(&mut world, "Complete");
    let after = status(&world);
    assert_eq!((after.phase, after.apps[1].schema.as_deref()), (SitePhase::Ready, Some("frappe-b")));
    let last = after.last_update.expect("a result");
    assert_eq!((last.result, json!(last.id)), (UpdateResult::Updated, update["id"].clone()));
    assert_eq!(condition_of(&world, "UpToDate"), pair("True", "UpToDate"));
}

/// A Job is kept for an hour: the next one of the same kind has another name.
#[test]
fn alternating_operations_never_find_an_earlier_job() {
    let mut world = site_of("a", json!({}));
    let mut names = Vec::new();
    for (turn, schema) in ["b", "c"].into_iter().enumerate() {
        image(&mut world, schema, Stage::Complete);
        names.extend(converge(&mut world, "Complete").0.into_iter().filter(|it| it.kind == Kind::Job));
        Arc::make_mut(&mut world.site).spec.maintenance_mode = Some(turn == 0);
        names.extend(converge(&mut world, "Complete").0.into_iter().filter(|it| it.kind == Kind::Job));
    }
    let names: Vec<_> = names.into_iter().map(|it| it.key.name).collect();
    assert_eq!(names, ["shop-update", "shop-apply-2", "shop-update-3", "shop-apply-4"]);
}

/// While the schema differs, nothing else is changed in the site.
#[test]
fn a_change_of_the_site_waits_for_its_migration() {
    let mut world = site_of("a", json!({}));
    image(&mut world, "b", Stage::Complete);
    strategy(&mut world, json!({"paused": true}));
    Arc::make_mut(&mut world.site).spec.maintenance_mode = Some(true);
    let (made, _) = converge(&mut world, "Complete");
    assert!(made.iter().all(|it| it.kind != Kind::Job), "{made:?}");
    strategy(&mut world, json!({}));
    let (made, _) = converge(&mut world, "Complete");
    let names: Vec<_> = made.into_iter().filter(|it| it.kind == Kind::Job).map(|it| it.key.name).collect();
    assert_eq!(names, ["shop-update", "shop-apply-2"]);
}

/// A migration that failed would fail again: the site stays as it was, and says so, until something changes.
#[test]
fn a_failed_migration_is_rolled_back_once() {
    let mut world = site_of("a", json!({}));
    image(&mut world, "b", Stage::Complete);
    fails(&mut world, "UpdateFailed");
    let after = status(&world);
    assert_eq!(after.apps[1].schema.as_deref(), Some("frappe-a"), "the schema of before");
    let last = after.last_update.expect("a result");
    assert_eq!(last.result, UpdateResult::RolledBack);
    assert!(last.message.is_some_and(|it| it.contains("step migrate")));
    assert_eq!((after.phase, condition_of(&world, "UpToDate")), (SitePhase::Failed, pair("False", "UpdateFailed")));
    world.jobs.clear();
    world.now = Timestamp::from_second(1_000_000).expect("a time");
    converge(&mut world, "Complete");
    assert_eq!(condition_of(&world, "Ready"), pair("False", "UpdateFailed"), "no Job, however long it lasts");
    // A user asks for another attempt.
    annotate(&mut world, labels::RETRY, "1");
    let job = fails(&mut world, "UpdateFailed");
    assert_eq!(job.key.name, "shop-update-2");
    // The image is set back.
    let mut back = world;
    image(&mut back, "a", Stage::Complete);
    converge(&mut back, "Complete");
    assert_eq!((status(&back).phase, condition_of(&back, "UpToDate")), (SitePhase::Ready, pair("True", "UpToDate")));
    // Another image is another attempt.
    image(&mut back, "c", Stage::Complete);
    converge(&mut back, "Complete");
    assert_eq!(status(&back).apps[1].schema.as_deref(), Some("frappe-c"));
}

/// No attempt ends in a site that nobody works on.
#[test]
fn after_three_attempts_or_its_deadline_a_migration_goes_back() {
    let back_only = |job: &Desired| {
        (request(job)["update"]["back_only"].clone(), job.body["spec"]["activeDeadlineSeconds"].clone())
    };
    let mut world = site_of("a", json!({}));
    image(&mut world, "b", Stage::Complete);
    let ids: std::collections::BTreeSet<_> = (0..6)
        .map(|attempt| {
            let job = fails(&mut world, if attempt < 3 { "DatabaseFailed" } else { "RollbackFailed" });
            let wanted = if attempt < 3 { (json!(false), json!(3600)) } else { (json!(true), json!(14_400)) };
            assert_eq!(back_only(&job), wanted, "attempt {attempt}");
            request(&job)["update"]["id"].to_string()
        })
        .collect();
    assert_eq!(ids.len(), 1, "one update, one dump");
    assert_eq!(status(&world).last_update.map(|it| it.result), Some(UpdateResult::RollbackFailed));
    assert_eq!(condition_of(&world, "Ready"), pair("False", "RollbackFailed"));
    // A Job that took too long.
    let mut world = site_of("a", json!({}));
    image(&mut world, "b", Stage::Complete);
    let next = plan(&world);
    apply(&mut world, &next, "Failed");
    let mut late = DynamicObject::clone(&world.jobs["shop-update"]);
    late.data["status"]["conditions"][0]["reason"] = json!("DeadlineExceeded");
    world.jobs.insert("shop-update".to_owned(), Arc::new(late));
    let next = plan(&world);
    apply(&mut world, &next, "Failed");
    assert_eq!(reason(&next), "UpdateRetrying");
    let job = fails(&mut world, "UpdateFailed");
    assert_eq!(back_only(&job), (json!(true), json!(14_400)));
    assert_eq!(status(&world).last_update.map(|it| it.result), Some(UpdateResult::RolledBack));
}

/// Nothing was tried, so that it is tried again, without an end.
#[test]
fn a_migration_waits_for_running_jobs_of_the_site() {
    let mut world = site_of("a", json!({}));
    image(&mut world, "b", Stage::Complete);
    for _ in 0..8 {
        let job = fails(&mut world, "JobsRunning");
        assert_eq!(request(&job)["update"]["back_only"], false);
        let next = plan(&world);
        assert_eq!(
            (reason(&next).as_str(), next.again_after),
            ("UpdateRetrying", Some(std::time::Duration::from_mins(10)))
        );
    }
    world.now = world.now.checked_add(SignedDuration::from_hours(1)).expect("a time");
    converge(&mut world, "Complete");
    assert_eq!(condition_of(&world, "UpToDate"), pair("True", "UpToDate"));
}

#[test]
fn a_user_decides_when_a_manual_site_is_migrated() {
    let mut world = site_of("a", json!({"update": {"policy": "Manual"}}));
    image(&mut world, "b", Stage::Complete);
    converge(&mut world, "Complete");
    assert_eq!(condition_of(&world, "Ready"), pair("False", "UpdateManual"));
    annotate(&mut world, labels::MIGRATE, "now");
    converge(&mut world, "Complete");
    assert_eq!(condition_of(&world, "UpToDate"), pair("True", "UpToDate"));
    assert_eq!(status(&world).last_handled_migrate.as_deref(), Some("now"));
}

/// Another value of the annotation migrates a site whose schema is the image's.
#[test]
fn a_migration_can_be_requested_at_any_time() {
    let mut world = site_of("a", json!({}));
    annotate(&mut world, labels::MIGRATE, "1");
    image(&mut world, "a", Stage::Complete);
    let next = plan(&world);
    assert_eq!(request(next.job.as_ref().expect("a Job"))["update"]["force"], true);
    converge(&mut world, "Complete");
    assert!(is_empty(&world, &plan(&world)), "once");
    annotate(&mut world, labels::MIGRATE, "2");
    fails(&mut world, "UpdateFailed");
    let after = status(&world);
    assert_eq!((after.last_handled_migrate.as_deref(), after.phase), (Some("2"), SitePhase::Failed));
}

#[test]
fn a_pause_starts_no_migration_and_stops_none() {
    let mut world = site_of("a", json!({}));
    image(&mut world, "b", Stage::Complete);
    strategy(&mut world, json!({"paused": true}));
    converge(&mut world, "Complete");
    assert_eq!(condition_of(&world, "Ready"), pair("False", "UpdatePaused"));
    strategy(&mut world, json!({}));
    let next = plan(&world);
    apply(&mut world, &next, "Suspended");
    strategy(&mut world, json!({"paused": true}));
    assert_eq!(reason(&plan(&world)), "Updating");
}

#[test]
fn each_setting_of_the_strategy_reaches_the_job() {
    let table = [
        (json!({"progressDeadline": "2h30m"}), "/spec/activeDeadlineSeconds", json!(9000)),
        (json!({"drainTimeout": "90s"}), "/update/drain_seconds", json!(90)),
        (json!({"skipFailingPatches": true}), "/update/skip_failing", json!(true)),
        (json!({"safetyBackup": {"mode": "None"}}), "/update/dump", json!(false)),
        (json!({"safetyBackup": {"keepFor": "24h"}}), "/update/keep_seconds", json!(86_400)),
        (json!({"type": "InPlace"}), "/update/force", json!(false)),
    ];
    for (settings, path, value) in table {
        let mut world = site_of("a", json!({}));
        image(&mut world, "b", Stage::Complete);
        strategy(&mut world, settings.clone());
        let job = plan(&world).job.expect("a Job");
        let whole = json!({"spec": job.body["spec"], "update": request(&job)["update"]});
        assert_eq!(whole.pointer(path), Some(&value), "{settings}");
    }
    let mut world = site_of("a", json!({"update": {"skipFailingPatches": false}}));
    image(&mut world, "b", Stage::Complete);
    strategy(&mut world, json!({"skipFailingPatches": true}));
    assert_eq!(request(&plan(&world).job.expect("a Job"))["update"]["skip_failing"], false, "the site's own setting");
}

/// Of a site of an earlier version nothing is recorded: it is assumed to have the schema of the image that its bench ran at the upgrade.
#[test]
fn an_upgrade_of_the_operator_migrates_nothing() {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    assert!(status(&world).apps.is_empty());
    image(&mut world, "a", Stage::Complete);
    assert!(is_empty(&world, &plan(&world)), "nothing is known, and nothing is written");
    let mut bench = FrappeBench::clone(world.bench.as_deref().expect("a bench"));
    bench.status.get_or_insert_default().assumed_apps = code("a");
    world.bench = Some(Arc::new(bench));
    assert!(is_empty(&world, &plan(&world)), "nothing is written");
    image(&mut world, "b", Stage::Complete);
    let (made, _) = converge(&mut world, "Complete");
    let jobs: Vec<_> = made.into_iter().filter(|it| it.kind == Kind::Job).map(|it| it.key.name).collect();
    assert_eq!(jobs, ["shop-update"]);
    assert_eq!(status(&world).apps[0].schema.as_deref(), Some("erpnext-b"));
}

/// An app that is installed later has the schema of the image then; the others keep theirs.
#[test]
fn the_schema_of_an_app_is_recorded_when_it_is_installed_and_removed() {
    let mut world = site_of("a", json!({"apps": ["erpnext"]}));
    let mut bench = FrappeBench::clone(world.bench.as_deref().expect("a bench"));
    bench.spec.apps.push(serde_json::from_value(json!({"name": "hrms", "source": "image"})).expect("an app"));
    world.bench = Some(Arc::new(bench));
    let edit = |world: &mut Observed, apps: &[&str], removed: &[&str]| {
        let names = |apps: &[&str]| apps.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let spec = &mut Arc::make_mut(&mut world.site).spec;
        (spec.apps, spec.removed_apps) = (Some(names(apps)), names(removed));
        converge(world, "Complete");
        status(world).apps.into_iter().map(|it| it.schema.expect("a schema")).collect::<Vec<_>>()
    };
    assert_eq!(edit(&mut world, &["erpnext", "hrms"], &[]), ["frappe-a", "erpnext-a", "hrms-a"]);
    assert_eq!(edit(&mut world, &["erpnext"], &["hrms"]), ["frappe-a", "erpnext-a"]);
}

/// Data that is kept is not left half migrated.
#[test]
fn a_deletion_that_keeps_the_data_waits_for_the_migration() {
    let mut world = site_of("a", json!({"deletionPolicy": "Retain"}));
    image(&mut world, "b", Stage::Complete);
    let next = plan(&world);
    apply(&mut world, &next, "Suspended");
    being_deleted(&mut world);
    let next = plan(&world);
    assert!(!next.steps.iter().any(|it| matches!(it, Step::Patch(..))), "the finalizer stays");
    assert_eq!(reason(&next), "Deleting");
    world.jobs.clear();
    let next = plan(&world);
    assert!(next.steps.iter().chain(&next.last).any(|it| matches!(it, Step::Patch(..))));
}

/// A crash after any write: the same Jobs, and the same result.
#[test]
fn a_crash_after_any_write_of_an_update_converges() {
    let mut whole = site_of("a", json!({}));
    image(&mut whole, "b", Stage::Complete);
    let start = whole.site.clone();
    converge(&mut whole, "Complete");
    for cut in 1..8 {
        let mut world = site_of("a", json!({}));
        image(&mut world, "b", Stage::Complete);
        world.site = start.clone();
        let mut left = cut;
        'turns: for _ in 0..4 {
            for write in writes(&plan(&world)) {
                apply(&mut world, &write, "Complete");
                left -= 1;
                if left == 0 {
                    break 'turns;
                }
            }
        }
        converge(&mut world, "Complete");
        let names = |world: &Observed| world.jobs.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&world), names(&whole), "cut after {cut} writes");
        assert_eq!(status(&world).apps, status(&whole).apps);
    }
}
