//! Faults while sites are edited.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use frappe_loadtest::scenario::Fault;

use crate::{
    generator::Pace,
    run::{Mark, Run},
};

/// Duration of edits before the fault.
const BEFORE: Duration = Duration::from_secs(3);
/// Time limit for the recovery.
const RECOVERY: Duration = Duration::from_mins(3);

/// Injects a fault and waits for the recovery; returns the start of the measurement, and the uids of dead pods.
pub(crate) async fn run(
    run: &mut Run<'_>,
    fault: Fault,
    pace: Pace,
    seconds: u64,
) -> anyhow::Result<(Mark, Vec<String>)> {
    run.begin(&format!("fault: {fault:?}"));
    let stopped = Arc::new(AtomicBool::new(false));
    let editing = tokio::spawn(Arc::clone(&run.generator).churn(pace, Arc::clone(&stopped)));
    tokio::time::sleep(BEFORE).await;
    let mark = run.mark().await;
    let result = inject(run, fault, Duration::from_secs(seconds)).await;
    let settled = match &result {
        Ok(_) => run.settled().await,
        Err(_) => Ok(()),
    };
    stopped.store(true, Ordering::SeqCst);
    editing.await?;
    let gone = result?;
    settled?;
    run.drained(RECOVERY).await?;
    Ok((mark, gone))
}

async fn inject(run: &mut Run<'_>, fault: Fault, time: Duration) -> anyhow::Result<Vec<String>> {
    match fault {
        Fault::Rollout => {
            for name in run.members.running.keys().cloned().collect::<Vec<_>>() {
                run.start_one().await?;
                run.members.stop(&name).await?;
                run.update_sampler()?;
            }
            Ok(Vec::new())
        }
        Fault::Kill | Fault::KillCoordinator => {
            let name = victim(run, fault == Fault::KillCoordinator).await?;
            let mut member = run.members.running.remove(&name).context("it runs")?;
            run.update_sampler()?;
            member.operator.kill()?;
            Ok(vec![member.uid])
        }
        Fault::Pause => {
            let name = victim(run, false).await?;
            let member = run.members.running.get(&name).context("it runs")?;
            member.operator.signal("STOP")?;
            tokio::time::sleep(time).await;
            member.operator.signal("CONT")?;
            Ok(vec![member.uid.clone()])
        }
        Fault::ApiServerPause => {
            run.members.cluster.signal_api_server("STOP")?;
            tokio::time::sleep(time).await;
            run.members.cluster.signal_api_server("CONT")?;
            Ok(Vec::new())
        }
        Fault::ApiServerRestart => {
            run.members.cluster.restart_api_server().await?;
            run.update_sampler()?;
            Ok(Vec::new())
        }
    }
}

/// The coordinator, or another member.
pub(crate) async fn victim(run: &Run<'_>, coordinator: bool) -> anyhow::Result<String> {
    let first = || run.members.running.keys().next().cloned();
    if !run.members.is_ours() {
        return first().context("no member is running");
    }
    let chief = run.members.coordinator().await?;
    if coordinator {
        return Ok(chief);
    }
    let other = run.members.running.keys().find(|name| **name != chief).cloned();
    other.or_else(first).context("no member is running")
}
