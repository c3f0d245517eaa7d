//! Where the sites of a bench are, as the coordinator counts them. Pure.

use std::{collections::BTreeMap, time::Duration};

use frappe_crds::{
    FrappeBench, FrappeSite, FrappeSiteStatus,
    bench::Revision,
    site::{UpdatePolicy, UpdateResult},
};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    controllers::duration,
    domain::{condition, key::Key, uid},
};

/// Number of the first revision, whose folder is the root of the volume.
pub const FIRST_REVISION: i32 = 1;

/// How long a revision without sites keeps its pods by default.
const SCALE_DOWN_DELAY: Duration = Duration::from_mins(10);

/// The revisions of a bench, the newest one last; none of a bench that has had only one.
pub fn revisions(bench: &FrappeBench) -> &[Revision] {
    bench.status.as_ref().map(|status| status.revisions.as_slice()).unwrap_or_default()
}

/// Number of the revision that serves a site.
pub fn revision_of(status: &FrappeSiteStatus) -> i32 {
    status.revision.unwrap_or(FIRST_REVISION)
}

/// Time until a revision without sites is retired.
pub fn retires_in(bench: &FrappeBench, revision: &Revision, now: Timestamp) -> Option<Duration> {
    let since = revision.empty_since.as_ref().filter(|_| !revision.retired)?;
    let strategy = bench.spec.update_strategy.as_ref();
    let delay = duration::of(strategy.and_then(|it| it.scale_down_delay.as_ref()), SCALE_DOWN_DELAY);
    let elapsed = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
    Some(delay.saturating_sub(elapsed))
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
    /// Whether its database could not be restored after that.
    pub broken: bool,
    /// The revision to which it moves now.
    pub goes_to: Option<i32>,
    /// The revision from which a user made it return.
    pub undone: Option<i32>,
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
        let last = status.last_update;
        let undone = last.as_ref().filter(|it| it.result == UpdateResult::Undone).and_then(|it| Some(it.moves?.to));
        let running =
            status.operation.and_then(|it| it.update).filter(|it| last.as_ref().is_none_or(|last| last.id != it.id));
        let goes_to = running.and_then(|it| Some(it.moves?.to));
        let broken = last.as_ref().is_some_and(|it| it.result == UpdateResult::RollbackFailed);
        let failed = last.filter(|it| !matches!(it.result, UpdateResult::Updated | UpdateResult::Undone));
        let failed = failed.and_then(|it| Some((it.moves?.to, it.message.unwrap_or_default())));
        Some(Self {
            key: Key::of(site),
            uid: uid::of(site).to_owned(),
            labels: site.labels().clone(),
            revision: present,
            failed,
            broken,
            goes_to,
            undone,
            held: is_refused || site.spec.suspend == Some(true) || is_manual && goes_to.is_none(),
        })
    }

    /// How far it is on its way to a revision.
    pub fn way(&self, to: i32) -> Way<'_> {
        match &self.failed {
            _ if self.revision == to => Way::Moved,
            Some((revision, message)) if *revision == to => Way::Failed(message),
            _ if self.held || self.undone == Some(to) && self.goes_to != Some(to) => Way::Held,
            _ => Way::Waiting,
        }
    }
}
