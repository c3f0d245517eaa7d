//! The report of `/shards` and `frappe-operator shards`: replicas and their slots. Pure.

use std::fmt::Write as _;

use kube_sharding::{
    SLOTS,
    fleet::{Fleet, Member},
    map::SlotMap,
    member::LeaseRecord,
    wire::Names,
};
use serde::Serialize;

/// Minimum width of the column of replicas.
const MEMBER_WIDTH_MIN: usize = 36;

/// Names shared by the replicas of this operator.
pub fn names(namespace: &str) -> Names {
    Names {
        group: "vyogo.tech".to_owned(),
        prefix: "frappe.vyogo.tech".to_owned(),
        namespace: namespace.to_owned(),
        name: "frappe-operator".to_owned(),
    }
}

/// Report on replicas and slots.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Generation of the slot map.
    pub generation: u64,
    /// Pod of the coordinator.
    pub coordinator: Option<String>,
    /// Slots without a live owner, whose sites are not reconciled.
    pub unowned_slots: usize,
    /// All replicas, by pod name.
    pub members: Vec<MemberReport>,
}

/// One replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberReport {
    /// Name of its pod.
    pub pod: String,
    /// Its incarnation.
    pub incarnation: String,
    /// Its pod-template-hash.
    pub template: String,
    /// joining, ready, leaving; expired if it did not renew its Lease in time; gone if it was fenced.
    pub state: String,
    /// Slots that it owns.
    pub slots: usize,
    /// Slots that it owns, as ranges: `0-50,77`.
    pub slot_ranges: String,
    /// Sites in these slots.
    pub sites: u64,
    /// Seconds since its Lease was renewed.
    pub lease_age_seconds: u64,
    /// Number of its handovers.
    pub handovers: u64,
    /// Generation of the newest slot map that it has read.
    pub seen_generation: u64,
}

/// The report for a slot map and Leases, each with its age in seconds.
pub fn report(names: &Names, map: Option<&SlotMap>, leases: &[(LeaseRecord, u64)]) -> Report {
    Fleet::of(names, map, leases).into()
}

impl From<Fleet> for Report {
    fn from(Fleet { generation, coordinator, unowned_slots, members }: Fleet) -> Self {
        let member = |it: Member| MemberReport {
            pod: it.name,
            incarnation: it.incarnation.map(|it| it.to_string()).unwrap_or_default(),
            template: it.template,
            state: it.state.to_string(),
            slots: it.slots.len(),
            slot_ranges: it.slots.to_string(),
            sites: it.objects,
            lease_age_seconds: it.lease_age_seconds,
            handovers: it.handovers,
            seen_generation: it.seen_generation,
        };
        Self { generation, coordinator, unowned_slots, members: members.into_iter().map(member).collect() }
    }
}

/// The report as a table.
pub fn table(report: &Report) -> String {
    let longest = report.members.iter().map(|it| it.pod.len() + 1).max().unwrap_or(0);
    let width = longest.max(MEMBER_WIDTH_MIN);
    let mut text = format!(
        "{:<width$} {:<12} {:<8} {:>5} {:>6} {:>6} {:>9}\n",
        "MEMBER", "VERSION", "STATE", "SLOTS", "SITES", "LEASE", "HANDOVERS"
    );
    for member in &report.members {
        let star = if report.coordinator.as_ref() == Some(&member.pod) { "*" } else { "" };
        let version = if member.template.is_empty() { "-" } else { &member.template };
        let _ = writeln!(
            text,
            "{:<width$} {:<12} {:<8} {:>5} {:>6} {:>5}s {:>9}",
            format!("{}{star}", member.pod),
            version,
            member.state,
            member.slots,
            member.sites,
            member.lease_age_seconds,
            member.handovers
        );
    }
    let coordinator = report.coordinator.as_deref().unwrap_or("none");
    let _ = writeln!(text, "* coordinator: {coordinator}; map generation {}", report.generation);
    if report.unowned_slots > 0 {
        let _ = writeln!(
            text,
            "WARNING: {} of {SLOTS} slots have no owner, so their sites are not reconciled",
            report.unowned_slots
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use kube_sharding::{Incarnation, Slot, fleet::State, member::Readiness};

    use super::*;

    fn member(name: &str, state: State, slots: std::ops::Range<u8>) -> Member {
        Member {
            name: name.to_owned(),
            incarnation: state.is_alive().then(|| Incarnation::new(name, "1")),
            state,
            slots: slots.map(Slot::new).collect(),
            template: "5d4".to_owned(),
            objects: 7,
            lease_age_seconds: 2,
            handovers: 0,
            seen_generation: 4,
        }
    }

    /// What a slot map and Leases say is tested in `kube_sharding::fleet`.
    #[test]
    fn the_report_has_owners_and_unowned_slots() {
        let ready = State::Is(Readiness::Ready);
        let members = vec![member("a", ready, 0..200), member("b", ready, 200..250), member("c", State::Gone, 0..0)];
        let report =
            Report::from(Fleet { generation: 4, coordinator: Some("b".to_owned()), unowned_slots: 6, members });
        assert_eq!((report.unowned_slots, report.coordinator.as_deref()), (6, Some("b")));
        assert_eq!(report.members[0].slot_ranges, "0-199");
        let table = table(&report);
        assert!(table.contains("WARNING: 6 of 256 slots have no owner"), "{table}");
        assert!(table.lines().nth(2).is_some_and(|line| line.starts_with("b* ")), "{table}");
        assert!(table.lines().nth(3).is_some_and(|line| line.contains("gone")), "{table}");
    }
}
