//! The report of `/shards` and `frappe-operator shards`: replicas and their slots. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use kube_sharding::{
    Incarnation, SLOTS, Slot,
    gate::Scope,
    map::{Entry, SlotMap},
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

impl MemberReport {
    /// Whether it may own slots; a replica whose Lease has expired may not, and others take its slots over.
    pub fn is_alive(&self) -> bool {
        !["gone", "expired"].contains(&self.state.as_str())
    }
}

/// The report for a slot map and Leases, each with its age in seconds.
pub fn report(names: &Names, map: Option<&SlotMap>, leases: &[(LeaseRecord, u64)]) -> Report {
    let mut slots: BTreeMap<&Incarnation, Vec<u16>> = BTreeMap::new();
    let entries = map.into_iter().flat_map(|map| map.content.entries());
    for (entry, holding) in entries.filter(|(entry, _)| usize::from(entry.0) < SLOTS) {
        if let Some(owner) = &holding.owner {
            slots.entry(owner).or_default().push(entry.0);
        }
    }
    let members: Vec<MemberReport> = leases.iter().map(|(lease, age)| member(names, lease, *age, &slots)).collect();
    let owned: usize = members.iter().filter(|it| it.is_alive()).map(|it| it.slots).sum();
    Report {
        generation: map.map_or(0, |map| map.content.generation),
        coordinator: map.and_then(|map| owner(names, map, Scope::Coordinator.entry(), leases)),
        unowned_slots: SLOTS - owned.min(SLOTS),
        members,
    }
}

fn member(names: &Names, lease: &LeaseRecord, age: u64, slots: &BTreeMap<&Incarnation, Vec<u16>>) -> MemberReport {
    let has_expired = lease.duration_seconds > 0 && age > u64::from(lease.duration_seconds);
    let state = match &lease.holder {
        None => "gone",
        Some(_) if has_expired => "expired",
        Some(_) => lease.facts.readiness.word(),
    };
    let own = lease.holder.as_ref().and_then(|holder| slots.get(holder)).cloned().unwrap_or_default();
    MemberReport {
        pod: names.pod(&lease.name).to_owned(),
        incarnation: lease.holder.as_ref().map(ToString::to_string).unwrap_or_default(),
        template: lease.facts.template.clone(),
        state: state.to_owned(),
        slots: own.len(),
        slot_ranges: ranges(&own),
        sites: lease.facts.objects,
        lease_age_seconds: age,
        handovers: lease.facts.handovers,
        seen_generation: lease.facts.generation,
    }
}

/// The pod that owns a site's slot, by the site's uid.
pub fn owner_of(names: &Names, map: &SlotMap, uid: &str, leases: &[(LeaseRecord, u64)]) -> Option<String> {
    owner(names, map, Slot::of_uid(uid).into(), leases)
}

fn owner(names: &Names, map: &SlotMap, entry: Entry, leases: &[(LeaseRecord, u64)]) -> Option<String> {
    let owner = map.content.holding(entry)?.owner.as_ref()?;
    let lease = leases.iter().find(|(lease, _)| lease.holder.as_ref() == Some(owner));
    lease.map(|(lease, _)| names.pod(&lease.name).to_owned())
}

/// Slots as ranges: `0-50,77`.
fn ranges(numbers: &[u16]) -> String {
    let mut found: Vec<(u16, u16)> = Vec::new();
    for number in numbers {
        match found.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => found.push((*number, *number)),
        }
    }
    let shown =
        found.iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
    shown.collect::<Vec<_>>().join(",")
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
    use kube_sharding::{
        map::{Content, Holding},
        member::{Facts, Readiness, Version},
    };

    use super::*;

    fn lease(pod: &str, holder: Option<Incarnation>) -> (LeaseRecord, u64) {
        let version = Version { uid: pod.into(), number: 1 };
        let facts = Facts { readiness: Readiness::Ready, template: "5d4".into(), objects: 7, ..Facts::default() };
        let name = names("system").lease(pod).into();
        let record = LeaseRecord {
            name,
            version,
            created_seconds: 0,
            duration_seconds: 15,
            holder,
            attempt: 1,
            ended: None,
            facts,
        };
        (record, 2)
    }

    fn world() -> (SlotMap, Vec<(LeaseRecord, u64)>, [Incarnation; 2]) {
        let members = [Incarnation::new("uid-a", "1"), Incarnation::new("uid-b", "1")];
        let owned = |owner: Option<&Incarnation>| Holding { owner: owner.cloned(), epoch: 1 };
        let mut holdings = vec![owned(Some(&members[0])); 200];
        holdings.extend(vec![owned(Some(&members[1])); 50]);
        holdings.extend(vec![owned(None); 6]);
        holdings.push(owned(Some(&members[1])));
        let version = Version { uid: "map".into(), number: 9 };
        let map = SlotMap { version, created_seconds: 0, content: Content { generation: 4, holdings } };
        (
            map,
            vec![lease("a", Some(members[0].clone())), lease("b", Some(members[1].clone())), lease("c", None)],
            members,
        )
    }

    #[test]
    fn the_report_has_owners_and_unowned_slots() {
        let (map, leases, _) = world();
        let report = report(&names("system"), Some(&map), &leases);
        assert_eq!((report.unowned_slots, report.coordinator.as_deref()), (6, Some("b")));
        assert_eq!(report.members[0].slot_ranges, "0-199");
        let table = table(&report);
        assert!(table.contains("WARNING: 6 of 256 slots have no owner"), "{table}");
        assert!(table.lines().nth(2).is_some_and(|line| line.starts_with("b* ")), "{table}");
        assert!(table.lines().nth(3).is_some_and(|line| line.contains("gone")), "{table}");
    }

    #[test]
    fn slots_of_a_fenced_member_are_owned_by_nobody() {
        let (map, mut leases, _) = world();
        leases[1].0.holder = None;
        let report = report(&names("system"), Some(&map), &leases);
        assert_eq!((report.unowned_slots, report.coordinator), (56, None));
    }

    #[test]
    fn a_member_whose_lease_ran_out_is_not_ready_and_owns_nothing() {
        let (map, mut leases, _) = world();
        let of = |leases: &[(LeaseRecord, u64)]| report(&names("system"), Some(&map), leases);
        leases[1].1 = 15;
        assert_eq!((of(&leases).members[1].state.as_str(), of(&leases).unowned_slots), ("ready", 6));
        leases[1].1 = 16;
        assert_eq!((of(&leases).members[1].state.as_str(), of(&leases).unowned_slots), ("expired", 56));
        leases[1].0.duration_seconds = 0;
        assert_eq!(of(&leases).members[1].state, "ready", "it says nothing of how long it counts");
    }

    #[test]
    fn a_site_is_owned_by_the_pod_of_its_slot() {
        let (map, leases, _) = world();
        let uid = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        assert_eq!(Slot::of_uid(uid).number(), 0xbd);
        assert_eq!(owner_of(&names("system"), &map, uid, &leases).as_deref(), Some("a"));
    }

    #[test]
    fn neighbours_are_shown_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 7, 9, 10]), "0-2,7,9-10");
        assert_eq!(ranges(&[]), "");
    }
}
