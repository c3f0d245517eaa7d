//! SiteJobs on a real API server: what it refuses, who may run code, and `kubectl frappe exec`, as users with only the rights that the
//! docs name.

use std::process::Command;

use frappe_crds::{SiteJob, site::SitePhase};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::support::{World, kubectl, program, site};

/// Rights as in docs/jobs.md: `operator` runs commands, `coder` also methods and scripts.
const ROLES: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: operator, namespace: shops}
rules:
  - {apiGroups: [vyogo.tech], resources: [sitejobs], verbs: [get, list, watch, create, delete]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: coder, namespace: shops}
rules:
  - {apiGroups: [vyogo.tech], resources: [sitejobs], verbs: [get, list, watch, create, update, patch, delete]}
  - {apiGroups: [vyogo.tech], resources: [sitejobs/script], verbs: [create]}
  - {apiGroups: [\"\"], resources: [configmaps], resourceNames: [scripts], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: operator, namespace: shops}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: operator}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: operator}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: coder, namespace: shops}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: coder}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: coder}]
";

fn job(name: &str, spec: &Value) -> Value {
    let mut whole = json!({"siteRef": {"name": "shop"}});
    json_patch::merge(&mut whole, spec);
    json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteJob", "metadata": {"name": name, "namespace": "shops"}, "spec": whole})
}

fn script(name: &str) -> Value {
    json!({"script": {"configMapRef": {"name": name, "key": "job.py"}}})
}

/// Creates a SiteJob as a user; the error if it is refused.
fn create_as(world: &World, user: &str, name: &str, spec: &Value) -> Option<String> {
    let arguments = ["create", "--as", user, "-f", "-"];
    let output = world.cluster.kubectl(&arguments, &job(name, spec).to_string()).unwrap();
    (!output.success).then_some(output.errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sitejobs_on_an_api_server() {
    let world = World::start("jobs").await;
    world.with_bench("shops").await;
    kubectl(&world.cluster, &["apply", "-f", "-"], &site("shops", "shop"));
    world.cluster.apply(ROLES).unwrap();
    world.cluster.apply(include_str!("../../helm/frappe-operator/files/admission-references.yaml")).unwrap();
    hostile_arguments_are_kept_or_refused(&world).await;
    malformed_specs_are_refused(&world);
    code_needs_a_right_of_its_own(&world).await;
    world.wait_for_site_phase("shops", "shop", SitePhase::Ready).await;
    exec_runs_a_command_as_the_user(&world).await;
    a_sitejob_does_not_change(&world);
    it_is_deleted_after_its_time(&world).await;
    deletion_stops_it(&world).await;
    a_refusal_of_the_operator_is_told(&world);
}

async fn hostile_arguments_are_kept_or_refused(world: &World) {
    let jobs: Api<SiteJob> = Api::namespaced(world.client.clone(), "shops");
    let hostile: Value = serde_json::from_str(include_str!("../../src/runner/tests/arguments.json")).unwrap();
    let texts = |name: &str| -> Vec<String> { serde_json::from_value(hostile[name].clone()).unwrap() };
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let with = |args: &[String]| -> SiteJob {
        serde_json::from_value(job("hostile", &json!({"command": {"name": "doctor", "args": args}}))).unwrap()
    };
    let reach = texts("reach");
    assert!(reach.len() >= 200);
    for argument in &reach {
        let made = jobs.create(&dry, &with(std::slice::from_ref(argument))).await;
        let made = made.unwrap_or_else(|error| panic!("{argument:?}: {error}"));
        assert_eq!(&made.spec.command.unwrap().args, std::slice::from_ref(argument));
    }
    for argument in texts("refused") {
        let refused = jobs.create(&dry, &with(std::slice::from_ref(&argument))).await.expect_err(&argument).to_string();
        let why = [
            "args must have no control characters",
            "args must not contain --site",
            "may not be more than 2048",
            "Too long",
        ];
        assert!(why.iter().any(|it| refused.contains(it)), "{argument:?}: {refused}");
    }
    let long = vec!["x".repeat(2048); 5];
    let refused = jobs.create(&dry, &with(&long)).await.expect_err("too long in all").to_string();
    assert!(refused.contains("args may have at most 8192 characters in all"), "{refused}");
}

fn malformed_specs_are_refused(world: &World) {
    let refusals = [
        (json!({}), "set exactly one of command, method and script"),
        (
            json!({"command": {"name": "doctor"}, "method": {"name": "frappe.ping"}}),
            "set exactly one of command, method and script",
        ),
        (json!({"command": {"name": "--help"}}), "command.name must be the name of a command"),
        (json!({"command": {"name": "doctor;id"}}), "command.name must be the name of a command"),
        (json!({"method": {"name": "ping"}}), "method.name must be the path of a Python function"),
        (json!({"method": {"name": "os.system('id')"}}), "method.name must be the path of a Python function"),
        (json!({"method": {"name": "frappe.ping", "args": "1"}}), "method.args must be a list as JSON"),
        (json!({"method": {"name": "frappe.ping", "kwargs": "[]"}}), "method.kwargs must be an object as JSON"),
        (json!({"script": {"configMapRef": {"name": "scripts", "key": "../x"}}}), "key must be a key of a ConfigMap"),
        (
            json!({"script": {"configMapRef": {"name": "scripts", "key": "x"}, "sha256": "A".repeat(64)}}),
            "sha256 must be 64 hexadecimal digits",
        ),
        (json!({"command": {"name": "doctor"}, "timeoutSeconds": 0}), "timeoutSeconds"),
    ];
    for (spec, why) in refusals {
        let output = world.cluster.kubectl(&["create", "-f", "-"], &job("malformed", &spec).to_string()).unwrap();
        assert!(!output.success && output.errors.contains(why), "{spec}: {}", output.errors);
    }
}

async fn code_needs_a_right_of_its_own(world: &World) {
    let method = json!({"method": {"name": "frappe.ping"}, "suspend": true});
    let mut suspended = script("scripts");
    suspended["suspend"] = json!(true);
    // The policy takes effect some time after it was created.
    let refuses =
        || async { create_as(world, "operator", "probe", &method).filter(|it| it.contains("sitejobs/script")) };
    world.until("the policy is in effect", 60, refuses).await;
    for spec in [&method, &suspended] {
        let refused = create_as(world, "operator", "code", spec).expect("the right is missing");
        assert!(refused.contains("requires the right to create sitejobs/script"), "{refused}");
    }
    assert_eq!(create_as(world, "operator", "command", &json!({"command": {"name": "doctor"}, "suspend": true})), None);
    let patch = r#"{"spec": {"method": {"name": "frappe.ping"}, "command": null}}"#;
    let patch = ["patch", "sitejob", "command", "-n", "shops", "--type", "merge", "-p", patch];
    let output = world.cluster.kubectl(&[&patch[..], &["--as", "operator"]].concat(), "").unwrap();
    assert!(!output.success, "a command does not become a method");
    assert_eq!(create_as(world, "coder", "method", &method), None);
    assert_eq!(create_as(world, "coder", "script", &suspended), None);
    let refused = create_as(world, "coder", "other", &script("others")).expect("another ConfigMap");
    assert!(refused.contains("the user may not get ConfigMap others"), "{refused}");
    for name in ["command", "method", "script"] {
        world.kubectl(&["delete", "sitejob", name, "-n", "shops"]);
    }
}

/// Runs the plugin as a user, by a kubeconfig that impersonates the user.
fn exec_as(world: &World, user: &str, arguments: &[&str]) -> (bool, String, String) {
    let text = std::fs::read_to_string(&world.cluster.kubeconfig).unwrap();
    let mut config: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
    for it in config["users"].as_sequence_mut().unwrap() {
        it["user"]["as"] = user.into();
    }
    let path = world.cluster.logs.join(format!("as-{user}.kubeconfig"));
    std::fs::write(&path, serde_yaml_ng::to_string(&config).unwrap()).unwrap();
    let output = Command::new(program()).arg("exec").args(arguments).env("KUBECONFIG", path).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

async fn exec_runs_a_command_as_the_user(world: &World) {
    let dry = exec_as(world, "operator", &["shops/shop", "--name", "dry", "--dry-run", "--", "doctor"]);
    assert_eq!((dry.0, dry.1.as_str()), (true, "sitejob shops/dry created (dry run)\n"), "{}", dry.2);
    let hostile = ["doctor", "--help", "$(HOME)", "a b\n'\"", "*", "--"];
    let words = [&["shops/shop", "--name", "now", "-o", "json", "--"][..], &hostile].concat();
    let (ok, out, errors) = exec_as(world, "operator", &words);
    assert!(ok, "{errors}");
    let ended: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(ended["status"]["outcome"]["state"], "Succeeded");
    assert_eq!(ended["spec"]["command"], json!({"name": "doctor", "args": hostile[1..]}));
    let name = ended["status"]["job"].as_str().unwrap();
    let made: Value = serde_json::from_str(&world.kubectl(&["get", "job", name, "-n", "shops", "-o", "json"])).unwrap();
    let request = made["spec"]["template"]["spec"]["containers"][0]["args"][1].as_str().unwrap();
    let request: Value = serde_json::from_str(request).unwrap();
    assert_eq!(request["run"]["command"], json!(hostile));
    assert!(world.kubectl(&["get", "sitejobs", "-n", "shops"]).contains("Succeeded"));
    let (ok, _, errors) = exec_as(world, "operator", &["shops/shop", "--method", "frappe.ping"]);
    assert!(!ok && errors.contains("requires the right to create sitejobs/script"), "{errors}");
    let (ok, _, errors) = exec_as(world, "operator", &["shops/shop", "--", "migrate"]);
    assert!(!ok && errors.contains("set the annotation frappe.vyogo.tech/migrate"), "{errors}");
    // Its Job goes with it.
    world.kubectl(&["delete", "sitejob", "now", "-n", "shops"]);
    let gone =
        || async { (!world.cluster.kubectl(&["get", "job", name, "-n", "shops"], "").ok()?.success).then_some(()) };
    world.until("its Job is gone", 60, gone).await;
}

fn a_sitejob_does_not_change(world: &World) {
    let spec = json!({"command": {"name": "doctor", "args": ["a"]}, "suspend": true});
    assert_eq!(create_as(world, "operator", "kept", &spec), None);
    let changes = [
        (json!({"command": {"args": ["b"]}}), Some("cannot be changed")),
        (json!({"siteRef": {"name": "other"}}), Some("siteRef cannot be changed")),
        (json!({"maintenance": true}), Some("only suspend and ttlSecondsAfterFinished can be changed")),
        (json!({"timeoutSeconds": 5}), Some("only suspend and ttlSecondsAfterFinished can be changed")),
        (json!({"suspend": false, "ttlSecondsAfterFinished": 0}), None),
    ];
    for (spec, why) in changes {
        let patch = json!({"spec": spec}).to_string();
        let arguments = ["patch", "sitejob", "kept", "-n", "shops", "--type", "merge", "-p", &patch];
        let output = world.cluster.kubectl(&arguments, "").unwrap();
        assert_eq!(
            (output.success, why.is_none_or(|why| output.errors.contains(why))),
            (why.is_none(), true),
            "{patch}: {}",
            output.errors
        );
    }
}

/// `kept` runs now, and has no time after its end.
async fn it_is_deleted_after_its_time(world: &World) {
    let gone = async || {
        let found = world.cluster.kubectl(&["get", "sitejob", "kept", "-n", "shops"], "").ok()?;
        found.errors.contains("NotFound").then_some(())
    };
    world.until("it is deleted after its end", 60, gone).await;
}

/// A SiteJob that is deleted while it runs is stopped, and its site can start other operations.
async fn deletion_stops_it(world: &World) {
    world.cluster.apply(&job("stopped", &json!({"command": {"name": "doctor"}})).to_string()).unwrap();
    let running = ["wait", "sitejob/stopped", "-n", "shops", "--timeout=60s", "--for=jsonpath={.status.phase}=Running"];
    world.kubectl(&running);
    world.kubectl(&["delete", "sitejob", "stopped", "-n", "shops"]);
    let free = async || {
        let jobs = world.kubectl(&["get", "jobs", "-n", "shops", "-o", "name"]);
        let site = world.sites("shops").get("shop").await.ok()?.status?;
        (site.job.is_none() && !jobs.contains("shop-job")).then_some(())
    };
    world.until("it was stopped", 60, free).await;
}

fn a_refusal_of_the_operator_is_told(world: &World) {
    let (ok, _, errors) = exec_as(world, "operator", &["shops/shop", "--name", "refused", "--", "trim-tables"]);
    assert!(!ok && errors.contains("command trim-tables is not allowed"), "{errors}");
    let why = world.kubectl(&[
        "get",
        "sitejob",
        "refused",
        "-n",
        "shops",
        "-o",
        "jsonpath={.status.conditions[?(@.type=='Ready')].reason}",
    ]);
    assert_eq!(why, "CommandRefused");
}
