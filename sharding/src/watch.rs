//! A watch that can do what kube's own cannot: go on from a known version without a list, and ask the server for hash
//! ranges (`shardSelector`, KEP-5866).
//!
//! Lists are consistent and come in pages of one version: the first thing a new owner must have is the newest state. How
//! much of a page is read is bounded, so that large objects cost more requests and not more memory; of each object only
//! what [`Read`] leaves is kept beside the next page. A watch request has a time limit, so that a dead connection is noticed.

use std::{fmt, pin::Pin, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{AsyncBufReadExt, Stream, StreamExt, stream};
use http::Request as HttpRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::{
    Client, Resource, ResourceExt,
    api::{ListParams, WatchParams},
    core::{ObjectList, Request, WatchEvent},
};
use serde::{
    Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

pub use crate::reading::{Read, read};

/// Objects of a list's first page, and of any.
const FIRST_PAGE_OBJECTS: u32 = 500;
const PAGE_OBJECTS_MAX: u32 = 5000;
/// Bytes that a page should have, and those of which no more are read: it is asked for again, smaller.
const PAGE_BYTES_WANTED: usize = 3 << 20;
const PAGE_BYTES_MAX: usize = 8 << 20;

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

    fn list(&self, page: &Page) -> Result<HttpRequest<Vec<u8>>, kube::Error> {
        let params = ListParams {
            label_selector: some(&self.labels),
            field_selector: some(&self.fields),
            limit: Some(page.objects),
            continue_token: page.token.clone(),
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

/// Whether the server selects by hash ranges, determined with the first of these collections that has objects: only then a
/// list of an empty range is empty. (Lists of custom resources do not show it themselves.) False if all are empty. A server
/// may select some kinds and not others; a watch by a range that the server ignores is still correct, since every object is
/// checked again when it arrives.
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

/// A list, whose objects are read one by one. kube's own reads the whole of it into a tree before it looks at the first
/// item: a list of thousands then takes several times its size.
struct List<K> {
    metadata: ListMeta,
    items: Vec<K>,
}

/// Reads a list.
struct Reader<K>(Read<K>);

/// Reads its items.
struct Items<K>(Read<K>);

impl<'de, K> DeserializeSeed<'de> for Reader<K> {
    type Value = List<K>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<List<K>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, K> Visitor<'de> for Reader<K> {
    type Value = List<K>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List<K>, A::Error> {
        let (mut metadata, mut items) = (None, Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => metadata = Some(map.next_value()?),
                "items" => items = map.next_value_seed(Items(self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let metadata = metadata.ok_or_else(|| de::Error::missing_field("metadata"))?;
        Ok(List { metadata, items })
    }
}

impl<'de, K> DeserializeSeed<'de> for Items<K> {
    type Value = Vec<K>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<K>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, K> Visitor<'de> for Items<K> {
    type Value = Vec<K>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("objects")
    }

    /// The API server writes an empty list as null now and then.
    fn visit_unit<E: de::Error>(self) -> Result<Vec<K>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<K>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<&RawValue>()? {
            items.extend((self.0)(item.get()));
        }
        Ok(items)
    }
}

/// The next page of a list.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    /// Most objects of it.
    objects: u32,
    /// Where it goes on; nothing at the beginning.
    token: Option<String>,
}

impl Page {
    const FIRST: Self = Self { objects: FIRST_PAGE_OBJECTS, token: None };

    /// The page after one that was read; nothing if that was the last.
    fn after(self, objects: usize, bytes: usize, token: Option<String>) -> Option<Self> {
        let token = token.filter(|it| !it.is_empty())?;
        let fitting = objects.saturating_mul(PAGE_BYTES_WANTED) / bytes.max(1);
        // Those that come next may be larger than those that came: it grows by little.
        let objects = u32::try_from(fitting).unwrap_or(u32::MAX).min(self.objects.saturating_mul(2));
        Some(Self { objects: objects.clamp(1, PAGE_OBJECTS_MAX), token: Some(token) })
    }

    /// The same, smaller: its objects are large. One object alone is read whatever its size.
    fn smaller(self) -> Self {
        Self { objects: (self.objects / 8).max(1), ..self }
    }

    fn bytes_max(&self) -> usize {
        if self.objects == 1 { usize::MAX } else { PAGE_BYTES_MAX }
    }
}

/// The answer to a request; nothing if it is longer than `most` bytes, of which the rest is not read.
async fn answer(client: &Client, request: HttpRequest<Vec<u8>>, most: usize) -> Result<Option<Vec<u8>>, kube::Error> {
    let mut stream = std::pin::pin!(client.request_stream(request).await?);
    let mut body = Vec::new();
    loop {
        let chunk = stream.fill_buf().await.map_err(kube::Error::ReadEvents)?;
        let length = chunk.len();
        if length == 0 {
            return Ok(Some(body));
        }
        if body.len().saturating_add(length) > most {
            return Ok(None);
        }
        body.extend_from_slice(chunk);
        stream.as_mut().consume_unpin(length);
    }
}

/// The object of an event is text at first: one that cannot be read must not end the watch, which would go on from the
/// version before it, and so come to it again for ever.
type Events = Pin<Box<dyn Stream<Item = Result<WatchEvent<Box<RawValue>>, kube::Error>> + Send>>;

enum Phase {
    List,
    Watch,
    Events(Events, Instant),
}

struct Watcher<K> {
    client: Client,
    query: Query,
    read: Read<K>,
    phase: Phase,
    version: String,
    backoff: Option<ExponentialBackoff>,
}

/// Watches forever: lists first, unless it continues `from` a version. Errors are returned and retried with backoff.
pub fn follow<K>(
    client: Client,
    query: Query,
    read: Read<K>,
    from: Option<String>,
) -> impl Stream<Item = Result<Seen<K>, kube::Error>> + Send
where
    K: Resource + Send + 'static,
{
    let phase = if from.is_some() { Phase::Watch } else { Phase::List };
    let watcher = Watcher { client, query, read, phase, version: from.unwrap_or_default(), backoff: None };
    stream::unfold(watcher, |mut watcher| async move {
        loop {
            if let Some(item) = watcher.next().await {
                return Some((item, watcher));
            }
        }
    })
}

/// Everything there is now, and at which version.
pub async fn list<K>(client: Client, query: Query, read: Read<K>) -> Result<(Vec<K>, String), kube::Error>
where
    K: Resource + Send + 'static,
{
    match Box::pin(follow(client, query, read, None)).next().await {
        Some(Ok(Seen::Listed(objects, version))) => Ok((objects, version)),
        Some(Err(error)) => Err(error),
        // Never: a list comes first.
        _ => Err(no_answer()),
    }
}

impl<K> Watcher<K>
where
    K: Resource + Send + 'static,
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
        let (mut objects, mut next) = (Vec::new(), Some(Page::FIRST));
        while let Some(page) = next.take() {
            let read = match self.page(&page).await {
                Ok(read) => read,
                // Also if the version of the first page has expired: the list starts again.
                Err(error) => return Err(self.failed(error, Phase::List).await),
            };
            next = match read {
                Some((list, bytes)) => {
                    self.version = list.metadata.resource_version.clone().unwrap_or_default();
                    let after = page.after(list.items.len(), bytes, list.metadata.continue_);
                    objects.extend(list.items);
                    after
                }
                None => Some(page.smaller()),
            };
        }
        self.phase = Phase::Watch;
        Ok(Seen::Listed(objects, self.version.clone()))
    }

    /// A page and its size in bytes; nothing if that is more than is read of one.
    async fn page(&mut self, page: &Page) -> Result<Option<(List<K>, usize)>, kube::Error> {
        let limit = Duration::from_secs(u64::from(self.query.timeout_seconds));
        let body = timeout(limit, answer(&self.client, self.query.list(page)?, page.bytes_max()));
        let Some(body) = body.await.unwrap_or_else(|_| Err(no_answer()))? else { return Ok(None) };
        let list = Reader(self.read).deserialize(&mut serde_json::Deserializer::from_slice(&body));
        Ok(Some((list.map_err(kube::Error::SerdeError)?, body.len())))
    }

    async fn begin(&mut self) -> Result<(), kube::Error> {
        let limit = Duration::from_secs(u64::from(self.query.timeout_seconds) + 5);
        let begun = match self.query.watch(&self.version) {
            Ok(request) => timeout(limit, self.client.request_events::<Box<RawValue>>(request)).await,
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

    async fn event(&mut self, mut events: Events, until: Instant) -> Option<Result<Seen<K>, kube::Error>> {
        let Ok(next) = tokio::time::timeout_at(until, events.next()).await else {
            // The server should have ended it: the connection is dead.
            self.phase = Phase::Watch;
            return None;
        };
        let read = |object: &RawValue| (self.read)(object.get());
        let seen = match next {
            Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => read(&object).map(Seen::Applied),
            Some(Ok(WatchEvent::Deleted(object))) => read(&object).map(Seen::Deleted),
            Some(Ok(WatchEvent::Bookmark(bookmark))) => Some(Seen::UpTo(bookmark.metadata.resource_version)),
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
            Some(Seen::UpTo(version)) => self.version.clone_from(version),
            Some(Seen::Applied(object) | Seen::Deleted(object)) => {
                self.version = object.resource_version().unwrap_or_default();
            }
            Some(Seen::Listed(..)) | None => {}
        }
        self.phase = Phase::Events(events, until);
        seen.map(Ok)
    }

    /// Waits before the next attempt: 100 ms to 10 s, doubled each time, with jitter.
    async fn failed(&mut self, error: kube::Error, next: Phase) -> kube::Error {
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

/// After a version that is too old a new list is needed, whether the response or the first event says so: kube returns both
/// as errors.
fn after(error: &kube::Error) -> Phase {
    if matches!(error, kube::Error::Api(status) if status.code == 410) { Phase::List } else { Phase::Watch }
}

fn no_answer() -> kube::Error {
    kube::Error::Service("timeout".into())
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
