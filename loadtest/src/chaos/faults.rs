//! Which faults come, drawn from a seed, and how a map or a Lease is edited by hand.

use std::time::Duration;

use serde_json::{Value, json};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9; the container is started again in its pod, or another pod comes.
    Kill {
        /// In its pod.
        same_pod: bool,
    },
    /// SIGSTOP, and SIGCONT after this.
    Stop(Duration),
    /// SIGTERM; another pod comes.
    Terminate,
    /// The Lease of a member is deleted.
    LeaseDeleted,
    /// It is edited by hand.
    Lease(LeaseEdit),
    /// The API server is killed and started again with its etcd.
    ApiServerKilled,
    /// The map is edited by hand.
    Map(MapEdit),
}

/// What a person does to a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEdit {
    /// It has no holder.
    NoHolder,
    /// A stranger holds it.
    Stranger,
    /// It was renewed long ago.
    Old,
}

/// What a person does to the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapEdit {
    /// What a member has is free.
    MemberRemoved,
    /// What a member has belongs to one that nobody knows.
    UnknownMember,
    /// A member stands in the list a second time, and half of what it has belongs to that.
    MemberTwice,
    /// The epochs of a member's slots are this.
    Epochs(i64),
    /// The map is deleted, its finalizer too.
    Deleted,
}

/// A fault, how long after the one before, and on which of the members.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// Time to wait first.
    pub wait: Duration,
    /// Number of the member, modulo how many there are.
    pub pick: usize,
    /// What it is.
    pub fault: Fault,
}

/// Edits of the map, as often as they come.
const MAP_EDITS: [MapEdit; 10] = [
    MapEdit::MemberRemoved,
    MapEdit::MemberRemoved,
    MapEdit::UnknownMember,
    MapEdit::MemberTwice,
    MapEdit::Epochs(1),
    MapEdit::Epochs(0),
    // The definition of the map allows neither of these two: the API server refuses them.
    MapEdit::Epochs(-7),
    MapEdit::Epochs(i64::MAX),
    // The largest that it allows.
    MapEdit::Epochs(9_007_199_254_740_991),
    MapEdit::Deleted,
];

/// The faults of a seed, for ever.
pub fn plan(seed: u64, map_by_hand: bool) -> impl Iterator<Item = Planned> + Send {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(move || Planned {
        wait: Duration::from_millis(random.u64(1_500..5_000)),
        pick: random.usize(0..1_000),
        fault: draw(&mut random, map_by_hand),
    })
}

fn draw(random: &mut fastrand::Rng, map_by_hand: bool) -> Fault {
    match random.u32(0..if map_by_hand { 100 } else { 75 }) {
        0..22 => Fault::Kill { same_pod: random.bool() },
        22..46 => Fault::Stop(Duration::from_millis(random.u64(1_000..10_000))),
        46..56 => Fault::Terminate,
        56..64 => Fault::LeaseDeleted,
        64..72 => Fault::Lease([LeaseEdit::NoHolder, LeaseEdit::Stranger, LeaseEdit::Old][random.usize(0..3)]),
        72..75 => Fault::ApiServerKilled,
        _ => Fault::Map(MAP_EDITS[random.usize(0..MAP_EDITS.len())]),
    }
}

impl LeaseEdit {
    /// Whether its holder holds it no more.
    pub fn ends_a_life(self) -> bool {
        self != Self::Old
    }

    /// As a merge patch.
    pub fn patch(self) -> Value {
        match self {
            Self::NoHolder => json!({"spec": {"holderIdentity": ""}}),
            Self::Stranger => json!({"spec": {"holderIdentity": "stranger_1"}}),
            Self::Old => json!({"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}}),
        }
    }
}

impl MapEdit {
    /// For people.
    pub fn word(self) -> String {
        match self {
            Self::MemberRemoved => "member removed".to_owned(),
            Self::UnknownMember => "unknown member".to_owned(),
            Self::MemberTwice => "member twice".to_owned(),
            Self::Epochs(epoch) => format!("epochs {epoch}"),
            Self::Deleted => "deleted".to_owned(),
        }
    }

    /// Edits a map's spec; `pick` says whose.
    pub fn apply(self, spec: &mut Value, pick: usize) {
        let members = spec["members"].as_array().map_or(0, Vec::len);
        if members == 0 {
            return;
        }
        let chosen = i64::try_from(pick % members).unwrap_or(0);
        let mine: Vec<usize> = positions(spec, chosen);
        match self {
            Self::MemberRemoved => set(spec, "owners", &mine, &json!(-1)),
            Self::UnknownMember => spec["members"][pick % members] = json!("nobody_1"),
            Self::MemberTwice => {
                let again = spec["members"][pick % members].clone();
                if let Some(list) = spec["members"].as_array_mut() {
                    list.push(again);
                }
                let half: Vec<usize> = mine.into_iter().step_by(2).collect();
                set(spec, "owners", &half, &json!(members));
            }
            Self::Epochs(epoch) => set(spec, "epochs", &mine, &json!(epoch)),
            Self::Deleted => {}
        }
    }
}

fn set(spec: &mut Value, field: &str, indexes: &[usize], value: &Value) {
    for index in indexes {
        spec[field][*index] = value.clone();
    }
}

/// The entries of the member with this index.
fn positions(spec: &Value, member: i64) -> Vec<usize> {
    let owners = spec["owners"].as_array().into_iter().flatten().enumerate();
    owners.filter(|(_, owner)| owner.as_i64() == Some(member)).map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_faults_and_all_of_them() {
        let some = |seed| plan(seed, true).take(2_000).map(|it| format!("{:?}", it.fault)).collect::<Vec<_>>();
        assert_eq!(some(7), some(7));
        assert_ne!(some(7), some(8));
        for wanted in [
            "Kill",
            "Stop(",
            "Terminate",
            "LeaseDeleted",
            "Stranger",
            "ApiServer",
            "Epochs(0)",
            "Epochs(-7)",
            "Deleted",
        ] {
            assert!(some(7).iter().any(|it| it.contains(wanted)), "{wanted}");
        }
        assert!(plan(7, false).take(2_000).all(|it| !matches!(it.fault, Fault::Map(_))));
    }

    #[test]
    fn the_map_is_edited_as_said() {
        let map = || json!({"members": ["a_1", "b_1"], "owners": [0, 1, 1, 0, 1], "epochs": [5, 5, 5, 5, 5]});
        let edited = |edit: MapEdit| {
            let mut map = map();
            edit.apply(&mut map, 1);
            map
        };
        assert_eq!(edited(MapEdit::MemberRemoved)["owners"], json!([0, -1, -1, 0, -1]));
        assert_eq!(edited(MapEdit::UnknownMember)["members"], json!(["a_1", "nobody_1"]));
        assert_eq!(edited(MapEdit::MemberTwice)["owners"], json!([0, 2, 1, 0, 2]));
        assert_eq!(edited(MapEdit::MemberTwice)["members"], json!(["a_1", "b_1", "b_1"]));
        assert_eq!(edited(MapEdit::Epochs(0))["epochs"], json!([5, 0, 0, 5, 0]));
    }
}
