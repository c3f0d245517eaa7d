//! The commands for people, against a cluster with a running operator.

use std::process::Command;

use frappe_crds::site::SitePhase;
use serde_json::Value;

use crate::support::{World, kubectl, program, site};

/// Runs the program: whether it ended well, its output and its errors.
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

fn says(world: &World, arguments: &[&str]) -> String {
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
async fn people_are_told_what_waits_and_why() {
    let world = World::start("tool").await;
    assert_eq!(says(&world, &["status"]), "0 benches\n0 sites\n");
    world.with_bench("shops").await;
    kubectl(&world.cluster, &["apply", "-f", "-"], &site("shops", "one"));
    let stuck = site("shops", "two").replace("name: bench}", "name: absent}");
    kubectl(&world.cluster, &["apply", "-f", "-"], &stuck);
    world.site_in("shops", "one", SitePhase::Ready).await;
    world.site_says("shops", "two", "BenchNotFound").await;

    let table = says(&world, &["status"]);
    assert!(table.starts_with("1 bench: 1 Ready\n2 sites: 1 BenchNotFound, 1 Ready\n"), "{table}");
    assert!(table.contains("shops/two") && !table.contains("shops/one"), "only what waits is listed: {table}");
    assert!(says(&world, &["status", "--all", "-n", "shops"]).contains("shops/one"));
    let of_bench = says(&world, &["status", "--all", "--bench", "shops/bench"]);
    assert!(of_bench.contains("shops/one") && !of_bench.contains("shops/two"), "{of_bench}");
    let rows: Vec<Value> = serde_json::from_str(&says(&world, &["status", "--json"])).unwrap();
    assert_eq!(rows.iter().filter(|it| it["settled"] == true).count(), 2);

    let why = says(&world, &["why", "shops/two"]);
    assert!(why.contains("site shops/two is not Ready") && why.contains("No FrappeBench has the name"), "{why}");
    assert!(why.contains("Owned by replica"), "{why}");
    let why = says(&world, &["why", "shops/one"]);
    assert!(why.contains("site shops/one is Ready") && why.contains("Job shops/one-init is complete"), "{why}");
    assert!(says(&world, &["why", "--bench", "shops/bench"]).contains("bench shops/bench is Ready"));
    assert_eq!(as_plugin(&world, &["status"]).lines().nth(1), table.lines().nth(1));
    let (ok, _, errors) = run(&world, &["why", "shops/none"], "");
    assert!(!ok && errors.contains("FrappeSite shops/none not found"), "{errors}");
    let (ok, _, errors) = run(&world, &["why", "shops/one", "--operator-namespace", "elsewhere"], "");
    assert!(ok, "{errors}");
}

/// What differs, but for the hash by which the operator knows what it applied, and that of the Secret with Redis' password,
/// which is random: the only annotation of the pods that have it.
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

/// What `render` prints of a bench is what runs; `crds` is what the cluster has; completions are of this program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_printed_is_what_runs() {
    let world = World::start("render").await;
    world.with_bench("shops").await;
    let live = kubectl(&world.cluster, &["get", "frappebench", "-n", "shops", "bench", "-o", "yaml"], "");
    let (ok, rendered, errors) = run(&world, &["render", "-f", "-"], &live);
    assert!(ok, "{errors}");
    assert!(rendered.matches("\n  \"kind\": ").count() > 15, "{rendered}");
    let diff = ["diff", "--server-side", "--force-conflicts", "--field-manager", "frappe-operator", "-f", "-"];
    let output = world.cluster.kubectl(&diff, &rendered).unwrap();
    assert_eq!((changed(&output.out), output.errors.as_str()), (Vec::new(), ""));
    let (ok, _, errors) = run(&world, &["render", "-f", "-"], "kind: FrappeBench\nmetadata: {name: b}\nspec: {}");
    assert!(!ok && errors.contains("frappeVersion"), "{errors}");

    let (ok, definitions, errors) = run(&world, &["crds"], "");
    assert!(ok, "{errors}");
    let output =
        world.cluster.kubectl(&["diff", "--server-side", "--force-conflicts", "-f", "-"], &definitions).unwrap();
    let changed = changed(&output.out);
    assert!(!changed.iter().any(|it| it.contains("openAPIV3Schema") || it.contains("description:")), "{changed:?}");
    for shell in ["bash", "zsh", "fish"] {
        let (ok, script, errors) = run(&world, &["completions", shell], "");
        assert!(ok && script.contains("frappe-operator"), "{shell}: {errors}");
    }
}
