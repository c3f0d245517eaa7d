//! Worlds of a site and of a bench without an API server, as far as the benchmarks need them.
#![allow(
    dead_code,
    clippy::panic,
    reason = "each benchmark is a separate crate and uses a part; an unexpected state is a failure"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use frappe_crds::{FrappeBench, FrappeSite};
use frappe_operator::parts::{
    Capabilities, Desired, Kind, OperatorConfig,
    site::{Adoptable, Claim, Fresh, Holder, Observed, Plan, Routes, Step, plan, resolve},
};
use kube::core::DynamicObject;
use serde_json::{Value, json};

fn object(value: Value) -> Arc<DynamicObject> {
    Arc::new(serde_json::from_value(value).expect("an object"))
}

/// A bench with an app, Ready.
pub(crate) fn bench() -> FrappeBench {
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

/// A site of which nothing exists yet.
pub(crate) fn new_site() -> Observed {
    let site: FrappeSite = serde_json::from_value(json!({
        "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite",
        "spec": {"siteName": "shop.example.com", "benchRef": {"name": "bench"}},
        "metadata": {
            "name": "shop", "namespace": "default", "uid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "generation": 1,
            "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
        },
    }))
    .expect("a site");
    let server = json!({"apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "spec": {},
        "metadata": {"name": "mariadb", "namespace": "default"}});
    let (bench, config) = (bench(), OperatorConfig::default());
    let hosts = resolve(&site.spec, Some(&bench), &config);
    let claims =
        hosts.all().map(|host| Claim { host: host.clone(), object: None, holder: Holder::Unclaimed }).collect();
    Observed {
        site: Arc::new(site),
        config: Arc::new(config),
        capabilities: Capabilities::default(),
        bench: Some(Arc::new(bench)),
        namespace: None,
        hosts,
        claims,
        former_claims: Vec::new(),
        credentials: None,
        adoptable: Adoptable::default(),
        read_secrets: Vec::new(),
        secrets: BTreeMap::new(),
        root_secrets: BTreeSet::new(),
        taken_claims: BTreeSet::new(),
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
        operator_image: None,
        failure: None,
        namespace_terminating: false,
        epoch: 1,
        fresh: Fresh {
            identity: "0123456789abcdef".into(),
            database_password: "d".repeat(32),
            root_password: "r".repeat(32),
            encryption_key: "e".repeat(44),
            admin_password: "a".repeat(32),
        },
        now: jiff::Timestamp::UNIX_EPOCH,
    }
}

/// Every world from nothing to a served site, by number of the plan: carries each plan out as far as `until` plans.
pub(crate) fn site_after(until: usize) -> Observed {
    let mut world = new_site();
    for _ in 0..until {
        let next = plan(&world).started();
        carry_out(&mut world, &next);
    }
    world
}

/// Plans that it takes until nothing of the status changes.
pub(crate) fn plans_to_served() -> usize {
    let mut world = new_site();
    for count in 0..20 {
        let next = plan(&world).started();
        if next.status == world.site.status && next.job.is_none() && count > 0 {
            assert!(next.status.is_some_and(|status| status.initialized), "it is served");
            return count;
        }
        carry_out(&mut world, &next);
    }
    panic!("the site is not served after 20 plans: {:?}", world.site.status)
}

fn carry_out(world: &mut Observed, plan: &Plan) {
    for step in &plan.steps {
        match step {
            Step::Patch(_, metadata) => {
                let site = Arc::make_mut(&mut world.site);
                site.metadata.finalizers.clone_from(&metadata.finalizers);
                let labels = metadata.labels.clone().into_iter();
                site.metadata.labels = Some(labels.filter_map(|(name, value)| Some((name, value?))).collect());
            }
            Step::Create(desired) | Step::Ensure(desired) => place(world, desired),
            other => panic!("a site on a shared server needs no {other:?}"),
        }
    }
    if let Some(status) = &plan.status {
        Arc::make_mut(&mut world.site).status = Some(status.clone());
    }
    if let Some(job) = &plan.job {
        place(world, job);
    }
}

fn place(world: &mut Observed, desired: &Desired) {
    let mut live = desired.stamped();
    live["metadata"]["resourceVersion"] = json!("1");
    live["metadata"]["uid"] = json!(format!("uid-{}", desired.key.name));
    live["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:01Z");
    let name = desired.key.name.clone();
    let condition = |kind: &str| {
        json!({"conditions": [{"type": kind, "status": "True", "reason": "Created", "message": "",
        "lastTransitionTime": "1970-01-01T00:00:00Z"}]})
    };
    match desired.kind {
        Kind::Domain => {
            for claim in world.claims.iter_mut().filter(|claim| claim.host == name) {
                (claim.object, claim.holder) = (Some(object(live.clone())), Holder::ThisSite);
            }
        }
        Kind::Secret if name.ends_with("db-password") => world.credentials = Some(object(live)),
        Kind::Secret => drop(world.secrets.insert(name, object(live))),
        Kind::Ingress => world.routes.ingress = Some(object(live)),
        Kind::Job => {
            live["status"] = condition("Complete");
            world.jobs.insert(name, object(live));
        }
        kind => {
            live["status"] = condition("Ready");
            let known = [Kind::Database, Kind::User, Kind::Grant];
            let index = known.iter().position(|it| *it == kind).expect("a kind of sites");
            world.sql[index] = Some(object(live));
        }
    }
}
