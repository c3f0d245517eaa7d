//! Changes of an existing site.

use frappe_crds::bench::AppSource;

use super::*;

fn settled(spec: Value) -> Observed {
    let mut world = observed(spec);
    if let Some(reference) = world.site.spec.admin_password_secret_ref.clone() {
        user_secret(&mut world, &reference.name);
    }
    for reference in world.site.spec.site_config_secret_refs.clone().into_values() {
        user_secret(&mut world, &reference.name);
    }
    converge(&mut world, "Complete");
    world
}

fn change(world: &mut Observed, edit: impl Fn(&mut frappe_crds::FrappeSiteSpec)) {
    let site = Arc::make_mut(&mut world.site);
    edit(&mut site.spec);
    site.metadata.generation = site.metadata.generation.map(|it| it + 1);
    look_again(world);
}

fn rotate(world: &mut Observed, name: &str, version: &str) {
    let mut secret = DynamicObject::clone(&world.secrets[name]);
    secret.metadata.resource_version = Some(version.to_owned());
    world.secrets.insert(name.to_owned(), Arc::new(secret));
}

fn request(job: &Desired) -> Value {
    let text = job.body["spec"]["template"]["spec"]["containers"][0]["args"][1].as_str().expect("a request");
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn each_setting_is_applied_by_a_job_while_the_site_is_available() {
    let mut world = settled(json!({}));
    change(&mut world, |spec| {
        spec.maintenance_mode = Some(true);
        spec.scheduler_paused = Some(true);
        spec.site_config = [("max_file_size".to_owned(), json!(10_485_760))].into();
    });
    let next = plan(&world);
    let status = next.status.clone().expect("a status");
    assert_eq!((reason(&next).as_str(), status.phase), ("Configuring", SitePhase::Ready));
    assert_eq!(condition::find(&status.conditions, "Progressing").map(|it| it.status.as_str()), Some("True"));
    let job = next.job.expect("a Job");
    assert_eq!(job.key.name, "shop-apply");
    assert_eq!(lint(&job), Vec::<String>::new());
    assert_eq!(
        request(&job)["config"],
        json!({"host_name": "http://shop.example.com", "maintenance_mode": 1, "pause_scheduler": 1, "max_file_size": 10_485_760})
    );
    converge(&mut world, "Complete");
    assert_eq!(reason(&plan(&world)), "Ready");
    change(&mut world, |spec| spec.maintenance_mode = Some(false));
    assert_eq!(plan(&world).job.map(|it| it.key.name).as_deref(), Some("shop-apply-2"));
}

#[test]
fn a_password_is_set_when_its_secret_changes_and_only_then() {
    let mut world = settled(json!({
        "adminPasswordSecretRef": {"name": "admin"}, "siteConfigSecretRefs": {"mail_password": {"name": "mail", "key": "p"}},
    }));
    rotate(&mut world, "mail", "2");
    let job = plan(&world).job.expect("a Job");
    assert!(request(&job).get("set_admin_password").is_none());
    assert!(job.body.to_string().contains(r#""path":"config/mail_password""#));
    converge(&mut world, "Complete");
    rotate(&mut world, "admin", "2");
    let job = plan(&world).job.expect("a Job");
    assert_eq!(request(&job)["set_admin_password"], json!(true));
    converge(&mut world, "Complete");
    assert!(is_empty(&world, &plan(&world)));
}

/// The Secret with the first password may be deleted, and recreated with another password.
#[test]
fn an_existing_site_does_not_need_the_password_of_administrator() {
    let mut world = settled(json!({"adminPasswordSecretRef": {"name": "admin"}}));
    let secret = world.secrets.remove("admin").expect("a Secret");
    assert!(is_empty(&world, &plan(&world)), "{:?}", plan(&world).status);
    world.secrets.insert("admin".to_owned(), secret);
    assert!(is_empty(&world, &plan(&world)));
    rotate(&mut world, "admin", "9");
    assert_eq!(request(&plan(&world).job.expect("a Job"))["set_admin_password"], json!(true));
}

/// A bench has a Job `BENCH-configure`: no Job of a site with its name may have the same name.
#[test]
fn a_site_may_be_named_like_its_bench() {
    let bench = bench();
    let config = crate::config::OperatorConfig::default();
    let input = crate::controllers::bench::model::Input::of(
        &bench,
        &config,
        crate::domain::capabilities::Capabilities::default(),
    );
    let of_bench: Vec<_> =
        crate::controllers::bench::build::render(&input).all().map(|it| (it.kind, it.key.name.clone())).collect();
    assert!(of_bench.contains(&(Kind::Job, "bench-configure".to_owned())), "{of_bench:?}");
    let mut world = observed(json!({"dbConfig": {"mode": "dedicated"}, "tls": {"enabled": true}}));
    Arc::make_mut(&mut world.site).metadata.name = Some("bench".to_owned());
    let (mut made, _) = converge(&mut world, "Complete");
    change(&mut world, |spec| spec.maintenance_mode = Some(true));
    made.extend(converge(&mut world, "Complete").0);
    assert!(made.iter().any(|it| it.key.name == "bench-apply"));
    let met: Vec<_> = made.iter().filter(|it| of_bench.contains(&(it.kind, it.key.name.clone()))).collect();
    assert!(met.is_empty(), "{met:?}");
}

#[test]
fn an_app_of_the_bench_is_installed_when_the_site_lists_it() {
    let mut world = settled(json!({"apps": ["erpnext"]}));
    let bench = Arc::make_mut(world.bench.as_mut().expect("a bench"));
    bench.spec.apps.push(AppSource { name: "hrms".into(), ..Default::default() });
    assert!(is_empty(&world, &plan(&world)));
    change(&mut world, |spec| spec.apps = Some(vec!["erpnext".into(), "hrms".into()]));
    assert_eq!(request(&plan(&world).job.expect("a Job"))["apps"], json!(["erpnext", "hrms"]));
    let status = plan(&world).status.expect("a status");
    assert_eq!(status.installed_apps, ["frappe", "erpnext"], "not before it exists");
    converge(&mut world, "Complete");
    assert_eq!(
        world.site.status.as_ref().map(|it| it.installed_apps.clone()).unwrap_or_default(),
        ["frappe", "erpnext", "hrms"]
    );
}

/// A change waits for the running Job, because Frappe imports every app that the bench lists, and pods of the previous image need that
/// list.
#[test]
fn a_change_waits_while_the_benchs_image_lacks_an_app() {
    let mut world = settled(json!({}));
    let whole = world.bench.clone();
    let mut lacking = bench();
    let condition = json!([{"type": "Ready", "status": "False", "reason": "AppMissing", "message": "",
                            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let status = lacking.status.as_mut().expect("a status");
    status.conditions = serde_json::from_value(condition).expect("conditions");
    world.bench = Some(Arc::new(lacking.clone()));
    assert_eq!(reason(&plan(&world)), "Ready", "an applied configuration stays applied");
    change(&mut world, |spec| spec.maintenance_mode = Some(true));
    let next = plan(&world);
    assert_eq!((reason(&next).as_str(), next.job), ("BenchNotReady", None));
    assert_eq!(next.status.map(|it| it.phase), Some(SitePhase::Ready));
    let former = lacking.clone();
    lacking.status.as_mut().expect("a status").conditions[0].reason = "Rolling".to_owned();
    let change = crate::io::cache::Change::Applied { now: Arc::new(lacking), before: Some(Arc::new(former)) };
    assert!(crate::controllers::site::watch::bench_matters(&change), "sites are reconciled before the bench is ready");
    world.bench = whole;
    assert_eq!(plan(&world).job.map(|it| it.key.name).as_deref(), Some("shop-apply"));
}

/// Pods of the previous image may lack the app. Frappe would fail every job there, and jobs of all sites would be lost.
#[test]
fn an_app_is_installed_after_the_rollout_of_the_bench() {
    let mut world = settled(json!({"apps": ["erpnext"]}));
    let set = |world: &mut Observed, running: &str, generation: i64| {
        let bench = Arc::make_mut(world.bench.as_mut().expect("a bench"));
        bench.spec.apps = ["erpnext", "hrms"].map(|it| AppSource { name: it.into(), ..Default::default() }).into();
        bench.metadata.generation = Some(generation);
        let status = bench.status.as_mut().expect("a status");
        status.observed_generation = Some(2);
        (status.desired_revision, status.running_revision) = (Some("b".to_owned()), Some(running.to_owned()));
    };
    set(&mut world, "a", 2);
    change(&mut world, |spec| spec.apps = Some(vec!["erpnext".into(), "hrms".into()]));
    let next = plan(&world);
    assert_eq!((reason(&next).as_str(), next.job), ("BenchNotReady", None));
    let rolling = world.bench.clone().expect("a bench");
    set(&mut world, "b", 3);
    assert_eq!(plan(&world).job, None, "the bench's status is not of its spec yet");
    set(&mut world, "b", 2);
    assert_eq!(plan(&world).job.map(|it| it.key.name).as_deref(), Some("shop-apply"));
    let complete =
        crate::io::cache::Change::Applied { now: world.bench.clone().expect("a bench"), before: Some(rolling) };
    assert!(crate::controllers::site::watch::bench_matters(&complete), "the site is reconciled then");

    let mut world = settled(json!({"apps": ["erpnext"]}));
    set(&mut world, "a", 2);
    change(&mut world, |spec| spec.maintenance_mode = Some(true));
    assert_eq!(plan(&world).job.map(|it| it.key.name).as_deref(), Some("shop-apply"), "other changes do not wait");
}

#[test]
fn one_change_at_a_time() {
    let mut world = settled(json!({}));
    change(&mut world, |spec| spec.maintenance_mode = Some(true));
    let first = plan(&world);
    apply(&mut world, &first, "Running");
    change(&mut world, |spec| spec.scheduler_paused = Some(true));
    let during = plan(&world);
    assert_eq!(during.job.map(|it| it.key.name).as_deref(), Some("shop-apply"), "the running Job");
    let mut done = DynamicObject::clone(&world.jobs["shop-apply"]);
    done.data["status"]["conditions"][0]["type"] = json!("Complete");
    world.jobs.insert("shop-apply".to_owned(), Arc::new(done));
    assert_eq!(plan(&world).job.map(|it| it.key.name).as_deref(), Some("shop-apply-2"));
}

#[test]
fn a_failing_change_is_tried_three_times_and_the_site_not_changed() {
    let mut world = settled(json!({}));
    change(&mut world, |spec| spec.maintenance_mode = Some(true));
    for _ in 0..6 {
        let next = plan(&world);
        apply(&mut world, &next, "Failed");
        world.now = Timestamp::from_second(100_000).expect("a time");
    }
    assert_eq!(reason(&plan(&world)), "ConfigureFailed");
    assert!(world.routes.ingress.is_some());
    change(&mut world, |spec| spec.maintenance_mode = None);
    converge(&mut world, "Complete");
    assert_eq!(reason(&plan(&world)), "Ready", "reverting the change is enough");
}

#[test]
fn reconcile_now_is_answered_once() {
    let mut world = settled(json!({}));
    Arc::make_mut(&mut world.site).annotations_mut().insert("frappe.vyogo.tech/reconcile".into(), "now".into());
    let (made, _) = converge(&mut world, "Complete");
    assert!(made.iter().any(|it| it.key.name == "shop-apply"));
    let status = world.site.status.clone().expect("a status");
    assert_eq!(status.last_handled_reconcile_at.as_deref(), Some("now"));
    assert!(is_empty(&world, &plan(&world)));
}

#[test]
fn a_suspended_site_is_not_changed_and_can_be_deleted() {
    let mut world = settled(json!({}));
    change(&mut world, |spec| {
        spec.suspend = Some(true);
        spec.domain = Some("other.com".into());
    });
    world.routes.ingress = None;
    let next = plan(&world);
    assert!(next.steps.is_empty() && next.job.is_none());
    let status = next.status.clone().expect("a status");
    assert_eq!(condition::find(&status.conditions, "Progressing").map(|it| it.reason.as_str()), Some("Suspended"));
    assert_eq!(status.phase, SitePhase::Ready);
    apply(&mut world, &next, "Complete");
    assert!(is_empty(&world, &plan(&world)));
    being_deleted(&mut world);
    for _ in 0..8 {
        let next = plan(&world);
        apply(&mut world, &next, "Complete");
    }
    assert!(world.site.finalizers().is_empty());
}
