//! Tests of the decisions for a site: plans are executed on a simulated state, without an API server.
#![allow(clippy::needless_pass_by_value, reason = "json! makes a value for each call")]

mod adoption;
mod backup_removal;
mod backup_storage;
mod backups;
mod creation;
mod databases;
mod deletion;
mod due;
mod final_backup;
mod first_jobs;
mod hostile;
mod leaves;
mod ownership;
mod permissions;
mod revisions;
mod routing;
mod secret_keys;
mod settings;
mod site_jobs;
mod tenants;
mod undo;
mod update;
mod windows;

use std::{collections::BTreeMap, sync::Arc};

use frappe_crds::{FrappeBench, FrappeSite, FrappeSiteStatus, SiteBackup, SiteBackupStatus, site::SitePhase};
use jiff::Timestamp;
use kube::{ResourceExt, core::DynamicObject};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    hosts::{self, Hosts},
    model::{Claim, Fresh, Holder, Observed, Plan, Routes, Step},
    reason::Reason,
};
use crate::{
    controllers::{
        backup::{
            model::{Plan as BackupPlan, Step as BackupStep},
            plan as of_backups,
        },
        lint::lint,
    },
    domain::{
        condition,
        diff::first_difference,
        labels,
        metadata::MetadataPatch,
        object::{Desired, Kind},
    },
};

fn object(value: Value) -> Arc<DynamicObject> {
    Arc::new(serde_json::from_value(value).expect("an object"))
}

fn bench() -> FrappeBench {
    serde_json::from_value(json!({
        "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench",
        "metadata": {"name": "bench", "namespace": "default", "uid": "bench-uid", "generation": 1},
        "spec": {"frappeVersion": "15", "apps": [{"name": "erpnext", "source": "image"}]},
        "status": {"phase": "Ready", "conditions": [{
            "type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    }))
    .expect("a bench")
}

fn site(spec: Value) -> FrappeSite {
    let mut whole = json!({"siteName": "shop.example.com", "benchRef": {"name": "bench"}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "spec": whole,
        "metadata": {
            "name": "shop", "namespace": "default", "uid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "generation": 1,
            "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
        },
    }))
    .expect("a site")
}

fn observed(spec: Value) -> Observed {
    let server = json!({
        "apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "spec": {},
        "metadata": {"name": "mariadb", "namespace": "default"},
    });
    let mut world = Observed {
        site: Arc::new(site(spec)),
        config: Arc::default(),
        capabilities: crate::domain::capabilities::Capabilities::default(),
        bench: Some(Arc::new(bench())),
        namespace: None,
        hosts: Hosts::default(),
        claims: Vec::new(),
        former_claims: Vec::new(),
        credentials: None,
        adoptable: super::model::Adoptable::default(),
        read_secrets: Vec::new(),
        secrets: BTreeMap::new(),
        root_secrets: std::collections::BTreeSet::new(),
        taken_claims: std::collections::BTreeSet::new(),
        copies: BTreeMap::new(),
        mariadb_installed: true,
        servers: vec![object(server)],
        root_secret: None,
        sql: [None, None, None],
        jobs: BTreeMap::new(),
        routes: Routes::default(),
        backups: Vec::new(),
        backup_job: None,
        backup_result: None,
        site_jobs: Vec::new(),
        site_job: None,
        site_job_result: (None, None),
        operator_image: Some("docker.io/mine/frappe-operator:1".into()),
        failure: None,
        namespace_terminating: false,
        epoch: 1,
        fresh: Fresh {
            identity: "0123456789abcdef".into(),
            database_password: "SecretOfDatabase".into(),
            root_password: "SecretOfRoot".into(),
            encryption_key: "SecretOfEncryption".into(),
            admin_password: "SecretOfAdministrator".into(),
        },
        now: Timestamp::UNIX_EPOCH,
    };
    look_again(&mut world);
    world
}

/// Updates hosts and claims from spec and settings; claims of other hosts become former ones.
fn look_again(world: &mut Observed) {
    world.hosts = hosts::resolve(&world.site.spec, world.bench.as_deref(), &world.config);
    let former = std::mem::take(&mut world.former_claims);
    let held: Vec<_> = world.claims.drain(..).filter_map(|claim| claim.object).chain(former).collect();
    for host in world.hosts.all() {
        let object = held.iter().find(|it| it.name_any() == *host).cloned();
        let holder = if object.is_some() { Holder::ThisSite } else { Holder::Unclaimed };
        world.claims.push(Claim { host: host.clone(), object, holder });
    }
    world.former_claims = held.into_iter().filter(|it| world.hosts.all().all(|host| *host != it.name_any())).collect();
}

/// A Secret of the user.
fn user_secret(world: &mut Observed, name: &str) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": "default", "resourceVersion": "1",
                     "labels": {"frappe.vyogo.tech/watched": "true"}},
    });
    world.secrets.insert(name.to_owned(), object(secret));
}

/// The plan of a site with a free job slot.
fn plan(observed: &Observed) -> Plan {
    let plan = super::plan::plan(observed);
    if plan.start.is_some() {
        assert_eq!(without_progress(plan.clone().waiting()), without_progress(plan.clone().started()));
    }
    plan.started()
}

/// The parts of the status that do not depend on a free job slot.
fn without_progress(plan: Plan) -> FrappeSiteStatus {
    let status = plan.status.expect("a status");
    FrappeSiteStatus { phase: SitePhase::default(), conditions: Vec::new(), operation: None, identity: None, ..status }
}

/// The plan of its SiteBackups with a free job slot.
fn backup_plan(observed: &Observed) -> BackupPlan {
    of_backups::plan(observed).started()
}

/// Executes a plan on the simulated state, and simulates other operators and Jobs.
fn apply(observed: &mut Observed, plan: &Plan, job_result: &str) {
    apply_steps(observed, plan, job_result);
    look_again(observed);
}

fn apply_steps(observed: &mut Observed, plan: &Plan, job_result: &str) {
    for step in plan.steps.iter().chain(&plan.last) {
        match step {
            Step::Patch(_, metadata) => {
                let site = Arc::make_mut(&mut observed.site);
                site.metadata.finalizers.clone_from(&metadata.finalizers);
                if !metadata.labels.is_empty() {
                    site.metadata.labels = Some(labels_of(metadata));
                }
            }
            Step::Create(desired) | Step::Ensure(desired) | Step::Adopt(desired) => {
                place(observed, desired, job_result);
            }
            Step::LabelSecret(..) => {}
            Step::WatchSecret(secret) => watch_secret(observed, secret),
            Step::CopySecret(_, desired) if desired.key.name == "shop-admin-password" => {
                place(observed, desired, job_result);
            }
            Step::CopySecret(_, desired) => copy_secret(observed, desired),
            Step::AdoptSecret(secret, adoption) => {
                let mut written = DynamicObject::clone(secret);
                let metadata = &adoption.metadata.metadata;
                written.metadata.labels.clone_from(&metadata.labels);
                written.metadata.annotations.clone_from(&metadata.annotations);
                written.metadata.owner_references = None;
                (observed.credentials, observed.adoptable) =
                    (Some(Arc::new(written)), super::model::Adoptable::default());
            }
            Step::Delete(kind, gone) => remove(observed, *kind, &gone.name_any()),
            Step::Status(..) | Step::For(..) | Step::HandOver(_) => panic!("no plan of a site has {step:?}"),
        }
    }
    if let Some(status) = &plan.status {
        Arc::make_mut(&mut observed.site).status = Some(status.clone());
    }
    if let Some(job) = &plan.job
        && !observed.jobs.contains_key(&job.key.name)
        && observed.backup_job.as_ref().is_none_or(|it| it.name_any() != job.key.name)
    {
        place(observed, job, job_result);
    }
}

/// The labels that a change sets.
fn labels_of(metadata: &MetadataPatch) -> BTreeMap<String, String> {
    metadata.labels.clone().into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn watch_secret(observed: &mut Observed, secret: &DynamicObject) {
    let mut secret = secret.clone();
    secret.labels_mut().insert("frappe.vyogo.tech/watched".to_owned(), "true".to_owned());
    observed.secrets.insert(secret.name_any(), Arc::new(secret));
}

fn copy_secret(observed: &mut Observed, desired: &Desired) {
    observed.copies.insert(desired.key.name.clone(), object(desired.stamped()));
}

/// Executes the plan of the SiteBackups.
fn apply_backups(observed: &mut Observed, plan: &BackupPlan, job_result: &str) {
    for step in plan.steps.iter().chain(&plan.prepare).chain(&plan.last) {
        let write: &BackupStep = if let BackupStep::For(_, write) = step { write } else { step };
        match write {
            BackupStep::Patch(backup, metadata) => {
                edit_backup(observed, &backup.name_any(), |it| {
                    if !metadata.labels.is_empty() {
                        it.metadata.labels = Some(labels_of(metadata));
                    }
                    if metadata.finalizers.is_some() {
                        it.metadata.finalizers.clone_from(&metadata.finalizers);
                    }
                });
                observed.backups.retain(|it| it.metadata.deletion_timestamp.is_none() || !it.finalizers().is_empty());
            }
            BackupStep::Status(backup, status, _) => {
                edit_backup(observed, &backup.name_any(), |it| it.status = Some(SiteBackupStatus::clone(status)));
            }
            BackupStep::Delete(Kind::Job, job) => remove(observed, Kind::Job, &job.name_any()),
            BackupStep::WatchSecret(secret) => watch_secret(observed, secret),
            BackupStep::CopySecret(_, desired) => copy_secret(observed, desired),
            other => panic!("no plan of SiteBackups has {other:?}"),
        }
    }
    if let Some(status) = &plan.status {
        Arc::make_mut(&mut observed.site).status = Some(status.clone());
    }
    if let Some(job) = &plan.job
        && observed.backup_job.as_ref().is_none_or(|it| it.name_any() != job.key.name)
    {
        place(observed, job, job_result);
    }
}

/// Each write of a plan of SiteBackups as a separate plan.
fn backup_writes(plan: &BackupPlan) -> Vec<BackupPlan> {
    let step = |step: &BackupStep| BackupPlan { steps: vec![step.clone()], ..BackupPlan::default() };
    let mut writes: Vec<BackupPlan> = plan.steps.iter().map(step).collect();
    writes.push(BackupPlan { status: plan.status.clone(), ..BackupPlan::default() });
    writes.extend(plan.prepare.iter().map(step));
    writes.push(BackupPlan { job: plan.job.clone(), ..BackupPlan::default() });
    writes.extend(plan.last.iter().map(step));
    writes
}

fn edit_backup(observed: &mut Observed, name: &str, edit: impl FnOnce(&mut SiteBackup)) {
    let found = observed.backups.iter_mut().find(|it| it.name_any() == name).expect("a SiteBackup");
    edit(Arc::make_mut(found));
}

fn place(observed: &mut Observed, desired: &Desired, job_result: &str) {
    let mut live = desired.stamped();
    live["metadata"]["resourceVersion"] = json!(format!("{}1", observed.jobs.len()));
    live["metadata"]["uid"] = json!(format!("uid-{}", desired.key.name));
    live["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:01Z");
    let ready = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Created", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let name = desired.key.name.clone();
    match desired.kind {
        Kind::Domain => {
            let claim = observed.claims.iter_mut().find(|claim| claim.host == name).expect("a desired host");
            (claim.object, claim.holder) = (Some(object(live)), Holder::ThisSite);
        }
        Kind::Secret if name.ends_with("db-password") => observed.credentials = Some(object(live)),
        Kind::Secret if name.ends_with("mariadb-root") => observed.root_secret = Some(object(live)),
        Kind::Secret => drop(observed.secrets.insert(name, object(live))),
        Kind::MariaDb => {
            observed.servers.retain(|it| it.name_any() != name);
            observed.servers.push(object(live));
        }
        Kind::HttpRoute => observed.routes.http_route = Some(object(live)),
        Kind::Route => drop(observed.routes.routes.insert(name, object(live))),
        Kind::Job => {
            live["status"] = json!({"active": 1, "ready": 1, "conditions": [{"type": job_result, "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"}]});
            if ["-backup-", "-restore-", "-remove-"].iter().any(|it| name.contains(it)) {
                observed.backup_job = Some(object(live));
                return;
            }
            if name.contains("-job-") {
                observed.site_job = Some(object(live));
                return;
            }
            observed.jobs.insert(name, object(live));
        }
        Kind::Ingress => observed.routes.ingress = Some(object(live)),
        kind => {
            live["status"] = ready;
            let index =
                [Kind::Database, Kind::User, Kind::Grant].iter().position(|it| *it == kind).expect("a kind of sites");
            observed.sql[index] = Some(object(live));
        }
    }
}

fn remove(observed: &mut Observed, kind: Kind, name: &str) {
    match kind {
        Kind::Domain => {
            observed.former_claims.retain(|it| it.name_any() != name);
            for claim in observed.claims.iter_mut().filter(|claim| claim.host == name) {
                (claim.object, claim.holder) = (None, Holder::Unclaimed);
            }
        }
        Kind::Secret if name.ends_with("db-password") => observed.credentials = None,
        Kind::Secret if name.ends_with("mariadb-root") => observed.root_secret = None,
        Kind::Secret => {
            observed.secrets.remove(name);
            observed.copies.remove(name);
        }
        Kind::MariaDb => observed.servers.retain(|it| it.name_any() != name),
        Kind::Ingress => observed.routes.ingress = None,
        Kind::HttpRoute => observed.routes.http_route = None,
        Kind::Route => drop(observed.routes.routes.remove(name)),
        Kind::Job if observed.backup_job.as_ref().is_some_and(|it| it.name_any() == name) => observed.backup_job = None,
        Kind::Job if observed.site_job.as_ref().is_some_and(|it| it.name_any() == name) => observed.site_job = None,
        Kind::Job => drop(observed.jobs.remove(name)),
        Kind::Grant => observed.sql[2] = None,
        Kind::User => observed.sql[1] = None,
        _ => observed.sql[0] = None,
    }
}

/// Each write of a plan as a separate plan, in the order of execution.
fn writes(plan: &Plan) -> Vec<Plan> {
    let mut writes: Vec<Plan> =
        plan.steps.iter().map(|step| Plan { steps: vec![step.clone()], ..Plan::default() }).collect();
    writes.push(Plan { status: plan.status.clone(), ..Plan::default() });
    writes.push(Plan { job: plan.job.clone(), ..Plan::default() });
    writes.extend(plan.last.iter().map(|step| Plan { last: vec![step.clone()], ..Plan::default() }));
    writes
}

/// Plans and executes until nothing changes; returns the created objects, and the number of rounds.
fn converge(observed: &mut Observed, job_result: &str) -> (Vec<Desired>, usize) {
    let mut made = Vec::new();
    for round in 1..20 {
        let next = plan(observed);
        if is_empty(observed, &next) {
            return (made, round);
        }
        made.extend(makes(&next));
        made.extend(next.job.clone());
        apply(observed, &next, job_result);
    }
    panic!("does not converge: {:?}", plan(observed).status)
}

/// The objects that a plan creates or applies, except its Job.
fn makes(plan: &Plan) -> impl Iterator<Item = Desired> {
    plan.steps.iter().chain(&plan.last).filter_map(|step| match step {
        Step::Create(desired) | Step::Ensure(desired) => Some(desired.clone()),
        _ => None,
    })
}

/// Whether executing the plan would write nothing.
fn is_empty(observed: &Observed, plan: &Plan) -> bool {
    let quiet = |step: &Step| match step {
        Step::Ensure(desired) => {
            live(observed, desired).is_some_and(|it| first_difference(&desired.stamped(), &it).is_none())
        }
        _ => false,
    };
    let job = plan.job.as_ref().is_none_or(|job| observed.jobs.contains_key(&job.key.name));
    plan.steps.iter().all(quiet)
        && plan.last.is_empty()
        && job
        && (plan.status.is_none() || plan.status == observed.site.status)
}

fn live(observed: &Observed, desired: &Desired) -> Option<Value> {
    let name = &desired.key.name;
    let found = match desired.kind {
        Kind::Ingress => observed.routes.ingress.as_ref(),
        Kind::HttpRoute => observed.routes.http_route.as_ref(),
        Kind::Route => observed.routes.routes.get(name),
        Kind::MariaDb => observed.servers.iter().find(|it| it.name_any() == *name),
        Kind::Domain => observed.claims.iter().find(|it| it.host == *name).and_then(|it| it.object.as_ref()),
        Kind::Database => observed.sql[0].as_ref(),
        Kind::User => observed.sql[1].as_ref(),
        _ => observed.sql[2].as_ref(),
    };
    found.map(|it| serde_json::to_value(it.as_ref()).expect("JSON"))
}

fn reason(plan: &Plan) -> String {
    let status = plan.status.clone().unwrap_or_default();
    condition::find(&status.conditions, "Ready").map(|it| it.reason.clone()).unwrap_or_default()
}

fn being_deleted(world: &mut Observed) {
    let time = serde_json::from_value(json!("2026-01-02T00:00:00Z")).expect("a time");
    Arc::make_mut(&mut world.site).metadata.deletion_timestamp = Some(time);
}
