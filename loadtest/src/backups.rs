//! The results of scheduled backups: lost and duplicate ones, and how many Jobs ran at the same time.

use std::collections::{BTreeMap, BTreeSet};

use frappe_crds::backup::BackupRun;
use jiff::{Timestamp, Unit};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use crate::spread::Spread;

/// Component of the Jobs that back a site up.
const COMPONENT: &str = "site-backup";

/// The results.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backups {
    /// Backups that were due according to the SiteBackups' status before the faults.
    pub due: usize,
    /// Backups that were made.
    pub made: usize,
    /// Due backups that were not made.
    pub lost: usize,
    /// Backups that were made more than once, and additional Jobs of a backup.
    pub doubled: usize,
    /// Failed backups.
    pub failed: usize,
    /// Fewest Job starts in a minute in which backups were due.
    pub starts_a_minute_least: usize,
    /// Most Job starts in such a minute.
    pub starts_a_minute_most: usize,
    /// Number of such minutes.
    pub minutes: usize,
    /// Delay between the due time of a backup and its start.
    pub late: Spread,
    /// Most concurrent Jobs of any kind for one site.
    pub jobs_of_a_site_most: usize,
    /// Most concurrent Jobs of any kind for one bench.
    pub jobs_of_a_bench_most: usize,
    /// Jobs of other kinds in the same time.
    pub other_jobs: usize,
}

/// The running Jobs, according to a watch.
#[derive(Debug, Default)]
pub struct Occupancy {
    /// Bench and site of each running Job, by uid.
    running: BTreeMap<String, (String, String)>,
    /// uids of all observed Jobs.
    seen: BTreeSet<String>,
    backups: usize,
    of_a_site_most: usize,
    of_a_bench_most: usize,
}

impl Occupancy {
    /// Whether no Job is running.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Processes a change of a Job, or its deletion.
    pub fn see(&mut self, job: &Job, gone: bool) {
        let (Some(uid), labels) = (job.uid(), job.labels()) else { return };
        let (Some(bench), Some(site)) = (labels.get("bench"), labels.get("site")) else { return };
        let conditions = job.status.as_ref().and_then(|it| it.conditions.as_ref());
        let done = conditions.is_some_and(|all| {
            all.iter().any(|it| it.status == "True" && ["Complete", "Failed"].contains(&it.type_.as_str()))
        });
        if gone || done {
            self.running.remove(&uid);
            return;
        }
        if self.seen.insert(uid.clone()) {
            self.backups += usize::from(labels.get("component").is_some_and(|it| it == COMPONENT));
        }
        self.running.insert(uid, (bench.clone(), site.clone()));
        let count = |same: &dyn Fn(&(String, String)) -> bool| self.running.values().filter(|it| same(it)).count();
        let (of_site, of_bench) = (count(&|it| it.1 == *site), count(&|it| it.0 == *bench));
        self.of_a_site_most = self.of_a_site_most.max(of_site);
        self.of_a_bench_most = self.of_a_bench_most.max(of_bench);
    }
}

/// Compares the backups that were due until a time with the SiteBackups' histories and the Jobs.
pub fn evaluate(
    due: &BTreeMap<String, Timestamp>,
    histories: &BTreeMap<String, Vec<BackupRun>>,
    jobs: &Occupancy,
    until: Timestamp,
) -> Backups {
    let due: BTreeMap<_, _> = due.iter().filter(|(_, at)| **at <= until).collect();
    let times = |runs: &[BackupRun]| runs.iter().filter_map(|it| Some(it.scheduled_at.as_ref()?.0)).collect::<Vec<_>>();
    let made: usize = histories.values().map(Vec::len).sum();
    let once: usize = histories.values().map(|runs| times(runs).into_iter().collect::<BTreeSet<_>>().len()).sum();
    let is_made = |name: &String, at: &Timestamp| histories.get(name).is_some_and(|runs| times(runs).contains(at));
    let runs = || histories.values().flatten();
    let starts: Vec<Timestamp> = runs().filter_map(|it| Some(it.started_at.as_ref()?.0)).collect();
    let late = runs().filter_map(|it| {
        let (started, scheduled) = (it.started_at.as_ref()?.0, it.scheduled_at.as_ref()?.0);
        Some(started.duration_since(scheduled).as_secs_f64() * 1e3)
    });
    let minutes = per_minute(due.values().map(|it| **it), &starts);
    Backups {
        due: due.len(),
        made,
        lost: due.iter().filter(|(name, at)| !is_made(name, at)).count(),
        doubled: (made - once) + jobs.backups.saturating_sub(made),
        failed: runs().filter(|it| !it.succeeded).count(),
        starts_a_minute_least: minutes.iter().copied().min().unwrap_or(0),
        starts_a_minute_most: minutes.iter().copied().max().unwrap_or(0),
        minutes: minutes.len(),
        late: Spread::of(late.collect()),
        jobs_of_a_site_most: jobs.of_a_site_most,
        jobs_of_a_bench_most: jobs.of_a_bench_most,
        other_jobs: jobs.seen.len() - jobs.backups,
    }
}

/// Starts in each minute between the first and the last due time.
fn per_minute(due: impl Iterator<Item = Timestamp> + Clone, starts: &[Timestamp]) -> Vec<usize> {
    let minute = |at: Timestamp| at.as_second().div_euclid(60);
    let (Some(first), Some(last)) = (due.clone().map(minute).min(), due.map(minute).max()) else { return Vec::new() };
    (first..=last).map(|it| starts.iter().filter(|start| minute(**start) == it).count()).collect()
}

/// The minute of the hour that starts at least this many seconds after a time.
pub fn minute_after(now: Timestamp, seconds: i64) -> i64 {
    let later = now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(now);
    let minute = later.round(Unit::Minute).unwrap_or(later);
    let minute = if minute < later { minute.as_second() / 60 + 1 } else { minute.as_second() / 60 };
    minute.rem_euclid(60)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn run(scheduled: &str, started: &str) -> BackupRun {
        BackupRun {
            name: "one".to_owned(),
            succeeded: true,
            scheduled_at: Some(Time(at(scheduled))),
            started_at: Some(Time(at(started))),
            finished_at: None,
            size_bytes: None,
            code: None,
            message: None,
        }
    }

    fn job(uid: &str, site: &str, component: &str, done: bool) -> Job {
        let conditions = if done { json!([{"type": "Complete", "status": "True"}]) } else { json!([]) };
        serde_json::from_value(json!({
            "metadata": {"uid": uid, "labels": {"bench": "bench", "site": site, "component": component}},
            "status": {"conditions": conditions}
        }))
        .expect("a Job")
    }

    #[test]
    fn concurrent_jobs_are_counted() {
        let mut jobs = Occupancy::default();
        jobs.see(&job("1", "a", COMPONENT, false), false);
        jobs.see(&job("1", "a", COMPONENT, true), false);
        jobs.see(&job("2", "a", "site-job", false), false);
        assert_eq!((jobs.of_a_site_most, jobs.of_a_bench_most), (1, 1), "one after the other");
        jobs.see(&job("3", "b", COMPONENT, false), false);
        jobs.see(&job("4", "b", COMPONENT, false), false);
        assert_eq!((jobs.of_a_site_most, jobs.of_a_bench_most, jobs.backups), (2, 3, 3));
    }

    #[test]
    fn lost_and_doubled_ones_are_found() {
        let due = ["a", "b", "c"].map(|it| (it.to_owned(), at("2026-01-01T00:10:00Z")));
        let due: BTreeMap<_, _> = due.into_iter().chain([("d".to_owned(), at("2026-01-01T00:50:00Z"))]).collect();
        let one = run("2026-01-01T00:10:00Z", "2026-01-01T00:11:30Z");
        let histories = [("a", vec![one.clone()]), ("b", vec![one.clone(), one]), ("c", Vec::new())];
        let histories = histories.into_iter().map(|(name, runs)| (name.to_owned(), runs)).collect();
        let mut jobs = Occupancy::default();
        for uid in ["1", "2", "3", "4"] {
            jobs.see(&job(uid, uid, COMPONENT, false), false);
        }
        let found = evaluate(&due, &histories, &jobs, at("2026-01-01T00:20:00Z"));
        assert_eq!((found.due, found.made, found.lost, found.doubled), (3, 3, 1, 2), "d was not due yet");
        assert_eq!((found.starts_a_minute_most, found.minutes), (0, 1), "all started a minute later");
        assert_eq!(found.late.max.to_bits(), 90_000.0_f64.to_bits());
    }

    #[test]
    fn the_minute_is_the_first_that_is_late_enough() {
        assert_eq!(minute_after(at("2026-01-01T00:10:00Z"), 120), 12);
        assert_eq!(minute_after(at("2026-01-01T00:10:01Z"), 120), 13);
        assert_eq!(minute_after(at("2026-01-01T00:58:40Z"), 120), 1);
    }
}
