//! Which hosts each site holds, by what the watch of FrappeDomains shows: a site that wants a host no longer must find
//! the claim that it made for it, also after a crash.

use std::collections::BTreeSet;

use dashmap::DashMap;
use kube::ResourceExt;

use crate::io::{cache::Change, compact::Compact};

/// Hosts by the uid of the site that holds them.
#[derive(Default)]
pub struct Claims(DashMap<String, BTreeSet<String>>);

impl Claims {
    /// Takes a change in.
    pub fn saw(&self, change: &Change<Compact>) {
        match change {
            Change::Applied { now, before } => {
                if let Some(before) = before.as_ref().filter(|before| holder_uid(before) != holder_uid(now)) {
                    self.remove(before);
                }
                if let Some(uid) = holder_uid(now) {
                    self.0.entry(uid).or_default().insert(now.name_any());
                }
            }
            Change::Deleted(gone) => self.remove(gone),
        }
    }

    /// The hosts that a site holds.
    pub fn of(&self, uid: &str) -> BTreeSet<String> {
        self.0.get(uid).map(|entry| entry.value().clone()).unwrap_or_default()
    }

    fn remove(&self, domain: &Compact) {
        let Some(uid) = holder_uid(domain) else { return };
        if let Some(mut hosts) = self.0.get_mut(&uid) {
            hosts.remove(&domain.name_any());
        }
        self.0.remove_if(&uid, |_, hosts| hosts.is_empty());
    }
}

fn holder_uid(domain: &Compact) -> Option<String> {
    domain.open().data["spec"]["site"]["uid"].as_str().map(str::to_owned)
}
