//! Revisions: pods of two images beside each other, each with its folder, queues and cache, while sites move.

use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;

use super::{
    super::placed::PlacedSite,
    code::{change, digest, found, image, status_of},
    *,
};

const OLD: char = '1';
const NEW: char = '2';

fn with(tag: Option<&str>, mut strategy: Value) -> Value {
    if strategy["type"].is_null() {
        strategy["type"] = json!("Revisions");
    }
    let image = tag.map_or(json!({}), |tag| json!({"tag": tag}));
    json!({"updateStrategy": strategy, "imageConfig": image})
}

/// Sets the spec, as a user does.
fn set(world: &mut Observed, spec: Value) {
    Arc::make_mut(&mut world.bench).spec = bench(spec).spec;
}

/// The specs of all Deployments.
fn deployments(world: &Observed) -> BTreeMap<String, Value> {
    let all = world.live.iter().filter(|((kind, _), _)| *kind == Kind::Deployment);
    all.map(|((_, name), live)| (name.clone(), live.data["spec"].clone())).collect()
}

/// A bench that runs its first image.
fn running() -> Observed {
    let mut world = observed(with(None, json!({})));
    world.inspection = Some(found("a", Some(OLD)));
    converge(&mut world);
    world.inspection = None;
    converge(&mut world);
    assert!(status_of(&world).revisions.is_empty(), "a bench that has had only one image");
    world
}

/// The same, with another image, to the end of its rollout.
fn rolled() -> (Observed, Vec<Desired>) {
    let mut world = running();
    set(&mut world, with(Some("16"), json!({})));
    world.inspection = Some(found("b", Some(NEW)));
    let made = converge(&mut world);
    world.inspection = None;
    converge(&mut world);
    (world, made)
}

fn of<'a>(made: &'a [Desired], kind: Kind, name: &str) -> &'a Desired {
    made.iter()
        .rfind(|it| it.kind == kind && it.key.name == name)
        .unwrap_or_else(|| panic!("{kind:?} {name} was not made"))
}

fn folder(world: &Observed, component: &str) -> Value {
    let live = &world.live[&(Kind::Deployment, format!("prod-{component}"))];
    let mounts = live.data["spec"]["template"]["spec"]["containers"][0]["volumeMounts"].clone();
    let of_sites = mounts
        .as_array()
        .expect("mounts")
        .iter()
        .find(|it| it["mountPath"] == "/home/frappe/frappe-bench/sites")
        .cloned();
    of_sites.expect("the sites")["subPath"].clone()
}

fn environment(world: &Observed, component: &str, name: &str) -> Value {
    let live = &world.live[&(Kind::Deployment, format!("prod-{component}"))];
    let variables = live.data["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    let found = variables.as_array().into_iter().flatten().find(|it| it["name"] == name).cloned();
    found.unwrap_or_default()["value"].clone()
}

/// Sites, so many on each of these revisions.
fn sites(counts: &[(i32, usize)]) -> Arc<Vec<PlacedSite>> {
    let of = |(revision, count): &(i32, usize)| {
        let revision = *revision;
        (0..*count).map(move |number| PlacedSite {
            key: Key::new("default", format!("site-{revision}-{number}")),
            uid: format!("uid-{revision}-{number}"),
            labels: BTreeMap::new(),
            revision,
            failed: None,
            broken: false,
            goes_to: None,
            undone: None,
            held: false,
        })
    };
    Arc::new(counts.iter().flat_map(of).collect())
}

#[test]
fn another_image_runs_beside_the_present_one() {
    let (world, made) = rolled();
    let status = status_of(&world);
    let numbers: Vec<_> = status.revisions.iter().map(|it| (it.number, it.complete, it.cache_database)).collect();
    assert_eq!(numbers, [(1, true, 0), (2, true, 1)]);
    assert_eq!(
        status.revisions[0].image_digest,
        Some(digest(OLD)),
        "what the former pods ran, not what the tag names now"
    );
    assert_eq!(
        (status.revisions[1].image_digest.clone(), status.revisions[1].apps.clone()),
        (Some(digest(NEW)), status.apps.clone())
    );
    for component in ["nginx", "gunicorn", "socketio", "worker-default", "worker-short", "worker-long", "scheduler"] {
        let former = format!("{component}-r1");
        assert!(image(&world, &former).ends_with(&format!(":version-15@{}", digest(OLD))), "{former}");
        assert!(image(&world, component).ends_with(&format!(":16@{}", digest(NEW))), "{component}");
        assert_eq!((folder(&world, &former), folder(&world, component)), (Value::Null, json!(".revisions/2")));
        // The newest one's Services and Deployments must not select them.
        let deployment = of(&made, Kind::Deployment, &format!("prod-{former}"));
        let selector = &deployment.body["spec"]["selector"]["matchLabels"]["component"];
        assert_eq!((selector, deployment.component()), (&json!(former), former.as_str()));
    }
    assert_eq!(environment(&world, "nginx-r1", "BACKEND"), "prod-gunicorn-r1:8000");
    assert_eq!(environment(&world, "nginx-r1", "SITE_RUNNER_REVISION"), "1");
    assert_eq!(environment(&world, "nginx", "SITE_RUNNER_REVISION"), "2");
    assert_eq!(environment(&world, "nginx", "SITE_RUNNER_VOLUME"), "/home/frappe/volume");
    let service = of(&made, Kind::Service, "prod-nginx-r1");
    assert_eq!(service.body["spec"]["selector"]["component"], "nginx-r1");
    assert!(made.iter().all(|it| it.key.name != "prod-hold"), "no site is held: each is held by its own update");
    let configure = of(&made, Kind::Job, "prod-configure");
    let containers = &configure.body["spec"]["template"]["spec"];
    assert_eq!(containers["initContainers"][0]["args"], json!(["folder", "{\"number\":2}"]));
    let mounts = containers["initContainers"][0]["volumeMounts"].to_string();
    assert!(!mounts.contains("subPath") && mounts.contains("/home/frappe/volume"), "{mounts}");
    let request: Value =
        serde_json::from_str(containers["containers"][0]["args"][1].as_str().expect("a request")).expect("JSON");
    let common = &request["common_site_config"];
    assert_eq!(
        (&common["bench_id"], &request["older"]["1"]),
        (&json!("default-prod-r2"), &json!("prod-nginx-r1:8080"))
    );
    assert_eq!(
        (&common["redis_cache"], &common["redis_queue"]),
        (&json!("redis://prod-redis-cache:6379/1"), &json!("redis://prod-redis-queue:6379"))
    );
}

/// While the former code does not run beside it, each present pod stays as it is.
#[test]
fn present_pods_stay_until_the_former_code_runs_beside_them() {
    let mut world = running();
    set(&mut world, with(Some("16"), json!({})));
    let recorded = plan(&world);
    assert!(
        recorded.steps.is_empty() && recorded.status.is_some(),
        "it is recorded before anything is created: {:?}",
        recorded.steps
    );
    apply(&mut world, &recorded);
    world.inspection = Some(found("b", Some(NEW)));
    let before = deployments(&world);
    for _ in 0..8 {
        let next = plan(&world);
        apply(&mut world, &next);
        // No pod of the former code becomes ready.
        for ((_, name), live) in &mut world.live {
            if name.ends_with("-r1") && live.data["status"]["availableReplicas"] != json!(0) {
                Arc::make_mut(live).data["status"]["availableReplicas"] = json!(0);
            }
        }
    }
    let now = deployments(&world);
    for (name, spec) in before {
        assert_eq!(now[&name], spec, "{name}");
    }
    assert!(world.live.contains_key(&(Kind::Deployment, "prod-nginx-r1".to_owned())));
    assert!(
        !world.live.contains_key(&(Kind::Deployment, "prod-scheduler-r1".to_owned())),
        "there is one in that folder"
    );
    let status = status_of(&world);
    assert!(!status.revisions[1].complete, "no site moves");
    assert_eq!(condition::find(&status.conditions, "Ready").map(|it| it.reason.as_str()), Some("Rolling"));
}

/// Two schedulers would queue each job of a folder twice.
#[test]
fn a_folder_never_has_two_schedulers() {
    let mut world = running();
    set(&mut world, with(Some("16"), json!({})));
    world.inspection = Some(found("b", Some(NEW)));
    for _ in 0..24 {
        let next = plan(&world);
        apply(&mut world, &next);
        let former = world.live.contains_key(&(Kind::Deployment, "prod-scheduler-r1".to_owned()));
        assert!(!former || folder(&world, "scheduler") == ".revisions/2", "both schedule the root");
    }
    assert!(
        world.live.contains_key(&(Kind::Deployment, "prod-scheduler-r1".to_owned())),
        "the sites that have not moved need one"
    );
}

#[test]
fn a_revision_goes_a_while_after_its_last_site() {
    let (mut world, _) = rolled();
    let before = deployments(&world);
    converge(&mut world);
    assert_eq!(deployments(&world), before, "while their number is not known, nothing changes");
    world.placed = Some(sites(&[(1, 3), (2, 1)]));
    converge(&mut world);
    assert_eq!((deployments(&world), status_of(&world).revisions[0].empty_since.clone()), (before, None));
    world.placed = Some(sites(&[(2, 4)]));
    let next = plan(&world);
    apply(&mut world, &next);
    assert!(status_of(&world).revisions[0].empty_since.is_some() && !status_of(&world).revisions[0].retired);
    assert_eq!(plan(&world).again_after, Some(Duration::from_mins(10)));
    // A site that comes back, because its update failed, keeps it.
    world.placed = Some(sites(&[(1, 1), (2, 3)]));
    let next = plan(&world);
    apply(&mut world, &next);
    assert_eq!(status_of(&world).revisions[0].empty_since, None);
    world.placed = Some(sites(&[(2, 4)]));
    let next = plan(&world);
    apply(&mut world, &next);
    world.now = world.now.checked_add(SignedDuration::from_mins(10)).expect("a time");
    let next = plan(&world);
    apply(&mut world, &next);
    assert!(status_of(&world).revisions[0].retired);
    let input = world.input();
    let rendered = build::render(&input);
    assert!(rendered.older.is_empty());
    let gone: Vec<String> = rendered
        .retired(&input)
        .into_iter()
        .filter(|(kind, _)| matches!(kind, Kind::Deployment | Kind::Service))
        .map(|(_, key)| key.name)
        .collect();
    for name in ["prod-nginx-r1", "prod-gunicorn-r1", "prod-scheduler-r1", "prod-worker-long-r1"] {
        assert!(gone.contains(&name.to_owned()), "{name} is deleted: {gone:?}");
    }
    assert!(
        !gone.iter().any(|name| !name.ends_with("-r1") && !name.contains("redis")),
        "nothing of the newest: {gone:?}"
    );
}

/// The newest pods do not change when an earlier revision goes.
#[test]
fn what_goes_restarts_nothing() {
    let (mut world, _) = rolled();
    let revision = build::render(&world.input()).revision().to_owned();
    let bench = Arc::make_mut(&mut world.bench);
    bench.status.as_mut().expect("a status").revisions[0].retired = true;
    assert_eq!(build::render(&world.input()).revision(), revision);
    let before = deployments(&world);
    converge(&mut world);
    assert_eq!(deployments(&world), before);
}

#[test]
fn at_most_three_run_at_once() {
    let (mut world, _) = rolled();
    set(&mut world, with(Some("17"), json!({})));
    world.inspection = Some(found("c", Some('3')));
    converge(&mut world);
    assert_eq!(status_of(&world).revisions.iter().map(|it| it.cache_database).collect::<Vec<_>>(), [0, 1, 2]);
    world.inspection = None;
    set(&mut world, with(Some("18"), json!({})));
    let made = converge(&mut world);
    assert!(made.is_empty(), "the pods stay as they are");
    let status = status_of(&world);
    assert_eq!(status.revisions.len(), 3);
    assert_eq!(condition::find(&status.conditions, "Ready").map(|it| it.reason.as_str()), Some("TooManyRevisions"));
}

/// An image that never ran is no revision to keep pods for.
#[test]
fn an_image_that_did_not_start_is_replaced_by_the_next() {
    let mut world = running();
    set(&mut world, with(Some("broken"), json!({})));
    let recorded = plan(&world);
    apply(&mut world, &recorded);
    set(&mut world, with(Some("16"), json!({})));
    let recorded = plan(&world);
    apply(&mut world, &recorded);
    let images: Vec<_> = status_of(&world).revisions.iter().map(|it| (it.number, it.image.clone())).collect();
    let repository = "docker.io/frappe/erpnext";
    assert_eq!(
        images,
        [(1, format!("{repository}:version-15")), (3, format!("{repository}:16"))],
        "numbers are not used twice"
    );
}

/// Set back to InPlace, the next image is rolled out in the folder of the present revision.
#[test]
fn in_place_there_is_no_other_revision() {
    let (mut world, _) = rolled();
    Arc::make_mut(&mut world.bench).status.as_mut().expect("a status").revisions[0].retired = true;
    set(&mut world, with(Some("17"), json!({"type": "InPlace"})));
    world.inspection = Some(found("c", Some('3')));
    converge(&mut world);
    let status = status_of(&world);
    assert_eq!(status.revisions.iter().map(|it| it.number).collect::<Vec<_>>(), [1, 2]);
    assert!(status.revisions[1].image.ends_with(":17"));
    assert!(image(&world, "gunicorn").ends_with(&format!(":17@{}", digest('3'))));
    assert_eq!(folder(&world, "gunicorn"), ".revisions/2");
    let mut other = running();
    change(&mut other, "16");
    let next = plan(&other);
    apply(&mut other, &next);
    assert!(status_of(&other).revisions.is_empty(), "the default is InPlace");
}

#[test]
fn a_bench_that_cannot_have_two_says_so() {
    let mut spec = with(None, json!({}));
    spec["redisConfig"] = json!({"connectionSecretRef": {"name": "redis"}});
    let mut world = observed(spec);
    let next = plan(&world);
    assert!(next.steps.is_empty());
    apply(&mut world, &next);
    let status = status_of(&world);
    assert_eq!(
        condition::find(&status.conditions, "Ready").map(|it| it.reason.as_str()),
        Some("RevisionsNotSupported")
    );
}

#[test]
fn a_window_that_never_opens_is_refused() {
    let mut world = observed(with(
        None,
        json!({"windows": [{"schedule": "0 1 * * *", "duration": "1h", "timeZone": "Mars/Olympus"}]}),
    ));
    let next = plan(&world);
    assert!(next.steps.is_empty());
    apply(&mut world, &next);
    let status = status_of(&world);
    let ready = condition::find(&status.conditions, "Ready").expect("the condition");
    assert_eq!(ready.reason, "WindowInvalid");
    assert!(ready.message.starts_with("updateStrategy.windows[0].schedule: "), "{}", ready.message);
}
