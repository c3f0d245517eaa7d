//! The commands that look and change nothing: `shards`, `admission-fence`.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use frappe_crds::FrappeSite;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, ResourceExt, api::ListParams, core::DynamicObject};
use kube_sharding::{
    map::SlotMap,
    member::LeaseRecord,
    watch::{Query, follow},
    wire::Names,
};

use crate::{
    cli::{FenceArguments, ShardsArguments, ShardsQuestion},
    fence,
    io::client,
    shards::{self, names, owner_of, report},
};

/// Prints which replica owns what.
pub async fn shards(arguments: ShardsArguments) -> anyhow::Result<()> {
    let client = Client::try_from(client::config("command line").await.context("find the API server")?)?;
    let names = names(&arguments.namespace);
    match &arguments.question {
        Some(ShardsQuestion::Owner { site }) => owner(&client, &names, site).await,
        None if arguments.watch => watch(&client, &names, arguments.json).await,
        None => show(&client, &names, arguments.json).await,
    }
}

/// Prints the admission fence as YAML documents that kubectl applies. (JSON is YAML.)
pub fn admission_fence(arguments: &FenceArguments) -> anyhow::Result<()> {
    for document in fence::policy(&arguments.namespace, &arguments.service_account) {
        print(&format!("---\n{}\n", serde_json::to_string_pretty(&document)?))?;
    }
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

async fn show(client: &Client, names: &Names, as_json: bool) -> anyhow::Result<()> {
    let (map, leases) = read(client, names).await?;
    let report = report(names, map.as_ref(), &leases);
    print(&if as_json { format!("{}\n", serde_json::to_string_pretty(&report)?) } else { shards::table(&report) })
}

/// Shows it again whenever the map changes.
async fn watch(client: &Client, names: &Names, as_json: bool) -> anyhow::Result<()> {
    let query = Query::of::<DynamicObject>(&names.map_resource(), Some(&names.namespace));
    let mut changes = Box::pin(follow::<DynamicObject>(client.clone(), query, None));
    while let Some(change) = changes.next().await {
        change.context("watch the slot map")?;
        show(client, names, as_json).await?;
    }
    Ok(())
}

async fn owner(client: &Client, names: &Names, site: &str) -> anyhow::Result<()> {
    let (namespace, name) = site.split_once('/').unwrap_or(("default", site));
    let found = Api::<FrappeSite>::namespaced(client.clone(), namespace).get(name).await.context("read the site")?;
    let (map, leases) = read(client, names).await?;
    let Some(map) = map else {
        bail!("there is no slot map in namespace {}: does the operator run there?", names.namespace)
    };
    match owner_of(names, &map, &found.uid().unwrap_or_default(), &leases) {
        Some(pod) => print(&format!("{pod}\n")),
        None => bail!("the slot of {site} is owned by nobody now: see `frappe-operator shards`"),
    }
}

/// The map, and every Lease with its age by the wall clocks of its holder and of this machine: for people only.
#[expect(clippy::disallowed_methods, reason = "an age that is shown to people")]
async fn read(client: &Client, names: &Names) -> anyhow::Result<(Option<SlotMap>, Vec<(LeaseRecord, u64)>)> {
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
