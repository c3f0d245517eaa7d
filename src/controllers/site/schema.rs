//! Whether a site's schema is that of its bench's image. Pure.

use frappe_crds::{
    FrappeBench, FrappeSiteStatus,
    common::AppCode,
    site::{Move, OperationKind, UpdatePolicy, UpdateResult},
};

use super::{
    model::{Configuration, Observed},
    reason::Reason,
    revision, undo,
};
use crate::domain::{
    condition::{self, Conditions},
    labels,
};

/// The condition about it.
const UP_TO_DATE: &str = "UpToDate";

/// How the schema of a site compares with the image's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Of the site or of the image it is not known.
    Unknown,
    /// They are the same.
    Fits,
    /// The schemas of these apps differ, or the image lacks the app.
    Differs(Vec<String>),
}

/// Compares the schemas of the site's apps with those of the image that serves it.
pub fn fit(site: &FrappeSiteStatus, bench: Option<&FrappeBench>) -> Fit {
    let (image, site) = (revision::code(bench, revision::present(site)), of_site(site, bench));
    if image.is_empty() || site.is_empty() {
        return Fit::Unknown;
    }
    let same =
        |app: &AppCode| image.iter().any(|it| it.name == app.name && (it.schema == app.schema || app.schema.is_none()));
    let other: Vec<String> = site.iter().filter(|app| !same(app)).map(|app| app.name.clone()).collect();
    if other.is_empty() { Fit::Fits } else { Fit::Differs(other) }
}

/// Whether nginx runs the bench's image completely: it then holds the sites whose schema differs.
pub fn is_held(bench: &FrappeBench) -> bool {
    let status = bench.status.as_ref();
    status.is_some_and(|status| status.front_revision == status.desired_revision)
}

/// Schemas of the site's apps: as recorded, else as assumed for a site of an earlier version of the operator.
pub fn of_site(site: &FrappeSiteStatus, bench: Option<&FrappeBench>) -> Vec<AppCode> {
    if !site.apps.is_empty() || !site.initialized {
        return site.apps.clone();
    }
    let assumed = bench.and_then(|bench| bench.status.as_ref()).map(|it| it.assumed_apps.as_slice());
    only(assumed.unwrap_or_default(), &site.installed_apps)
}

/// Code of a revision for the apps that the site has, or will have.
pub fn of_revision(
    number: i32,
    site: Option<&FrappeSiteStatus>,
    bench: Option<&FrappeBench>,
    wanted: Option<&Configuration>,
) -> Vec<AppCode> {
    let present = site.map(|it| it.installed_apps.as_slice()).unwrap_or_default();
    let more = wanted.map(|it| it.request.apps.as_slice()).unwrap_or_default();
    let frappe = ["frappe".to_owned()];
    let names: Vec<String> = frappe.iter().chain(present).chain(more).cloned().collect();
    only(revision::code(bench, number), &names)
}

fn only(code: &[AppCode], names: &[String]) -> Vec<AppCode> {
    code.iter().filter(|app| names.contains(&app.name)).cloned().collect()
}

/// Schemas after a Job that installed and removed apps: a new app has the image's, the others keep theirs.
pub fn after_change(before: &[AppCode], installed: &[String], image: &[AppCode]) -> Vec<AppCode> {
    if before.is_empty() {
        return Vec::new();
    }
    let of = |name: &String| before.iter().chain(image).find(|app| app.name == *name).cloned();
    installed.iter().filter_map(of).collect()
}

/// Sets the condition UpToDate. A site of an earlier version of the operator has it only if its schema differs, so that an upgrade of the
/// operator does not write to every site.
pub fn set_up_to_date(observed: &Observed, status: &mut FrappeSiteStatus) {
    let former = observed.site.status.as_ref().map(|it| it.conditions.as_slice()).unwrap_or_default();
    let mut conditions = Conditions::new(former, observed.site.metadata.generation, observed.now);
    let bench = observed.bench.as_deref();
    let moves = revision::destination(status, bench);
    match fit(status, bench) {
        // An earlier revision serves it with the schema of that one. A move that did not succeed is reported.
        _ if moves.is_some() => {
            let why = |moves| why_not_moved(observed, status, moves).or_else(|| why_waits(observed, moves));
            if let Some((reason, message)) = moves.and_then(why) {
                conditions.set(UP_TO_DATE, Some(false), &reason.to_string(), &message);
            } else {
                let Some(before) = condition::find(former, UP_TO_DATE) else { return };
                conditions.keep(before);
            }
        }
        Fit::Unknown => return,
        // Until nginx runs the image, the previous one serves the site: what is known of it stays.
        Fit::Differs(_) if !bench.is_some_and(is_held) => {
            let Some(before) = condition::find(former, UP_TO_DATE) else { return };
            conditions.keep(before);
        }
        Fit::Fits if status.apps.is_empty() => return,
        Fit::Fits => {
            let message = "the database has the schema of the bench's image";
            conditions.set(UP_TO_DATE, Some(true), &Reason::UpToDate.to_string(), message);
        }
        Fit::Differs(apps) => {
            let message = format!("the schema of {} is not that of the bench's image", apps.join(", "));
            conditions.set(UP_TO_DATE, Some(false), &why(status).to_string(), &message);
        }
    }
    status.conditions.retain(|it| it.type_ != UP_TO_DATE);
    status.conditions.extend(conditions.finish());
}

/// Why a site stays with an earlier revision of its bench, if it does not only wait for its turn.
pub fn why_not_moved(observed: &Observed, status: &FrappeSiteStatus, moves: Move) -> Option<(Reason, String)> {
    let bench = observed.bench.as_deref();
    if let Some(undone) = status.last_update.as_ref().and_then(|it| undo::why_not_again(it, moves)) {
        return Some(undone);
    }
    if let Some(last) = revision::failed(status, moves) {
        let why = last.message.clone().unwrap_or_default();
        if last.result == UpdateResult::RollbackFailed {
            return Some((Reason::RollbackFailed, why));
        }
        let message =
            format!("revision {} serves it, because its update to revision {} failed: {why}", moves.from, moves.to);
        return Some((Reason::UpdateFailed, message));
    }
    let (present, code) = (of_site(status, bench), revision::code(bench, moves.to));
    let missing = present.iter().find(|app| !code.is_empty() && code.iter().all(|it| it.name != app.name));
    if let Some(app) = missing {
        let message =
            format!("revision {} serves it, because revision {} does not have {}", moves.from, moves.to, app.name);
        return Some((Reason::UpdateRefused, message));
    }
    if let Some(app) = revision::downgrade(&present, code) {
        let message = format!(
            "revision {} serves it, because {} has version {} in revision {}, and a database cannot be migrated to an earlier \
             schema",
            moves.from,
            app.name,
            app.version.as_deref().unwrap_or_default(),
            moves.to
        );
        return Some((Reason::UpdateRefused, message));
    }
    if observed.site.spec.update.as_ref().and_then(|it| it.policy) == Some(UpdatePolicy::Manual) {
        let message = format!(
            "revision {} serves it: set the annotation {} to a new value to update it to revision {} (update.policy is Manual)",
            moves.from,
            labels::MIGRATE,
            moves.to
        );
        return Some((Reason::UpdateManual, message));
    }
    None
}

/// Until when a site waits for a window of its own.
fn why_waits(observed: &Observed, moves: Move) -> Option<(Reason, String)> {
    let bench = observed.bench.as_deref()?;
    let opens = revision::waits_for_own_window(&observed.site, bench, moves, observed.now)?;
    let message = format!(
        "revision {} serves it until the window that opens at {opens}; the annotation {}: \"{}\" updates it now",
        moves.from,
        labels::UPDATE_NOW,
        moves.to
    );
    Some((Reason::OutsideWindow, message))
}

/// Why the site is not up to date.
fn why(status: &FrappeSiteStatus) -> Reason {
    let last = status.last_update.as_ref();
    let running = status.operation.as_ref().filter(|it| it.kind == OperationKind::Update);
    let goal = running.and_then(|it| it.update.as_ref());
    match (goal, last) {
        (Some(goal), last) if last.is_none_or(|last| last.id != goal.id) => Reason::Updating,
        (_, Some(last)) if last.result == UpdateResult::RollbackFailed => Reason::RollbackFailed,
        (Some(goal), Some(last)) if last.result != UpdateResult::Updated && goal.target == last.target => {
            Reason::UpdateFailed
        }
        _ => Reason::UpdateRequired,
    }
}
