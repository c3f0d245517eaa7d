//! Objects by something else than their name, such as the Secret that they reference, from the changes that a watch delivers.

use std::{collections::BTreeMap, hash::Hash};

use dashmap::DashMap;
use kube::Resource;

use crate::{cache::Change, key::Key};

/// How the objects of an index are found.
pub trait By: 'static {
    /// What the watch delivers.
    type Form: Resource;
    /// What they are found by.
    type Of: Clone + Eq + Hash;
    /// What is noted of each.
    type Note: Clone;

    /// What an object is found by, and what is noted of it; None if it is not looked for.
    fn of(object: &Self::Form) -> Option<(Self::Of, Self::Note)>;
}

/// Keys of objects by what these are found by, with what is noted of each.
pub struct Index<B: By>(DashMap<B::Of, BTreeMap<Key, B::Note>>);

impl<B: By> Default for Index<B> {
    fn default() -> Self {
        Self(DashMap::new())
    }
}

impl<B: By> Index<B> {
    /// Takes a change in.
    pub fn update(&self, change: &Change<B::Form>) {
        match change {
            Change::Applied { now, before } => {
                let (key, found) = (Key::of(now.as_ref()), B::of(now));
                let former = before.as_deref().and_then(B::of).map(|(of, _)| of);
                let is_elsewhere = |former: &B::Of| found.as_ref().is_none_or(|(of, _)| of != former);
                if let Some(former) = former.filter(is_elsewhere) {
                    self.remove(&former, &key);
                }
                if let Some((of, note)) = found {
                    self.0.entry(of).or_default().insert(key, note);
                }
            }
            Change::Deleted(gone) => {
                if let Some((of, _)) = B::of(gone) {
                    self.remove(&of, &Key::of(gone.as_ref()));
                }
            }
        }
    }

    /// The objects that are found by this, with what is noted of each.
    pub fn of(&self, by: &B::Of) -> BTreeMap<Key, B::Note> {
        self.0.get(by).map(|entry| entry.value().clone()).unwrap_or_default()
    }

    /// Whether an object is found by this.
    pub fn has(&self, by: &B::Of) -> bool {
        self.0.contains_key(by)
    }

    /// What objects are found by for which `is_meant` holds, given that and what is noted of the objects.
    pub fn filter(&self, is_meant: impl Fn(&B::Of, &BTreeMap<Key, B::Note>) -> bool) -> Vec<B::Of> {
        let found = self.0.iter().filter(|entry| is_meant(entry.key(), entry.value()));
        found.map(|entry| entry.key().clone()).collect()
    }

    fn remove(&self, by: &B::Of, key: &Key) {
        if let Some(mut objects) = self.0.get_mut(by) {
            objects.remove(key);
        }
        self.0.remove_if(by, |_, objects| objects.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    /// Objects by their label `of`, with the label `note`.
    struct ByLabel;

    impl By for ByLabel {
        type Form = ConfigMap;
        type Of = String;
        type Note = Option<String>;

        fn of(object: &ConfigMap) -> Option<(String, Option<String>)> {
            Some((object.labels().get("of").cloned()?, object.labels().get("note").cloned()))
        }
    }

    fn object(name: &str, labels: &serde_json::Value) -> Arc<ConfigMap> {
        let made = json!({"metadata": {"name": name, "namespace": "a", "labels": labels}});
        Arc::new(serde_json::from_value(made).expect("a ConfigMap"))
    }

    #[test]
    fn an_object_is_found_by_what_it_has_now_and_by_nothing_once_it_is_gone() {
        let index = Index::<ByLabel>::default();
        let has = |by: &str| index.has(&by.to_owned());
        let names = |by: &str| index.of(&by.to_owned()).into_keys().map(|key| key.name).collect::<Vec<_>>();
        let first = object("first", &json!({"of": "one"}));
        let second = object("second", &json!({"of": "one", "note": "x"}));
        for it in [&first, &second] {
            index.update(&Change::Applied { now: Arc::clone(it), before: None });
        }
        index.update(&Change::Applied { now: object("third", &json!({})), before: None });
        assert_eq!(names("one"), ["first", "second"]);
        assert_eq!(index.filter(|_, notes| notes.values().any(Option::is_some)), ["one"]);
        let moved = object("second", &json!({"of": "other"}));
        index.update(&Change::Applied { now: Arc::clone(&moved), before: Some(second) });
        assert_eq!((names("one"), names("other")), (vec!["first".to_owned()], vec!["second".to_owned()]));
        assert!(index.filter(|_, notes| notes.values().any(Option::is_some)).is_empty(), "its note is another now");
        index.update(&Change::Deleted(first));
        index.update(&Change::Applied { now: object("second", &json!({})), before: Some(moved) });
        assert!(!has("one") && !has("other") && index.0.is_empty(), "nothing is kept of what is found by nothing");
    }
}
