//! Tests of what is decided for a site: tables, snapshots, and properties.
#![allow(clippy::needless_pass_by_value, reason = "json! makes a value for each call")]

use std::{collections::BTreeMap, sync::Arc};

use frappe_crds::{FrappeBench, FrappeSite, FrappeSiteStatus, site::SitePhase};
use jiff::Timestamp;
use kube::{ResourceExt, core::DynamicObject};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    observe::{Fresh, Holder, Observed},
    plan::{Plan, Step, plan},
    reason::Reason,
};
use crate::{
    config::OperatorConfig,
    controllers::lint::lint,
    domain::{
        condition,
        diff::first_difference,
        object::{Desired, Kind},
    },
};

fn object(value: Value) -> Arc<DynamicObject> {
    Arc::new(serde_json::from_value(value).expect("an object"))
}

fn bench() -> FrappeBench {
    serde_json::from_value(json!({
        "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench",
        "metadata": {"name": "bench", "namespace": "default", "uid": "bench-uid", "generation": 1},
        "spec": {"frappeVersion": "15", "apps": [{"name": "erpnext", "source": "image"}]},
        "status": {"phase": "Ready", "conditions": [{
            "type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    }))
    .expect("a bench")
}

fn site(spec: Value) -> FrappeSite {
    let mut whole = json!({"siteName": "shop.example.com", "benchRef": {"name": "bench"}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "spec": whole,
        "metadata": {
            "name": "shop", "namespace": "default", "uid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "generation": 1,
            "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
        },
    }))
    .expect("a site")
}

fn observed(spec: Value) -> Observed {
    let server = json!({
        "apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "spec": {},
        "metadata": {"name": "mariadb", "namespace": "default"},
    });
    Observed {
        site: Arc::new(site(spec)),
        config: Arc::default(),
        bench: Some(Arc::new(bench())),
        claim: None,
        holder: Holder::Nobody,
        credentials: None,
        admin_secret: None,
        mariadb_installed: true,
        servers: vec![object(server)],
        sql: [None, None, None],
        jobs: BTreeMap::new(),
        ingress: None,
        failure: None,
        namespace_terminating: false,
        epoch: 1,
        fresh: Fresh {
            identity: "0123456789abcdef".into(),
            database_password: "SecretOfDatabase".into(),
            encryption_key: "SecretOfEncryption".into(),
            admin_password: "SecretOfAdministrator".into(),
        },
        now: Timestamp::UNIX_EPOCH,
    }
}

/// Carries a plan out on a world without an API server, and lets other operators and Jobs do their part.
fn apply(observed: &mut Observed, plan: &Plan, job_result: &str) {
    for step in plan.steps.iter().chain(&plan.last) {
        match step {
            Step::PatchSite(metadata) => {
                let site = Arc::make_mut(&mut observed.site);
                site.metadata.finalizers = serde_json::from_value(metadata["finalizers"].clone()).ok();
                if let Ok(labels) = serde_json::from_value(metadata["labels"].clone()) {
                    site.metadata.labels = Some(labels);
                }
            }
            Step::Create(desired) | Step::Ensure(desired) => place(observed, desired, job_result),
            Step::LabelSecret(..) => {}
            Step::Delete(kind, gone) => remove(observed, *kind, &gone.name_any()),
        }
    }
    if let Some(status) = &plan.status {
        Arc::make_mut(&mut observed.site).status = Some(status.clone());
    }
    if let Some(job) = &plan.job
        && !observed.jobs.contains_key(&job.key.name)
    {
        place(observed, job, job_result);
    }
}

fn place(observed: &mut Observed, desired: &Desired, job_result: &str) {
    let mut live = desired.stamped();
    live["metadata"]["uid"] = json!(format!("uid-{}", desired.key.name));
    live["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:01Z");
    let ready = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Created", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    match desired.kind {
        Kind::Domain => {
            observed.claim = Some(object(live));
            observed.holder = Holder::Us;
        }
        Kind::Secret if desired.key.name.ends_with("db-password") => observed.credentials = Some(object(live)),
        Kind::Secret => observed.admin_secret = Some(object(live)),
        Kind::Job => {
            live["status"] = json!({"conditions": [{"type": job_result, "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"}]});
            observed.jobs.insert(desired.key.name.clone(), object(live));
        }
        Kind::Ingress => observed.ingress = Some(object(live)),
        kind => {
            live["status"] = ready;
            let index =
                [Kind::Database, Kind::User, Kind::Grant].iter().position(|it| *it == kind).expect("a kind of sites");
            observed.sql[index] = Some(object(live));
        }
    }
}

fn remove(observed: &mut Observed, kind: Kind, name: &str) {
    match kind {
        Kind::Domain => (observed.claim, observed.holder) = (None, Holder::Nobody),
        Kind::Secret if name.ends_with("db-password") => observed.credentials = None,
        Kind::Secret => observed.admin_secret = None,
        Kind::Ingress => observed.ingress = None,
        Kind::Job => drop(observed.jobs.remove(name)),
        Kind::Grant => observed.sql[2] = None,
        Kind::User => observed.sql[1] = None,
        _ => observed.sql[0] = None,
    }
}

/// Plans and carries out until nothing changes; answers every object that was made, and the number of rounds.
fn converge(observed: &mut Observed, job_result: &str) -> (Vec<Desired>, usize) {
    let mut made = Vec::new();
    for round in 1..20 {
        let next = plan(observed);
        if is_empty(observed, &next) {
            return (made, round);
        }
        for step in &next.steps {
            if let Step::Create(desired) | Step::Ensure(desired) = step {
                made.push(desired.clone());
            }
        }
        made.extend(next.job.clone());
        apply(observed, &next, job_result);
    }
    panic!("does not converge: {:?}", plan(observed).status)
}

/// Whether carrying the plan out would write nothing.
fn is_empty(observed: &Observed, plan: &Plan) -> bool {
    let quiet = |step: &Step| match step {
        Step::Ensure(desired) => {
            live(observed, desired).is_some_and(|it| first_difference(&desired.stamped(), &it).is_none())
        }
        _ => false,
    };
    let job = plan.job.as_ref().is_none_or(|job| observed.jobs.contains_key(&job.key.name));
    plan.steps.iter().all(quiet)
        && plan.last.is_empty()
        && job
        && (plan.status.is_none() || plan.status == observed.site.status)
}

fn live(observed: &Observed, desired: &Desired) -> Option<Value> {
    let found = match desired.kind {
        Kind::Ingress => observed.ingress.as_ref(),
        Kind::Domain => observed.claim.as_ref(),
        Kind::Database => observed.sql[0].as_ref(),
        Kind::User => observed.sql[1].as_ref(),
        _ => observed.sql[2].as_ref(),
    };
    found.map(|it| serde_json::to_value(it.as_ref()).expect("JSON"))
}

fn reason(plan: &Plan) -> String {
    let status = plan.status.clone().unwrap_or_default();
    condition::find(&status.conditions, "Ready").map(|it| it.reason.clone()).unwrap_or_default()
}

#[test]
fn a_site_becomes_ready_and_its_objects_look_like_this() {
    let mut world =
        observed(json!({"tls": {"enabled": true, "issuer": "letsencrypt-prod"}, "ingress": {"className": "nginx"}}));
    let (made, _) = converge(&mut world, "Complete");
    let status = world.site.status.clone().expect("a status");
    assert_eq!(status.phase, SitePhase::Ready);
    assert_eq!(status.site_url.as_deref(), Some("https://shop.example.com"));
    let mut seen = std::collections::BTreeSet::new();
    for desired in made.iter().filter(|it| seen.insert((it.kind, it.key.clone()))) {
        assert_eq!(lint(desired), Vec::<String>::new());
        let mut body = desired.body.clone();
        if desired.kind == Kind::Job {
            body["spec"]["template"]["spec"]["containers"][0]["args"] = json!("[checked below]");
        }
        insta::assert_yaml_snapshot!(format!("{:?}-{}", desired.kind, desired.key.name), body);
    }
    insta::assert_yaml_snapshot!("status", status);
}

/// a Job's spec names secrets and holds none.
#[test]
fn a_jobs_argument_holds_no_secret() {
    let mut world = observed(json!({}));
    let (made, _) = converge(&mut world, "Complete");
    let job = made.iter().find(|it| it.kind == Kind::Job).expect("an init Job");
    let argument = job.body["spec"]["template"]["spec"]["containers"][0]["args"][1].as_str().expect("a request");
    let request: Value = serde_json::from_str(argument).expect("JSON");
    assert_eq!(
        request,
        json!({
            "site": "shop.example.com", "identity": "0123456789abcdef", "apps": ["erpnext"],
            "database": {"host": "mariadb.default.svc", "port": 3306, "name": crate::domain::names::database("default", "shop")},
        })
    );
    let text = job.body.to_string();
    for secret in [&world.fresh.database_password, &world.fresh.encryption_key, &world.fresh.admin_password] {
        assert!(!text.contains(secret.as_str()));
    }
}

/// What this version does not do, and what is missing: nothing is made, and the reason says why.
#[test]
fn what_cannot_be_done_is_refused_and_nothing_is_made() {
    let table = [
        (json!({"domain": "other.example.com"}), Reason::DomainNotSupported, SitePhase::Failed),
        (json!({"benchRef": {"name": "bench", "namespace": "x"}}), Reason::BenchNotPermitted, SitePhase::Failed),
        (json!({"routeConfig": {"enabled": true}}), Reason::RouteNotSupported, SitePhase::Failed),
        (json!({"dbConfig": {"mode": "dedicated"}}), Reason::DatabaseNotSupported, SitePhase::Failed),
        (json!({"dbConfig": {"connectionSecretRef": {"name": "a"}}}), Reason::DatabaseNotSupported, SitePhase::Failed),
        (
            json!({"adminPasswordSecretRef": {"name": "a", "namespace": "x"}}),
            Reason::SecretNamespaceRefused,
            SitePhase::Failed,
        ),
        (json!({"apps": ["hrms"]}), Reason::AppNotOnBench, SitePhase::Failed),
        (json!({"dbConfig": {"mariadbRef": {"name": "x"}}}), Reason::DatabaseServerNotFound, SitePhase::Pending),
    ];
    for (spec, expected, phase) in table {
        let plan = plan(&observed(spec.clone()));
        assert_eq!(reason(&plan), expected.to_string(), "{spec}");
        assert_eq!(plan.status.as_ref().map(|it| it.phase), Some(phase), "{spec}");
        assert!(plan.steps.is_empty() && plan.job.is_none(), "{spec}");
        assert!(plan.notice.is_some_and(|it| it.warning), "{spec}");
    }
}

#[test]
fn a_suffix_is_refused_only_for_a_name_without_a_dot() {
    let config = OperatorConfig { default_domain_suffix: Some(".myplatform.com".into()), ..OperatorConfig::default() };
    for (name, expected) in [("shop", "DomainNotSupported"), ("shop.example.com", "CreatingDatabase")] {
        let world = Observed { config: Arc::new(config.clone()), ..observed(json!({"siteName": name})) };
        assert_eq!(reason(&plan(&world)), expected, "{name}");
    }
}

#[test]
fn a_site_waits_for_its_bench_and_does_not_follow_it_once_served() {
    let mut waiting = observed(json!({}));
    waiting.bench = None;
    assert_eq!(reason(&plan(&waiting)), "BenchNotFound");
    let mut unready = bench();
    unready.status = None;
    waiting.bench = Some(Arc::new(unready.clone()));
    assert_eq!(reason(&plan(&waiting)), "BenchNotReady");
    let mut served = observed(json!({}));
    converge(&mut served, "Complete");
    served.bench = Some(Arc::new(unready));
    assert!(is_empty(&served, &plan(&served)), "a bench that rolls over costs its sites nothing");
}

#[test]
fn a_lost_secret_is_not_invented_anew() {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    world.credentials = None;
    let next = plan(&world);
    assert_eq!(reason(&next), "SecretLost");
    assert!(next.steps.is_empty() && next.missing);
}

#[test]
fn a_failed_init_is_tried_three_times_and_anew_when_asked() {
    let mut world = observed(json!({}));
    for _ in 0..6 {
        let next = plan(&world);
        apply(&mut world, &next, "Failed");
        world.now = Timestamp::from_second(100_000).expect("a time");
    }
    let status: FrappeSiteStatus = world.site.status.clone().expect("a status");
    assert_eq!(status.phase, SitePhase::Failed);
    assert_eq!(status.operation.as_ref().map(|it| (it.attempt, it.first_attempt)), Some((3, 1)));
    assert_eq!(world.jobs.keys().collect::<Vec<_>>(), ["shop-init", "shop-init-2", "shop-init-3"]);
    world.jobs.clear();
    assert!(is_empty(&world, &plan(&world)), "finished Jobs are removed after an hour; that changes nothing");
    Arc::make_mut(&mut world.site).metadata.annotations =
        Some([("frappe.vyogo.tech/retry".to_owned(), "1".to_owned())].into());
    let operation = plan(&world).status.and_then(|it| it.operation).expect("an operation");
    assert_eq!((operation.attempt, operation.first_attempt), (4, 4));
}

#[test]
fn an_operation_is_recorded_in_the_plan_that_makes_its_job() {
    let mut world = observed(json!({}));
    for _ in 0..5 {
        let next = plan(&world);
        if let Some(job) = &next.job {
            let operation = next.status.as_ref().and_then(|it| it.operation.clone()).expect("recorded");
            assert!(job.key.name.ends_with("-init") && operation.attempt == 1);
            return;
        }
        apply(&mut world, &next, "Complete");
    }
    panic!("no Job was planned");
}

fn being_deleted(world: &mut Observed) {
    let time = serde_json::from_value(json!("2026-01-02T00:00:00Z")).expect("a time");
    Arc::make_mut(&mut world.site).metadata.deletion_timestamp = Some(time);
}

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
                Step::PatchSite(metadata) => format!("finalizers {}", metadata["finalizers"]),
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
fn in_a_namespace_that_is_going_the_mariadb_operator_drops_the_database() {
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
fn what_the_mariadb_operator_says_is_passed_on() {
    let mut world = observed(json!({}));
    let first = plan(&world);
    apply(&mut world, &first, "Complete");
    let mut user = DynamicObject::clone(world.sql[1].as_ref().expect("a User"));
    user.data["status"]["conditions"][0]["status"] = json!("False");
    user.data["status"]["conditions"][0]["reason"] = json!("Failed");
    user.data["status"]["conditions"][0]["message"] = json!("Error connecting to MariaDB");
    world.sql[1] = Some(Arc::new(user));
    let next = plan(&world);
    assert_eq!(reason(&next), "DatabaseFailed");
    assert!(next.job.is_none() && next.notice.is_some_and(|it| it.note.contains("User: Error connecting to MariaDB")));
}

#[test]
fn a_deletion_without_its_secret_waits_for_it_and_leaves_nothing_behind_unsaid() {
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

/// The order in which a restored site with a Secret of an earlier life finds its data again.
#[test]
fn a_restored_secret_decides_who_the_site_is() {
    let mut world = observed(json!({}));
    world.credentials = Some(object(json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "shop-db-password", "namespace": "default", "uid": "s", "resourceVersion": "3",
            "annotations": {"frappe.vyogo.tech/identity": "former", "frappe.vyogo.tech/database": "formerdb"}},
    })));
    let next = plan(&world);
    let status = next.status.clone().expect("a status");
    assert_eq!((status.identity.as_deref(), status.database_name.as_deref()), (Some("former"), Some("formerdb")));
    assert!(next.steps.iter().any(|it| matches!(it, Step::LabelSecret(..))));
}

proptest! {
    /// no spec makes a plan panic, and a converged world plans nothing.
    #[test]
    fn any_spec_is_planned_and_converges(
        site_name in "[a-z0-9.-]{1,30}", domain in proptest::option::of("[a-zA-Z0-9./ -]{0,20}"),
        apps in proptest::option::of(proptest::collection::vec("[a-z]{0,8}|erpnext|frappe", 0..3)),
        annotation in "[a-z./-]{0,20}", enabled in any::<Option<bool>>(), secret in proptest::option::of("[a-z]{1,5}"),
        retain in any::<bool>(),
    ) {
        let mut spec = json!({"siteName": site_name, "ingress": {"enabled": enabled, "annotations": {annotation: "x"}}});
        if let Some(domain) = domain { spec["domain"] = json!(domain); }
        if let Some(apps) = apps { spec["apps"] = json!(apps); }
        if let Some(secret) = secret { spec["adminPasswordSecretRef"] = json!({"name": secret}); }
        if retain { spec["deletionPolicy"] = json!("Retain"); }
        let mut world = observed(spec);
        let (made, _) = converge(&mut world, "Complete");
        for desired in &made {
            prop_assert_eq!(lint(desired), Vec::<String>::new());
        }
        prop_assert!(is_empty(&world, &plan(&world)));
        being_deleted(&mut world);
        for _ in 0..8 {
            let next = plan(&world);
            apply(&mut world, &next, "Complete");
        }
        prop_assert!(world.site.finalizers().is_empty());
    }
}
