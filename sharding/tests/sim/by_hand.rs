//! Edits of the slot map by a user.

use kube_sharding::map::NUMBER_MAX;
use kube_sharding_sim::Server;
use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};

use crate::fleet::names;

/// The collection of slot maps.
pub(crate) const MAPS: &str = "/apis/example.com/v1alpha1/namespaces/system/slotmaps";

/// Entries of a map.
const ENTRIES: usize = 257;

/// Makes one edit; returns its description.
pub(crate) fn edit_map(server: &Server, dice: &mut StdRng) -> String {
    let name = names().name;
    if dice.random_range(0..8) == 0 {
        server.remove(MAPS, &name);
        return "deleted".to_owned();
    }
    let mut said = String::new();
    server.change(MAPS, &name, |map| {
        let spec = &mut map["spec"];
        let kind = dice.random_range(0..16);
        match kind {
            0 => *spec = json!({}),
            1 => spec["members"] = json!([]),
            2 => spec["owners"] = json!(vec![-1; ENTRIES]),
            3 => spec["owners"].as_array_mut().into_iter().for_each(|it| it.truncate(100)),
            4 => spec["members"] = json!(["unknown_1", "nonsense", ""]),
            5 => spec["generation"] = json!([0, -1, NUMBER_MAX, i64::MAX][dice.random_range(0..4)]),
            6 => {
                // Every member is listed twice.
                let members = spec["members"].as_array().cloned().unwrap_or_default();
                let count = i64::try_from(members.len()).unwrap();
                spec["members"] = json!([members.clone(), members].concat());
                for owner in spec["owners"].as_array_mut().into_iter().flatten().step_by(2) {
                    *owner = json!(owner.as_i64().map(|it| if it < 0 { it } else { it + count }));
                }
            }
            7 => some(spec, "owners", dice, |dice| json!(dice.random_range(-3..9))),
            _ => {
                let epochs = [0, -1, 1, i64::MIN, i64::MAX, NUMBER_MAX, NUMBER_MAX - 1, NUMBER_MAX + 1];
                some(spec, "epochs", dice, |dice| json!(epochs[dice.random_range(0..epochs.len())]));
            }
        }
        said = format!("edit {kind}");
    });
    said
}

/// Changes some entries.
fn some(spec: &mut Value, list: &str, dice: &mut StdRng, value: impl Fn(&mut StdRng) -> Value) {
    let every = dice.random_range(1..50);
    for entry in spec[list].as_array_mut().into_iter().flatten().step_by(every) {
        *entry = value(dice);
    }
}
