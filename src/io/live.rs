//! Objects read live. A site that cannot be parsed completely is returned with the parts that can.

use std::sync::Arc;

use frappe_crds::FrappeSite;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, Client,
    api::ListParams,
    core::{DynamicObject, PartialObjectMeta},
};
use kube_sharding::watch::{Query, Read, list, read};
use serde_json::Value;

use super::{cached::Cached, compact::Compact};
use crate::domain::{key::Key, kinds::Kind};

/// The sites with these labels in these namespaces, or in all if empty; and the oldest version at which they were listed.
pub async fn sites(
    client: &Client,
    namespaces: &[String],
    labels: &str,
) -> Result<(Vec<FrappeSite>, String), kube::Error> {
    let (mut sites, mut versions) = (Vec::new(), Vec::new());
    for query in Query::of::<FrappeSite>(&(), None).within(namespaces).each() {
        let query = Query { labels: labels.to_owned(), ..query };
        let (found, version) = list(client.clone(), query, FrappeSite::read).await?;
        sites.extend(found);
        versions.push(version);
    }
    let oldest = versions.into_iter().min_by_key(|it| it.parse::<u64>().unwrap_or(0));
    Ok((sites, oldest.unwrap_or_default()))
}

/// A site, if it exists.
pub async fn site(client: &Client, key: &Key) -> Result<Option<FrappeSite>, kube::Error> {
    one(client, named(key), FrappeSite::read).await
}

/// The metadata of a site, if it exists; without labels and annotations if there are very many.
pub async fn site_metadata(client: &Client, key: &Key) -> Result<Option<PartialObjectMeta<FrappeSite>>, kube::Error> {
    Ok(site_metadata_at(client, key).await?.0)
}

/// The same, with the list's resourceVersion, from which a watch continues.
pub async fn site_metadata_at(
    client: &Client,
    key: &Key,
) -> Result<(Option<PartialObjectMeta<FrappeSite>>, String), kube::Error> {
    let (found, version) = list(client.clone(), Query { metadata_only: true, ..named(key) }, read).await?;
    Ok((found.into_iter().next(), version))
}

/// Only the metadata of a Secret, if it exists.
pub async fn secret_metadata(client: &Client, key: &Key) -> Result<Option<Arc<DynamicObject>>, kube::Error> {
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), &key.namespace);
    let found = api.get_opt(&key.name).await?;
    Ok(found.map(|it| Arc::new(DynamicObject { types: it.types, metadata: it.metadata, data: Value::Null })))
}

/// An object of a watched kind, as its watch delivers it, if it exists.
pub async fn object(client: &Client, kind: Kind, key: &Key) -> Result<Option<Compact>, kube::Error> {
    let namespace = (!kind.row().is_of_cluster).then_some(key.namespace.as_str());
    let query = Query::of::<DynamicObject>(&kind.resource(), namespace);
    let fields = format!("metadata.name={}", key.name);
    one(client, Query { fields, metadata_only: kind.row().metadata_only, ..query }, DynamicObject::read).await
}

/// The pods of a Job.
pub async fn pods_of(client: &Client, job: &Key) -> Result<Vec<Pod>, kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &job.namespace);
    let selector = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={}", job.name));
    Ok(api.list(&selector).await?.items)
}

/// A list of one object, because the list parser checks each object's text first.
async fn one<K: kube::Resource + Send + 'static>(
    client: &Client,
    query: Query,
    read: Read<K>,
) -> Result<Option<K>, kube::Error> {
    let (found, _) = list(client.clone(), query, read).await?;
    Ok(found.into_iter().next())
}

fn named(key: &Key) -> Query {
    let fields = format!("metadata.name={}", key.name);
    Query { fields, ..Query::of::<FrappeSite>(&(), Some(&key.namespace)) }
}
