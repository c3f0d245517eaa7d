//! The plan of a site. Pure: every decision is made here and in the phases, none in its execution.

use frappe_crds::FrappeSite;

use super::{
    deletion::{self, Remains},
    model::{Observed, Plan},
    permissions::secrets::may_read_account,
    provision, record, revision, schema, status, steady_state, undo, update,
    valid_site::ValidSite,
    validate::{validate, validated::Validated},
};
use crate::{
    controllers::phase::{Next, Planned, fold},
    domain::labels,
};

/// A phase: its name and its function.
type Phase = (&'static str, fn(&ValidSite<'_>) -> Next<FrappeSite>);

/// The phases of a site whose spec is valid.
const PHASES: &[Phase] = &[
    ("labels", provision::labels),
    ("claims", provision::claims),
    ("decision", provision::decision),
    ("secrets", provision::secrets),
    ("database objects", provision::database_objects),
    ("database", provision::database),
    ("versions", provision::versions),
    ("init", provision::init),
    ("route", steady_state::route),
    ("former hosts", steady_state::former_hosts),
    ("update", update::update),
    ("configuration", steady_state::configuration),
];

/// The plan.
pub fn plan(observed: &Observed) -> Plan {
    planned(observed).0.plan
}

/// The plan, and the validated spec if a backup Job could be created with it.
pub fn planned(observed: &Observed) -> (Planned<FrappeSite>, Option<Validated>) {
    if labels::has_unread_status(observed.site.as_ref()) {
        // The recorded decisions about the site cannot be read: nothing is done, and nothing is overwritten.
        return (Planned { phase: "unread status", plan: Plan::default() }, None);
    }
    if observed.site.metadata.deletion_timestamp.is_some() {
        return (fold(deletion::PHASES, &Remains::of(observed)), None);
    }
    if observed.site.spec.suspend == Some(true) {
        let mut plan = Plan { status: Some(status::suspended(observed)), ..Plan::default() };
        plan.statuses().for_each(|status| schema::set_up_to_date(observed, status));
        return (Planned { phase: "suspension", plan }, None);
    }
    let valid = match validate(observed) {
        Ok(valid) => valid,
        Err(refusal) => {
            let mut plan = Plan { missing: refusal.missing, ..Plan::report(observed, &refusal.report, None) };
            plan.statuses().for_each(|status| schema::set_up_to_date(observed, status));
            return (Planned { phase: "validation", plan }, None);
        }
    };
    let known = record::known(observed);
    let site = ValidSite::of(observed, &valid, &known);
    let mut planned = fold(PHASES, &site);
    planned.plan.statuses().for_each(|status| {
        site.record(status);
        revision::correct(status, observed.bench.as_deref());
        schema::set_up_to_date(observed, status);
        undo::set_undone(observed, status);
    });
    let readable = valid.database.connection_secret().is_none_or(|it| may_read_account(observed, it));
    (planned, Some(valid).filter(|_| readable))
}
