//! A small load test: every kind of step is executed, and nothing is left behind, even if it is terminated.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use frappe_loadtest::{chaos::settings::Chaos, report::Report};

const SCENARIO: &str = r#"
about: Every kind of step, small.
sites: 12
benches: 2
members: 2
nodes: 5
secondsMax: 300
config: {maxConcurrentSiteJobs: "100"}
steps:
  - {step: start, members: all}
  - {step: create, sites: 6}
  - {step: create, sites: all, perSecond: 5}
  - {step: idle, seconds: 3}
  - {step: churn, editsPerSecond: 10, createsPerSecond: 1, deletesPerSecond: 1, seconds: 4}
  - {step: fault, fault: apiServerRestart, editsPerSecond: 5}
  - {step: fault, fault: rollout, editsPerSecond: 5}
  - {step: ramp, members: [2], editsPerSecond: [5], seconds: 3, objectiveMilliseconds: 60000}
  - {step: floor, sites: 6}
"#;

/// The operator's program, which the workspace builds into the same folder.
fn operator() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("frappe-operator");
    assert!(path.exists(), "{} is not built: cargo build -p frappe-operator", path.display());
    path
}

/// A folder that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(purpose: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loadtest-{purpose}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn loadtest(folder: &Folder) -> Command {
    let scenario = folder.0.join("small.yaml");
    std::fs::write(&scenario, SCENARIO).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(["run", "--scenario"]).arg(scenario).arg("--operator").arg(operator()).arg("--out").arg(&folder.0);
    command
}

/// Processes whose command line contains this text.
fn processes(text: &str) -> Vec<String> {
    let lines = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(text)).collect()
}

#[test]
fn every_step_is_measured_and_reported() {
    let folder = Folder::new("steps");
    let output = loadtest(&folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_str(&std::fs::read_to_string(folder.0.join("small.json")).unwrap()).unwrap();
    let row =
        |step: &str| report.rows.iter().find(|row| row.step.starts_with(step)).unwrap_or_else(|| panic!("{step}"));
    assert_eq!(row("create to 6").ready.count + row("create to 12").ready.count, 12);
    assert!(row("create to 12").requests["create jobs"] >= 6, "{:?}", row("create to 12").requests);
    assert_eq!(row("idle").work_requests(), 0, "{:?}", row("idle").requests);
    let churn = row("churn");
    assert!(churn.edit.count >= 20 && churn.edit.p50 > 0.0 && churn.delete.count >= 2, "{churn:?}");
    assert!(row("fault: ApiServerRestart").edit.count > 0);
    assert!(row("fault: Rollout").map_writes > 0);
    assert_eq!(report.capacity.get(&2), Some(&5));
    let floor = report.floor.as_ref().unwrap();
    assert!(floor.ratio() > 0.0 && floor.writes_per_site >= 10, "{floor:?}");
    assert!(report.rows.iter().all(|row| row.members.values().all(|cost| cost.resident_mebibytes > 1.0)));
    let markdown = std::fs::read_to_string(folder.0.join("small.md")).unwrap();
    for wanted in ["Against a bare client", "small-ready.svg", "0 writes by a non-owner", "p50 / p99 / max"] {
        assert!(markdown.contains(wanted), "{wanted} is missing in\n{markdown}");
    }
    assert!(std::fs::read_to_string(folder.0.join("small-memory.svg")).unwrap().contains("member-1"));
}

#[test]
fn a_terminated_run_removes_its_cluster() {
    let folder = Folder::new("ended");
    let mut child = loadtest(&folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let cluster = format!("clusters/loadtest-{}/", child.id());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let begun = lines.map_while(Result::ok).find(|line| line.starts_with("create to"));
    assert!(begun.is_some() && !processes(&cluster).is_empty(), "it never created a site");
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(!child.wait().unwrap().success());
    assert_eq!(processes(&cluster), Vec::<String>::new(), "its processes have ended");
    assert!(!folder.0.join("small.json").exists(), "an incomplete run has no report");
}

/// S-1, S-3, S-4, S-5, S-7: two minutes of random faults while users work, evaluated by the audit log; `CHAOS_SEED` selects other
/// faults.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_duplicated_during_random_faults() {
    let seed = std::env::var("CHAOS_SEED").map_or(1, |it| it.parse().unwrap());
    let chaos = Chaos {
        operator: operator(),
        duration: std::time::Duration::from_mins(2),
        sites: 12,
        benches: 2,
        members: 3,
        seed,
        map_by_hand: true,
        edits_per_second: 2,
        // Longer than a process may wait for the CPU on a loaded machine.
        lease_seconds: 5,
    };
    let report = chaos.run().await.unwrap();
    assert!(report.wrong.is_empty(), "seed {seed}: {report}");
}
