//! What one incarnation of this replica works with: caches, indexes and queues; and what happens when its slots change.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use kube_sharding::{
    SlotSet, Work,
    gate::{Opening, Scope},
    lanes::{rates::Rates, runner::Queue},
    named::Named,
    readiness::{Awaits, Source},
    session::Session,
    sharded::Again,
};
use tokio::sync::watch;

use super::{
    apis::{Definitions, Present},
    fleet::Fleet,
    offers::{self, Watched},
    process::{BACKUP_CONTROLLER, BENCH_CONTROLLER, JOB_CONTROLLER, Process, SITE_CONTROLLER},
    reactions::Reactions,
    settings,
    wake::{self, Companions, Wake},
    watches::{self, Starter},
};
use crate::{
    config::OperatorConfig,
    controllers::{
        bench::placed::PlacedSite,
        companion::{Companion, index::Indexes, orphan},
        contents::Contents,
        context::{Caches, ChildCache, Children, Context},
        site,
    },
    domain::{
        capabilities::{Capabilities, Reader},
        key::Key,
        kinds::Kind,
        watches::Narrowing,
    },
    io::{
        departures::{Departures, Left},
        events::Events,
        tally::Tallies,
    },
};

/// What one incarnation works with.
pub(super) struct Replica {
    process: Arc<Process>,
    /// What every reconcile is given.
    pub(super) context: Arc<Context>,
    wake: Wake,
    reactions: Reactions,
    caches: Caches,
    /// Which optional APIs exist.
    present: Present,
    /// Reconciles that may start in a second.
    pub(super) rates: watch::Receiver<Rates>,
    settings: watch::Sender<Arc<OperatorConfig>>,
    opening: watch::Receiver<Arc<Opening>>,
    capabilities: watch::Sender<Capabilities>,
    watched: OnceLock<Vec<Watched>>,
}

/// What the coordinator keeps of the sites of benches with several revisions.
fn tallies(session: &Session, namespaces: &[String], wake: &Wake) -> Tallies<PlacedSite> {
    let counted = wake.clone();
    let wake_bench = move |bench| counted.bench(bench);
    Tallies::new(session.client().clone(), namespaces, site::watch::whereabouts, wake.gate.opening(), wake_bench)
}

/// Queues and indexes of SiteBackups and SiteJobs.
fn companions(queue: impl Fn(&'static str) -> Queue<Key, Key>) -> BTreeMap<Kind, Companions> {
    [(Kind::SiteBackup, BACKUP_CONTROLLER), (Kind::SiteJob, JOB_CONTROLLER)]
        .map(|(kind, name)| (kind, Companions { queue: queue(name), index: Indexes::default() }))
        .into()
}

/// Their indexes, with the caches of those without a slot label.
fn held(wake: &Wake, caches: &Caches) -> BTreeMap<Kind, (Indexes, Arc<ChildCache>)> {
    let new = |kind: Kind| Arc::clone(&caches[&(kind, Narrowing::Unlabelled)].0);
    wake.companions.iter().map(|(kind, it)| (*kind, (it.index.clone(), new(*kind)))).collect()
}

impl Replica {
    /// Nothing is known yet, and nothing is watched.
    pub(super) fn begin(process: &Arc<Process>, session: &Session) -> Self {
        let incarnation = session.incarnation();
        tracing::info!(pod = process.pod_name, %incarnation, version = env!("CARGO_PKG_VERSION"), "starting frappe-operator");
        process.ready.send_modify(|it| *it = Err("waiting for the caches to sync".to_owned()));
        let (sites, unlabelled, benches) = watches::caches();
        let queue = |controller| session.queue(controller).expect("each of these controllers is added");
        let wake = Wake {
            sites,
            unlabelled,
            benches,
            site_queue: queue(SITE_CONTROLLER),
            bench_queue: queue(BENCH_CONTROLLER),
            companions: companions(queue),
            gate: session.gate().clone(),
        };
        let (definitions, present) = Definitions::new();
        let jobs = watches::budget(session, &wake);
        let reactions = Reactions::new(session.client().clone(), wake.clone(), Arc::clone(&jobs), definitions);
        let caches = watches::caches_of_objects(&wake, &reactions);
        let settings = watch::Sender::new(Arc::new(OperatorConfig::default()));
        let capabilities = watch::Sender::new(Capabilities::default());
        let (woken, departed) = (wake.clone(), wake.clone());
        let client = session.client();
        let arguments = &process.arguments;
        let children = |narrowings: &[Narrowing]| Children::of(&caches, narrowings);
        let context = Context {
            client: client.clone(),
            events: Events::new(client.clone(), &process.pod_name),
            clock: Arc::clone(&process.wall_clock),
            settings: settings.subscribe(),
            sites: Arc::clone(&wake.sites),
            benches: Arc::clone(&wake.benches),
            site_children: children(&[Narrowing::OfSites, Narrowing::Slots, Narrowing::Everything]),
            bench_children: children(&[Narrowing::OfBenches]),
            capabilities: capabilities.subscribe(),
            pod_problems: Arc::clone(&reactions.pod_problems),
            user_secrets: Arc::clone(&caches[&(Kind::Secret, Narrowing::Marked)].0),
            contents: Contents::new(client.clone(), &arguments.namespace),
            ingress_services: Named::new(session.clone(), Kind::Service.resource(), move || woken.benches())
                .metadata_only(),
            claims: Arc::clone(&reactions.claims),
            root_secrets: Arc::clone(&reactions.root_secrets),
            companions: held(&wake, &caches),
            operator_image: arguments.image.clone(),
            jobs,
            locks: site::locks::Locks::default(),
            departures: Departures::new(client.clone(), &arguments.watch_namespaces, move |left| match left {
                Left::Bench(bench) => departed.bench(bench),
                Left::Site(site) => departed.site_left(&site),
            }),
            tallies: tallies(session, &arguments.watch_namespaces, &wake),
            namespaces: arguments.watch_namespaces.clone(),
        };
        Self {
            process: Arc::clone(process),
            context: Arc::new(context),
            reactions,
            caches,
            present,
            rates: rates(session, settings.subscribe()),
            settings,
            opening: wake.gate.opening(),
            wake,
            capabilities,
            watched: OnceLock::new(),
        }
    }

    /// How many reconciles for the sites of a bench may run at once.
    pub(super) fn limit(&self, bench: &Key) -> usize {
        let own = self.context.benches.get(bench).and_then(|it| it.spec.site_reconcile_concurrency);
        let slots = self.opening.borrow().slots().len();
        self.context.config().site_limit(own, slots)
    }

    /// The slot of a site.
    pub(super) fn scopes_of_site(&self, key: &Key) -> Vec<Scope> {
        let Some(site) = self.context.sites.get(key) else {
            self.context.jobs.forget(key);
            return Vec::new();
        };
        vec![wake::scope_of(&site)]
    }

    /// The slot of the site of SiteBackups or SiteJobs; without a site, of each that they have or need.
    pub(super) fn scopes_of_companions<K: Companion>(&self, key: &Key) -> Vec<Scope> {
        let known = self.context.sites.get(key).map(|site| wake::scope_of(&site));
        known.map_or_else(|| orphan::scopes::<K>(&self.context, key).into_iter().collect(), |scope| vec![scope])
    }
}

impl Work for Replica {
    fn watches(self: &Arc<Self>, session: &Session) -> Vec<Source> {
        let starter = Starter {
            session,
            wake: &self.wake,
            reactions: &self.reactions,
            caches: &self.caches,
            present: &self.present,
            namespaces: &self.context.namespaces,
        };
        let watched = starter.start_all();
        let woken = self.wake.clone();
        let settings = settings::start(
            session,
            &self.process.arguments.namespace,
            self.context.events.clone(),
            self.settings.clone(),
            move |concerned| woken.settings(concerned),
        );
        let mut sources: Vec<Source> = watched.iter().map(|it| it.source.clone()).collect();
        sources.push(Source::new(settings, [Awaits::Member]));
        // An API that comes or goes counts also where no watch needs it.
        let all = watch::Sender::new(SlotSet::ALL);
        sources.extend(self.present.values().map(|it| Source::new(all.subscribe(), []).while_present(it.clone())));
        // It is set here and nowhere else.
        let _ = self.watched.set(watched);
        sources
    }

    fn listed(&self) -> Again {
        let offered = offers::offered(&self.present, self.watched.get().map_or(&[], Vec::as_slice));
        let before = self.capabilities.send_replace(offered);
        Again {
            slots: offers::concerns(Reader::Sites, before, offered),
            coordinator: offers::concerns(Reader::Benches, before, offered),
        }
    }

    fn gained(&self, slots: &SlotSet) {
        self.wake.slots(slots);
    }

    fn coordinates(&self) {
        self.wake.benches();
        self.wake.orphans();
    }

    fn synced(self: &Arc<Self>, session: &Session) {
        self.process.ready.send_modify(|it| *it = Ok(()));
        tracing::info!(benches = self.wake.benches.len(), "caches synced, ready to own slots");
        let fleet = Fleet {
            session: session.clone(),
            events: self.context.events.clone(),
            report: self.process.report.clone(),
            sites: Arc::clone(&self.wake.sites),
        };
        session.spawn(fleet.follow());
    }
}

/// The rates of the settings, as they change.
fn rates(session: &Session, mut settings: watch::Receiver<Arc<OperatorConfig>>) -> watch::Receiver<Rates> {
    let of = |config: &OperatorConfig| Rates {
        member_per_second: config.member_reconciles_per_second,
        lane_per_second: config.bench_reconciles_per_second,
    };
    let (sender, receiver) = watch::channel(of(&settings.borrow()));
    session.spawn(async move {
        while settings.changed().await.is_ok() {
            sender.send_replace(of(&settings.borrow_and_update()));
        }
    });
    receiver
}
