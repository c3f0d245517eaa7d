//! What the SiteBackups of a site lead to. Pure: every choice is made here, none where the plan is carried out.
//!
//! One operation of a site runs at a time: what runs is recorded in the site's status (`backup`) before its Job is made, and
//! whatever else would be done to the site waits while it stands there.

use std::sync::Arc;

use frappe_crds::{SiteBackup, site::OperationKind};
use kube::ResourceExt as _;

use super::{
    model::{Plan, Step},
    removal,
    scene::Scene,
    waiting,
};
use crate::controllers::site::{
    deletion,
    model::{Input, Observed, Plan as SitePlan, Step as SiteStep},
    operation::{self},
    plan as site_plan, record,
    references::of_storage,
};

/// The plan of a site's SiteBackups.
pub fn plan(observed: &Observed) -> Plan {
    let recorded = observed.site.status.as_ref().and_then(|it| it.backup.clone());
    let mut plan = Plan::default();
    if observed.backups.is_empty() && recorded.is_none() {
        return plan;
    }
    if observed.site.metadata.deletion_timestamp.is_some() {
        // Nothing begins any more, but for the final backup, which the deletion itself records and waits for.
        let live = observed.backups.iter().filter(|it| it.metadata.deletion_timestamp.is_none());
        plan.prepare = live.filter_map(|it| waiting::relabel(observed, it)).collect();
        if let (Some(operation), Some(remains)) = (recorded, deletion::awaits_backup(observed)) {
            let input = remains.input(observed);
            let of = |it: &&Arc<SiteBackup>| it.uid().as_deref() == Some(operation.site_backup_uid.as_str());
            plan.prepare.extend(read_secrets(observed, &input, of));
            Scene { observed, plan: &mut plan, input: Some(&input), busy: true }.go_on(operation);
        }
        return plan;
    }
    let (own, valid) = site_plan::planned(observed);
    if own.status.is_none() {
        // Its own Secrets are being made or labelled: their watch wakes it when they are. What ended is written down.
        if let Some(operation) = recorded {
            Scene { observed, plan: &mut plan, input: None, busy: true }.go_on(operation);
        }
        return plan;
    }
    let known = record::known(observed);
    let input = valid.as_ref().map(|valid| Input { site: &observed.site, valid, known: &known });
    let busy = input.is_none() || !is_free(observed, &own);
    let mut scene = Scene { observed, plan: &mut plan, input: input.as_ref(), busy };
    if let Some(operation) = recorded.clone() {
        scene.go_on(operation);
    }
    let ended = scene.plan.site_status.as_ref().is_some_and(|status| recorded.is_some() && status.backup.is_none());
    scene.others(recorded.as_ref().map(|it| it.site_backup_uid.as_str()), ended);
    let live = |it: &&Arc<SiteBackup>| it.metadata.deletion_timestamp.is_none() || removal::holds(it);
    plan.prepare.extend(input.iter().flat_map(|input| read_secrets(observed, input, live)));
    plan
}

/// What is done so that the Secrets of storages can be read, and changes of them are seen.
fn read_secrets(observed: &Observed, input: &Input, of: impl Fn(&&Arc<SiteBackup>) -> bool) -> Vec<Step> {
    let named = observed
        .backups
        .iter()
        .filter(of)
        .flat_map(|it| it.spec.storage.iter().flat_map(of_storage).map(move |named| (it, named.name)));
    let found = named.filter_map(|(backup, name)| Some((backup, observed.secrets.get_key_value(&name)?)));
    let mut steps: Vec<Step> = Vec::new();
    for (backup, (name, secret)) in found {
        let wanted = site_plan::read_secret(observed, input, name, secret).into_iter().filter_map(|step| match step {
            SiteStep::WatchSecret(secret) => Some(Step::WatchSecret(backup.clone(), secret)),
            SiteStep::CopySecret(from, copy) => Some(Step::CopySecret(backup.clone(), from, Box::new(copy))),
            _ => None,
        });
        for step in wanted {
            // Several may name one Secret.
            if steps.iter().all(|known| !known.is_same_write(&step)) {
                steps.push(step);
            }
        }
    }
    steps
}

/// Whether the site exists and nothing else is being done to it, nor is about to be.
fn is_free(observed: &Observed, own: &SitePlan) -> bool {
    let status = observed.site.status.clone().unwrap_or_default();
    let idle = own.status.as_ref().is_some_and(|next| next.operation == status.operation || next.operation.is_none());
    let runs = operation::running_job(observed).is_some();
    let suspended = observed.site.spec.suspend == Some(true);
    let created = status.initialized && status.operation.as_ref().is_none_or(|it| it.kind != OperationKind::Delete);
    created && idle && !runs && !suspended && own.start.is_none()
}
