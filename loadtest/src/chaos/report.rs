//! The results of a run as Markdown, and its violations.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use jiff::Timestamp;

use super::{
    checker::{Edit, Findings, Verdict},
    fleet::{Ends, Fleet},
    settings::Chaos,
    trace::{Journal, Span, Unowned, causes},
};

/// Edits that wait longer are traced.
const TAIL_SECONDS: f64 = 2.0;
/// Number of longest waits that are shown.
const LONGEST: usize = 10;

/// The results of a run.
#[derive(Default)]
pub struct Report {
    rows: Vec<(String, String)>,
    tail: String,
    /// Violations; empty if the run succeeded.
    pub wrong: Vec<String>,
}

/// Percentiles of an ordered list: p50, p90, p99 and the maximum.
fn shares(ordered: &[f64]) -> String {
    let at = |share: usize| ordered.get((ordered.len().saturating_sub(1)) * share / 100).copied().unwrap_or(0.0);
    format!("{:.2}, {:.2}, {:.2}, {:.2}", at(50), at(90), at(99), at(100))
}

fn list(counts: &BTreeMap<String, usize>) -> String {
    let shown: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

impl Report {
    /// The report of the time between two times.
    pub(super) fn new(chaos: &Chaos, (begun, ended): Span, found: &Findings, fleet: &Fleet<'_>, ends: Ends) -> Self {
        let (journal, verdict) = (fleet.journal(), found.check(chaos.right_seconds()));
        let unowned = Unowned::of(found, &journal);
        let waits = found.waits(begun);
        let mut this = Self { rows: Vec::new(), tail: tail(&waits, found, &journal, &unowned), wrong: Vec::new() };
        this.row("faults", &list(fleet.counts()));
        let away = journal.outages.iter().map(|(from, to)| format!("{:.0} s", to.duration_since(*from).as_secs_f64()));
        this.row("API server unavailable", &away.collect::<Vec<_>>().join(", "));
        this.edits(begun, found, &waits);
        this.map(found, &verdict);
        this.row("slots without a living owner, s: p50, p90, p99, max", &shares(&unowned.seconds((begun, ended))));
        let left = unowned.count_at(ended);
        this.row("slots without one at the end", &left.to_string());
        this.must_be_none("slots have no owner at the end", left, &[]);
        this.row("stopped members: clean / not", &format!("{} / {}", ends.clean, ends.other));
        let lines = |word| fleet.count_log_lines(word);
        let (fenced, back) = (lines("end=Fenced"), lines("end=WentBack"));
        let panics = lines("panicked");
        this.row("incarnations fenced / map went back / panics", &format!("{fenced} / {back} / {panics}"));
        this.must_be_none("panics", panics, &[]);
        this.must_be_none("members did not stop cleanly", fleet.unclean().len(), fleet.unclean());
        this.rows.insert(0, ("run".to_owned(), run(chaos)));
        this
    }

    fn row(&mut self, what: &str, shown: &str) {
        self.rows.push((what.to_owned(), shown.to_owned()));
    }

    fn must_be_none(&mut self, what: &str, count: usize, shown: &[String]) {
        if count > 0 {
            self.wrong.push(format!("{count} {what}\n{}", shown.join("\n")));
        }
    }

    fn edits(&mut self, begun: Timestamp, found: &Findings, waits: &[(f64, &Edit)]) {
        let edits = found.edits.iter().filter(|edit| edit.at >= begun && !edit.creates).count();
        self.row("edits; sites made / deleted", &format!("{edits}; {} / {}", found.made, found.deleted));
        let seconds: Vec<f64> = waits.iter().map(|(seconds, _)| *seconds).collect();
        self.row("edit to observed, s: p50, p90, p99, max", &shares(&seconds));
        let lost: Vec<String> = found
            .lost()
            .iter()
            .map(|edit| format!("{} generation {} at {}", edit.site, edit.generation, edit.at))
            .collect();
        self.row("edits never observed, of sites that are left", &lost.len().to_string());
        self.must_be_none("edits were never observed", lost.len(), &lost);
    }

    fn map(&mut self, found: &Findings, verdict: &Verdict) {
        let mut uids: Vec<&str> = found.maps.iter().map(|map| map.uid.as_str()).collect();
        uids.dedup();
        self.row("versions of the map (maps)", &format!("{} ({})", found.maps.len(), uids.len()));
        self.row("writes of members to sites, statuses and Jobs that changed something", &verdict.writes.to_string());
        self.row("of them by another than the slot's owner at that version", &verdict.violations.len().to_string());
        self.row("writes by a former owner soon after a user removed its slot", &verdict.after_hand.len().to_string());
        self.row("writes while a version of the map is missing in the log", &verdict.undecided.to_string());
        let epochs = format!("{} ({})", verdict.epochs.len(), verdict.epochs_after_hand);
        self.row("changes of owner without a higher epoch (after a user had changed the epoch)", &epochs);
        self.row("Jobs made / name made twice", &format!("{} / {}", found.jobs, found.jobs_twice.len()));
        let refused = found.refused.iter().map(|((code, what), count)| format!("{code} {what} {count}"));
        self.row("rejected writes of members", &refused.collect::<Vec<_>>().join(", "));
        self.must_be_none("writes by another than the owner", verdict.violations.len(), &verdict.violations);
        self.must_be_none("changes of owner without a higher epoch", verdict.epochs.len(), &verdict.epochs);
        self.must_be_none("Jobs were made twice", found.jobs_twice.len(), &found.jobs_twice);
    }
}

fn run(chaos: &Chaos) -> String {
    format!(
        "{} s, {} members, {} sites on {} benches and on one that does not exist, {} edits/s, Leases of {} s, seed {}, map {}",
        chaos.duration.as_secs(),
        chaos.members,
        chaos.sites,
        chaos.benches,
        chaos.edits_per_second,
        chaos.lease_seconds,
        chaos.seed,
        if chaos.map_by_hand { "edited by hand" } else { "not edited" }
    )
}

/// The causes of long waits.
fn tail(waits: &[(f64, &Edit)], found: &Findings, journal: &Journal, unowned: &Unowned) -> String {
    let long = waits.iter().filter(|(seconds, _)| *seconds > TAIL_SECONDS);
    let traced: Vec<_> = long.map(|(seconds, edit)| (*seconds, *edit, causes(edit, found, journal, unowned))).collect();
    let mut whole: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    for (_, _, seconds) in &traced {
        for (cause, seconds) in seconds {
            let sum = whole.entry(cause).or_default();
            *sum = (sum.0 + 1, sum.1 + seconds);
        }
    }
    let mut text = format!(
        "{} of {} edits waited longer than {TAIL_SECONDS} s. Causes:\n\n| cause | edits | seconds in all |\n|---|---|---|\n",
        traced.len(),
        waits.len()
    );
    for (cause, (edits, seconds)) in &whole {
        let _ = writeln!(text, "| {cause} | {edits} | {seconds:.0} |");
    }
    let _ = writeln!(text, "\nThe longest:\n\n| s | site | at | seconds by cause |\n|---|---|---|---|");
    for (seconds, edit, causes) in traced.iter().rev().take(LONGEST) {
        let causes: Vec<String> = causes.iter().map(|(cause, seconds)| format!("{cause} {seconds:.1}")).collect();
        let _ = writeln!(
            text,
            "| {seconds:.1} | {} | {} | {} |",
            edit.site,
            edit.at.strftime("%H:%M:%S"),
            causes.join("; ")
        );
    }
    text
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "| | |\n|---|---|")?;
        for (what, shown) in &self.rows {
            writeln!(formatter, "| {what} | {shown} |")?;
        }
        writeln!(formatter, "\n{}", self.tail)?;
        for wrong in &self.wrong {
            writeln!(formatter, "WRONG: {wrong}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::checker::tests::{event, found, map_of, member, site},
        *,
    };

    /// The checker reports a write by a non-owner, an edit that was not observed and a Job that was created twice, and the run
    /// fails.
    #[test]
    fn violations_are_reported() {
        let job = |uid: &str, version: &str| {
            let owner = serde_json::json!({"kind": "FrappeSite", "uid": "u"});
            serde_json::json!({"metadata": {
                "uid": uid, "name": "shop-init", "resourceVersion": version, "ownerReferences": [owner],
            }})
        };
        let log = [
            event("update", "slotmaps", &member("a"), 1, map_of(1, 1, "a_1", 1)),
            event("patch", "frappesites", "", 2, site(2, 1, 0)),
            event("update", "frappesites", &member("b"), 3, site(3, 1, 0)),
            event("create", "jobs", &member("a"), 4, job("one", "4")),
            event("create", "jobs", &member("a"), 5, job("two", "5")),
        ];
        let verdict = |log: &[serde_json::Value]| {
            let (found, mut report) = (found(log), Report::default());
            report.map(&found, &found.check(4.0));
            report.edits(Timestamp::UNIX_EPOCH, &found, &[]);
            report
        };
        let report = verdict(&log);
        let shown = report.to_string();
        for wrong in ["1 writes by another than the owner", "1 edits were never observed", "1 Jobs were made twice"] {
            assert!(shown.contains(&format!("WRONG: {wrong}")), "{wrong}: {shown}");
        }
        assert_eq!(report.wrong.len(), 3, "{shown}");
        assert!(verdict(&log[..1]).wrong.is_empty());
    }
}
