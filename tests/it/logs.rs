//! The log at its default level: no lines while nothing changes, one line for each event.

use std::{collections::BTreeMap, time::Duration};

use frappe_loadtest::process::{Operator, Options};
use serde_json::Value;

use crate::support::{World, program, site};

/// Short, so that a Lease is renewed each second, and as often a replica that is not the coordinator tries to become it.
const LEASE_SECONDS: u64 = 5;
/// How long replicas are observed after the slots are distributed.
const REST: Duration = Duration::from_secs(6);
/// Lines of a replica that starts, takes over slots and hands half of them over.
const LINES_TO_START_MAX: usize = 8;
/// Lines of both replicas while nothing changes: one is for a response that a slow machine sent too late.
const LINES_AT_REST_MAX: usize = 1;
/// Sites that are created on one bench.
const SITES: usize = 4;

fn options(pod: &str) -> Options {
    Options {
        lease_seconds: Some(LEASE_SECONDS),
        pod_name: Some(pod.to_owned()),
        log: Some(("info", "json")),
        ..Options::default()
    }
}

/// The lines of all replicas. Each is a JSON object, without a path of a library's source file.
fn lines(replicas: &[&Operator]) -> Vec<Value> {
    let parse = |line: String| {
        for path in [".rs", "/registry/", "log.file"] {
            assert!(!line.contains(path), "a path of a library: {line}");
        }
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    replicas.iter().flat_map(|it| it.log_lines()).map(parse).collect()
}

/// The reasons of the lines about an object, in their order.
fn reasons(lines: &[Value], object: &str) -> Vec<String> {
    let of_object = lines.iter().filter(|it| it["object"] == object);
    of_object.map(|it| it["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Slots of each replica, as the operator reports them.
async fn slots(operator: &Operator) -> BTreeMap<String, u64> {
    let answer = operator.http("/shards").await.unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |it| it.1);
    let report: Value = serde_json::from_str(body).unwrap_or_default();
    let members = report["members"].as_array().cloned().unwrap_or_default();
    members.iter().filter_map(|it| Some((it["pod"].as_str()?.to_owned(), it["slots"].as_u64()?))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_logs_one_line_for_each_event_and_none_without_changes() {
    let world = World::start_with("logs", &options("first")).await;
    let own = |pod: &'static str, number: u64| {
        let operator = &world.operator;
        world.until("a replica owns its slots", 60, move || async move {
            (slots(operator).await.get(pod) == Some(&number)).then_some(())
        })
    };
    own("first", 256).await;
    let mut second = Operator::start(program(), &world.cluster, &options("second")).unwrap();
    second.ready().await.unwrap();
    own("second", 128).await;
    // Lines about the handover itself.
    tokio::time::sleep(Duration::from_secs(1)).await;

    let replicas = [&world.operator, &second];
    for replica in replicas {
        let begun = lines(&[replica]);
        assert!(begun.len() <= LINES_TO_START_MAX, "{begun:#?}");
    }
    let begun = lines(&replicas);
    let gave: Vec<&Value> = begun.iter().filter(|it| it["message"] == "handed slots over").collect();
    assert_eq!(gave.len(), 1, "{gave:?}");
    assert_eq!(gave[0]["slots"], 128, "{gave:?}");
    tokio::time::sleep(REST).await;
    let rested = lines(&replicas);
    assert!(rested.len() - begun.len() <= LINES_AT_REST_MAX, "{rested:#?}");

    let name = |number: usize| format!("FrappeSite shops/site-{number}");
    world.with_bench("shops").await;
    let manifests: String = (0..SITES).map(|number| site("shops", &format!("site-{number}"))).collect();
    world.cluster.apply(&manifests).unwrap();
    // A line is written after the write that it reports.
    for (number, steps) in (0..SITES).map(|number| (number, &["CreatingDatabase", "Initializing", "Ready"])) {
        world
            .until(&format!("the lines of site-{number}"), 60, || async {
                (reasons(&lines(&replicas), &name(number)) == *steps).then_some(())
            })
            .await;
    }
    world.kubectl(&["delete", "frappesite", "-n", "shops", "site-0"]);
    world
        .until("the lines of a deletion", 10, || async {
            (reasons(&lines(&replicas), &name(0)).get(3..) == Some(&["Deleting".into(), "Deleted".into()]))
                .then_some(())
        })
        .await;
    let all = lines(&replicas);
    let of_the_bench = reasons(&all, "FrappeBench shops/bench");
    assert_eq!(of_the_bench.first().map(String::as_str), Some("Preparing"), "{of_the_bench:?}");
    assert_eq!(of_the_bench.last().map(String::as_str), Some("Ready"), "{of_the_bench:?}");
    let about = |it: &&Value| it["object"].as_str().is_some_and(|it| it.contains(" shops/"));
    let others = all.iter().filter(|it| !about(it)).count() - begun.len();
    assert!(others <= LINES_AT_REST_MAX, "lines that are about neither the bench nor a site: {all:#?}");
}
