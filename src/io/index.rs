//! What is found by something else than its name, by what a watch shows: also after a crash, since nothing of it is written.

use std::{collections::BTreeMap, hash::Hash};

use dashmap::DashMap;
use kube::{ResourceExt, core::DynamicObject};

use super::{cache::Change, compact::Compact};

/// How the objects of one index are found.
pub trait By: 'static {
    /// What they are found by.
    type Of: Clone + Eq + Hash;
    /// What is noted of each.
    type Note: Clone;

    /// What an object is found by; nothing of one that is not looked for.
    fn of(object: &DynamicObject) -> Option<Self::Of>;

    /// What is noted of it.
    fn note(object: &DynamicObject) -> Self::Note;
}

/// The names of objects by what these are found by, with what is noted of each.
pub struct Index<B: By>(DashMap<B::Of, BTreeMap<String, B::Note>>);

impl<B: By> Default for Index<B> {
    fn default() -> Self {
        Self(DashMap::new())
    }
}

impl<B: By> Index<B> {
    /// Takes a change in.
    pub fn update(&self, change: &Change<Compact>) {
        match change {
            Change::Applied { now, before } => {
                let now = now.open();
                let of = B::of(&now);
                let former = before.as_ref().and_then(|it| Some((B::of(&it.open())?, it.name_any())));
                if let Some((former, name)) = former.filter(|(former, _)| of.as_ref() != Some(former)) {
                    self.remove(&former, &name);
                }
                if let Some(of) = of {
                    self.0.entry(of).or_default().insert(now.name_any(), B::note(&now));
                }
            }
            Change::Deleted(gone) => {
                if let Some(of) = B::of(&gone.open()) {
                    self.remove(&of, &gone.name_any());
                }
            }
        }
    }

    /// The objects that are found by this, with what is noted of each.
    pub fn of(&self, by: &B::Of) -> BTreeMap<String, B::Note> {
        self.0.get(by).map(|entry| entry.value().clone()).unwrap_or_default()
    }

    /// Whether an object is found by this.
    pub fn has(&self, by: &B::Of) -> bool {
        self.0.contains_key(by)
    }

    /// By what an object is found of which `is_meant` holds, by that and what is noted of the objects.
    pub fn filter(&self, is_meant: impl Fn(&B::Of, &BTreeMap<String, B::Note>) -> bool) -> Vec<B::Of> {
        let found = self.0.iter().filter(|entry| is_meant(entry.key(), entry.value()));
        found.map(|entry| entry.key().clone()).collect()
    }

    fn remove(&self, by: &B::Of, name: &str) {
        if let Some(mut names) = self.0.get_mut(by) {
            names.remove(name);
        }
        self.0.remove_if(by, |_, names| names.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    /// Objects by their label `of`, with the label `note`.
    struct ByLabel;

    impl By for ByLabel {
        type Of = String;
        type Note = Option<String>;

        fn of(object: &DynamicObject) -> Option<String> {
            object.labels().get("of").cloned()
        }

        fn note(object: &DynamicObject) -> Option<String> {
            object.labels().get("note").cloned()
        }
    }

    fn object(name: &str, labels: &serde_json::Value) -> Arc<Compact> {
        let made = json!({"metadata": {"name": name, "namespace": "a", "labels": labels}});
        Arc::new(serde_json::from_value(made).expect("an object"))
    }

    #[test]
    fn an_object_is_found_by_what_it_has_now_and_by_nothing_once_it_is_gone() {
        let index = Index::<ByLabel>::default();
        let has = |by: &str| index.has(&by.to_owned());
        let names = |by: &str| index.of(&by.to_owned()).into_keys().collect::<Vec<_>>();
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
