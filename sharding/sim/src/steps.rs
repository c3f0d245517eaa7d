//! What happens in a cluster without a request; each step is triggered by a test.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    call::BY_HAND,
    garbage::{FOREGROUND, finalizers},
    server::Server,
};

impl Server {
    /// Forgets the history up to the current version, and ends every watch: clients must list again (410 Gone).
    pub fn compact(&self) {
        let mut store = self.store();
        // The current version is too old, too: clients know only earlier ones.
        store.version += 1;
        store.compacted = store.version;
        store.history.clear();
        store.watchers.clear();
    }

    /// Ends every watch: clients continue from the last version that they received.
    pub fn end_watches(&self) {
        self.store().watchers.clear();
    }

    /// Sends every object to its watches again, at its current version.
    pub fn replay(&self) {
        let store = self.store();
        for watcher in &store.watchers {
            store.objects.iter().for_each(|(place, object)| watcher.send_object("MODIFIED", place, object));
        }
    }

    /// A bookmark: no change up to this version is missing.
    pub(crate) fn bookmark(&self) -> Bytes {
        let metadata = json!({"resourceVersion": self.store().version.to_string()});
        let object = json!({"kind": "Bookmark", "apiVersion": "v1", "metadata": metadata});
        format!("{{\"type\":\"BOOKMARK\",\"object\":{object}}}\n").into()
    }

    /// Deletes objects whose owners are deleted or whose namespace is being deleted, completes foreground deletions without
    /// dependents, and removes empty namespaces that are being deleted. Returns the number of steps.
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
        self.notify_changes();
        steps
    }
}
