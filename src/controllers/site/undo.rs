//! Return of a site to the revision that it left by its last update, because a user asks for it. Pure.
//!
//! A site that was migrated returns with the dump of before its migration: what was written since is lost, so that the annotation names the
//! very update. A site whose schema did not change returns as it is. It happens only by name, and whatever waves, windows and pause say.

use std::time::Duration;

use frappe_crds::{
    FrappeBench, FrappeSiteStatus,
    site::{LastUpdate, Move, UpdateGoal, UpdateResult},
};
use kube::ResourceExt;

use super::{attempts, model::Observed, reason::Reason};
use crate::{
    controllers::bench::placed::{self, retires_in},
    domain::{condition::Conditions, labels, names::hash_hex},
};

/// The condition about it.
const UNDONE: &str = "Undone";
/// The pods of a revision must run at least this long still: the site is on its way to them.
const MARGIN: Duration = Duration::from_mins(1);

/// What a user asks for.
pub enum Asked {
    /// Nothing that is not done yet.
    Nothing,
    /// To undo an update, by this way back.
    Return {
        /// Id of the update.
        undoes: String,
        /// The way back.
        way: Move,
    },
    /// What is not possible, and why.
    Refused(String),
}

/// What a user asks for by the annotation `rollback`.
pub fn asked(observed: &Observed, status: &FrappeSiteStatus, bench: &FrappeBench) -> Asked {
    if let Some((undoes, way)) = status.last_update.as_ref().and_then(failed) {
        let again = attempts::retries(observed, status);
        return if again { Asked::Return { undoes, way } } else { Asked::Nothing };
    }
    let Some(named) = observed.site.annotations().get(labels::ROLLBACK) else { return Asked::Nothing };
    let last = status.last_update.as_ref();
    if last.is_some_and(|it| it.undoes.as_ref() == Some(named)) {
        return Asked::Nothing;
    }
    match last
        .ok_or_else(|| "the site has not been updated yet".to_owned())
        .and_then(|it| way_back(observed, it, named, bench))
    {
        Ok(way) => Asked::Return { undoes: named.clone(), way },
        Err(why) => Asked::Refused(why),
    }
}

/// The way back from the last update, which must be the named one.
fn way_back(observed: &Observed, last: &LastUpdate, named: &str, bench: &FrappeBench) -> Result<Move, String> {
    if last.id != named {
        return Err(format!("only the last update can be undone, and that is {}", last.id));
    }
    if last.result != UpdateResult::Updated {
        return Err(format!("the update {named} has changed nothing"));
    }
    let Some(moves) = last.moves else {
        return Err("the site was migrated in place, and no pods of the former image run: restore a backup".to_owned());
    };
    let former = placed::revisions(bench).iter().find(|it| it.number == moves.from && it.complete && !it.retired);
    let Some(former) = former.filter(|it| retires_in(bench, it, observed.now).is_none_or(|left| left > MARGIN)) else {
        return Err(format!(
            "the pods of revision {} were removed after updateStrategy.scaleDownDelay: set its image, or restore a backup",
            moves.from
        ));
    };
    Ok(Move { from: moves.to, to: former.number })
}

/// The update that was to be undone, and the way back, if that failed.
fn failed(last: &LastUpdate) -> Option<(String, Move)> {
    let undoes = last.undoes.clone().filter(|_| last.result != UpdateResult::Undone)?;
    Some((undoes, last.moves?))
}

/// The goal of the Job.
pub fn goal(observed: &Observed, undoes: String, way: Move) -> UpdateGoal {
    let again = attempts::retry(observed).unwrap_or_default();
    let target = hash_hex(&format!("undo {undoes} {again}"), 16);
    UpdateGoal {
        id: attempts::new_id(observed, &target),
        target,
        back_only: false,
        migrate: None,
        moves: Some(way),
        undoes: Some(undoes),
    }
}

/// The update for the status after a return.
pub fn undone(way: Move) -> (UpdateResult, Move) {
    (UpdateResult::Undone, Move { from: way.to, to: way.from })
}

/// Sets the condition about what a user asks for and does not get.
pub fn set_undone(observed: &Observed, status: &mut FrappeSiteStatus) {
    status.conditions.retain(|it| it.type_ != UNDONE);
    let Some(bench) = observed.bench.as_deref().filter(|_| status.initialized) else { return };
    let refused = match asked(observed, status, bench) {
        Asked::Refused(why) => Some((Reason::UndoRefused, why)),
        Asked::Return { .. } => None,
        Asked::Nothing => {
            let last = status.last_update.as_ref().filter(|it| failed(it).is_some());
            last.map(|it| (Reason::UndoFailed, it.message.clone().unwrap_or_default()))
        }
    };
    let Some((reason, message)) = refused else { return };
    let former = observed.site.status.as_ref().map(|it| it.conditions.as_slice()).unwrap_or_default();
    let mut conditions = Conditions::new(former, observed.site.metadata.generation, observed.now);
    conditions.set(UNDONE, Some(false), &reason.to_string(), &message);
    status.conditions.extend(conditions.finish());
}

/// Why a site stays with the revision to which it returned.
pub fn why_not_again(last: &LastUpdate, moves: Move) -> Option<(Reason, String)> {
    let undone = last.undoes.as_ref().filter(|_| last.result == UpdateResult::Undone && last.moves == Some(moves))?;
    let message = format!(
        "revision {} serves it, because its update {undone} to revision {} was undone: set the annotation {} to a new value to update it again",
        moves.from,
        moves.to,
        labels::MIGRATE
    );
    Some((Reason::UpdateUndone, message))
}

/// Whether a return of the site failed such that its database could not be restored.
pub fn is_broken(status: &FrappeSiteStatus) -> bool {
    let last = status.last_update.as_ref().filter(|it| it.undoes.is_some());
    last.is_some_and(|it| it.result == UpdateResult::RollbackFailed)
}
