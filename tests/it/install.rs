//! `install.sh` and `helm/install.yaml`: as the chart, idempotent, and harmless when they go.

use std::{path::Path, process::Command};

use frappe_loadtest::cluster::Cluster;

use crate::support::{kubectl, program, site};

const SYSTEM: &str = "my-frappe-system";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs install.sh: whether it ended well, and all that it said.
fn script(cluster: &Cluster, arguments: &[&str]) -> (bool, String) {
    let kubeconfig = &cluster.kubeconfig;
    let output =
        Command::new("bash").arg(root().join("install.sh")).args(arguments).env("KUBECONFIG", kubeconfig).output();
    let output = output.unwrap();
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
    (output.status.success(), said)
}

/// The file is what the chart renders.
#[test]
fn the_manifest_is_the_chart() {
    let written = std::fs::read_to_string(root().join("helm/install.yaml")).unwrap();
    let made = Command::new("make").args(["--silent", "print-manifests"]).current_dir(root()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(String::from_utf8_lossy(&made.stdout) == written, "helm/install.yaml is out of date: make manifests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_script_installs_twice_and_leaves_what_is_served() {
    let cluster = Cluster::start("install", 2).unwrap();
    refuses_what_is_wrong(&cluster);
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
    assert_eq!(subject, SYSTEM, "the rights are those of the account in this namespace");

    let (ok, said) = script(&cluster, &asked);
    assert!(ok, "{said}");
    assert_eq!(kubectl(&cluster, &look, ""), first, "a second run changes nothing");
    let (ok, said) = script(&cluster, &["--namespace", "another"]);
    assert!(!ok && said.contains("runs in the namespace my-frappe-system already"), "{said}");
    rights_are_whole(&cluster);

    kubectl(&cluster, &["apply", "-f", "-"], &site("default", "kept"));
    let (ok, said) = script(&cluster, &["--namespace", SYSTEM, "--uninstall"]);
    assert!(ok, "{said}");
    assert_eq!(kubectl(&cluster, &["get", "deployments", "-A", "-o", "name"], ""), "");
    let left = kubectl(&cluster, &["get", "clusterroles,clusterrolebindings", "-o", "name"], "");
    assert!(!left.contains("frappe-operator"), "{left}");
    assert_eq!(kubectl(&cluster, &["get", "frappesites", "-o", "name"], ""), "frappesite.vyogo.tech/kept\n");
    let (ok, said) = script(&cluster, &["--namespace", SYSTEM, "--uninstall"]);
    assert!(ok, "what is gone may be removed again: {said}");
}

fn refuses_what_is_wrong(cluster: &Cluster) {
    for (arguments, says) in [
        (&["--namespace", "Not_a_name"][..], "is not the name of a namespace"),
        (&["--replicas", "0"], "is not a number from 1 to 99"),
        (&["--image", "a b"], "is not an image"),
        (&["--replicas"], "--replicas needs a value"),
        (&["--frobnicate"], "unknown argument: --frobnicate"),
        (&["--context", "nowhere"], "kubectl reaches no cluster"),
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

/// `check` asks the API server for each right of the installed account.
fn rights_are_whole(cluster: &Cluster) {
    let check = |account: &str| {
        let output = Command::new(program())
            .args(["check", "--operator-namespace", SYSTEM, "--service-account", account])
            .env("KUBECONFIG", &cluster.kubeconfig)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (ok, table) = check("frappe-operator");
    println!("{table}");
    assert!(table.contains("of helm/frappe-operator/files/rights.yaml"), "{table}");
    assert!(!ok && table.contains("FAIL replicas             none"), "pods are simulated here: {table}");
    let (_, table) = check("nobody");
    assert!(
        table.contains("WARN rights               not checked: ServiceAccount my-frappe-system/nobody does not exist"),
        "{table}"
    );
    kubectl(cluster, &["create", "serviceaccount", "-n", SYSTEM, "nobody"], "");
    let (_, table) = check("nobody");
    assert!(
        table.contains("FAIL rights               the operator's ServiceAccount may not patch frappesites.vyogo.tech"),
        "{table}"
    );
    assert!(table.contains("may not update leases.coordination.k8s.io"), "{table}");
}
