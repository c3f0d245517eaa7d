//! Creation of a site, a site without changes, and rejected specs.

use super::*;
use frappe_crds::site::OutcomeState;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    controllers::job::Failure,
    domain::{code::Code, labels},
};

#[test]
fn a_site_becomes_ready_with_the_objects_in_the_snapshots() {
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

/// a Job's spec references secrets and contains none.
#[test]
fn a_jobs_argument_contains_no_secret() {
    let mut world = observed(json!({}));
    let (made, _) = converge(&mut world, "Complete");
    let job = made.iter().find(|it| it.kind == Kind::Job).expect("an init Job");
    let argument = job.body["spec"]["template"]["spec"]["containers"][0]["args"][1].as_str().expect("a request");
    let request: Value = serde_json::from_str(argument).expect("JSON");
    assert_eq!(
        request,
        json!({
            "site": "shop.example.com", "identity": "0123456789abcdef", "apps": ["erpnext"],
            "config": {"host_name": "http://shop.example.com"}, "secret_config": [], "hosts": ["shop.example.com"],
            "database": {"type": "mariadb", "own": true, "host": "mariadb.default.svc", "port": 3306, "name": crate::domain::names::database("default", "shop", "0123456789abcdef")},
            "secrets": {"admin-password": ["shop-admin-password", "password"]},
        })
    );
    let text = job.body.to_string();
    for secret in [&world.fresh.database_password, &world.fresh.encryption_key, &world.fresh.admin_password] {
        assert!(!text.contains(secret.as_str()));
    }
}

/// Unsupported specs and missing objects: nothing is created, and the reason is reported.
#[test]
fn an_unsupported_spec_is_rejected_and_nothing_is_created() {
    let table = [
        (json!({"benchRef": {"name": "bench", "namespace": "x"}}), Reason::BenchNotPermitted, SitePhase::Failed),
        (
            json!({"dbConfig": {"connectionSecretRef": {"name": "a", "namespace": "x"}}}),
            Reason::SecretNamespaceRefused,
            SitePhase::Failed,
        ),
        (
            json!({"dbConfig": {"connectionSecretRef": {"name": "a"}}}),
            Reason::ConnectionSecretMissing,
            SitePhase::Pending,
        ),
        (json!({"dbConfig": {"provider": "postgres"}}), Reason::ConnectionSecretMissing, SitePhase::Failed),
        (json!({"adminPasswordSecretRef": {"name": "a"}}), Reason::AdminPasswordSecretMissing, SitePhase::Pending),
        (
            json!({"siteConfigSecretRefs": {"mail_password": {"name": "a", "key": "b"}}}),
            Reason::SiteConfigSecretMissing,
            SitePhase::Pending,
        ),
        (json!({"siteConfig": {"db_password": "x"}}), Reason::SiteConfigRefused, SitePhase::Failed),
        (json!({"siteConfig": {"a b": 1}}), Reason::SiteConfigRefused, SitePhase::Failed),
        (json!({"siteConfig": {"extra_config": "a.b"}}), Reason::SiteConfigRefused, SitePhase::Failed),
        (
            json!({"ingress": {"annotations": {"nginx.ingress.kubernetes.io/server-snippet": "x"}}}),
            Reason::AnnotationRefused,
            SitePhase::Failed,
        ),
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
        assert!(plan.notices.first().is_some_and(|it| it.warning), "{spec}");
    }
}

#[test]
fn a_host_must_be_under_an_allowed_suffix_of_the_bench() {
    let mut limited = bench();
    limited.spec.domain_config = Some(frappe_crds::bench::DomainConfig {
        allowed_suffixes: vec![".tenant.example.com".into(), "example.org".into()],
        ..Default::default()
    });
    for (name, expected) in [
        ("shop.tenant.example.com", "CreatingDatabase"),
        ("example.org", "CreatingDatabase"),
        ("a.b.example.org", "CreatingDatabase"),
        ("shop.example.com", "HostNotAllowed"),
        ("evilexample.org", "HostNotAllowed"),
        ("example.org.evil.com", "HostNotAllowed"),
    ] {
        let mut world = observed(json!({"siteName": name}));
        world.bench = Some(Arc::new(limited.clone()));
        assert_eq!(reason(&plan(&world)), expected, "{name}");
    }
}

#[test]
fn a_site_waits_for_its_bench_until_it_is_available() {
    let mut waiting = observed(json!({}));
    waiting.bench = None;
    assert_eq!(reason(&plan(&waiting)), "BenchNotFound");
    let mut unready = bench();
    unready.status = None;
    waiting.bench = Some(Arc::new(unready.clone()));
    assert_eq!(reason(&plan(&waiting)), "BenchNotReady");
    let mut edited = bench();
    edited.metadata.generation = Some(2);
    edited.status.as_mut().expect("a status").observed_generation = Some(1);
    waiting.bench = Some(Arc::new(edited));
    assert_eq!(reason(&plan(&waiting)), "BenchNotReady", "its status is not of its spec yet");
    let mut served = observed(json!({}));
    converge(&mut served, "Complete");
    served.bench = Some(Arc::new(unready));
    assert!(is_empty(&served, &plan(&served)), "a rollout of the bench causes no writes of its sites");
}

#[test]
fn a_lost_secret_is_not_generated_again() {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    world.credentials = None;
    let next = plan(&world);
    assert_eq!(reason(&next), "SecretLost");
    assert!(next.steps.is_empty() && next.missing);
}

#[test]
fn a_failed_init_is_attempted_three_times_and_again_on_request() {
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
    assert!(is_empty(&world, &plan(&world)), "the removal of finished Jobs after an hour changes nothing");
    Arc::make_mut(&mut world.site).metadata.annotations =
        Some([("frappe.vyogo.tech/retry".to_owned(), "1".to_owned())].into());
    let operation = plan(&world).status.and_then(|it| it.operation).expect("an operation");
    assert_eq!((operation.attempt, operation.first_attempt), (4, 4));
}

/// A site whose creation failed three times, and whose Jobs were removed.
fn failed_for_good() -> Observed {
    let mut world = observed(json!({}));
    for _ in 0..6 {
        let next = plan(&world);
        apply(&mut world, &next, "Failed");
        world.now = Timestamp::from_second(100_000).expect("a time");
    }
    world.jobs.clear();
    world
}

#[test]
fn a_permanent_failure_survives_other_reports() {
    let mut world = failed_for_good();
    let bench = world.bench.take();
    let next = plan(&world);
    assert_eq!(reason(&next), "BenchNotFound");
    apply(&mut world, &next, "Complete");
    world.bench = bench;
    let next = plan(&world);
    assert!(next.job.is_none(), "it is not retried");
    assert_eq!(reason(&next), "InitFailed");
    let outcome = next.status.and_then(|it| it.operation).and_then(|it| it.outcome).expect("an outcome");
    assert_eq!((outcome.state, outcome.code.as_str()), (OutcomeState::Failed, "Unknown"));
}

/// The status of a version without outcomes, also if the bench is not ready at the first reconcile of the new version.
#[test]
fn a_permanent_failure_of_a_version_without_outcomes_is_kept() {
    for is_ready in [true, false] {
        let mut world = failed_for_good();
        let status = Arc::make_mut(&mut world.site).status.as_mut().expect("a status");
        let recorded = status.operation.as_mut().and_then(|it| it.outcome.take()).expect("an outcome");
        let bench = world.bench.clone();
        world.bench = bench.clone().filter(|_| is_ready);
        let next = plan(&world);
        assert!(next.job.is_none(), "it is not retried");
        apply(&mut world, &next, "Complete");
        let outcome = world.site.status.clone().and_then(|it| it.operation).and_then(|it| it.outcome);
        assert_eq!(outcome.map(|it| it.state), Some(recorded.state), "from now on it is recorded");
        world.bench = bench;
        let next = plan(&world);
        assert!(next.job.is_none() && reason(&next) == "InitFailed", "{next:?}");
    }
}

/// If the recorded decisions cannot be read, existing objects are neither changed nor dropped.
#[test]
fn nothing_is_done_for_a_site_whose_status_cannot_be_read() {
    let mut world = observed(json!({"deletionPolicy": "Delete"}));
    converge(&mut world, "Complete");
    let site = Arc::make_mut(&mut world.site);
    site.status = None;
    site.annotations_mut().insert(labels::TOO_LARGE.to_owned(), labels::UNREAD_STATUS.to_owned());
    assert_eq!(plan(&world), Plan::default());
    being_deleted(&mut world);
    assert_eq!(plan(&world), Plan::default());
}

/// An attempt that fails while the site reports another reason is still recorded, before Job and pod are removed.
#[test]
fn an_attempt_that_fails_during_another_report_counts() {
    let mut world = observed(json!({}));
    for _ in 0..6 {
        let next = plan(&world);
        apply(&mut world, &next, "Running");
        if world.jobs.contains_key("shop-init-3") {
            break;
        }
        for job in world.jobs.values_mut() {
            Arc::make_mut(job).data["status"] = ended("Failed");
        }
        world.now = Timestamp::from_second(100_000).expect("a time");
    }
    assert!(world.jobs.contains_key("shop-init-3"), "{:?}", world.jobs.keys());
    let bench = world.bench.take();
    Arc::make_mut(world.jobs.get_mut("shop-init-3").expect("a Job")).data["status"] = ended("Failed");
    world.failure = Some(Failure { code: Code::DatabaseNotEmpty, message: "step database: no".into(), revision: None });
    let next = plan(&world);
    assert_eq!(reason(&next), "BenchNotFound");
    apply(&mut world, &next, "Running");
    (world.bench, world.failure) = (bench, None);
    world.jobs.clear();
    let next = plan(&world);
    assert!(next.job.is_none() && reason(&next) == "InitFailed", "{next:?}");
    let operation = next.status.and_then(|it| it.operation).expect("an operation");
    assert_eq!(operation.outcome.map(|it| it.code).as_deref(), Some("DatabaseNotEmpty"));
}

fn ended(how: &str) -> Value {
    json!({"conditions": [{"type": how, "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"}]})
}

#[test]
fn an_operation_is_recorded_in_the_plan_that_creates_its_job() {
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

#[test]
fn messages_of_the_mariadb_operator_are_reported() {
    let mut world = observed(json!({}));
    let first = plan(&world);
    apply(&mut world, &first, "Complete");
    let mut user = DynamicObject::clone(world.sql[1].as_ref().expect("a User"));
    user.data["status"]["conditions"][0]["status"] = json!("False");
    user.data["status"]["conditions"][0]["reason"] = json!("Failed");
    user.data["status"]["conditions"][0]["message"] = json!("Error connecting to MariaDB");
    world.sql[1] = Some(Arc::new(user));
    let now = world.now;
    let created = |seconds: i64| Some(Time(now - jiff::SignedDuration::from_secs(seconds)));
    Arc::make_mut(world.sql[1].as_mut().expect("a User")).metadata.creation_timestamp = created(5);
    let next = plan(&world);
    assert_eq!(reason(&next), "CreatingDatabase", "the MariaDB operator tries again");
    assert_eq!(next.again_after, Some(std::time::Duration::from_secs(15)));
    Arc::make_mut(world.sql[1].as_mut().expect("a User")).metadata.creation_timestamp = created(20);
    let next = plan(&world);
    assert_eq!((reason(&next).as_str(), next.again_after), ("DatabaseFailed", None));
    assert!(
        next.job.is_none()
            && next.notices.first().is_some_and(|it| it.note.contains("User: Error connecting to MariaDB"))
    );
}

/// A later rejection keeps completed stages in the status: it is reported, and the edit is not applied.
#[test]
fn an_available_site_keeps_its_objects_if_its_spec_is_rejected() {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    let limited =
        frappe_crds::bench::DomainConfig { allowed_suffixes: vec!["example.org".into()], ..Default::default() };
    Arc::make_mut(world.bench.as_mut().expect("a bench")).spec.domain_config = Some(limited);
    let next = plan(&world);
    assert_eq!(reason(&next), "HostNotAllowed");
    apply(&mut world, &next, "Complete");
    assert!(is_empty(&world, &plan(&world)));
    assert!(condition::is_true(&next.status.expect("a status").conditions, "Ready"), "the site has its objects");
    Arc::make_mut(&mut world.site).spec.domain = Some("login.bank.example".into());
    look_again(&mut world);
    let next = plan(&world);
    assert_eq!(reason(&next), "HostNotAllowed");
    assert!(next.job.is_none() && next.steps.iter().all(|it| !matches!(it, Step::Create(_) | Step::Delete(..))));
    let status = next.status.expect("a status");
    assert!(status.bench_ready && status.database_ready && status.initialized);
    let states: Vec<String> = status.conditions.iter().map(|it| format!("{}={}", it.type_, it.status)).collect();
    let expected = [
        "Ready=False",
        "Progressing=False",
        "BenchReady=True",
        "DatabaseReady=True",
        "SiteInitialized=True",
        "RouteReady=False",
    ];
    assert_eq!(states, expected);
}

/// A site never reports apps that are not installed, and a new app of the bench changes no site.
#[test]
fn apps_that_are_left_out_later_stay_and_the_site_is_served_on() {
    let mut world = observed(json!({"apps": ["erpnext"]}));
    converge(&mut world, "Complete");
    Arc::make_mut(&mut world.site).spec.apps = Some(Vec::new());
    converge(&mut world, "Complete");
    let next = plan(&world);
    assert_eq!(reason(&next), "AppNotRemoved");
    assert_eq!(next.status.as_ref().map(|it| it.installed_apps.clone()), Some(vec!["frappe".into(), "erpnext".into()]));
    assert!(
        next.steps.iter().any(|it| matches!(it, Step::Ensure(it) if it.kind == Kind::Ingress)),
        "its route is kept"
    );
    Arc::make_mut(&mut world.site).spec.apps = Some(vec!["erpnext".into(), "frappe".into()]);
    converge(&mut world, "Complete");
    assert_eq!(reason(&plan(&world)), "Ready");

    let mut follower = observed(json!({}));
    converge(&mut follower, "Complete");
    let mut richer = bench();
    richer.spec.apps.push(frappe_crds::bench::AppSource { name: "hrms".into(), ..Default::default() });
    follower.bench = Some(Arc::new(richer));
    assert!(is_empty(&follower, &plan(&follower)));
}

/// An app is uninstalled only if it is in `removedApps`, and can be installed again afterwards.
#[test]
fn an_app_in_removed_apps_is_uninstalled_and_forgotten() {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    assert_eq!(
        world.site.status.as_ref().map(|it| it.installed_apps.clone()),
        Some(vec!["frappe".into(), "erpnext".into()])
    );
    let hash = world.site.status.as_ref().and_then(|it| it.configuration.clone());
    Arc::make_mut(&mut world.site).spec.removed_apps = vec!["erpnext".into()];
    let next = plan(&world);
    assert_ne!(next.status.as_ref().and_then(|it| it.operation.clone()).and_then(|it| it.configuration), hash);
    assert_eq!(
        next.status.as_ref().map(|it| it.installed_apps.len()),
        Some(2),
        "the app is listed until it is uninstalled"
    );
    converge(&mut world, "Complete");
    assert_eq!(world.site.status.as_ref().map(|it| it.installed_apps.clone()), Some(vec!["frappe".into()]));
    assert_eq!(reason(&plan(&world)), "Ready");
    Arc::make_mut(&mut world.site).spec.removed_apps = Vec::new();
    converge(&mut world, "Complete");
    assert_eq!(
        world.site.status.as_ref().map(|it| it.installed_apps.len()),
        Some(1),
        "a removed app is not installed again"
    );

    let mut never = observed(json!({"removedApps": ["erpnext"]}));
    converge(&mut never, "Complete");
    assert_eq!(never.site.status.as_ref().map(|it| it.installed_apps.clone()), Some(vec!["frappe".into()]));
    let both = observed(json!({"apps": ["erp-next"], "removedApps": ["erp_next"]}));
    assert_eq!(reason(&plan(&both)), "AppsContradict");
}

/// the identity in a kept or restored Secret is used. A database name in it is used only if it is derived from the identity, or
/// if the MariaDB operator's objects of the site have it.
#[test]
fn a_restored_secret_decides_the_sites_identity() {
    let restored = |database: &str| {
        let mut world = observed(json!({}));
        world.credentials = Some(object(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "shop-db-password", "namespace": "default", "uid": "s", "resourceVersion": "3",
                "labels": {"site": "shop", "frappe.vyogo.tech/site-uid": "gone"},
                "annotations": {"frappe.vyogo.tech/identity": "former", "frappe.vyogo.tech/database": database}},
        })));
        world
    };
    let name = crate::domain::names::database("default", "shop", "former");
    let next = plan(&restored(&name));
    let decided = next.status.clone().and_then(|it| it.database).expect("a decision");
    assert_eq!((decided.identity.as_str(), decided.name.as_deref()), ("former", Some(name.as_str())));
    assert!(next.last.iter().any(|it| matches!(it, Step::LabelSecret(..))), "after it was recorded");

    assert_eq!(reason(&plan(&restored("formerdb"))), "SecretForeign");
    let mut proven = restored("formerdb");
    proven.sql[0] = Some(object(json!({
        "apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "Database",
        "metadata": {"name": "shop-db", "namespace": "default"},
        "spec": {"name": "formerdb", "mariaDbRef": {"name": "mariadb", "namespace": "default"}},
    })));
    let decided = plan(&proven).status.and_then(|it| it.database).expect("a decision");
    assert_eq!((decided.identity.as_str(), decided.name.as_deref()), ("former", Some("formerdb")));
}
