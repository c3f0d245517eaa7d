//! What a load test does: a file of steps in `loadtest/scenarios`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A scenario. Numbers of sites, benches and members may be changed on the command line.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// What it is for.
    pub about: String,
    /// Sites: the meaning of `all`.
    pub sites: usize,
    /// Benches that the sites are on, in turn.
    pub benches: usize,
    /// Members: the meaning of `all`.
    pub members: usize,
    /// Simulated nodes.
    #[serde(default = "nodes")]
    pub nodes: u32,
    /// When the test is ended, done or not, in seconds.
    pub seconds_max: u64,
    /// The operator's ConfigMap.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// How many of a hundred Jobs fail.
    #[serde(default)]
    pub failing_jobs_percent: u32,
    /// What is done, in this order.
    pub steps: Vec<Step>,
}

fn nodes() -> u32 {
    20
}

/// A number, or all that there are.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Amount {
    /// So many.
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
    /// The number, where `all` are so many.
    pub fn of(self, all: usize) -> usize {
        match self {
            Self::Number(number) => number,
            Self::All(All::All) => all,
        }
    }
}

/// One step. What is measured during it is a row of the report.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "step", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Step {
    /// Members are started until so many run; ends when they share the sites evenly.
    Start {
        /// How many.
        members: Amount,
    },
    /// Sites are made until there are so many; ends when they are Ready.
    Create {
        /// How many there are then.
        sites: Amount,
        /// Creations in a second; as fast as the API server takes them if none.
        #[serde(default)]
        per_second: u32,
    },
    /// Sites are edited, made and deleted; ends when what was begun is done.
    Churn {
        /// Edits in a second.
        #[serde(default)]
        edits_per_second: u32,
        /// Creations in a second.
        #[serde(default)]
        creates_per_second: u32,
        /// Deletions in a second.
        #[serde(default)]
        deletes_per_second: u32,
        /// For so long.
        seconds: u64,
    },
    /// Nothing is done.
    Idle {
        /// For so long, after a while of quiet.
        seconds: u64,
    },
    /// Something goes wrong while sites are edited; ends when the members share evenly and every edit is done.
    Fault {
        /// What goes wrong.
        fault: Fault,
        /// Edits in a second.
        edits_per_second: u32,
        /// For how long it does, where it does for a time.
        #[serde(default)]
        seconds: u64,
    },
    /// Edits grow until the slowest hundredth waits longer than the objective; once for each number of members.
    Ramp {
        /// Numbers of members.
        members: Vec<usize>,
        /// Edits in a second, in this order.
        edits_per_second: Vec<u32>,
        /// For how long each.
        seconds: u64,
        /// The objective for p99, in milliseconds.
        objective_milliseconds: f64,
    },
    /// All members end; a bare client makes what the operator made and writes as often.
    Floor {
        /// For so many sites.
        sites: Amount,
    },
    /// Every site is backed up by one schedule while a member is killed, one is added and the coordinator is told to end; ends
    /// when nothing runs any more.
    Backups {
        /// Cron's five fields; `SOON` is the minute of the hour that comes when all SiteBackups have been made.
        schedule: String,
        /// For how long they are let run.
        seconds: u64,
        /// Sites that are changed in a minute, each in a way that needs a Job.
        changes_per_minute: u32,
    },
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// Every member is replaced by a new one, one after the other, as a rollout does it.
    Rollout,
    /// A member is killed, and another started once its sites are taken over.
    Kill,
    /// Likewise the coordinator.
    KillCoordinator,
    /// A member stands still, then goes on.
    Pause,
    /// The API server stands still, then goes on.
    ApiServerPause,
    /// The API server is ended and started again.
    ApiServerRestart,
}

impl Scenario {
    /// Reads a scenario, by its name or its path.
    pub fn read(name: &str) -> anyhow::Result<Self> {
        use anyhow::Context;
        let path = if name.contains('/') {
            name.to_owned()
        } else {
            format!("{}/scenarios/{name}.yaml", env!("CARGO_MANIFEST_DIR"))
        };
        let text = std::fs::read_to_string(&path).with_context(|| format!("read the scenario {path}"))?;
        let this: Self = serde_yaml_ng::from_str(&text).with_context(|| format!("understand the scenario {path}"))?;
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
        assert_eq!(names, ["10k", "backups", "basic", "chaos", "rolling-update", "scale-out", "steady"]);
    }

    #[test]
    fn a_word_that_no_step_knows_is_refused() {
        let text = "about: x\nsites: 1\nbenches: 1\nmembers: 1\nsecondsMax: 1\nsteps: [{step: idle, minutes: 2}]\n";
        let error = serde_yaml_ng::from_str::<Scenario>(text).expect_err("minutes is no field");
        assert!(error.to_string().contains("minutes"), "{error}");
    }
}
