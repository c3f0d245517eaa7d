//! Locks so that only one controller reconciles a site at a time: plans depend on the site's status, which the other controller must
//! not change in the meantime.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::domain::key::Key;

/// Locks by site.
#[derive(Clone, Default)]
pub struct Locks(Arc<DashMap<Key, Arc<Mutex<()>>>>);

/// A held lock, released when dropped.
pub struct Locked {
    locks: Locks,
    site: Key,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Locks {
    /// Waits for the lock of a site.
    pub async fn lock(&self, site: &Key) -> Locked {
        let lock = Arc::clone(&self.0.entry(site.clone()).or_default());
        // Created before the wait, so that a cancelled wait also removes the entry.
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
    async fn one_controller_at_a_time_reconciles_a_site() {
        let (locks, shop) = (Locks::default(), Key::new("a", "shop"));
        let first = locks.lock(&shop).await;
        assert!(locks.lock(&Key::new("a", "other")).now_or_never().is_some(), "another site has another lock");
        let second = tokio::spawn({
            let (locks, shop) = (locks.clone(), shop.clone());
            async move { locks.lock(&shop).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!second.is_finished());
        // A cancelled wait does not affect the others.
        assert!(locks.lock(&shop).now_or_never().is_none());
        drop(first);
        let second = second.await.expect("the second");
        assert!(locks.lock(&shop).now_or_never().is_none());
        drop(second);
        assert!(locks.lock(&shop).now_or_never().is_some());
        assert!(locks.0.is_empty(), "no entry is kept for an unlocked site");
    }
}
