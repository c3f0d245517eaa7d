//! One reconcile of a site at a time, whichever controller makes it: what one plans by the site's status, the other must not
//! change meanwhile.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::domain::key::Key;

/// The sites of which something is reconciled.
#[derive(Clone, Default)]
pub struct Locks(Arc<DashMap<Key, Arc<Mutex<()>>>>);

/// The right to reconcile a site, until it is dropped.
pub struct Locked {
    locks: Locks,
    site: Key,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Locks {
    /// Waits until nothing else of the site is reconciled.
    pub async fn lock(&self, site: &Key) -> Locked {
        let lock = Arc::clone(&self.0.entry(site.clone()).or_default());
        // Made before the wait: who gives up waiting forgets the site too.
        let mut locked = Locked { locks: self.clone(), site: site.clone(), guard: None };
        locked.guard = Some(lock.lock_owned().await);
        locked
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.guard = None;
        // A holder or waiter has its own reference, and the map cannot change in the meantime.
        self.locks.0.remove_if(&self.site, |_, lock| Arc::strong_count(lock) == 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    ///
    #[tokio::test]
    async fn one_site_is_reconciled_once_at_a_time() {
        let (locks, shop) = (Locks::default(), Key::new("a", "shop"));
        let first = locks.lock(&shop).await;
        assert!(locks.lock(&Key::new("a", "other")).now_or_never().is_some(), "another site is another's");
        let second = tokio::spawn({
            let (locks, shop) = (locks.clone(), shop.clone());
            async move { locks.lock(&shop).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!second.is_finished());
        // One that gives up waiting takes nothing from the others.
        assert!(locks.lock(&shop).now_or_never().is_none());
        drop(first);
        let second = second.await.expect("the second");
        assert!(locks.lock(&shop).now_or_never().is_none());
        drop(second);
        assert!(locks.lock(&shop).now_or_never().is_some());
        assert!(locks.0.is_empty(), "nothing is kept of a site that is at rest");
    }
}
