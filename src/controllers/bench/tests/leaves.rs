//! every leaf of a bench's spec has an effect, and a reverted edit restores every object. The effects are in the snapshot.

use std::collections::BTreeSet;

use frappe_crds::common::AppCode;
use kube::CustomResourceExt;

use super::{super::model::Class, *};
use crate::controllers::{
    job::Inspection,
    leaves::{Picture, brief, leaves_of},
};

/// Fields with Kubernetes' own types, which are compared as a whole.
const WHOLE: [&str; 18] = [
    "podSecurityContext",
    "securityContext",
    "ingressNamespaceSelector",
    "databaseNamespaceSelector",
    "selector",
    "ingress",
    "egress",
    "requests",
    "limits",
    "tolerations",
    "affinity",
    "topologySpreadConstraints",
    "env",
    "envFrom",
    "volumes",
    "volumeMounts",
    "initContainers",
    "sidecars",
];

/// Where the effect of a leaf is tested.
#[derive(Clone, Copy)]
enum Effect {
    /// In the bench's objects or its status: the snapshot contains the changes.
    Bench,
    /// The API server rejects the change: tested by `tests/it/fields.rs`.
    Refused,
    /// It affects sites, not the bench's objects: tested there.
    Elsewhere(&'static str),
}
use Effect::{Bench, Elsewhere, Refused};

/// Tests of effects on sites.
const SITES: Effect = Elsewhere("tests of sites: leaves.rs, tests/it/bench_defaults.rs");
const UPDATES: Effect = Elsewhere("tests of sites: update.rs");
/// A Job that has run is not run again for its resources.
const JOBS: Effect = Elsewhere("tests.rs: every_setting_is_applied_to_its_object");
const PERMISSIONS: Effect = Elsewhere("tests/it/permissions.rs");

/// A leaf, its value over the base, and where its effect is tested.
type Row = (&'static str, Value, Effect);

/// An existing Redis, and how KEDA connects to it.
fn queue_connection(connection: Value) -> Value {
    json!({"redisConfig": {"connectionSecretRef": {"name": "redis"}, "queueConnection": connection}})
}

/// Image, components and Redis.
#[rustfmt::skip]
fn of_components() -> Vec<Row> {
    vec![
        ("commonSiteConfig", json!({"commonSiteConfig": {"server_script_enabled": 1}}), Bench),
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
        ("redisConfig.protected", json!({"redisConfig": {"protected": true}}), Elsewhere("tests/it/redis.rs: a bench that is made now is protected")),
        ("redisConfig.connectionSecretRef.name", json!({"redisConfig": {"connectionSecretRef": {"name": "redis"}}}), Bench),
        ("redisConfig.queueConnection.tls", queue_connection(json!({"tls": true})), Bench),
        ("redisConfig.queueConnection.databaseIndex", queue_connection(json!({"databaseIndex": 2})), Bench),
        ("redisConfig.queueConnection.usernameKey", queue_connection(json!({"usernameKey": "user"})), Bench),
        ("redisConfig.connectionSecretRef.namespace", json!({"redisConfig": {"connectionSecretRef": {"name": "redis", "namespace": "other"}}}), Bench),
    ]
}

/// All other leaves of the bench's objects.
#[rustfmt::skip]
fn of_the_bench() -> Vec<Row> {
    vec![
        ("storageClassName", json!({"storageClassName": "other"}), Refused),
        ("storageSize", json!({"storageSize": "20Gi"}), Bench),
        ("storageAccessMode", json!({"storageAccessMode": "ReadWriteOnce"}), Refused),
        ("storageDeletionPolicy", json!({"storageDeletionPolicy": "Delete"}), Bench),
        ("webAutoscaling.gunicorn.replicasFrom", json!({"webAutoscaling": {"gunicorn": {"replicasFrom": "Autoscaler"}}}), Bench),
        ("webAutoscaling.nginx.replicasFrom", json!({"webAutoscaling": {"nginx": {"replicasFrom": "Autoscaler"}}}), Bench),
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

/// Leaves that affect sites.
#[rustfmt::skip]
fn of_sites() -> Vec<Row> {
    vec![
        ("siteReconcileConcurrency", json!({"siteReconcileConcurrency": 50}), Elsewhere("sharding/src/lanes: at most so many at once")),
        ("siteJobConcurrency", json!({"siteJobConcurrency": 5}), Elsewhere("tests/model/slots.rs")),
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
        ("updateStrategy.type", json!({"updateStrategy": {"type": "InPlace"}}), UPDATES),
        ("updateStrategy.paused", json!({"updateStrategy": {"paused": true}}), UPDATES),
        ("updateStrategy.progressDeadline", json!({"updateStrategy": {"progressDeadline": "2h"}}), UPDATES),
        ("updateStrategy.drainTimeout", json!({"updateStrategy": {"drainTimeout": "1m"}}), UPDATES),
        ("updateStrategy.skipFailingPatches", json!({"updateStrategy": {"skipFailingPatches": true}}), UPDATES),
        ("updateStrategy.safetyBackup.mode", json!({"updateStrategy": {"safetyBackup": {"mode": "None"}}}), UPDATES),
        ("updateStrategy.canary.selector", json!({"updateStrategy": {"canary": {"selector": {"matchLabels": {"tier": "internal"}}}}}), UPDATES),
        ("updateStrategy.canary.sites", json!({"updateStrategy": {"canary": {"sites": 2}}}), UPDATES),
        ("updateStrategy.canary.minSuccessTime", json!({"updateStrategy": {"canary": {"minSuccessTime": "1h"}}}), UPDATES),
        ("updateStrategy.canary.promotion", json!({"updateStrategy": {"canary": {"promotion": "Manual"}}}), UPDATES),
        ("updateStrategy.waves", json!({"updateStrategy": {"waves": ["5%"]}}), UPDATES),
        ("updateStrategy.minSuccessTime", json!({"updateStrategy": {"minSuccessTime": "1h"}}), UPDATES),
        ("updateStrategy.maxFailures", json!({"updateStrategy": {"maxFailures": 2}}), UPDATES),
        ("updateStrategy.maxConcurrency", json!({"updateStrategy": {"maxConcurrency": 2}}), Elsewhere("tests/model/revisions.rs")),
        ("updateStrategy.windows[].schedule", json!({"updateStrategy": {"windows": [{"schedule": "0 1 * * *", "duration": "1h"}]}}), UPDATES),
        ("updateStrategy.windows[].duration", json!({"updateStrategy": {"windows": [{"schedule": "0 1 * * *", "duration": "2h"}]}}), UPDATES),
        ("updateStrategy.windows[].timeZone", json!({"updateStrategy": {"windows": [{"schedule": "0 1 * * *", "duration": "2h", "timeZone": "Europe/Berlin"}]}}), UPDATES),
        ("updateStrategy.scaleDownDelay", json!({"updateStrategy": {"scaleDownDelay": "1h"}}), UPDATES),
        ("updateStrategy.safetyBackup.keepFor", json!({"updateStrategy": {"safetyBackup": {"keepFor": "1h"}}}), UPDATES),
        ("allowedSites.siteConfigKeys", json!({"allowedSites": {"siteConfigKeys": ["developer_mode"]}}), PERMISSIONS),
        ("allowedSites.databases.dedicated", json!({"allowedSites": {"databases": {"dedicated": true}}}), PERMISSIONS),
        ("allowedSites.databases.maxStorageSize", json!({"allowedSites": {"databases": {"maxStorageSize": "5Gi"}}}), PERMISSIONS),
        ("allowedSites.databases.maxResources", json!({"allowedSites": {"databases": {"maxResources": {"cpu": "1"}}}}), PERMISSIONS),
        ("allowedSites.databases.images", json!({"allowedSites": {"databases": {"images": ["mariadb:11"]}}}), PERMISSIONS),
        ("allowedSites.databases.servers", json!({"allowedSites": {"databases": {"servers": ["second"]}}}), PERMISSIONS),
        ("allowedSites.routes.ingressClasses", json!({"allowedSites": {"routes": {"ingressClasses": ["nginx"]}}}), PERMISSIONS),
        ("allowedSites.routes.issuers", json!({"allowedSites": {"routes": {"issuers": ["letsencrypt"]}}}), PERMISSIONS),
        ("allowedSites.routes.gateways", json!({"allowedSites": {"routes": {"gateways": ["gateways/public"]}}}), PERMISSIONS),
        ("allowedSites.backups.persistentVolumeClaims", json!({"allowedSites": {"backups": {"persistentVolumeClaims": ["a"]}}}), PERMISSIONS),
        ("allowedSites.backups.serviceAccounts", json!({"allowedSites": {"backups": {"serviceAccounts": ["a"]}}}), PERMISSIONS),
        ("allowedSites.backups.stagingStorageClasses", json!({"allowedSites": {"backups": {"stagingStorageClasses": ["a"]}}}), PERMISSIONS),
        ("allowedSites.namespaces.from", json!({"allowedSites": {"namespaces": {"from": "All"}}}), SITES),
        ("allowedSites.namespaces.selector", json!({"allowedSites": {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}}}), SITES),
    ]
}

/// Fields of a template of pods.
#[rustfmt::skip]
fn of_templates() -> [(&'static str, Value); 18] {
    [
        ("labels", json!({"team": "a"})),
        ("annotations", json!({"note": "a"})),
        ("nodeSelector", json!({"pool": "web"})),
        ("tolerations", json!([{"key": "web", "operator": "Exists"}])),
        ("affinity", json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {"topologyKey": "rack"}}]}})),
        ("topologySpreadConstraints", json!([{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}])),
        ("priorityClassName", json!("high")),
        ("runtimeClassName", json!("gvisor")),
        ("serviceAccountName", json!("web")),
        ("imagePullPolicy", json!("Always")),
        ("podSecurityContext", json!({"fsGroup": 7})),
        ("securityContext", json!({"readOnlyRootFilesystem": true})),
        ("env", json!([{"name": "HTTP_PROXY", "value": "http://proxy.example.com"}])),
        ("envFrom", json!([{"configMapRef": {"name": "proxy"}}])),
        ("volumes", json!([{"name": "ca", "configMap": {"name": "ca"}}])),
        ("volumeMounts", json!([{"name": "absent", "mountPath": "/ca"}])),
        ("initContainers", json!([{"name": "wait", "image": "busybox"}])),
        ("sidecars", json!([{"name": "proxy", "image": "envoy"}])),
    ]
}

/// Values of all leaves, over the base.
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
    for field in ["requests", "limits"] {
        let spec = json!({"componentResources": {"jobs": {field: {"cpu": "3"}}}});
        table.insert(format!("componentResources.jobs.{field}"), (spec, JOBS));
    }
    for (field, value) in of_templates() {
        let spec = json!({"componentTemplates": {"gunicorn": {field: value}}});
        table.insert(format!("componentTemplates.{field}"), (spec, Bench));
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

/// The bench whose leaves are changed, with each optional part, so that a leaf's effect within the part is visible.
fn base() -> Value {
    let on = json!({"enabled": true});
    json!({
        "frappeVersion": "15", "apps": [{"name": "erpnext", "source": "image"}], "networkPolicy": on, "monitoring": on,
        "gitConfig": on, "workerAutoscaling": {"default": on, "short": on, "long": on},
        "fpmConfig": {"repositories": [{"name": "a", "url": "https://a.example.com"}, {"name": "b", "url": "https://b.example.com"}]},
    })
}

fn picture(world: &Observed) -> Picture {
    let mut picture = Picture::default();
    for ((kind, name), object) in &world.live {
        let name = format!("{kind:?} {name}");
        let mut body = serde_json::to_value(object.as_ref()).expect("JSON");
        if let Some(request) =
            body.pointer_mut("/spec/template/spec/containers/0/args/1").filter(|_| *kind == Kind::Job)
        {
            *request = serde_json::from_str(request.as_str().expect("a request")).expect("JSON");
        }
        picture.0.insert(name.clone(), String::new());
        for part in ["spec", "data"] {
            picture.add(&format!("{name}: {part}"), &body[part]);
        }
        for part in ["labels", "ownerReferences", "annotations"] {
            picture.add(&format!("{name}: {part}"), &body["metadata"][part]);
        }
    }
    let status = serde_json::to_value(&world.bench.status).expect("JSON");
    picture.add_status(&status, &["observedGeneration", "components", "heldRevision"]);
    picture
}

/// Sets the bench's spec, and simulates the operator and the cluster.
fn set(world: &mut Observed, change: &Value) -> Picture {
    let mut spec = base();
    json_patch::merge(&mut spec, change);
    let former = &world.bench;
    let mut changed = bench(spec);
    (changed.metadata, changed.status) = (former.metadata.clone(), former.status.clone());
    changed.metadata.generation = former.metadata.generation.map(|it| it + 1);
    let redis = changed.spec.redis_config.clone().unwrap_or_default();
    let named = redis.password_secret_ref.is_some() || redis.connection_secret_ref.is_some();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {
        "name": "redis", "namespace": "default", "uid": "s", "resourceVersion": "1", "labels": {labels::WATCHED: "true"},
    }});
    world.redis_secret = named.then(|| Arc::new(serde_json::from_value(secret).expect("a Secret")));
    world.redis_secret_version = named.then(|| "1".to_owned());
    world.bench = Arc::new(changed);
    let rendered = build::render(&world.input());
    // A StatefulSet's controller creates its claim, once.
    for claim in &rendered.claims {
        let key = (Kind::PersistentVolumeClaim, claim.key.name.clone());
        world.live.entry(key).or_insert_with(|| live(claim));
        world.classes.insert(claim.key.name.clone(), Class::Found { grows: true });
    }
    let retired = rendered.retired(&world.input());
    let there = |(kind, key): (Kind, Key)| Some((kind, world.live.get(&(kind, key.name))?.clone()));
    world.retired = retired.into_iter().filter_map(there).collect();
    converge(world);
    // The Job of a rollout is deleted an hour after it.
    world.live.remove(&(Kind::Job, "prod-hold".to_owned()));
    picture(world)
}

#[test]
fn every_leaf_has_an_effect_and_its_revert_restores_everything() {
    let table = changes();
    let known: BTreeSet<String> = table.keys().cloned().collect();
    let definition = serde_json::to_value(FrappeBench::crd()).expect("JSON");
    assert_eq!(known, leaves_of(&definition, &WHOLE), "a leaf of the spec has no row here, or a row has no leaf");
    let mut world = observed(base());
    world.capabilities = Capabilities { keda: true, service_monitors: true, ..Capabilities::default() };
    world.classes = [("prod-sites".to_owned(), Class::Found { grows: true })].into();
    let names = ["erpnext", "frappe", "hrms"].map(str::to_owned);
    let code = names.clone().map(|name| AppCode { name, version: None, schema: Some("0f".to_owned()) });
    world.inspection = Some(Inspection { apps: names.into(), code: code.into(), digest: None });
    let mut before = set(&mut world, &json!({}));
    assert_eq!(ready(&world).0, BenchPhase::Ready);
    let (mut shown, mut wrong) = (BTreeMap::new(), Vec::new());
    for (leaf, (spec, effect)) in &table {
        match effect {
            Refused => drop(shown.insert(leaf, vec!["refused".to_owned()])),
            Elsewhere(test) => drop(shown.insert(leaf, vec![format!("see {test}")])),
            Bench => {
                let changed = set(&mut world, spec).against(&before);
                if changed.is_empty() {
                    wrong.push(format!("{leaf} has no effect"));
                }
                let without = |it: &&String| !it.contains(labels::APPLIED_HASH);
                shown.insert(leaf, brief(&changed.iter().filter(without).cloned().collect::<Vec<_>>()));
            }
        }
        let after = set(&mut world, &json!({}));
        // An expanded volume keeps its size.
        let grows = leaf.ends_with("torageSize");
        let left: Vec<String> = after.against(&before).into_iter().filter(|_| !grows).collect();
        if grows {
            before = after;
        }
        if !left.is_empty() {
            wrong.push(format!("{leaf}: its revert left {left:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    insta::assert_yaml_snapshot!("effects", shown);
}

/// A stage that waits for the previous one keeps its mounts with their volumes, and its security context as a whole.
#[test]
fn volumes_that_a_waiting_stage_mounts_exist() {
    let mut world = observed(base());
    let read_only = json!({"security": {
        "podSecurityContext": {"runAsNonRoot": false}, "securityContext": {"readOnlyRootFilesystem": true, "runAsUser": 0},
    }});
    set(&mut world, &read_only);
    let mut spec = base();
    json_patch::merge(&mut spec, &json!({"imageConfig": {"tag": "v15.2"}}));
    let former = world.bench.clone();
    let mut changed = bench(spec);
    (changed.metadata, changed.status) = (former.metadata.clone(), former.status.clone());
    world.bench = Arc::new(changed);
    let mut waiting = 0;
    for _ in 0..3 {
        let next = plan(&world);
        for step in &next.steps {
            let Step::Ensure(desired) = step else { continue };
            if desired.kind != Kind::Deployment {
                continue;
            }
            let pod = &desired.body["spec"]["template"]["spec"];
            let names = |list: &Value| -> BTreeSet<String> {
                list.as_array().into_iter().flatten().map(|it| it["name"].to_string()).collect()
            };
            let mounted = names(&pod["containers"][0]["volumeMounts"]);
            let missing: Vec<_> = mounted.difference(&names(&pod["volumes"])).cloned().collect();
            assert!(missing.is_empty(), "{}: {missing:?} has no volume", desired.key.name);
            let image = pod["containers"][0]["image"].as_str().unwrap_or_default();
            if !image.ends_with(":v15.2") {
                assert_eq!(pod["securityContext"]["runAsNonRoot"], false, "{}", desired.key.name);
                assert_eq!(pod["containers"][0]["securityContext"]["runAsUser"], 0, "{}", desired.key.name);
                waiting += 1;
            }
        }
        apply(&mut world, &next);
    }
    assert!(waiting > 0, "no stage waited");
}
