//! Scenarios of the load test: files of steps in `loadtest/scenarios`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A scenario. Numbers of sites, benches and members may be changed on the command line.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// Its purpose.
    pub about: String,
    /// Number of sites: the value of `all`.
    pub sites: usize,
    /// Number of benches, to which the sites are assigned in turn.
    pub benches: usize,
    /// Number of members: the value of `all`.
    pub members: usize,
    /// Simulated nodes.
    #[serde(default = "nodes")]
    pub nodes: u32,
    /// Maximum duration of the test, in seconds.
    pub seconds_max: u64,
    /// The operator's ConfigMap.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Percentage of Jobs that fail.
    #[serde(default)]
    pub failing_jobs_percent: u32,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

fn nodes() -> u32 {
    20
}

/// A number, or all.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Amount {
    /// This number.
    Number(usize),
    /// The scenario's number.
    All(All),
}

/// The word `all`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum All {
    /// The scenario's number.
    All,
}

impl Amount {
    /// The number, given the value of `all`.
    pub fn of(self, all: usize) -> usize {
        match self {
            Self::Number(number) => number,
            Self::All(All::All) => all,
        }
    }
}

/// One step. Its results are a row of the report.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "step", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Step {
    /// Starts members; ends when they share the slots evenly.
    Start {
        /// Number of running members after it.
        members: Amount,
    },
    /// Creates sites; ends when they are Ready.
    Create {
        /// Number of sites after it.
        sites: Amount,
        /// Creations per second; by default as fast as the API server accepts them.
        #[serde(default)]
        per_second: u32,
    },
    /// Edits, creates and deletes sites; ends when all of that is complete.
    Churn {
        /// Edits per second.
        #[serde(default)]
        edits_per_second: u32,
        /// Creations per second.
        #[serde(default)]
        creates_per_second: u32,
        /// Deletions per second.
        #[serde(default)]
        deletes_per_second: u32,
        /// Duration.
        seconds: u64,
    },
    /// Waits without changes.
    Idle {
        /// Duration, after an initial time without changes.
        seconds: u64,
    },
    /// Injects a fault while sites are edited; ends when the members share the slots evenly and every edit is applied.
    Fault {
        /// The fault.
        fault: Fault,
        /// Edits per second.
        edits_per_second: u32,
        /// Duration of the fault, if it has one.
        #[serde(default)]
        seconds: u64,
    },
    /// Increases the rate of edits until p99 is above the objective, once for each number of members.
    Ramp {
        /// Numbers of members.
        members: Vec<usize>,
        /// Edits per second, in this order.
        edits_per_second: Vec<u32>,
        /// Duration of each.
        seconds: u64,
        /// The objective for p99, in milliseconds.
        objective_milliseconds: f64,
    },
    /// Stops all members; a bare client creates the same objects with the same number of writes.
    Floor {
        /// Number of sites.
        sites: Amount,
    },
    /// Backs up every site by one schedule while a member is killed, one is added and the coordinator is stopped; ends when no
    /// Job is running.
    Backups {
        /// The five fields of cron; `SOON` is the first minute of the hour after all SiteBackups have been created.
        schedule: String,
        /// How long schedules are active.
        seconds: u64,
        /// Sites per minute that are changed such that each needs a Job.
        changes_per_minute: u32,
    },
    /// Moves all sites of one bench to another image in canary and waves, of which one in a hundred fails; kills a member and the
    /// coordinator, pauses and resumes meanwhile, sets a second image while the first is on its way, and the first one again at the end.
    Update {
        /// Sites that move first.
        canary: usize,
        /// Shares of all sites after each wave.
        waves: Vec<String>,
        /// Time between two waves.
        soak_seconds: u64,
        /// How many sites may fail.
        max_failures: String,
        /// Maximum duration of the moves to both images, and of those back.
        seconds_max: u64,
    },
}

/// A fault.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// Every member is replaced by a new one, one after the other, as in a rollout.
    Rollout,
    /// A member is killed, and another is started once its slots are taken over.
    Kill,
    /// The coordinator is killed, and another member is started once its slots are taken over.
    KillCoordinator,
    /// A member is paused and resumed.
    Pause,
    /// The API server is paused and resumed.
    ApiServerPause,
    /// The API server is restarted.
    ApiServerRestart,
}

impl Scenario {
    /// Reads a scenario by its name or path.
    pub fn read(name: &str) -> anyhow::Result<Self> {
        use anyhow::Context;
        let path = if name.contains('/') {
            name.to_owned()
        } else {
            format!("{}/scenarios/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
        };
        let text = std::fs::read_to_string(&path).with_context(|| format!("read the scenario {path}"))?;
        let this: Self = serde_yaml_ng::from_str(&text).with_context(|| format!("parse the scenario {path}"))?;
        anyhow::ensure!(this.benches > 0 && this.members > 0, "{path}: a scenario needs a bench and a member");
        anyhow::ensure!(this.failing_jobs_percent < 100, "{path}: failingJobsPercent must be below 100");
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_can_be_read() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).expect("scenarios").filter_map(Result::ok) {
            let path = entry.path();
            Scenario::read(&path.to_string_lossy()).expect("a scenario");
            names.push(path.file_stem().expect("a name").to_string_lossy().into_owned());
        }
        names.sort();
        assert_eq!(names, ["10k", "backups", "basic", "chaos", "rolling-update", "scale-out", "steady", "update"]);
    }

    #[test]
    fn an_unknown_field_of_a_step_is_rejected() {
        let text = "about: x\nsites: 1\nbenches: 1\nmembers: 1\nsecondsMax: 1\nsteps: [{step: idle, minutes: 2}]\n";
        let error = serde_yaml_ng::from_str::<Scenario>(text).expect_err("minutes is not a field");
        assert!(error.to_string().contains("minutes"), "{error}");
    }
}
