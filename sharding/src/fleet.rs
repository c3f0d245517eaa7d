//! The members of a fleet and their slots, for people. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    gate::Scope,
    map::{Entry, SlotMap},
    member::{Incarnation, LeaseRecord, Readiness},
    slot::{SLOTS, Slot, SlotSet},
    wire::Names,
};

/// What the slot map and the Leases say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Generation of the slot map; 0 if there is none.
    pub generation: u64,
    /// Name of the coordinator.
    pub coordinator: Option<String>,
    /// Slots without a live owner, whose objects are not reconciled.
    pub unowned_slots: usize,
    /// All members, by name.
    pub members: Vec<Member>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its incarnation; None if it was fenced.
    pub incarnation: Option<Incarnation>,
    /// Its state.
    pub state: State,
    /// Slots that it owns.
    pub slots: SlotSet,
    /// Which build it is.
    pub template: String,
    /// Objects in its slots, as it counts them.
    pub objects: u64,
    /// Seconds since its Lease was renewed.
    pub lease_age_seconds: u64,
    /// Number of its handovers.
    pub handovers: u64,
    /// Generation of the newest slot map that it has read.
    pub seen_generation: u64,
}

/// State of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it says itself.
    Is(Readiness),
    /// It did not renew its Lease in time: others take its slots over.
    Expired,
    /// It was fenced, or has ended.
    Gone,
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Is(readiness) => readiness.word(),
            Self::Expired => "expired",
            Self::Gone => "gone",
        })
    }
}

impl State {
    /// Whether the member may own slots.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Is(_))
    }
}

impl Fleet {
    /// The fleet of a slot map and Leases, each with its age in seconds.
    pub fn of(names: &Names, map: Option<&SlotMap>, leases: &[(LeaseRecord, u64)]) -> Self {
        let slots = map.map(slots_by_owner).unwrap_or_default();
        let members: Vec<Member> = leases.iter().map(|(lease, age)| Member::of(names, lease, *age, &slots)).collect();
        let owned: usize = members.iter().filter(|it| it.state.is_alive()).map(|it| it.slots.len()).sum();
        Self {
            generation: map.map_or(0, |map| map.content.generation),
            coordinator: map.and_then(|map| owner(names, map, Scope::Coordinator.entry(), leases)),
            unowned_slots: SLOTS - owned.min(SLOTS),
            members,
        }
    }

    /// Number of members that may own slots.
    pub fn alive(&self) -> usize {
        self.members.iter().filter(|it| it.state.is_alive()).count()
    }
}

impl Member {
    fn of(names: &Names, lease: &LeaseRecord, age: u64, slots: &BTreeMap<&Incarnation, SlotSet>) -> Self {
        let has_expired = lease.duration_seconds > 0 && age > u64::from(lease.duration_seconds);
        let state = match &lease.holder {
            None => State::Gone,
            Some(_) if has_expired => State::Expired,
            Some(_) => State::Is(lease.facts.readiness),
        };
        Self {
            name: names.pod(&lease.name).to_owned(),
            incarnation: lease.holder.clone(),
            state,
            slots: lease.holder.as_ref().and_then(|holder| slots.get(holder)).copied().unwrap_or_default(),
            template: lease.facts.template.clone(),
            objects: lease.facts.objects,
            lease_age_seconds: age,
            handovers: lease.facts.handovers,
            seen_generation: lease.facts.generation,
        }
    }
}

/// Name of the member that owns the slot of the object with this uid.
pub fn owner_of(names: &Names, map: &SlotMap, uid: &str, leases: &[(LeaseRecord, u64)]) -> Option<String> {
    owner(names, map, Slot::of_uid(uid).into(), leases)
}

fn owner(names: &Names, map: &SlotMap, entry: Entry, leases: &[(LeaseRecord, u64)]) -> Option<String> {
    let owner = map.content.holding(entry)?.owner.as_ref()?;
    let lease = leases.iter().find(|(lease, _)| lease.holder.as_ref() == Some(owner));
    lease.map(|(lease, _)| names.pod(&lease.name).to_owned())
}

/// Slots of each owner, without the coordinator's place.
pub(crate) fn slots_by_owner(map: &SlotMap) -> BTreeMap<&Incarnation, SlotSet> {
    let mut all: BTreeMap<&Incarnation, SlotSet> = BTreeMap::new();
    for (entry, holding) in map.content.entries() {
        if let (Some(owner), Ok(slot)) = (&holding.owner, u8::try_from(entry.0)) {
            all.entry(owner).or_default().insert(Slot::new(slot));
        }
    }
    all
}

/// What one member gained and gave away between two versions of the slot map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Number of slots that it gained.
    pub gained: usize,
    /// Pods of their former owners.
    pub from: BTreeSet<String>,
    /// Number of slots that it gave away.
    pub given: usize,
    /// Pods of their new owners.
    pub to: BTreeSet<String>,
}

impl Moved {
    /// What this member gained and gave away.
    pub fn of(me: &Incarnation, before: &SlotMap, now: &SlotMap) -> Self {
        let mut moved = Self::default();
        for ((entry, former), (_, next)) in before.content.entries().zip(now.content.entries()) {
            let (former, next) = (former.owner.as_ref(), next.owner.as_ref());
            if former == next || usize::from(entry.0) >= SLOTS {
                continue;
            }
            if next == Some(me) {
                moved.gained += 1;
                moved.from.extend(former.map(|it| it.pod().to_owned()));
            }
            if former == Some(me) {
                moved.given += 1;
                moved.to.extend(next.map(|it| it.pod().to_owned()));
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        map::{Content, Holding},
        member::{Facts, Version},
    };

    fn names() -> Names {
        let text = str::to_owned;
        Names { group: text("example.com"), prefix: text("example.com"), namespace: text("a"), name: text("b") }
    }

    fn lease(pod: &str, holder: Option<Incarnation>) -> (LeaseRecord, u64) {
        let version = Version { uid: pod.into(), number: 1 };
        let facts = Facts { readiness: Readiness::Ready, template: "5d4".into(), objects: 7, ..Facts::default() };
        let name = names().lease(pod).into();
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
        let leases = [("a", Some(members[0].clone())), ("b", Some(members[1].clone())), ("c", None)];
        (map, leases.map(|(pod, holder)| lease(pod, holder)).into(), members)
    }

    #[test]
    fn owners_and_unowned_slots_are_shown() {
        let (map, leases, _) = world();
        let fleet = Fleet::of(&names(), Some(&map), &leases);
        assert_eq!((fleet.unowned_slots, fleet.coordinator.as_deref(), fleet.alive()), (6, Some("b"), 2));
        assert_eq!((fleet.members[0].slots.len(), fleet.members[0].slots.to_string()), (200, "0-199".to_owned()));
        assert_eq!(Fleet::of(&names(), None, &[]), Fleet { unowned_slots: SLOTS, ..Fleet::default() });
    }

    #[test]
    fn slots_of_a_fenced_member_are_owned_by_nobody() {
        let (map, mut leases, _) = world();
        leases[1].0.holder = None;
        let fleet = Fleet::of(&names(), Some(&map), &leases);
        assert_eq!((fleet.unowned_slots, fleet.coordinator), (56, None));
    }

    #[test]
    fn a_member_whose_lease_ran_out_owns_nothing() {
        let (map, mut leases, _) = world();
        let of = |leases: &[(LeaseRecord, u64)]| {
            let fleet = Fleet::of(&names(), Some(&map), leases);
            (fleet.members[1].state.to_string(), fleet.unowned_slots)
        };
        leases[1].1 = 15;
        assert_eq!(of(&leases), ("ready".to_owned(), 6));
        leases[1].1 = 16;
        assert_eq!(of(&leases), ("expired".to_owned(), 56));
        leases[1].0.duration_seconds = 0;
        assert_eq!(of(&leases).0, "ready", "it does not say how long it counts");
    }

    #[test]
    fn an_object_is_owned_by_the_member_of_its_slot() {
        let (map, leases, _) = world();
        let uid = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
        assert_eq!(Slot::of_uid(uid).number(), 0xbd);
        assert_eq!(owner_of(&names(), &map, uid, &leases).as_deref(), Some("a"));
    }

    #[test]
    fn what_moved_is_told_from_what_stayed() {
        let (before, _, [a, b]) = world();
        let mut now = before.clone();
        for slot in [198, 199] {
            now.content.give(Entry(slot), Some(b.clone()), 0);
        }
        now.content.give(Entry(255), Some(b.clone()), 0);
        now.content.give(Entry(0), None, 0);
        now.content.give(Scope::Coordinator.entry(), Some(a.clone()), 0);
        let pods = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<_>>();
        let of_b = Moved { gained: 3, from: pods(&["uid-a"]), ..Moved::default() };
        assert_eq!(Moved::of(&b, &before, &now), of_b);
        let of_a = Moved { given: 3, to: pods(&["uid-b"]), ..Moved::default() };
        assert_eq!(Moved::of(&a, &before, &now), of_a);
    }
}
