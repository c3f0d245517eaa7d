//! A site with a valid spec, and the data that its phases share. Pure.

use std::time::Duration;

use frappe_crds::{
    FrappeSiteStatus,
    site::{SiteDatabase, SitePhase},
};
use kube::{ResourceExt, core::DynamicObject};

use super::{
    configuration::configuration,
    lost_secrets::replaces,
    model::{Configuration, Database, Input, Known, Observed, Report, Stage, Step, Subject},
    reason::Reason,
    record,
    secrets::secrets,
    validate::validated::Validated,
};
use crate::domain::{
    labels,
    live::{self, Condition},
};

/// Time within which the MariaDB operator's retries of a new object succeed.
const RETRIES_MAX: Duration = Duration::from_secs(20);

/// A site with a valid spec.
pub(super) struct ValidSite<'a> {
    /// The observed state.
    pub observed: &'a Observed,
    /// Input of the builders.
    pub input: Input<'a>,
    /// The recorded decision about its database.
    pub decided: SiteDatabase,
    /// Whether the status has that record, if anything is to be created with it.
    pub is_recorded: bool,
    /// Report while the MariaDB operator has not finished.
    pub database: Option<Report>,
    /// Steps for its Secrets.
    pub secrets: Vec<Step>,
    /// The desired configuration.
    pub wanted: Configuration,
}

impl<'a> ValidSite<'a> {
    /// The data that the phases share.
    pub fn of(observed: &'a Observed, valid: &'a Validated, known: &'a Known) -> Self {
        let input = Input::new(&observed.site, valid, known);
        let decided = record::record(known, &valid.database);
        let made = matches!(valid.database, Database::Made(_));
        let former = observed.site.status.as_ref();
        let is_recorded =
            !made || former.is_some_and(|it| it.identity.is_some() || it.database.as_ref() == Some(&decided));
        Self {
            observed,
            is_recorded,
            database: if made { database_report(observed) } else { None },
            secrets: secrets(observed, &input),
            wanted: configuration(observed, &input),
            decided,
            input,
        }
    }

    /// Fields of the status that do not depend on the phase.
    pub fn record(&self, status: &mut FrappeSiteStatus) {
        let Input { valid, subject: Subject { known, site, .. } } = self.input;
        let made = matches!(valid.database, Database::Made(_));
        status.database_name = made.then(|| known.name.clone());
        let credentials = valid.place.credentials().name;
        status.database_credentials_secret =
            Some(valid.database.connection_secret().map_or(credentials, str::to_owned));
        status.database = Some(self.decided.clone());
        status.object_prefix = valid.place.is_foreign().then(|| valid.place.stem.clone());
        // The Secret exists when an operation starts: from then on, a missing Secret is lost.
        if self.database.is_none() && self.is_recorded && status.operation.is_some() {
            status.identity = Some(known.identity.clone());
        }
        if replaces(self.observed) {
            status.last_replaced_secrets_at = site.annotations().get(labels::REPLACE_SECRETS).cloned();
        }
    }
}

/// Report while the MariaDB operator has not finished, if so.
fn database_report(observed: &Observed) -> Option<Report> {
    let served = observed.site.status.as_ref().is_some_and(|status| status.initialized);
    for (object, kind) in observed.sql.iter().zip(["Database", "User", "Grant"]) {
        let conditions = object.as_deref().map(live::conditions).unwrap_or_default();
        if conditions.iter().any(|it| it.holds("Ready")) {
            continue;
        }
        let is_tried_again = object.as_deref().and_then(|it| left_for_retries(it, observed)).is_some();
        return match conditions.iter().find(|it| has_failed(it)).filter(|_| !is_tried_again) {
            Some(failed) => {
                let why = failed.message().unwrap_or_default();
                let message = format!("the MariaDB operator could not create the {kind}: {why}");
                Some(Report {
                    phase: SitePhase::Provisioning,
                    ..Report::failed(Stage::Database, Stage::Database, Reason::DatabaseFailed, message)
                })
            }
            // An available site stays available while an object is recreated.
            None if served => None,
            None => Some(creating_database()),
        };
    }
    None
}

/// Time until the failure of a new object counts: the MariaDB operator creates a Grant although its User does not exist yet, fails, and
/// tries again.
pub(super) fn failure_counts_after(observed: &Observed) -> Option<Duration> {
    let failed = observed.sql.iter().flatten().filter(|it| live::conditions(it).iter().any(has_failed));
    failed.filter_map(|it| left_for_retries(it, observed)).max()
}

fn has_failed(condition: &Condition) -> bool {
    condition.is("Ready") && condition.reason() == "Failed"
}

fn left_for_retries(object: &DynamicObject, observed: &Observed) -> Option<Duration> {
    let created = object.metadata.creation_timestamp.as_ref()?.0;
    let elapsed = Duration::try_from(observed.now.duration_since(created)).unwrap_or_default();
    RETRIES_MAX.checked_sub(elapsed).filter(|left| !left.is_zero())
}

/// Report: the MariaDB operator is working.
pub(super) fn creating_database() -> Report {
    let message = "the MariaDB operator is creating the database, its user and grants";
    Report::provisioning(Stage::Database, Reason::CreatingDatabase, message)
}
