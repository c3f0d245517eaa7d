//! The revision of its bench that serves a site, and moves to the newest one. Pure.

use frappe_crds::{
    FrappeBench, FrappeSite, FrappeSiteStatus,
    bench::{Revision, Rollout, RolloutPhase, Window},
    common::AppCode,
    site::{LastUpdate, Move, Operation, UpdateResult},
};

pub use crate::controllers::bench::placed::revision_of as present;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    controllers::{
        bench::{
            placed::{self, FIRST_REVISION},
            waves::Release,
        },
        windows::{Opening, Windows},
    },
    domain::{code::Code, key::Key, labels, uid},
};

/// The move that an operation makes, if it is one.
pub fn moves(operation: &Operation) -> Option<Move> {
    operation.update.as_ref()?.moves
}

/// Number of the revision that serves the site, or on which it is created: of a new site, the newest one that is complete.
pub fn home(status: &FrappeSiteStatus, bench: Option<&FrappeBench>) -> i32 {
    if status.revision.is_some() || status.initialized || status.operation.is_some() {
        return present(status);
    }
    let complete = revisions(bench).iter().rev().find(|it| it.complete && !it.retired);
    complete.map_or(FIRST_REVISION, |it| it.number)
}

/// The revision to record for a site that is created there; None on a bench that has had only one.
pub fn recorded(home: i32, bench: Option<&FrappeBench>) -> Option<i32> {
    (!revisions(bench).is_empty()).then_some(home)
}

/// The move to the newest revision, if that is complete and another one serves the site.
pub fn destination(status: &FrappeSiteStatus, bench: Option<&FrappeBench>) -> Option<Move> {
    let newest = revisions(bench).last().filter(|it| it.complete)?;
    let from = present(status);
    (from != newest.number).then_some(Move { from, to: newest.number })
}

/// Whether the rollout lets sites move that are released.
pub fn releases(rollout: &Rollout) -> bool {
    matches!(rollout.phase, RolloutPhase::Progressing | RolloutPhase::Soaking | RolloutPhase::Completed)
}

/// Whether the site may move.
pub fn is_released(site: &FrappeSite, bench: &FrappeBench, moves: Move) -> bool {
    let rollout = bench.status.as_ref().and_then(|it| it.rollout.as_ref());
    let Some(rollout) = rollout.filter(|it| it.to == moves.to && releases(it)) else { return false };
    let canary = bench.spec.update_strategy.as_ref().and_then(|it| it.canary.as_ref());
    Release::of(moves.to, &rollout.released, canary).includes(uid::of(site), site.labels())
}

/// Whether a user asks for this move now, whatever waves and windows say.
pub fn is_asked_now(site: &FrappeSite, moves: Move) -> bool {
    site.annotations().get(labels::UPDATE_NOW).is_some_and(|it| *it == moves.to.to_string())
}

/// Whether a window is open in which the site may start to move: its own, else its bench's.
pub fn opening(site: &FrappeSite, bench: &FrappeBench, now: Timestamp) -> Opening {
    let own = own_windows(site);
    if !own.is_empty() {
        return Windows::opening(own, &Key::of(site).to_string(), now);
    }
    let shared = bench.spec.update_strategy.as_ref().map(|it| it.windows.as_slice()).unwrap_or_default();
    Windows::opening(shared, &Key::of(bench).to_string(), now)
}

/// The site's own windows.
fn own_windows(site: &FrappeSite) -> &[Window] {
    site.spec.update.as_ref().map(|it| it.windows.as_slice()).unwrap_or_default()
}

/// Until when the site waits for a window of its own, if it may move otherwise. For windows of the bench, the bench says it: here it would be
/// a write for each site.
pub fn waits_for_own_window(site: &FrappeSite, bench: &FrappeBench, moves: Move, now: Timestamp) -> Option<Timestamp> {
    if own_windows(site).is_empty() || is_asked_now(site, moves) || !is_released(site, bench, moves) {
        return None;
    }
    let opening = opening(site, bench, now);
    opening.changes_at().filter(|_| opening.is_closed())
}

/// Records where a Job found the site, if that is another revision than recorded: the directory is what decides.
pub fn correct(status: &mut FrappeSiteStatus, bench: Option<&FrappeBench>) {
    let outcome = status.operation.as_ref().and_then(|it| it.outcome.as_ref());
    let elsewhere = outcome.filter(|it| it.code.parse() == Ok(Code::SiteElsewhere)).and_then(|it| it.revision);
    if let Some(found) = elsewhere.filter(|found| revisions(bench).iter().any(|it| it.number == *found && !it.retired))
    {
        status.revision = Some(found);
    }
}

/// Code of a revision; of the newest one, as it was found in the image.
pub fn code(bench: Option<&FrappeBench>, number: i32) -> &[AppCode] {
    let revisions = revisions(bench);
    let earlier = revisions.split_last().map(|(_, earlier)| earlier).unwrap_or_default();
    let newest = bench.and_then(|it| it.status.as_ref()).map(|it| it.apps.as_slice()).unwrap_or_default();
    earlier.iter().find(|it| it.number == number).map_or(newest, |it| it.apps.as_slice())
}

/// The last update, if it was this move and failed.
pub fn failed(status: &FrappeSiteStatus, moves: Move) -> Option<&LastUpdate> {
    let last = status.last_update.as_ref()?;
    (last.result != UpdateResult::Updated && last.moves == Some(moves)).then_some(last)
}

/// The first app that the code has in a lower version with another schema: Frappe cannot migrate backwards.
pub fn downgrade<'a>(present: &[AppCode], code: &'a [AppCode]) -> Option<&'a AppCode> {
    code.iter().find(|wanted| {
        let has_later = |it: &AppCode| it.schema != wanted.schema && numbers(it) > numbers(wanted);
        present.iter().any(|it| it.name == wanted.name && has_later(it))
    })
}

/// The numbers of a version, such as 15, 41 and 2.
fn numbers(app: &AppCode) -> Vec<u64> {
    let version = app.version.as_deref().unwrap_or_default();
    let release = version.split(['-', '+']).next().unwrap_or_default();
    release.split('.').map_while(|part| part.parse().ok()).collect()
}

fn revisions(bench: Option<&FrappeBench>) -> &[Revision] {
    bench.map(placed::revisions).unwrap_or_default()
}
