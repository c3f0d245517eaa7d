//! Tests of the decisions for a bench: tables, snapshots and properties.
#![allow(clippy::needless_pass_by_value, reason = "json! makes a value for each call")]

mod adoption;
mod code;
mod leaves;
mod protection;
mod redis;
mod revisions;
mod scaling;
mod starting;
mod upgrades;
mod volumes;
mod waves;

use std::{collections::BTreeMap, sync::Arc};

use frappe_crds::{
    FrappeBench, FrappeBenchStatus,
    bench::{BenchPhase, ConfigureFailure},
};
use jiff::Timestamp;
use kube::{ResourceExt, core::DynamicObject};
use serde_json::{Value, json};

use super::{
    build,
    model::{Observed, Plan, Step},
    plan::planned,
    seen::{End, unread_end},
};
use crate::{
    config::OperatorConfig,
    controllers::{job::Failure, lint::lint},
    domain::{
        capabilities::Capabilities,
        code::Code,
        condition,
        diff::first_difference,
        key::Key,
        labels,
        object::{Desired, Kind},
    },
};

fn bench(spec: Value) -> FrappeBench {
    let mut whole = json!({"frappeVersion": "15"});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "spec": whole, "status": {"redisProtected": false},
        "metadata": {"name": "prod", "namespace": "default", "uid": "bench-uid", "generation": 1, "resourceVersion": "7"},
    }))
    .expect("a bench")
}

fn observed(spec: Value) -> Observed {
    Observed {
        bench: Arc::new(bench(spec)),
        config: Arc::default(),
        capabilities: Capabilities::default(),
        detected_suffix: super::model::Detected::Suffix(None),
        redis_secret: None,
        redis_secret_version: None,
        read_secrets: Vec::new(),
        fresh_password: "generated".to_owned(),
        live: BTreeMap::new(),
        retired: Vec::new(),
        sites: Vec::new(),
        placed: None,
        failure: None,
        inspection: None,
        pod_problems: Vec::new(),
        classes: BTreeMap::new(),
        now: Timestamp::UNIX_EPOCH,
    }
}

fn live(desired: &Desired) -> Arc<DynamicObject> {
    let mut value = if desired.kind == Kind::Job { desired.body.clone() } else { desired.stamped() };
    let replicas = value["spec"]["replicas"].clone();
    value["metadata"]["uid"] = json!(format!("uid-{}", desired.key.name));
    value["metadata"]["generation"] = json!(1);
    value["status"] = match desired.kind {
        Kind::Job => json!({"conditions": [{"type": "Complete", "status": "True"}]}),
        Kind::PersistentVolumeClaim => json!({"phase": "Bound"}),
        Kind::ScaledObject => json!({"conditions": [{"type": "Ready", "status": "True"}]}),
        _ => {
            json!({"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas, "readyReplicas": replicas})
        }
    };
    Arc::new(serde_json::from_value(value).expect("an object"))
}

fn plan(observed: &Observed) -> Plan {
    planned(observed).plan
}

fn apply(observed: &mut Observed, plan: &Plan) {
    for step in &plan.steps {
        match step {
            Step::Create(desired) if desired.kind == Kind::Secret => {
                observed.redis_secret = Some(live(desired));
                observed.redis_secret_version = Some("1".to_owned());
            }
            Step::Create(desired) | Step::Ensure(desired) | Step::Adopt(desired) => {
                observed.live.insert((desired.kind, desired.key.name.clone()), live(desired));
            }
            Step::HandOver(_) | Step::WatchSecret(_) => {}
            Step::Delete(kind, gone) => {
                observed.live.remove(&(*kind, gone.name_any()));
                observed.retired.retain(|(_, it)| it != gone);
            }
            Step::Patch(_, metadata) => {
                let bench = Arc::make_mut(&mut observed.bench);
                bench.metadata.finalizers.clone_from(&metadata.finalizers);
            }
            other => panic!("no plan of a bench has {other:?}"),
        }
    }
    if let Some(status) = &plan.status {
        Arc::make_mut(&mut observed.bench).status = Some(status.clone());
    }
}

fn converge(observed: &mut Observed) -> Vec<Desired> {
    let mut made = Vec::new();
    for _ in 0..16 {
        let next = plan(observed);
        let quiet = |step: &Step| match step {
            Step::Ensure(desired) => observed.live.get(&(desired.kind, desired.key.name.clone())).is_some_and(|it| {
                first_difference(&desired.stamped(), &serde_json::to_value(it.as_ref()).expect("JSON")).is_none()
            }),
            _ => false,
        };
        if next.steps.iter().all(quiet) && next.status == observed.bench.status {
            return made;
        }
        made.extend(next.steps.iter().filter_map(|it| match it {
            Step::Create(desired) | Step::Ensure(desired) | Step::Adopt(desired) => Some(desired.clone()),
            _ => None,
        }));
        apply(observed, &next);
    }
    panic!("does not converge: {:?}", plan(observed).status)
}

fn ready(observed: &Observed) -> (BenchPhase, String, String) {
    let status = plan(observed).status.expect("a status");
    let ready = condition::find(&status.conditions, "Ready").expect("Ready").clone();
    (status.phase, ready.reason, ready.message)
}

fn find<'a>(made: &'a [Desired], kind: Kind, name: &str) -> &'a Value {
    &made
        .iter()
        .rev()
        .find(|it| it.kind == kind && it.key.name == name)
        .unwrap_or_else(|| panic!("no {kind:?} {name}"))
        .body
}

#[test]
fn a_bench_becomes_ready_with_the_objects_in_the_snapshots() {
    let mut world = observed(json!({"apps": [{"name": "erpnext", "source": "image"}]}));
    let made = converge(&mut world);
    assert_eq!(ready(&world).0, BenchPhase::Ready);
    let mut seen = std::collections::BTreeSet::new();
    for desired in made.iter().filter(|it| seen.insert((it.kind, it.key.clone()))) {
        assert_eq!(lint(desired), Vec::<String>::new());
        let mut body = desired.body.clone();
        if desired.kind == Kind::ConfigMap {
            body["data"]["site_runner.py"] = json!("[src/runner/site_runner.py]");
        }
        if desired.kind == Kind::Job {
            body["metadata"]["annotations"] = json!("[hash of request, image and runner]");
        }
        insta::assert_yaml_snapshot!(format!("{:?}-{}", desired.kind, desired.key.name), body);
    }
    insta::assert_yaml_snapshot!("status", world.bench.status);
}

#[test]
fn components_come_after_the_configuration() {
    let world = observed(json!({}));
    let first = plan(&world);
    let made: Vec<Kind> = first
        .steps
        .iter()
        .filter_map(|it| if let Step::Ensure(it) | Step::Create(it) = it { Some(it.kind) } else { None })
        .collect();
    assert!(made.contains(&Kind::Job) && !made.contains(&Kind::Deployment));
    assert_eq!(ready(&world).1, "Preparing");
}

#[test]
fn a_bench_is_ready_only_when_every_pod_is() {
    for (field, value) in [("availableReplicas", 1), ("updatedReplicas", 1), ("observedGeneration", 0), ("replicas", 3)]
    {
        let mut world = observed(json!({"componentReplicas": {"gunicorn": 2}}));
        converge(&mut world);
        if field == "observedGeneration" {
            // Since the bench is Ready with its current spec, only numbers of pods can have changed.
            Arc::make_mut(&mut world.bench).metadata.generation = Some(2);
        }
        let key = (Kind::Deployment, "prod-gunicorn".to_owned());
        let mut deployment = DynamicObject::clone(&world.live[&key]);
        deployment.data["status"][field] = json!(value);
        world.live.insert(key, Arc::new(deployment));
        let (phase, reason, message) = ready(&world);
        assert_eq!((phase, reason.as_str()), (BenchPhase::Progressing, "Starting"), "{field}");
        assert!(message.contains("gunicorn has"), "{message}");
    }
}

#[test]
fn every_setting_is_applied_to_its_object() {
    let made = converge(&mut observed(json!({
        "imageConfig": {"repository": "r.com/frappe/erpnext", "tag": "v15.41.2", "pullPolicy": "Always", "pullSecrets": [{"name": "registry"}]},
        "componentReplicas": {"gunicorn": 4, "nginx": 2, "socketio": 3, "workerLong": 0},
        "componentResources": {"worker-default": {"limits": {"cpu": "1"}}, "gunicorn": {"requests": {"memory": "1Gi"}},
                               "jobs": {"limits": {"memory": "4Gi"}}},
        "storageClassName": "fast-ssd", "storageSize": "50Gi",
        "redisConfig": {"cache": {"memory": "2Gi"}, "queue": {"memory": "1Gi"}, "image": "redis:8"},
        "security": {"podSecurityContext": {"runAsUser": 1001, "fsGroup": 1001}, "securityContext": {"readOnlyRootFilesystem": true}},
        "workerAutoscaling": {"default": {"minReplicas": 2}, "short": {"enabled": true, "minReplicas": 0}},
    })));
    let deployment = |name: &str| find(&made, Kind::Deployment, name);
    let pod = |name: &str| &deployment(name)["spec"]["template"]["spec"];
    let table = [
        (&deployment("prod-gunicorn")["spec"]["replicas"], json!(4)),
        (&deployment("prod-nginx")["spec"]["replicas"], json!(2)),
        (&deployment("prod-socketio")["spec"]["replicas"], json!(3)),
        (&deployment("prod-scheduler")["spec"]["replicas"], json!(1)),
        (&deployment("prod-scheduler")["spec"]["strategy"]["type"], json!("Recreate")),
        (&deployment("prod-worker-long")["spec"]["replicas"], json!(0)),
        (&deployment("prod-worker-default")["spec"]["replicas"], json!(2)),
        (&deployment("prod-worker-short")["spec"]["replicas"], json!(1)),
        (&pod("prod-gunicorn")["containers"][0]["image"], json!("r.com/frappe/erpnext:v15.41.2")),
        (&pod("prod-gunicorn")["containers"][0]["imagePullPolicy"], json!("Always")),
        (&pod("prod-gunicorn")["imagePullSecrets"], json!([{"name": "registry"}])),
        (&pod("prod-gunicorn")["securityContext"]["runAsUser"], json!(1001)),
        (&pod("prod-worker-long")["containers"][0]["env"], json!([{"name": "USER", "value": "frappe"}])),
        (&pod("prod-scheduler")["containers"][0]["env"], json!([{"name": "USER", "value": "frappe"}])),
        (&pod("prod-gunicorn")["securityContext"]["seccompProfile"]["type"], json!("RuntimeDefault")),
        (&pod("prod-gunicorn")["containers"][0]["securityContext"]["readOnlyRootFilesystem"], json!(true)),
        (&pod("prod-gunicorn")["containers"][0]["resources"], json!({"requests": {"memory": "1Gi"}})),
        (&pod("prod-worker-default")["containers"][0]["resources"], json!({"limits": {"cpu": "1"}})),
        (
            &find(&made, Kind::Job, "prod-configure")["spec"]["template"]["spec"]["containers"][0]["resources"],
            json!({"limits": {"memory": "4Gi"}}),
        ),
        (&pod("prod-worker-long")["terminationGracePeriodSeconds"], json!(1560)),
        (&find(&made, Kind::PersistentVolumeClaim, "prod-sites")["spec"]["storageClassName"], json!("fast-ssd")),
        (
            &find(&made, Kind::PersistentVolumeClaim, "prod-sites")["spec"]["resources"]["requests"]["storage"],
            json!("50Gi"),
        ),
    ];
    for (found, wanted) in table {
        assert_eq!(*found, wanted);
    }
    let redis = |name: &str| &find(&made, Kind::StatefulSet, name)["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(redis("prod-redis-cache")["image"], "redis:8");
    assert!(redis("prod-redis-cache")["args"].to_string().contains(r#""--maxmemory","2147483648""#));
    assert!(redis("prod-redis-queue")["args"].to_string().contains(r#""noeviction""#));
    assert_eq!(redis("prod-redis-queue")["resources"]["limits"]["memory"], json!((5_i64 << 28).to_string()));
}

#[test]
fn an_edit_that_is_reverted_restores_every_object() {
    let render = |world: &Observed| build::render(&world.input());
    let mut world = observed(json!({}));
    let before = render(&world);
    world.bench = Arc::new(bench(json!({"frappeVersion": "16", "componentReplicas": {"gunicorn": 9}})));
    assert_ne!(render(&world), before);
    world.bench = Arc::new(bench(json!({})));
    assert_eq!(render(&world), before);
}

/// A component with several pods has a PodDisruptionBudget; a single pod has none, so that its node can be drained.
#[test]
fn a_pod_disruption_budget_exists_while_there_are_two_pods() {
    let mut world = observed(json!({"componentReplicas": {"gunicorn": 3}}));
    let made = converge(&mut world);
    let spec = &find(&made, Kind::PodDisruptionBudget, "prod-gunicorn")["spec"];
    assert_eq!(spec["maxUnavailable"], json!(1));
    assert_eq!(spec["selector"], find(&made, Kind::Deployment, "prod-gunicorn")["spec"]["selector"]);
    let budgets = made.iter().filter(|it| it.kind == Kind::PodDisruptionBudget);
    assert!(budgets.into_iter().all(|it| it.key.name == "prod-gunicorn"), "the others have one pod");
    let budget =
        world.live.remove(&(Kind::PodDisruptionBudget, "prod-gunicorn".into())).expect("a PodDisruptionBudget");
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..bench(json!({})) });
    let gone = build::render(&world.input()).retired(&world.input());
    assert!(gone.contains(&(Kind::PodDisruptionBudget, Key::new("default", "prod-gunicorn"))));
    world.retired = vec![(Kind::PodDisruptionBudget, Arc::clone(&budget))];
    assert!(plan(&world).steps.contains(&Step::Delete(Kind::PodDisruptionBudget, budget.clone())));
    let mut others = (*budget).clone();
    others.metadata.owner_references = None;
    world.retired = vec![(Kind::PodDisruptionBudget, Arc::new(others))];
    assert!(
        !plan(&world).steps.iter().any(|it| matches!(it, Step::Delete(..))),
        "a PodDisruptionBudget of another owner is kept"
    );
}

fn configure_failed(world: &mut Observed, cause: Option<&str>) -> Option<String> {
    let job = world.live.get_mut(&(Kind::Job, "prod-configure".to_owned())).expect("a Job");
    Arc::make_mut(job).data["status"] = json!({"conditions": [{"type": "Failed", "status": "True"}]});
    world.failure = cause.map(|cause| Failure { code: Code::CommandFailed, message: cause.to_owned(), revision: None });
    let next = plan(world);
    apply(world, &next);
    world.failure = None;
    let status = world.bench.status.clone().expect("a status");
    let ready = condition::find(&status.conditions, "Ready").map(|it| it.message.clone()).unwrap_or_default();
    assert!(cause.is_none_or(|cause| ready.contains(cause)), "{ready}");
    status.configure_failure.map(|it| format!("{}: {}", it.code, it.message))
}

/// The recorded failure is that of the existing Job, not of an earlier one; there is none if the Job succeeded.
#[test]
fn the_cause_of_a_failed_configure_job_is_reported_until_it_is_replaced() {
    let mut world = observed(json!({}));
    converge(&mut world);
    assert_eq!(world.bench.status.as_ref().and_then(|it| it.configure_failure.clone()), None);
    assert_eq!(configure_failed(&mut world, Some("first")).as_deref(), Some("CommandFailed: first"));
    assert_eq!(configure_failed(&mut world, None).as_deref(), Some("CommandFailed: first"), "its pod is read once");
    world.live.remove(&(Kind::Job, "prod-configure".to_owned()));
    let next = plan(&world);
    apply(&mut world, &next);
    assert_eq!(world.bench.status.as_ref().and_then(|it| it.configure_failure.clone()), None, "it runs again");
    assert_eq!(configure_failed(&mut world, Some("second")).as_deref(), Some("CommandFailed: second"));
    // Recreated and succeeded between two reconciles.
    let job = world.live.get_mut(&(Kind::Job, "prod-configure".to_owned())).expect("a Job");
    Arc::make_mut(job).data["status"] = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    converge(&mut world);
    assert_eq!(world.bench.status.as_ref().and_then(|it| it.configure_failure.clone()), None);
}

#[test]
fn nothing_is_done_for_a_bench_whose_status_cannot_be_read() {
    let mut world = observed(json!({}));
    let annotation = (labels::TOO_LARGE.to_owned(), labels::UNREAD_STATUS.to_owned());
    Arc::make_mut(&mut world.bench).metadata.annotations = Some([annotation].into());
    assert_eq!(plan(&world), Plan::default());
}

#[test]
fn the_result_of_a_configure_job_is_read_once() {
    let job = |ended: &str| -> DynamicObject {
        let object = json!({"metadata": {"name": "prod-configure"},
                            "status": {"conditions": [{"type": ended, "status": "True"}]}});
        serde_json::from_value(object).expect("a Job")
    };
    let mut status = frappe_crds::FrappeBenchStatus::default();
    assert_eq!(unread_end(Some(&job("Failed")), &status, "r"), Some(End::Failure));
    assert_eq!(unread_end(Some(&job("Complete")), &status, "r"), Some(End::Apps));
    assert_eq!(unread_end(Some(&job("Suspended")), &status, "r"), None);
    assert_eq!(unread_end(None, &status, "r"), None);
    status.inspected_revision = Some("r".into());
    status.configure_failure =
        Some(ConfigureFailure { revision: "r".into(), code: "Unknown".into(), message: String::new() });
    assert_eq!(unread_end(Some(&job("Failed")), &status, "r"), None);
    assert_eq!(unread_end(Some(&job("Complete")), &status, "r"), None);
    assert_eq!(unread_end(Some(&job("Failed")), &status, "another"), Some(End::Failure));
}

#[test]
fn a_changed_configuration_runs_the_configure_job_again() {
    let mut world = observed(json!({}));
    converge(&mut world);
    world.config =
        Arc::new(OperatorConfig { default_frappe_image: Some("mine/erpnext:1".into()), ..OperatorConfig::default() });
    let next = plan(&world);
    assert!(next.steps.iter().any(|it| matches!(it, Step::Delete(Kind::Job, _))));
    let made = converge(&mut world);
    let image = &find(&made, Kind::Deployment, "prod-nginx")["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(*image, "mine/erpnext:15");
}

#[test]
fn an_unsupported_spec_is_rejected_and_changes_nothing() {
    let table = [
        (json!({"apps": [{"name": "a", "source": "git", "git": {"repository": "https://x/y"}}]}), "GitDisabled"),
        (json!({"apps": [{"name": "a", "source": "fpm"}]}), "AppSourceNotSupported"),
        (json!({"appsJSON": "[]"}), "AppSourceNotSupported"),
        (json!({"redisConfig": {"type": "dragonfly"}}), "RedisNotSupported"),
        (json!({"redisConfig": {"connectionSecretRef": {"name": "a", "namespace": "b"}}}), "SecretNamespaceRefused"),
    ];
    for (spec, reason) in table {
        let world = observed(spec.clone());
        assert_eq!(ready(&world).1, reason, "{spec}");
        assert!(plan(&world).steps.is_empty(), "{spec}");
    }
}

#[test]
fn a_bench_with_sites_is_not_deleted_and_names_them() {
    let mut world = observed(json!({}));
    converge(&mut world);
    let deleting = serde_json::from_value(json!("2026-01-02T00:00:00Z")).expect("a time");
    Arc::make_mut(&mut world.bench).metadata.deletion_timestamp = Some(deleting);
    world.sites = (1..=7).map(|number| format!("site-{number}")).collect();
    let (_, reason, message) = ready(&world);
    assert_eq!(reason, "DependentSitesExist");
    assert_eq!(message, "the bench has 7 sites (site-1, site-2, site-3, site-4, site-5 and 2 more): delete them first");
    world.sites.clear();
    Arc::make_mut(&mut world.bench).spec.storage_deletion_policy =
        Some(frappe_crds::bench::StorageDeletionPolicy::Delete);
    let last = plan(&world);
    let owned = last.steps.iter().any(|it| {
        matches!(it, Step::Ensure(claim) if claim.kind == Kind::PersistentVolumeClaim
            && claim.body["metadata"]["ownerReferences"].is_array())
    });
    assert!(owned, "the latest policy applies");
    apply(&mut world, &last);
    assert!(world.bench.finalizers().is_empty());
}
