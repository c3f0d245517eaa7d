//! SiteJobs: at most once, one operation of a site at a time, refusals, ends, and a crash after any write.

use frappe_crds::{SiteJob, SiteJobStatus, job::JobPhase};

use super::{super::under_way::site_job_key, *};
use crate::controllers::{
    job::{Ended, Failure},
    ran::Run,
    site::place::Place,
    sitejob::{
        model::{Plan as JobPlan, Step as JobStep},
        plan as of_jobs,
        reason::Reason as Word,
    },
};

/// A SiteJob of the site, created at noon of 2026-03-01.
fn site_job(name: &str, spec: Value) -> Arc<SiteJob> {
    let mut whole = json!({"siteRef": {"name": "shop"}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    let made = json!({
        "apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteJob", "spec": whole,
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1,
                     "resourceVersion": "3", "creationTimestamp": "2026-03-01T12:00:00Z"},
    });
    Arc::new(serde_json::from_value(made).expect("a SiteJob"))
}

fn clears() -> Value {
    json!({"command": {"name": "clear-cache"}})
}

/// An available site with these SiteJobs, at one in the afternoon.
fn served(site_jobs: Vec<Arc<SiteJob>>) -> Observed {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    (world.site_jobs, world.now) = (site_jobs, "2026-03-01T13:00:00Z".parse().expect("a time"));
    world
}

fn job_plan(world: &Observed) -> JobPlan {
    of_jobs::plan(world).started()
}

fn status(world: &Observed, name: &str) -> SiteJobStatus {
    let found = world.site_jobs.iter().find(|it| it.name_any() == name).expect("a SiteJob");
    found.status.clone().unwrap_or_default()
}

fn stands(world: &Observed, name: &str) -> (JobPhase, String) {
    let status = status(world, name);
    (status.phase, condition::find(&status.conditions, "Ready").expect("a condition").reason.clone())
}

fn edit(world: &mut Observed, name: &str, edit: impl FnOnce(&mut SiteJob)) {
    edit(Arc::make_mut(world.site_jobs.iter_mut().find(|it| it.name_any() == name).expect("a SiteJob")));
}

/// Each write of a plan as a separate plan, in the order of execution.
fn job_writes(plan: &JobPlan) -> Vec<JobPlan> {
    let step = |step: &JobStep| JobPlan { steps: vec![step.clone()], ..JobPlan::default() };
    let mut writes: Vec<JobPlan> = plan.steps.iter().map(step).collect();
    writes.push(JobPlan { status: plan.status.clone(), ..JobPlan::default() });
    writes.extend(plan.prepare.iter().map(step));
    writes.push(JobPlan { job: plan.job.clone(), ..JobPlan::default() });
    writes.extend(plan.last.iter().map(step));
    writes
}

/// Executes a plan of SiteJobs; returns the created Job.
fn apply_jobs(world: &mut Observed, plan: &JobPlan) -> Option<Desired> {
    let mut made = None;
    for write in job_writes(plan) {
        for step in &write.steps {
            match step {
                JobStep::Patch(job, metadata) => {
                    edit(world, &job.name_any(), |it| it.metadata.labels = Some(labels_of(metadata)));
                }
                JobStep::Status(job, next, _) => edit(world, &job.name_any(), |it| it.status = Some(*next.clone())),
                JobStep::Delete(Kind::Job, job) => remove(world, Kind::Job, &job.name_any()),
                JobStep::Delete(Kind::SiteJob, job) => world.site_jobs.retain(|it| it.name_any() != job.name_any()),
                other => panic!("no plan of SiteJobs has {other:?}"),
            }
        }
        if let Some(status) = &write.status {
            Arc::make_mut(&mut world.site).status = Some(status.clone());
        }
        let new = |job: &&Desired| world.site_job.as_ref().is_none_or(|it| it.name_any() != job.key.name);
        if let Some(job) = write.job.as_ref().filter(new) {
            place(world, job, "Suspended");
            world.site_job_result = (None, None);
            made = Some(job.clone());
        }
    }
    // The Job is read by the name that is recorded.
    let recorded = world.site.status.as_ref().and_then(|it| it.job.as_ref());
    let named = recorded.map(|it| site_job_key(&Place::of(&world.site), it).name);
    world.site_job = world.site_job.take().filter(|it| Some(it.name_any()) == named);
    made
}

/// Reconciles until nothing changes, without ending Jobs; returns the created Jobs of SiteJobs.
fn settle(world: &mut Observed) -> Vec<Desired> {
    let mut made = Vec::new();
    for _ in 0..20 {
        let seen = |world: &Observed| {
            let job = world.site_job.as_ref().map(|it| it.name_any());
            (world.site.status.clone(), world.site_jobs.clone(), world.jobs.len(), job)
        };
        let before = seen(world);
        let next = plan(world);
        apply(world, &next, "Suspended");
        let next = job_plan(world);
        made.extend(apply_jobs(world, &next));
        if before == seen(world) {
            return made;
        }
    }
    panic!("it never settles: {:?}", world.site_jobs);
}

fn end(world: &mut Observed, result: &str, ended: Option<Ended>, run: Option<Run>) {
    let mut job = DynamicObject::clone(world.site_job.as_ref().expect("a Job"));
    let now = world.now.to_string();
    job.data["status"] = json!({"conditions": [{"type": result, "status": "True", "lastTransitionTime": now}]});
    (world.site_job, world.site_job_result) = (Some(Arc::new(job)), (ended, run));
}

fn succeed(world: &mut Observed) {
    let run = Run { exit: Some(0), output: Some("done\n".into()), value: Some("7".into()), ..Run::default() };
    end(world, "Complete", Some(Ended::parse(r#"{"result": "ran"}"#)), Some(run));
}

fn request(job: &Desired) -> Value {
    let container = &job.body["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"][0], "run");
    serde_json::from_str(container["args"][1].as_str().expect("a request")).expect("JSON")
}

#[test]
fn a_sitejob_runs_once_and_keeps_what_it_left() {
    let mut world = served(vec![site_job("now", clears())]);
    let first = job_plan(&world);
    assert!(first.status.as_ref().is_some_and(|it| it.job.is_some()), "recorded before the Job is created");
    let made = settle(&mut world);
    assert_eq!(made.len(), 1);
    assert_eq!(lint(&made[0]), Vec::<String>::new());
    assert_eq!(request(&made[0])["run"], json!({"command": ["clear-cache"]}));
    assert_eq!(stands(&world, "now"), (JobPhase::Running, "JobRunning".into()));
    succeed(&mut world);
    assert!(settle(&mut world).is_empty());
    let status = status(&world, "now");
    assert_eq!(stands(&world, "now"), (JobPhase::Succeeded, "JobSucceeded".into()));
    assert_eq!(
        (status.exit_code, status.output.as_deref(), status.result.as_deref()),
        (Some(0), Some("done\n"), Some("7"))
    );
    assert_eq!(status.output_truncated, Some(false));
    assert_eq!(world.site.status.clone().expect("a status").job, None);
    assert_eq!(job_plan(&world), JobPlan::default());
    world.now = "2027-03-01T13:00:00Z".parse().expect("a time");
    assert_eq!(job_plan(&world), JobPlan::default(), "it is not run again");
}

/// R-7: a crash between any two writes loses no SiteJob and runs none twice.
#[test]
fn a_crash_after_any_write_of_a_sitejob_converges() {
    for fails in [false, true] {
        for cut in 0..14 {
            let mut world =
                served(vec![site_job("now", json!({"command": {"name": "clear-cache"}, "maintenance": true}))]);
            let (mut left, mut runs, mut settles) = (cut, 0, 0);
            for round in 0..16 {
                let own = plan(&world);
                apply(&mut world, &own, "Suspended");
                for write in job_writes(&job_plan(&world)) {
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                    if let Some(made) = apply_jobs(&mut world, &write) {
                        let settle = request(&made)["settle"] == json!(true);
                        (runs, settles) = (runs + usize::from(!settle), settles + usize::from(settle));
                    }
                }
                if left == 0 {
                    left = usize::MAX;
                }
                let ended = world.site_job.as_ref().is_some_and(|it| it.data["status"]["active"].is_null());
                if round % 4 == 3 && world.site_job.is_some() && !ended {
                    if fails
                        && world
                            .site
                            .status
                            .as_ref()
                            .is_some_and(|it| it.job.as_ref().is_some_and(|it| it.attempt == 1))
                    {
                        end(&mut world, "Failed", None, None);
                    } else {
                        succeed(&mut world);
                    }
                }
            }
            let wanted = if fails {
                (JobPhase::Failed, "JobFailed".into())
            } else {
                (JobPhase::Succeeded, "JobSucceeded".into())
            };
            assert_eq!(stands(&world, "now"), wanted, "cut after {cut} writes");
            assert_eq!((runs, settles), (1, usize::from(fails)), "cut after {cut} writes");
            assert_eq!(world.site.status.clone().expect("a status").job, None, "cut after {cut} writes");
        }
    }
}

/// Its pod has nothing of other sites, no Secret and no token.
#[test]
fn a_pod_has_only_the_directory_of_its_site() {
    let script = json!({"script": {"configMapRef": {"name": "scripts", "key": "job.py"}}});
    let mut world = served(vec![site_job("now", script)]);
    let made = settle(&mut world);
    let pod = &made[0].body["spec"]["template"]["spec"];
    assert_eq!((&pod["automountServiceAccountToken"], &pod["serviceAccountName"]), (&json!(false), &Value::Null));
    let volumes: Vec<&Value> = pod["volumes"].as_array().expect("volumes").iter().collect();
    assert!(volumes.iter().all(|it| it["secret"].is_null() && it["projected"].is_null()), "{volumes:?}");
    let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
    let of_volume: Vec<(&str, bool)> = mounts
        .iter()
        .filter(|it| it["name"] == "sites")
        .map(|it| (it["subPath"].as_str().expect("not the volume's root"), it["readOnly"] == json!(true)))
        .collect();
    assert_eq!(of_volume, [("apps.txt", true), ("common_site_config.json", true), ("shop.example.com", false)]);
    insta::assert_yaml_snapshot!("pod", pod);
    let script = volumes.iter().find(|it| it["name"] == "script").expect("the script");
    assert_eq!(script["configMap"]["optional"], json!(true), "the runner says that it is missing");
    assert_eq!(made[0].body["metadata"]["ownerReferences"][0]["kind"], "SiteJob");
    assert_eq!(request(&made[0])["database"], Value::Null);
}

/// The kubelet replaces `$(NAME)` and `$$` in arguments.
#[test]
fn arguments_reach_the_runner_as_they_are() {
    let hostile: Value = serde_json::from_str(include_str!("../../../runner/tests/arguments.json")).expect("JSON");
    let all: Vec<String> = serde_json::from_value(hostile["reach"].clone()).expect("texts");
    assert!(all.len() >= 200);
    for some in all.chunks(16) {
        let mut world = served(vec![site_job("now", json!({"command": {"name": "doctor", "args": some}}))]);
        let made = settle(&mut world);
        let words = request(&made[0])["run"]["command"].clone();
        assert_eq!(words.as_array().expect("words")[1..], some.iter().map(|it| json!(it)).collect::<Vec<_>>());
        let text = made[0].body["spec"]["template"]["spec"]["containers"][0]["args"][1].as_str().expect("a request");
        assert!(!text.contains('$') && text.len() < 100_000, "{}", text.len());
    }
}

#[test]
fn arguments_of_a_method_are_its_json() {
    let asks =
        |args: &str, kwargs: &str| json!({"method": {"name": "frappe.utils.now", "args": args, "kwargs": kwargs}});
    let mut world = served(vec![site_job("now", asks(r#"[1, "a $(b)"]"#, r#"{"c": null}"#))]);
    let made = settle(&mut world);
    let wanted = json!({"method": "frappe.utils.now", "args": [1, "a $(b)"], "kwargs": {"c": null}});
    assert_eq!(request(&made[0])["run"], wanted);
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    for (args, kwargs) in [("[1,]", "{}"), ("[", "{}"), (deep.as_str(), "{}"), ("[]", "{'a': 1}"), ("[]", "{} {}")] {
        let mut world = served(vec![site_job("now", asks(args, kwargs))]);
        assert!(settle(&mut world).is_empty(), "{args} {kwargs}");
        assert_eq!(stands(&world, "now"), (JobPhase::Failed, "ArgumentsInvalid".into()));
    }
}

#[test]
fn a_command_that_is_not_allowed_is_refused_until_a_setting_adds_it() {
    let mut world = served(vec![site_job("now", json!({"command": {"name": "trim-tables"}}))]);
    assert!(settle(&mut world).is_empty());
    assert_eq!(stands(&world, "now"), (JobPhase::Failed, "CommandRefused".into()));
    Arc::make_mut(&mut world.config).allowed_site_commands.push("trim-tables".into());
    assert_eq!(settle(&mut world).len(), 1);
}

/// A bench of another namespace is shared with other sites, whose queues its code can reach.
#[test]
fn code_is_run_only_on_a_bench_of_the_sites_namespace() {
    for (spec, wanted) in [(clears(), "SiteBusy"), (json!({"method": {"name": "frappe.utils.now"}}), "CodeRefused")] {
        let mut world = served(vec![site_job("now", spec)]);
        Arc::make_mut(&mut world.site).spec.bench_ref.namespace = Some("benches".into());
        let next = job_plan(&world);
        apply_jobs(&mut world, &next);
        assert_eq!(stands(&world, "now").1, wanted);
    }
}

/// R-18: a site has one operation at a time.
#[test]
fn a_change_waits_for_a_sitejob_and_a_sitejob_for_a_change_and_another_one() {
    let mut world = served(vec![site_job("now", clears()), site_job("then", clears())]);
    assert_eq!(settle(&mut world).len(), 1);
    assert_eq!(stands(&world, "then"), (JobPhase::Pending, "SiteBusy".into()));
    Arc::make_mut(&mut world.site).spec.site_config.insert("max_file_size".into(), json!(1));
    Arc::make_mut(&mut world.site).metadata.generation = Some(2);
    assert!(settle(&mut world).is_empty());
    assert_eq!(reason(&plan(&world)), "WaitingForBackup");
    world.backups.push(super::backups::backup("safe", json!({"storage": super::backups::bucket()})));
    assert!(backup_plan(&world).job.is_none(), "a backup waits, too");
    succeed(&mut world);
    let recorded = job_plan(&world);
    apply_jobs(&mut world, &recorded);
    let own = plan(&world);
    apply(&mut world, &own, "Suspended");
    assert!(world.jobs.contains_key("shop-apply"), "the change is next");
    let waits = job_plan(&world);
    assert!(waits.job.is_none());
    apply_jobs(&mut world, &waits);
    assert_eq!(stands(&world, "then"), (JobPhase::Pending, "SiteBusy".into()));
}

#[test]
fn a_suspended_sitejob_starts_when_it_is_not_suspended_any_more() {
    let mut world = served(vec![site_job("now", json!({"command": {"name": "clear-cache"}, "suspend": true}))]);
    assert!(settle(&mut world).is_empty());
    assert_eq!(stands(&world, "now"), (JobPhase::Pending, "JobSuspended".into()));
    edit(&mut world, "now", |it| it.spec.suspend = None);
    assert_eq!(settle(&mut world).len(), 1);
}

/// A failure says nothing of the output: Events and conditions are read by others.
#[test]
fn a_failure_is_data_and_its_output_is_in_the_status_alone() {
    let mut world = served(vec![site_job("now", clears())]);
    settle(&mut world);
    let failed = Ended::parse(r#"{"step": "clear-cache", "code": "CommandFailed", "error": "exit code 3"}"#);
    let run = Run { exit: Some(3), output: Some("a name".into()), cut: true, ..Run::default() };
    end(&mut world, "Failed", Some(failed), Some(run));
    let notices: Vec<String> = job_plan(&world)
        .steps
        .iter()
        .filter_map(|it| if let JobStep::Status(_, _, Some(notice)) = it { Some(notice.note.clone()) } else { None })
        .collect();
    assert_eq!(notices.len(), 1);
    settle(&mut world);
    let status = status(&world, "now");
    let outcome = status.outcome.clone().expect("an outcome");
    assert_eq!(outcome.code.as_deref(), Some("CommandFailed"));
    assert_eq!(
        (status.exit_code, status.output.as_deref(), status.output_truncated),
        (Some(3), Some("a name"), Some(true))
    );
    let said = format!("{notices:?} {} {:?} {:?}", outcome.message, status.message, status.conditions);
    assert!(said.contains("exit code 3") && !said.contains("a name"), "{said}");
}

#[test]
fn nothing_is_kept_of_the_output_on_request() {
    let mut world = served(vec![site_job("now", json!({"command": {"name": "clear-cache"}, "captureOutput": "None"}))]);
    let made = settle(&mut world);
    assert_eq!(request(&made[0])["capture"], json!(false));
    succeed(&mut world);
    settle(&mut world);
    let status = status(&world, "now");
    assert_eq!((status.output, status.result, status.exit_code), (None, None, Some(0)));
}

/// What was done is not known: it is not run again.
#[test]
fn a_sitejob_whose_job_was_deleted_has_failed() {
    let mut world = served(vec![site_job("now", clears())]);
    settle(&mut world);
    world.site_job = None;
    assert!(settle(&mut world).is_empty());
    assert_eq!(stands(&world, "now"), (JobPhase::Failed, "JobFailed".into()));
    assert_eq!(world.site.status.clone().expect("a status").job, None);
}

#[test]
fn after_a_kill_in_maintenance_mode_another_job_ends_it() {
    let mut world = served(vec![site_job("now", json!({"command": {"name": "clear-cache"}, "maintenance": true}))]);
    settle(&mut world);
    end(&mut world, "Failed", Some(Ended::Failed(Failure::unknown())), None);
    let made = settle(&mut world);
    assert_eq!(made.len(), 1);
    assert_eq!((&request(&made[0])["settle"], &request(&made[0])["run"]), (&json!(true), &Value::Null));
    assert_eq!(stands(&world, "now"), (JobPhase::Failed, "JobFailed".into()));
    let told = status(&world, "now");
    end(&mut world, "Failed", Some(Ended::Failed(Failure::unknown())), None);
    assert!(settle(&mut world).is_empty());
    assert!(job_plan(&world).again_after.is_some(), "it is tried again after a while");
    world.now += std::time::Duration::from_mins(1);
    assert_eq!(settle(&mut world).len(), 1);
    succeed(&mut world);
    assert!(settle(&mut world).is_empty());
    assert_eq!((world.site.status.clone().expect("a status").job, status(&world, "now")), (None, told));
    // One that ended by itself leaves nothing to do.
    let mut world = served(vec![site_job("now", json!({"command": {"name": "clear-cache"}, "maintenance": true}))]);
    settle(&mut world);
    end(&mut world, "Failed", Some(Ended::Failed(Failure::unknown())), Some(Run::default()));
    assert!(settle(&mut world).is_empty());
}

#[test]
fn a_sitejob_is_deleted_after_its_time() {
    let spec = json!({"command": {"name": "clear-cache"}, "ttlSecondsAfterFinished": 3600});
    let mut world = served(vec![site_job("now", spec)]);
    settle(&mut world);
    succeed(&mut world);
    settle(&mut world);
    assert_eq!(job_plan(&world).again_after.map(|it| it.as_secs()), Some(3600));
    world.now += std::time::Duration::from_hours(1);
    settle(&mut world);
    assert!(world.site_jobs.is_empty());
}

#[test]
fn the_job_of_a_deleted_sitejob_is_stopped() {
    let mut world = served(vec![site_job("now", clears())]);
    settle(&mut world);
    world.site_jobs.clear();
    settle(&mut world);
    assert_eq!((world.site_job.is_none(), world.site.status.clone().expect("a status").job), (true, None));
}

/// R-18: its Job is stopped before anything else of the deletion runs.
#[test]
fn a_deleted_site_stops_its_sitejob() {
    let mut world = served(vec![site_job("now", clears()), site_job("then", clears())]);
    settle(&mut world);
    being_deleted(&mut world);
    for _ in 0..5 {
        let own = plan(&world);
        assert!(world.site_job.is_none() || own.job.is_none(), "beside its Job");
        apply(&mut world, &own, "Suspended");
        let next = job_plan(&world);
        assert!(apply_jobs(&mut world, &next).is_none());
    }
    assert!(world.site_job.is_none());
    assert_eq!(stands(&world, "now"), (JobPhase::Failed, "JobFailed".into()));
}

#[test]
fn every_reason_of_an_end_is_counted() {
    use crate::controllers::reason::{Class, Reason as _};
    for word in <Word as strum::VariantArray>::VARIANTS {
        let ends = matches!(word, Word::JobSucceeded | Word::JobFailed);
        assert_eq!(Word::counted(&word.to_string()).is_some(), ends);
        assert!(!ends || matches!(word.class(), Class::Done | Class::Failed));
    }
}
