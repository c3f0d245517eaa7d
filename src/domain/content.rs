//! Which version of a Secret counts: the one at which what is read of it last changed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use frappe_crds::common::ReadSecret;

/// Stands for every key of a Secret; it is no name of a key.
pub const WHOLE: &str = "*";

/// Whether the record answers for this version, so that nothing has to be read.
pub fn answers(record: Option<&ReadSecret>, version: &str, keys: &BTreeSet<String>) -> bool {
    record.is_some_and(|it| it.version == version && keys.iter().all(|key| it.content.contains_key(key)))
}

/// The record of a Secret with this version and these hashes, of which `keys` are read; none if it could not be read, and only the version
/// tells.
pub fn counted(
    record: Option<&ReadSecret>,
    (name, version): (&str, &str),
    keys: &BTreeSet<String>,
    hashes: Option<&BTreeMap<String, String>>,
) -> ReadSecret {
    let found = |hashes: &BTreeMap<String, String>| {
        keys.iter().map(|key| (key.clone(), hashes.get(key).cloned().unwrap_or_default())).collect()
    };
    let content: BTreeMap<String, String> = hashes.map(found).unwrap_or_default();
    let is_same = |it: &&ReadSecret| {
        let same = !content.is_empty() && content.iter().all(|(key, hash)| it.content.get(key) == Some(hash));
        it.version == version || same
    };
    match record.filter(is_same) {
        Some(record) if content.is_empty() => record.clone(),
        Some(record) => ReadSecret { content, ..record.clone() },
        None => ReadSecret { name: name.to_owned(), version: version.to_owned(), content },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|it| (*it).to_owned()).collect()
    }

    fn hashes(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, hash)| ((*key).to_owned(), (*hash).to_owned())).collect()
    }

    fn record(version: &str, entries: &[(&str, &str)]) -> ReadSecret {
        ReadSecret { name: "redis".into(), version: version.into(), content: hashes(entries) }
    }

    #[test]
    fn only_what_is_read_counts() {
        let password = keys(&["password"]);
        let before = record("1", &[("password", "a")]);
        let count = |record: Option<&ReadSecret>, version, found: Option<&[(&str, &str)]>| {
            counted(record, ("redis", version), &password, found.map(hashes).as_ref())
        };
        let other_key = count(Some(&before), "2", Some(&[("password", "a"), ("note", "x")]));
        assert_eq!(other_key, before, "metadata and other keys");
        assert_eq!(count(Some(&before), "3", Some(&[("password", "b")])), record("3", &[("password", "b")]));
        assert_eq!(count(Some(&before), "3", Some(&[])), record("3", &[("password", "")]), "the key is gone");
        // A status of an earlier version of the operator records nothing: the present version goes on.
        assert_eq!(count(None, "1", Some(&[("password", "a")])), before);
        assert_eq!(count(Some(&before), "2", None), record("2", &[]), "without a hash every version counts");
        assert_eq!(count(Some(&before), "1", None), before);
        assert_eq!(count(Some(&record("1", &[])), "1", Some(&[("password", "a")])), before, "the hash is added");
        assert_eq!(count(Some(&record("1", &[])), "2", Some(&[("password", "a")])).version, "2", "nothing to compare");
    }

    /// Another key that is read is no change of the Secret: what reads it has changed.
    #[test]
    fn the_record_answers_for_its_version_and_its_keys() {
        let before = record("1", &[("password", "a")]);
        assert!(answers(Some(&before), "1", &keys(&["password"])));
        assert!(!answers(Some(&before), "2", &keys(&["password"])));
        assert!(!answers(Some(&before), "1", &keys(&["password", "user"])));
        assert!(!answers(None, "1", &keys(&["password"])));
        let found = hashes(&[("password", "a"), ("user", "u")]);
        let both = counted(Some(&before), ("redis", "1"), &keys(&["password", "user"]), Some(&found));
        assert_eq!(both, record("1", &[("password", "a"), ("user", "u")]));
    }
}
