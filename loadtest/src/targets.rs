//! Targets of the operator, and whether they are met.

use crate::{
    backups::Backups,
    report::{Report, Row, Target, Updates},
    spread::exact,
};

fn memory(row: &Row) -> f64 {
    row.members.values().map(|cost| cost.resident_mebibytes).fold(0.0, f64::max)
}

/// The targets for which this report has figures.
pub fn targets(report: &Report) -> Vec<Target> {
    let mut targets = Vec::new();
    let created: Vec<&Row> = report.rows.iter().filter(|row| row.step.starts_with("create")).collect();
    if let Some(row) = created.last().filter(|row| row.ready.count > 0 && report.scenario.failing_jobs_percent == 0) {
        let sites = exact(row.ready.count);
        targets.push(Target::at_most(
            "requests per site to Ready, Events aside",
            exact(row.work_requests()) / sites,
            12.0,
            "",
        ));
        targets.push(Target::at_most(
            "CPU of the operator per site to Ready",
            row.cpu_seconds() * 1000.0 / sites,
            5.0,
            "ms",
        ));
    }
    if let Some(floor) = &report.floor {
        targets.push(Target::at_least("sites/s to Ready against a bare client", floor.ratio(), 0.8, ""));
    }
    let idle: Vec<&Row> = report.rows.iter().filter(|row| row.step.starts_with("idle")).collect();
    for row in &idle {
        let figure = format!("requests in {:.0} idle seconds with {} sites", row.seconds, row.sites);
        targets.push(Target::at_most(&figure, exact(row.work_requests()), 0.0, ""));
    }
    if report.scenario.members == 1 {
        memory_alone(&idle, &mut targets);
    }
    for row in report.rows.iter().filter(|row| row.step == "churn: 50 edits/s") {
        let figure = format!("p99 from a spec edit to the changed object, {} sites, 50 edits/s", row.sites);
        targets.push(Target::at_most(&figure, row.edit.p99, 250.0, "ms"));
    }
    for (row, backups) in report.rows.iter().filter_map(|row| Some((row, row.backups.as_ref()?))) {
        backed_up(report, &row.step, backups, &mut targets);
    }
    for (row, updates) in report.rows.iter().filter_map(|row| Some((row, row.updates.as_ref()?))) {
        updated(report, &row.step, updates, &mut targets);
    }
    if report.scenario.sites >= 10_000 {
        let most = report.rows.iter().map(memory).fold(0.0, f64::max);
        targets.push(Target::at_most("largest RSS of a member", most, 90.0, "MiB"));
        let ready: usize = created.iter().map(|row| row.ready.count).sum();
        targets.push(Target::at_least("sites that became Ready", exact(ready), exact(report.scenario.sites), ""));
    }
    targets
}

/// Every due backup is made once, never during another operation, and within the limit of Jobs. After a rebalance, one Job for each
/// member may exceed the limit.
fn backed_up(report: &Report, step: &str, backups: &Backups, targets: &mut Vec<Target>) {
    let figure = |what: &str| format!("{step}: {what}");
    targets.push(Target::at_least(&figure("made of those due"), exact(backups.made), exact(backups.due), ""));
    for (what, count) in [("lost", backups.lost), ("doubled", backups.doubled), ("failed", backups.failed)] {
        targets.push(Target::at_most(&figure(what), exact(count), 0.0, ""));
    }
    targets.push(Target::at_most(&figure("Jobs of one site at once"), exact(backups.jobs_of_a_site_most), 1.0, ""));
    let limit = report.scenario.config.get("maxConcurrentSiteJobs").and_then(|it| it.parse::<usize>().ok());
    let Some(limit) = limit else { return };
    let most = exact(limit + report.scenario.members);
    targets.push(Target::at_most(&figure("Jobs of one bench at once"), exact(backups.jobs_of_a_bench_most), most, ""));
}

/// Each move costs three writes, and a site that waits none. Of a killed member each Job that ran may cost one more.
fn updated(report: &Report, step: &str, updates: &Updates, targets: &mut Vec<Target>) {
    let figure = |what: &str| format!("{step}: {what}");
    if updates.moves == 0 {
        targets.push(Target::at_most(&figure("writes for waiting sites"), exact(updates.writes), 0.0, ""));
        return;
    }
    let each = exact(updates.writes) / exact(updates.moves);
    targets.push(Target::at_most(&figure("writes for each moved site"), each, 3.1, ""));
    targets.push(Target::at_most(&figure("until all had moved"), updates.seconds, updates.seconds_max, "s"));
    let limit = report.scenario.config.get("maxConcurrentSiteJobs").and_then(|it| it.parse::<usize>().ok());
    let Some(limit) = limit else { return };
    let most = exact(limit + report.scenario.members);
    targets.push(Target::at_most(&figure("moves at once"), exact(updates.at_once_most), most, ""));
}

/// Memory of one member with 300 sites, and of each additional site.
fn memory_alone(idle: &[&Row], targets: &mut Vec<Target>) {
    let Some(few) = idle.iter().find(|row| row.sites == 300) else { return };
    targets.push(Target::at_most("RSS of one member with 300 sites", memory(few), 40.0, "MiB"));
    let Some(many) = idle.iter().find(|row| row.sites > few.sites) else { return };
    let each = (memory(many) - memory(few)) * 1024.0 / exact(many.sites - few.sites);
    targets.push(Target::at_most("RSS for each further site", each, 14.0, "KiB"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_up_to_its_bound() {
        assert!(Target::at_most("a", 12.0, 12.0, "").is_met());
        assert!(!Target::at_most("a", 12.1, 12.0, "").is_met());
        assert!(!Target::at_least("a", 0.79, 0.8, "").is_met());
        assert_eq!(Target::at_least("a", 0.5, 0.8, "ms").row(), "| a | 0.50 ms | ≥ 0.8 ms | **missed** |");
    }
}
