//! Stores a backup: parts, each read back, then the manifest.

use std::path::Path as FilePath;

use jiff::Timestamp;
use object_store::ObjectStoreExt as _;

use super::{
    Storing,
    manifest::{self, CONTENTS, Contents, FORMAT, Manifest},
    report::Failure,
    store::Store,
};

/// Where an upload in pieces is written down.
pub const JOURNAL: &str = "unfinished.json";

/// Stores what the pod made; answers the manifest. One that is stored already is stored no second time.
pub async fn upload(
    store: &Store,
    folder: &str,
    storing: &Storing,
    staging: &FilePath,
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
    let contents: Contents = serde_json::from_slice(&text).map_err(|error| {
        Failure::broken("upload", format!("{CONTENTS} is not what the site runner writes: {error}"))
    })?;
    let journal = manifest::file(folder, name, JOURNAL);
    store.end_unfinished(&manifest::folder(folder, name), &journal).await?;
    for part in contents.parts.values() {
        let to = manifest::file(folder, name, &part.file);
        store.send(&staging.join(&part.file), &to, &journal).await?;
        let (bytes, sha256) = store.digest(&to, |_| Ok(())).await?;
        if (bytes, &sha256) != (part.bytes, &part.sha256) {
            let message = format!(
                "{} was read back as {bytes} bytes with SHA-256 {sha256}, which is not what was sent",
                part.file
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

/// Writes a manifest.
pub async fn put(store: &Store, folder: &str, manifest: &Manifest) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(manifest).unwrap_or_default();
    let to = manifest::file(folder, &manifest.name, manifest::FILE_NAME);
    let put = store.objects().put(&to, text.into()).await;
    put.map(|_| ()).map_err(|error| Failure::of_store("manifest", &error))
}
