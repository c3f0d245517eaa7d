//! Chaos: replicas with random faults from a seed while users work, evaluated by the audit log.
#![allow(clippy::disallowed_methods, reason = "the audit log has the wall clock's time")]
#![allow(clippy::print_stdout, reason = "output for users")]

pub mod checker;
pub mod faults;
mod fleet;
pub mod report;
pub mod settings;
pub mod trace;
pub mod users;

use std::{sync::atomic::Ordering, time::Duration};

use anyhow::bail;
use checker::Findings;
use fleet::Fleet;
use jiff::Timestamp;
use kube::Client;
use report::Report;
use tokio::time::Instant;
use users::Users;

use crate::{chaos::settings::Chaos, cluster::Cluster};

/// How long sites may take to become Ready before the first fault.
const BEGIN_WITHIN: Duration = Duration::from_mins(6);
/// Time after the last fault until everything must be observed and owned.
const SETTLE_WITHIN: Duration = Duration::from_mins(3);

impl Chaos {
    /// How long a member may act after a read of the map: 12/15 of its Lease's duration.
    #[allow(clippy::cast_precision_loss, reason = "a few seconds")]
    fn right_seconds(&self) -> f64 {
        self.lease_seconds as f64 * 12.0 / 15.0
    }

    /// Runs it in a new cluster. The report contains all violations.
    pub async fn run(&self) -> anyhow::Result<Report> {
        let cluster = tokio::task::spawn_blocking(|| {
            Cluster::start_with("chaos", 5, &[("AUDIT_POLICY", "audit-history.yaml"), ("LEADER_ELECT", "false")])
        })
        .await??;
        let client = cluster.client().await?;
        self.within(&cluster, client).await
    }

    async fn within(&self, cluster: &Cluster, client: Client) -> anyhow::Result<Report> {
        let mut fleet = Fleet::new(self, cluster, client.clone());
        for _ in 0..self.members {
            fleet.start()?;
        }
        cluster.apply(&users::ground(self.benches))?;
        let users = Users::new(client, self.benches);
        for number in 0..self.sites {
            users.make(number).await?;
        }
        let ready = self.sites - self.sites / 10;
        until(BEGIN_WITHIN, "the sites are Ready", async || users.unobserved().await.is_ok_and(|(_, it)| it >= ready))
            .await?;
        let begun = Timestamp::now();
        println!("{} sites, {} members; faults for {:?}, seed {}", self.sites, self.members, self.duration, self.seed);
        let work = tokio::spawn(users.clone().work(self.seed + 1, self.edits_per_second, self.sites));
        let injected = self.inject_faults(&mut fleet).await;
        users.busy.store(false, Ordering::SeqCst);
        fleet.heal().await?;
        let observed = async || users.unobserved().await.is_ok_and(|(waiting, _)| waiting == 0);
        let settled = until(SETTLE_WITHIN, "every edit is observed", observed).await;
        // Slots without sites are taken over like the others, but perhaps later.
        let owned = until(SETTLE_WITHIN, "every slot has an owner", async || fleet.owns_everything().await).await;
        work.abort();
        injected?;
        for error in [settled.err(), owned.err()].into_iter().flatten() {
            println!("{error:#}");
        }
        users.write_down().await?;
        let ended = Timestamp::now();
        let ends = fleet.end().await?;
        let found = Findings::read(&cluster.logs)?;
        Ok(Report::new(self, (begun, ended), &found, &fleet, ends))
    }

    async fn inject_faults(&self, fleet: &mut Fleet<'_>) -> anyhow::Result<()> {
        let end = Instant::now() + self.duration;
        for planned in faults::plan(self.seed, self.map_by_hand) {
            tokio::time::sleep(planned.wait).await;
            if Instant::now() >= end {
                return Ok(());
            }
            fleet.inject(planned).await?;
        }
        Ok(())
    }
}

/// Polls until the condition is true.
async fn until(most: Duration, what: &str, look: impl AsyncFn() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + most;
    while Instant::now() < end {
        if look().await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    bail!("not within {most:?}: {what}")
}
