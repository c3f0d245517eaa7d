//! What Secrets contain, as hashes with a random key that only the operator has: only hashes are kept, and a hash of a weak password
//! without a key could be guessed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client, ResourceExt, core::DynamicObject};
use kube_sharding::gate::Scope;
use ring::hmac;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::{
    controllers::site::locks::Locks,
    domain::{content::WHOLE, key::Key, object::Desired, rights::HASH_KEY},
    io::{random, writer::Writer},
};

/// Most Secrets that are remembered; more are read again when they are needed.
const REMEMBERED_MAX: usize = 16_384;
/// Bytes of a hash that are recorded.
const HASH_BYTES: usize = 16;
/// Key in the operator's Secret.
const ENTRY: &str = "key";

/// A Secret as it was read.
pub struct Content {
    /// Its metadata, without the rest.
    pub object: DynamicObject,
    /// Hashes of the values by key, and of the whole.
    pub hashes: BTreeMap<String, String>,
}

/// What was read of Secrets.
pub struct Contents {
    client: Client,
    own: Key,
    hash_key: OnceCell<hmac::Key>,
    known: Mutex<BTreeMap<Key, Arc<Content>>>,
    reading: Locks,
}

impl Contents {
    /// Nothing was read yet.
    pub fn new(client: Client, operator_namespace: &str) -> Self {
        let own = Key::new(operator_namespace, HASH_KEY);
        Self { client, own, hash_key: OnceCell::new(), known: Mutex::default(), reading: Locks::default() }
    }

    /// The content of a Secret, at `live` or later, read at most once for each version; None if it may not be read or does not exist, or
    /// if the operator has no key. Without a key one is created, with the right of `scope`.
    pub async fn of(&self, scope: Scope, live: &DynamicObject) -> Result<Option<Arc<Content>>, kube::Error> {
        let key = Key::of(live);
        let _alone = self.reading.lock(&key).await;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(content) = known.filter(|it| is_at_least(&it.object, live)) {
            return Ok(Some(content));
        }
        let Some(hash_key) = self.hash_key(scope).await? else { return Ok(None) };
        let Some(secret) = self.read(&key).await? else { return Ok(None) };
        let hashes = hashes(&hash_key, &key, &secret.data.unwrap_or_default());
        let object = DynamicObject { types: None, metadata: secret.metadata, data: serde_json::Value::Null };
        Ok(Some(self.remember(&key, Content { object, hashes })))
    }

    /// Remembers the content of a Secret that was just created, if the key is known already: it need not be read.
    pub fn made(&self, live: &DynamicObject, desired: &Desired) {
        let Some(hash_key) = self.hash_key.get() else { return };
        let values = desired.body["stringData"].as_object().into_iter().flatten();
        let bytes = |(name, value): (&String, &serde_json::Value)| {
            (name.clone(), ByteString(value.as_str().unwrap_or_default().as_bytes().to_vec()))
        };
        let hashes = hashes(hash_key, &desired.key, &values.map(bytes).collect());
        self.remember(&desired.key, Content { object: live.clone(), hashes });
    }

    fn remember(&self, key: &Key, content: Content) -> Arc<Content> {
        let content = Arc::new(content);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            known.pop_first();
        }
        known.insert(key.clone(), Arc::clone(&content));
        content
    }

    async fn read(&self, key: &Key) -> Result<Option<Secret>, kube::Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.get_opt(&key.name).await {
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
            other => other,
        }
    }

    /// The operator's key; it is created in the Secret that was installed with the operator.
    async fn hash_key(&self, scope: Scope) -> Result<Option<hmac::Key>, kube::Error> {
        if let Some(known) = self.hash_key.get() {
            return Ok(Some(known.clone()));
        }
        let Some(found) = self.read(&self.own).await? else { return Ok(None) };
        let stored = if let Some(stored) = entry(&found) {
            Some(stored)
        } else {
            let drawn = STANDARD.encode(random::encryption_key());
            let base = json!({"uid": found.uid(), "resourceVersion": found.resource_version()});
            let body = json!({"metadata": base, "data": {ENTRY: drawn}});
            // Of several replicas one succeeds: what is stored counts.
            if let Err(error) = Writer::new(self.client.clone(), scope).set_data(&self.own, &body).await {
                tracing::debug!(%error, "the key of hashes was not written");
            }
            self.read(&self.own).await?.as_ref().and_then(entry)
        };
        let Some(stored) = stored else { return Ok(None) };
        Ok(Some(self.hash_key.get_or_init(|| async { hmac::Key::new(hmac::HMAC_SHA256, &stored) }).await.clone()))
    }
}

fn entry(secret: &Secret) -> Option<Vec<u8>> {
    let stored = secret.data.as_ref()?.get(ENTRY)?.0.clone();
    (!stored.is_empty()).then_some(stored)
}

/// Whether what was read is the object, and not older.
fn is_at_least(read: &DynamicObject, live: &DynamicObject) -> bool {
    let number = |it: &DynamicObject| it.resource_version().and_then(|it| it.parse::<u64>().ok());
    let newer = number(read).zip(number(live)).is_some_and(|(read, live)| read >= live);
    read.uid() == live.uid() && (newer || read.resource_version() == live.resource_version())
}

/// The two hex digits of a byte.
fn digits(byte: u8) -> [char; 2] {
    [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or_default())
}

/// Equal values of different Secrets or keys have different hashes.
fn hashes(hash_key: &hmac::Key, key: &Key, data: &BTreeMap<String, ByteString>) -> BTreeMap<String, String> {
    let of = |name: &str, value: &[u8]| {
        let mut context = hmac::Context::with_key(hash_key);
        context.update(format!("{key}\0{name}\0").as_bytes());
        context.update(value);
        let tag = context.sign();
        tag.as_ref()[..HASH_BYTES].iter().flat_map(|byte| digits(*byte)).collect::<String>()
    };
    let mut hashes: BTreeMap<String, String> =
        data.iter().map(|(name, value)| (name.clone(), of(name, &value.0))).collect();
    let all = hashes.iter().map(|(name, hash)| format!("{name}={hash}")).collect::<Vec<_>>().join("\n");
    hashes.insert(WHOLE.to_owned(), of(WHOLE, all.as_bytes()));
    hashes
}
