//! SiteBackups and SiteJobs whose site this replica does not own: the site does not exist, or another replica owns it.
//!
//! If such an object has the label of a slot, the owner of that slot removes the label. If it has none, the coordinator
//! reports that its site does not exist, once it has verified that.

use std::{collections::BTreeSet, sync::Arc};

use frappe_crds::FrappeSite;
use jiff::Timestamp;
use kube::{ResourceExt, core::PartialObjectMeta};
use kube_sharding::{Slot, gate::Scope};

use super::Companion;
use crate::{
    controllers::{
        context::Context,
        model::{Plan, Step},
    },
    domain::{key::Key, labels, metadata::MetadataPatch},
    io::live,
};

/// The plan of the objects that this scope reconciles.
pub async fn plan<K: Companion>(context: &Context, site: &Key, scope: Scope) -> Result<Plan<K>, kube::Error> {
    let all: Vec<Arc<K>> =
        context.companions_of(site).into_iter().filter(|it: &Arc<K>| scope_of(it.as_ref()) == scope).collect();
    if all.is_empty() {
        return Ok(Plan::default());
    }
    let (found, version) = live::site_metadata_at(&context.client, site).await?;
    let goes = found.as_ref().is_some_and(|it| it.metadata.deletion_timestamp.is_some());
    if goes && scope == Scope::Coordinator {
        context.departures.expect_site(site.clone(), version);
    }
    let now = context.now();
    let steps = all.iter().filter_map(|it| step(it, site, found.as_ref(), now)).collect();
    Ok(Plan { steps, ..Plan::default() })
}

/// Scopes that reconcile the objects of a site that this replica does not know.
pub fn scopes<K: Companion>(context: &Context, site: &Key) -> BTreeSet<Scope> {
    context.companions_of::<K>(site).iter().map(|it| scope_of(it.as_ref())).collect()
}

/// The scope that reconciles an object whose site this replica does not know.
fn scope_of(object: &impl ResourceExt) -> Scope {
    slot_of(object).map_or(Scope::Coordinator, Scope::Slot)
}

/// The step for one object. Pure.
fn step<K: Companion>(
    known: &Arc<K>,
    site: &Key,
    found: Option<&PartialObjectMeta<FrappeSite>>,
    now: Timestamp,
) -> Option<Step<K>> {
    let without_site = known.finalizers_without_site();
    match (found, slot_of(known.as_ref())) {
        // Another site with the same name: its owner sets the label.
        (Some(other), Some(slot)) => {
            let moved = Slot::of_uid(other.metadata.uid.as_deref()?) != slot;
            moved.then(|| Step::Patch(known.clone(), free(known.as_ref(), None)))
        }
        // The site's owner reconciles it; or the site is being deleted, and its deletion triggers another reconcile.
        (Some(_), None) => None,
        (None, Some(_)) => Some(Step::Patch(known.clone(), free(known.as_ref(), without_site))),
        (None, None) if without_site.is_some() => Some(Step::Patch(known.clone(), free(known.as_ref(), without_site))),
        (None, None) => K::report_missing_site(known, site, now),
    }
}

/// The metadata of an object without a site of this replica.
fn free<K: Companion>(known: &K, finalizers: Option<Vec<String>>) -> MetadataPatch {
    let metadata = MetadataPatch::of(known).without_labels([labels::SLOT, "site"]);
    match finalizers {
        Some(finalizers) => metadata.with_finalizers(finalizers),
        None => metadata,
    }
}

/// The slot in an object's label, which only determines the replica that watches the object.
fn slot_of(object: &impl ResourceExt) -> Option<Slot> {
    object.labels().get(labels::SLOT)?.parse().ok().map(Slot::new)
}

#[cfg(test)]
mod tests {
    use frappe_crds::{SiteBackup, backup::BackupPhase};
    use serde_json::json;

    use super::*;
    use crate::domain::wire;

    fn backup(labels: &serde_json::Value) -> Arc<SiteBackup> {
        let made = json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteBackup", "spec": {"siteRef": {"name": "shop"}},
            "metadata": {"name": "nightly", "namespace": "a", "uid": "u", "resourceVersion": "3", "labels": labels,
                         "finalizers": [labels::BACKUP_FINALIZER]},
        });
        Arc::new(serde_json::from_value(made).expect("a SiteBackup"))
    }

    fn site(uid: &str) -> PartialObjectMeta<FrappeSite> {
        serde_json::from_value(json!({"metadata": {"name": "shop", "namespace": "a", "uid": uid}})).expect("metadata")
    }

    fn patched(step: Option<Step<SiteBackup>>) -> Option<serde_json::Value> {
        match step {
            Some(Step::Patch(_, metadata)) => Some(wire::json(&metadata)),
            _ => None,
        }
    }

    #[test]
    fn a_sitebackup_without_a_site_is_unlabelled_and_then_reported() {
        let (key, now) = (Key::new("a", "shop"), Timestamp::UNIX_EPOCH);
        let slot = Slot::of_uid("former").to_string();
        let labelled = backup(&json!({labels::SLOT: slot, "site": "shop"}));
        let freed = patched(step(&labelled, &key, None, now)).expect("a patch");
        assert_eq!((&freed["labels"][labels::SLOT], &freed["finalizers"]), (&json!(null), &json!([])));
        let held = backup(&json!({}));
        let released = patched(step(&held, &key, None, now)).expect("a patch");
        assert_eq!(released["finalizers"], json!([]), "without a site no backups can be removed");
        let mut free = SiteBackup::clone(&held);
        free.metadata.finalizers = None;
        let told = step(&Arc::new(free.clone()), &key, None, now);
        let Some(Step::Status(_, status, None)) = told else { panic!("{told:?}") };
        free.status = Some(*status);
        assert_eq!(step(&Arc::new(free), &key, None, now), None, "it is reported once");
    }

    #[test]
    fn a_finished_sitebackup_reports_its_outcome_after_a_rejected_write() {
        let (key, now) = (Key::new("a", "shop"), Timestamp::UNIX_EPOCH);
        let mut ended = SiteBackup::clone(&backup(&json!({})));
        ended.metadata.finalizers = None;
        let status = json!({"phase": "Succeeded", "history": [{"name": "nightly-1", "succeeded": true}],
                            "outcome": {"kind": "Backup", "state": "Succeeded", "message": "completed", "finishedAt": now}});
        ended.status = Some(serde_json::from_value(status).expect("a status"));
        let Some(Step::Status(_, status, None)) = step(&Arc::new(ended.clone()), &key, None, now) else {
            panic!("a status")
        };
        ended.status = Some(*status);
        assert_eq!(step(&Arc::new(ended.clone()), &key, None, now), None, "it is reported once");
        let told = ended.clone();
        let rejected = ended.status.as_mut().and_then(|it| it.conditions.iter_mut().find(|it| it.type_ == "Ready"));
        "WriteRejected".clone_into(&mut rejected.expect("Ready").reason);
        let Some(Step::Status(_, status, None)) = step(&Arc::new(ended), &key, None, now) else { panic!("a status") };
        assert_eq!((status.phase, Some(*status)), (BackupPhase::Succeeded, told.status));
    }

    #[test]
    fn a_sitebackup_of_a_namesake_site_loses_only_its_label() {
        let (key, now) = (Key::new("a", "shop"), Timestamp::UNIX_EPOCH);
        let labelled = backup(&json!({labels::SLOT: Slot::of_uid("former").to_string(), "site": "shop"}));
        assert_eq!(step(&labelled, &key, Some(&site("former")), now), None, "its watch has not shown it yet");
        let other =
            (0..100).map(|it| format!("u{it}")).find(|it| Slot::of_uid(it) != Slot::of_uid("former")).expect("one");
        let freed = patched(step(&labelled, &key, Some(&site(&other)), now)).expect("a patch");
        assert!(freed["labels"][labels::SLOT].is_null() && freed["finalizers"].is_null(), "{freed}");
        assert_eq!(step(&backup(&json!({})), &key, Some(&site(&other)), now), None, "its owner gives it a label");
    }
}
