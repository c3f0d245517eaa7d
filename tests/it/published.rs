//! What the operator renders, held against the CRDs that the MariaDB operator publishes.

use std::fs;

use frappe_crds::site::SitePhase;

use crate::support::{World, shared, site};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rendered_objects_satisfy_the_published_definitions() {
    let Some(folder) = shared("crds") else { return };
    let world = World::start("published").await;
    world.with_bench("strict").await;
    world.cluster.apply(&site("strict", "shop")).unwrap();
    world.site_in("strict", "shop", SitePhase::Ready).await;
    let kinds = "databases.k8s.mariadb.com,users.k8s.mariadb.com,grants.k8s.mariadb.com";
    let rendered = world.kubectl(&["get", kinds, "-n", "strict", "-o", "json"]);
    let mut list: serde_json::Value = serde_json::from_str(&rendered).unwrap();
    for item in list["items"].as_array_mut().unwrap() {
        let name = item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        item["metadata"] = serde_json::json!({"name": format!("{name}-again"), "namespace": "strict", "labels": item["metadata"]["labels"]});
        item.as_object_mut().unwrap().remove("status");
    }
    for entry in fs::read_dir(folder).unwrap().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("k8s.mariadb.com_") {
            let text = fs::read_to_string(entry.path()).unwrap();
            let output =
                world.cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &text).unwrap();
            assert!(output.success, "{name}: {}", output.errors);
        }
    }
    // The API server serves a changed definition after a moment.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let count = list["items"].as_array().unwrap().len();
    assert_eq!(count, 3);
    world.cluster.apply(&list.to_string()).unwrap();
    println!("accepted with strict validation by the published definitions: {count} objects");
}

/// The namespaces of these tests really refuse what does not pass: else that pods start in them would prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_held_to_the_restricted_standard() {
    let world = World::start("standard").await;
    world.with_bench("held").await;
    world.cluster.apply(&site("held", "shop")).unwrap();
    world.site_in("held", "shop", SitePhase::Ready).await;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: root, namespace: held}\nspec: {containers: [{name: a, image: a}]}\n";
    let refused = world.cluster.kubectl(&["apply", "-f", "-"], pod).unwrap();
    assert!(!refused.success && refused.errors.contains("PodSecurity"), "{}", refused.errors);
    let pods = world.kubectl(&["get", "pods", "-n", "held", "--no-headers"]);
    println!("pods that passed the restricted Pod Security Standard: {}", pods.lines().count());
    assert!(pods.lines().count() >= 10, "{pods}");
}
