//! The commands for users, in a cluster with a running operator.

use std::process::Command;

use frappe_crds::site::SitePhase;
use serde_json::Value;

use crate::support::{World, kubectl, program, site};

/// Runs the program; returns whether it succeeded, its output and its errors.
fn run(world: &World, arguments: &[&str], input: &str) -> (bool, String, String) {
    use std::io::Write as _;
    let mut child = Command::new(program())
        .args(arguments)
        .env("KUBECONFIG", &world.cluster.kubeconfig)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn run_ok(world: &World, arguments: &[&str]) -> String {
    let (ok, out, errors) = run(world, arguments, "");
    assert!(ok, "{arguments:?}: {errors}");
    println!("$ frappe-operator {}\n{out}", arguments.join(" "));
    out
}

/// Runs it as `kubectl frappe`.
fn as_plugin(world: &World, arguments: &[&str]) -> String {
    let link = world.cluster.logs.join("kubectl-frappe");
    std::os::unix::fs::symlink(program(), &link).unwrap();
    let path = format!("{}:{}", world.cluster.logs.display(), std::env::var("PATH").unwrap());
    let mut kubectl = Command::new("kubectl");
    kubectl.arg("frappe").args(arguments).env("PATH", path).env("KUBECONFIG", &world.cluster.kubeconfig);
    let output = kubectl.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_for_users() {
    let world = World::start("tool").await;
    status_and_why_report_waiting_sites(&world).await;
    render_and_crds_print_what_runs_in_the_cluster(&world);
}

async fn status_and_why_report_waiting_sites(world: &World) {
    assert_eq!(run_ok(world, &["status"]), "0 benches\n0 sites\n0 backups\n");
    world.with_bench("shops").await;
    kubectl(&world.cluster, &["apply", "-f", "-"], &site("shops", "one"));
    let stuck = site("shops", "two").replace("name: bench}", "name: absent}");
    kubectl(&world.cluster, &["apply", "-f", "-"], &stuck);
    world.wait_for_site_phase("shops", "one", SitePhase::Ready).await;
    world.wait_for_site_reason("shops", "two", "BenchNotFound").await;

    let table = run_ok(world, &["status"]);
    assert!(table.starts_with("1 bench: 1 Ready\n2 sites: 1 BenchNotFound, 1 Ready\n"), "{table}");
    assert!(table.contains("shops/two") && !table.contains("shops/one"), "only waiting sites are listed: {table}");
    assert!(run_ok(world, &["status", "--all", "-n", "shops"]).contains("shops/one"));
    let of_bench = run_ok(world, &["status", "--all", "--bench", "shops/bench"]);
    assert!(of_bench.contains("shops/one") && !of_bench.contains("shops/two"), "{of_bench}");
    let rows: Vec<Value> = serde_json::from_str(&run_ok(world, &["status", "--json"])).unwrap();
    assert_eq!(rows.iter().filter(|it| it["settled"] == true).count(), 2);

    let why = run_ok(world, &["why", "shops/two"]);
    assert!(why.contains("site shops/two is not Ready") && why.contains("No FrappeBench has the name"), "{why}");
    assert!(why.contains("Owned by replica"), "{why}");
    let why = run_ok(world, &["why", "shops/one"]);
    assert!(why.contains("site shops/one is Ready") && why.contains("Job shops/one-init is complete"), "{why}");
    assert!(run_ok(world, &["why", "--bench", "shops/bench"]).contains("bench shops/bench is Ready"));
    assert_eq!(as_plugin(world, &["status"]).lines().nth(1), table.lines().nth(1));
    let (ok, _, errors) = run(world, &["why", "shops/none"], "");
    assert!(!ok && errors.contains("FrappeSite shops/none not found"), "{errors}");
    let (ok, _, errors) = run(world, &["why", "shops/one", "--operator-namespace", "elsewhere"], "");
    assert!(ok, "{errors}");
}

/// With `updateStrategy.type: Revisions`: pods of both images, a pause, a resumption, and the end of the former image.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_moves_to_another_image_when_its_rollout_is_resumed() {
    let world = World::start("revisions").await;
    world.with_bench("shops").await;
    kubectl(&world.cluster, &["apply", "-f", "-"], &site("shops", "one"));
    world.wait_for_site_phase("shops", "one", SitePhase::Ready).await;
    assert!(run_ok(&world, &["rollout", "shops/bench", "history"]).contains("has had only one revision"));
    let (ok, _, errors) = run(&world, &["rollout", "shops/bench", "promote"], "");
    assert!(!ok && errors.contains("there is no rollout"), "{errors}");
    run_ok(&world, &["rollout", "shops/bench", "pause", "--dry-run"]);
    let get = |path: &str| {
        kubectl(
            &world.cluster,
            &["-n", "shops", "get", "frappebench", "bench", "-o", &format!("jsonpath={{{path}}}")],
            "",
        )
    };
    assert_eq!(get(".spec.updateStrategy"), "");
    run_ok(&world, &["rollout", "shops/bench", "pause"]);
    let change = r#"{"spec": {"imageConfig": {"tag": "v16.0.0"}, "updateStrategy": {"type": "Revisions", "scaleDownDelay": "1s"}}}"#;
    kubectl(&world.cluster, &["-n", "shops", "patch", "frappebench", "bench", "--type=merge", "-p", change], "");
    let waits = ["-n", "shops", "wait", "--timeout=120s", "frappebench/bench"];
    kubectl(&world.cluster, &[&waits[..], &["--for=jsonpath={.status.rollout.phase}=Paused"]].concat(), "");
    let deployments = || kubectl(&world.cluster, &["-n", "shops", "get", "deployments", "-o", "name"], "");
    assert_eq!(deployments().lines().filter(|it| it.ends_with("-r1")).count(), 7, "{}", deployments());
    let shown = run_ok(&world, &["rollout", "shops/bench", "status"]);
    assert!(shown.contains("paused by updateStrategy.paused") && shown.contains("0 of 1 sites have moved"), "{shown}");
    assert!(run_ok(&world, &["rollout", "shops/bench", "history"]).contains("serving"));
    run_ok(&world, &["rollout", "shops/bench", "resume"]);
    kubectl(&world.cluster, &[&waits[..], &["--for=condition=Updated"]].concat(), "");
    let revision = kubectl(
        &world.cluster,
        &["-n", "shops", "get", "frappesite", "one", "-o", "jsonpath={.status.revision} {.status.phase}"],
        "",
    );
    assert_eq!(revision, "2 Ready");
    kubectl(
        &world.cluster,
        &[
            "-n",
            "shops",
            "wait",
            "--timeout=60s",
            "--for=delete",
            "deployment/bench-gunicorn-r1",
            "service/bench-nginx-r1",
        ],
        "",
    );
    assert!(run_ok(&world, &["rollout", "shops/bench", "history"]).contains("retired"));
    assert!(run_ok(&world, &["rollout", "shops/bench", "status"]).contains("completed"));
}

/// Differing lines, except the hash of the applied object and the hash of the random Redis password, which is the pods' only
/// annotation.
fn changed(diff: &str) -> Vec<&str> {
    let is_change = |line: &&str| line.starts_with(['+', '-']) && !line.starts_with("---") && !line.starts_with("+++");
    let is_known = |line: &&str| {
        let line = line[1..].trim();
        ["frappe.vyogo.tech/applied: ", "frappe.vyogo.tech/redis-secret: ", "generation: "]
            .iter()
            .any(|it| line.starts_with(it))
            || line == "annotations:"
    };
    diff.lines().filter(is_change).filter(|line| !is_known(line)).collect()
}

/// `render` prints the objects that run in the cluster, `crds` the installed CRDs; completions contain the program's name.
fn render_and_crds_print_what_runs_in_the_cluster(world: &World) {
    let live = kubectl(&world.cluster, &["get", "frappebench", "-n", "shops", "bench", "-o", "yaml"], "");
    let (ok, rendered, errors) = run(world, &["render", "-f", "-"], &live);
    assert!(ok, "{errors}");
    assert!(rendered.matches("\n  \"kind\": ").count() > 15, "{rendered}");
    let diff = ["diff", "--server-side", "--force-conflicts", "--field-manager", "frappe-operator", "-f", "-"];
    let output = world.cluster.kubectl(&diff, &rendered).unwrap();
    assert_eq!((changed(&output.out), output.errors.as_str()), (Vec::new(), ""));
    let (ok, _, errors) = run(world, &["render", "-f", "-"], "kind: FrappeBench\nmetadata: {name: b}\nspec: {}");
    assert!(!ok && errors.contains("frappeVersion"), "{errors}");

    let (ok, definitions, errors) = run(world, &["crds"], "");
    assert!(ok, "{errors}");
    let output =
        world.cluster.kubectl(&["diff", "--server-side", "--force-conflicts", "-f", "-"], &definitions).unwrap();
    let changed = changed(&output.out);
    assert!(!changed.iter().any(|it| it.contains("openAPIV3Schema") || it.contains("description:")), "{changed:?}");
    for shell in ["bash", "zsh", "fish"] {
        let (ok, script, errors) = run(world, &["completions", shell], "");
        assert!(ok && script.contains("frappe-operator"), "{shell}: {errors}");
    }
}
