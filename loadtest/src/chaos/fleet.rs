//! The members, and the faults that are injected into them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    checker::pod,
    faults::{Fault, MapEdit, Planned},
    settings::Chaos,
    trace::{Death, Journal},
};
use crate::{
    cluster::Cluster,
    process::{NAMESPACE, Operator, Options},
};

/// Name of the map, and prefix of the Leases' names.
const NAME: &str = "frappe-operator";

/// A running member.
struct Member {
    name: String,
    uid: String,
    operator: Operator,
    /// Whether its process is paused.
    stands_still: Arc<AtomicBool>,
}

/// How stopped members ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    /// Members that released everything.
    pub(super) clean: usize,
    /// Members that could not.
    pub(super) other: usize,
}

/// The members.
pub(super) struct Fleet<'a> {
    chaos: &'a Chaos,
    cluster: &'a Cluster,
    leases: Api<Lease>,
    maps: Api<DynamicObject>,
    members: Vec<Member>,
    started: usize,
    logs: Vec<PathBuf>,
    /// Members that are stopping.
    ending: JoinSet<bool>,
    journal: Arc<Mutex<Journal>>,
    counts: BTreeMap<String, usize>,
    /// Members that failed to stop without a fault, or had ended before.
    unclean: Vec<String>,
}

fn map_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("vyogo.tech", "v1alpha1", "SlotMap"), "slotmaps")
}

impl<'a> Fleet<'a> {
    pub(super) fn new(chaos: &'a Chaos, cluster: &'a Cluster, client: Client) -> Self {
        Self {
            chaos,
            cluster,
            leases: Api::namespaced(client.clone(), NAMESPACE),
            maps: Api::namespaced_with(client, NAMESPACE, &map_resource()),
            members: Vec::new(),
            started: 0,
            logs: Vec::new(),
            ending: JoinSet::new(),
            journal: Arc::default(),
            counts: BTreeMap::new(),
            unclean: Vec::new(),
        }
    }

    /// Starts another pod.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        self.started += 1;
        let name = format!("member-{}", self.started);
        self.start_as(name.clone(), format!("uid-{name}"))
    }

    fn start_as(&mut self, name: String, uid: String) -> anyhow::Result<()> {
        let options = Options {
            pod_name: Some(name.clone()),
            pod_uid: Some(uid.clone()),
            lease_seconds: Some(self.chaos.lease_seconds),
            ..Options::default()
        };
        let operator = Operator::start(&self.chaos.operator, self.cluster, &options)?;
        self.logs.push(operator.log.clone());
        self.members.push(Member { name, uid, operator, stands_still: Arc::default() });
        Ok(())
    }

    pub(super) fn journal(&self) -> Journal {
        self.note(|journal| journal.clone())
    }

    fn note<T>(&self, change: impl FnOnce(&mut Journal) -> T) -> T {
        change(&mut self.journal.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn died(&self, pod: &str, joins_again: bool) {
        let death = Death { pod: pod.to_owned(), at: Timestamp::now(), joins_again };
        self.note(|journal| journal.deaths.push(death));
    }

    /// Number of faults by kind.
    pub(super) fn counts(&self) -> &BTreeMap<String, usize> {
        &self.counts
    }

    /// Members that did not stop cleanly.
    pub(super) fn unclean(&self) -> &[String] {
        &self.unclean
    }

    /// Number of lines with this text in the members' logs.
    pub(super) fn count_log_lines(&self, word: &str) -> usize {
        let of = |path: &PathBuf| {
            std::fs::read_to_string(path).unwrap_or_default().lines().filter(|it| it.contains(word)).count()
        };
        self.logs.iter().map(of).sum()
    }

    /// Injects one fault.
    pub(super) async fn inject(&mut self, planned: Planned) -> anyhow::Result<()> {
        // A paused member gets no other fault until it is resumed.
        let awake: Vec<usize> =
            (0..self.members.len()).filter(|it| !self.members[*it].stands_still.load(Ordering::SeqCst)).collect();
        let Some(chosen) = awake.get(planned.pick % awake.len().max(1)).copied() else { return Ok(()) };
        let shown = format!("{:?} of {}", planned.fault, self.members[chosen].name);
        let word = match planned.fault {
            Fault::Kill { same_pod } => {
                self.kill(chosen, same_pod)?;
                "kill -9".to_owned()
            }
            Fault::Stop(pause) => {
                self.stop(chosen, pause)?;
                "SIGSTOP 1–10 s".to_owned()
            }
            Fault::Terminate => {
                self.terminate(chosen)?;
                "SIGTERM".to_owned()
            }
            Fault::LeaseDeleted => {
                self.delete_lease(chosen).await?;
                "Lease deleted".to_owned()
            }
            Fault::Lease(edit) => {
                let lease = format!("{NAME}-{}", self.members[chosen].name);
                let patch = Patch::Merge(edit.patch());
                if self.leases.patch(&lease, &PatchParams::default(), &patch).await.is_ok()
                    && edit.ends_an_incarnation()
                {
                    self.died(&self.members[chosen].uid.clone(), true);
                }
                "Lease edited".to_owned()
            }
            Fault::ApiServerKilled => {
                self.kill_api_server().await?;
                "API server killed".to_owned()
            }
            Fault::Map(edit) => format!("map: {}{}", edit.name(), self.edit_map(edit, planned.pick).await),
        };
        println!("{} {shown}", Timestamp::now().strftime("%H:%M:%S"));
        *self.counts.entry(word).or_default() += 1;
        Ok(())
    }

    fn kill(&mut self, chosen: usize, same_pod: bool) -> anyhow::Result<()> {
        let mut member = self.members.swap_remove(chosen);
        member.operator.kill()?;
        self.died(&member.uid, same_pod);
        if same_pod { self.start_as(member.name, member.uid) } else { self.start() }
    }

    fn stop(&mut self, chosen: usize, pause: Duration) -> anyhow::Result<()> {
        let member = &self.members[chosen];
        member.operator.signal("STOP")?;
        member.stands_still.store(true, Ordering::SeqCst);
        let (flag, journal, uid) = (Arc::clone(&member.stands_still), Arc::clone(&self.journal), member.uid.clone());
        let (id, begun) = (member.operator.id().to_string(), Timestamp::now());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = std::process::Command::new("kill").args(["-CONT", &id]).status();
            let span = (begun, Timestamp::now());
            journal.lock().unwrap_or_else(PoisonError::into_inner).stops.push((uid, span));
            flag.store(false, Ordering::SeqCst);
        });
        Ok(())
    }

    fn terminate(&mut self, chosen: usize) -> anyhow::Result<()> {
        let mut member = self.members.swap_remove(chosen);
        let journal = Arc::clone(&self.journal);
        self.ending.spawn(async move {
            let clean = member.operator.stop().await.is_ok_and(|status| status.success());
            let death = Death { pod: member.uid, at: Timestamp::now(), joins_again: false };
            journal.lock().unwrap_or_else(PoisonError::into_inner).deaths.push(death);
            clean
        });
        self.start()
    }

    async fn delete_lease(&mut self, chosen: usize) -> anyhow::Result<()> {
        let lease = format!("{NAME}-{}", self.members[chosen].name);
        if self.leases.delete(&lease, &DeleteParams::default()).await.is_ok() {
            self.died(&self.members[chosen].uid.clone(), true);
        }
        Ok(())
    }

    async fn kill_api_server(&mut self) -> anyhow::Result<()> {
        let begun = Timestamp::now();
        self.cluster.restart_api_server().await?;
        self.note(|journal| journal.outages.push((begun, Timestamp::now())));
        Ok(())
    }

    /// Returns a note if the edit was not made.
    async fn edit_map(&self, edit: MapEdit, pick: usize) -> &'static str {
        if edit == MapEdit::Deleted {
            let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            let deleted = self.maps.delete(NAME, &DeleteParams::default()).await.is_ok();
            let freed = self.maps.patch(NAME, &PatchParams::default(), &free).await.is_ok();
            return if deleted && freed { "" } else { " (failed)" };
        }
        for _ in 0..5 {
            let Ok(mut map) = self.maps.get(NAME).await else { return " (failed)" };
            edit.apply(&mut map.data["spec"], pick);
            match self.maps.replace(NAME, &PostParams::default(), &map).await {
                Ok(_) => return "",
                Err(kube::Error::Api(status)) if status.code == 422 => return " (rejected by the API server)",
                Err(_) => {}
            }
        }
        " (failed)"
    }

    /// Ends all faults, and restores the initial number of members.
    pub(super) async fn heal(&mut self) -> anyhow::Result<()> {
        while self.members.iter().any(|it| it.stands_still.load(Ordering::SeqCst)) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Whether every slot and the coordinator's entry belong to an incarnation that holds the Lease of a running member.
    pub(super) async fn owns_everything(&self) -> bool {
        let Ok(map) = self.maps.get(NAME).await else { return false };
        let Ok(leases) = self.leases.list(&ListParams::default()).await else { return false };
        let runs = |holder: &str| self.members.iter().any(|it| it.uid == pod(holder));
        let holders: BTreeSet<String> =
            leases.items.into_iter().filter_map(|it| it.spec?.holder_identity).filter(|it| runs(it)).collect();
        let spec = &map.data["spec"];
        let member = |owner: &Value| spec["members"].get(usize::try_from(owner.as_i64()?).ok()?)?.as_str();
        let owners = spec["owners"].as_array().into_iter().flatten();
        owners.clone().next().is_some()
            && owners.into_iter().all(|it| member(it).is_some_and(|it| holders.contains(it)))
    }

    /// Stops all members. Returns how members that were stopped during faults ended.
    pub(super) async fn end(&mut self) -> anyhow::Result<Ends> {
        let mut ends = Ends::default();
        while let Some(clean) = self.ending.join_next().await {
            if clean? { ends.clean += 1 } else { ends.other += 1 }
        }
        for mut member in self.members.drain(..) {
            let wrong = match member.operator.stop().await {
                Ok(status) if status.success() => continue,
                Ok(status) => format!("{} ended with {status}: {}", member.name, member.operator.log_tail()),
                Err(error) => format!("{}: {error:#}", member.name),
            };
            self.unclean.push(wrong);
        }
        Ok(ends)
    }
}
