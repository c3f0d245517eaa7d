//! What to do for a site. Pure: every choice is made here, none where the plan is carried out.

use std::{sync::Arc, time::Duration};

use frappe_crds::site::{OperationKind, SitePhase};
use kube::{ResourceExt, core::DynamicObject};
use serde_json::json;

use super::{
    build::{self, Cleanup},
    configuration::configuration,
    database, found,
    model::{
        Configuration, Database, Holder, Input, Observed, Part, Plan, Progress, Report, Server, Stage, Step, Validated,
    },
    operation::{self, waits_message},
    permissions::secrets::{is_reserved, keys, may_copy, may_read_account},
    place::Place,
    reason::Reason,
    record,
    references::named_secrets,
    status,
    steady_state::serve,
    validate::validate,
};
use crate::{
    controllers::adoption::is_as_found,
    domain::{condition, key::Key, labels, object::Kind},
};

/// The plan.
pub fn plan(observed: &Observed) -> Plan {
    planned(observed).0
}

/// The plan, and what validation made of the spec where a Job beside the site's own could be made by it.
pub fn planned(observed: &Observed) -> (Plan, Option<Validated>) {
    if labels::has_unread_status(observed.site.as_ref()) {
        // What was decided about the site is not known: nothing is done, and nothing is written over it.
        return (Plan::default(), None);
    }
    if observed.site.metadata.deletion_timestamp.is_some() {
        return (super::deletion::plan(observed), None);
    }
    if observed.site.spec.suspend == Some(true) {
        return (Plan { status: Some(status::suspended(observed)), ..Plan::default() }, None);
    }
    match ready(observed) {
        Ok(valid) => {
            let plan = provision(observed, &valid);
            let readable = valid.database.connection_secret().is_none_or(|it| may_read_account(observed, it));
            (plan, Some(valid).filter(|_| readable))
        }
        Err(plan) => (*plan, None),
    }
}

/// What validation made of the spec; or the plan of a site that something stands in the way of.
fn ready(observed: &Observed) -> Result<Validated, Box<Plan>> {
    let stop = |report: &Report, missing: bool| Box::new(Plan { missing, ..Plan::report(observed, report, None) });
    // No watch shows a Secret before it is read for a site.
    let of_secret = |report: &Report| matches!(report.reason, Reason::SecretRefused | Reason::SecretCopyRefused);
    let valid = validate(observed).map_err(|report| stop(&report, of_secret(&report)))?;
    let taken = observed.claims.iter().find_map(|claim| match &claim.holder {
        Holder::Other(holder) => Some((&claim.host, holder)),
        _ => None,
    });
    if let Some((host, holder)) = taken {
        // A tenant has no business with another's names.
        let own = observed.site.namespace().as_ref() == Some(&holder.namespace);
        let by = if own { format!("FrappeSite {holder}") } else { "a site in another namespace".to_owned() };
        let message = format!("host {host} is already used by {by}: choose another host, or delete that site");
        return Err(stop(&Report::pending(Stage::Database, Stage::Route, Reason::HostClaimed, message), false));
    }
    if let Some(report) = record::foreign_secret(observed, &record::known(observed), &valid.database) {
        return Err(stop(&report, false));
    }
    match lost_secret(observed).or_else(|| missing_secret(observed, &valid)) {
        Some(report) => Err(stop(&report, true)),
        None => Ok(valid),
    }
}

/// A Secret that was there once and is gone: its password is in the database, so that another is made only where a person
/// asks for that.
fn lost_secret(observed: &Observed) -> Option<Report> {
    if replaces(observed) {
        return None;
    }
    let place = Place::of(&observed.site);
    let status = observed.site.status.clone().unwrap_or_default();
    let had = status.identity.is_some() || observed.sql[1].is_some();
    let generated = observed.site.spec.admin_password_secret_ref.is_none();
    let name = if had && observed.credentials.is_none() {
        place.credentials().name
    } else if status.identity.is_some() && generated && observed.admin_secret().is_none() {
        observed.admin_secret_name()
    } else {
        return None;
    };
    let message = format!(
        "Secret {name} was deleted and is not regenerated automatically, because the site still uses the old password: \
         restore the Secret from a backup, or set the annotation {} to a new value to generate and set a new password; the \
         site is still served",
        labels::REPLACE_SECRETS
    );
    Some(Report::failed(Stage::Database, Stage::Database, Reason::SecretLost, message))
}

/// Whether a person asked for lost Secrets to be replaced, and was not answered yet. Without the site's identity in its
/// status nothing could be replaced by something that fits.
pub(super) fn replaces(observed: &Observed) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    let asked = observed.site.annotations().get(labels::REPLACE_SECRETS);
    let known = status.identity.is_some() || status.database.is_some();
    asked.is_some() && asked != status.last_replaced_secrets_at.as_ref() && known
}

/// A Secret that the site names and that does not exist.
fn missing_secret(observed: &Observed, valid: &Validated) -> Option<Report> {
    let spec = &observed.site.spec;
    let lacks = |name: &str| !observed.secrets.contains_key(name);
    let connection = valid.database.connection_secret().filter(|name| lacks(name));
    // Once the site exists, its Secret may be put away: a password that is not there is not changed.
    let exists = observed.site.status.as_ref().is_some_and(|status| status.initialized);
    let admin = spec.admin_password_secret_ref.as_ref().map(|it| it.name.as_str());
    let admin = admin.filter(|name| !exists && lacks(name));
    let entry = spec.site_config_secret_refs.values().map(|it| it.name.as_str()).find(|name| lacks(name));
    let (at, reason, message) = if let Some(name) = connection {
        let message = format!("Secret {name} does not exist: create it with the keys username and password");
        (Stage::Database, Reason::ConnectionSecretMissing, message)
    } else if let Some(name) = admin {
        let message = format!("Secret {name} does not exist: create it with the key password");
        (Stage::Init, Reason::AdminPasswordSecretMissing, message)
    } else {
        let message = format!("Secret {} does not exist, but siteConfigSecretRefs refers to it: create it", entry?);
        (Stage::Init, Reason::SiteConfigSecretMissing, message)
    };
    Some(Report::pending(Stage::Database, at, reason, message))
}

fn provision(observed: &Observed, valid: &Validated) -> Plan {
    let known = record::known(observed);
    let input = Input { site: &observed.site, valid, known: &known };
    let mut steps: Vec<Step> = adopt(observed).into_iter().collect();
    if !valid.withholds(Part::Route) {
        steps.extend(claim(observed, &input));
    }
    let decided = record::record(&known, &valid.database);
    let secrets = secrets(observed, &input);
    // The versions of Secrets that are made or labelled now are known only afterwards.
    let secrets_change = !secrets.is_empty();
    let mut making = secrets;
    making.extend(made_objects(observed, &input));
    let made = matches!(valid.database, Database::Made(_));
    let waits = sql_report(observed).filter(|_| made);
    let former = observed.site.status.clone().unwrap_or_default();
    let is_recorded = !made || former.identity.is_some() || former.database.as_ref() == Some(&decided);
    let wanted = configuration(observed, &input);
    let mut plan = match &waits {
        Some(report) => Plan::report(observed, report, None),
        None if !is_recorded => Plan::report(observed, &creating_database(), None),
        None if secrets_change => {
            steps.extend(making);
            return Plan { steps, again_after: Some(Duration::ZERO), ..Plan::default() };
        }
        None => initialize(observed, &input, &wanted),
    };
    for status in plan.statuses() {
        status.database_name = made.then(|| known.name.clone());
        let credentials = valid.place.credentials().name;
        status.database_credentials_secret =
            Some(valid.database.connection_secret().map_or(credentials, str::to_owned));
        status.database = Some(decided.clone());
        status.object_prefix = valid.place.is_foreign().then(|| valid.place.stem.clone());
        // The Secret is there when an operation begins: from then on its absence is a loss.
        if waits.is_none() && is_recorded && status.operation.is_some() {
            status.identity = Some(known.identity.clone());
        }
        if replaces(observed) {
            status.last_replaced_secrets_at = observed.site.annotations().get(labels::REPLACE_SECRETS).cloned();
        }
    }
    if is_recorded {
        steps.extend(making);
    } else {
        // What is decided is written down before anything is made by it.
        plan.again_after = waits.is_none().then_some(Duration::ZERO);
        plan.last.splice(0..0, making);
    }
    steps.append(&mut plan.steps);
    plan.steps = steps;
    plan
}

/// Database, account and rights, with the server where it is the site's own.
fn made_objects(observed: &Observed, input: &Input) -> Vec<Step> {
    let Database::Made(server) = &input.valid.database else { return Vec::new() };
    let mut steps = server_steps(observed, input, server);
    let objects = [build::database, build::user, build::grant].map(|it| it(input, server, Cleanup::Skip));
    let objects = objects.into_iter().zip(&observed.sql);
    steps.extend(objects.map(|(desired, live)| found::ensure(observed, desired, live.as_deref())));
    steps
}

/// Slot, bench and finalizer, in one patch.
fn adopt(observed: &Observed) -> Option<Step> {
    let site = &observed.site;
    let slot = kube_sharding::Slot::of_uid(&site.uid().unwrap_or_default()).to_string();
    let place = Place::of(site);
    let mut wanted = vec![(labels::SLOT, slot.as_str()), (labels::BENCH_OF_SITE, site.spec.bench_ref.name.as_str())];
    wanted.extend(place.is_foreign().then_some((labels::BENCH_NAMESPACE, place.namespace.as_str())));
    let labelled = wanted.iter().all(|(key, value)| site.labels().get(*key).is_some_and(|it| it == value));
    let finalizer = labels::SITE_FINALIZER.to_owned();
    if labelled && site.finalizers().contains(&finalizer) {
        return None;
    }
    let mut finalizers = site.finalizers().to_vec();
    if !finalizers.contains(&finalizer) {
        finalizers.push(finalizer);
    }
    let labels: std::collections::BTreeMap<&str, &str> = wanted.into_iter().collect();
    Some(Step::PatchSite(json!({
        "resourceVersion": site.resource_version(), "uid": site.uid(), "finalizers": finalizers, "labels": labels,
    })))
}

/// Claims what is wanted. What is wanted no longer is given back last, once nothing leads there: see `serve`.
fn claim(observed: &Observed, input: &Input) -> Vec<Step> {
    let mut steps = Vec::new();
    for claim in &observed.claims {
        let ours = build::claim(input, &claim.host);
        match (&claim.holder, &claim.object) {
            (Holder::Nobody, _) => steps.push(Step::Create(ours)),
            (Holder::Us, _) => steps.push(Step::Ensure(ours)),
            // The holder's finalizer was removed by force: its claim is dead.
            (Holder::Gone, Some(dead)) => {
                steps.extend([Step::Delete(Kind::Domain, dead.clone()), Step::Create(ours)]);
            }
            _ => {}
        }
    }
    steps
}

fn secrets(observed: &Observed, input: &Input) -> Vec<Step> {
    let kept_admin = found::admin(observed, input);
    let mut steps: Vec<Step> = kept_admin.iter().cloned().collect();
    let fresh = &observed.fresh;
    let known = observed.site.status.as_ref().is_some_and(|status| status.identity.is_some());
    match &observed.credentials {
        None => {
            // One that replaces a lost one has no encryption key: that of the site is in its configuration alone.
            let key = (!known).then_some(fresh.encryption_key.as_str());
            let ours = || Step::Create(build::credentials(input, &fresh.database_password, key));
            steps.push(found::credentials(observed, input).unwrap_or_else(ours));
        }
        Some(secret) => steps.extend(relabel(observed, secret)),
    }
    let generated = observed.site.spec.admin_password_secret_ref.is_none();
    match observed.admin_secret().filter(|_| generated) {
        None if generated && kept_admin.is_none() => {
            steps.push(Step::Create(build::admin_password(input, &fresh.admin_password)));
        }
        Some(secret) => steps.extend(relabel(observed, secret)),
        None => {}
    }
    let named = named_secrets(&observed.site, observed.bench.as_deref());
    let read =
        observed.secrets.iter().filter(|(name, _)| named.contains(name) || **name == observed.admin_secret_name());
    steps.extend(read.flat_map(|(name, secret)| read_secret(observed, input, name, secret)));
    steps
}

/// What is done so that changes of a Secret are seen, and what it holds is where the bench is.
pub(in crate::controllers) fn read_secret(
    observed: &Observed,
    input: &Input,
    name: &str,
    secret: &Arc<DynamicObject>,
) -> Vec<Step> {
    let generated = observed.site.spec.admin_password_secret_ref.is_none();
    let own = generated && *name == observed.admin_secret_name();
    if !own && is_reserved(observed, name, secret) {
        return Vec::new();
    }
    let unseen = !own && !secret.labels().contains_key(labels::WATCHED);
    let watched = unseen.then(|| Step::WatchSecret(secret.clone()));
    watched.into_iter().chain(copied(observed, input, name, secret)).collect()
}

/// What a Secret of the site's namespace holds is copied to its bench's, where a pod can mount it.
fn copied(observed: &Observed, input: &Input, name: &str, secret: &DynamicObject) -> Option<Step> {
    let place = &input.valid.place;
    let keys = keys(observed, name);
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    // Other keys make another copy.
    let version = format!("{} {}", secret.resource_version().unwrap_or_default(), names.join(","));
    let copy = observed.copies.get(&place.mounted(name));
    let current = copy.is_some_and(|it| it.annotations().get(labels::COPIED_VERSION) == Some(&version));
    let key = Key::new(&place.own, name);
    let wanted = place.is_foreign() && !current && may_copy(observed, name, secret);
    wanted.then(|| Step::CopySecret(key, build::copy(input, name, &version, &names)))
}

/// A Secret without the site's slot label is not seen by the watch.
fn relabel(observed: &Observed, secret: &Arc<DynamicObject>) -> Option<Step> {
    let uid = observed.site.uid().unwrap_or_default();
    let slot = kube_sharding::Slot::of_uid(&uid).to_string();
    if secret.labels().get(labels::SLOT) == Some(&slot) && secret.labels().get(labels::SITE_UID) == Some(&uid) {
        return None;
    }
    let metadata = json!({
        "uid": secret.uid(), "resourceVersion": secret.resource_version(),
        "labels": {labels::SLOT: slot, labels::SITE_UID: uid, "site": observed.site.name_any()},
    });
    Some(Step::LabelSecret(secret.clone(), metadata))
}

/// A server of the site's own, with its administrator's password.
fn server_steps(observed: &Observed, input: &Input, server: &Server) -> Vec<Step> {
    if !server.dedicated || input.valid.withholds(Part::Server) {
        return Vec::new();
    }
    let mut steps = Vec::new();
    if observed.root_secret.is_none() && observed.own_server().is_none() {
        steps.push(Step::Create(build::root_password(input, &observed.fresh.root_password)));
    }
    let config = observed.bench.as_deref().map(|bench| database::merged(observed, bench)).unwrap_or_default();
    let own = build::own_server(input, &config, &observed.config);
    let live = observed.own_server();
    // Another configuration would have the server of a site that was taken over started anew.
    if !live.is_some_and(|it| is_as_found(it)) {
        steps.push(found::ensure(observed, own, live.map(|it| &**it)));
    }
    steps
}

/// What the MariaDB operator has not done yet, if anything.
fn sql_report(observed: &Observed) -> Option<Report> {
    let served = observed.site.status.as_ref().is_some_and(|status| status.initialized);
    for (object, kind) in observed.sql.iter().zip(["Database", "User", "Grant"]) {
        let conditions = object.as_ref().map(|it| it.data["status"]["conditions"].clone()).unwrap_or_default();
        let conditions: Vec<_> = serde_json::from_value(conditions).unwrap_or_default();
        let ready = condition::find(&conditions, "Ready");
        if ready.is_some_and(|it| it.status == "True") {
            continue;
        }
        return match ready.filter(|it| it.reason == "Failed") {
            Some(failed) => {
                let message = format!("the MariaDB operator could not create the {kind}: {}", failed.message);
                Some(Report {
                    phase: SitePhase::Provisioning,
                    ..Report::failed(Stage::Database, Stage::Database, Reason::DatabaseFailed, message)
                })
            }
            // A site that is served does not stop being so because an object is being made again.
            None if served => None,
            None => Some(creating_database()),
        };
    }
    None
}

fn creating_database() -> Report {
    let message = "the MariaDB operator is creating the database, its user and grants";
    Report::provisioning(Stage::Database, Reason::CreatingDatabase, message)
}

/// Creates the site, once. From then on it is served, and its configuration kept.
fn initialize(observed: &Observed, input: &Input, wanted: &Configuration) -> Plan {
    let status = observed.site.status.clone().unwrap_or_default();
    if status.initialized {
        return serve(observed, input, wanted);
    }
    match operation::progress(observed, OperationKind::Init, Some(wanted)) {
        Progress::Done => serve(observed, input, wanted),
        Progress::Run(operation) => {
            let waits = Report::provisioning(Stage::Init, Reason::WaitingForJobSlot, waits_message(observed));
            let name = input.valid.place.job("init", operation.attempt).name;
            let message = format!("Job {name} is creating the site");
            let runs = Report::provisioning(Stage::Init, Reason::Initializing, message);
            let Some(bench) = observed.bench.as_deref() else { return Plan::report(observed, &waits, None) };
            let job = build::init_job(input, &observed.bench_input(bench), &operation, wanted);
            Plan::start(observed, &waits, &runs, operation, job)
        }
        Progress::Retry { operation, after, message } => {
            let report = Report::provisioning(Stage::Init, Reason::InitRetrying, message);
            Plan { again_after: Some(after), ..Plan::report(observed, &report, Some(operation)) }
        }
        Progress::Failed { operation, message } => {
            let report = Report::failed(Stage::Init, Stage::Init, Reason::InitFailed, message);
            Plan::report(observed, &report, Some(operation))
        }
    }
}
