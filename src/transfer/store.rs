//! Storage of backups: a service that stores objects, or a directory of a volume.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path as FilePath,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{ObjectStore as _, ObjectStoreExt as _, path::Path};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    answer::Cause,
    objects::Objects,
    report::Failure,
    request::{Folders, Place},
    staging,
    volume::Volume,
};
use crate::domain::{code::Code, names::hex, wire};

/// Minimum part size of a multipart upload: S3 accepts at most 10,000 parts of at least 5 MiB.
const PIECE_BYTES: u64 = 16 << 20;
/// Maximum parts of a multipart upload.
const PIECES_MAX: u64 = 9000;
/// Concurrent part uploads, which bound the memory.
const PIECES_AT_ONCE: usize = 2;

/// Size of the read buffer for a volume.
const BUFFER_BYTES: usize = 1 << 20;
/// Maximum size of the record of an unfinished upload.
const NOTE_BYTES_MAX: u64 = 1 << 16;

/// An open storage.
pub enum Store {
    /// A service that stores objects.
    Objects(Box<dyn Objects>),
    /// A directory of a volume.
    Volume(Volume),
}

/// Running size and SHA-256.
#[derive(Default)]
pub struct Digest {
    hash: Sha256,
    bytes: u64,
}

impl Digest {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Adds bytes, up to a maximum size.
    pub fn add_at_most(&mut self, bytes: &[u8], most: u64) -> Result<(), Failure> {
        self.add(bytes);
        if self.bytes > most {
            return Err(Failure::broken(
                "read",
                format!("the stored file is larger than the {most} bytes in the manifest"),
            ));
        }
        Ok(())
    }

    /// Size, and SHA-256 in hex.
    pub fn finish(self) -> (u64, String) {
        (self.bytes, hex(&self.hash.finalize()))
    }

    /// Size and SHA-256 of a file.
    pub fn of(mut file: File) -> std::io::Result<(u64, String)> {
        let mut digest = Self::default();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(digest.finish()),
                length => digest.add(&buffer[..length]),
            }
        }
    }
}

/// Record of an unfinished upload, written before its first part is sent.
#[derive(Deserialize, Serialize)]
struct Unfinished {
    path: String,
    id: String,
}

impl Store {
    /// Opens a storage, without a request.
    pub fn open(place: &Place, folders: &Folders) -> Result<Self, Failure> {
        match place {
            Place::Volume => {
                let failed = |error| Failure::of_volume("open", "the volume", &error);
                Volume::open(&folders.volume).map(Self::Volume).map_err(failed)
            }
            Place::S3(bucket) => bucket.open(&folders.credentials).map(Self::of),
            Place::Azure(container) => container.open(&folders.credentials).map(Self::of),
            Place::Gcs(bucket) => bucket.open(&folders.credentials).map(Self::of),
        }
    }

    fn of(objects: impl Objects) -> Self {
        Self::Objects(Box::new(objects))
    }

    /// Stores a small object.
    pub async fn put(&self, step: &'static str, to: &Path, content: Vec<u8>) -> Result<(), Failure> {
        match self {
            Self::Objects(store) => {
                store.put(to, content.into()).await.map(|_| ()).map_err(|error| Failure::of_store(step, &error))
            }
            Self::Volume(volume) => {
                volume.write(to, &mut content.as_slice()).map_err(|error| Failure::of_volume(step, to, &error))
            }
        }
    }

    /// Names of the folders in a folder.
    pub async fn folders(&self, folder: &Path) -> Result<Vec<String>, Failure> {
        match self {
            Self::Objects(store) => {
                let listed = store.list_with_delimiter(Some(folder)).await;
                let listed = listed.map_err(|error| Failure::of_store("list", &error))?;
                Ok(listed.common_prefixes.iter().filter_map(|it| it.filename().map(str::to_owned)).collect())
            }
            Self::Volume(volume) => volume.folders(folder).map_err(|error| Failure::of_volume("list", folder, &error)),
        }
    }

    /// Stores a file, in pieces if it is large. `journal` is where an upload in pieces is written down, so that another
    /// try can end it: pieces of one that no one ends are paid for and never seen.
    pub async fn send(&self, file: &FilePath, to: &Path, journal: &Path) -> Result<(), Failure> {
        let failed = |error: &std::io::Error| Failure::of_disk("upload", file, error);
        let mut content = staging::open(file).map_err(|it| failed(&it))?;
        let size = content.metadata().map_err(|it| failed(&it))?.len();
        let result = match self {
            Self::Objects(store) if size > PIECE_BYTES => in_pieces(store.as_ref(), content, size, to, journal).await,
            Self::Objects(store) => {
                let mut whole = Vec::new();
                content.read_to_end(&mut whole).map_err(|it| failed(&it))?;
                store.put(to, whole.into()).await.map(|_| ())
            }
            Self::Volume(volume) => {
                return volume.write(to, &mut content).map_err(|error| Failure::of_volume("upload", to, &error));
            }
        };
        result.map_err(|error| Failure::of_store("upload", &error))
    }

    /// Ends what an upload that was killed left unfinished in a folder where there is no backup.
    pub async fn end_unfinished(&self, folder: &Path, journal: &Path) -> Result<(), Failure> {
        let Self::Objects(store) = self else { return self.remove(folder).await };
        let failed = |error: &object_store::Error| Failure::of_store("clean-up", error);
        let Some(text) = self.read(journal, NOTE_BYTES_MAX).await? else { return Ok(()) };
        if let Ok(Unfinished { path, id }) = serde_json::from_slice(&text) {
            // It may have been finished, or ended by the bucket's own rules.
            match store.abort_multipart(&Path::from(path), &id).await {
                Ok(()) => {}
                Err(error) if Cause::of(&error) == Cause::NotFound => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        store.delete(journal).await.map_err(|it| failed(&it))
    }

    /// A small object, or None where there is none.
    pub async fn read(&self, path: &Path, most: u64) -> Result<Option<Vec<u8>>, Failure> {
        let mut content = Vec::new();
        let sink = |bytes: &[u8]| {
            content.extend_from_slice(bytes);
            Ok(())
        };
        match self.digest(path, most, sink).await {
            Ok(_) => Ok(Some(content)),
            Err(failure) if failure.code == Code::BackupNotFound => Ok(None),
            Err(failure) => Err(Failure { step: "read", ..failure }),
        }
    }

    /// Size and SHA-256 of an object, read from beginning to end, which has at most so many bytes; they go to `sink`.
    pub async fn digest(
        &self,
        path: &Path,
        most: u64,
        mut sink: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(u64, String), Failure> {
        let mut digest = Digest::default();
        match self {
            Self::Objects(store) => {
                let failed = |error: &object_store::Error| Failure::of_store("read back", error);
                let mut content = store.get(path).await.map_err(|it| failed(&it))?.into_stream();
                while let Some(bytes) = content.next().await {
                    let bytes = bytes.map_err(|it| failed(&it))?;
                    digest.add_at_most(&bytes, most)?;
                    sink(&bytes)?;
                }
            }
            Self::Volume(volume) => {
                let failed = |error: std::io::Error| Failure::of_volume("read back", path, &error);
                let mut file = volume.read(path).map_err(failed)?;
                let mut buffer = vec![0; BUFFER_BYTES];
                loop {
                    let length = file.read(&mut buffer).map_err(failed)?;
                    if length == 0 {
                        break;
                    }
                    digest.add_at_most(&buffer[..length], most)?;
                    sink(&buffer[..length])?;
                }
            }
        }
        Ok(digest.finish())
    }

    /// Removes an object, which may be gone already.
    pub async fn remove_file(&self, path: &Path) -> Result<(), Failure> {
        let Self::Objects(store) = self else { return self.remove(path).await };
        match store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Failure::of_store("remove", &error)),
        }
    }

    /// Removes everything under a folder.
    pub async fn remove(&self, folder: &Path) -> Result<(), Failure> {
        match self {
            Self::Volume(volume) => volume.remove(folder).map_err(|error| Failure::of_volume("remove", folder, &error)),
            Self::Objects(store) => {
                let found = store.list(Some(folder)).map_ok(|it| it.location).boxed();
                let mut gone = store.delete_stream(found);
                while let Some(removed) = gone.next().await {
                    // Each may be gone already.
                    match removed {
                        Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                        Err(error) => return Err(Failure::of_store("remove", &error)),
                    }
                }
                Ok(())
            }
        }
    }
}

async fn in_pieces(
    store: &dyn Objects,
    file: File,
    size: u64,
    to: &Path,
    journal: &Path,
) -> Result<(), object_store::Error> {
    let id = store.create_multipart(to).await?;
    let unfinished = Unfinished { path: to.to_string(), id: id.clone() };
    let sent = async {
        store.put(journal, wire::in_order(&unfinished).into()).await?;
        let pieces = Pieces::of(file, size).enumerate();
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

/// A file in pieces.
struct Pieces {
    file: BufReader<File>,
    piece: u64,
}

impl Pieces {
    fn of(file: File, size: u64) -> Self {
        Self { file: BufReader::new(file), piece: PIECE_BYTES.max(size.div_ceil(PIECES_MAX)) }
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
