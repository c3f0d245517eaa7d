//! Sites that a change affects. Pure.

use frappe_crds::{FrappeBench, FrappeSite};
use kube::{Resource, ResourceExt, core::DynamicObject};
use kube_sharding::lanes::Priority;

use super::{hosts, place::Place, references::named_secrets, revision};
use crate::{
    controllers::{
        adoption::is_adoption_requested,
        bench::{
            placed::PlacedSite,
            seen::{is_rolling_out, lacks_app},
        },
        job,
    },
    domain::{condition, foreign, key::Key, labels, object::Kind, uid},
    io::{cache::Change, compact::Compact},
};

/// The lane of a site: its bench.
pub fn lane(site: &FrappeSite) -> Key {
    let own = Key::of(site).namespace;
    Key::new(site.spec.bench_ref.namespace.clone().unwrap_or(own), &site.spec.bench_ref.name)
}

/// Priority of a changed site: higher if a user waits for it.
pub fn priority(change: &Change<FrappeSite>) -> Priority {
    let Change::Applied { now, before } = change else { return Priority::High };
    let Some(before) = before else {
        // New, or listed again after a restart: a site that was never taken in is new.
        return if now.finalizers().is_empty() { Priority::High } else { Priority::Low };
    };
    let edited = now.metadata.generation != before.metadata.generation
        || now.metadata.deletion_timestamp != before.metadata.deletion_timestamp;
    if edited { Priority::High } else { Priority::Normal }
}

/// The site that an object belongs to, by its labels.
pub fn owner(child: &Compact) -> Option<Key> {
    child.label(labels::SLOT)?;
    let site = child.label("site")?;
    let namespace = child.label(labels::SITE_NAMESPACE).or(child.meta().namespace.as_deref())?;
    Some(Key::new(namespace, site))
}

/// Whether an object with a site's labels belongs to this site: by the uid, and by its name if the site has one object of the
/// kind.
pub fn is_part(site: &FrappeSite, kind: Kind, child: &Compact) -> bool {
    let part = match kind {
        Kind::Ingress => Some("ingress"),
        Kind::HttpRoute => Some("route"),
        Kind::Database => Some("db"),
        Kind::User => Some("user"),
        Kind::Grant => Some("grant"),
        _ => None,
    };
    let named = part.is_none_or(|part| Place::of(site).key(part) == Key::of(child));
    named && child.label(labels::SITE_UID) == Some(uid::of(site))
}

/// Whether a site references this Secret in its namespace.
pub fn reads_secret(site: &FrappeSite, bench: Option<&FrappeBench>, secret: &Key) -> bool {
    Key::of(site).namespace == secret.namespace && named_secrets(site, bench).contains(&secret.name)
}

/// Whether a change of this namespace affects a site: it is the site's or its bench's.
pub fn in_namespace(site: &FrappeSite, namespace: &str) -> bool {
    site.namespace().as_deref() == Some(namespace) || lane(site).namespace == namespace
}

/// The bench of a site, and what the coordinator keeps of the site while it moves to another revision.
pub fn whereabouts(site: &FrappeSite) -> (Key, Option<PlacedSite>) {
    (lane(site), PlacedSite::of(site))
}

/// Whether a change of a bench affects its sites; a starting pod does not.
pub fn bench_matters(change: &Change<FrappeBench>) -> bool {
    let Change::Applied { now, before: Some(before) } = change else { return true };
    let ready = |bench: &FrappeBench| {
        let status = bench.status.clone().unwrap_or_default();
        let ready = condition::find(&status.conditions, "Ready").map(|it| it.status.clone());
        (ready, lacks_app(bench), is_rolling_out(bench))
    };
    let code = |bench: &FrappeBench| {
        let status = bench.status.as_ref();
        status
            .map(|it| (it.apps.clone(), it.assumed_apps.clone(), it.front_revision.clone()))
            .filter(|it| !it.0.is_empty())
    };
    // Where the sites of each revision are, and whether they may leave.
    let revisions = |bench: &FrappeBench| {
        let all = bench.status.clone().unwrap_or_default().revisions;
        all.into_iter().map(|it| (it.number, it.image_digest, it.complete, it.retired)).collect::<Vec<_>>()
    };
    let suffix = |bench: &FrappeBench| bench.status.as_ref().and_then(|it| it.detected_domain_suffix.clone());
    let released = |bench: &FrappeBench| {
        let rollout = bench.status.clone().unwrap_or_default().rollout;
        rollout.map(|it| (it.to, revision::releases(&it), it.released))
    };
    now.metadata.generation != before.metadata.generation
        || suffix(now) != suffix(before)
        || now.metadata.deletion_timestamp != before.metadata.deletion_timestamp
        || is_adoption_requested(now) != is_adoption_requested(before)
        || ready(now) != ready(before)
        || code(now) != code(before)
        || revisions(now) != revisions(before)
        || released(now) != released(before)
}

/// The site of a FrappeDomain.
pub fn holder(domain: &Compact) -> Option<Key> {
    foreign::holder(&domain.open()).map(|it| Key::new(it.namespace, it.name))
}

/// Whether a site has this FrappeDomain or may wait for it.
pub fn wants_host(site: &FrappeSite, domain: &Compact) -> bool {
    hosts::may_want(site, &domain.name_any())
}

/// Whether a change of a Job affects its site: its end, and the creation and start of its pod, but not every count.
pub fn job_matters(change: &Change<Compact>) -> bool {
    let Change::Applied { now, before: Some(before) } = change else { return true };
    let (now, before) = (now.open(), before.open());
    let kept = |job: &DynamicObject| {
        let metadata = &job.metadata;
        (
            metadata.uid.clone(),
            metadata.labels.clone(),
            metadata.annotations.clone(),
            metadata.deletion_timestamp.clone(),
        )
    };
    let pods = |job: &DynamicObject| {
        let is_some = |field: &str| job.data["status"][field].as_i64().unwrap_or(0) > 0;
        (is_some("active"), is_some("ready"))
    };
    job::state(&now) != job::state(&before)
        || pods(&now) != pods(&before)
        || now.data["spec"] != before.data["spec"]
        || kept(&now) != kept(&before)
}

/// Whether a change of a MariaDB affects sites: it was created, deleted or moved, or its permissions changed.
pub fn server_matters(change: &Change<Compact>) -> bool {
    let Change::Applied { now, before: Some(before) } = change else { return true };
    let kept = |server: &DynamicObject| {
        let allowed = server.annotations().get(labels::ALLOWED_NAMESPACES).cloned();
        (server.data["spec"].clone(), allowed, server.labels().contains_key(labels::SITE_UID))
    };
    kept(&now.open()) != kept(&before.open())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn seen(job: serde_json::Value) -> Arc<Compact> {
        Arc::new(serde_json::from_value(job).expect("a Job"))
    }

    #[test]
    fn a_part_of_a_site_is_its_own_by_uid_and_name() {
        let site: FrappeSite = serde_json::from_value(json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "spec": {"siteName": "shop", "benchRef": {"name": "bench"}},
            "metadata": {"name": "shop", "namespace": "a", "uid": "mine"},
        }))
        .expect("a site");
        for (name, uid, wanted) in [("shop-db", "mine", true), ("shop-db", "other", false), ("other-db", "mine", false)]
        {
            let child = seen(json!({"metadata": {"name": name, "namespace": "a", "labels": {labels::SITE_UID: uid}}}));
            assert_eq!(is_part(&site, Kind::Database, &child), wanted, "{name} {uid}");
        }
    }

    #[test]
    fn an_edit_comes_before_other_changes() {
        let site = |generation: i64, deleted: Option<&str>| -> Arc<FrappeSite> {
            let metadata = json!({"name": "shop", "namespace": "a", "generation": generation, "deletionTimestamp": deleted,
                                  "finalizers": [labels::SITE_FINALIZER]});
            let spec = json!({"siteName": "shop", "benchRef": {"name": "bench"}});
            let site =
                json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "metadata": metadata, "spec": spec});
            Arc::new(serde_json::from_value(site).expect("a site"))
        };
        let changed = |now| priority(&Change::Applied { now, before: Some(site(1, None)) });
        assert_eq!(changed(site(1, None)), Priority::Normal);
        assert_eq!(changed(site(2, None)), Priority::High);
        assert_eq!(changed(site(1, Some("2026-01-01T00:00:00Z"))), Priority::High);
        assert_eq!(priority(&Change::Applied { now: site(1, None), before: None }), Priority::Low, "listed again");
    }

    #[test]
    fn sites_are_reconciled_when_spec_readiness_suffix_or_adoption_of_their_bench_changes() {
        let bench = json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench",
                           "metadata": {"name": "bench", "namespace": "a", "generation": 1},
                           "spec": {"frappeVersion": "15", "apps": []},
                           "status": {"phase": "Ready", "components": {"nginx": {"ready": 1, "desired": 1}}}});
        let seen = |bench: &serde_json::Value| -> Arc<FrappeBench> {
            Arc::new(serde_json::from_value(bench.clone()).expect("a bench"))
        };
        let ready = |status: &str, reason: &str| {
            json!([{"type": "Ready", "status": status, "reason": reason, "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        };
        let table = [
            ("status", "components", json!({"nginx": {"ready": 0, "desired": 1}}), false),
            ("status", "conditions", ready("True", "Ready"), true),
            ("status", "conditions", ready("False", "AppMissing"), true),
            ("status", "detectedDomainSuffix", json!(".example.com"), true),
            ("metadata", "generation", json!(2), true),
            ("metadata", "deletionTimestamp", json!("2026-01-01T00:00:00Z"), true),
            ("metadata", "annotations", json!({labels::ADOPT: "true"}), true),
        ];
        for (part, field, value, wanted) in table {
            let mut now = bench.clone();
            now[part][field] = value;
            let change = Change::Applied { now: seen(&now), before: Some(seen(&bench)) };
            assert_eq!(bench_matters(&change), wanted, "{part}.{field}");
        }
    }

    /// A Job's counts of pods change several times while it runs; most of that is nothing to a site.
    #[test]
    fn a_site_looks_at_its_job_when_it_begins_ends_or_is_edited() {
        let job = json!({"metadata": {"name": "shop-init", "uid": "u", "labels": {"site": "shop"}},
                         "spec": {"suspend": false}, "status": {"active": 1}});
        let changed = |pointer: &str, value: serde_json::Value| {
            let mut now = job.clone();
            *now.pointer_mut(pointer).expect("a field") = value;
            job_matters(&Change::Applied { now: seen(now), before: Some(seen(job.clone())) })
        };
        assert!(!changed("/status", json!({"active": 1, "startTime": "2026-01-01T00:00:00Z"})));
        assert!(
            changed("/status", json!({"active": 1, "ready": 1})),
            "the report about a pod that does not start is removed"
        );
        assert!(changed("/status", json!({})));
        assert!(!changed("/status", json!({"active": 2, "conditions": [{"type": "Complete", "status": "False"}]})));
        assert!(changed("/status", json!({"conditions": [{"type": "Complete", "status": "True"}]})));
        assert!(changed("/status", json!({"conditions": [{"type": "Failed", "status": "True"}]})));
        let stopped = json!({"active": 1, "conditions": [{"type": "Failed", "status": "True"}]});
        assert!(changed("/status", stopped), "its deadline has passed, its pod ends later");
        assert!(changed("/spec/suspend", json!(true)));
        assert!(changed("/metadata/labels/site", json!("other")));
        assert!(changed("/metadata/uid", json!("another")));
        assert!(job_matters(&Change::Applied { now: seen(job.clone()), before: None }));
        assert!(job_matters(&Change::Deleted(seen(job))));
    }
}
