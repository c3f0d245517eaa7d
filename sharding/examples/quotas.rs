//! A kind for the coordinator alone: each Namespace with the label `example.com/pods` gets a ResourceQuota of so many pods. One
//! replica does all; when it ends, another takes over within a Lease's duration.

use std::{error::Error, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Namespace, ResourceQuota, ResourceQuotaSpec},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    Config, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams},
};
use kube_sharding::{Connection, Context, Kind, Objects, Outcome, Settings, Sharded, coordinated, key::Key};

const PODS: &str = "example.com/pods";
/// Name of the quotas.
const QUOTA: &str = "pods";

async fn reconcile(namespace: Arc<Namespace>, context: Context) -> Result<Outcome, kube::Error> {
    let (name, pods) = (namespace.name_any(), namespace.labels().get(PODS).cloned().unwrap_or_default());
    let hard = Some([("pods".to_owned(), Quantity(pods))].into());
    let found = context.store::<ResourceQuota>().get(&Key::new(&name, QUOTA));
    if namespace.metadata.deletion_timestamp.is_some()
        || found.is_some_and(|it| it.spec.as_ref().is_some_and(|spec| spec.hard == hard))
    {
        return Ok(Outcome::Done);
    }
    let quota = ResourceQuota {
        metadata: ObjectMeta {
            name: Some(QUOTA.to_owned()),
            namespace: Some(name.clone()),
            labels: Some([(PODS.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(ResourceQuotaSpec { hard, ..ResourceQuotaSpec::default() }),
        ..ResourceQuota::default()
    };
    let quotas = context.api::<ResourceQuota>(&name);
    context.store().wrote(quotas.patch(QUOTA, &PatchParams::apply("quotas").force(), &Patch::Apply(&quota)).await?);
    Ok(Outcome::Done)
}

/// The controller.
pub fn controller(connection: impl Into<Connection>, settings: Settings) -> Sharded<Objects> {
    let of_quota = |quota: &ResourceQuota| vec![Key::new("", quota.namespace().unwrap_or_default())];
    coordinated(Kind::<Namespace>::new().labels(PODS), connection, settings)
        .watches(Kind::<ResourceQuota>::new().labels(PODS), of_quota)
        .reconcile(reconcile)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::from_env("example.com", "quotas").stop_on_signals();
    controller(Config::infer().await?, settings).run().await?;
    Ok(())
}
