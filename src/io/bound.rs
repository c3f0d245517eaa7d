//! The parts of an object that are kept when it arrives. Users who may write objects decide how large they are: here the kept
//! parts are bounded, before they are cached.

use std::collections::BTreeMap;

use frappe_crds::{FrappeBench, FrappeBenchSpec, FrappeSite, FrappeSiteSpec};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry};
use kube::{Resource, ResourceExt, api::ObjectMeta, core::DynamicObject};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    domain::labels::{self, MANAGER},
    io::weight,
};

/// Largest object of which more than the metadata is kept, as JSON, in bytes.
pub(super) const OBJECT_BYTES_MAX: usize = 64 << 10;
/// Labels of sites and benches that are kept, in bytes; of more, only ours.
const USER_LABELS_BYTES_MAX: usize = 1024;
/// Bytes of labels, and of annotations, up to which those of others are kept beside ours.
const LABELS_BYTES_MAX: usize = 4 << 10;
const ANNOTATIONS_BYTES_MAX: usize = 1 << 10;
/// The same of annotations of what leads hosts to a site: they are the site's own, and are compared.
const ROUTE_ANNOTATIONS_BYTES_MAX: usize = 32 << 10;
/// Longest value of an annotation of ours, in bytes.
const OWN_VALUE_BYTES_MAX: usize = 4 << 10;
/// Most owners that are kept.
const REFERENCES_MAX: usize = 16;
/// Most finalizers that are kept. They are written back with ours: one beyond these would be lost, and no object has as many.
const FINALIZERS_MAX: usize = 64;
/// Largest specs of a site and of a bench, by their size in memory, in bytes. A larger one is not kept, and the object
/// reports it.
pub(super) const SITE_SPEC_BYTES_MAX: usize = 64 << 10;
/// The same of a bench.
pub(super) const BENCH_SPEC_BYTES_MAX: usize = 128 << 10;
/// Takes out what no reconcile reads: managedFields are half of most objects, and the pod template is most of a site's
/// Job, which is only made and never compared.
pub(super) fn prune(object: &mut DynamicObject) {
    let of_site = object.labels().contains_key(labels::SLOT);
    if of_site && let Some(spec) = object.data.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("template");
    }
    let has_spec = object.data.get("spec").is_some();
    let most = if of_site && has_spec { ROUTE_ANNOTATIONS_BYTES_MAX } else { ANNOTATIONS_BYTES_MAX };
    shorten(&mut object.metadata);
    bound(&mut object.metadata.labels, LABELS_BYTES_MAX);
    bound(&mut object.metadata.annotations, most);
}

/// Leaves nothing but the metadata, of an object that is larger than any of ours.
pub(super) fn leave_metadata(object: &mut DynamicObject) {
    bound(&mut object.metadata.labels, 0);
    bound(&mut object.metadata.annotations, 0);
    object.data = Value::Null;
}

/// Of many or long entries only ours are kept, and of ours none that no operator writes.
fn bound(entries: &mut Option<BTreeMap<String, String>>, most: usize) {
    let Some(entries) = entries else { return };
    let whole: usize = entries.iter().map(|(name, value)| name.len() + value.len()).sum();
    if whole > most {
        entries.retain(|name, value| labels::is_own(name) && value.len() <= OWN_VALUE_BYTES_MAX);
    }
}

/// An object as far as its managedFields go.
#[derive(Deserialize)]
struct Managed {
    metadata: ManagedFields,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagedFields {
    #[serde(default)]
    managed_fields: Vec<ManagedFieldsEntry>,
}

/// Entries of a ConfigMap that are as this operator applied them, of one that is delivered without its content: another who
/// changes an entry takes it from us.
pub(super) fn owned_data(text: &str) -> Option<Value> {
    let ours = |entry: &ManagedFieldsEntry| {
        let is = |value: &Option<String>, wanted: &str| value.as_deref() == Some(wanted);
        is(&entry.manager, MANAGER) && is(&entry.operation, "Apply") && entry.subresource.is_none()
    };
    let managed: Managed = serde_json::from_str(text).ok()?;
    let fields = managed.metadata.managed_fields.into_iter().find(ours)?.fields_v1?.0;
    let names = fields["f:data"].as_object()?.keys().filter_map(|key| key.strip_prefix("f:"));
    Some(names.map(|name| (name.to_owned(), json!(true))).collect::<Map<_, _>>().into())
}

/// A site without what others wrote beside it, and without the parts of a spec that is too large.
pub(super) fn site(mut site: FrappeSite) -> FrappeSite {
    metadata(&mut site);
    if weight::of(&site.spec) > SITE_SPEC_BYTES_MAX {
        empty(&mut site.spec);
        mark(&mut site);
    }
    site
}

/// A bench, also. Its spec is replaced by the smallest that there is.
pub(super) fn bench(mut bench: FrappeBench) -> FrappeBench {
    metadata(&mut bench);
    if weight::of(&bench.spec) > BENCH_SPEC_BYTES_MAX {
        bench.spec = FrappeBenchSpec {
            frappe_version: std::mem::take(&mut bench.spec.frappe_version),
            storage_deletion_policy: bench.spec.storage_deletion_policy,
            ..FrappeBenchSpec::default()
        };
        mark(&mut bench);
    }
    bench
}

/// The operator's own ConfigMap is as it is: only the platform writes it.
pub(super) fn settings(map: ConfigMap) -> ConfigMap {
    map
}

/// Takes lists and maps out of a spec: they make it large.
fn empty(spec: &mut FrappeSiteSpec) {
    spec.site_config.clear();
    spec.site_config_secret_refs.clear();
    spec.additional_domains = Vec::new();
    spec.removed_apps = Vec::new();
    spec.apps = None;
    spec.ingress = None;
    spec.http_route = None;
    spec.route_config = None;
    if let Some(database) = &mut spec.db_config {
        database.resources = None;
    }
}

/// The mark is made here and nowhere else: one that someone wrote is taken off.
pub(super) fn mark(object: &mut impl Resource) {
    mark_as(object, "true");
}

/// The same, with a value.
pub(super) fn mark_as(object: &mut impl Resource, value: &str) {
    let annotations = object.meta_mut().annotations.get_or_insert_default();
    annotations.insert(labels::TOO_LARGE.to_owned(), value.to_owned());
}

fn metadata(object: &mut impl Resource) {
    let metadata = object.meta_mut();
    shorten(metadata);
    // A canary selects sites by the labels of users.
    bound(&mut metadata.labels, USER_LABELS_BYTES_MAX);
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|name, value| {
            labels::is_own(name) && value.len() <= OWN_VALUE_BYTES_MAX && name != labels::TOO_LARGE
        });
    }
}

/// Metadata of any length without what no reconcile reads of it, labels and annotations aside.
fn shorten(metadata: &mut ObjectMeta) {
    (metadata.managed_fields, metadata.generate_name, metadata.self_link) = (None, None, None);
    if let Some(owners) = &mut metadata.owner_references {
        owners.truncate(REFERENCES_MAX);
    }
    if let Some(finalizers) = &mut metadata.finalizers {
        finalizers.truncate(FINALIZERS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use kube_sharding::Slot;

    use super::*;
    use crate::{
        domain::key::Key,
        io::{
            cache::{Cache, Decision},
            cached::Cached,
            compact::Compact,
        },
    };

    fn arrived(object: Value) -> Compact {
        serde_json::from_value(object).expect("an object")
    }

    /// What arrives is as small as what is read of it, whatever was written beside that.
    #[test]
    fn a_large_object_is_kept_without_its_large_fields() {
        let noise = "x".repeat(200 << 10);
        let table = [
            json!({"metadata": {"name": "a", "annotations": {"theirs": noise}}}),
            json!({"metadata": {"name": "a", "labels": {"theirs": noise, labels::SLOT: "1"}}}),
            json!({"metadata": {"name": "a", "annotations": {labels::IDENTITY: noise}}}),
            json!({"metadata": {"name": "a"}, "spec": {"text": noise}}),
            json!({"metadata": {"name": "a", "labels": {labels::SLOT: "1"}}, "spec": {"template": noise}}),
            json!({"metadata": {"name": "a", "generateName": noise, "selfLink": noise}}),
            json!({"metadata": {"name": "a", "finalizers": vec!["example.com/a"; 10_000]}}),
        ];
        for object in table {
            let kept = arrived(object.clone()).open();
            let size = serde_json::to_string(&kept).expect("JSON").len();
            assert!(size < 2 << 10, "{size} bytes of {}", &object.to_string()[..100]);
            assert_eq!(kept.name_any(), "a");
        }
        let ours = json!({"metadata": {"name": "a", "annotations": {"theirs": noise, labels::IDENTITY: "1"}}});
        assert_eq!(arrived(ours).open().annotations()[labels::IDENTITY], "1");
    }

    /// An entry that another changed is not ours any more, so that it is applied again.
    #[test]
    fn a_config_maps_unchanged_entries_are_known() {
        let fields = |names: &[&str]| {
            let names = names.iter().map(|name| (format!("f:{name}"), json!({}))).collect::<Map<_, _>>();
            json!({"f:data": names})
        };
        let map = |ours: &[&str], theirs: &[&str]| {
            arrived(json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"name": "a", "managedFields": [
                    {"manager": MANAGER, "operation": "Apply", "fieldsV1": fields(ours)},
                    {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": fields(theirs)},
                ]},
            }))
            .open()
            .data["data"]
                .clone()
        };
        assert_eq!(map(&["a", "b"], &[]), json!({"a": true, "b": true}));
        assert_eq!(map(&["a"], &["b"]), json!({"a": true}), "b was edited");
    }

    #[test]
    fn a_spec_that_is_too_large_is_not_kept_and_marked() {
        let large = |annotations: Value| -> FrappeSite {
            serde_json::from_value(json!({
                "metadata": {"name": "shop", "annotations": annotations},
                "spec": {"siteName": "shop.example.com", "benchRef": {"name": "b"}, "deletionPolicy": "Retain",
                         "siteConfig": {"nested": {"text": "x".repeat(SITE_SPEC_BYTES_MAX)}}},
            }))
            .expect("a site")
        };
        let kept = site(large(json!({"theirs": "x".repeat(1000), labels::RETRY: "1"})));
        assert!(kept.spec.site_config.is_empty());
        assert_eq!(kept.spec.site_name, "shop.example.com");
        assert!(kept.spec.deletion_policy.is_some(), "a deletion goes on as it was asked for");
        assert_eq!(kept.annotations().keys().collect::<Vec<_>>(), [labels::RETRY, labels::TOO_LARGE]);
        let mut small = large(json!({labels::TOO_LARGE: "true"}));
        small.spec.site_config.clear();
        assert!(site(small).annotations().is_empty(), "the mark is made here and nowhere else");
    }

    /// Many small maps are little text and much memory.
    #[test]
    fn the_size_of_a_spec_in_memory_counts() {
        let site_with = |config: Value| -> FrappeSite {
            let spec = json!({"siteName": "a", "benchRef": {"name": "b"}, "siteConfig": config});
            site(serde_json::from_value(json!({"metadata": {"name": "shop"}, "spec": spec})).expect("a site"))
        };
        let is_kept = |site: &FrappeSite| !site.annotations().contains_key(labels::TOO_LARGE);
        let maps = site_with(json!({"a": vec![json!({"": 0}); 1000]}));
        assert!(!is_kept(&maps) && maps.spec.site_config.is_empty(), "7 KiB of text");
        let honest: Map<_, _> =
            (0..200).map(|at| (format!("a_setting_of_some_app_{at}"), json!("https://shop.example.com/a"))).collect();
        let honest = site_with(honest.into());
        assert!(is_kept(&honest) && honest.spec.site_config.len() == 200);

        let bench_with = |spec: Value| -> FrappeBench {
            bench(serde_json::from_value(json!({"metadata": {"name": "b"}, "spec": spec})).expect("a bench"))
        };
        let is_kept = |bench: &FrappeBench| !bench.annotations().contains_key(labels::TOO_LARGE);
        let app = |at: usize| {
            let url = format!("https://github.com/example/app_{at}");
            json!({"name": format!("app_{at}"), "source": "git", "version": "15.1.0", "gitUrl": url, "gitBranch": "main"})
        };
        let resources = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}});
        let of_all: Map<_, _> =
            ["gunicorn", "nginx", "scheduler", "socketio", "workerDefault", "workerLong", "workerShort"]
                .map(|component| (component.to_owned(), resources.clone()))
                .into_iter()
                .collect();
        let honest = bench_with(json!({"frappeVersion": "15", "apps": (0..30).map(app).collect::<Vec<_>>(),
                                       "componentResources": of_all}));
        assert!(is_kept(&honest) && honest.spec.apps.len() == 30);
        let peers = json!({"ingress": [{"from": vec![json!({}); 2000]}]});
        let peers = bench_with(json!({"frappeVersion": "15", "networkPolicy": peers}));
        assert!(!is_kept(&peers) && peers.spec.network_policy.is_none(), "6 KiB of text");
        assert_eq!(peers.spec.frappe_version, "15");
    }

    /// Labels and annotations of a user that only begin like this operator's are not kept.
    #[test]
    fn an_object_that_only_looks_owned_is_not_kept() {
        let theirs: Map<_, _> = (0..1000).map(|at| (format!("frappe.vyogo.tech/{at}"), json!("x"))).collect();
        let with = |name: &str| -> Map<String, Value> {
            theirs.clone().into_iter().chain([(name.to_owned(), json!("1"))]).collect()
        };
        let (of_labels, annotations) = (with(labels::SLOT), with(labels::IDENTITY));
        let metadata = json!({"name": "shop", "generateName": "x", "labels": of_labels, "annotations": annotations,
                              "finalizers": vec!["a"; 1000]});
        let spec = json!({"siteName": "a", "benchRef": {"name": "b"}});
        let site = site(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a site"));
        let large = json!({"metadata": metadata, "spec": "x".repeat(OBJECT_BYTES_MAX)});
        for kept in
            [site.metadata, arrived(large).open().metadata, arrived(json!({"metadata": metadata})).open().metadata]
        {
            let names = |entries: Option<std::collections::BTreeMap<String, String>>| {
                entries.unwrap_or_default().into_keys().collect::<Vec<_>>()
            };
            assert_eq!(
                (names(kept.labels), names(kept.annotations)),
                (vec![labels::SLOT.to_owned()], vec![labels::IDENTITY.to_owned()])
            );
            assert_eq!((kept.finalizers.map_or(0, |it| it.len()), kept.generate_name), (FINALIZERS_MAX, None));
        }
    }

    /// A stream of 10,000 objects of 64 KiB that name a site which is not there, and one that names a site which is.
    #[test]
    fn objects_without_an_owner_are_not_held() {
        let cache =
            Cache::<DynamicObject>::new(|_| Some(Slot::new(0))).deciding(Box::new(|child: &Compact| {
                match child.label(labels::SITE_UID) {
                    Some(uid) if uid != "known" => Decision::Note(uid.to_owned()),
                    _ => Decision::Keep,
                }
            }));
        let object = |name: &str, uid: &str, noise: &str, version: u64| {
            let text = format!(
                r#"{{"metadata": {{"name": "{name}", "namespace": "a", "uid": "{name}", "resourceVersion": "{version}",
                    "labels": {{"{}": "{uid}"}}}}, "spec": {{"text": "{noise}"}}}}"#,
                labels::SITE_UID
            );
            DynamicObject::read(&text).expect("an object")
        };
        let noise = "x".repeat(64 << 10);
        for number in 0..10_000 {
            assert!(cache.apply(object(&format!("o{number}"), "nobody", &noise, number)).is_none());
        }
        assert!(cache.apply(object("mine", "known", "", 1)).is_some());
        assert_eq!(cache.len(), 1);
        // Its owner became known after it was seen: with the first write of it it is held, and then as the watch tells.
        let late = object("o7", "known", "", 7);
        cache.wrote(late.open());
        assert_eq!(cache.len(), 2);
        assert!(cache.remove(object("o7", "known", "", 8)).is_some());
        assert!(cache.remove(object("o8", "nobody", "", 10_008)).is_none(), "nobody is told of it");
        assert!(cache.apply(object("mine", "nobody", "", 2)).is_some(), "it was given away");
        assert_eq!((cache.len(), cache.get(&Key::new("a", "mine")).is_some()), (0, false));
    }
}
