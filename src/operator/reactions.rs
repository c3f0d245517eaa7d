//! Reactions to changes of objects: updates of indexes, and the keys that enter the queues.

use std::sync::{Arc, Mutex, PoisonError};

use frappe_crds::{FrappeBench, FrappeSite};
use kube::{Client, ResourceExt};
use kube_sharding::lanes::Priority;

use super::{
    apis::{Definitions, serves},
    wake::Wake,
};
use crate::{
    controllers::{
        bench::{pod_health::PodProblems, watch as bench_watch},
        companion::index::site_of,
        context::Reaction,
        site::{host_index::Claims, job_slots::JobBudget, root_secrets::RootSecrets, watch as site_watch},
    },
    domain::{
        key::Key,
        kinds::Kind,
        labels,
        watches::{Wakes, Watch},
    },
    io::{cache::Change, compact::Compact},
};

/// Makes what is called with each change, and keeps what is noted meanwhile.
pub(super) struct Reactions {
    client: Client,
    wake: Wake,
    jobs: Arc<JobBudget>,
    definitions: Arc<Mutex<Definitions>>,
    pub(super) claims: Arc<Claims>,
    pub(super) root_secrets: Arc<RootSecrets>,
    pub(super) pod_problems: Arc<PodProblems>,
}

impl Reactions {
    /// Nothing is noted yet.
    pub(super) fn new(client: Client, wake: Wake, jobs: Arc<JobBudget>, definitions: Definitions) -> Self {
        Self {
            client,
            wake,
            jobs,
            definitions: Arc::new(Mutex::new(definitions)),
            claims: Arc::default(),
            root_secrets: Arc::default(),
            pod_problems: Arc::default(),
        }
    }

    /// To a site in a slot of this replica.
    pub(super) fn to_site(&self) -> impl Fn(Change<FrappeSite>) + Send + Sync + 'static {
        let (wake, client) = (self.wake.clone(), self.client.clone());
        move |change| {
            let site = change.object();
            wake.site_itself(site, &change);
            if matches!(change, Change::Deleted(_)) {
                wake.site_left(&Key::of(site));
                // A bench that is being deleted waits for its sites.
                wake.leaving_bench(&site_watch::lane(site));
                wake.relabel_stray(&client, site);
            }
        }
    }

    /// To a site that has no label yet.
    pub(super) fn to_new_site(&self) -> impl Fn(Change<FrappeSite>) + Send + Sync + 'static {
        let wake = self.wake.clone();
        move |change| match &change {
            Change::Applied { now, .. } => wake.unlabelled(now, site_watch::priority(&change)),
            Change::Deleted(labelled) => wake.sites.no_stray(labelled),
        }
    }

    /// To a bench.
    pub(super) fn to_bench(&self) -> impl Fn(Change<FrappeBench>) + Send + Sync + 'static {
        let wake = self.wake.clone();
        move |change| {
            let key = Key::of(change.object());
            wake.bench(key.clone());
            if site_watch::bench_matters(&change) {
                wake.sites_that(Priority::Low, |site| site_watch::lane(site) == key);
                wake.limits_changed();
            }
        }
    }

    /// To an object of another kind, as its row of the table says; nothing for what is watched in another way.
    pub(super) fn to_object(&self, kind: Kind, watch: &Watch) -> Option<Reaction> {
        let reaction = match watch.wakes {
            Wakes::ItsSite => self.to_part_of_site(kind),
            Wakes::ItsBench => self.to_part_of_bench(),
            Wakes::BenchOfFailingPod => self.to_pod(),
            Wakes::Companions => self.to_companion(kind, watch.narrowing.is_by_slot())?,
            Wakes::SitesOfHost => self.to_domain(),
            Wakes::SitesOfNamespace => self.to_namespace(),
            Wakes::SitesOfServer => self.to_server(),
            Wakes::Referrers => self.to_secret(),
            Wakes::UsersOfApi => self.to_definition(),
            Wakes::Site | Wakes::Bench | Wakes::Benches | Wakes::UsersOfSetting => return None,
        };
        Some(reaction)
    }

    fn to_part_of_site(&self, kind: Kind) -> Reaction {
        let (wake, budget) = (self.wake.clone(), Arc::clone(&self.jobs));
        Arc::new(move |change| {
            if kind == Kind::Job {
                budget.update(change.object(), matches!(change, Change::Applied { .. }));
                if !site_watch::job_matters(&change) {
                    return;
                }
            }
            if let Some(key) = site_watch::owner(change.object()) {
                wake.site(&key);
            }
        })
    }

    fn to_part_of_bench(&self) -> Reaction {
        let wake = self.wake.clone();
        Arc::new(move |change| {
            if let Some(key) = bench_watch::owner(change.object()) {
                wake.bench(key);
            }
        })
    }

    /// A new or deleted pod triggers no reconcile, a pod that cannot run does.
    fn to_pod(&self) -> Reaction {
        let (wake, pod_problems) = (self.wake.clone(), Arc::clone(&self.pod_problems));
        Arc::new(move |change| {
            if let Some(bench) = pod_problems.update(change.object(), matches!(change, Change::Applied { .. })) {
                wake.bench(bench);
            }
        })
    }

    /// New SiteBackups and SiteJobs have no label yet: every member watches them, and the owner of their site sets it. If the site does
    /// not exist, the coordinator reports that.
    fn to_companion(&self, kind: Kind, labelled: bool) -> Option<Reaction> {
        let indexes = &self.wake.companions.get(&kind)?.index;
        let index = Arc::clone(if labelled { &indexes.labelled } else { &indexes.new });
        let wake = self.wake.clone();
        Some(Arc::new(move |change| {
            index.update(&change);
            if let Some(site) = site_of(change.object()) {
                wake.companions_of(kind, &site);
            }
        }))
    }

    /// A site waits for the claim of another.
    fn to_domain(&self) -> Reaction {
        let (wake, claims) = (self.wake.clone(), Arc::clone(&self.claims));
        Arc::new(move |change| {
            claims.update(&change);
            match &change {
                Change::Applied { now, .. } => {
                    if let Some(holder) = site_watch::holder(now) {
                        wake.site(&holder);
                    }
                }
                Change::Deleted(gone) => wake.sites_that(Priority::Normal, |site| site_watch::wants_host(site, gone)),
            }
        })
    }

    /// Labels of a namespace say whose sites a bench takes.
    fn to_namespace(&self) -> Reaction {
        let wake = self.wake.clone();
        Arc::new(move |change| {
            let Change::Applied { now, before: Some(before) } = change else { return };
            let of = |namespace: &Compact| {
                let metadata = namespace.open().metadata;
                (metadata.labels, metadata.deletion_timestamp)
            };
            if of(&now) != of(&before) {
                wake.sites_that(Priority::Low, |site| site_watch::in_namespace(site, &now.name_any()));
            }
        })
    }

    fn to_server(&self) -> Reaction {
        let (wake, root_secrets) = (self.wake.clone(), Arc::clone(&self.root_secrets));
        Arc::new(move |change| {
            root_secrets.update(&change);
            if change.object().label(labels::SITE_UID).is_some() {
                // Of one site alone.
                if let Some(site) = site_watch::owner(change.object()) {
                    wake.site(&site);
                }
            } else if site_watch::server_matters(&change) {
                wake.sites_that(Priority::Low, |_| true);
            }
        })
    }

    /// A Secret may be read by several, of any slot, so that no label could tell whose it is.
    fn to_secret(&self) -> Reaction {
        let wake = self.wake.clone();
        Arc::new(move |change| {
            let secret = Key::of(change.object());
            wake.benches_that(|bench| bench_watch::reads_secret(bench, &secret));
            wake.sites_that(Priority::Normal, |site| {
                let bench = wake.benches.get(&site_watch::lane(site));
                site_watch::reads_secret(site, bench.as_deref(), &secret)
            });
            wake.backups_reading(&secret);
        })
    }

    /// Whom an API concerns is woken once its objects are listed: `offers.rs`.
    fn to_definition(&self) -> Reaction {
        let definitions = Arc::clone(&self.definitions);
        Arc::new(move |change| {
            let mut definitions = definitions.lock().unwrap_or_else(PoisonError::into_inner);
            definitions.update(change.object().name_any(), serves(&change));
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::Ordering, time::Duration};

    use jiff::Timestamp;
    use kube::client::Body;
    use kube_sharding::SlotSet;
    use serde_json::{Value, json};
    use tokio::sync::{mpsc, watch};
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::{
        controllers::site::job_slots::{Claim, Limits, Wants},
        operator::wake::tests::{Replica, bench, keys, owns_all, site},
    };

    /// Reactions of a replica, and the sites that get a job slot.
    fn reactions(replica: &Replica) -> (Reactions, mpsc::UnboundedReceiver<Key>) {
        let server = service_fn(|_| async { Err::<http::Response<Body>, BoxError>("no server".into()) });
        let (slots, others) = (watch::channel(SlotSet::ALL).1, watch::channel(Vec::new()).1);
        let (budget, continues) = JobBudget::new(slots, others, |_, _, _| true);
        let client = Client::new(server, "a");
        (Reactions::new(client, replica.wake.clone(), Arc::new(budget), Definitions::new().0), continues)
    }

    fn compact(object: Value) -> Arc<Compact> {
        Arc::new(serde_json::from_value(object).expect("an object"))
    }

    #[tokio::test]
    async fn the_secrets_of_administrators_are_known() {
        let (reactions, _) = reactions(&Replica::owner());
        let server = compact(json!({"metadata": {"name": "main", "namespace": "a"}, "spec": {}}));
        reactions.to_server()(Change::Applied { now: server, before: None });
        assert!(reactions.root_secrets.has(&Key::new("a", "main-root")));
    }

    ///
    #[tokio::test]
    async fn a_deleted_job_releases_its_slot() {
        let (reactions, mut continues) = reactions(&Replica::owner());
        let claim = |name: &str| Claim {
            bench: Key::new("a", "b"),
            site: Key::new("a", name),
            uid: name.to_owned(),
            wants: Wants::Site,
            job: format!("{name}-init"),
            since: Timestamp::UNIX_EPOCH,
            updates: false,
        };
        let limits = Limits { all: 1, updates: None };
        assert!(reactions.jobs.acquire(&claim("first"), limits) && !reactions.jobs.acquire(&claim("second"), limits));
        let labels = json!({"bench": "b", "site": "first", labels::SITE_UID: "first", labels::SLOT: "1"});
        let job = compact(json!({"apiVersion": "batch/v1", "kind": "Job",
                                 "metadata": {"name": "first-init", "namespace": "a", "labels": labels}}));
        let changed = reactions.to_part_of_site(Kind::Job);
        changed(Change::Applied { now: Arc::clone(&job), before: None });
        assert!(continues.try_recv().is_err(), "it runs");
        changed(Change::Deleted(job));
        assert_eq!(continues.try_recv(), Ok(Key::new("a", "second")));
    }

    /// although no reconcile of the bench ends or is queued.
    #[tokio::test(start_paused = true)]
    async fn a_raised_limit_of_a_bench_is_used_at_once() {
        let mut replica = Replica::new(owns_all(), Duration::from_hours(1));
        let (reactions, _) = reactions(&replica);
        replica.limit.store(1, Ordering::Relaxed);
        for name in ["first", "second"] {
            replica.wake.sites.stray(site(name, None));
            replica.wake.site_now(&Key::new("a", name));
        }
        assert_eq!(replica.started().await, keys(&[("site", "first")]));
        replica.limit.store(2, Ordering::Relaxed);
        reactions.to_bench()(Change::Applied { now: bench(None), before: None });
        let started = replica.started().await;
        assert!(started.contains(&("site", "second".to_owned())), "{started:?}");
    }
}
