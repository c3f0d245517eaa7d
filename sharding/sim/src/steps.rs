//! What happens in a cluster without a request, a step at a time, when a test asks.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    call::BY_HAND,
    garbage::{FOREGROUND, finalizers},
    server::Server,
};

impl Server {
    /// Forgets what led to the present version, and ends every watch: who watched must list again (410 Gone).
    pub fn compact(&self) {
        let mut store = self.store();
        // The present version is too old too: what was seen last lies before it.
        store.version += 1;
        store.compacted = store.version;
        store.history.clear();
        store.watchers.clear();
    }

    /// Ends every watch: who watched goes on from what it saw last.
    pub fn end_watches(&self) {
        self.store().watchers.clear();
    }

    /// Tells every watch of every object once more, at the version that it has.
    pub fn replay(&self) {
        let store = self.store();
        for watcher in &store.watchers {
            store.objects.iter().for_each(|(place, object)| watcher.show("MODIFIED", place, object));
        }
    }

    /// What a watch is told that has heard of everything: that nothing more happened up to this version.
    pub(crate) fn bookmark(&self) -> Bytes {
        let metadata = json!({"resourceVersion": self.store().version.to_string()});
        let object = json!({"kind": "Bookmark", "apiVersion": "v1", "metadata": metadata});
        format!("{{\"type\":\"BOOKMARK\",\"object\":{object}}}\n").into()
    }

    /// Deletes what has no owner left and what is in a namespace that is being deleted, ends foreground deletions whose
    /// dependents are gone, and removes namespaces that are empty. Answers how many steps that took.
    pub fn collect_garbage(&self) -> usize {
        let (now, mut steps) = (self.now().to_string(), 0);
        let mut store = self.store();
        while let Some((place, ends)) = store.next_garbage() {
            steps += 1;
            if !ends {
                store.delete(&place, &[], &now, BY_HAND);
                continue;
            }
            let Some(live) = store.objects.get(&place) else { continue };
            let mut object = Value::clone(live);
            let left: Vec<String> = finalizers(&object).into_iter().filter(|it| it != FOREGROUND).collect();
            object["metadata"]["finalizers"] = json!(left);
            store.commit(&place, object, left.is_empty(), BY_HAND);
        }
        drop(store);
        self.tell_changes();
        steps
    }
}
