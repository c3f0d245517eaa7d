//! What docs/cli.md shows of the plugin, run as a user with the rights that it names.

use std::{fs, path::Path, process::Command};

use frappe_crds::site::SitePhase;
use regex::Regex;

use crate::support::{World, kubectl, program, site};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
const NIGHTLY: &str = "\
apiVersion: vyogo.tech/v1alpha1
kind: SiteBackup
metadata: {name: nightly, namespace: shops}
spec: {siteRef: {name: shop}, schedule: \"H 2 * * *\", storage: {s3: {bucket: backups, region: eu-central-1}}}
";
const BINDING: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: frappe-user, namespace: shops}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: frappe-user}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: frappe-user}]
";

/// The lines of a block of the page, which is indented by four spaces, from the first one that begins with a text.
fn block(page: &str, begins: &str) -> Vec<String> {
    let lines = page.lines().skip_while(|it| !it.strip_prefix("    ").is_some_and(|it| it.starts_with(begins)));
    let mut all: Vec<String> = lines
        .map_while(|it| if it.is_empty() { Some("") } else { it.strip_prefix("    ") })
        .map(str::to_owned)
        .collect();
    while all.last().is_some_and(String::is_empty) {
        all.pop();
    }
    all
}

/// Each command of the block, with what is printed.
fn commands(lines: &[String]) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for line in lines {
        match (line.strip_prefix("$ kubectl frappe "), all.last_mut()) {
            (Some(command), _) => all.push((command.to_owned(), Vec::new())),
            (None, Some((_, printed))) => printed.push(line.clone()),
            (None, None) => panic!("{line} is no command"),
        }
    }
    all
}

/// A line without what differs from run to run: times, ages, random parts of names, sizes, and so the width of columns.
fn lasting(line: &str) -> String {
    let masks = [
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (r"\d{4}-\d\d-\d\d-\d{4}", "TIME"),
        (r"\b\d+[smhd]\b", "AGE"),
        (r"\b\d+ bytes", "SIZE"),
        (r"\b[0-9a-f]{8,}\b", "RANDOM"),
        (r"\s+", " "),
    ];
    masks
        .iter()
        .fold(line.to_owned(), |text, (from, to)| Regex::new(from).unwrap().replace_all(&text, *to).into_owned())
}

/// The kubeconfig of a user.
fn kubeconfig_of(world: &World, user: &str) -> std::path::PathBuf {
    let text = fs::read_to_string(&world.cluster.kubeconfig).unwrap();
    let mut config: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
    for it in config["users"].as_sequence_mut().unwrap() {
        it["user"]["as"] = user.into();
    }
    let path = world.cluster.logs.join(format!("as-{user}.kubeconfig"));
    fs::write(&path, serde_yaml_ng::to_string(&config).unwrap()).unwrap();
    path
}

/// What a command prints; it must succeed.
fn run(kubeconfig: &Path, command: &str) -> Vec<String> {
    let output = Command::new(program()).args(command.split(' ')).env("KUBECONFIG", kubeconfig).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|it| it.trim_end().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plugin_prints_what_its_page_shows() {
    let page = fs::read_to_string(PAGE).unwrap();
    let world = World::start("transcripts").await;
    world.with_bench("shops").await;
    world.cluster.apply(&block(&page, "apiVersion: rbac").join("\n")).unwrap();
    world.cluster.apply(BINDING).unwrap();
    world.cluster.apply(NIGHTLY).unwrap();
    kubectl(&world.cluster, &["apply", "-f", "-"], &site("shops", "shop"));
    world.wait_for_site_phase("shops", "shop", SitePhase::Ready).await;
    let kubeconfig = kubeconfig_of(&world, "frappe-user");
    let shown = commands(&block(&page, "$ kubectl frappe -n"));
    assert!(shown.len() >= 8, "{shown:?}");
    let printed: Vec<_> = shown.iter().map(|(command, _)| (command.clone(), run(&kubeconfig, command))).collect();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let text = |all: &[(String, Vec<String>)]| -> String {
            let of = |(command, lines): &(String, Vec<String>)| {
                let lines: String = lines.iter().map(|it| format!("    {it}").trim_end().to_owned() + "\n").collect();
                format!("    $ kubectl frappe {command}\n{lines}")
            };
            all.iter().map(of).collect()
        };
        fs::write(PAGE, page.replace(&text(&shown), &text(&printed))).unwrap();
        return;
    }
    for ((command, shown), (_, printed)) in shown.iter().zip(&printed) {
        let of = |lines: &[String]| lines.iter().map(|it| lasting(it)).collect::<Vec<_>>().join("\n");
        assert_eq!(of(shown), of(printed), "{command}");
    }
    namespaces_and_contexts_are_kubectls(&kubeconfig);
}

fn namespaces_and_contexts_are_kubectls(kubeconfig: &Path) {
    let run_in = |arguments: &[&str]| {
        let output = Command::new(program()).args(arguments).env_remove("KUBECONFIG").output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let path = kubeconfig.to_str().unwrap();
    let (ok, text) = run_in(&["--kubeconfig", path, "why", "shop", "-n", "shops"]);
    assert!(ok && text.contains("site shops/shop is Ready"), "{text}");
    let mut config: serde_yaml_ng::Value = serde_yaml_ng::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    config["contexts"][0]["context"]["namespace"] = "shops".into();
    fs::write(path, serde_yaml_ng::to_string(&config).unwrap()).unwrap();
    let (ok, text) = run_in(&["--kubeconfig", path, "why", "shop"]);
    assert!(ok && text.contains("site shops/shop is Ready"), "the context's namespace: {text}");
    let (ok, text) = run_in(&["--kubeconfig", path, "--context", "absent", "why", "shop"]);
    assert!(!ok && text.contains("absent"), "{text}");
    let (ok, text) = run_in(&["--kubeconfig", path, "logs", "shop"]);
    assert!(!ok && text.contains("list the pods") && text.contains("forbidden"), "{text}");
}
