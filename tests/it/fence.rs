//! The admission fence on a real API server: it rejects only writes of replicas that do not own the object.

use std::{path::PathBuf, process::Command, time::Duration};

use frappe_crds::site::SitePhase;
use frappe_loadtest::{
    cluster::Cluster,
    process::{NAMESPACE, Operator, Options},
};

use crate::support::{World, kubeconfig_of_pod, kubectl, program, site};

/// ServiceAccount, permissions and pods of two replicas.
fn account() -> String {
    let pod = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
             spec: {{serviceAccountName: frappe-operator, containers: [{{name: operator, image: none}}]}}\n"
        )
    };
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n\
         apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: frappe-operator, namespace: {NAMESPACE}}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: frappe-operator}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}\n\
         subjects: [{{kind: ServiceAccount, name: frappe-operator, namespace: {NAMESPACE}}}]\n{}{}",
        pod("first"),
        pod("second")
    )
}

/// A kubeconfig with a token that is bound to the pod, and the pod's uid.
fn identity(cluster: &Cluster, pod: &str) -> (PathBuf, String) {
    let uid = kubectl(cluster, &["get", "pod", pod, "-n", NAMESPACE, "-o", "jsonpath={.metadata.uid}"], "");
    (kubeconfig_of_pod(cluster, NAMESPACE, pod), uid)
}

/// S-9: with the admission fence, the API server itself rejects a write by a replica that does not own the object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_rejects_replicas_that_do_not_own_the_object() {
    let cluster = Cluster::start("fence", 3).unwrap();
    cluster.apply(&account()).unwrap();
    let fence = Command::new(program()).args(["admission-fence", "--namespace", NAMESPACE]).output().unwrap();
    cluster.apply(&String::from_utf8(fence.stdout).unwrap()).unwrap();
    let [first, second] = ["first", "second"].map(|pod| (pod, identity(&cluster, pod)));
    let options = |(pod, (kubeconfig, uid)): &(&str, (PathBuf, String))| Options {
        lease_seconds: Some(4),
        pod_name: Some((*pod).to_owned()),
        pod_uid: Some(uid.clone()),
        kubeconfig: Some(kubeconfig.clone()),
        ..Options::default()
    };
    let client = cluster.client().await.unwrap();
    let mut operator = Operator::start(program(), &cluster, &options(&first)).unwrap();
    operator.ready().await.unwrap();
    let mut world = World { operator, client, cluster };
    world.with_bench("fenced").await;
    world.cluster.apply(&site("fenced", "shop")).unwrap();
    world.wait_for_site_phase("fenced", "shop", SitePhase::Ready).await;

    let path = second.1.0.display().to_string();
    let as_second = ["--kubeconfig", &path, "label", "frappesite", "shop", "-n", "fenced", "late=write"];
    let refused = world.cluster.kubectl(&as_second, "").unwrap();
    assert!(!refused.success && refused.errors.contains("this replica does not own entry"), "{}", refused.errors);
    println!("{}", refused.errors.trim());
    world.kubectl(&["label", "frappesite", "shop", "-n", "fenced", "a=user"]);

    let mut other = Operator::start(program(), &world.cluster, &options(&second)).unwrap();
    other.ready().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sites: String = (0..8).map(|index| site("fenced", &format!("site-{index}"))).collect();
    world.cluster.apply(&sites).unwrap();
    for index in 0..8 {
        world.wait_for_site_phase("fenced", &format!("site-{index}"), SitePhase::Ready).await;
    }
    let backup = |index: usize| {
        format!(
            "---\napiVersion: vyogo.tech/v1alpha1\nkind: SiteBackup\nmetadata: {{name: daily-{index}, namespace: fenced}}\n\
             spec: {{siteRef: {{name: site-{index}}}, schedule: \"0 2 * * *\", storage: {{s3: {{bucket: backups, region: us-east-1}}}}, \
             deletionPolicy: Delete}}\n"
        )
    };
    world.cluster.apply(&(0..8).map(backup).collect::<String>()).unwrap();
    let slots = r"jsonpath={.items[*].metadata.labels.frappe\.vyogo\.tech/slot}";
    let labelled = || async {
        let shown = world.kubectl(&["get", "sitebackups", "-n", "fenced", "-o", slots]);
        (shown.split_whitespace().count() == 8).then_some(())
    };
    world.until("every SiteBackup belongs to the owner of its site", 60, labelled).await;
    world.kubectl(&["delete", "frappesite", "--all", "-n", "fenced", "--timeout=60s"]);
    // The owner of the slot removes the label, and the coordinator reports the missing site.
    let reasons = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].reason}"#;
    let free = || async {
        let said = world.kubectl(&["get", "sitebackups", "-n", "fenced", "-o", reasons]);
        let left = world.kubectl(&["get", "sitebackups", "-n", "fenced", "-o", slots]);
        (said.split_whitespace().filter(|it| *it == "SiteNotFound").count() == 8 && left.is_empty()).then_some(())
    };
    world.until("no SiteBackup has a label", 60, free).await;
    world.kubectl(&["delete", "sitebackups", "--all", "-n", "fenced", "--timeout=60s"]);
    assert!(other.stop().await.unwrap().success() && world.operator.stop().await.unwrap().success());
}
