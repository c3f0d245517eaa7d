//! Stores a backup: parts, each read back, then the manifest.

use std::path::Path as FilePath;

use jiff::Timestamp;
use object_store::ObjectStoreExt as _;

use super::{
    Storing,
    manifest::{self, CONTENTS, Contents, FORMAT, Manifest, Part, Stored},
    report::Failure,
    secrecy::{Key, SUFFIX},
    store::{Digest, Store},
};

/// Where an upload in pieces is written down.
pub const JOURNAL: &str = "unfinished.json";

/// Stores what the pod made; answers the manifest. One that is stored already is stored no second time.
pub async fn upload(
    store: &Store,
    folder: &str,
    storing: &Storing,
    staging: &FilePath,
    key: Option<&Key>,
    now: Timestamp,
) -> Result<Manifest, Failure> {
    let name = &storing.name;
    if let Some(stored) = Manifest::read(store, folder, name).await? {
        if stored.identity == storing.identity && !stored.removing {
            return Ok(stored);
        }
        let message =
            format!("{name} is there already and was not made for this site: give the cluster another prefix");
        return Err(Failure { step: "upload", word: "BackupForeign", message });
    }
    let path = staging.join(CONTENTS);
    let text = match std::fs::read(&path) {
        Err(_) if storing.may_be_stored => {
            return Err(Failure::broken(
                "upload",
                format!("{name} was never stored, and the site is not as it was any more"),
            ));
        }
        other => other.map_err(|error| Failure::of_disk("upload", &path, &error))?,
    };
    let mut contents: Contents = serde_json::from_slice(&text).map_err(|error| {
        Failure::broken("upload", format!("{CONTENTS} is not what the site runner writes: {error}"))
    })?;
    let journal = manifest::file(folder, name, JOURNAL);
    store.end_unfinished(&manifest::folder(folder, name), &journal).await?;
    for part in contents.parts.values_mut() {
        part.encrypted = key.map(|key| encrypted(key, staging, part)).transpose()?;
        let sent = part.stored();
        let to = manifest::file(folder, name, &sent.file);
        store.send(&staging.join(&sent.file), &to, &journal).await?;
        let (bytes, sha256) = store.digest(&to, |_| Ok(())).await?;
        if (bytes, &sha256) != (sent.bytes, &sent.sha256) {
            let message = format!(
                "{} was read back as {bytes} bytes with SHA-256 {sha256}, which is not what was sent",
                sent.file
            );
            return Err(Failure::broken("read back", message));
        }
    }
    let made = Manifest {
        format: FORMAT,
        name: name.clone(),
        site_backup: storing.site_backup.clone(),
        site: storing.site.clone(),
        identity: storing.identity.clone(),
        scheduled_at: storing.scheduled_at,
        finished_at: now,
        removing: false,
        contents,
    };
    put(store, folder, &made).await?;
    Ok(made)
}

/// Encrypts a part beside itself, and opens it again: only what can be opened is stored.
fn encrypted(key: &Key, staging: &FilePath, part: &Part) -> Result<Stored, Failure> {
    let file = format!("{}{SUFFIX}", part.file);
    let path = staging.join(&file);
    key.encrypt(&staging.join(&part.file), &path)?;
    let mut plain = Digest::default();
    key.decrypt(&path, |bytes| {
        plain.add(bytes);
        Ok(())
    })?;
    if plain.finish() != (part.bytes, part.sha256.clone()) {
        return Err(Failure::broken("encrypt", format!("{file} does not open as what {} is", part.file)));
    }
    let (bytes, sha256) = Digest::of_file(&path).map_err(|error| Failure::of_disk("encrypt", &path, &error))?;
    Ok(Stored { file, bytes, sha256 })
}

/// Writes a manifest.
pub async fn put(store: &Store, folder: &str, manifest: &Manifest) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(manifest).unwrap_or_default();
    let to = manifest::file(folder, &manifest.name, manifest::FILE_NAME);
    let put = store.objects().put(&to, text.into()).await;
    put.map(|_| ()).map_err(|error| Failure::of_store("manifest", &error))
}
