//! The API server accepts the guide's objects and rejects invalid ones with useful messages.

use std::fs;

use frappe_loadtest::cluster::Cluster;
use http::Request;
use kube::Client;
use serde_yaml_ng::Value;

use crate::support::shared;

/// YAML blocks of the guide that are objects of this API, unchanged.
pub(crate) fn guide_blocks(text: &str) -> Vec<String> {
    guide_documents(text, |it| it["apiVersion"] == "vyogo.tech/v1alpha1")
}

/// Documents of the guide's YAML blocks that match.
pub(crate) fn guide_documents(text: &str, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    let mut blocks = Vec::new();
    for block in text.split("```yaml").skip(1) {
        let Some((yaml, _)) = block.split_once("```") else { continue };
        for document in yaml.split("\n---\n") {
            let parsed: Option<Value> = serde_yaml_ng::from_str(document).ok();
            if parsed.as_ref().is_some_and(&wanted) {
                blocks.push(document.to_owned());
            }
        }
    }
    blocks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crds_accept_the_guides_objects_and_reject_invalid_ones() {
    let cluster = Cluster::start("crds", 0).expect("a cluster");
    every_object_of_the_guide_is_accepted_verbatim(&cluster);
    every_invalid_object_is_rejected_with_the_field_and_the_remedy(&cluster).await;
}

fn every_object_of_the_guide_is_accepted_verbatim(cluster: &Cluster) {
    let Some(guide) = shared("guide/frappe-operator-guide.txt") else { return };
    let blocks = guide_blocks(&fs::read_to_string(guide).expect("the guide"));
    assert!(blocks.len() >= 24, "the guide has {} blocks", blocks.len());
    let mut refused = Vec::new();
    for block in &blocks {
        let output =
            cluster.kubectl(&["create", "--dry-run=server", "--validate=strict", "-f", "-"], block).expect("kubectl");
        if !output.success {
            refused.push(format!("{block}\n{}", output.errors));
        }
    }
    assert!(refused.is_empty(), "rejected:\n{}", refused.join("\n"));
    println!("accepted verbatim: {} objects of the guide", blocks.len());
}

/// One invalid object: the change of a valid one, and what the rejection must contain.
struct Bad {
    kind: &'static str,
    change: String,
    says: Vec<String>,
}

/// The test data: a kind in brackets, then lines `path = value => part | part` (see the file).
fn corpus() -> Vec<Bad> {
    let mut kind = "";
    let mut found = Vec::new();
    for line in
        include_str!("bad_objects.txt").lines().map(str::trim).filter(|it| !it.is_empty() && !it.starts_with('#'))
    {
        if let Some(name) = line.strip_prefix('[') {
            kind = name.trim_end_matches(']');
            continue;
        }
        let (change, says) = line.split_once(" => ").unwrap_or_else(|| panic!("no => in {line}"));
        found.push(Bad {
            kind,
            change: change.trim().to_owned(),
            says: says.split(" | ").map(|it| it.trim().to_owned()).collect(),
        });
    }
    found
}

fn good(kind: &str) -> Value {
    let spec = match kind {
        "FrappeBench" => "{frappeVersion: '15'}",
        "FrappeSite" => "{siteName: a.example.com, benchRef: {name: bench}}",
        "SiteBackup" => "{siteRef: {name: a}}",
        _ => "{site: {namespace: default, name: a, uid: u}}",
    };
    serde_yaml_ng::from_str(&format!(
        "{{apiVersion: vyogo.tech/v1alpha1, kind: {kind}, metadata: {{name: good}}, spec: {spec}}}"
    ))
    .expect("a good object")
}

/// Sets `a.b = value` (YAML); `value` may be `~` to remove the field.
fn set(object: &mut Value, change: &str) {
    let (path, value) = change.split_once(" = ").unwrap_or_else(|| panic!("no = in {change}"));
    let mut steps: Vec<&str> = path.split('.').collect();
    let last = steps.pop().expect("a path has a last step");
    let mut place = object;
    for step in steps {
        let map = place.as_mapping_mut().expect("a mapping");
        place = map.entry(step.into()).or_insert_with(|| Value::Mapping(serde_yaml_ng::Mapping::new()));
    }
    let map = place.as_mapping_mut().expect("a mapping");
    match serde_yaml_ng::from_str(value).expect("a value") {
        Value::Null => drop(map.remove(last)),
        other => drop(map.insert(last.into(), other)),
    }
}

/// Where an object of this kind is created, and its name follows.
fn place(kind: &str) -> &'static str {
    match kind {
        "FrappeBench" => "/apis/vyogo.tech/v1alpha1/namespaces/default/frappebenches",
        "FrappeSite" => "/apis/vyogo.tech/v1alpha1/namespaces/default/frappesites",
        "SiteBackup" => "/apis/vyogo.tech/v1alpha1/namespaces/default/sitebackups",
        "SiteJob" => "/apis/vyogo.tech/v1alpha1/namespaces/default/sitejobs",
        _ => "/apis/vyogo.tech/v1alpha1/frappedomains",
    }
}

/// The API server's message if it rejects the object, in a dry run: as a new one, or as a change of the good one, by whom it is.
async fn rejection(client: &Client, kind: &str, object: &Value, is_change: bool) -> Option<String> {
    let request = if is_change {
        Request::patch(format!(
            "{}/good?dryRun=All&fieldValidation=Strict&fieldManager=kubectl&force=true",
            place(kind)
        ))
        .header("content-type", "application/apply-patch+yaml")
    } else {
        Request::post(format!("{}?dryRun=All&fieldValidation=Strict", place(kind)))
            .header("content-type", "application/json")
    };
    let request = request.body(serde_json::to_vec(object).expect("JSON")).expect("a request");
    client.request::<serde_json::Value>(request).await.err().map(|error| error.to_string())
}

async fn every_invalid_object_is_rejected_with_the_field_and_the_remedy(cluster: &Cluster) {
    let client = cluster.client().await.expect("a client");
    let corpus = corpus();
    assert!(corpus.len() >= 40, "the corpus has {} objects", corpus.len());
    let mut wrong = Vec::new();
    for kind in ["FrappeBench", "FrappeSite", "SiteBackup", "FrappeDomain"] {
        let object = serde_yaml_ng::to_string(&good(kind)).expect("YAML");
        cluster.apply(&object).unwrap_or_else(|error| panic!("the good {kind}: {error:#}"));
    }
    for bad in &corpus {
        let mut object = good(bad.kind);
        // Lines that begin with "update" change the good object that exists; the others make a new one.
        let change = bad.change.strip_prefix("update ");
        if change.is_none() {
            set(&mut object, "metadata.name = fresh");
        }
        change.unwrap_or(&bad.change).split(" ; ").for_each(|it| set(&mut object, it));
        let said = rejection(&client, bad.kind, &object, change.is_some()).await;
        let missing: Vec<&String> =
            bad.says.iter().filter(|part| !said.as_ref().is_some_and(|it| it.contains(part.as_str()))).collect();
        if said.is_none() || !missing.is_empty() {
            wrong.push(format!("[{}] {}\n  lacks {missing:?} in: {said:?}", bad.kind, bad.change));
        }
    }
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), corpus.len(), wrong.join("\n"));
    println!("rejected as expected: {} objects", corpus.len());
}
