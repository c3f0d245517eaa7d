//! `install.sh` and `helm/install.yaml`: they equal the chart, are idempotent, and uninstall without harm.

use std::{path::Path, process::Command};

use frappe_loadtest::cluster::Cluster;
use sha2::Digest as _;

use crate::support::{kubectl, program, site};

const SYSTEM: &str = "my-frappe-system";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs install.sh; returns whether it succeeded, and its output.
fn script(cluster: &Cluster, arguments: &[&str]) -> (bool, String) {
    let kubeconfig = &cluster.kubeconfig;
    let output =
        Command::new("bash").arg(root().join("install.sh")).args(arguments).env("KUBECONFIG", kubeconfig).output();
    let output = output.unwrap();
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
    (output.status.success(), said)
}

/// The file equals what the chart renders.
#[test]
fn the_manifest_equals_the_chart() {
    let written = std::fs::read_to_string(root().join("helm/install.yaml")).unwrap();
    let made = Command::new("make").args(["--silent", "print-manifests"]).current_dir(root()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(String::from_utf8_lossy(&made.stdout) == written, "helm/install.yaml is out of date: make manifests");
}

/// The script has the release's version and the checksum of its manifest.
#[test]
fn the_script_has_the_checksum_of_the_manifest() {
    let script = std::fs::read_to_string(root().join("install.sh")).unwrap();
    let manifest = std::fs::read(root().join("helm/install.yaml")).unwrap();
    let sum = frappe_operator::parts::hex(&sha2::Sha256::digest(manifest));
    assert!(script.contains(&format!("\nsha256={sum}\n")), "install.sh is out of date: make manifests");
    assert!(script.contains(&format!("\nrelease={}\n", env!("CARGO_PKG_VERSION"))), "install.sh has another version");
}

/// A folder with planted files of the names that the script looks for, and a `curl` that returns a file.
struct Trap(std::path::PathBuf);

impl Trap {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("frappe-install-{name}-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("helm")).unwrap();
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        std::fs::write(folder.join("helm/install.yaml"), "PLANTED\n").unwrap();
        // A file of the function's name, which is `$0` in a script from a pipe.
        std::fs::write(folder.join("main"), "").unwrap();
        let curl = "#!/bin/sh\nfor it in \"$@\"; do url=$it; done\necho \"$url\" >>asked\ncat published\n";
        std::fs::write(folder.join("bin/curl"), curl).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.join("bin/curl"), mode).unwrap();
        Self(folder)
    }

    /// Runs the script as `curl … | bash` does.
    fn piped(&self, environment: &[(&str, &str)]) -> (bool, String) {
        let path = format!("{}:{}", self.0.join("bin").display(), std::env::var("PATH").unwrap());
        let script = std::fs::File::open(root().join("install.sh")).unwrap();
        let mut command = Command::new("bash");
        command.args(["-s", "--", "--print"]).stdin(script).current_dir(&self.0).env("PATH", path);
        let output = command.envs(environment.iter().copied()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
        (output.status.success(), said)
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn from_a_pipe_only_the_manifest_of_the_release_is_used() {
    let trap = Trap::new("pipe");
    let published = std::fs::read_to_string(root().join("helm/install.yaml")).unwrap();
    std::fs::write(trap.0.join("published"), &published).unwrap();
    let (ok, said) = trap.piped(&[]);
    assert!(ok && !said.contains("PLANTED") && said.contains("kind: CustomResourceDefinition"), "{said}");
    let asked = std::fs::read_to_string(trap.0.join("asked")).unwrap();
    let release = format!("frappe-operator/v{}/helm/install.yaml", env!("CARGO_PKG_VERSION"));
    assert!(asked.lines().count() == 1 && asked.contains(&release), "{asked}");
    // The published manifest was changed.
    std::fs::write(trap.0.join("published"), published.replacen("replicas: 2", "replicas: 1", 1)).unwrap();
    let (ok, said) = trap.piped(&[]);
    assert!(!ok && said.contains("does not match the SHA-256 in this script") && !said.contains("kind:"), "{said}");
}

#[test]
fn a_local_manifest_is_compared_with_its_checksum() {
    let trap = Trap::new("own");
    let own = [("FRAPPE_OPERATOR_MANIFEST", "helm/install.yaml")];
    let (ok, said) = trap.piped(&own);
    assert!(ok && said == "PLANTED\n", "the manifest is used if it is named: {said}");
    let sum = frappe_operator::parts::hex(&sha2::Sha256::digest("PLANTED\n"));
    for (sum, fits) in [(sum.as_str(), true), ("0123", false)] {
        let (ok, said) = trap.piped(&[own[0], ("FRAPPE_OPERATOR_MANIFEST_SHA256", sum)]);
        assert!(ok == fits && (fits || said.contains("does not match FRAPPE_OPERATOR_MANIFEST_SHA256")), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_script_is_idempotent_and_uninstalls_without_removing_sites() {
    let cluster = Cluster::start("install", 2).unwrap();
    rejects_invalid_arguments(&cluster);
    let asked = ["--namespace", SYSTEM, "--replicas", "3", "--image", "registry.example.com/frappe-operator:9"];
    let (ok, said) = script(&cluster, &asked);
    assert!(ok, "{said}");
    assert!(
        said.contains("The Frappe operator runs in namespace my-frappe-system")
            && said.contains("KEDA is not installed"),
        "{said}"
    );
    assert!(!said.contains("MariaDB operator is not installed"), "its CRDs are in the test cluster: {said}");
    let deployment =
        "jsonpath={.metadata.generation} {.status.readyReplicas} {.spec.template.spec.containers[0].image}";
    let look = ["get", "deployment", "-n", SYSTEM, "frappe-operator-controller-manager", "-o", deployment];
    let first = kubectl(&cluster, &look, "");
    assert_eq!(first, "1 3 registry.example.com/frappe-operator:9");
    let binding = "jsonpath={.subjects[0].namespace}";
    let subject = kubectl(&cluster, &["get", "clusterrolebinding", "frappe-operator", "-o", binding], "");
    assert_eq!(subject, SYSTEM, "the permissions are bound to the account in this namespace");

    let (ok, said) = script(&cluster, &asked);
    assert!(ok, "{said}");
    assert_eq!(kubectl(&cluster, &look, ""), first, "a second run changes nothing");
    let (ok, said) = script(&cluster, &["--namespace", "another"]);
    assert!(!ok && said.contains("runs in the namespace my-frappe-system already"), "{said}");
    check_reports_permissions(&cluster);

    kubectl(&cluster, &["apply", "-f", "-"], &site("default", "kept"));
    let (ok, said) = script(&cluster, &["--namespace", SYSTEM, "--uninstall"]);
    assert!(ok, "{said}");
    assert_eq!(kubectl(&cluster, &["get", "deployments", "-A", "-o", "name"], ""), "");
    let left = kubectl(&cluster, &["get", "clusterroles,clusterrolebindings", "-o", "name"], "");
    assert!(!left.contains("frappe-operator"), "{left}");
    assert_eq!(kubectl(&cluster, &["get", "frappesites", "-o", "name"], ""), "frappesite.vyogo.tech/kept\n");
    let (ok, said) = script(&cluster, &["--namespace", SYSTEM, "--uninstall"]);
    assert!(ok, "uninstalling twice succeeds: {said}");
}

fn rejects_invalid_arguments(cluster: &Cluster) {
    for (arguments, says) in [
        (&["--namespace", "Not_a_name"][..], "is not a valid namespace name"),
        (&["--replicas", "0"], "is not a number from 1 to 99"),
        (&["--image", "a b"], "is not a valid image"),
        (&["--replicas"], "--replicas needs a value"),
        (&["--frobnicate"], "unknown argument: --frobnicate"),
        (&["--context", "nowhere"], "kubectl cannot reach a cluster"),
    ] {
        let (ok, said) = script(cluster, arguments);
        assert!(!ok && said.contains(says), "{arguments:?}: {said}");
    }
    kubectl(
        cluster,
        &["create", "-f", "-"],
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: frappe-operator-manager, namespace: default, labels: \
         {control-plane: controller-manager}}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    \
         spec: {containers: [{name: manager, image: i}]}\n",
    );
    let (ok, said) = script(cluster, &[]);
    assert!(!ok && said.contains("another Frappe operator runs"), "{said}");
    kubectl(cluster, &["delete", "deployment", "-n", "default", "frappe-operator-manager"], "");
}

/// `check` asks the API server for each permission of the installed account.
fn check_reports_permissions(cluster: &Cluster) {
    let check = |account: &str| {
        let output = Command::new(program())
            .args(["check", "--operator-namespace", SYSTEM, "--service-account", account])
            .env("KUBECONFIG", &cluster.kubeconfig)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
        (output.status.success(), said)
    };
    let (ok, table) = check("frappe-operator");
    println!("{table}");
    assert!(table.contains("ok   permissions          the operator's ServiceAccount has all "), "{table}");
    assert!(!ok && table.contains("FAIL replicas             none"), "pods are simulated here: {table}");
    let (_, table) = check("nobody");
    assert!(
        table.contains("WARN permissions          not checked: ServiceAccount my-frappe-system/nobody does not exist"),
        "{table}"
    );
    kubectl(cluster, &["create", "serviceaccount", "-n", SYSTEM, "nobody"], "");
    let (_, table) = check("nobody");
    assert!(
        table.contains("FAIL permissions          the operator's ServiceAccount may not patch frappesites.vyogo.tech"),
        "{table}"
    );
    assert!(table.contains("may not update leases.coordination.k8s.io"), "{table}");
}
