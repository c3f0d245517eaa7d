//! Objects as the Go operator leaves them: without a request none of them is changed; if a user requests it, they are adopted,
//! and no serving object is deleted, renamed or restarted.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use frappe_loadtest::{
    cluster::Cluster,
    process::{Operator, Options},
};
use serde_json::{Value, json};

use crate::support::{kubectl, program, until};

/// Bench and site, which both operators reconcile.
const OWNERS: &str = "
apiVersion: k8s.mariadb.com/v1alpha1
kind: MariaDB
metadata: {name: mariadb}
spec: {storage: {size: 1Gi}}
---
apiVersion: vyogo.tech/v1alpha1
kind: FrappeBench
metadata: {name: old, finalizers: [vyogo.tech/bench-finalizer]}
spec: {frappeVersion: \"15\", apps: [{name: erpnext, source: image}]}
---
apiVersion: vyogo.tech/v1alpha1
kind: FrappeSite
metadata: {name: shop, finalizers: [vyogo.tech/site-finalizer]}
spec: {siteName: shop.example.com, benchRef: {name: old}}
";

/// The objects that the Go operator created for them, with its names, labels, selectors and owners.
fn left_behind(cluster: &Cluster, mode: &str) -> Vec<Value> {
    let owner = |kind: &str, name: &str| {
        let uid = kubectl(cluster, &["get", kind, name, "-o", "jsonpath={.metadata.uid}"], "");
        json!([{"apiVersion": "vyogo.tech/v1alpha1", "kind": kind, "name": name, "uid": uid, "controller": true,
                "blockOwnerDeletion": true}])
    };
    let (bench, site) = (owner("FrappeBench", "old"), owner("FrappeSite", "shop"));
    let object = |version: &str, kind: &str, name: &str, owner: &Value, body: Value| {
        let metadata = json!({"name": name, "labels": {"app": "frappe", "bench": "old"}, "ownerReferences": owner});
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
        object.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        object
    };
    let labels = |component: &str| json!({"app": "frappe", "bench": "old", "component": component});
    let template = |component: &str, image: &str, container: Value| {
        let mut container = container;
        (container["name"], container["image"]) = (json!(component), json!(image));
        let volumes = json!([{"name": "sites-storage", "persistentVolumeClaim": {"claimName": "old-sites"}}]);
        json!({"metadata": {"labels": labels(component)}, "spec": {"containers": [container], "volumes": volumes}})
    };
    let claim = json!({"spec": {"accessModes": [mode], "resources": {"requests": {"storage": "10Gi"}}}});
    let mut all = vec![object("v1", "PersistentVolumeClaim", "old-sites", &bench, claim)];
    let service = |name: &str, component: &str, port: u16| {
        let body = json!({"spec": {"ports": [{"port": port}], "selector": labels(component)}});
        object("v1", "Service", &format!("old-{name}"), &bench, body)
    };
    for (name, port) in [("gunicorn", 8000), ("nginx", 8080), ("socketio", 9000)] {
        all.push(service(name, name, port));
    }
    for name in ["redis-cache", "redis-queue"] {
        let (full, component) = (format!("old-{name}"), format!("redis-{name}"));
        all.push(service(name, &component, 6379));
        let spec = json!({"replicas": 1, "serviceName": full, "selector": {"matchLabels": labels(&component)},
                          "template": template(&component, "redis:7-alpine", json!({}))});
        all.push(object("apps/v1", "StatefulSet", &full, &bench, json!({"spec": spec})));
    }
    for component in ["gunicorn", "nginx", "socketio", "scheduler", "worker-default", "worker-long", "worker-short"] {
        let container = json!({"command": ["/their/way"], "env": [{"name": "THEIRS", "value": "1"}],
                               "volumeMounts": [{"name": "sites-storage", "mountPath": "/home/frappe/frappe-bench/sites"}]});
        let spec = json!({"replicas": 1, "selector": {"matchLabels": labels(component)},
                          "template": template(component, "frappe/erpnext:version-15", container)});
        all.push(object("apps/v1", "Deployment", &format!("old-{component}"), &bench, json!({"spec": spec})));
    }
    for secret in ["shop-admin", "shop-db-password", "shop-init-secrets", "shop-deletion-secret"] {
        let body = json!({"stringData": {"password": format!("of {secret}")}});
        all.push(object("v1", "Secret", secret, &site, body));
    }
    let sql = |kind: &str, name: &str, mut spec: Value| {
        spec["mariaDbRef"] = json!({"name": "mariadb"});
        object("k8s.mariadb.com/v1alpha1", kind, name, &site, json!({"spec": spec}))
    };
    let password = json!({"name": "shop-db-password", "key": "password"});
    all.push(sql("Database", "shop-db", json!({"name": "_1a2b3c4d_shop"})));
    all.push(sql("User", "shop-user", json!({"name": "shop_user", "passwordSecretKeyRef": password})));
    let rights =
        json!({"privileges": ["ALL PRIVILEGES"], "database": "_1a2b3c4d_shop", "table": "*", "username": "shop_user"});
    all.push(sql("Grant", "shop-grant", rights));
    let backend = json!({"service": {"name": "old-nginx", "port": {"number": 8080}}});
    let rule = json!({"host": "shop.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}});
    let ingress = json!({"spec": {"ingressClassName": "theirs", "rules": [rule]}});
    all.push(object("networking.k8s.io/v1", "Ingress", "shop-ingress", &site, ingress));
    all
}

/// A cluster in which the Go operator ran, with its pods.
async fn left_cluster(name: &str, mode: &str) -> Cluster {
    let cluster = Cluster::start(name, 3).unwrap();
    kubectl(&cluster, &["apply", "-f", "-"], OWNERS);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": left_behind(&cluster, mode)});
    kubectl(&cluster, &["create", "-f", "-"], &list.to_string());
    until("the pods run", 60, || async { (pods(&cluster).len() == 9).then_some(()) }).await.expect("nine pods");
    cluster
}

/// The running pods.
fn pods(cluster: &Cluster) -> Vec<String> {
    let columns = "custom-columns=U:.metadata.uid,N:.metadata.name";
    let running = "--field-selector=status.phase=Running";
    let list =
        kubectl(cluster, &["get", "pods", running, "-l", "app=frappe,component", "-o", columns, "--no-headers"], "");
    let mut pods: Vec<String> = list.lines().filter(|it| !it.contains("Job")).map(str::to_owned).collect();
    pods.retain(|it| !it.contains("-configure-") && !it.contains("-init-") && !it.contains("-apply-"));
    pods.sort();
    pods
}

const KINDS: &str = "persistentvolumeclaims,statefulsets,deployments,services,secrets,ingresses,pods,\
                     mariadbs.k8s.mariadb.com,databases.k8s.mariadb.com,users.k8s.mariadb.com";

/// The serving objects: uid, and the fields that a user or an operator wrote.
fn serving(cluster: &Cluster) -> Vec<String> {
    let list = kubectl(cluster, &["get", KINDS, "-n", "default", "-o", "json"], "");
    let list: Value = serde_json::from_str(&list).unwrap();
    let kept = |it: &Value| {
        let meta = &it["metadata"];
        let body = ["spec", "data"].map(|part| it[part].to_string());
        format!("{} {} {} {}", it["kind"], meta["name"], meta["uid"], body.concat())
    };
    list["items"].as_array().unwrap().iter().filter(|it| it["metadata"]["name"] != "kubernetes").map(kept).collect()
}

fn ready(cluster: &Cluster, kind: &str, name: &str) -> Option<(String, String)> {
    let object: Value = serde_json::from_str(&kubectl(cluster, &["get", kind, name, "-o", "json"], "")).unwrap();
    let conditions = object["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|it| it["type"] == "Ready")?;
    Some((ready["reason"].as_str()?.to_owned(), ready["message"].as_str()?.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_request_objects_of_the_go_operator_are_not_changed() {
    let cluster = left_cluster("migration", "ReadWriteMany").await;
    let before = serving(&cluster);
    assert!(before.len() > 25, "{before:#?}");

    let mut operator = Operator::start(program(), &cluster, &Options::default()).unwrap();
    operator.ready().await.unwrap();
    let bench = until("the bench is rejected", 60, || async { ready(&cluster, "frappebench", "old") }).await;
    let site = until("the site is rejected", 60, || async { ready(&cluster, "frappesite", "shop") }).await;
    println!("bench: {bench:?}\nsite: {site:?}");
    // Wait for some more reconciles of both.
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let bench = ready(&cluster, "frappebench", "old").unwrap();
    let site = ready(&cluster, "frappesite", "shop").unwrap();
    println!("bench: {bench:?}\nsite: {site:?}");
    let after = serving(&cluster);
    for it in &before {
        assert!(after.contains(it), "changed or deleted: {it}\n{after:#?}");
    }
    assert_eq!(bench.0, "WriteRejected", "{bench:?}");
    assert!(bench.1.contains("created by another operator: see docs/migration.md"), "{bench:?}");
    let labels = object(&cluster, "persistentvolumeclaim", "old-sites")["metadata"]["labels"].clone();
    assert_eq!(
        labels,
        json!({"app": "frappe", "bench": "old"}),
        "a volume with the desired spec is not adopted either"
    );
    assert_eq!(site.0, "BenchNotReady", "{site:?}");
}

fn object(cluster: &Cluster, kind: &str, name: &str) -> Value {
    serde_json::from_str(&kubectl(cluster, &["get", kind, name, "-o", "json", "--show-managed-fields"], "")).unwrap()
}

fn annotate(cluster: &Cluster) {
    kubectl(cluster, &["annotate", "frappebench", "old", "frappe.vyogo.tech/adopt=true"], "");
}

async fn is_ready(cluster: &Cluster, kind: &str, name: &str) {
    let found = until(&format!("{kind} {name} is Ready"), 120, || async {
        ready(cluster, kind, name).filter(|(reason, _)| reason == "Ready")
    })
    .await;
    assert!(found.is_some(), "{kind} {name}: {}", object(cluster, kind, name)["status"]);
}

/// R-22: objects are adopted unchanged; the first change of the bench applies its spec; and the bench can be deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_the_go_operator_are_adopted_without_a_restart() {
    let cluster = left_cluster("adoption", "ReadWriteOnce").await;
    let (pods_before, uids_before) = (pods(&cluster), uids(&cluster));
    let workloads = "deployments,statefulsets,services,persistentvolumeclaims,ingresses";
    let specs = || {
        let list: Value =
            serde_json::from_str(&kubectl(&cluster, &["get", workloads, "-l", "bench=old", "-o", "json"], "")).unwrap();
        let of = |it: &Value| (format!("{} {}", it["kind"], it["metadata"]["name"]), it["spec"].clone());
        list["items"].as_array().unwrap().iter().map(of).collect::<std::collections::BTreeMap<_, _>>()
    };
    let specs_before = specs();
    annotate(&cluster);
    let mut operator = Operator::start(program(), &cluster, &Options::default()).unwrap();
    operator.ready().await.unwrap();
    is_ready(&cluster, "frappebench", "old").await;
    is_ready(&cluster, "frappesite", "shop").await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;

    assert_eq!(pods(&cluster), pods_before, "no pod was restarted");
    let uids_after = uids(&cluster);
    assert!(uids_before.iter().all(|it| uids_after.contains(it)), "{uids_before:#?}\n{uids_after:#?}");
    let specs_after = specs();
    for (name, spec) in specs_before.iter().filter(|(name, _)| !name.contains("Ingress")) {
        assert_eq!(&specs_after[name], spec, "{name} is unchanged");
    }
    let ingress = object(&cluster, "ingress", "shop-ingress");
    assert_eq!(ingress["spec"]["ingressClassName"], "theirs");
    assert_eq!(ingress["spec"]["rules"], specs_before["\"Ingress\" \"shop-ingress\""]["rules"]);
    let secret = |name: &str, key: &str| {
        let text = kubectl(&cluster, &["get", "secret", name, "-o", &format!("jsonpath={{.data.{key}}}")], "");
        String::from_utf8(BASE64.decode(text).unwrap()).unwrap()
    };
    assert_eq!(secret("shop-db-password", "password"), "of shop-db-password");
    assert_eq!(secret("shop-db-password", "username"), "shop_user");
    assert_eq!(secret("shop-admin-password", "password"), "of shop-admin");
    for (kind, name) in
        [("database", "shop-db"), ("user", "shop-user"), ("grant", "shop-grant"), ("secret", "shop-db-password")]
    {
        assert!(
            object(&cluster, kind, name)["metadata"]["ownerReferences"].is_null(),
            "{kind} {name} is kept after an accidental deletion of its owner"
        );
    }
    assert_eq!(object(&cluster, "grant", "shop-grant")["spec"]["username"], "shop_user");
    let jobs = kubectl(&cluster, &["get", "jobs", "-o", "name"], "");
    assert!(jobs.contains("shop-init-2") && jobs.contains("old-configure"), "{jobs}");
    assert_eq!(object(&cluster, "frappebench", "old")["status"]["adoptedVolume"], "ReadWriteOnce");
    let affinity = object(&cluster, "job", "shop-init-2")["spec"]["template"]["spec"]["affinity"].to_string();
    assert!(affinity.contains("worker-default"), "it is scheduled to the node of the volume: {affinity}");

    edited(&cluster, &pods_before).await;
    kubectl(&cluster, &["delete", "frappesite", "shop", "--timeout=90s"], "");
    kubectl(&cluster, &["delete", "frappebench", "old", "--timeout=90s"], "");
}

/// The first change of the bench: its components are rolled out without anything of their former templates; Redis and the volume
/// are kept.
async fn edited(cluster: &Cluster, pods_before: &[String]) {
    let patch = r#"{"spec": {"web": {"gunicornThreads": 8}}}"#;
    kubectl(cluster, &["patch", "frappebench", "old", "--type=merge", "-p", patch], "");
    let gone = |after: &[String]| pods_before.iter().filter(|it| !it.contains("redis")).all(|it| !after.contains(it));
    let rolled = until("the components were replaced", 120, || async {
        let after = pods(cluster);
        (gone(&after) && after.len() == pods_before.len()).then_some(after)
    })
    .await
    .expect("other pods");
    is_ready(cluster, "frappebench", "old").await;
    let redis = |pods: &[String]| pods.iter().filter(|it| it.contains("redis")).cloned().collect::<Vec<_>>();
    assert_eq!(redis(&rolled), redis(pods_before), "Redis was not restarted");
    for component in ["gunicorn", "nginx", "socketio", "scheduler", "worker-default", "worker-long", "worker-short"] {
        let spec = object(cluster, "deployment", &format!("old-{component}"))["spec"]["template"]["spec"].clone();
        let containers = spec["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1, "{component}");
        let text = spec.to_string();
        assert!(
            !text.contains("THEIRS") && !text.contains("their/way") && !text.contains("sites-storage"),
            "{component}: {text}"
        );
    }
    let port = until("the Service has the port by its name", 30, || async {
        let port = object(cluster, "service", "old-nginx")["spec"]["ports"][0]["targetPort"].clone();
        (port == "http").then_some(port)
    });
    assert!(port.await.is_some(), "{}", object(cluster, "service", "old-nginx")["spec"]);
}

fn uids(cluster: &Cluster) -> Vec<String> {
    let columns = "custom-columns=K:.kind,N:.metadata.name,U:.metadata.uid";
    let list = kubectl(cluster, &["get", KINDS, "-n", "default", "-o", columns, "--no-headers"], "");
    list.lines().filter(|it| !it.contains("kubernetes")).map(str::to_owned).collect()
}
