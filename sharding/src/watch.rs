//! A watch that can do what kube's own cannot: go on from a known version without a list, and ask the server for hash
//! ranges (`shardSelector`, KEP-5866).
//!
//! Lists are consistent and unpaged: the first thing a new owner must have is the newest state, and a second page is
//! read from etcd. A watch request has a time limit, so that a dead connection is noticed.

use std::{pin::Pin, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{Stream, StreamExt, stream};
use http::Request as HttpRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::{
    Client, Resource, ResourceExt,
    api::{ListParams, WatchParams},
    core::{ObjectList, Request, WatchEvent},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout};

/// What is watched, and how narrowly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Path of the collection, such as `/api/v1/secrets`.
    pub path: String,
    /// Of a collection of the whole cluster, the namespaces that are looked at; all of them if empty.
    pub namespaces: Vec<String>,
    /// Label selector; everything if empty.
    pub labels: String,
    /// Field selector; everything if empty.
    pub fields: String,
    /// Selector of hash ranges, for servers that know it; everything if empty.
    pub shards: String,
    /// Transfer of each object its metadata only.
    pub metadata_only: bool,
    /// Longest time of one watch request, in seconds.
    pub timeout_seconds: u32,
}

impl Query {
    /// All objects of a kind, in a namespace or everywhere.
    pub fn of<K: Resource>(kind: &K::DynamicType, namespace: Option<&str>) -> Self {
        Self { path: K::url_path(kind, namespace), timeout_seconds: 55, ..Self::default() }
    }

    /// The same, of some namespaces only: none means all of them.
    #[must_use]
    pub fn within(mut self, namespaces: &[String]) -> Self {
        self.namespaces = namespaces.to_vec();
        self
    }

    /// One query for each namespace; the query itself if it is of all of them.
    pub fn each(&self) -> Vec<Self> {
        if self.namespaces.is_empty() {
            return vec![self.clone()];
        }
        let (parent, plural) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let of = |namespace: &String| format!("{parent}/namespaces/{namespace}/{plural}");
        self.namespaces.iter().map(|it| Self { path: of(it), namespaces: Vec::new(), ..self.clone() }).collect()
    }

    fn list(&self) -> Result<HttpRequest<Vec<u8>>, kube::Error> {
        let params = ListParams {
            label_selector: some(&self.labels),
            field_selector: some(&self.fields),
            ..ListParams::default()
        };
        let builder = Request::new(&self.path);
        let request = if self.metadata_only { builder.list_metadata(&params) } else { builder.list(&params) };
        self.sharded(request)
    }

    fn watch(&self, version: &str) -> Result<HttpRequest<Vec<u8>>, kube::Error> {
        let params = WatchParams {
            label_selector: some(&self.labels),
            field_selector: some(&self.fields),
            timeout: Some(self.timeout_seconds),
            ..WatchParams::default()
        };
        let builder = Request::new(&self.path);
        let request =
            if self.metadata_only { builder.watch_metadata(&params, version) } else { builder.watch(&params, version) };
        self.sharded(request)
    }

    /// kube does not know the parameter: it is added to the request.
    fn sharded(
        &self,
        request: Result<HttpRequest<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<HttpRequest<Vec<u8>>, kube::Error> {
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        if !self.shards.is_empty() {
            let uri = format!("{}&shardSelector={}", request.uri(), encode(&self.shards));
            *request.uri_mut() =
                uri.parse().map_err(|error: http::uri::InvalidUri| kube::Error::HttpError(error.into()))?;
        }
        Ok(request)
    }
}

fn some(selector: &str) -> Option<String> {
    (!selector.is_empty()).then(|| selector.to_owned())
}

/// Percent-encodes what a query may not hold.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Whether the server selects by hash ranges, by the first of these collections that has objects: a list of an empty
/// range has none of them only then. (Lists of custom resources do not say so themselves.) Where all are empty the answer
/// is no. One server may select some kinds and not others; what is watched by a range that the server does not heed is
/// still right, since every object is judged again when it comes.
pub async fn server_selects_shards(client: &Client, paths: &[String]) -> Result<bool, kube::Error> {
    let empty = "shardRange(object.metadata.uid,'0x0000000000000000','0x0000000000000001')".to_owned();
    let any = async |path: &String, shards: String| {
        let query = Query { path: path.clone(), shards, ..Query::default() };
        let request = Request::new(path).list_metadata(&ListParams::default().limit(1));
        let list: ObjectList<kube::core::PartialObjectMeta> = client.request(query.sharded(request)?).await?;
        Ok::<_, kube::Error>(!list.items.is_empty())
    };
    for path in paths {
        if any(path, String::new()).await? {
            return Ok(!any(path, empty).await?);
        }
    }
    Ok(false)
}

/// What a watch saw.
#[derive(Clone, Debug)]
pub enum Seen<K> {
    /// Everything there is, at a resourceVersion.
    Listed(Vec<K>, String),
    /// An object is new or changed.
    Applied(K),
    /// An object is gone, or is not selected any more.
    Deleted(K),
    /// Nothing changed up to this resourceVersion.
    UpTo(String),
}

/// A list. kube's own reads the whole of it into a tree before it looks at the first item: a list of thousands then takes
/// several times its size.
#[derive(Deserialize)]
#[serde(bound = "K: DeserializeOwned")]
struct List<K> {
    metadata: ListMeta,
    items: Option<Vec<K>>,
}

type Events<K> = Pin<Box<dyn Stream<Item = Result<WatchEvent<K>, kube::Error>> + Send>>;

enum Phase<K> {
    List,
    Watch,
    Events(Events<K>, Instant),
}

struct Watcher<K> {
    client: Client,
    query: Query,
    phase: Phase<K>,
    version: String,
    backoff: Option<ExponentialBackoff>,
}

/// Watches for ever: lists first, unless it is to go on `from` a version. Errors are told and tried again with backoff.
pub fn follow<K>(
    client: Client,
    query: Query,
    from: Option<String>,
) -> impl Stream<Item = Result<Seen<K>, kube::Error>> + Send
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let phase = if from.is_some() { Phase::Watch } else { Phase::List };
    let watcher = Watcher { client, query, phase, version: from.unwrap_or_default(), backoff: None };
    stream::unfold(watcher, |mut watcher| async move {
        loop {
            if let Some(item) = watcher.next().await {
                return Some((item, watcher));
            }
        }
    })
}

impl<K> Watcher<K>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    /// One step; nothing where it was only a change of phase.
    async fn next(&mut self) -> Option<Result<Seen<K>, kube::Error>> {
        match std::mem::replace(&mut self.phase, Phase::List) {
            Phase::List => Some(self.list().await),
            Phase::Watch => self.begin().await.err().map(Err),
            Phase::Events(events, until) => self.event(events, until).await,
        }
    }

    async fn list(&mut self) -> Result<Seen<K>, kube::Error> {
        let limit = Duration::from_secs(u64::from(self.query.timeout_seconds));
        let listed = match self.query.list() {
            Ok(request) => timeout(limit, self.client.request::<List<K>>(request)).await,
            Err(error) => return Err(self.failed(error, Phase::List).await),
        };
        match listed.unwrap_or_else(|_| Err(no_answer())) {
            Ok(list) => {
                self.version = list.metadata.resource_version.clone().unwrap_or_default();
                self.phase = Phase::Watch;
                Ok(Seen::Listed(list.items.unwrap_or_default(), self.version.clone()))
            }
            Err(error) => Err(self.failed(error, Phase::List).await),
        }
    }

    async fn begin(&mut self) -> Result<(), kube::Error> {
        let limit = Duration::from_secs(u64::from(self.query.timeout_seconds) + 5);
        let begun = match self.query.watch(&self.version) {
            Ok(request) => timeout(limit, self.client.request_events::<K>(request)).await,
            Err(error) => return Err(self.failed(error, Phase::List).await),
        };
        match begun.unwrap_or_else(|_| Err(no_answer())) {
            Ok(events) => {
                self.phase = Phase::Events(Box::pin(events), Instant::now() + limit);
                Ok(())
            }
            Err(error) => {
                let next = after(&error);
                Err(self.failed(error, next).await)
            }
        }
    }

    async fn event(&mut self, mut events: Events<K>, until: Instant) -> Option<Result<Seen<K>, kube::Error>> {
        let Ok(next) = tokio::time::timeout_at(until, events.next()).await else {
            // The server should have ended it: the connection is dead.
            self.phase = Phase::Watch;
            return None;
        };
        let seen = match next {
            Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => Seen::Applied(object),
            Some(Ok(WatchEvent::Deleted(object))) => Seen::Deleted(object),
            Some(Ok(WatchEvent::Bookmark(bookmark))) => Seen::UpTo(bookmark.metadata.resource_version),
            Some(Ok(WatchEvent::Error(status))) => {
                let error = kube::Error::Api(status);
                let next = after(&error);
                return Some(Err(self.failed(error, next).await));
            }
            Some(Err(error)) => {
                let next = after(&error);
                return Some(Err(self.failed(error, next).await));
            }
            None => {
                self.phase = Phase::Watch;
                return None;
            }
        };
        self.backoff = None;
        match &seen {
            Seen::UpTo(version) => self.version.clone_from(version),
            Seen::Applied(object) | Seen::Deleted(object) => {
                self.version = object.resource_version().unwrap_or_default();
            }
            Seen::Listed(..) => {}
        }
        self.phase = Phase::Events(events, until);
        Some(Ok(seen))
    }

    /// Waits before the next attempt: 100 ms to 10 s, doubled each time, with jitter.
    async fn failed(&mut self, error: kube::Error, next: Phase<K>) -> kube::Error {
        let waits = self.backoff.get_or_insert_with(|| {
            ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(Duration::from_secs(10))
                .without_max_times()
                .with_jitter()
                .build()
        });
        let wait = waits.next().unwrap_or(Duration::from_secs(10));
        self.phase = next;
        tokio::time::sleep(wait).await;
        error
    }
}

/// A version that is too old must be listed anew, whether the answer says so or its first event: kube tells both as errors.
fn after<K>(error: &kube::Error) -> Phase<K> {
    if matches!(error, kube::Error::Api(status) if status.code == 410) { Phase::List } else { Phase::Watch }
}

fn no_answer() -> kube::Error {
    kube::Error::Service("no answer in time".into())
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
