//! Each fault that `check` names, one at a time.

use serde_json::json;

use super::*;
use crate::fleet_report::MemberReport;

fn bench(name: &str, gunicorn: i32) -> FrappeBench {
    serde_json::from_value(json!({
        "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench",
        "metadata": {"name": name, "namespace": "shops"},
        "spec": {"frappeVersion": "15", "apps": [], "componentReplicas": {"gunicorn": gunicorn}},
    }))
    .expect("a bench")
}

fn sound() -> Facts {
    let member = MemberReport { state: "ready".into(), ..MemberReport::default() };
    let sql = ["databases", "users", "grants", "mariadbs"].map(|it| format!("{it}.k8s.mariadb.com"));
    Facts {
        version: (35, "v1.35.1".into()),
        definitions: [("frappesites.vyogo.tech".to_owned(), Definition::Same)].into(),
        optional: sql.into(),
        default_storage_class: Some("nfs".into()),
        storage_classes: 2,
        rights: Ok((Vec::new(), 100)),
        replicas: Ok(Report {
            coordinator: Some("a".into()),
            members: vec![member.clone(), member],
            ..Report::default()
        }),
        sites: 10,
        benches: vec![bench("main", 1)],
        config: OperatorConfig::default(),
        mariadb_operators: vec![(Key::new("mariadb", "operator"), 1)],
        servers: vec![Server { key: Key::new("shops", "db"), ready: true, connections_max: None }],
    }
}

type Case = (fn(&mut Facts), &'static str);

fn faults(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = sound();
    change(&mut facts);
    let faults = findings(&facts).into_iter().filter(|it| it.level != Level::Good);
    faults.map(|it| format!("{:?} {}: {}", it.level, it.subject, it.message)).collect()
}

#[test]
fn a_sound_cluster_has_no_faults() {
    assert_eq!(faults(|_| {}), Vec::<String>::new());
    let table = table(&findings(&sound()));
    assert!(table.contains("ok   MariaDB              shops/db: 1 bench may open 31 connections, "), "{table}");
}

/// Gives the bench a condition that is False.
fn says_false(facts: &mut Facts, kind: &str, reason: &str) {
    let condition = json!({"type": kind, "status": "False", "reason": reason, "message": "",
                           "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = facts.benches[0].status.get_or_insert_default();
    status.conditions = vec![serde_json::from_value(condition).expect("a condition")];
}

/// One fault at a time, each with what to do.
#[test]
fn each_fault_is_named() {
    let cases: [Case; 16] = [
        (
            |it| says_false(it, "RedisProtected", "RedisOpen"),
            "Warning Redis: Redis of 1 bench has no password or no NetworkPolicy (shops/main): set",
        ),
        (
            |it| {
                it.optional.extend(["scaledobjects.keda.sh", "triggerauthentications.keda.sh"].map(str::to_owned));
                says_false(it, "WorkersAutoscaled", "KedaNotResponding");
            },
            "Warning KEDA: does not scale the workers of 1 bench (shops/main: KedaNotResponding): see",
        ),
        (
            |it| it.version = (29, "v1.29.0".into()),
            "Bad Kubernetes: v1.29.0: too old, the operator needs 1.30 or later",
        ),
        (
            |it| it.definitions = [("a".to_owned(), Definition::Missing)].into(),
            "Bad CRDs: missing: a; install them: frappe-operator crds",
        ),
        (
            |it| it.definitions = [("a".to_owned(), Definition::Differs)].into(),
            "Warning CRDs: not of this program's version: a; update them",
        ),
        (
            |it| it.rights = Ok((vec!["patch jobs".into()], 9)),
            "Bad permissions: the operator's ServiceAccount may not patch jobs",
        ),
        (|it| it.replicas = Ok(Report::default()), "Bad replicas: none"),
        (|it| it.replicas.as_mut().expect("a report").unowned_slots = 3, "Bad replicas: 3 of 256 slots"),
        (
            |it| it.replicas.as_mut().expect("a report").unowned_slots = 256,
            "Warning replicas: no slot has an owner yet",
        ),
        (
            |it| {
                let report = it.replicas.as_mut().expect("a report");
                (report.unowned_slots, report.generation) = (256, 2);
            },
            "Bad replicas: 256 of 256 slots",
        ),
        (|it| it.replicas.as_mut().expect("a report").coordinator = None, "Bad replicas: no coordinator"),
        (
            |it| it.replicas.as_mut().expect("a report").members.truncate(1),
            "Warning replicas: 1 ready, every slot owned: run at least two",
        ),
        (|it| it.storage_classes = 0, "Bad storage: no StorageClass"),
        (|it| it.optional.clear(), "Warning MariaDB operator: not installed"),
        (
            |it| it.sites = 500,
            "Warning MariaDB operator: mariadb/operator: --max-concurrent-reconciles is 1, too low for 500 sites",
        ),
        (
            |it| it.benches = vec![bench("a", 9), bench("b", 9)],
            "Warning MariaDB: shops/db: 2 benches may open 190 connections, max_connections is 151",
        ),
    ];
    for (change, says) in cases {
        let faults = faults(change);
        assert!(faults.len() == 1 && faults[0].starts_with(says), "{says}: {faults:?}");
    }
}

#[test]
fn a_bench_counts_for_the_server_that_it_names() {
    let mut facts = sound();
    facts.config.default_mariadb = Some(Key::new("elsewhere", "db"));
    assert!(!served_by(&facts.benches[0], &facts.servers[0], &facts));
    facts.benches[0].spec.db_config =
        Some(serde_json::from_value(json!({"mariadbRef": {"name": "db"}})).expect("a reference"));
    assert!(served_by(&facts.benches[0], &facts.servers[0], &facts));
}
