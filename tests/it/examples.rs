//! Every file in `examples`, applied as a user would: `kubectl apply -f FILE`. Each reaches the state that its comment describes.

use std::path::Path;

use frappe_loadtest::process::NAMESPACE as SYSTEM;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::support::{World, kubectl, until};

/// The files that need only a MariaDB in their namespace; `sites` needs `basic`, and `restore-drill` needs `backup`. A file that is
/// not listed fails the test.
const ALONE: [&str; 16] = [
    "air-gapped",
    "autoscaling",
    "backup",
    "backup-azure",
    "backup-gcs",
    "basic",
    "demo",
    "external-database",
    "network-policy",
    "openshift",
    "other-namespace",
    "private-registry",
    "production",
    "quickstart",
    "resources",
    "security",
];

const MARIADB: &str =
    "apiVersion: k8s.mariadb.com/v1alpha1\nkind: MariaDB\nmetadata: {name: mariadb}\nspec: {storage: {size: 1Gi}}";

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// The StorageClass that an example references, and volumes of it.
fn fast_volumes() -> String {
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast-ssd"},
                       "provisioner": "kubernetes.io/no-provisioner"});
    let volume = |number: usize| {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("fast-{number}")}, "spec": {
            "storageClassName": "fast-ssd", "capacity": {"storage": "100Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
            "nfs": {"server": "nfs.example.com", "path": format!("/{number}")}}})
    };
    let items: Vec<Value> = std::iter::once(class).chain((0..3).map(volume)).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Applies a file in its own namespace; returns kind, namespace and name of its benches and sites.
fn apply(world: &World, name: &str) -> Vec<[String; 3]> {
    let namespace = format!("example-{name}");
    kubectl(&world.cluster, &["create", "namespace", &namespace], "");
    kubectl(&world.cluster, &["apply", "-n", &namespace, "-f", "-"], MARIADB);
    if name == "production" {
        kubectl(&world.cluster, &["apply", "-f", "-"], &fast_volumes());
    }
    let file = folder().join(format!("{name}.yaml"));
    // The namespace is set in the kubeconfig, because `-n` rejects a file that contains other namespaces.
    kubectl(&world.cluster, &["config", "set-context", "--current", "--namespace", &namespace], "");
    kubectl(&world.cluster, &["apply", "--validate=strict", "-f", file.to_str().unwrap()], "");
    let text = std::fs::read_to_string(&file).unwrap();
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(|it| Value::deserialize(it).unwrap());
    let ours = documents
        .filter(|it| ["FrappeBench", "FrappeSite", "SiteBackup"].contains(&it["kind"].as_str().unwrap_or_default()));
    ours.map(|it| {
        let own = it["metadata"]["namespace"].as_str().unwrap_or(&namespace).to_owned();
        [it["kind"].as_str().unwrap().to_owned(), own, it["metadata"]["name"].as_str().unwrap().to_owned()]
    })
    .collect()
}

fn get(world: &World, [kind, namespace, name]: &[String; 3]) -> Value {
    serde_json::from_str(&kubectl(&world.cluster, &["get", kind, "-n", namespace, name, "-o", "json"], "")).unwrap()
}

/// Status and reason of the condition of a type.
fn condition(object: &Value, kind: &str) -> Option<(String, String)> {
    let found = object["status"]["conditions"].as_array()?.iter().find(|it| it["type"] == kind)?;
    Some((found["status"].as_str()?.to_owned(), found["reason"].as_str()?.to_owned()))
}

fn message(object: &Value, kind: &str) -> String {
    let found = object["status"]["conditions"].as_array().unwrap().iter().find(|it| it["type"] == kind).unwrap();
    found["message"].as_str().unwrap().to_owned()
}

async fn wait_for_condition(world: &World, object: &[String; 3], kind: &str, status: &str, reason: &str) {
    let wanted = Some((status.to_owned(), reason.to_owned()));
    let found = until(&format!("{object:?}: {kind} {status} {reason}"), 120, || async {
        (condition(&get(world, object), kind) == wanted).then_some(())
    })
    .await;
    assert!(found.is_some(), "{object:?}: {:#}", get(world, object)["status"]);
    println!("{} {}/{}: {kind} {status} {reason}", object[0], object[1], object[2]);
}

/// The pod templates of a namespace's Deployments.
fn templates(world: &World, namespace: &str) -> Vec<Value> {
    let list = kubectl(&world.cluster, &["get", "deployments", "-n", namespace, "-o", "json"], "");
    let list: Value = serde_json::from_str(&list).unwrap();
    list["items"].as_array().unwrap().iter().map(|it| it["spec"]["template"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_reaches_the_described_state() {
    let world = World::start("examples").await;
    let mut files: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|it| it.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut known = [&ALONE[..], &["restore-drill", "sites"]].concat();
    known.sort_unstable();
    assert_eq!(files, known, "the files of examples, and those that this test lists");
    for name in ALONE {
        for object in apply(&world, name) {
            let reason = if object[0] == "SiteBackup" { "BackupScheduled" } else { "Ready" };
            wait_for_condition(&world, &object, "Ready", "True", reason).await;
        }
        assert_objects_of(&world, name);
    }
    a_backup_is_restored_into_another_site(&world).await;
    optional_apis_are_used_once_installed(&world).await;
    sites_wait_for_referenced_secrets(&world).await;
}

async fn a_backup_is_restored_into_another_site(world: &World) {
    kubectl(&world.cluster, &["config", "set-context", "--current", "--namespace", "example-backup"], "");
    let file = folder().join("restore-drill.yaml");
    kubectl(&world.cluster, &["apply", "--validate=strict", "-f", file.to_str().unwrap()], "");
    let named = |kind: &str, name: &str| [kind, "example-backup", name].map(str::to_owned);
    wait_for_condition(world, &named("SiteBackup", "drill"), "Ready", "True", "RestoreSucceeded").await;
    wait_for_condition(world, &named("FrappeSite", "drill-site"), "Ready", "True", "Ready").await;
    kubectl(&world.cluster, &["delete", "-f", file.to_str().unwrap(), "--wait"], "");
    let left = kubectl(&world.cluster, &["get", "frappesites,sitebackups", "-o", "name"], "");
    assert_eq!(left, "frappesite.vyogo.tech/backup-site\nsitebackup.vyogo.tech/nightly\n");
}

/// Asserts that the objects of a bench have the settings that the example shows.
fn assert_objects_of(world: &World, name: &str) {
    let templates = templates(world, &format!("example-{name}"));
    let each = |path: &str, wanted: &Value| {
        assert!(!templates.is_empty());
        for template in &templates {
            assert_eq!(template.pointer(path), Some(wanted), "{name}: {path}");
        }
    };
    match name {
        "air-gapped" => {
            for image in templates.iter().map(|it| it["spec"]["containers"][0]["image"].as_str().unwrap()) {
                assert!(image.starts_with("internal-registry.company.com/"), "{image}");
            }
            let keys = ["get", "configmap", "-n", SYSTEM, "frappe-operator-config", "-o", "jsonpath={.data}"];
            assert!(kubectl(&world.cluster, &keys, "").contains("internal-registry"));
        }
        "network-policy" => {
            each("/metadata/labels/app", &"frappe".into());
            each("/metadata/labels/bench", &"production-bench".into());
        }
        "private-registry" => each("/spec/imagePullSecrets/0/name", &"registry-credentials".into()),
        "security" => each("/spec/securityContext/runAsUser", &1001.into()),
        "resources" => {
            let gunicorn = templates.iter().find(|it| it["metadata"]["labels"]["component"] == "gunicorn").unwrap();
            assert_eq!(gunicorn["spec"]["containers"][0]["resources"]["limits"]["memory"], "4Gi");
        }
        _ => {}
    }
}

/// KEDA and OpenShift's Route are installed after the examples that use them.
async fn optional_apis_are_used_once_installed(world: &World) {
    let named = |kind: &str, example: &str, name: &str| [kind, &format!("example-{example}"), name].map(str::to_owned);
    let bench = named("FrappeBench", "autoscaling", "autoscaled-bench");
    wait_for_condition(world, &bench, "WorkersAutoscaled", "False", "KedaMissing").await;
    let site = named("FrappeSite", "openshift", "ocp-site");
    let before = get(world, &site);
    println!("without Routes: {} {:?}", before["status"]["route"], condition(&before, "RouteReady"));
    assert_eq!(before["status"]["route"], "Ingress");
    assert!(message(&before, "RouteReady").contains("routeConfig"), "{before:#}");
    world.cluster.apply(include_str!("../../loadtest/controlplane/optional/keda.yaml")).unwrap();
    world.cluster.apply(include_str!("../../loadtest/controlplane/optional/routes.yaml")).unwrap();
    let list = ["get", "scaledobjects.keda.sh", "-n", &bench[1], "-o", "name"];
    let scaled = until("ScaledObjects", 60, || async {
        let names = kubectl(&world.cluster, &list, "");
        (names.lines().count() == 2).then_some(names)
    });
    println!("with KEDA: {:?}", scaled.await.expect("two ScaledObjects"));
    let routed = until("a Route", 60, || async { (get(world, &site)["status"]["route"] == "Route").then_some(()) });
    assert!(routed.await.is_some(), "{:#}", get(world, &site)["status"]);
}

/// `sites.yaml` needs `basic.yaml`, and references Secrets of the user.
async fn sites_wait_for_referenced_secrets(world: &World) {
    let namespace = "example-basic";
    kubectl(&world.cluster, &["config", "set-context", "--current", "--namespace", namespace], "");
    let file = folder().join("sites.yaml");
    kubectl(&world.cluster, &["apply", "--validate=strict", "-f", file.to_str().unwrap()], "");
    let named = |name: &str| ["FrappeSite", namespace, name].map(str::to_owned);
    wait_for_condition(world, &named("shop"), "Ready", "False", "SiteConfigSecretMissing").await;
    wait_for_condition(world, &named("external"), "Ready", "False", "ConnectionSecretMissing").await;
    let secret = |name: &str, keys: &[&str]| {
        kubectl(&world.cluster, &[&["create", "secret", "generic", name], keys].concat(), "");
    };
    secret("shop-mail", &["--from-literal=password=p"]);
    secret("external-account", &["--from-literal=username=u", "--from-literal=password=p"]);
    for name in ["shop", "apart", "external"] {
        wait_for_condition(world, &named(name), "Ready", "True", "Ready").await;
    }
}
