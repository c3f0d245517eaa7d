//! Where backups are kept: a bucket, or a folder of a volume.

use std::{
    fs::File,
    io::{BufReader, Read as _},
    path::{Path as FilePath, PathBuf},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, Checksum},
    client::Certificate,
    local::LocalFileSystem,
    multipart::MultipartStore as _,
    path::Path,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Folders, report::Failure};
use crate::domain::names::hex;

/// Least size of a piece of a large object: S3 takes at most 10,000 pieces of at least 5 MiB.
const PIECE_BYTES: u64 = 16 << 20;
/// Most pieces of an object.
const PIECES_MAX: u64 = 9000;
/// Pieces on their way at once: their memory is the pod's.
const PIECES_AT_ONCE: usize = 2;

/// How long a service may be silent while it is read from.
const SILENCE_MAX: Duration = Duration::from_mins(5);

/// A place.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// A bucket.
    S3(Bucket),
    /// The volume that is mounted.
    Volume,
}

/// A bucket that speaks S3's protocol.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// Its name.
    pub bucket: String,
    /// Its region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// URL of the service, if it is not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether the bucket is in the path instead of the host name.
    #[serde(default)]
    pub path_style: bool,
}

/// An open place.
pub enum Store {
    /// A bucket.
    S3(AmazonS3),
    /// A folder of a volume.
    Volume(LocalFileSystem, PathBuf),
}

/// Size and SHA-256 of what goes by.
#[derive(Default)]
pub struct Digest {
    hash: Sha256,
    bytes: u64,
}

impl Digest {
    /// Takes bytes in.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Size, and SHA-256 in hex.
    pub fn finish(self) -> (u64, String) {
        (self.bytes, hex(&self.hash.finalize()))
    }

    /// Those of a file.
    pub fn of_file(path: &FilePath) -> std::io::Result<(u64, String)> {
        let mut digest = Self::default();
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(digest.finish()),
                length => digest.add(&buffer[..length]),
            }
        }
    }
}

/// What an upload that did not end left at the bucket: written down before its first piece is sent.
#[derive(Deserialize, Serialize)]
struct Unfinished {
    path: String,
    id: String,
}

impl Store {
    /// Opens a place. Of a bucket nothing is asked yet.
    pub fn open(place: &Place, folders: &Folders) -> Result<Self, Failure> {
        let failed = |error: &object_store::Error| Failure::of_store("open", error);
        match place {
            Place::Volume => {
                let store = LocalFileSystem::new_with_prefix(&folders.volume).map_err(|it| failed(&it))?;
                Ok(Self::Volume(store, folders.volume.clone()))
            }
            Place::S3(bucket) => bucket.open(&folders.credentials).map(Self::S3).map_err(|it| failed(&it)),
        }
    }

    /// What both can do.
    pub fn objects(&self) -> &dyn ObjectStore {
        match self {
            Self::S3(store) => store,
            Self::Volume(store, _) => store,
        }
    }

    /// Stores a file, in pieces if it is large. `journal` is where an upload in pieces is written down, so that another
    /// try can end it: pieces of one that nobody ends are paid for and never seen.
    pub async fn send(&self, file: &FilePath, to: &Path, journal: &Path) -> Result<(), Failure> {
        let failed = |error: &std::io::Error| Failure::of_disk("upload", file, error);
        let size = std::fs::metadata(file).map_err(|it| failed(&it))?.len();
        let result = match self {
            Self::S3(store) if size > PIECE_BYTES => in_pieces(store, file, size, to, journal).await,
            Self::S3(store) => {
                let whole = std::fs::read(file).map_err(|it| failed(&it))?;
                store.put(to, whole.into()).await.map(|_| ())
            }
            Self::Volume(store, _) => copy(store, file, to).await,
        };
        result.map_err(|error| Failure::of_store("upload", &error))
    }

    /// Ends what an upload that was killed left unfinished in a folder where there is no backup.
    pub async fn end_unfinished(&self, folder: &Path, journal: &Path) -> Result<(), Failure> {
        let Self::S3(store) = self else { return self.remove(folder).await };
        let failed = |error: &object_store::Error| Failure::of_store("clean-up", error);
        let Some(text) = self.read(journal).await? else { return Ok(()) };
        if let Ok(Unfinished { path, id }) = serde_json::from_slice(&text) {
            // It may have been finished, or ended by the bucket's own rules.
            match store.abort_multipart(&Path::from(path), &id).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) if error.to_string().contains("NoSuchUpload") => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        store.delete(journal).await.map_err(|it| failed(&it))
    }

    /// A small object, or nothing where there is none.
    pub async fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Failure> {
        let failed = |error: &object_store::Error| Failure::of_store("read", error);
        match self.objects().get(path).await {
            Ok(found) => found.bytes().await.map(|it| Some(it.to_vec())).map_err(|it| failed(&it)),
            Err(error @ object_store::Error::NotFound { .. }) => {
                let failure = failed(&error);
                if failure.word == "BackupNotFound" { Ok(None) } else { Err(failure) }
            }
            Err(error) => Err(failed(&error)),
        }
    }

    /// Size and SHA-256 of an object, read from beginning to end; its bytes go to `sink`.
    pub async fn digest(
        &self,
        path: &Path,
        mut sink: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(u64, String), Failure> {
        let failed = |error: &object_store::Error| Failure::of_store("read back", error);
        let mut content = self.objects().get(path).await.map_err(|it| failed(&it))?.into_stream();
        let mut digest = Digest::default();
        while let Some(bytes) = content.next().await {
            let bytes = bytes.map_err(|it| failed(&it))?;
            digest.add(&bytes);
            sink(&bytes)?;
        }
        Ok(digest.finish())
    }

    /// Removes an object, which may be gone already.
    pub async fn remove_file(&self, path: &Path) -> Result<(), Failure> {
        match self.objects().delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Failure::of_store("remove", &error)),
        }
    }

    /// Removes everything under a folder.
    pub async fn remove(&self, folder: &Path) -> Result<(), Failure> {
        if let Self::Volume(_, volume) = self {
            // With what a copy that was killed left, which no list shows.
            let path = volume.join(folder.as_ref());
            return match std::fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Failure::of_disk("remove", &path, &error))
                }
                _ => Ok(()),
            };
        }
        let objects = self.objects();
        let found = objects.list(Some(folder)).map_ok(|it| it.location).boxed();
        let gone = objects.delete_stream(found).try_collect::<Vec<_>>().await;
        gone.map(|_| ()).map_err(|error| Failure::of_store("remove", &error))
    }
}

impl Bucket {
    fn open(&self, credentials: &FilePath) -> Result<AmazonS3, object_store::Error> {
        let file = |name: &str| std::fs::read_to_string(credentials.join(name)).ok();
        let key = |name: &str| file(name).map(|it| it.trim().to_owned()).filter(|it| !it.is_empty());
        // The environment is where clouds put the identity of a pod's ServiceAccount.
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&self.bucket)
            .with_region(self.region.as_deref().unwrap_or("us-east-1"))
            .with_checksum_algorithm(Checksum::SHA256)
            .with_virtual_hosted_style_request(!self.path_style);
        let mut options = ClientOptions::new().with_timeout_disabled().with_read_timeout(SILENCE_MAX);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
            options = options.with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some(certificates) = file("ca.crt") {
            for certificate in Certificate::from_pem_bundle(certificates.as_bytes())? {
                options = options.with_root_certificate(certificate);
            }
        }
        if let (Some(access), Some(secret)) = (key("accessKey"), key("secretKey")) {
            builder = builder.with_access_key_id(access).with_secret_access_key(secret);
            builder = key("sessionToken").into_iter().fold(builder, AmazonS3Builder::with_token);
        }
        builder.with_client_options(options).with_retry(retry()).build()
    }
}

/// A service that does not answer is asked for about ten seconds: the operator has the Job run again, later.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 6, retry_timeout: Duration::from_mins(2), ..RetryConfig::default() }
}

async fn in_pieces(
    store: &AmazonS3,
    file: &FilePath,
    size: u64,
    to: &Path,
    journal: &Path,
) -> Result<(), object_store::Error> {
    let id = store.create_multipart(to).await?;
    let unfinished = Unfinished { path: to.to_string(), id: id.clone() };
    let sent = async {
        store.put(journal, serde_json::to_vec(&unfinished).unwrap_or_default().into()).await?;
        let pieces = Pieces::of(file, size)?.enumerate();
        let parts: Vec<_> = stream::iter(pieces)
            .map(|(index, piece)| {
                let id = &id;
                async move { store.put_part(to, id, index, piece?.into()).await }
            })
            .buffered(PIECES_AT_ONCE)
            .try_collect()
            .await?;
        store.complete_multipart(to, &id, parts).await
    };
    let sent = sent.await;
    if sent.is_err() {
        // As far as the bucket still answers.
        let _ = store.abort_multipart(to, &id).await;
    }
    sent?;
    store.delete(journal).await
}

async fn copy(store: &LocalFileSystem, file: &FilePath, to: &Path) -> Result<(), object_store::Error> {
    let size = std::fs::metadata(file).map_or(0, |it| it.len());
    let mut upload = store.put_multipart(to).await?;
    for piece in Pieces::of(file, size)? {
        let sent = upload.put_part(PutPayload::from(piece?)).await;
        if sent.is_err() {
            let _ = upload.abort().await;
        }
        sent?;
    }
    upload.complete().await.map(|_| ())
}

/// A file in pieces.
struct Pieces {
    file: BufReader<File>,
    piece: u64,
}

impl Pieces {
    fn of(path: &FilePath, size: u64) -> Result<Self, object_store::Error> {
        let file = File::open(path).map_err(disk)?;
        Ok(Self { file: BufReader::new(file), piece: PIECE_BYTES.max(size.div_ceil(PIECES_MAX)) })
    }
}

impl Iterator for Pieces {
    type Item = Result<Vec<u8>, object_store::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut piece = Vec::new();
        match (&mut self.file).take(self.piece).read_to_end(&mut piece) {
            Ok(0) => None,
            Ok(_) => Some(Ok(piece)),
            Err(error) => Some(Err(disk(error))),
        }
    }
}

fn disk(error: std::io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "staging", source: error.into() }
}
