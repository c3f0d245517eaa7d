//! Tests of templates of pods.

use serde_json::{Value, json};

use super::*;
use crate::{
    config::OperatorConfig,
    controllers::bench::{build::render, model::Input},
    domain::capabilities::Capabilities,
};

fn bench(templates: &Value) -> FrappeBench {
    let spec = json!({"frappeVersion": "15", "componentTemplates": templates,
                      "security": {"securityContext": {"readOnlyRootFilesystem": true}},
                      "redisConfig": {"protected": true}});
    let meta = json!({"name": "prod", "namespace": "default", "uid": "u"});
    let whole = json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "metadata": meta, "spec": spec,
                       "status": {"phase": "Ready", "redisProtected": true}});
    serde_json::from_value(whole).expect("a bench")
}

/// The pods of the bench's workloads and Jobs, by name.
fn pods(templates: &Value) -> BTreeMap<String, PodTemplateSpec> {
    let (bench, config) = (bench(templates), OperatorConfig::default());
    let rendered = render(&Input::of(&bench, &config, Capabilities::default()));
    let of = |it: &crate::domain::object::Desired| {
        let template = it.body["spec"]["template"].clone();
        template.is_object().then(|| (it.key.name.clone(), serde_json::from_value(template).expect("a template")))
    };
    rendered.all().filter_map(of).collect()
}

fn spec(pods: &PodTemplateSpec) -> &PodSpec {
    pods.spec.as_ref().expect("a spec")
}

fn ours(pods: &PodTemplateSpec) -> impl Iterator<Item = &Container> {
    let ended = |it: &&Container| it.restart_policy.is_none();
    spec(pods).init_containers.iter().flatten().filter(ended).chain(&spec(pods).containers)
}

#[test]
fn every_name_that_the_operator_uses_is_refused_to_users() {
    for (name, pods) in pods(&json!({})) {
        for volume in spec(&pods).volumes.iter().flatten() {
            assert!(is_ours(&volume.name), "{name}: volume {}", volume.name);
        }
        for container in ours(&pods) {
            assert!(is_container(&container.name), "{name}: container {}", container.name);
            for mount in container.volume_mounts.iter().flatten() {
                assert!(is_covered(&mount.mount_path), "{name}: {}", mount.mount_path);
                assert!(is_ours(&mount.name), "{name}: mount {}", mount.name);
            }
            for variable in container.env.iter().flatten() {
                assert!(is_variable(variable), "{name}: {}", variable.name);
            }
        }
        let metadata = pods.metadata.expect("metadata");
        for key in metadata.labels.iter().chain(&metadata.annotations).flatten().map(|it| it.0) {
            assert!(labels::is_own(key), "{name}: {key}");
        }
    }
}

#[test]
fn a_template_of_all_reaches_every_pod_and_no_other_field_of_it() {
    let plain = pods(&json!({}));
    let all = pods(&json!({"all": {
        "labels": {"team": "a"}, "annotations": {"note": "b"}, "nodeSelector": {"pool": "frappe"},
        "tolerations": [{"key": "frappe", "operator": "Exists"}], "priorityClassName": "high",
        "runtimeClassName": "gvisor", "serviceAccountName": "web", "imagePullPolicy": "Never",
        "env": [{"name": "HTTP_PROXY", "value": "http://proxy"}], "envFrom": [{"configMapRef": {"name": "proxy"}}],
        "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "volumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/private-ca"}],
    }}));
    assert_eq!(plain.keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>());
    for (name, pods) in &all {
        let (before, now) = (&plain[name], spec(pods));
        let metadata = pods.metadata.clone().expect("metadata");
        assert_eq!(metadata.labels.expect("labels")["team"], "a", "{name}");
        assert_eq!(metadata.annotations.expect("annotations")["note"], "b", "{name}");
        assert_eq!(now.node_selector.as_ref().expect("a selector")["pool"], "frappe");
        assert_eq!(now.tolerations.as_ref().map(Vec::len), Some(1));
        let names = [&now.priority_class_name, &now.runtime_class_name, &now.service_account_name];
        assert_eq!(names.map(|it| it.as_deref().unwrap_or_default()), ["high", "gvisor", "web"], "{name}");
        assert_eq!(now.automount_service_account_token, Some(false));
        assert_eq!(now.containers.len(), spec(before).containers.len());
        for container in ours(pods) {
            assert!(container.env.iter().flatten().any(|it| it.name == "HTTP_PROXY"), "{name}");
            assert_eq!(container.env_from.as_ref().map(Vec::len), Some(1));
            assert!(container.volume_mounts.iter().flatten().any(|it| it.name == "ca"), "{name}");
            assert_eq!(container.image_pull_policy.as_deref(), Some("Never"), "{name}");
        }
    }
}

#[test]
fn the_template_of_a_component_is_over_that_of_all() {
    let pods = pods(&json!({
        "all": {"nodeSelector": {"pool": "frappe", "disk": "any"}, "priorityClassName": "low",
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
        "gunicorn": {"nodeSelector": {"pool": "web"}, "priorityClassName": "high", "env": [{"name": "A", "value": "2"}]},
    }));
    let gunicorn = spec(&pods["prod-gunicorn"]);
    let selector = gunicorn.node_selector.clone().expect("a selector");
    assert_eq!((selector["pool"].as_str(), selector["disk"].as_str()), ("web", "any"));
    assert_eq!(gunicorn.priority_class_name.as_deref(), Some("high"));
    let value = |name: &str| {
        let found = gunicorn.containers[0].env.iter().flatten().find(|it| it.name == name);
        found.and_then(|it| it.value.clone()).unwrap_or_default()
    };
    assert_eq!((value("A"), value("B")), ("2".to_owned(), "1".to_owned()));
    assert_eq!(spec(&pods["prod-nginx"]).priority_class_name.as_deref(), Some("low"));
}

#[test]
fn containers_of_a_template_run_first_and_sidecars_do_not_keep_a_job_from_finishing() {
    let pods = pods(&json!({"jobs": {
        "volumes": [{"name": "socket", "emptyDir": {}}],
        "initContainers": [{"name": "ready", "image": "busybox"}],
        "sidecars": [{"name": "proxy", "image": "cloud-sql-proxy",
                      "volumeMounts": [{"name": "socket", "mountPath": "/socket"}, {"name": "sites", "mountPath": "/sites"},
                                       {"name": "runner", "mountPath": "/runner"}]}],
    }}));
    let job = spec(&pods["prod-configure"]);
    let first = job.init_containers.clone().expect("init containers");
    assert_eq!(first.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["proxy", "ready"]);
    assert_eq!(first[0].restart_policy.as_deref(), Some("Always"));
    assert_eq!(first[0].security_context, Some(without_privileges()));
    let mounts: Vec<_> = first[0].volume_mounts.iter().flatten().map(|it| it.name.as_str()).collect();
    assert_eq!(mounts, ["socket", "sites"], "not the volumes with the operator's program or Secrets");
    assert_eq!(spec(&pods["prod-gunicorn"]).init_containers, None);
}

#[test]
fn one_node_stays_required_and_a_spread_replaces_that_of_its_topology() {
    let rule = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}]}});
    let wanted: Affinity = serde_json::from_value(rule).expect("an affinity");
    let ours = beside_required(Some(wanted.clone()), wanted.clone());
    let terms = ours.pod_affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution);
    assert_eq!(terms.map(|it| it.len()), Some(2));
    let zone = "topology.kubernetes.io/zone";
    let pods = pods(&json!({"gunicorn": {"topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": zone, "whenUnsatisfiable": "DoNotSchedule"}]}}));
    let constraints = spec(&pods["prod-gunicorn"]).topology_spread_constraints.clone().expect("constraints");
    assert_eq!(constraints.len(), 2);
    let found = constraints.into_iter().find(|it| it.topology_key == zone).expect("of zones");
    assert_eq!(found.when_unsatisfiable, "DoNotSchedule");
    let selected = found.label_selector.and_then(|it| it.match_labels).expect("the component's pods");
    assert_eq!(selected["component"], "gunicorn");
}

#[test]
fn contexts_are_merged_over_those_of_the_bench() {
    let pods = pods(&json!({"nginx": {"securityContext": {"readOnlyRootFilesystem": false, "runAsUser": 101}},
                            "redis-cache": {"podSecurityContext": {"fsGroup": 7}}}));
    let nginx = &spec(&pods["prod-nginx"]).containers[0];
    let context = nginx.security_context.clone().expect("a context");
    assert_eq!((context.read_only_root_filesystem, context.run_as_user), (Some(false), Some(101)));
    assert_eq!(context.allow_privilege_escalation, Some(false));
    let redis = spec(&pods["prod-redis-cache"]).security_context.clone().expect("a context");
    assert_eq!((redis.fs_group, redis.run_as_non_root), (Some(7), Some(true)));
}

#[test]
fn what_would_break_a_pod_is_refused_with_its_place_and_remedy() {
    let refused = |template: Value| refusal(&bench(&json!({ "jobs": template }))).unwrap_or_default();
    let volumes = || json!([{"name": "ca", "configMap": {"name": "ca"}}]);
    for (template, said) in [
        (json!({"env": [{"name": "HOME", "value": "/"}]}), "componentTemplates.jobs.env: HOME is set by the operator"),
        (json!({"labels": {"app": "mine"}}), "labels: app is set by the operator"),
        (json!({"annotations": {"frappe.vyogo.tech/applied": "x"}}), "annotations: frappe.vyogo.tech/applied"),
        (json!({"volumes": [{"name": "sites", "emptyDir": {}}]}), "volumes: sites is the name of a volume"),
        (
            json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]}),
            "volumeMounts: x is not a volume of the template",
        ),
        (
            json!({"volumes": volumes(), "volumeMounts": [{"name": "ca", "mountPath": "/home/frappe"}]}),
            "volumeMounts: /home/frappe is or hides a folder",
        ),
        (
            json!({"volumes": volumes(), "volumeMounts": [{"name": "ca", "mountPath": "/run/frappe-secrets/x"}]}),
            "/run/frappe-secrets/x is or hides",
        ),
        (json!({"sidecars": [{"name": "init", "image": "a"}]}), "init is the name of a container of the operator"),
        (
            json!({"sidecars": [{"name": "a", "image": "a", "volumeMounts": [{"name": "secrets", "mountPath": "/s"}]}]}),
            "a mounts secrets, which is neither",
        ),
    ] {
        assert!(refused(template.clone()).contains(said), "{template}: {}", refused(template.clone()));
    }
    let fine = json!({"volumes": volumes(), "volumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/private-ca"}]});
    assert_eq!(refused(fine), "");
}
