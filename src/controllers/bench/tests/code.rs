//! What the configure Job found in the image: digest, versions, schemas, and the hold Job before workers of another image start.

use super::*;
use crate::controllers::{
    bench::{model::Input, rollout},
    job::Inspection,
};

const OLD: char = '1';
const NEW: char = '2';

pub(super) fn digest(of: char) -> String {
    format!("sha256:{}", of.to_string().repeat(64))
}

pub(super) fn found(schema: &str, image: Option<char>) -> Inspection {
    let row = |name: &str| frappe_crds::common::AppCode {
        name: name.to_owned(),
        version: Some("15.2.0".to_owned()),
        schema: Some(schema.to_owned()),
    };
    let names = ["erpnext", "frappe"];
    Inspection { apps: names.map(str::to_owned).into(), code: names.map(row).into(), digest: image.map(digest) }
}

/// A bench that runs an image of this digest.
fn running(image: Option<char>) -> Observed {
    let mut world = observed(json!({}));
    world.inspection = Some(found("a", image));
    converge(&mut world);
    world.inspection = None;
    converge(&mut world);
    world
}

pub(super) fn change(world: &mut Observed, tag: &str) {
    let next = bench(json!({"imageConfig": {"tag": tag}}));
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..next });
}

pub(super) fn image(world: &Observed, component: &str) -> String {
    let live = &world.live[&(Kind::Deployment, format!("prod-{component}"))];
    live.data["spec"]["template"]["spec"]["containers"][0]["image"].as_str().expect("an image").to_owned()
}

pub(super) fn status_of(world: &Observed) -> FrappeBenchStatus {
    world.bench.status.clone().expect("a status")
}

fn condition_of(world: &Observed, kind: &str) -> Option<(String, String)> {
    let status = status_of(world);
    condition::find(&status.conditions, kind).map(|it| (it.status.clone(), it.reason.clone()))
}

/// The first pods of a new image have its tag, all later ones its digest, from the beginning.
#[test]
fn pods_are_pinned_to_the_digest_that_the_configure_job_ran() {
    let mut world = observed(json!({}));
    let first = plan(&world);
    let job = first.steps.iter().find_map(|it| match it {
        Step::Create(it) if it.kind == Kind::Job => Some(it.clone()),
        _ => None,
    });
    let configured = &job.expect("a Job").body["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(configured, "docker.io/frappe/erpnext:version-15");
    world.inspection = Some(found("a", Some(OLD)));
    let made = converge(&mut world);
    let pinned = format!("docker.io/frappe/erpnext:version-15@{}", digest(OLD));
    for made in made.iter().filter(|it| it.kind == Kind::Deployment && it.component() != "redis") {
        assert_eq!(made.body["spec"]["template"]["spec"]["containers"][0]["image"], *pinned, "{}", made.key.name);
    }
    let status = status_of(&world);
    assert_eq!(status.image.as_deref(), Some("docker.io/frappe/erpnext:version-15"), "without the digest");
    assert_eq!((status.image_digest, status.frappe_version), (Some(digest(OLD)), Some("15.2.0".to_owned())));
    assert_eq!(condition_of(&world, "ImagePinned"), Some(("True".to_owned(), "Pinned".to_owned())));
    // Another configuration needs another configure Job: it runs the same code.
    world.inspection = None;
    let next = bench(json!({"gitConfig": {"enabled": true}, "componentReplicas": {"gunicorn": 2}}));
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..next });
    let again = build::configure_job(&world.input());
    assert_eq!(again.body["spec"]["template"]["spec"]["containers"][0]["image"], *pinned);
    // Another tag is looked at anew.
    change(&mut world, "16");
    assert_eq!(world.input().pinned_image(), "docker.io/frappe/erpnext:16");
}

/// A container runtime reports no digest for an image that was loaded into the node.
#[test]
fn without_a_digest_the_tag_is_used_and_said_to_be() {
    let world = running(None);
    assert!(image(&world, "gunicorn").ends_with(":version-15"));
    assert_eq!(condition_of(&world, "ImagePinned"), Some(("False".to_owned(), "DigestUnknown".to_owned())));
    let mut earlier = observed(json!({}));
    converge(&mut earlier);
    assert_eq!(condition_of(&earlier, "ImagePinned"), None, "nothing is known");
}

/// An upgrade of the operator, or a lost status, restarts no pod; the next image is pinned.
#[test]
fn a_digest_that_becomes_known_or_unknown_changes_no_pod() {
    let mut world = observed(json!({}));
    converge(&mut world);
    assert!(status_of(&world).apps.is_empty(), "of an earlier version");
    world.inspection = Some(found("a", Some(OLD)));
    let made = converge(&mut world);
    assert!(made.iter().all(|it| it.kind != Kind::Deployment || !format!("{}", it.body).contains("@sha256")));
    assert!(image(&world, "gunicorn").ends_with(":version-15"));
    let status = status_of(&world);
    assert_eq!(status.assumed_apps, status.apps, "its sites have the schema of the image that it runs");
    // The next image.
    change(&mut world, "16");
    world.inspection = Some(found("b", Some(NEW)));
    converge(&mut world);
    assert!(image(&world, "gunicorn").ends_with(&format!(":16@{}", digest(NEW))), "{}", image(&world, "gunicorn"));
    assert_eq!(status_of(&world).assumed_apps, status.apps, "as before");
    // The digest is lost with the status.
    world.inspection = None;
    let mut lost = status_of(&world);
    lost.image_digest = None;
    Arc::make_mut(&mut world.bench).status = Some(lost);
    assert!(world.input().digest.is_none());
    converge(&mut world);
    assert!(image(&world, "gunicorn").contains("@sha256"));
}

/// A new value of the annotation: the registry is asked again, once.
#[test]
fn a_redeploy_runs_what_the_tag_names_now() {
    let mut world = running(Some(OLD));
    let before = status_of(&world);
    Arc::make_mut(&mut world.bench).metadata.annotations = Some([(labels::REDEPLOY.to_owned(), "1".to_owned())].into());
    let job = build::configure_job(&world.input());
    let container = &job.body["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["image"], &container["imagePullPolicy"]),
        (&json!("docker.io/frappe/erpnext:version-15"), &json!("Always"))
    );
    assert_ne!(job.annotation(labels::APPLIED_HASH), before.desired_revision.as_deref(), "the Job runs again");
    world.inspection = Some(found("a", Some(NEW)));
    converge(&mut world);
    assert!(image(&world, "scheduler").ends_with(&digest(NEW)));
    world.inspection = None;
    let status = status_of(&world);
    assert_eq!((status.last_handled_redeploy.as_deref(), status.image_digest), (Some("1"), Some(digest(NEW))));
    let again = build::configure_job(&world.input());
    assert!(again.body.to_string().contains(&digest(NEW)), "handled");
}

/// Only a bench that ran before, with an image that has not changed since, may have sites without a recorded schema.
#[test]
fn a_schema_is_assumed_only_for_sites_of_earlier_versions() {
    let assumed = |input: &Input| build::configure_job(input).body.to_string().contains("assume");
    assert!(!assumed(&observed(json!({})).input()), "a new bench");
    let mut world = observed(json!({}));
    converge(&mut world);
    let same = build::configure_job(&world.input());
    assert!(assumed(&world.input()));
    change(&mut world, "16");
    assert!(!assumed(&world.input()), "another image");
    let world = running(Some(OLD));
    assert!(!assumed(&world.input()), "recorded");
    let recorded = build::configure_job(&world.input());
    assert_eq!(
        recorded.annotation(labels::APPLIED_HASH),
        same.annotation(labels::APPLIED_HASH),
        "the Job is not run again"
    );
}

fn job_state(world: &mut Observed, state: &str) {
    let key = (Kind::Job, "prod-hold".to_owned());
    let mut job = DynamicObject::clone(&world.live[&key]);
    job.data["status"] = json!({"conditions": [{"type": state, "status": "True"}]});
    world.live.insert(key, Arc::new(job));
}

/// Rolls another image out until its hold Job runs, before any worker is replaced.
fn until_held(world: &mut Observed) {
    change(world, "16");
    world.inspection = Some(found("b", Some(NEW)));
    for _ in 0..8 {
        let next = plan(world);
        let created = next.steps.iter().any(|it| matches!(it, Step::Create(it) if it.key.name == "prod-hold"));
        apply(world, &next);
        if created {
            job_state(world, "Suspended");
        }
    }
}

/// Before workers of another image start, the background jobs of sites with another schema are stopped.
#[test]
fn workers_of_another_image_wait_for_the_hold_job() {
    let mut world = running(Some(OLD));
    assert!(!world.live.contains_key(&(Kind::Job, "prod-hold".to_owned())), "a new bench needs none");
    until_held(&mut world);
    assert!(image(&world, "socketio").contains(":16@"));
    assert!(image(&world, "worker-short").contains(":version-15"), "no worker runs a job on another schema");
    let status = status_of(&world);
    assert_eq!(status.front_revision, status.desired_revision, "nginx holds the sites with another schema");
    assert_ne!(status.running_revision, status.desired_revision);
    job_state(&mut world, "Failed");
    let (phase, reason, _) = ready(&world);
    assert_eq!((phase, reason.as_str()), (BenchPhase::Failed, "HoldFailed"));
    job_state(&mut world, "Complete");
    converge(&mut world);
    assert!(image(&world, "worker-short").contains(":16@") && image(&world, "scheduler").contains(":16@"));
    assert_eq!(ready(&world).0, BenchPhase::Ready);
    // Its Job is deleted after an hour, and not run again.
    world.live.remove(&(Kind::Job, "prod-hold".to_owned()));
    assert!(converge(&mut world).is_empty());
    assert!(!rollout::staged(&world, &build::render(&world.input()), false).awaits_hold);
}

/// The Job of an earlier rollout says nothing about this one.
#[test]
fn the_hold_job_of_another_revision_is_run_again() {
    let mut world = running(Some(OLD));
    change(&mut world, "16");
    world.inspection = Some(found("b", Some(NEW)));
    converge(&mut world);
    let first = world.live[&(Kind::Job, "prod-hold".to_owned())].clone();
    change(&mut world, "17");
    world.inspection = Some(found("c", Some('3')));
    converge(&mut world);
    let second = &world.live[&(Kind::Job, "prod-hold".to_owned())];
    assert_ne!(first.annotations().get(labels::APPLIED_HASH), second.annotations().get(labels::APPLIED_HASH));
    assert!(image(&world, "worker-long").contains(":17@"));
}

/// An image that is set back after the hold Job ran, and before any worker was replaced: the sites that fit it are released by another run.
#[test]
fn sites_that_were_held_for_an_abandoned_image_are_released() {
    let mut world = running(Some(OLD));
    until_held(&mut world);
    let held = status_of(&world).held_revision;
    assert!(held.is_some() && image(&world, "worker-short").contains(":version-15"));
    let back = bench(json!({}));
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..back });
    world.inspection = Some(found("a", Some(OLD)));
    let made = converge(&mut world);
    assert!(made.iter().any(|it| it.key.name == "prod-hold"), "it runs for the image that is back");
    assert_ne!(status_of(&world).held_revision, held);
    assert_eq!(ready(&world).0, BenchPhase::Ready);
    world.live.remove(&(Kind::Job, "prod-hold".to_owned()));
    assert!(converge(&mut world).is_empty(), "once");
}

/// Until nginx runs the new image completely, it does not hold sites.
#[test]
fn sites_are_held_only_when_all_of_nginx_runs_the_image() {
    let mut world = running(Some(OLD));
    let before = status_of(&world).front_revision;
    assert!(before.is_some());
    change(&mut world, "16");
    let next = plan(&world);
    apply(&mut world, &next);
    assert_eq!(status_of(&world).front_revision, before, "the image was not looked at");
    world.inspection = Some(found("b", Some(NEW)));
    let next = plan(&world);
    apply(&mut world, &next);
    assert_eq!(status_of(&world).front_revision, before, "nginx is rolled out");
}
