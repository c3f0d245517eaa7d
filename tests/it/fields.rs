//! The field-effect report: every leaf of a bench's spec is changed on a real API server, what it changed is written down,
//! and its revert must restore every object exactly.

use std::collections::{BTreeMap, BTreeSet};

use frappe_crds::{FrappeBench, bench::BenchPhase};
use kube::{
    Api, CustomResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::support::World;

const SPACE: &str = "fields";
/// Kinds that a bench has.
const KINDS: &str = "persistentvolumeclaims,services,deployments,statefulsets,configmaps,jobs,poddisruptionbudgets,\
                     networkpolicies,scaledobjects,triggerauthentications,servicemonitors";
/// Objects of Kubernetes' own that are judged whole.
const WHOLE: [&str; 9] = [
    "podSecurityContext",
    "securityContext",
    "ingressNamespaceSelector",
    "databaseNamespaceSelector",
    "selector",
    "ingress",
    "egress",
    "requests",
    "limits",
];

/// Every leaf of a definition's spec, by its path; `[]` stands for the items of a list. Fields named in `whole` are leaves.
pub(crate) fn leaves_of(definition: &Value, whole: &[&str]) -> BTreeSet<String> {
    fn walk(schema: &Value, path: &str, whole: &[&str], leaves: &mut BTreeSet<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let here = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let items = &field["items"];
            if whole.contains(&name.as_str()) || (field["properties"].is_null() && items["properties"].is_null()) {
                leaves.insert(here);
            } else if items["properties"].is_object() {
                walk(items, &format!("{here}[]"), whole, leaves);
            } else {
                walk(field, &here, whole, leaves);
            }
        }
    }
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut found = BTreeSet::new();
    walk(schema, "", whole, &mut found);
    found
}

/// Where the effect of a leaf is to be seen.
#[derive(Clone, Copy)]
enum Effect {
    /// In the bench's objects or its status.
    Bench,
    /// The API server refuses the change.
    Refused,
    /// It governs sites, not the bench's own objects: where that is shown.
    Elsewhere(&'static str),
}
use Effect::{Bench, Elsewhere, Refused};

/// The report of what a bench says about its sites.
const SITES: Effect = Elsewhere("bench_defaults.rs");
const SAY: Effect = Elsewhere("say.rs");

/// A leaf, what it is set to over the base, and where its effect is to be seen.
type Row = (&'static str, Value, Effect);

/// Image, components and Redis.
#[rustfmt::skip]
fn of_components() -> Vec<Row> {
    vec![
        ("frappeVersion", json!({"frappeVersion": "16"}), Bench),
        ("apps[].name", json!({"apps": [{"name": "hrms", "source": "image"}, {"name": "absent", "source": "image"}]}), Bench),
        ("apps[].source", json!({"apps": [{"name": "a", "source": "fpm"}]}), Bench),
        ("apps[].org", json!({"apps": [{"name": "a", "source": "fpm", "org": "frappe"}]}), Bench),
        ("apps[].version", json!({"apps": [{"name": "a", "source": "fpm", "version": "1"}]}), Bench),
        ("apps[].git.repository", json!({"apps": [{"name": "custom-app", "source": "git", "git": {"repository": "https://example.com/a"}}]}), Bench),
        ("apps[].git.branch", json!({"apps": [{"name": "custom-app", "source": "git", "git": {"repository": "https://example.com/a", "branch": "b"}}]}), Bench),
        ("apps[].gitUrl", json!({"apps": [{"name": "custom-app", "source": "git", "gitUrl": "https://example.com/a"}]}), Bench),
        ("apps[].gitBranch", json!({"apps": [{"name": "custom-app", "source": "git", "gitUrl": "https://example.com/a", "gitBranch": "b"}]}), Bench),
        ("appsJSON", json!({"appsJSON": "[]"}), Bench),
        ("imageConfig.repository", json!({"imageConfig": {"repository": "example.com/erpnext"}}), Bench),
        ("imageConfig.tag", json!({"imageConfig": {"tag": "v15.1"}}), Bench),
        ("imageConfig.pullPolicy", json!({"imageConfig": {"pullPolicy": "Always"}}), Bench),
        ("imageConfig.pullSecrets[].name", json!({"imageConfig": {"pullSecrets": [{"name": "registry"}]}}), Bench),
        ("componentReplicas.gunicorn", json!({"componentReplicas": {"gunicorn": 2}}), Bench),
        ("componentReplicas.nginx", json!({"componentReplicas": {"nginx": 2}}), Bench),
        ("componentReplicas.socketio", json!({"componentReplicas": {"socketio": 2}}), Bench),
        ("componentReplicas.scheduler", json!({"componentReplicas": {"scheduler": 2}}), Refused),
        ("componentReplicas.workerDefault", json!({"componentReplicas": {"workerDefault": 2}}), Bench),
        ("componentReplicas.workerLong", json!({"componentReplicas": {"workerLong": 2}}), Bench),
        ("componentReplicas.workerShort", json!({"componentReplicas": {"workerShort": 2}}), Bench),
        ("redisConfig.type", json!({"redisConfig": {"type": "dragonfly"}}), Bench),
        ("redisConfig.image", json!({"redisConfig": {"image": "example.com/redis:8"}}), Bench),
        ("redisConfig.cache.memory", json!({"redisConfig": {"cache": {"memory": "2Gi"}}}), Bench),
        ("redisConfig.queue.memory", json!({"redisConfig": {"queue": {"memory": "1Gi"}}}), Bench),
        ("redisConfig.maxMemory", json!({"redisConfig": {"maxMemory": "1Gi"}}), Bench),
        ("redisConfig.resources.requests", json!({"redisConfig": {"resources": {"requests": {"cpu": "1"}}}}), Bench),
        ("redisConfig.resources.limits", json!({"redisConfig": {"resources": {"limits": {"cpu": "1"}}}}), Bench),
        ("redisConfig.storageSize", json!({"redisConfig": {"storageSize": "2Gi"}}), Bench),
        ("redisConfig.passwordSecretRef.name", json!({"redisConfig": {"passwordSecretRef": {"name": "redis"}}}), Bench),
        ("redisConfig.protected", json!({"redisConfig": {"protected": true}}), Elsewhere("redis.rs: a bench that is made now is protected")),
        ("redisConfig.connectionSecretRef.name", json!({"redisConfig": {"connectionSecretRef": {"name": "redis"}}}), Bench),
        ("redisConfig.connectionSecretRef.namespace", json!({"redisConfig": {"connectionSecretRef": {"name": "redis", "namespace": "other"}}}), Bench),
    ]
}

/// Everything else that the bench itself is made of.
#[rustfmt::skip]
fn of_the_bench() -> Vec<Row> {
    vec![
        ("storageClassName", json!({"storageClassName": "other"}), Refused),
        ("storageSize", json!({"storageSize": "20Gi"}), Bench),
        ("storageAccessMode", json!({"storageAccessMode": "ReadWriteOnce"}), Refused),
        ("storageDeletionPolicy", json!({"storageDeletionPolicy": "Delete"}), Bench),
        ("web.gunicornWorkers", json!({"web": {"gunicornWorkers": 3}}), Bench),
        ("web.gunicornThreads", json!({"web": {"gunicornThreads": 8}}), Bench),
        ("web.requestTimeoutSeconds", json!({"web": {"requestTimeoutSeconds": 300}}), Bench),
        ("web.maxBodySize", json!({"web": {"maxBodySize": "1g"}}), Bench),
        ("web.trustedProxy", json!({"web": {"trustedProxy": "10.0.0.0/8"}}), Bench),
        ("networkPolicy.enabled", json!({"networkPolicy": {"enabled": false}}), Bench),
        ("networkPolicy.ingressNamespaceSelector", json!({"networkPolicy": {"enabled": true, "ingressNamespaceSelector": {"matchLabels": {"name": "ingress-nginx"}}}}), Bench),
        ("networkPolicy.databaseNamespaceSelector", json!({"networkPolicy": {"enabled": true, "databaseNamespaceSelector": {"matchLabels": {"name": "mariadb-operator"}}}}), Bench),
        ("networkPolicy.ingress", json!({"networkPolicy": {"enabled": true, "ingress": [{"ports": [{"port": 9000}]}]}}), Bench),
        ("networkPolicy.egress", json!({"networkPolicy": {"enabled": true, "egress": [{"ports": [{"port": 587}]}]}}), Bench),
        ("monitoring.enabled", json!({"monitoring": {"enabled": false}}), Bench),
        ("monitoring.path", json!({"monitoring": {"enabled": true, "path": "/measures"}}), Bench),
        ("monitoring.intervalSeconds", json!({"monitoring": {"enabled": true, "intervalSeconds": 60}}), Bench),
        ("security.podSecurityContext", json!({"security": {"podSecurityContext": {"runAsUser": 1001, "supplementalGroups": [7]}}}), Bench),
        ("security.securityContext", json!({"security": {"securityContext": {"readOnlyRootFilesystem": true}}}), Bench),
        ("gitConfig.enabled", json!({"gitConfig": {"enabled": false}}), Bench),
        ("fpmConfig.repositories[].name", json!({"fpmConfig": {"repositories": [{"name": "mine", "url": "https://example.com"}]}}), Bench),
        ("fpmConfig.repositories[].url", json!({"fpmConfig": {"repositories": [{"name": "b", "url": "https://example.org"}]}}), Bench),
        ("fpmConfig.repositories[].priority", json!({"fpmConfig": {"repositories": [{"name": "a", "url": "https://a.example.com", "priority": 1}, {"name": "b", "url": "https://b.example.com", "priority": 2}]}}), Bench),
        ("fpmConfig.repositories[].authSecretRef.name", json!({"fpmConfig": {"repositories": [{"name": "a", "url": "https://example.com", "authSecretRef": {"name": "a"}}]}}), Bench),
        ("fpmConfig.repositories[].authSecretRef.namespace", json!({"fpmConfig": {"repositories": [{"name": "a", "url": "https://example.com", "authSecretRef": {"name": "a", "namespace": "b"}}]}}), Bench),
        ("fpmConfig.defaultRepo", json!({"fpmConfig": {"defaultRepo": "b"}}), Bench),
    ]
}

/// What governs sites.
#[rustfmt::skip]
fn of_sites() -> Vec<Row> {
    vec![
        ("siteReconcileConcurrency", json!({"siteReconcileConcurrency": 50}), Elsewhere("src/lanes: at most so many at once")),
        ("siteJobConcurrency", json!({"siteJobConcurrency": 5}), Elsewhere("budget.rs")),
        ("dbConfig.provider", json!({"dbConfig": {"provider": "postgres"}}), SITES),
        ("dbConfig.mode", json!({"dbConfig": {"mode": "dedicated"}}), SITES),
        ("dbConfig.mariadbRef.name", json!({"dbConfig": {"mariadbRef": {"name": "other"}}}), SITES),
        ("dbConfig.mariadbRef.namespace", json!({"dbConfig": {"mariadbRef": {"name": "other", "namespace": "b"}}}), SITES),
        ("dbConfig.host", json!({"dbConfig": {"host": "db.example.com"}}), SITES),
        ("dbConfig.port", json!({"dbConfig": {"port": "3307"}}), SITES),
        ("dbConfig.connectionSecretRef.name", json!({"dbConfig": {"connectionSecretRef": {"name": "a"}}}), SITES),
        ("dbConfig.connectionSecretRef.namespace", json!({"dbConfig": {"connectionSecretRef": {"name": "a", "namespace": "b"}}}), SITES),
        ("dbConfig.storageSize", json!({"dbConfig": {"storageSize": "5Gi"}}), SITES),
        ("dbConfig.resources.requests", json!({"dbConfig": {"resources": {"requests": {"cpu": "1"}}}}), SITES),
        ("dbConfig.resources.limits", json!({"dbConfig": {"resources": {"limits": {"cpu": "1"}}}}), SITES),
        ("dbConfig.image", json!({"dbConfig": {"image": "mariadb:11"}}), SITES),
        ("domainConfig.suffix", json!({"domainConfig": {"suffix": ".example.com"}}), SITES),
        ("domainConfig.autoDetect", json!({"domainConfig": {"autoDetect": false}}), SITES),
        ("domainConfig.ingressControllerRef.name", json!({"domainConfig": {"ingressControllerRef": {"name": "a"}}}), SITES),
        ("domainConfig.ingressControllerRef.namespace", json!({"domainConfig": {"ingressControllerRef": {"name": "a", "namespace": "b"}}}), SITES),
        ("domainConfig.allowedSuffixes", json!({"domainConfig": {"allowedSuffixes": [".example.com"]}}), SITES),
        ("allowedSites.siteConfigKeys", json!({"allowedSites": {"siteConfigKeys": ["developer_mode"]}}), SAY),
        ("allowedSites.databases.dedicated", json!({"allowedSites": {"databases": {"dedicated": true}}}), SAY),
        ("allowedSites.databases.maxStorageSize", json!({"allowedSites": {"databases": {"maxStorageSize": "5Gi"}}}), SAY),
        ("allowedSites.databases.maxResources", json!({"allowedSites": {"databases": {"maxResources": {"cpu": "1"}}}}), SAY),
        ("allowedSites.databases.images", json!({"allowedSites": {"databases": {"images": ["mariadb:11"]}}}), SAY),
        ("allowedSites.databases.servers", json!({"allowedSites": {"databases": {"servers": ["second"]}}}), SAY),
        ("allowedSites.routes.ingressClasses", json!({"allowedSites": {"routes": {"ingressClasses": ["nginx"]}}}), SAY),
        ("allowedSites.routes.issuers", json!({"allowedSites": {"routes": {"issuers": ["letsencrypt"]}}}), SAY),
        ("allowedSites.routes.gateways", json!({"allowedSites": {"routes": {"gateways": ["gateways/public"]}}}), SAY),
        ("allowedSites.backups.persistentVolumeClaims", json!({"allowedSites": {"backups": {"persistentVolumeClaims": ["a"]}}}), SAY),
        ("allowedSites.backups.serviceAccounts", json!({"allowedSites": {"backups": {"serviceAccounts": ["a"]}}}), SAY),
        ("allowedSites.namespaces.from", json!({"allowedSites": {"namespaces": {"from": "All"}}}), SITES),
        ("allowedSites.namespaces.selector", json!({"allowedSites": {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}}}), SITES),
    ]
}

/// What each leaf is set to, over the base.
fn changes() -> BTreeMap<String, (Value, Effect)> {
    let rows = [of_components(), of_the_bench(), of_sites()].concat();
    let mut table: BTreeMap<String, (Value, Effect)> =
        rows.into_iter().map(|(leaf, spec, effect)| (leaf.to_owned(), (spec, effect))).collect();
    for component in [
        "gunicorn",
        "nginx",
        "scheduler",
        "socketio",
        "worker-default",
        "worker-long",
        "worker-short",
        "workerDefault",
        "workerLong",
        "workerShort",
    ] {
        for field in ["requests", "limits"] {
            let spec = json!({"componentResources": {component: {field: {"cpu": "3"}}}});
            table.insert(format!("componentResources.{component}.{field}"), (spec, Bench));
        }
    }
    for queue in ["default", "long", "short"] {
        for (field, value) in [
            ("enabled", json!(false)),
            ("minReplicas", json!(2)),
            ("maxReplicas", json!(7)),
            ("targetQueueLength", json!(9)),
            ("queueLength", json!(9)),
            ("cooldownPeriod", json!(900)),
            ("pollingInterval", json!(60)),
            ("staticReplicas", json!(3)),
        ] {
            let spec = json!({"workerAutoscaling": {queue: {field: value}}});
            table.insert(format!("workerAutoscaling.{queue}.{field}"), (spec, Bench));
        }
    }
    table
}

/// What a bench's objects and its status are, field by field.
struct Seen(BTreeMap<String, String>);

impl Seen {
    fn of(world: &World, bench: &FrappeBench) -> Self {
        let listed = world.kubectl(&["get", KINDS, "-n", SPACE, "-o", "json"]);
        let list: Value = serde_json::from_str(&listed).unwrap();
        let mut fields = BTreeMap::new();
        for item in list["items"].as_array().unwrap() {
            let name = format!("{} {}", item["kind"].as_str().unwrap(), item["metadata"]["name"].as_str().unwrap());
            // What Kubernetes' own controllers write: nothing of it is ours.
            for part in ["spec", "data"] {
                flatten(&item[part], &format!("{name}: {part}"), &mut fields);
            }
            for part in ["labels", "ownerReferences"] {
                flatten(&item["metadata"][part], &format!("{name}: {part}"), &mut fields);
            }
            let annotations = &item["metadata"]["annotations"];
            for (key, value) in annotations.as_object().into_iter().flatten() {
                if key.starts_with("frappe.vyogo.tech/") {
                    fields.insert(format!("{name}: annotations.{key}"), value.to_string());
                }
            }
        }
        let status = serde_json::to_value(bench.status.clone().unwrap()).unwrap();
        for (part, value) in status.as_object().unwrap() {
            match part.as_str() {
                "observedGeneration" | "components" | "workerScaling" => {}
                "conditions" => {
                    for it in value.as_array().unwrap() {
                        let text = |field: &str| it[field].as_str().unwrap_or_default().to_owned();
                        fields.insert(format!("status: {}", text("type")), text("reason"));
                    }
                }
                _ => flatten(value, &format!("status: {part}"), &mut fields),
            }
        }
        Self(fields)
    }

    /// Fields that differ.
    fn against(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.into_iter().filter(|name| self.0.get(*name) != other.0.get(*name)).cloned().collect()
    }
}

/// What a value is made of, field by field.
pub(crate) fn flatten(value: &Value, path: &str, fields: &mut BTreeMap<String, String>) {
    // Set by Kubernetes when it makes or binds an object anew: they name that one object.
    let fresh = ["clusterIP", "clusterIPs", "volumeName", "controller-uid", "job-name"];
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(key, _)| !fresh.iter().any(|it| key.ends_with(it))) {
                flatten(value, &format!("{path}.{key}"), fields);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                let name = value["mountPath"].as_str().or(value["name"].as_str());
                let name = name.map_or(index.to_string(), ToOwned::to_owned);
                flatten(value, &format!("{path}[{name}]"), fields);
            }
        }
        Value::Null => {}
        other => drop(fields.insert(path.to_owned(), other.to_string())),
    }
}

struct Report<'a> {
    world: &'a World,
    benches: Api<FrappeBench>,
    base: Value,
}

impl Report<'_> {
    /// Replaces the spec; answers what the API server refuses.
    async fn set(&self, spec: &Value) -> Result<(), String> {
        let mut whole = self.base.clone();
        json_patch::merge(&mut whole, spec);
        let patch = Patch::Json::<()>(
            serde_json::from_value(json!([{"op": "replace", "path": "/spec", "value": whole}])).unwrap(),
        );
        self.benches.patch("bench", &PatchParams::default(), &patch).await.map(drop).map_err(|it| it.to_string())
    }

    /// Waits until the operator has done all that it can now, and looks.
    async fn settled(&self, what: &str) -> Seen {
        let mut before: Option<Vec<String>> = None;
        for _ in 0..120 {
            tokio::time::sleep(std::time::Duration::from_millis(400)).await;
            let bench = self.benches.get("bench").await.unwrap();
            let Some(status) = &bench.status else { continue };
            let passing = ["Preparing", "Starting", "Rolling", "VolumePending"];
            let reason = status.conditions.iter().find(|it| it.type_ == "Ready").map(|it| it.reason.clone());
            let done = status.phase == BenchPhase::Ready || reason.is_some_and(|it| !passing.contains(&it.as_str()));
            let seen = Seen::of(self.world, &bench);
            let now: Vec<String> = seen.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
            if done && status.observed_generation == bench.metadata.generation && before.as_ref() == Some(&now) {
                return seen;
            }
            before = Some(now);
        }
        panic!("not settled: {what}\n{}", self.world.operator.log_tail());
    }
}

/// R-14: no leaf without an effect, and a reverted edit restores every object exactly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_leaf_has_an_effect_and_its_revert_restores_everything() {
    let table = changes();
    let known: BTreeSet<String> = table.keys().cloned().collect();
    assert_eq!(
        known,
        leaves_of(&serde_json::to_value(FrappeBench::crd()).unwrap(), &WHOLE),
        "a leaf of the spec has no row here, or a row has no leaf"
    );
    let world = World::start("fields").await;
    world.cluster.apply(include_str!("../../loadtest/controlplane/optional/keda.yaml")).unwrap();
    // What a leaf changes within a part that is there, not what the part brings.
    let on = json!({"enabled": true});
    let base = json!({
        "frappeVersion": "15", "apps": [{"name": "erpnext", "source": "image"}], "networkPolicy": on, "monitoring": on, "gitConfig": on,
        "workerAutoscaling": {"default": on, "short": on, "long": on},
        "fpmConfig": {"repositories": [{"name": "a", "url": "https://a.example.com"}, {"name": "b", "url": "https://b.example.com"}]},
    });
    let ground = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis", "namespace": SPACE}, "stringData": {"password": "p"}},
        {"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "metadata": {"name": "bench", "namespace": SPACE}, "spec": base},
    ]});
    world.cluster.apply(&ground.to_string()).unwrap();
    world.kubectl(&["patch", "storageclass", "kwok-volume", "-p", r#"{"allowVolumeExpansion": true}"#]);
    let report = Report { world: &world, benches: Api::namespaced(world.client.clone(), SPACE), base };
    let mut before = report.settled("the base").await;
    let mut lines = Vec::new();
    let mut wrong = Vec::new();
    for (leaf, (spec, effect)) in &table {
        let refused = report.set(spec).await;
        let line = match (effect, refused) {
            (Refused, Err(message)) => {
                format!("refused: {}", message.split("Invalid value: ").nth(1).unwrap_or(&message))
            }
            (Elsewhere(test), Ok(())) => format!("shown in {test}"),
            (Bench, Ok(())) => {
                let changed = report.settled(leaf).await.against(&before);
                let shown = changed.iter().filter(|it| !it.contains("frappe.vyogo.tech/applied")).take(3);
                let shown: Vec<_> = shown.cloned().collect();
                if changed.is_empty() {
                    wrong.push(format!("{leaf} has no effect"));
                }
                let more = changed.len().saturating_sub(shown.len());
                format!("{}{}", shown.join("; "), if more > 0 { format!(" and {more} more") } else { String::new() })
            }
            (_, other) => {
                wrong.push(format!("{leaf}: {other:?}"));
                continue;
            }
        };
        report.set(&json!({})).await.unwrap();
        let after = report.settled(&format!("{leaf} reverted")).await;
        let mut left = after.against(&before);
        // A volume that grew stays as large.
        if leaf.ends_with("torageSize") {
            left.retain(|it| !it.contains("resources.requests.storage") && !it.starts_with("status: VolumesSized"));
            before = after;
        }
        left.retain(|it| !it.contains("frappe.vyogo.tech/applied") || !leaf.ends_with("torageSize"));
        if !left.is_empty() {
            wrong.push(format!("{leaf}: its revert left {left:?}"));
        }
        println!("{leaf}: {line}");
        lines.push(format!("{leaf}: {line}"));
    }
    println!("{} leaves", lines.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
