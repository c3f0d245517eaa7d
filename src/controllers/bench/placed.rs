//! Where the sites of a bench are, as the coordinator counts them. Pure.

use std::collections::BTreeMap;

use frappe_crds::{
    FrappeBench, FrappeSite, FrappeSiteStatus,
    bench::Revision,
    site::{UpdatePolicy, UpdateResult},
};
use kube::ResourceExt;

use crate::domain::{condition, key::Key, uid};

/// Number of the first revision, whose folder is the root of the volume.
pub const FIRST_REVISION: i32 = 1;

/// The revisions of a bench, the newest one last; none of a bench that has had only one.
pub fn revisions(bench: &FrappeBench) -> &[Revision] {
    bench.status.as_ref().map(|status| status.revisions.as_slice()).unwrap_or_default()
}

/// Number of the revision that serves a site.
pub fn revision_of(status: &FrappeSiteStatus) -> i32 {
    status.revision.unwrap_or(FIRST_REVISION)
}

/// A site with data on its bench's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedSite {
    /// The site.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Number of the revision that serves it.
    pub revision: i32,
    /// The revision to which it could not move, and why.
    pub failed: Option<(i32, String)>,
    /// Whether it must not move: it is suspended, waits for a user, or no newer revision can serve it.
    pub held: bool,
}

/// How far a site is on its way to a revision.
#[derive(Debug, PartialEq, Eq)]
pub enum Way<'a> {
    /// The revision serves it.
    Moved,
    /// It did not succeed.
    Failed(&'a str),
    /// It must not move.
    Held,
    /// It has not moved yet.
    Waiting,
}

impl PlacedSite {
    /// A site of any bench; None before anything of it is created.
    pub fn of(site: &FrappeSite) -> Option<Self> {
        let status = site.status.clone().unwrap_or_default();
        if !status.initialized && status.operation.is_none() && status.identity.is_none() {
            return None;
        }
        let present = revision_of(&status);
        let up_to_date = condition::find(&status.conditions, "UpToDate");
        let is_refused = up_to_date.is_some_and(|it| it.reason == "UpdateRefused");
        let is_manual = site.spec.update.as_ref().and_then(|it| it.policy) == Some(UpdatePolicy::Manual);
        let failed = status.last_update.filter(|it| it.result != UpdateResult::Updated);
        let failed = failed.and_then(|it| Some((it.moves?.to, it.message.unwrap_or_default())));
        let is_moving = status.operation.and_then(|it| it.update).is_some_and(|it| it.moves.is_some());
        Some(Self {
            key: Key::of(site),
            uid: uid::of(site).to_owned(),
            labels: site.labels().clone(),
            revision: present,
            failed,
            held: is_refused || site.spec.suspend == Some(true) || is_manual && !is_moving,
        })
    }

    /// How far it is on its way to a revision.
    pub fn way(&self, to: i32) -> Way<'_> {
        match &self.failed {
            _ if self.revision == to => Way::Moved,
            Some((revision, message)) if *revision == to => Way::Failed(message),
            _ if self.held => Way::Held,
            _ => Way::Waiting,
        }
    }
}
