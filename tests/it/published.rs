//! The objects that the operator renders, validated by the CRDs that the MariaDB operator publishes.

use std::fs;

use frappe_crds::{FrappeBench, bench::Revision, site::SitePhase};
use frappe_loadtest::cluster::Cluster;
use frappe_operator::parts::{Capabilities, Desired, OperatorConfig, bench};
use serde::Deserialize;

use crate::{
    crds::guide_blocks,
    support::{World, shared, site},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rendered_objects_satisfy_published_definitions_and_standards() {
    let world = World::start("published").await;
    namespaces_enforce_the_restricted_standard(&world).await;
    rendered_benches_of_the_guide_satisfy_the_crds(&world.cluster).await;
    rendered_objects_satisfy_the_published_crds(&world).await;
}

async fn rendered_objects_satisfy_the_published_crds(world: &World) {
    let Some(folder) = shared("crds") else { return };
    world.with_bench("strict").await;
    world.cluster.apply(&site("strict", "shop")).unwrap();
    world.wait_for_site_phase("strict", "shop", SitePhase::Ready).await;
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
    // The API server serves a changed CRD with a delay.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let count = list["items"].as_array().unwrap().len();
    assert_eq!(count, 3);
    world.cluster.apply(&list.to_string()).unwrap();
    println!("accepted with strict validation by the published CRDs: {count} objects");
}

/// The objects of every bench of the guide, rendered with all optional APIs, are accepted.
async fn rendered_benches_of_the_guide_satisfy_the_crds(cluster: &Cluster) {
    let (Some(folder), Some(guide)) = (shared("crds"), shared("guide/frappe-operator-guide.txt")) else { return };
    cluster.apply(include_str!("../../loadtest/controlplane/optional/keda.yaml")).unwrap();
    for kind in ["scaledobjects", "triggerauthentications"] {
        let text = fs::read_to_string(folder.join(format!("keda.sh_{kind}.yaml"))).unwrap();
        let output = cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &text).unwrap();
        assert!(output.success, "{kind}: {}", output.errors);
    }
    // The API server serves a changed CRD with a delay.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let mut benches: Vec<FrappeBench> = Vec::new();
    for block in guide_blocks(&fs::read_to_string(guide).unwrap()) {
        for document in serde_yaml_ng::Deserializer::from_str(&block) {
            let value = serde_json::Value::deserialize(document).unwrap();
            if value["kind"] == "FrappeBench" {
                benches.push(serde_json::from_value(value).unwrap());
            }
        }
    }
    let config = OperatorConfig::default();
    let capabilities = Capabilities { keda: true, service_monitors: true, ..Capabilities::default() };
    let mut count = 0;
    for each in &mut benches {
        each.metadata.namespace = Some("default".to_owned());
        each.metadata.uid = Some("1".to_owned());
        let status = each.status.get_or_insert_default();
        status.redis_protected = Some(true);
        // Beside the newest, the pods of an earlier revision.
        let revision =
            |number| Revision { number, image: "frappe/erpnext:v15".to_owned(), complete: true, ..Revision::default() };
        status.revisions = vec![revision(1), revision(2)];
        let input = bench::Input::of(each, &config, capabilities);
        let rendered = bench::render(&input);
        let items: Vec<_> = rendered.all().map(Desired::stamped).collect();
        count += items.len();
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        let strict = ["apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", "-"];
        // The claim of the Redis queue is only a part of the one that its StatefulSet creates, so required fields are missing.
        let output = cluster.kubectl(&strict, &list).unwrap();
        let errors: Vec<&str> = output.errors.lines().filter(|it| !it.contains("data-")).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", each.metadata.name.clone().unwrap_or_default());
    }
    println!("{} benches of the guide: {count} rendered objects accepted with strict validation", benches.len());
    assert!(benches.len() >= 10 && count > 200);
}

/// The namespaces of these tests reject pods that violate the standard; otherwise, pods that start in them would prove nothing.
async fn namespaces_enforce_the_restricted_standard(world: &World) {
    world.with_bench("held").await;
    world.cluster.apply(&site("held", "shop")).unwrap();
    world.wait_for_site_phase("held", "shop", SitePhase::Ready).await;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: root, namespace: held}\nspec: {containers: [{name: a, image: a}]}\n";
    let refused = world.cluster.kubectl(&["apply", "-f", "-"], pod).unwrap();
    assert!(!refused.success && refused.errors.contains("PodSecurity"), "{}", refused.errors);
    let pods = world.kubectl(&["get", "pods", "-n", "held", "--no-headers"]);
    println!("pods that passed the restricted Pod Security Standard: {}", pods.lines().count());
    assert!(pods.lines().count() >= 10, "{pods}");
}
