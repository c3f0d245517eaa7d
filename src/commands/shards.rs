//! `shards`: the owners of the slots.

use anyhow::{Context as _, bail};
use frappe_crds::FrappeSite;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::ListParams, core::DynamicObject};
use kube_sharding::{
    fleet::owner_of,
    map::SlotMap,
    member::LeaseRecord,
    watch::{Query, follow},
    wire::Names,
};

use super::{
    fleet::site_of,
    output::{Cluster, connect, print, told},
};
use crate::domain::uid;
use crate::{
    cli::{ShardsArguments, ShardsQuestion, TargetArguments},
    fleet_report::{self, names, report},
};

/// Prints the owners of the slots.
pub async fn shards(arguments: ShardsArguments, target: &TargetArguments) -> anyhow::Result<()> {
    let cluster = connect(target).await?;
    let client = &cluster.client;
    let names = names(&arguments.namespace);
    match &arguments.question {
        Some(ShardsQuestion::Owner { site }) => owner(&cluster, &names, site).await,
        None if arguments.watch => watch(client, &names, arguments.json).await,
        None => show(client, &names, arguments.json).await,
    }
}

async fn show(client: &Client, names: &Names, as_json: bool) -> anyhow::Result<()> {
    let (map, leases) = read(client, names).await?;
    let report = report(names, map.as_ref(), &leases);
    print(&if as_json { format!("{}\n", serde_json::to_string_pretty(&report)?) } else { fleet_report::table(&report) })
}

/// Prints the table whenever the slot map changes.
async fn watch(client: &Client, names: &Names, as_json: bool) -> anyhow::Result<()> {
    let query = Query::of::<DynamicObject>(&names.map_resource(), Some(&names.namespace));
    let mut changes = Box::pin(follow::<DynamicObject>(client.clone(), query, kube_sharding::watch::read, None));
    while let Some(change) = changes.next().await {
        change.context("watch the slot map")?;
        show(client, names, as_json).await?;
    }
    Ok(())
}

async fn owner(cluster: &Cluster, names: &Names, site: &str) -> anyhow::Result<()> {
    let (client, key) = (&cluster.client, cluster.named(site));
    let found = site_of(client, &key).await?;
    match owner_of_site(client, names, &found).await {
        Ok(pod) => print(&format!("{pod}\n")),
        Err(why) => bail!("{site}: {why}"),
    }
}

/// The pod that owns a site, or why there is none.
pub(super) async fn owner_of_site(client: &Client, names: &Names, site: &FrappeSite) -> Result<String, String> {
    let (map, leases) = read(client, names).await.map_err(|error| told(&error))?;
    let map = map.ok_or_else(|| no_map(names))?;
    let owner = owner_of(names, &map, uid::of(site), &leases);
    owner.ok_or_else(|| "its slot has no owner at present; see `frappe-operator shards`".to_owned())
}

/// The coordinator's pod, or why there is none.
pub(super) async fn coordinator(client: &Client, names: &Names) -> Result<String, String> {
    let (map, leases) = read(client, names).await.map_err(|error| told(&error))?;
    let map = map.ok_or_else(|| no_map(names))?;
    let pod = report(names, Some(&map), &leases).coordinator;
    pod.ok_or_else(|| "there is no coordinator at present; see `frappe-operator shards`".to_owned())
}

fn no_map(names: &Names) -> String {
    format!("no slot map in namespace {}: is the operator running there? (--operator-namespace)", names.namespace)
}

/// The slot map, and every Lease with its age by the wall clocks of its holder and of this machine; for display only.
#[expect(clippy::disallowed_methods, reason = "an age in the output")]
pub(super) async fn read(client: &Client, names: &Names) -> anyhow::Result<(Option<SlotMap>, Vec<(LeaseRecord, u64)>)> {
    let maps: Api<DynamicObject> = Api::namespaced_with(client.clone(), &names.namespace, &names.map_resource());
    let map = maps.get_opt(&names.name).await.context("read the slot map")?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), &names.namespace);
    let listed =
        leases.list(&ListParams::default().labels(&names.lease_selector())).await.context("list the leases")?;
    let age = |lease: &Lease| {
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|it| it.0);
        renewed.map_or(0, |it| u64::try_from(Timestamp::now().duration_since(it).as_secs()).unwrap_or(0))
    };
    let leases = listed.iter().filter_map(|lease| Some((names.read_lease(lease)?, age(lease)))).collect();
    Ok((map.and_then(|map| names.read_map(&map)), leases))
}
