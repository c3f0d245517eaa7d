//! Sites read live. Anybody may make one that cannot be read whole: whoever asks is answered with what can.

use frappe_crds::FrappeSite;
use kube::{Client, core::PartialObjectMeta};
use kube_sharding::watch::{Query, Read, list, read};

use super::cached::Cached;
use crate::domain::key::Key;

/// The sites with these labels, of these namespaces or, where there are none, of all; and the oldest version at which they
/// were listed.
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

/// The metadata of a site, if it exists, without labels and annotations where there are very many.
pub async fn site_metadata(client: &Client, key: &Key) -> Result<Option<PartialObjectMeta<FrappeSite>>, kube::Error> {
    Ok(site_metadata_at(client, key).await?.0)
}

/// The same, and the version of the world at which it was so: a watch goes on from there.
pub async fn site_metadata_at(
    client: &Client,
    key: &Key,
) -> Result<(Option<PartialObjectMeta<FrappeSite>>, String), kube::Error> {
    let (found, version) = list(client.clone(), Query { metadata_only: true, ..named(key) }, read).await?;
    Ok((found.into_iter().next(), version))
}

/// A list of one, since what reads a list looks at each object's text first.
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
