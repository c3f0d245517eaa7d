//! Deletion of a site.

use super::*;

/// route, Job, account, secrets, claim, finalizer, in this order.
#[test]
fn a_deletion_takes_its_steps_in_order() {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    being_deleted(&mut world);
    let mut order = Vec::new();
    for _ in 0..6 {
        let next = plan(&world);
        for step in next.steps.iter().chain(&next.last) {
            order.push(match step {
                Step::Delete(kind, it) => format!("delete {kind:?} {}", it.name_any()),
                Step::Ensure(it) => format!("ensure {:?} {}", it.kind, it.body["spec"]["cleanupPolicy"]),
                Step::Patch(_, metadata) => format!("finalizers {}", json!(metadata.finalizers)),
                other => format!("{other:?}"),
            });
        }
        order.extend(
            next.job
                .iter()
                .filter(|it| !world.jobs.contains_key(&it.key.name))
                .map(|it| format!("job {}", it.key.name)),
        );
        apply(&mut world, &next, "Complete");
        if world.site.finalizers().is_empty() {
            break;
        }
    }
    insta::assert_yaml_snapshot!("deletion-order", order);
}

/// With `--cascade=foreground`, as GitOps tools prune, the garbage collector deletes at once what the site owns.
#[test]
fn a_deletion_in_the_foreground_keeps_its_job_and_deletes_it_at_the_end() {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    being_deleted(&mut world);
    Arc::make_mut(&mut world.site).metadata.finalizers.get_or_insert_default().push("foregroundDeletion".to_owned());
    let (mut job, mut deleted) = (None, Vec::new());
    for _ in 0..6 {
        let next = plan(&world);
        job = job.or_else(|| next.job.clone());
        deleted.extend(next.steps.iter().filter_map(|step| match step {
            Step::Delete(Kind::Job, it) => Some(it.name_any()),
            _ => None,
        }));
        apply(&mut world, &next, "Complete");
        // The collector ends before the operator.
        if job.is_some() {
            let finalizers = Arc::make_mut(&mut world.site).metadata.finalizers.get_or_insert_default();
            finalizers.retain(|it| it != "foregroundDeletion");
        }
    }
    let job = job.expect("the delete Job");
    assert_eq!(job.body["metadata"]["ownerReferences"], Value::Null);
    assert!(deleted.contains(&job.key.name), "{deleted:?}");
    assert!(world.site.finalizers().is_empty());
}

#[test]
fn protection_holds_a_deletion_and_retain_keeps_the_data() {
    let mut world = observed(json!({"deletionProtection": true}));
    converge(&mut world, "Complete");
    being_deleted(&mut world);
    let held = plan(&world);
    assert!(held.steps.is_empty() && held.last.is_empty());
    assert_eq!(reason(&held), "DeletionBlocked");

    let mut kept = observed(json!({"deletionPolicy": "Retain"}));
    converge(&mut kept, "Complete");
    being_deleted(&mut kept);
    let next = plan(&kept);
    let deleted: Vec<Kind> =
        next.steps.iter().filter_map(|it| if let Step::Delete(kind, _) = it { Some(*kind) } else { None }).collect();
    assert_eq!(deleted, [Kind::Ingress, Kind::Domain]);
    assert!(next.job.is_none() && !next.last.is_empty());
}

#[test]
fn a_failed_delete_job_keeps_the_finalizer() {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    being_deleted(&mut world);
    for _ in 0..8 {
        let next = plan(&world);
        apply(&mut world, &next, "Failed");
        world.now = Timestamp::from_second(100_000).expect("a time");
    }
    assert_eq!(reason(&plan(&world)), "DeletionFailed");
    assert!(!world.site.finalizers().is_empty());
    assert!(world.credentials.is_some() && world.sql.iter().all(Option::is_some), "nothing was removed");
}

#[test]
fn in_a_terminating_namespace_the_mariadb_operator_drops_the_database() {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    being_deleted(&mut world);
    world.namespace_terminating = true;
    let next = plan(&world);
    assert!(next.job.is_none());
    let policies: Vec<&Value> = next
        .steps
        .iter()
        .filter_map(|it| if let Step::Ensure(it) = it { Some(&it.body["spec"]["cleanupPolicy"]) } else { None })
        .collect();
    assert_eq!(policies, ["Delete", "Delete", "Delete"]);
}

#[test]
fn a_deletion_without_its_secret_waits_and_reports_what_remains() {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    being_deleted(&mut world);
    let secret = world.credentials.take();
    let held = plan(&world);
    assert_eq!(reason(&held), "DeletionBlocked");
    assert!(held.job.is_none() && held.last.is_empty());
    world.credentials = secret;
    assert!(plan(&world).job.is_some());
}

/// One operation at a time: the init Job and its pods end before the delete Job starts.
#[test]
fn a_running_init_job_is_stopped_first() {
    let mut world = observed(json!({}));
    for _ in 0..3 {
        let next = plan(&world);
        apply(&mut world, &next, "Running");
    }
    being_deleted(&mut world);
    let first = plan(&world);
    assert!(first.job.is_none());
    assert!(first.steps.iter().any(|it| matches!(it, Step::Delete(Kind::Job, job) if job.name_any() == "shop-init")));
    let mut going = DynamicObject::clone(&world.jobs["shop-init"]);
    going.metadata.deletion_timestamp = world.site.metadata.deletion_timestamp.clone();
    world.jobs.insert("shop-init".to_owned(), Arc::new(going));
    let second = plan(&world);
    assert!(second.job.is_none() && second.steps.is_empty(), "it waits: {:?}", second.steps);
    world.jobs.clear();
    assert_eq!(plan(&world).job.map(|it| it.key.name).as_deref(), Some("shop-delete"));
}
