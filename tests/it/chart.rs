//! The Helm chart: it is valid, rejects invalid values, and grants exactly the permissions that the operator needs.

use std::{collections::BTreeSet, path::Path, process::Command};

use frappe_crds::site::SitePhase;
use frappe_loadtest::{
    audit,
    cluster::Cluster,
    process::{Operator, Options},
};
use frappe_operator::parts::METRICS;
use serde_json::Value;

use crate::support::{World, ground, kubeconfig_of_pod, kubectl, program, site};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/helm/frappe-operator");
/// Differs from the default namespace.
const SYSTEM: &str = "my-frappe-system";

/// Runs helm; returns whether it succeeded, its output and its errors.
fn helm(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new("helm").args(arguments).output().expect("helm on PATH: make test builds it");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn rendered(more: &[&str]) -> Vec<serde_yaml_ng::Value> {
    let (ok, out, errors) = helm(
        &[&["template", "frappe-operator", CHART, "--namespace", SYSTEM, "--kube-version", "1.35.0"], more].concat(),
    );
    assert!(ok, "helm template {more:?}: {errors}");
    let documents = serde_yaml_ng::Deserializer::from_str(&out);
    let all = documents.map(|it| serde::Deserialize::deserialize(it).expect("YAML"));
    all.filter(|it: &serde_yaml_ng::Value| !it.is_null()).collect()
}

fn named<'a>(objects: &'a [serde_yaml_ng::Value], kind: &str, name: &str) -> &'a serde_yaml_ng::Value {
    let found = objects.iter().find(|it| it["kind"] == kind && it["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn the_chart_is_valid_and_the_guides_arguments_work() {
    let (ok, out, errors) = helm(&["lint", "--strict", CHART]);
    assert!(ok, "{out}{errors}");
    let plain = rendered(&[]);
    let count = |kind: &str| plain.iter().filter(|it| it["kind"] == kind).count();
    assert_eq!((count("CustomResourceDefinition"), count("Deployment"), count("PodDisruptionBudget")), (6, 1, 1));
    let crd = named(&plain, "CustomResourceDefinition", "frappesites.vyogo.tech");
    assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");

    let guide = rendered(&[
        "--set",
        "operator.image.repository=myregistry.com/frappe-operator",
        "--set",
        "operator.image.tag=v2.5.0",
        "--set",
        "operatorConfig.defaultFrappeImage=myregistry.com/frappe/erpnext:latest",
        "--set",
        "operatorConfig.maxConcurrentSiteReconciles=25",
        "--set",
        "operatorConfig.gitEnabled=true",
    ]);
    // The name in the guide's commands.
    let deployment = named(&guide, "Deployment", "frappe-operator-controller-manager");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "myregistry.com/frappe-operator:v2.5.0");
    let data = &named(&guide, "ConfigMap", "frappe-operator-config")["data"];
    assert_eq!(data["defaultFrappeImage"], "myregistry.com/frappe/erpnext:latest");
    assert_eq!((&data["maxConcurrentSiteReconciles"], &data["gitEnabled"]), (&"25".into(), &"true".into()));

    let all = rendered(&[
        "--set",
        "manager.metrics.serviceMonitor.enabled=true",
        "--set",
        "prometheusRule.enabled=true",
        "--set",
        "networkPolicy.enabled=true",
        "--set",
        "sharding.admissionFence=true",
        "--set",
        "operator.replicaCount=1",
        "--set",
        "crds.keep=false",
    ]);
    for (kind, name) in [
        ("ServiceMonitor", "frappe-operator"),
        ("PrometheusRule", "frappe-operator"),
        ("NetworkPolicy", "frappe-operator"),
        ("ValidatingAdmissionPolicy", "frappe-operator-owns-what-it-writes"),
    ] {
        named(&all, kind, name);
    }
    assert!(
        !all.iter().any(|it| it["kind"] == "PodDisruptionBudget"),
        "a PodDisruptionBudget would block the eviction of a single replica"
    );
    let crd = named(&all, "CustomResourceDefinition", "frappesites.vyogo.tech");
    assert!(crd["metadata"]["annotations"].is_null());
}

/// The policy in the chart equals the one that the program prints.
#[test]
fn the_charts_admission_fence_equals_the_programs() {
    let account = ["--namespace", "NAMESPACE-OF-THE-RELEASE", "--service-account", "ACCOUNT-OF-THE-RELEASE"];
    let printed = Command::new(program()).arg("admission-fence").args(account).output().unwrap();
    let committed = std::fs::read_to_string(Path::new(CHART).join("files/admission-fence.yaml")).unwrap();
    assert_eq!(String::from_utf8(printed.stdout).unwrap().trim(), committed.trim(), "run: make crds");
}

/// The policies for references equal those that the program prints, and are enabled by default.
#[test]
fn the_charts_reference_policies_equal_the_programs() {
    let printed = Command::new(program()).arg("admission-references").output().unwrap();
    let committed = std::fs::read_to_string(Path::new(CHART).join("files/admission-references.yaml")).unwrap();
    assert_eq!(String::from_utf8(printed.stdout).unwrap().trim(), committed.trim(), "run: make crds");
    for kind in ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] {
        for of in ["frappesites", "sitebackups", "sitejobs", "frappebenches"] {
            named(&rendered(&[]), kind, &format!("frappe-operator-references-of-{of}"));
        }
    }
    let off = rendered(&["--set", "admission.references.enabled=false"]);
    assert!(!off.iter().any(|it| it["kind"] == "ValidatingAdmissionPolicy"));
}

/// The operator trusts statuses: none of the chart's roles for users may write a status or a claim of a host.
#[test]
fn the_charts_roles_may_not_write_statuses() {
    let objects = rendered(&[]);
    let roles: Vec<_> = objects.iter().filter(|it| it["kind"] == "ClusterRole").collect();
    let people: Vec<_> = roles.iter().filter(|it| it["metadata"]["name"] != "frappe-operator").collect();
    assert_eq!(people.len(), 3);
    for rule in people.iter().flat_map(|it| it["rules"].as_sequence().unwrap()) {
        let words = |field: &str| -> Vec<String> {
            rule[field].as_sequence().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
        };
        let reads = words("verbs").iter().all(|it| ["get", "list", "watch"].contains(&it.as_str()));
        let own = ["frappebenches", "frappesites", "sitebackups", "sitejobs"];
        assert!(reads || words("resources").iter().all(|it| own.contains(&it.as_str())), "{rule:?}");
    }
}

/// With `watchNamespaces`, permissions on namespaced objects are granted only in those namespaces.
#[test]
fn permissions_are_limited_to_the_watched_namespaces() {
    let some = rendered(&["--set", "watchNamespaces={shops,databases}"]);
    let of_cluster = named(&some, "ClusterRole", "frappe-operator")["rules"].as_sequence().unwrap().len();
    let everywhere = rendered(&[]);
    let of_all = named(&everywhere, "ClusterRole", "frappe-operator")["rules"].as_sequence().unwrap().len();
    let roles: Vec<_> =
        some.iter().filter(|it| it["kind"] == "Role" && it["metadata"]["name"] == "frappe-operator-watched").collect();
    let namespaces: Vec<_> = roles.iter().filter_map(|it| it["metadata"]["namespace"].as_str()).collect();
    assert_eq!(namespaces, ["shops", "databases"]);
    assert_eq!(of_cluster, 4);
    assert_eq!(of_cluster + roles[0]["rules"].as_sequence().unwrap().len(), of_all);
    let arguments = &named(&some, "Deployment", "frappe-operator-controller-manager")["spec"]["template"]["spec"]["containers"]
        [0]["args"];
    assert!(
        arguments.as_sequence().unwrap().iter().any(|it| it == "--watch-namespaces=shops,databases"),
        "{arguments:?}"
    );
}

/// Every metric in an expression exists.
fn assert_metrics_exist(expression: &str) {
    let words = expression.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let of_objects =
        [("frappe_backup_", "SiteBackup"), ("frappe_bench_", "FrappeBench"), ("frappe_site_", "FrappeSite")];
    let ours = ["frappe_operator_", "controller_runtime_", "workqueue_", "rest_client_", "sharding_"];
    let ours: Vec<_> = ours.into_iter().chain(of_objects.map(|it| it.0)).collect();
    let named: Vec<_> = words.filter(|it| ours.iter().any(|prefix| it.starts_with(prefix))).collect();
    assert!(!named.is_empty(), "{expression}");
    for name in named {
        let of_object = of_objects.iter().find_map(|(prefix, kind)| Some((name.strip_prefix(prefix)?, kind)));
        if let Some((series, kind)) = of_object {
            let config = include_str!("../../helm/frappe-operator/files/kube-state-metrics.yaml");
            let of_kind = config.split("groupVersionKind:").find(|it| it.contains(&format!("kind: {kind}}}"))).unwrap();
            assert!(of_kind.contains(&format!("- name: {series}\n")), "{name} of {expression} does not exist");
            continue;
        }
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(METRICS.iter().any(|it| it.name == name), "{name} of {expression} does not exist");
    }
}

#[test]
fn alerts_and_dashboard_use_existing_metrics() {
    let alerts: Value = serde_yaml_ng::from_str(include_str!("../../helm/frappe-operator/files/alerts.yaml")).unwrap();
    let rules = alerts["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 8);
    for rule in rules {
        assert_metrics_exist(rule["expr"].as_str().unwrap());
        assert!(rule["annotations"]["description"].is_string() && rule["labels"]["severity"].is_string());
    }
    let config = rendered(&["--set", "dashboard.enabled=true"]);
    let dashboard = named(&config, "ConfigMap", "frappe-operator-dashboard");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let dashboard: Value = serde_json::from_str(dashboard["data"]["frappe-operator.json"].as_str().unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 15);
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        assert_metrics_exist(target["expr"].as_str().unwrap());
    }
}

/// The fields in the configuration of kube-state-metrics exist in the CRDs.
#[test]
fn fields_for_kube_state_metrics_exist() {
    let config = rendered(&["--set", "kubeStateMetrics.enabled=true"]);
    let map = named(&config, "ConfigMap", "frappe-operator-kube-state-metrics");
    let config: Value = serde_yaml_ng::from_str(map["data"]["config.yaml"].as_str().unwrap()).unwrap();
    let resources = config["spec"]["resources"].as_array().unwrap();
    assert_eq!(resources.len(), 3);
    for resource in resources {
        let kind = resource["groupVersionKind"]["kind"].as_str().unwrap();
        let definitions = frappe_crds::manifest::definitions();
        let crd = definitions.iter().find(|it| it.spec.names.kind == kind).unwrap();
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for metric in resource["metrics"].as_array().unwrap() {
            let each = &metric["each"];
            let labels = each["info"]["labelsFromPath"].as_object().into_iter().flat_map(|it| it.values());
            for path in labels.chain(each["gauge"].get("path")) {
                let steps = path.as_array().unwrap().iter().map(|it| it.as_str().unwrap());
                let next = |at: &Value, step: &str| {
                    if step.starts_with('[') { at["items"].clone() } else { at["properties"][step].clone() }
                };
                let found = steps.fold(schema.clone(), |at, step| next(&at, step));
                assert!(found["type"].is_string(), "{kind} has no {path}");
            }
        }
    }
}

#[test]
fn invalid_values_are_rejected_with_their_path() {
    let table = [
        ("operator.replicaCount=0", "replicaCount"),
        ("operator.replicaCount=many", "replicaCount"),
        ("operator.replicaCount=300", "replicaCount"),
        ("operator.replicas=3", "replicas"),
        ("operator.image.repository=", "repository"),
        ("operator.image.digest=latest", "digest"),
        ("operator.image.pullPolicy=Sometimes", "pullPolicy"),
        ("operator.terminationGracePeriodSeconds=5", "terminationGracePeriodSeconds"),
        ("operator.resources.limits.memory=lots", "memory"),
        ("operator.resources.request.cpu=1", "request"),
        ("operator.imagePullSecrets[0].secret=a", "imagePullSecrets"),
        ("manager.logFormat=xml", "logFormat"),
        ("manager.metrics.port=0", "port"),
        ("manager.metrics.serviceMonitor.interval=often", "interval"),
        ("sharding.leaseDuration=15", "leaseDuration"),
        ("sharding.admissionFence=please", "admissionFence"),
        ("podDisruptionBudget.maxUnavailable=0", "maxUnavailable"),
        ("networkPolicy.apiServerPorts[0]=http", "apiServerPorts"),
        ("crds.install=perhaps", "install"),
        ("dashboard.enabled=often", "enabled"),
        ("watchNamespaces[0]=Not_a_name", "watchNamespaces"),
        ("kubeStateMetrics.config=mine", "config"),
        ("operatorConfig.maxConcurrentSiteReconcile=5", "maxConcurrentSiteReconcile"),
        ("operatorConfig.maxConcurrentSiteJobs=few", "maxConcurrentSiteJobs"),
        ("operatorConfig.siteReconcileConcurrencyScope=world", "siteReconcileConcurrencyScope"),
        ("operatorConfig.defaultMariaDB=shared", "defaultMariaDB"),
        ("replicas=3", "replicas"),
    ];
    for (value, place) in table {
        let (ok, _, errors) = helm(&["template", "frappe-operator", CHART, "--set", value]);
        assert!(!ok && errors.contains(place), "{value} is accepted, or the error does not name {place}: {errors}");
    }
    println!("{} invalid values are rejected", table.len());
}

/// Starts the operator with the arguments, environment and account of a pod of the Deployment. Only the port for metrics differs,
/// because all replicas run on one machine.
fn start(cluster: &Cluster, deployment: &Value, pod: &Value) -> Operator {
    let name = pod["metadata"]["name"].as_str().unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let field = |path: &str| match path {
        "metadata.namespace" => pod["metadata"]["namespace"].clone(),
        "metadata.name" => pod["metadata"]["name"].clone(),
        "metadata.uid" => pod["metadata"]["uid"].clone(),
        "metadata.labels['pod-template-hash']" => pod["metadata"]["labels"]["pod-template-hash"].clone(),
        other => panic!("{other}"),
    };
    let mut words = vec!["env".to_owned()];
    for entry in container["env"].as_array().unwrap() {
        let value = match entry["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some(path) => field(path),
            None => entry["value"].clone(),
        };
        words.push(format!("{}={}", entry["name"].as_str().unwrap(), value.as_str().unwrap()));
    }
    words.push(program().display().to_string());
    for argument in container["args"].as_array().unwrap() {
        words.push(argument.as_str().unwrap().replace("0.0.0.0:8080", "127.0.0.1:{port}"));
    }
    let options = Options {
        command: Some(words.join(" ")),
        kubeconfig: Some(kubeconfig_of_pod(cluster, SYSTEM, name)),
        ..Options::default()
    };
    Operator::start(program(), cluster, &options).unwrap()
}

fn json(cluster: &Cluster, arguments: &[&str]) -> Value {
    serde_json::from_str(&kubectl(cluster, &[arguments, &["-o", "json"]].concat(), "")).unwrap()
}

/// A copy of the chart whose CRD of sites has another short name.
fn next_chart(folder: &Path) -> String {
    let copy = folder.join("next-chart");
    let status = Command::new("cp").args(["-rL", CHART]).arg(&copy).status().unwrap();
    assert!(status.success());
    let path = copy.join("files/crds/vyogo.tech_frappesites.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = text.replacen("shortNames:", "shortNames:\n    - nextsite", 1);
    assert_ne!(text, changed);
    std::fs::write(&path, changed).unwrap();
    copy.display().to_string()
}

/// Runs `helm VERB` for the release with a chart; returns the output.
fn release(cluster: &Cluster, verb: &str, chart: &[&str], more: &[&str]) -> String {
    let path = cluster.kubeconfig.display().to_string();
    let place = ["--kubeconfig", &path, "--namespace", SYSTEM];
    let (ok, out, errors) = helm(&[&[verb, "frappe-operator"], chart, &place[..], more].concat());
    assert!(ok, "helm {verb}: {errors}");
    out
}

/// A cluster with the chart installed in a namespace that enforces the restricted Pod Security Standard.
fn with_release(purpose: &str, values: &str) -> Cluster {
    // The chart installs the CRDs.
    let stand_ins = concat!(env!("CARGO_MANIFEST_DIR"), "/loadtest/controlplane/crds");
    let cluster = Cluster::start_with(purpose, 3, &[("CRDS", stand_ins)]).unwrap();
    let restricted = "pod-security.kubernetes.io/enforce: restricted";
    cluster
        .apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {SYSTEM}, labels: {{{restricted}}}}}\n"))
        .unwrap();
    for namespace in ["left", "right"] {
        cluster.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n")).unwrap();
    }
    let notes = release(&cluster, "install", &[CHART], &["--set", values, "--wait", "--timeout", "60s"]);
    assert!(notes.contains("KEDA is not installed") && !notes.contains("MariaDB operator is not installed"), "{notes}");
    cluster
}

/// Such a cluster, with a running operator for each of the release's three pods.
async fn installed() -> (World, Vec<Operator>) {
    let cluster = with_release("chart", "operator.replicaCount=3");
    let mut operators = replicas(&cluster, 3).await;
    let client = cluster.client().await.unwrap();
    (World { operator: operators.remove(0), client, cluster }, operators)
}

/// A running operator for each pod of the Deployment that is not being deleted.
async fn replicas(cluster: &Cluster, count: usize) -> Vec<Operator> {
    let deployment = json(cluster, &["get", "deployment", "frappe-operator-controller-manager", "-n", SYSTEM]);
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    let pods = json(cluster, &["get", "pods", "-n", SYSTEM, "-l", "control-plane=controller-manager"]);
    let newest = |pod: &&Value| {
        pod["spec"]["containers"][0]["image"] == *image && pod["metadata"]["deletionTimestamp"].is_null()
    };
    let pods: Vec<&Value> = pods["items"].as_array().unwrap().iter().filter(newest).collect();
    let mut operators: Vec<Operator> = pods.into_iter().map(|pod| start(cluster, &deployment, pod)).collect();
    assert_eq!(operators.len(), count);
    for operator in &mut operators {
        operator.ready().await.unwrap();
    }
    operators
}

/// Asserts that no reconcile of a replica failed or panicked.
async fn assert_nothing_failed(operator: &Operator) {
    let metrics = operator.http("/metrics").await.unwrap();
    let failed = metrics.lines().filter(|line| {
        let counted = ["controller_runtime_reconcile_errors_total", "controller_runtime_reconcile_panics_total"];
        counted.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0")
    });
    assert_eq!(failed.collect::<Vec<_>>(), Vec::<&str>::new(), "{}", operator.log_tail());
}

/// uids of the bench's pods, except those of Jobs.
fn pods_of_bench(cluster: &Cluster) -> BTreeSet<String> {
    let selector = "bench=bench,!batch.kubernetes.io/job-name";
    let pods = json(cluster, &["get", "pods", "-n", "demo", "-l", selector]);
    pods["items"].as_array().unwrap().iter().map(|it| it["metadata"]["uid"].to_string()).collect()
}

/// With only the chart's permissions, three replicas create sites; an upgrade restarts no bench; uninstalling keeps sites and
/// data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chart_installs_upgrades_and_uninstalls_without_restarts() {
    const SITES: usize = 200;
    let (mut world, mut others) = installed().await;
    world.with_bench("demo").await;
    let many = r#"{"spec": {"siteJobConcurrency": 100, "siteReconcileConcurrency": 50}}"#;
    world.kubectl(&["patch", "frappebench", "bench", "-n", "demo", "--type", "merge", "-p", many]);
    world.cluster.apply(&(0..SITES).map(|index| site("demo", &format!("site-{index}"))).collect::<String>()).unwrap();
    for index in 0..SITES {
        world.wait_for_site_phase("demo", &format!("site-{index}"), SitePhase::Ready).await;
    }
    let requests = || audit::requests(&world.cluster.logs, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let statuses = requests().into_iter().filter(|it| it.resource == "frappesites/status");
    let owners: BTreeSet<String> = statuses.map(|it| it.pod).collect();
    assert_eq!(owners.len(), 3, "each replica owns sites: {owners:?}");
    world.kubectl(&["delete", "frappesite", "site-0", "-n", "demo", "--timeout=60s"]);

    let before = pods_of_bench(&world.cluster);
    let next = next_chart(&world.cluster.logs);
    let jobs = ["--reuse-values", "--set", "operatorConfig.maxConcurrentSiteJobs=7"];
    release(&world.cluster, "upgrade", &[&next], &jobs);
    let crd = json(&world.cluster, &["get", "crd", "frappesites.vyogo.tech"]);
    assert!(crd["spec"]["names"]["shortNames"].to_string().contains("nextsite"), "an upgrade changes a CRD");
    let config = json(&world.cluster, &["get", "configmap", "frappe-operator-config", "-n", SYSTEM]);
    assert_eq!(config["data"]["maxConcurrentSiteJobs"], "7");
    world.cluster.apply(&site("demo", "later")).unwrap();
    world.wait_for_site_phase("demo", "later", SitePhase::Ready).await;
    // With another image, the Deployment replaces its pods. Their tokens become invalid, so the old replicas stop first.
    others.push(world.operator);
    for operator in &mut others {
        assert_nothing_failed(operator).await;
        assert!(operator.stop().await.unwrap().success());
    }
    release(&world.cluster, "upgrade", &[&next], &["--reuse-values", "--set", "operator.image.tag=next", "--wait"]);
    let mut newer = replicas(&world.cluster, 3).await;
    world.operator = newer.remove(0);
    world.cluster.apply(&site("demo", "newest")).unwrap();
    world.wait_for_site_phase("demo", "newest", SitePhase::Ready).await;
    assert_eq!(pods_of_bench(&world.cluster), before, "no pod of a bench was restarted");
    let refused: Vec<String> = requests().iter().filter(|it| it.code == 403).map(ToString::to_string).collect();
    assert!(refused.is_empty(), "permissions are missing: {refused:?}");
    println!("{} requests with the chart's permissions, none forbidden", requests().len());

    newer.push(world.operator);
    for operator in &mut newer {
        assert_nothing_failed(operator).await;
        assert!(operator.stop().await.unwrap().success());
    }
    release(&world.cluster, "uninstall", &[], &[]);
    let sites = json(&world.cluster, &["get", "frappesites", "-n", "demo"]);
    assert_eq!(sites["items"].as_array().unwrap().len(), SITES + 1, "the sites still exist");
    assert_eq!(pods_of_bench(&world.cluster), before, "the benches' pods still exist");
}

/// With `watchNamespaces`, the operator works with permissions in those namespaces and sends no request for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_with_watch_namespaces_accesses_no_other() {
    let cluster = with_release("namespaces", "operator.replicaCount=1,watchNamespaces={left,right}");
    let operator = replicas(&cluster, 1).await.remove(0);
    let client = cluster.client().await.unwrap();
    let world = World { operator, client, cluster };
    world.cluster.apply(&[ground("other"), site("other", "shop")].concat()).unwrap();
    for namespace in ["left", "right"] {
        world.with_bench(namespace).await;
        world.cluster.apply(&site(namespace, "shop")).unwrap();
        world.wait_for_site_phase(namespace, "shop", SitePhase::Ready).await;
    }
    // Deletions are observed in each of them, and a bench waits for its sites.
    for namespace in ["left", "right"] {
        world.kubectl(&["delete", "ingress", "shop-ingress", "-n", namespace, "--wait=false"]);
        let get = ["get", "ingress", "shop-ingress", "-n", namespace, "-o", "name"];
        world
            .until("the Ingress is restored", 30, || async {
                world.cluster.kubectl(&get, "").ok()?.success.then_some(())
            })
            .await;
        world.kubectl(&["delete", "frappebench", "bench", "-n", namespace, "--wait=false"]);
        world.kubectl(&["delete", "frappesite", "shop", "-n", namespace, "--timeout=60s"]);
        world.kubectl(&["wait", "--for=delete", "frappebench/bench", "-n", namespace, "--timeout=60s"]);
    }
    let other = json(&world.cluster, &["get", "frappesite", "shop", "-n", "other"]);
    assert!(other["status"].is_null() && other["metadata"]["finalizers"].is_null(), "{other:#}");
    let of_cluster = ["frappedomains", "namespaces", "storageclasses", "customresourcedefinitions"];
    let requests = audit::requests(&world.cluster.logs, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let astray: BTreeSet<String> = requests
        .iter()
        .filter(|it| match it.namespace.as_str() {
            "" => !of_cluster.contains(&it.resource.as_str()),
            namespace => !["left", "right", SYSTEM].contains(&namespace),
        })
        .chain(requests.iter().filter(|it| it.code == 403))
        .map(ToString::to_string)
        .collect();
    assert!(astray.is_empty(), "{astray:#?}");
    println!("{} requests, all in the two namespaces and the operator's own", requests.len());
}
