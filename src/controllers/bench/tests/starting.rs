//! Start of the components: after Redis, by their own commands, and without a restart by an upgrade of the operator.

use super::*;
use crate::controllers::bench::{earlier::forms, model::PodProblem, reason::Reason};

fn template(world: &Observed, name: &str) -> Value {
    world.live[&(Kind::Deployment, name.to_owned())].data["spec"]["template"].clone()
}

fn ensured(plan: &Plan, name: &str) -> Option<Value> {
    let steps = plan.steps.iter().rev();
    steps.into_iter().find_map(|it| match it {
        Step::Ensure(it) if it.kind == Kind::Deployment && it.key.name == name => {
            Some(it.body["spec"]["template"].clone())
        }
        _ => None,
    })
}

/// Workers and the websocket server exit at once if Redis does not respond.
#[test]
fn the_components_start_once_redis_is_ready() {
    let mut world = observed(json!({}));
    for _ in 0..2 {
        let next = plan(&world);
        apply(&mut world, &next);
    }
    let key = (Kind::StatefulSet, "prod-redis-queue".to_owned());
    let server = Arc::make_mut(world.live.get_mut(&key).expect("it is there"));
    server.data["status"]["readyReplicas"] = json!(0);
    world.live.retain(|(kind, _), _| *kind != Kind::Deployment);
    let next = plan(&world);
    assert!(next.steps.iter().all(|it| !matches!(it, Step::Ensure(it) if it.kind == Kind::Deployment)));
    let (phase, reason, message) = ready(&world);
    assert_eq!((phase, reason.as_str()), (BenchPhase::Progressing, "Preparing"));
    assert_eq!(message, "the components start once the pods of prod-redis-queue are ready");
    Arc::make_mut(world.live.get_mut(&key).expect("it is there")).data["status"]["readyReplicas"] = json!(1);
    assert!(ensured(&plan(&world), "prod-worker-long").is_some());
    converge(&mut world);
    Arc::make_mut(world.live.get_mut(&key).expect("it is there")).data["status"]["readyReplicas"] = json!(0);
    assert!(ensured(&plan(&world), "prod-worker-long").is_some(), "existing components are still reconciled");
}

/// The image's entrypoint recreates a link on the shared volume: if several pods start at once, some fail.
#[test]
fn no_pod_runs_the_images_entrypoint() {
    let made = converge(&mut observed(json!({})));
    let deployments: Vec<_> = made.iter().filter(|it| it.kind == Kind::Deployment).collect();
    assert!(!deployments.is_empty());
    for deployment in deployments {
        let container = &deployment.body["spec"]["template"]["spec"]["containers"][0];
        assert!(container["command"].is_array() && container["args"].is_null(), "{container}");
    }
}

/// The version whose pods are stopped at once, and the earlier one that runs them by the image's entrypoint.
const EARLIER: [usize; 2] = [0, 1];
const OLDEST: usize = EARLIER[1];

/// Templates of an earlier version, which an upgrade does not change: no write, no new pod.
fn of_an_earlier_version(version: usize, spec: Value) -> Observed {
    let mut world = observed(spec);
    let made = converge(&mut world);
    for desired in made.iter().filter(|it| it.kind == Kind::Deployment) {
        let mut desired = desired.clone();
        desired.body["spec"]["template"] = forms(&desired.body["spec"]["template"])[version].clone();
        world.live.insert((desired.kind, desired.key.name.clone()), live(&desired));
    }
    world
}

#[test]
fn an_upgrade_alone_changes_no_template() {
    for version in EARLIER {
        is_left_alone(&of_an_earlier_version(version, json!({"componentReplicas": {"gunicorn": 2}})));
    }
    let world = of_an_earlier_version(0, json!({}));
    let nginx = template(&world, "prod-nginx")["spec"].clone();
    assert_eq!(
        (&nginx["terminationGracePeriodSeconds"], &nginx["containers"][0]["lifecycle"]),
        (&json!(130), &Value::Null)
    );
    let gunicorn = template(&world, "prod-gunicorn")["spec"]["containers"][0]["lifecycle"].to_string();
    assert!(gunicorn.contains("left=60; until") && !gunicorn.contains("sleep 10"), "{gunicorn}");
    let world = of_an_earlier_version(OLDEST, json!({}));
    let worker = template(&world, "prod-worker-long")["spec"]["containers"][0].clone();
    assert_eq!(worker["args"], json!(["bench", "worker", "--queue", "long,default,short"]));
    assert_eq!(worker["startupProbe"], worker["livenessProbe"]);
    assert_eq!(template(&world, "prod-gunicorn")["spec"]["containers"][0]["workingDir"], Value::Null);
}

fn is_left_alone(world: &Observed) {
    assert_eq!(ready(world).1, "Ready");
    for step in plan(world).steps {
        let Step::Ensure(it) = step else { continue };
        let live = &world.live[&(it.kind, it.key.name.clone())];
        let live = serde_json::to_value(live.as_ref()).expect("JSON");
        assert_eq!(first_difference(&it.stamped(), &live), None, "{:?} {}", it.kind, it.key.name);
    }
}

/// Also with a read-only root file system: the writable folders are added with the next change.
#[test]
fn an_upgrade_alone_adds_no_folders_to_a_read_only_root() {
    let world =
        of_an_earlier_version(OLDEST, json!({"security": {"securityContext": {"readOnlyRootFilesystem": true}}}));
    for name in ["prod-gunicorn", "prod-nginx", "prod-worker-long"] {
        let kept = ensured(&plan(&world), name).expect("a kept template");
        let volumes = kept["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        assert!(volumes.iter().all(|it| it["name"] != "config" && it["name"] != "run"), "{name}: {volumes:?}");
    }
}

/// A manually edited template of this version is not an earlier one: its current form is restored, with its hook.
#[test]
fn a_manually_edited_template_is_restored_to_the_current_form() {
    let edits = [
        ("lifecycle", json!({"preStop": {"exec": {"command": ["sh", "-c", "left=1"]}}})),
        ("command", json!(["sleep", "1d"])),
    ];
    for ((field, value), name) in
        edits.into_iter().flat_map(|it| ["prod-gunicorn", "prod-nginx"].map(|name| (it.clone(), name)))
    {
        let mut world = observed(json!({}));
        let made = converge(&mut world);
        let wanted = find(&made, Kind::Deployment, name)["spec"]["template"]["spec"]["containers"][0][field].clone();
        let key = (Kind::Deployment, name.to_owned());
        let mut edited = DynamicObject::clone(&world.live[&key]);
        edited.data["spec"]["template"]["spec"]["containers"][0][field] = value;
        world.live.insert(key, Arc::new(edited));
        let kept = ensured(&plan(&world), name).expect("a kept template");
        assert_eq!(kept["spec"]["containers"][0][field], wanted, "{name} {field}");
    }
}

/// Every other change of pods also updates their template; a number of pods does not.
#[test]
fn an_earlier_template_is_updated_with_another_change_of_it() {
    let edited = |spec: Value| {
        let mut world = of_an_earlier_version(OLDEST, json!({}));
        world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..bench(spec) });
        let next = plan(&world);
        move |name: &str| ensured(&next, name).expect("a kept template")["spec"]["containers"][0]["command"].is_array()
    };
    let more = edited(json!({"componentReplicas": {"nginx": 3}}));
    assert!(!more("prod-nginx") && !more("prod-worker-long"));
    let larger = edited(json!({"componentResources": {"worker-long": {"limits": {"memory": "3Gi"}}}}));
    assert!(larger("prod-worker-long") && !larger("prod-worker-short"));
}

/// A new image is rolled out stage by stage, and the new template with it.
#[test]
fn a_new_image_updates_templates_stage_by_stage() {
    for version in EARLIER {
        comes_up_to_date_in_turn(of_an_earlier_version(version, json!({})));
    }
}

fn comes_up_to_date_in_turn(mut world: Observed) {
    world.bench = Arc::new(FrappeBench { status: world.bench.status.clone(), ..bench(json!({"frappeVersion": "16"})) });
    let now = |world: &Observed, name: &str| {
        let pod = ensured(&plan(world), name).expect("a kept template")["spec"].clone();
        pod["containers"][0]["lifecycle"].to_string().contains("sleep 10")
            && pod["terminationGracePeriodSeconds"] == 140
    };
    for _ in 0..2 {
        let next = plan(&world);
        let steps = next.steps.into_iter().filter(|it| !matches!(it, Step::Ensure(it) if it.kind == Kind::Deployment));
        apply(&mut world, &Plan { steps: steps.collect(), ..next });
    }
    assert!(now(&world, "prod-nginx"));
    assert!(!now(&world, "prod-gunicorn"), "its stage has not started");
    converge(&mut world);
    assert!(now(&world, "prod-gunicorn"));
    let scheduler = template(&world, "prod-scheduler")["spec"]["containers"][0].clone();
    assert!(scheduler["command"].is_array(), "{scheduler}");
}

/// nginx exited with 30 if it could not write its configuration, and the scheduler if it could not write its lock. `bench` has no commands if
/// the volume hides the folder `pids`.
#[test]
fn written_folders_are_volumes_if_the_root_is_read_only() {
    let paths = |spec: Value, name: &str| {
        let made = converge(&mut observed(spec));
        let pod = find(&made, Kind::Deployment, name)["spec"]["template"]["spec"].clone();
        let mounts = pod["containers"][0]["volumeMounts"].as_array().cloned().unwrap_or_default();
        mounts.iter().map(|it| it["mountPath"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let read_only = json!({"security": {"securityContext": {"readOnlyRootFilesystem": true}}});
    for path in ["/etc/nginx/conf.d", "/var/lib/nginx", "/run", "/tmp"] {
        assert!(paths(read_only.clone(), "prod-nginx").iter().any(|it| it == path), "{path}");
    }
    let config = "/home/frappe/frappe-bench/config".to_owned();
    let pids = format!("{config}/pids");
    for name in ["prod-scheduler", "prod-worker-short"] {
        let found = paths(read_only.clone(), name);
        assert!(found.contains(&config) && found.contains(&pids), "{name}: {found:?}");
    }
    assert!(!paths(read_only, "prod-gunicorn").contains(&pids), "it is not started by bench");
    assert!(!paths(json!({}), "prod-scheduler").contains(&config), "other templates do not change");
}

/// With a quota, a Deployment may have no pods, which only its controller reports.
#[test]
fn rejected_pods_are_reported_with_the_api_servers_message() {
    let mut world = observed(json!({}));
    converge(&mut world);
    let refused = json!({"observedGeneration": 1, "conditions": [
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small"}]});
    let key = (Kind::Deployment, "prod-worker-long".to_owned());
    Arc::make_mut(world.live.get_mut(&key).expect("it is there")).data["status"] = refused;
    let (_, reason, message) = ready(&world);
    assert_eq!(reason, "PodsNotStarting");
    assert_eq!(message, "Deployment prod-worker-long: its pods are rejected: exceeded quota: small");
}

/// The controller of StatefulSets reports rejected pods only in Events.
#[test]
fn a_redis_server_without_a_pod_is_reported_in_time() {
    let mut world = observed(json!({}));
    converge(&mut world);
    let key = (Kind::StatefulSet, "prod-redis-queue".to_owned());
    let server = Arc::make_mut(world.live.get_mut(&key).expect("it is there"));
    server.data["status"] = json!({"observedGeneration": 1, "replicas": 0});
    server.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now));
    assert_eq!(ready(&world).1, "Starting");
    assert_eq!(plan(&world).again_after, Some(std::time::Duration::from_secs(20)));
    world.now += jiff::SignedDuration::from_secs(20);
    let (_, reason, message) = ready(&world);
    assert_eq!(reason, "PodsNotStarting");
    assert!(message.starts_with("StatefulSet prod-redis-queue: its pod cannot be created"), "{message}");
    assert_eq!(plan(&world).again_after, None);
}

/// The configure Job's deadline is ten minutes, but a missing pod is reported much earlier.
#[test]
fn a_configure_job_without_a_pod_is_reported_in_time() {
    let mut world = observed(json!({}));
    let first = plan(&world);
    apply(&mut world, &first);
    let job = Arc::make_mut(world.live.get_mut(&(Kind::Job, "prod-configure".to_owned())).expect("it is there"));
    job.data["status"] = json!({});
    job.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now));
    assert_eq!(ready(&world).1, "Preparing");
    assert_eq!(plan(&world).again_after, Some(std::time::Duration::from_secs(20)));
    world.now += jiff::SignedDuration::from_secs(20);
    let (_, reason, message) = ready(&world);
    assert_eq!(reason, "PodsNotStarting");
    assert!(message.starts_with("Job prod-configure: its pod cannot be created"), "{message}");
    assert_eq!(plan(&world).again_after, None);
}

/// What its pod reports is shown for as long as it is so, not only until the pod should have started.
#[test]
fn an_image_that_cannot_be_pulled_stays_named() {
    let mut world = observed(json!({}));
    let first = plan(&world);
    apply(&mut world, &first);
    let job = Arc::make_mut(world.live.get_mut(&(Kind::Job, "prod-configure".to_owned())).expect("it is there"));
    job.data["status"] = json!({"active": 1});
    job.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now));
    world.pod_problems = vec![PodProblem {
        pod: Key::new("default", "prod-configure-1"),
        component: "configure".into(),
        reason: Reason::ImagePullFailed,
        message: "ErrImagePull: not found".into(),
    }];
    for seconds in [0, 59, 60, 3600] {
        world.now += jiff::SignedDuration::from_secs(seconds);
        let (_, reason, message) = ready(&world);
        assert_eq!(
            (reason.as_str(), message.as_str()),
            ("ImagePullFailed", "configure: pod prod-configure-1: ErrImagePull: not found")
        );
    }
}
