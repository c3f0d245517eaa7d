//! A site's Jobs without a job slot, during an edit, and with another generation; and claims of deleted sites.

use super::*;
use frappe_crds::site::OutcomeState;

use crate::{controllers::job::Failure, domain::code::Code};

/// Without a job slot, the site reports that it waits, no operation is recorded, but the decisions are.
#[test]
fn without_a_job_slot_a_site_waits_and_records_no_operation() {
    let mut world = observed(json!({}));
    let mut verbs = Vec::new();
    for change in ["", "settings", "deletion"] {
        let site = Arc::make_mut(&mut world.site);
        match change {
            "settings" => drop(site.spec.site_config.insert("mute_emails".into(), json!(1))),
            "deletion" => {
                site.spec.deletion_policy = Some(frappe_crds::site::DeletionPolicy::Delete);
                site.metadata.deletion_timestamp =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now));
            }
            _ => {}
        }
        for _ in 0..9 {
            let wanted = super::super::plan::plan(&world);
            let Some(start) = wanted.start.clone().filter(|it| !world.jobs.contains_key(&it.job.key.name)) else {
                apply(&mut world, &wanted.started(), "Complete");
                continue;
            };
            let (waiting, started) = (wanted.clone().waiting(), wanted.started());
            assert_eq!((waiting.job.as_ref(), reason(&waiting).as_str()), (None, "WaitingForJobSlot"), "{change}");
            let operation = |plan: &Plan| plan.status.as_ref().and_then(|it| it.operation.clone());
            assert_eq!(operation(&waiting), world.site.status.as_ref().and_then(|it| it.operation.clone()));
            assert!(operation(&started).is_some() && operation(&started) != operation(&waiting));
            let decided = |plan: &Plan| plan.status.as_ref().and_then(|it| it.database.clone());
            assert!(decided(&waiting).is_some() && decided(&waiting) == decided(&started), "{change}");
            verbs.push(start.job.key.name.clone());
            break;
        }
        converge_or_end(&mut world);
    }
    assert_eq!(verbs, ["shop-init", "shop-apply", "shop-delete"]);
}

/// An edit during the first Job is applied by the next Job, and the creation of the site is recorded with it.
#[test]
fn an_edit_while_the_site_is_created_is_applied_by_the_next_job() {
    let mut world = observed(json!({}));
    while plan(&world).job.is_none() {
        let next = plan(&world);
        apply(&mut world, &next, "Complete");
    }
    let first = plan(&world);
    let created_with = first.status.as_ref().and_then(|it| it.operation.clone()).expect("an operation").configuration;
    apply(&mut world, &first, "Complete");
    Arc::make_mut(&mut world.site).spec.site_config.insert("mute_emails".into(), json!(1));
    let second = plan(&world);
    let status = second.status.clone().expect("a status");
    assert!(status.initialized && status.configuration == created_with, "{status:?}");
    assert_eq!(status.installed_apps, ["frappe", "erpnext"]);
    assert_eq!(second.job.as_ref().map(|it| it.key.name.as_str()), Some("shop-apply"));
    apply(&mut world, &second, "Failed");
    world.failure = Some(Failure { code: Code::Unknown, message: "it did not work".to_owned(), revision: None });
    assert_eq!(reason(&plan(&world)), "ConfigureRetrying", "the failure is reported");
}

/// A Job whose pod is rejected or fits no node does nothing until its deadline after an hour: the site reports it much earlier.
#[test]
fn a_job_that_cannot_start_is_reported() {
    let told = |seconds: i64, status: Value| {
        let mut world = observed(json!({}));
        while plan(&world).job.is_none() {
            let next = plan(&world);
            apply(&mut world, &next, "Complete");
        }
        let first = plan(&world);
        apply(&mut world, &first, "Running");
        let job = Arc::make_mut(world.jobs.get_mut("shop-init").expect("the Job"));
        job.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now));
        job.data["status"] = status;
        world.now += jiff::SignedDuration::from_secs(seconds);
        let next = plan(&world);
        (reason(&next), next.again_after.map(|it| it.as_secs()))
    };
    let table = [
        (5, json!({}), "Initializing", Some(15)),
        (20, json!({}), "JobNotStarting", None),
        (20, json!({"active": 1, "ready": 0}), "Initializing", Some(40)),
        (60, json!({"active": 1, "ready": 0}), "JobNotStarting", None),
        (600, json!({"active": 1, "ready": 1}), "Initializing", None),
    ];
    for (seconds, status, wanted, again) in table {
        assert_eq!(told(seconds, status.clone()), (wanted.to_owned(), again), "{seconds} s, {status}");
    }
}

/// The claim of a site whose finalizer a user removed is replaced for a site that wants the host.
#[test]
fn a_dead_claim_is_replaced() {
    let mut world = observed(json!({}));
    let dead = object(json!({
        "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeDomain", "metadata": {"name": "shop.example.com", "uid": "dead"},
        "spec": {"site": {"namespace": "default", "name": "former", "uid": "former"}},
    }));
    (world.claims[0].object, world.claims[0].holder) = (Some(dead), Holder::Gone);
    let steps = plan(&world).steps;
    let deleted =
        steps.iter().position(|it| matches!(it, Step::Delete(Kind::Domain, it) if it.uid().as_deref() == Some("dead")));
    let made = steps.iter().position(|it| matches!(it, Step::Create(it) if it.kind == Kind::Domain));
    assert!(deleted.is_some() && deleted < made, "{steps:?}");
}

/// A permanently failed operation is retried after any change of the spec.
#[test]
fn another_generation_retries_a_permanent_failure() {
    let mut world = observed(json!({}));
    while plan(&world).job.is_none() {
        let next = plan(&world);
        apply(&mut world, &next, "Complete");
    }
    let mut operation = plan(&world).status.and_then(|it| it.operation).expect("an operation");
    operation.outcome = Some(frappe_crds::site::Outcome {
        revision: None,
        state: OutcomeState::Failed,
        code: Code::Unknown.to_string(),
        message: "no".to_owned(),
        finished_at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now),
    });
    let site = Arc::make_mut(&mut world.site);
    site.status.get_or_insert_default().operation = Some(operation);
    assert_eq!((reason(&plan(&world)).as_str(), plan(&world).job), ("InitFailed", None));
    let site = Arc::make_mut(&mut world.site);
    site.metadata.generation = site.metadata.generation.map(|it| it + 1);
    assert_eq!(plan(&world).job.map(|it| it.key.name).as_deref(), Some("shop-init-2"));
}

/// Plans and executes until the plan is empty.
fn converge_or_end(world: &mut Observed) {
    for _ in 0..9 {
        let next = plan(world);
        apply(world, &next, "Complete");
    }
}
