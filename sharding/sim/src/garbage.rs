//! Deletion: finalizers, dependents, namespaces.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use crate::{call::Place, patch::set_or_remove, store::Store};

/// Finalizer of a deletion that waits until the object's dependents are deleted.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Collection of the namespaces.
pub(crate) const NAMESPACES: &str = "/api/v1/namespaces";

/// The finalizers of an object.
pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    let texts = object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Whether an object is being deleted.
pub(crate) fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

impl Store {
    /// Deletes an object, or sets its deletion timestamp if it has a finalizer. A namespace remains until it is empty.
    pub(crate) fn delete(&mut self, place: &Place, more: &[&str], now: &str, sender: usize) -> Option<Arc<Value>> {
        let live = self.objects.get(place)?;
        let (mut object, leaving) = (Value::clone(live), is_deleting(live));
        let held: BTreeSet<String> =
            finalizers(&object).into_iter().chain(more.iter().map(|it| (*it).to_owned())).collect();
        if held.is_empty() && place.resource != NAMESPACES {
            self.commit(place, object, true, sender);
            return None;
        }
        if leaving {
            return Some(Arc::clone(live));
        }
        object["metadata"]["deletionTimestamp"] = json!(now);
        object["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        let kept = if held.is_empty() { Value::Null } else { json!(held) };
        set_or_remove(&mut object["metadata"], "finalizers", &kept);
        if place.resource == NAMESPACES {
            object["status"]["phase"] = json!("Terminating");
        }
        Some(self.commit(place, object, false, sender))
    }

    fn owners(object: &Value) -> impl Iterator<Item = &Value> {
        object["metadata"]["ownerReferences"].as_array().into_iter().flatten()
    }

    /// The next object to delete, or whose deletion can continue; None once everything is done.
    pub(crate) fn next_garbage(&self) -> Option<(Place, bool)> {
        let uids: BTreeSet<&str> = self.objects.values().filter_map(|it| it["metadata"]["uid"].as_str()).collect();
        let exists = |owner: &Value| owner["uid"].as_str().is_some_and(|it| uids.contains(it));
        let dependents = |uid: &Value| {
            let uid = uid.clone();
            self.objects.iter().filter(move |(_, object)| Self::owners(object).any(|it| it["uid"] == uid))
        };
        self.objects.iter().find_map(|(place, object)| {
            let orphaned = Self::owners(object).next().is_some() && !Self::owners(object).any(exists);
            let namespace =
                Place { resource: NAMESPACES.into(), namespace: String::new(), name: place.namespace.clone() };
            let falls = self.objects.get(&namespace).is_some_and(|it| is_deleting(it));
            if (orphaned || falls) && !is_deleting(object) {
                return Some((place.clone(), false));
            }
            if place.resource == NAMESPACES && is_deleting(object) {
                let empty = !self.objects.keys().any(|it| it.namespace == place.name);
                return empty.then(|| (place.clone(), true));
            }
            if is_deleting(object) && finalizers(object).iter().any(|it| it == FOREGROUND) {
                let blocking = |it: &Value| Self::owners(it).any(|owner| owner["blockOwnerDeletion"] == true);
                let mut left = dependents(&object["metadata"]["uid"]).filter(|(_, it)| blocking(it)).peekable();
                if left.peek().is_none() {
                    return Some((place.clone(), true));
                }
                return left.find(|(_, it)| !is_deleting(it)).map(|(dependent, _)| (dependent.clone(), false));
            }
            None
        })
    }
}
