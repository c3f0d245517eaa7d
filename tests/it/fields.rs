//! Fields of a bench, as far as a test needs a real API server: changes that it rejects, and a reverted edit of many fields at
//! once, which must restore every object. Effects of single fields: `src/controllers/bench/tests/leaves.rs`.

use std::collections::{BTreeMap, BTreeSet};

use frappe_crds::{FrappeBench, bench::BenchPhase};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::support::World;

const SPACE: &str = "fields";
/// Kinds of a bench's objects.
const KINDS: &str = "persistentvolumeclaims,services,deployments,statefulsets,configmaps,jobs,poddisruptionbudgets,\
                     networkpolicies,scaledobjects,triggerauthentications,servicemonitors";

/// Changes that are rejected, with the field in the message.
fn rejected() -> [(&'static str, Value); 4] {
    [
        (
            "componentReplicas",
            json!({"componentReplicas": {"nginx": 2}, "webAutoscaling": {"nginx": {"replicasFrom": "Autoscaler"}}}),
        ),
        ("componentReplicas.scheduler", json!({"componentReplicas": {"scheduler": 2}})),
        ("storageClassName", json!({"storageClassName": "other"})),
        ("storageAccessMode", json!({"storageAccessMode": "ReadWriteOnce"})),
    ]
}

/// Specs that each change many fields of the base at once.
fn changes() -> [Value; 3] {
    let cpu = |count: &str| json!({"requests": {"cpu": count}, "limits": {"cpu": count}});
    let named = ["gunicorn", "nginx", "scheduler", "socketio", "worker-default", "workerLong", "workerShort"];
    let resources: BTreeMap<&str, Value> = named.into_iter().map(|name| (name, cpu("3"))).collect();
    let scaling = json!({"minReplicas": 2, "maxReplicas": 7, "targetQueueLength": 9, "cooldownPeriod": 900, "pollingInterval": 60});
    let fixed = json!({"enabled": false, "staticReplicas": 3});
    let namespaces = |name: &str| json!({"matchLabels": {"name": name}});
    [
        json!({
            "frappeVersion": "16", "storageDeletionPolicy": "Delete", "componentResources": resources,
            "imageConfig": {"repository": "example.com/erpnext", "tag": "v16.1", "pullPolicy": "Always", "pullSecrets": [{"name": "registry"}]},
            "componentReplicas": {"gunicorn": 2, "socketio": 2}, "webAutoscaling": {"nginx": {"replicasFrom": "Autoscaler"}},
            "redisConfig": {"image": "example.com/redis:8", "maxMemory": "1Gi", "resources": cpu("1")},
            "web": {"gunicornWorkers": 3, "gunicornThreads": 8, "requestTimeoutSeconds": 300, "maxBodySize": "1g", "trustedProxy": "10.0.0.0/8"},
            "networkPolicy": {
                "ingressNamespaceSelector": namespaces("ingress-nginx"), "databaseNamespaceSelector": namespaces("mariadb-operator"),
                "ingress": [{"ports": [{"port": 9000}]}], "egress": [{"ports": [{"port": 587}]}],
            },
            "monitoring": {"path": "/measures", "intervalSeconds": 60},
            "security": {
                "podSecurityContext": {"runAsUser": 1001, "supplementalGroups": [7]},
                "securityContext": {"readOnlyRootFilesystem": true},
            },
            "workerAutoscaling": {"default": scaling, "long": scaling, "short": scaling},
            "componentTemplates": templates(),
        }),
        json!({
            "networkPolicy": {"enabled": false}, "monitoring": {"enabled": false}, "gitConfig": {"enabled": false},
            "workerAutoscaling": {"default": fixed, "long": fixed, "short": fixed},
            "redisConfig": {"connectionSecretRef": {"name": "redis"}},
        }),
        json!({
            "apps": [{"name": "custom-app", "source": "git", "git": {"repository": "https://example.com/a", "branch": "b"}}],
            "redisConfig": {"passwordSecretRef": {"name": "redis"}, "cache": {"memory": "2Gi"}},
        }),
    ]
}

/// Templates of pods with each kind of field.
fn templates() -> Value {
    let mount = |path: &str| json!([{"name": "ca", "mountPath": path}]);
    let security = json!({"runAsNonRoot": true, "runAsUser": 7});
    json!({
        "all": {
            "labels": {"team": "a"}, "annotations": {"note": "a"}, "tolerations": [{"key": "frappe", "operator": "Exists"}],
            "serviceAccountName": "web", "env": [{"name": "HTTP_PROXY", "value": "http://proxy.example.com"}],
            "volumes": [{"name": "ca", "configMap": {"name": "ca", "optional": true}}], "volumeMounts": mount("/etc/ssl/own"),
        },
        "gunicorn": {
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "rack", "labelSelector": {"matchLabels": {"team": "a"}}}}]}},
            "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway"}],
            "initContainers": [{"name": "wait", "image": "busybox", "command": ["true"], "volumeMounts": mount("/ca")}],
            "sidecars": [{"name": "proxy", "image": "envoy", "ports": [{"containerPort": 9901}], "securityContext": security}],
        },
        "jobs": {"envFrom": [{"configMapRef": {"name": "proxy", "optional": true}}]},
        "redis-queue": {"podSecurityContext": {"supplementalGroups": [7]}},
    })
}

/// The fields of a bench's objects and status.
struct Seen(BTreeMap<String, String>);

impl Seen {
    fn of(world: &World, bench: &FrappeBench) -> Self {
        let listed = world.kubectl(&["get", KINDS, "-n", SPACE, "-o", "json"]);
        let list: Value = serde_json::from_str(&listed).unwrap();
        let mut fields = BTreeMap::new();
        for item in list["items"].as_array().unwrap() {
            let name = format!("{} {}", item["kind"].as_str().unwrap(), item["metadata"]["name"].as_str().unwrap());
            // Written by Kubernetes' own controllers.
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
                    // Reported by KEDA, or changed by a minute without a report: not the effect of a field.
                    for it in value.as_array().unwrap().iter().filter(|it| it["type"] != "WorkersAutoscaled") {
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

/// Adds the leaves of a value, by path.
pub(crate) fn flatten(value: &Value, path: &str, fields: &mut BTreeMap<String, String>) {
    // Set by Kubernetes when it creates or binds an object: they identify that object.
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
    /// Replaces the spec, or checks by a dry run whether it would be accepted; fails with the API server's message.
    async fn set(&self, spec: &Value, dry_run: bool) -> Result<(), String> {
        let mut whole = self.base.clone();
        json_patch::merge(&mut whole, spec);
        let patch = Patch::Json::<()>(
            serde_json::from_value(json!([{"op": "replace", "path": "/spec", "value": whole}])).unwrap(),
        );
        let parameters = PatchParams { dry_run, ..PatchParams::default() };
        self.benches.patch("bench", &parameters, &patch).await.map(drop).map_err(|it| it.to_string())
    }

    /// Waits until the operator has finished, and reads the fields.
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
        let status = self.benches.get("bench").await.unwrap().status;
        panic!("not settled: {what}: {status:#?}\n{}", self.world.operator.log_tail());
    }
}

/// a rejection names the field, and a reverted edit of many fields at once restores every object exactly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reverted_edit_of_a_bench_restores_every_object() {
    let world = World::start("fields").await;
    world.cluster.apply(include_str!("../../loadtest/controlplane/optional/keda.yaml")).unwrap();
    let on = json!({"enabled": true});
    let base = json!({
        "frappeVersion": "15", "apps": [{"name": "erpnext", "source": "image"}], "networkPolicy": on, "monitoring": on, "gitConfig": on,
        "workerAutoscaling": {"default": on, "short": on, "long": on},
    });
    let ground = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web", "namespace": SPACE}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis", "namespace": SPACE}, "stringData": {"password": "p"}},
        {"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "metadata": {"name": "bench", "namespace": SPACE}, "spec": base},
    ]});
    world.cluster.apply(&ground.to_string()).unwrap();
    let report = Report { world: &world, benches: Api::namespaced(world.client.clone(), SPACE), base };
    let before = report.settled("the base").await;
    for (field, spec) in rejected() {
        let message = report.set(&spec, true).await.expect_err(field);
        assert!(message.contains(field), "{field}: {message}");
    }
    for (number, spec) in changes().iter().enumerate() {
        report.set(spec, true).await.unwrap();
        report.set(spec, false).await.unwrap();
        let changed = report.settled(&format!("change {number}")).await.against(&before);
        assert!(changed.len() > 20, "{changed:#?}");
        report.set(&json!({}), false).await.unwrap();
        let mut left = report.settled(&format!("change {number} reverted")).await.against(&before);
        // KEDA takes over the current number of workers.
        left.retain(|it| !(it.contains("worker-") && it.ends_with("spec.replicas")));
        // The Job of a rollout is deleted an hour after it.
        left.retain(|it| !it.starts_with("Job bench-hold") && !it.starts_with("status: heldRevision"));
        assert!(left.is_empty(), "the revert of change {number} left {left:#?}");
    }
}
