//! Puts the parts together: member, watches, queues, servers; and ends them in order.

mod apis;
mod concerned;
mod fleet;
mod offers;
mod process;
mod reactions;
pub mod reason;
mod replica;
mod settings;
mod wake;
mod watches;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use frappe_crds::{SiteBackup, SiteJob};
use kube::{Resource as _, core::DynamicObject};
use kube_sharding::{
    Settings, Sharded,
    client::Connection,
    clock::{Clock, SystemClock},
    controller::Controller,
    election::Election,
    gate::Scope,
    lanes::runner::Outcome,
    meter::MeterLayer,
    timing::Timing,
};
use process::{BACKUP_CONTROLLER, BENCH_CONTROLLER, JOB_CONTROLLER, Process, SITE_CONTROLLER};
use replica::Replica;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    cli::RunArguments,
    controllers::{backup, bench, site, sitejob},
    domain::{key::Key, kinds::Kind},
    fleet_report::{Report, names},
    io::{
        client,
        clock::{self, WallClock},
        random,
    },
    metrics as recorder,
};

/// How long one answer of the sharding protocol is waited for before it is asked for another way.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a replica finds around it.
pub struct Surroundings {
    /// How the API server is reached.
    pub connection: Connection,
    /// The clock that its right to act is counted by.
    pub clock: Arc<dyn Clock>,
    /// The clock for times in objects.
    pub wall_clock: WallClock,
    /// Who elects the coordinator, where that is not done by a Lease.
    pub election: Option<Arc<dyn Election>>,
    /// Ends it.
    pub stop: CancellationToken,
}

/// Runs until a signal. A member that is fenced drops everything and joins again as another.
pub async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    arguments.check().map_err(anyhow::Error::msg)?;
    let handle = recorder::install()?;
    tokio::spawn(recorder::upkeep(handle.clone()));
    let (ready, is_ready) = watch::channel(Err("waiting for the API server".to_owned()));
    let report = watch::Sender::new(Report::default());
    let served = CancellationToken::new();
    let serving = admin::serve(
        arguments.metrics_bind_address,
        handle,
        is_ready,
        report.subscribe(),
        served.clone().cancelled_owned(),
    );
    let mut server = tokio::spawn(serving);
    let (pod_name, pod_uid) = pod(&arguments);
    let config = client::config(&format!("{pod_name}; {pod_uid}")).await.context("connect to the API server")?;
    let surroundings = Surroundings {
        connection: Connection::new(config),
        clock: Arc::new(SystemClock::default()),
        wall_clock: clock::system(),
        election: None,
        stop: CancellationToken::new(),
    };
    let meter = MeterLayer::new(arguments.crash_after_writes);
    let process = Process { arguments, wall_clock: clock::system(), pod_name, ready, report };
    let connection = surroundings.connection.clone();
    let settings = settings(&process, pod_uid, meter, surroundings).stop_on_signals();
    let ended = tokio::select! {
        ended = sharded(process, connection, settings).run() => ended.map_err(Into::into),
        ended = &mut server => ended?.context("serve metrics and health").and_then(|()| bail!("HTTP server stopped")),
    };
    served.cancel();
    ended
}

/// Name and uid of the pod; made up where they are not said.
fn pod(arguments: &RunArguments) -> (String, String) {
    let uid = arguments.pod_uid.clone().unwrap_or_else(random::id);
    (arguments.pod_name.clone().unwrap_or_else(|| uid.clone()), uid)
}

/// One replica alone, without a process around it: no signals, no HTTP server, no metrics. Runs until it is stopped.
pub async fn replica(arguments: RunArguments, surroundings: Surroundings) -> anyhow::Result<()> {
    let (pod_name, pod_uid) = pod(&arguments);
    let (ready, report) = (watch::Sender::new(Err(String::new())), watch::Sender::default());
    let wall_clock = Arc::clone(&surroundings.wall_clock);
    let process = Process { arguments, wall_clock, pod_name, ready, report };
    let connection = surroundings.connection.clone();
    let settings = settings(&process, pod_uid, MeterLayer::default(), surroundings);
    Ok(sharded(process, connection, settings).run().await?)
}

/// The settings of this replica.
fn settings(process: &Process, pod_uid: String, meter: MeterLayer, surroundings: Surroundings) -> Settings {
    let arguments = &process.arguments;
    Settings {
        pod_uid,
        template: arguments.pod_template_hash.clone(),
        timing: Timing {
            lease_duration: arguments.lease_duration,
            renew_interval: arguments.lease_renew_interval,
            attempt_timeout: ATTEMPT_TIMEOUT.min(arguments.lease_renew_interval),
            ..Timing::default()
        },
        clock: surroundings.clock,
        election: surroundings.election,
        meter,
        metrics: recorder::SHARDING_METRICS,
        nonce: random::id,
        stop: surroundings.stop,
        ..Settings::new(names(&arguments.namespace), &process.pod_name)
    }
}

/// A replica and its controllers.
fn sharded(process: Process, connection: Connection, settings: Settings) -> Sharded<Replica> {
    let arguments = &process.arguments;
    let (sites_max, benches_max) = (arguments.site_reconciles_max, arguments.bench_reconciles_max);
    // Of definitions there is always one, also before the first site is created. With namespaces, labels select.
    let probed = [Kind::Site, Kind::CustomResourceDefinition].map(|it| DynamicObject::url_path(&it.resource(), None));
    let probed = probed.into_iter().filter(|_| arguments.watch_namespaces.is_empty()).collect::<Vec<_>>();
    let ready = process.ready.clone();
    let process = Arc::new(process);
    Sharded::new(connection, settings, move |session| Replica::begin(&process, session))
        .by_hash(probed)
        .on_fenced(move || ready.send_modify(|it| *it = Err("fenced, rejoining with a new identity".to_owned())))
        .controller(
            of_sites(SITE_CONTROLLER, sites_max, |replica, key, _, epoch| {
                site::reconcile(Arc::clone(&replica.context), key, epoch)
            })
            .scopes(Replica::scopes_of_site),
        )
        .controller(
            of_sites(BACKUP_CONTROLLER, sites_max, |replica, key, scope, epoch| {
                backup::reconcile(Arc::clone(&replica.context), key, scope, epoch)
            })
            .scopes(Replica::scopes_of_companions::<SiteBackup>),
        )
        .controller(
            of_sites(JOB_CONTROLLER, sites_max, |replica, key, scope, epoch| {
                sitejob::reconcile(Arc::clone(&replica.context), key, scope, epoch)
            })
            .scopes(Replica::scopes_of_companions::<SiteJob>),
        )
        .controller(Controller::new(BENCH_CONTROLLER, benches_max, |replica: Arc<Replica>, key, _, _| {
            bench::reconcile(Arc::clone(&replica.context), key)
        }))
}

/// A controller of what is done for sites, with limits and rates by bench.
fn of_sites<R: Future<Output = Outcome> + Send + 'static>(
    name: &'static str,
    in_flight_max: usize,
    reconcile: impl Fn(Arc<Replica>, Key, Scope, i64) -> R + Send + Sync + 'static,
) -> Controller<Replica> {
    Controller::new(name, in_flight_max, reconcile).limit(Replica::limit).rates(|replica| replica.rates.clone())
}
