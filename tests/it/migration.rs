//! Objects as the Go operator leaves them: none of them is deleted, changed or restarted by this one.

use std::fmt::Write as _;

use frappe_loadtest::{
    cluster::Cluster,
    process::{Operator, Options},
};
use serde_json::Value;

use crate::support::{kubectl, program, until};

/// A bench and a site, as the Go operator made them: names, labels and selectors are its own.
fn left_behind() -> String {
    let template = |component: &str, image: &str| {
        format!(
            "{{metadata: {{labels: {{app: frappe, bench: old, component: {component}}}}}, spec: {{containers: [{{name: {component}, image: \
             {image}}}]}}}}"
        )
    };
    let mut text = String::from(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: old-sites, labels: {app: frappe, bench: old}}\nspec: {accessModes: \
         [ReadWriteOnce], resources: {requests: {storage: 10Gi}}}\n",
    );
    for redis in ["redis-cache", "redis-queue"] {
        let selector = format!("{{app: frappe, bench: old, component: redis-{redis}}}");
        let _ = write!(
            text,
            "---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: old-{redis}, labels: {{app: frappe, bench: old}}}}\nspec: \
             {{replicas: 1, serviceName: old-{redis}, selector: {{matchLabels: {selector}}}, template: {}}}\n---\napiVersion: v1\nkind: \
             Service\nmetadata: {{name: old-{redis}}}\nspec: {{ports: [{{port: 6379}}], selector: {selector}}}\n",
            template(&format!("redis-{redis}"), "redis:7-alpine")
        );
    }
    for component in ["gunicorn", "nginx", "socketio", "scheduler", "worker-default", "worker-long", "worker-short"] {
        let _ = write!(
            text,
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: old-{component}, labels: {{app: frappe, bench: old}}}}\nspec: {{replicas: \
             1, selector: {{matchLabels: {{app: frappe, bench: old, component: {component}}}}}, template: {}}}\n",
            template(component, "frappe/erpnext:15")
        );
    }
    for (name, port) in [("gunicorn", 8000), ("nginx", 8080), ("socketio", 9000)] {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: old-{name}}}\nspec: {{ports: [{{port: {port}}}], selector: {{app: frappe, \
             bench: old, component: {name}}}}}\n"
        );
    }
    for secret in ["shop-admin", "shop-db-password", "shop-init-secrets", "shop-deletion-secret"] {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {secret}}}\nstringData: {{password: kept}}\n"
        );
    }
    let server = "mariaDbRef: {name: mariadb}";
    text + &format!(
        "---\napiVersion: k8s.mariadb.com/v1alpha1\nkind: MariaDB\nmetadata: {{name: mariadb}}\nspec: {{storage: {{size: 1Gi}}}}\n\
         ---\napiVersion: k8s.mariadb.com/v1alpha1\nkind: Database\nmetadata: {{name: shop-db}}\nspec: {{{server}, name: _abc}}\n\
         ---\napiVersion: k8s.mariadb.com/v1alpha1\nkind: User\nmetadata: {{name: shop-user}}\nspec: {{{server}, name: _abc, \
         passwordSecretKeyRef: {{name: shop-db-password, key: password}}}}\n\
         ---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: shop-ingress}}\nspec: {{rules: [{{host: shop.example.com, http: \
         {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: old-nginx, port: {{number: 8080}}}}}}}}]}}}}]}}\n\
         ---\napiVersion: vyogo.tech/v1alpha1\nkind: FrappeBench\nmetadata: {{name: old, finalizers: [vyogo.tech/bench-finalizer]}}\nspec: \
         {{frappeVersion: \"15\", apps: [{{name: erpnext, source: image}}]}}\n\
         ---\napiVersion: vyogo.tech/v1alpha1\nkind: FrappeSite\nmetadata: {{name: shop, finalizers: [vyogo.tech/site-finalizer]}}\nspec: \
         {{siteName: shop.example.com, benchRef: {{name: old}}}}\n"
    )
}

const KINDS: &str = "persistentvolumeclaims,statefulsets,deployments,services,secrets,ingresses,pods,\
                     mariadbs.k8s.mariadb.com,databases.k8s.mariadb.com,users.k8s.mariadb.com";

/// What serves: uid, and what of it a user or an operator wrote.
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
async fn what_the_go_operator_made_is_refused_and_left_alone() {
    let cluster = Cluster::start("migration", 3).unwrap();
    kubectl(&cluster, &["apply", "-f", "-"], &left_behind());
    let pods = || {
        kubectl(&cluster, &["get", "pods", "--field-selector=status.phase=Running", "-o", "name"], "").lines().count()
    };
    until("the pods run", 60, || async { (pods() == 9).then_some(()) }).await.expect("nine pods");
    let before = serving(&cluster);
    assert!(before.len() > 25, "{before:#?}");

    let mut operator = Operator::start(program(), &cluster, &Options::default()).unwrap();
    operator.ready().await.unwrap();
    let bench = until("the bench is refused", 60, || async { ready(&cluster, "frappebench", "old") }).await;
    let site = until("the site is answered", 60, || async { ready(&cluster, "frappesite", "shop") }).await;
    println!("bench: {bench:?}\nsite: {site:?}");
    // Some more looks at both, with the waits between them.
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let bench = ready(&cluster, "frappebench", "old").unwrap();
    let site = ready(&cluster, "frappesite", "shop").unwrap();
    println!("bench: {bench:?}\nsite: {site:?}");
    let after = serving(&cluster);
    for it in &before {
        assert!(after.contains(it), "changed or gone: {it}\n{after:#?}");
    }
    assert_eq!(bench.0, "WriteRejected", "{bench:?}");
    assert_eq!(site.0, "BenchNotReady", "{site:?}");
}
