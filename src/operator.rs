//! Puts the parts together: Lease, watches, queues, servers; and ends them in order.

mod settings;
mod watches;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use kube_sharding::{
    Assignment, Incarnation, SlotSet,
    lease::{LeaseSettings, MemberLease},
};
use tokio::{signal::unix, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    cli::RunArguments,
    config::OperatorConfig,
    controllers::{bench, context::Context, site},
    domain::key::Key,
    io::{client, events::Events, random},
    lanes::runner::Runner,
    metrics,
};

/// Lease of the one member that this version runs.
const LEASE: &str = "frappe-operator-member";
/// How long one request for the Lease may take.
const LEASE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until a signal, or until the Lease is lost.
pub async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    arguments.check().map_err(anyhow::Error::msg)?;
    let handle = metrics::install()?;
    let stop = CancellationToken::new();
    let (ready_sender, ready) = watch::channel(Err("waiting for the member's lease".to_owned()));
    let mut server =
        tokio::spawn(admin::serve(arguments.metrics_bind_address, handle, ready, stop.clone().cancelled_owned()));
    let config = client::config().await.context("find the API server")?;
    let incarnation = incarnation(&arguments);
    let mut lease =
        MemberLease::acquire(client::for_lease(config.clone())?, lease_settings(&arguments), incarnation.clone())
            .await
            .context("this version runs one member only: stop the other, or wait until it has ended")?;
    let assignment = Assignment::sole(incarnation.clone(), lease.transitions());
    tracing::info!(%incarnation, slots = assignment.slots_of(&incarnation).len(), epoch = assignment.epoch(), "member began");
    let client = client::gated(config, lease.right(), arguments.crash_after_writes)?;
    let events = Events::new(client.clone(), &arguments.pod_name);
    let share = Share { slots: assignment.slots_of(&incarnation), epoch: assignment.epoch() };
    let mut work = tokio::spawn(work(arguments, client, events, share, ready_sender, stop.clone()));
    let ended = tokio::select! {
        lost = lease.keep() => Err(anyhow::Error::from(lost)),
        () = signal() => Ok(()),
        ended = &mut work => ended.context("the operator's work panicked")?.and_then(|()| bail!("the operator's work ended")),
        ended = &mut server => ended?.context("serve metrics and health").and_then(|()| bail!("the HTTP server ended")),
    };
    stop.cancel();
    if ended.is_ok() {
        // Renewing goes on until running reconciles have ended; then the Lease is given back.
        tokio::select! { _ = lease.keep() => {}, _ = &mut work => {} }
        lease.release().await.context("release the lease")?;
        tracing::info!("member ended");
    }
    server.abort();
    ended
}

fn incarnation(arguments: &RunArguments) -> Incarnation {
    Incarnation { pod: arguments.pod_uid.clone().unwrap_or_else(random::id), nonce: random::id() }
}

fn lease_settings(arguments: &RunArguments) -> LeaseSettings {
    LeaseSettings {
        namespace: arguments.namespace.clone(),
        name: LEASE.to_owned(),
        duration: arguments.lease_duration,
        renew_interval: arguments.lease_renew_interval,
        attempt_timeout: LEASE_ATTEMPT_TIMEOUT.min(arguments.lease_renew_interval),
    }
}

/// SIGTERM or Ctrl-C.
async fn signal() {
    let mut terminate = unix::signal(unix::SignalKind::terminate()).expect("signals can be listened to at start");
    let mut interrupt = unix::signal(unix::SignalKind::interrupt()).expect("signals can be listened to at start");
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
}

/// What this member owns.
struct Share {
    slots: SlotSet,
    epoch: i64,
}

/// Watches and reconciles until `stop`.
async fn work(
    arguments: RunArguments,
    client: kube::Client,
    events: Events,
    share: Share,
    ready: watch::Sender<Result<(), String>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let (site_queue, site_runner) = Runner::<Key, Key>::new("frappesite", arguments.site_reconciles_max);
    let (bench_queue, bench_runner) = Runner::<(), Key>::new("frappebench", arguments.bench_reconciles_max);
    let (settings_sender, settings) = watch::channel(Arc::new(OperatorConfig::default()));
    ready.send_modify(|it| *it = Err("waiting for the first lists of every kind".to_owned()));
    let started = watches::start(&mut tasks, &client, &share.slots, &site_queue, &bench_queue);
    let map = settings::start(
        &mut tasks,
        &client,
        &arguments.namespace,
        events.clone(),
        settings_sender,
        started.everything(),
    );
    let definitions = started.definitions();
    let context = Arc::new(started.context(client, events, settings, share.epoch));
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = async { map.synced().await; watches::synced(&context, &definitions).await } => {}
    }
    ready.send_modify(|it| *it = Ok(()));
    tracing::info!(sites = context.sites.len(), benches = context.benches.len(), "caches are synced");
    let limits = Arc::clone(&context);
    let sites = site_runner.run(
        move |bench| site_limit(&limits, bench),
        {
            let context = Arc::clone(&context);
            move |key| site::reconcile(Arc::clone(&context), key)
        },
        stop.clone(),
    );
    let most = arguments.bench_reconciles_max;
    let benches =
        bench_runner.run(move |()| most, move |key| bench::reconcile(Arc::clone(&context), key), stop.clone());
    tokio::join!(sites, benches);
    tasks.shutdown().await;
    Ok(())
}

/// The greater of the ConfigMap's and the bench's number, read when a reconcile starts.
fn site_limit(context: &Context, bench: &Key) -> usize {
    let own = context.benches.get(bench).and_then(|it| it.spec.site_reconcile_concurrency);
    let own = own.and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
    context.config().max_concurrent_site_reconciles.max(own)
}
