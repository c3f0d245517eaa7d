//! The table in `loadtest/README.md`: generated from the reports in `loadtest/reports`, so that no figure is written by hand.

use std::{fmt::Write, path::Path};

use anyhow::Context;

use crate::{report::Report, spread::exact};

const BEGIN: &str = "<!-- table: begin -->\n";
const END: &str = "<!-- table: end -->\n";

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every committed report, by name.
pub fn reports() -> anyhow::Result<Vec<Report>> {
    let mut reports = Vec::new();
    if !folder().join("reports").exists() {
        return Ok(reports);
    }
    for entry in std::fs::read_dir(folder().join("reports"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "json") {
            let text = std::fs::read_to_string(&path)?;
            let report: Report = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
            reports.push(report);
        }
    }
    reports.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(reports)
}

/// Figures of all reports.
pub fn table(reports: &[Report]) -> String {
    let mut text = String::from("| report | made | figure | measured | target | |\n|---|---|---|---|---|---|\n");
    for report in reports {
        let origin = &report.origin;
        let made = format!("[{0}](reports/{0}.md) | {1}, {2}", report.name, origin.date, origin.commit);
        for target in &report.targets {
            let _ = writeln!(text, "| {made} {}", target.row());
        }
        for row in report.rows.iter().filter(|row| row.step.starts_with("fault") || row.step.starts_with("create")) {
            let spread = if row.ready.count > row.edit.count { &row.ready } else { &row.edit };
            let what = if row.ready.count > row.edit.count { "to Ready" } else { "edit to changed object" };
            let rate = exact(row.ready.count) / row.seconds;
            let rate = if row.ready.count > row.edit.count { format!(", {rate:.1} sites/s") } else { String::new() };
            let _ = writeln!(
                text,
                "| {made} | {}: {what}, p50 / p99 | {:.0} / {:.0} ms{rate} | | |",
                row.step, spread.p50, spread.p99
            );
        }
        for (members, edits) in &report.capacity {
            let _ =
                writeln!(text, "| {made} | {members} members: edits/s with p99 within the objective | {edits} | | |");
        }
    }
    if let Some(report) = reports.first() {
        let _ = writeln!(text, "\nMachine: {}, Kubernetes {}.", report.origin.machine, report.origin.kubernetes);
    }
    text
}

/// The README with the table of these reports.
fn filled(readme: &str, reports: &[Report]) -> anyhow::Result<String> {
    let (before, rest) = readme.split_once(BEGIN).context("loadtest/README.md has no place for the table")?;
    let (_, after) = rest.split_once(END).context("loadtest/README.md has no end of the table")?;
    Ok(format!("{before}{BEGIN}{}{END}{after}", table(reports)))
}

/// Writes the table.
pub fn write() -> anyhow::Result<()> {
    let path = folder().join("README.md");
    let readme = std::fs::read_to_string(&path)?;
    std::fs::write(&path, filled(&readme, &reports()?)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_equals_the_reports() {
        let readme = std::fs::read_to_string(folder().join("README.md")).expect("loadtest/README.md");
        let reports = reports().expect("reports");
        assert_eq!(readme, filled(&readme, &reports).expect("a place for it"), "run: make loadtest-table");
    }

    #[test]
    fn every_report_has_a_scenario_and_succeeded() {
        for report in reports().expect("reports") {
            assert_eq!(report.failure, None, "{}", report.name);
            assert!(crate::scenario::Scenario::read(&report.name).is_ok(), "{}", report.name);
            let markdown = folder().join("reports").join(format!("{}.md", report.name));
            assert!(markdown.exists(), "{}", markdown.display());
        }
    }
}
