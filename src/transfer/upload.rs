//! Stores a backup: parts, each read back, then the manifest.

use std::{io::Read as _, path::Path as FilePath};

use jiff::Timestamp;

use super::{
    manifest::{self, BYTES_MAX, CONTENTS, Contents, FORMAT, Manifest, Part, Stored},
    report::Failure,
    request::Storing,
    secrecy::{Key, SUFFIX},
    staging,
    store::{Digest, Store},
};
use crate::domain::code::Code;

/// Where an upload in pieces is written down.
pub const JOURNAL: &str = "unfinished.json";

/// Stores what the pod made; answers the manifest. One that is stored already is stored no second time; where there is a
/// key, only one that was stored with it is.
pub async fn upload(
    store: &Store,
    folder: &str,
    storing: &Storing,
    made: &FilePath,
    key: Option<&Key>,
    now: Timestamp,
) -> Result<Manifest, Failure> {
    let name = &storing.name;
    if let Some(stored) = Manifest::read(store, folder, name).await? {
        if stored.identity != storing.identity || stored.removing {
            let message = format!("{name} exists already and is of another site: set another prefix for this cluster");
            return Err(Failure { step: "upload", code: Code::BackupForeign, message });
        }
        if key.is_none_or(|key| stored.is_authentic(key) == Some(true)) {
            return Ok(stored);
        }
    }
    let mut contents = contents(storing, made)?;
    let journal = manifest::file(folder, name, JOURNAL);
    store.end_unfinished(&manifest::folder(folder, name), &journal).await?;
    for part in contents.parts.values_mut() {
        part.encrypted = key.map(|key| encrypted(key, made, part)).transpose()?;
        let sent = part.stored();
        let to = manifest::file(folder, name, &sent.file);
        store.send(&made.join(&sent.file), &to, &journal).await?;
        let seen = store.digest(&to, sent.bytes, |_| Ok(())).await?;
        if (seen.0, &seen.1) != (sent.bytes, &sent.sha256) {
            let message =
                format!("{} differs from the {} bytes that were uploaded when read back", sent.file, sent.bytes);
            return Err(Failure::broken("read back", message));
        }
    }
    let manifest = Manifest {
        format: FORMAT,
        name: name.clone(),
        site_backup: storing.site_backup.clone(),
        site: storing.site.clone(),
        identity: storing.identity.clone(),
        scheduled_at: storing.scheduled_at,
        finished_at: now,
        removing: false,
        contents,
        authentication: None,
    };
    let manifest = key.map_or_else(|| manifest.clone(), |key| manifest.clone().signed(key));
    put(store, folder, &manifest).await?;
    Ok(manifest)
}

/// The parts that the site runner made. It is written by code of the bench, which is not trusted.
fn contents(storing: &Storing, made: &FilePath) -> Result<Contents, Failure> {
    let path = made.join(CONTENTS);
    let mut text = Vec::new();
    let read = staging::open(&path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut text));
    match read {
        Err(_) if storing.may_be_stored => {
            let message = format!("{} was never stored, and the site has changed since", storing.name);
            return Err(Failure::broken("upload", message));
        }
        other => other.map_err(|error| Failure::of_disk("upload", &path, &error))?,
    };
    let odd = |odd: String| Failure::broken("upload", format!("{CONTENTS} {odd}, which is invalid"));
    let contents: Contents = serde_json::from_slice(&text)
        .map_err(|error| odd(format!("cannot be parsed at line {}, column {}", error.line(), error.column())))?;
    if let Some(found) = contents.odd() {
        return Err(odd(found));
    }
    Ok(contents)
}

/// Encrypts a part beside itself, and opens it again: only what can be opened is stored.
fn encrypted(key: &Key, made: &FilePath, part: &Part) -> Result<Stored, Failure> {
    let file = format!("{}{SUFFIX}", part.file);
    let path = made.join(&file);
    key.encrypt(&made.join(&part.file), &path)?;
    let mut plain = Digest::default();
    key.decrypt(&path, |bytes| {
        plain.add(bytes);
        Ok(())
    })?;
    if plain.finish() != (part.bytes, part.sha256.clone()) {
        return Err(Failure::broken("encrypt", format!("{file} decrypts to something else than {}", part.file)));
    }
    let seen = staging::open(&path).and_then(Digest::of);
    let (bytes, sha256) = seen.map_err(|error| Failure::of_disk("encrypt", &path, &error))?;
    Ok(Stored { file, bytes, sha256 })
}

/// Writes a manifest.
pub async fn put(store: &Store, folder: &str, manifest: &Manifest) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(manifest).unwrap_or_default();
    let to = manifest::file(folder, &manifest.name, manifest::FILE_NAME);
    store.put("manifest", &to, text).await
}
