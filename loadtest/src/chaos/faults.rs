//! Random faults from a seed, and edits of the map and of Leases by users.

use std::time::Duration;

use serde_json::{Value, json};

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// kill -9; the container is restarted in its pod, or another pod is started.
    Kill {
        /// Whether it is restarted in its pod.
        same_pod: bool,
    },
    /// SIGSTOP, and SIGCONT after this.
    Stop(Duration),
    /// SIGTERM; another pod is started.
    Terminate,
    /// The Lease of a member is deleted.
    LeaseDeleted,
    /// The Lease of a member is edited.
    Lease(LeaseEdit),
    /// The API server is killed and restarted with its etcd.
    ApiServerKilled,
    /// The map is edited.
    Map(MapEdit),
}

/// An edit of a Lease by a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEdit {
    /// It has no holder.
    NoHolder,
    /// It has an unknown holder.
    Stranger,
    /// It was renewed long ago.
    Old,
}

/// An edit of the map by a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapEdit {
    /// A member's slots become unowned.
    MemberRemoved,
    /// A member's slots get an unknown owner.
    UnknownMember,
    /// A member is listed twice, and the second entry has half of its slots.
    MemberTwice,
    /// The epochs of a member's slots get this value.
    Epochs(i64),
    /// The map is deleted despite its finalizer.
    Deleted,
}

/// A fault, its delay after the previous one, and its member.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// Delay.
    pub wait: Duration,
    /// Number of the member, modulo the number of members.
    pub pick: usize,
    /// The fault.
    pub fault: Fault,
}

/// Edits of the map, repeated by their frequency.
const MAP_EDITS: [MapEdit; 10] = [
    MapEdit::MemberRemoved,
    MapEdit::MemberRemoved,
    MapEdit::UnknownMember,
    MapEdit::MemberTwice,
    MapEdit::Epochs(1),
    MapEdit::Epochs(0),
    // The CRD allows neither of these two: the API server rejects them.
    MapEdit::Epochs(-7),
    MapEdit::Epochs(i64::MAX),
    // The largest allowed value.
    MapEdit::Epochs(9_007_199_254_740_991),
    MapEdit::Deleted,
];

/// The endless sequence of faults of a seed.
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
    /// Whether the holder loses its Lease.
    pub fn ends_an_incarnation(self) -> bool {
        self != Self::Old
    }

    /// The edit as a merge patch.
    pub fn patch(self) -> Value {
        match self {
            Self::NoHolder => json!({"spec": {"holderIdentity": ""}}),
            Self::Stranger => json!({"spec": {"holderIdentity": "stranger_1"}}),
            Self::Old => json!({"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}}),
        }
    }
}

impl MapEdit {
    /// The edit's name in the report.
    pub fn name(self) -> String {
        match self {
            Self::MemberRemoved => "member removed".to_owned(),
            Self::UnknownMember => "unknown member".to_owned(),
            Self::MemberTwice => "member twice".to_owned(),
            Self::Epochs(epoch) => format!("epochs {epoch}"),
            Self::Deleted => "deleted".to_owned(),
        }
    }

    /// Edits a map's spec; `pick` is the member's index.
    pub fn apply(self, spec: &mut Value, pick: usize) {
        let members = spec["members"].as_array().map_or(0, Vec::len);
        if members == 0 {
            return;
        }
        let chosen = i64::try_from(pick % members).unwrap_or(0);
        let mine: Vec<usize> = positions(spec, chosen);
        match self {
            Self::MemberRemoved => set(spec, "owners", &mine, &json!(-1)),
            Self::UnknownMember => spec["members"][pick % members] = json!("unknown_1"),
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
    fn edits_of_the_map_are_applied() {
        let map = || json!({"members": ["a_1", "b_1"], "owners": [0, 1, 1, 0, 1], "epochs": [5, 5, 5, 5, 5]});
        let edited = |edit: MapEdit| {
            let mut map = map();
            edit.apply(&mut map, 1);
            map
        };
        assert_eq!(edited(MapEdit::MemberRemoved)["owners"], json!([0, -1, -1, 0, -1]));
        assert_eq!(edited(MapEdit::UnknownMember)["members"], json!(["a_1", "unknown_1"]));
        assert_eq!(edited(MapEdit::MemberTwice)["owners"], json!([0, 2, 1, 0, 2]));
        assert_eq!(edited(MapEdit::MemberTwice)["members"], json!(["a_1", "b_1", "b_1"]));
        assert_eq!(edited(MapEdit::Epochs(0))["epochs"], json!([5, 0, 0, 5, 0]));
    }
}
