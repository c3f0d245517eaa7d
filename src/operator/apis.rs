//! Which of the optional APIs exist, by the CustomResourceDefinitions that there are.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use crate::{
    domain::capabilities::Api,
    io::{cache::Change, compact::Compact},
};

/// Whether each optional API exists.
pub(super) type Present = BTreeMap<Api, watch::Receiver<bool>>;

/// The CustomResourceDefinitions that were seen, and the optional APIs that are known by them.
pub(super) struct Definitions {
    seen: BTreeSet<String>,
    exists: BTreeMap<Api, watch::Sender<bool>>,
}

impl Definitions {
    /// None was seen yet.
    pub(super) fn new() -> (Self, Present) {
        let exists: BTreeMap<Api, watch::Sender<bool>> =
            Api::ALL.iter().map(|api| (*api, watch::Sender::new(false))).collect();
        let present = exists.iter().map(|(api, sender)| (*api, sender.subscribe())).collect();
        (Self { seen: BTreeSet::new(), exists }, present)
    }

    /// A definition came or went, as [`serves`] says.
    pub(super) fn update(&mut self, definition: String, is_there: bool) {
        let changed = if is_there { self.seen.insert(definition) } else { self.seen.remove(&definition) };
        if !changed {
            return;
        }
        for (api, sender) in &self.exists {
            let known = api.is_known_by(&self.seen);
            sender.send_if_modified(|exists| std::mem::replace(exists, known) != known);
        }
    }
}

/// Whether a definition's kind can be used: one that is being deleted takes no new object, and stays for as long as its
/// objects have finalizers, which may be for ever where who would take them off is gone already.
pub(super) fn serves(change: &Change<Compact>) -> bool {
    matches!(change, Change::Applied { now, .. } if now.open().metadata.deletion_timestamp.is_none())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    /// KEDA removed in the wrong order leaves its definitions Terminating: it is gone all the same.
    #[test]
    fn a_definition_that_is_being_deleted_does_not_serve() {
        let definition = |deleted: Value| -> Arc<Compact> {
            let metadata = json!({"name": "scaledobjects.keda.sh", "deletionTimestamp": deleted});
            let object = json!({"kind": "PartialObjectMetadata", "metadata": metadata});
            Arc::new(serde_json::from_value(object).expect("a definition"))
        };
        let applied = |now: Arc<Compact>| Change::Applied { now, before: None };
        assert!(serves(&applied(definition(Value::Null))));
        assert!(!serves(&applied(definition(json!("2026-01-01T00:00:00Z")))));
        assert!(!serves(&Change::Deleted(definition(Value::Null))));
    }

    #[test]
    fn an_api_comes_and_goes_with_its_definitions() {
        let (mut definitions, present) = Definitions::new();
        let keda = &present[&Api::Keda];
        definitions.update("scaledobjects.keda.sh".to_owned(), true);
        assert!(!*keda.borrow(), "one of two is missing");
        definitions.update("triggerauthentications.keda.sh".to_owned(), true);
        assert!(*keda.borrow());
        definitions.update("scaledobjects.keda.sh".to_owned(), false);
        assert!(!*keda.borrow());
    }
}
