//! Which objects a list or watch selects.

use kube_sharding::hash::fnv1a64;
use serde_json::Value;

use crate::call::{Call, Place};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

/// A collection, narrowed by labels and by name.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    collection: Place,
    labels: Vec<Requirement>,
    /// Fields of the metadata, and their required values.
    fields: Vec<(String, String)>,
    /// Ranges of the hash of the uid, of which the last is excluded; none if all are selected.
    ranges: Vec<(u128, u128)>,
}

impl Selector {
    pub(crate) fn of(call: &Call) -> Self {
        let fields = call.parameter("fieldSelector").split(',').filter_map(|it| it.split_once('='));
        let fields = fields.map(|(key, value)| (key.to_owned(), value.trim_start_matches('=').to_owned())).collect();
        let labels = requirements(call.parameter("labelSelector"));
        Self { collection: call.place.clone(), labels, fields, ranges: ranges(call.parameter("shardSelector")) }
    }

    pub(crate) fn selects(&self, place: &Place, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"][key].as_str();
        let field = |path: &str| path.split('.').fold(object, |value, key| &value[key]).as_str().unwrap_or_default();
        let hash = || u128::from(fnv1a64(field("metadata.uid").as_bytes()));
        self.collection.holds(place)
            && (self.ranges.is_empty() || self.ranges.iter().any(|(from, to)| (*from..*to).contains(&hash())))
            && self.fields.iter().all(|(path, wanted)| field(path) == wanted)
            && self.labels.iter().all(|requirement| match requirement {
                Requirement::In(key, values) => label(key).is_some_and(|it| values.iter().any(|value| value == it)),
                Requirement::NotIn(key, values) => label(key).is_none_or(|it| values.iter().all(|value| value != it)),
                Requirement::Exists(key) => label(key).is_some(),
                Requirement::Missing(key) => label(key).is_none(),
            })
    }
}

/// Parses a selector of ranges of the hash (KEP-5866): `shardRange(object.metadata.uid,'0x…','0x…') || …`.
fn ranges(text: &str) -> Vec<(u128, u128)> {
    let number = |text: &str| u128::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let range = |text: &str| {
        let mut words = text.split('\'');
        Some((number(words.nth(1)?)?, number(words.nth(1)?)?))
    };
    text.split(" || ").filter_map(range).collect()
}

/// Parses a label selector: requirements are separated by commas outside of parentheses.
fn requirements(text: &str) -> Vec<Requirement> {
    let (mut found, mut depth, mut part) = (Vec::new(), 0, String::new());
    for character in text.chars().chain([',']) {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                found.extend(requirement(part.trim()));
                part.clear();
                continue;
            }
            _ => {}
        }
        part.push(character);
    }
    found
}

fn requirement(text: &str) -> Option<Requirement> {
    let one = |key: &str, value: &str| (key.trim().to_owned(), vec![value.trim_start_matches('=').trim().to_owned()]);
    let list = |key: &str, values: &str| {
        let values = values.trim().trim_start_matches('(').trim_end_matches(')').split(',');
        (key.trim().to_owned(), values.map(|it| it.trim().to_owned()).collect())
    };
    if text.is_empty() {
        return None;
    }
    if let Some(key) = text.strip_prefix('!') {
        return Some(Requirement::Missing(key.trim().to_owned()));
    }
    if let Some((key, values)) = text.split_once(" notin ") {
        let (key, values) = list(key, values);
        return Some(Requirement::NotIn(key, values));
    }
    if let Some((key, values)) = text.split_once(" in ") {
        let (key, values) = list(key, values);
        return Some(Requirement::In(key, values));
    }
    if let Some((key, value)) = text.split_once("!=") {
        let (key, values) = one(key, value);
        return Some(Requirement::NotIn(key, values));
    }
    Some(match text.split_once('=') {
        Some((key, value)) => {
            let (key, values) = one(key, value);
            Requirement::In(key, values)
        }
        None => Requirement::Exists(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_select_as_in_kubernetes() {
        let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        let table = [
            ("a=1", true),
            ("a==1", true),
            ("a=2", false),
            ("a!=2", true),
            ("c!=2", true),
            ("a", true),
            ("!a", false),
            ("!c", true),
            ("a in (1,3),b", true),
            ("a in (3),b", false),
            ("a notin (1)", false),
            ("a=1,!b", false),
        ];
        for (text, wanted) in table {
            let labels = requirements(text);
            let selector = Selector { collection: Place::default(), labels, fields: Vec::new(), ranges: Vec::new() };
            assert_eq!(selector.selects(&Place::default(), &object), wanted, "{text}");
        }
    }

    #[test]
    fn ranges_are_of_the_hash_without_their_end() {
        let text = "shardRange(object.metadata.uid,'0x0000000000000000','0x0300000000000000') || \
                    shardRange(object.metadata.uid,'0xfe00000000000000','0x10000000000000000')";
        assert_eq!(ranges(text), [(0, 3 << 56), (0xfe << 56, 1 << 64)]);
        assert_eq!(ranges(""), []);
    }
}
