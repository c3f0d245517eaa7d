//! The example controllers of `kube-sharding` on a real API server, each with three replicas of which one is killed, one is paused
//! for longer than its Lease, one joins again and one ends: what they write is right, and only an owner writes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use frappe_loadtest::{audit, cluster::Cluster, history::owners};
use kube_sharding::{SLOTS, Slot};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::sleep;

use crate::support::{kubectl, until};

/// The examples, which are also the names of their slot maps.
const EXAMPLES: [&str; 3] = ["configmaps", "copies", "quotas"];
/// Objects of each.
const OBJECTS: usize = 20;

/// Builds the examples, of the whole workspace, so that no crate is built for other features; returns their folder.
fn built() -> PathBuf {
    let arguments = ["build", "--locked", "--workspace", "--examples", "--message-format", "json"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let messages = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let programs = messages.filter_map(|it| it["executable"].as_str().map(PathBuf::from));
    let program = programs.into_iter().find(|it| it.ends_with("configmaps")).unwrap();
    program.parent().unwrap().to_owned()
}

/// A replica; killed when dropped.
struct Replica(Child);

impl Replica {
    /// Starts a replica with an account of its own, by which the audit log tells who wrote. Its pod's uid is that account's name.
    fn start(cluster: &Cluster, programs: &Path, example: &str, name: &str, account: &str) -> Self {
        kubectl(cluster, &["create", "serviceaccount", account], "");
        let token = kubectl(cluster, &["create", "token", account], "");
        let path = cluster.logs.join(format!("{account}.kubeconfig"));
        std::fs::copy(&cluster.kubeconfig, &path).unwrap();
        let own = path.display().to_string();
        let config =
            |arguments: &[&str]| kubectl(cluster, &[&["--kubeconfig", &own, "config"], arguments].concat(), "");
        config(&["set-credentials", "replica", "--token", token.trim()]);
        config(&["set-context", config(&["current-context"]).trim(), "--user", "replica"]);
        let child = Command::new(programs.join(example))
            .env("KUBECONFIG", &path)
            .env("POD_NAME", name)
            .env("POD_UID", account)
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn objects(cluster: &Cluster, kind: &str) -> Vec<Value> {
    let text = kubectl(cluster, &["get", kind, "--all-namespaces", "--output", "json"], "");
    serde_json::from_str::<Value>(&text).unwrap()["items"].as_array().unwrap().clone()
}

fn is_right(cluster: &Cluster) -> bool {
    let maps = objects(cluster, "configmaps");
    let is_counted = |map: &Value| {
        let keys = map["data"].as_object().map_or(0, serde_json::Map::len).to_string();
        map["metadata"]["labels"]["example.com/count"].is_null()
            || map["metadata"]["annotations"]["example.com/count"] == *keys
    };
    let is_copied = |note: &Value| {
        let is_copy = |map: &&Value| map["metadata"]["ownerReferences"][0]["uid"] == note["metadata"]["uid"];
        let copies: Vec<&Value> = maps.iter().filter(is_copy).collect();
        let are_same = copies.iter().all(|map| map["data"]["text"] == note["spec"]["text"]);
        are_same && note["spec"]["copies"] == copies.len() && note["status"]["copies"] == copies.len()
    };
    let quotas = objects(cluster, "resourcequotas");
    let is_limited = |namespace: &Value| {
        let pods = &namespace["metadata"]["labels"]["example.com/pods"];
        let is_of = |quota: &&Value| quota["metadata"]["namespace"] == namespace["metadata"]["name"];
        pods.is_null() || quotas.iter().any(|it| is_of(&it) && it["spec"]["hard"]["pods"] == *pods)
    };
    maps.iter().all(is_counted)
        && objects(cluster, "notes.example.com").iter().all(is_copied)
        && objects(cluster, "namespaces").iter().all(is_limited)
}

/// What users have in turn `turn`.
fn wanted(turn: usize) -> String {
    let of = |number: usize| {
        let keys = (0..=turn % 5).map(|key| format!("key-{key}: x")).collect::<Vec<_>>().join(", ");
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: map-{number}, namespace: default, labels: {{example.com/count: 'yes'}}}}\n\
             data: {{{keys}}}\n\
             ---\napiVersion: example.com/v1\nkind: Note\nmetadata: {{name: note-{number}, namespace: default}}\n\
             spec: {{text: 'turn {turn}', copies: {}}}\n\
             ---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: team-{number}, labels: {{example.com/pods: '{}'}}}}\n",
            (turn + number) % 4,
            10 + turn,
        )
    };
    (0..OBJECTS).map(of).collect()
}

/// The slot maps at each version, by their names: the account of each slot's owner, and last of the coordinator.
type Maps = BTreeMap<String, BTreeMap<u64, Vec<String>>>;

/// A write of a replica: to what, its version, its sender, the slot map that decides, and the entry there.
struct Effect {
    object: String,
    version: u64,
    account: String,
    map: &'static str,
    entry: usize,
}

fn effect(resource: &str, object: &Value, account: &str) -> Option<Effect> {
    let slot = |uid: &Value| uid.as_str().map(|uid| usize::from(Slot::of_uid(uid).number()));
    let owner = &object["metadata"]["ownerReferences"][0]["uid"];
    let (map, entry) = match resource {
        "configmaps" if owner.is_string() => ("copies", slot(owner)?),
        "configmaps" => ("counters", slot(&object["metadata"]["uid"])?),
        "notes" => ("copies", slot(&object["metadata"]["uid"])?),
        "resourcequotas" => ("quotas", SLOTS),
        _ => return None,
    };
    Some(Effect {
        object: format!("{resource}/{}", object["metadata"]["name"].as_str()?),
        version: object["metadata"]["resourceVersion"].as_str()?.parse().ok()?,
        account: account.to_owned(),
        map,
        entry,
    })
}

/// The history in the audit log.
fn history(cluster: &Cluster) -> (Maps, Vec<Effect>) {
    let (mut maps, mut effects) = (Maps::new(), BTreeMap::new());
    for event in audit::events(&cluster.logs).unwrap() {
        let event = event.unwrap();
        let (resource, object) =
            (event["objectRef"]["resource"].as_str().unwrap_or_default(), &event["responseObject"]);
        let is_done = event["responseStatus"]["code"].as_i64().is_some_and(|code| (200..300).contains(&code));
        let sender = event["user"]["username"].as_str().unwrap_or_default();
        if !is_done {
            continue;
        }
        let account = sender.strip_prefix("system:serviceaccount:default:").unwrap_or_default();
        let version = object["metadata"]["resourceVersion"].as_str().and_then(|it| it.parse().ok());
        if let ("slotmaps", Some(version), Some(owners)) = (resource, version, owners(object)) {
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            maps.entry(name).or_default().insert(version, owners);
        } else if let Some(effect) = effect(resource, object, account) {
            // A write that changed nothing answers the version that was, which is another's.
            effects.entry((effect.object.clone(), effect.version)).or_insert(effect);
        }
    }
    (maps, effects.into_values().filter(|it| !it.account.is_empty()).collect())
}

/// Writes by a replica that was not the owner at that version.
fn violations(maps: &Maps, effects: &[Effect]) -> Vec<String> {
    let owner = |it: &Effect| maps.get(it.map)?.range(..it.version).next_back()?.1.get(it.entry).cloned();
    let wrong = effects.iter().filter(|it| owner(it).as_ref() != Some(&it.account));
    wrong.map(|it| format!("{} at {} by {}: owned by {:?}", it.object, it.version, it.account, owner(it))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn example_controllers_write_only_what_they_own() {
    let programs = built();
    let cluster = Cluster::start_with("controllers", 0, &[("AUDIT_POLICY", "audit-examples.yaml")]).unwrap();
    let print = |example: &str, argument: &str| {
        let output = Command::new(programs.join(example)).arg(argument).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    cluster.apply(&print("crd", "example.com")).unwrap();
    cluster.apply(&print("copies", "definition")).unwrap();
    kubectl(&cluster, &["wait", "--for", "condition=Established", "--timeout", "30s", "crd", "--all"], "");
    let admin = ["create", "clusterrolebinding", "replicas", "--clusterrole", "cluster-admin"];
    kubectl(&cluster, &[&admin[..], &["--group", "system:serviceaccounts:default"]].concat(), "");
    let start = |example: &str, name: &str, life: usize| {
        Replica::start(&cluster, &programs, example, name, &format!("{example}-{name}-{life}"))
    };
    let mut fleets = EXAMPLES.map(|example| ["one", "two", "three"].map(|name| start(example, name, 1)));
    cluster.apply(&wanted(0)).unwrap();
    let right = || async { is_right(&cluster).then_some(()) };
    until("all is right", 60, right).await.expect("all is right");
    // A user edits all the time.
    let mut turn = 0;
    let mut edit_for = async |seconds: u64| {
        let end = std::time::Instant::now() + Duration::from_secs(seconds);
        while std::time::Instant::now() < end {
            turn += 1;
            cluster.apply(&wanted(turn)).unwrap();
            sleep(Duration::from_millis(200)).await;
        }
    };
    edit_for(5).await;
    for [_, two, _] in &mut fleets {
        two.0.kill().unwrap();
        two.0.wait().unwrap();
    }
    edit_for(20).await;
    for (fleet, example) in fleets.iter_mut().zip(EXAMPLES) {
        fleet[1] = start(example, "two", 2);
    }
    edit_for(5).await;
    for fleet in &fleets {
        fleet[2].signal(Signal::STOP);
    }
    edit_for(25).await;
    for fleet in &fleets {
        fleet[2].signal(Signal::CONT);
    }
    edit_for(10).await;
    for fleet in &fleets {
        fleet[0].signal(Signal::TERM);
    }
    edit_for(5).await;
    for fleet in &mut fleets {
        assert!(fleet[0].0.wait().unwrap().success(), "a replica that is told to end does");
    }
    until("all is right", 60, right).await.expect("all is right after all that befell");
    let (maps, effects) = history(&cluster);
    let by = |map: &str| effects.iter().filter(|it| it.map == map).count();
    let counts = ["counters", "copies", "quotas"].map(|map| (map, by(map), maps.get(map).map_or(0, BTreeMap::len)));
    let wrong = violations(&maps, &effects);
    println!("{turn} turns of edits; slot map, writes, versions of the map: {counts:?}; {} violations", wrong.len());
    assert!(counts.iter().all(|(_, writes, versions)| *writes > 100 && *versions > 2), "{counts:?}");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_write_by_another_replica_is_a_violation() {
    let map = |owners: [&str; 2]| owners.map(str::to_owned).to_vec();
    let maps = Maps::from([("copies".to_owned(), BTreeMap::from([(5, map(["a", "b"])), (9, map(["b", "b"]))]))]);
    let write = |version, account: &str| Effect {
        object: "notes/note-0".to_owned(),
        version,
        account: account.to_owned(),
        map: "copies",
        entry: 0,
    };
    assert_eq!(violations(&maps, &[write(6, "a"), write(9, "a"), write(10, "b")]), Vec::<String>::new());
    assert_eq!(violations(&maps, &[write(10, "a")]), ["notes/note-0 at 10 by a: owned by Some(\"b\")"]);
    assert_eq!(violations(&maps, &[write(6, "b"), write(5, "a")]).len(), 2, "before its time, and before the map");
}
