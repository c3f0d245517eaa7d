//! Brings a backup to the pod, and checks that it is what was stored.

use std::{fs::File, io::Write as _, path::Path as FilePath};

use super::{
    manifest::{self, CONTENTS, Manifest},
    report::Failure,
    secrecy::{self, Key},
    store::{Digest, Store},
};

/// Fetches a backup into `staging`, which is emptied first.
pub async fn fetch(
    store: &Store,
    folder: &str,
    name: &str,
    staging: &FilePath,
    key: Option<&Key>,
) -> Result<Manifest, Failure> {
    let found = find(store, folder, name).await?;
    let failed = |path: &FilePath, error: &std::io::Error| Failure::of_disk("fetch", path, error);
    empty(staging).map_err(|error| failed(staging, &error))?;
    for (title, part) in &found.contents.parts {
        let stored = part.stored();
        // A manifest is data from outside of this pod: it names files of its own folder only.
        if let Some(file) = [&part.file, &stored.file].into_iter().find(|it| it.contains('/') || it.starts_with('.')) {
            return Err(Failure::broken("fetch", format!("the manifest of {} names a file {file:?}", found.name)));
        }
        let path = staging.join(&stored.file);
        let mut file = File::create(&path).map_err(|error| failed(&path, &error))?;
        let from = manifest::file(folder, &found.name, &stored.file);
        let copied = store.digest(&from, |bytes| file.write_all(bytes).map_err(|error| failed(&path, &error))).await;
        let seen = copied.map_err(|failure| match failure.word {
            "BackupNotFound" => Failure::broken("fetch", format!("{title} of {} is missing", found.name)),
            _ => failure,
        })?;
        judge(title, &found.name, &seen, (stored.bytes, &stored.sha256))?;
        if part.encrypted.is_some() {
            let seen = open(key.ok_or_else(secrecy::missing)?, &path, &staging.join(&part.file))?;
            judge(title, &found.name, &seen, (part.bytes, &part.sha256))?;
        }
    }
    let path = staging.join(CONTENTS);
    let contents = serde_json::to_vec(&found.contents).unwrap_or_default();
    std::fs::write(&path, contents).map_err(|error| failed(&path, &error))?;
    Ok(found)
}

/// Whether what was read is what was stored.
fn judge(title: &str, name: &str, seen: &(u64, String), wanted: (u64, &String)) -> Result<(), Failure> {
    if (seen.0, &seen.1) == wanted {
        return Ok(());
    }
    let (bytes, sha256) = seen;
    let message = format!("{title} of {name} has {bytes} bytes with SHA-256 {sha256}, which is not what was stored");
    Err(Failure::broken("fetch", message))
}

/// Decrypts a file into another, and removes it; answers what came out.
fn open(key: &Key, from: &FilePath, to: &FilePath) -> Result<(u64, String), Failure> {
    let failed = |error: &std::io::Error| Failure::of_disk("decrypt", to, error);
    let mut file = File::create(to).map_err(|it| failed(&it))?;
    let mut digest = Digest::default();
    key.decrypt(from, |bytes| {
        digest.add(bytes);
        file.write_all(bytes).map_err(|it| failed(&it))
    })?;
    std::fs::remove_file(from).map_err(|it| failed(&it))?;
    Ok(digest.finish())
}

/// The backup of this name, or the newest whose name begins with it.
async fn find(store: &Store, folder: &str, name: &str) -> Result<Manifest, Failure> {
    let begins = |it: &String| it.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let names = manifest::names(store, folder).await?;
    let mut found: Option<Manifest> = None;
    for candidate in names.iter().filter(|it| begins(it)) {
        let Some(read) = Manifest::read(store, folder, candidate).await? else { continue };
        let newer = found.as_ref().is_none_or(|known| known.scheduled_at < read.scheduled_at);
        if !read.removing && (newer || read.name == name) && found.as_ref().is_none_or(|known| known.name != name) {
            found = Some(read);
        }
    }
    found.ok_or_else(|| {
        let others: Vec<&str> = names.iter().map(String::as_str).rev().take(5).collect();
        let there = if others.is_empty() {
            "there is none".to_owned()
        } else {
            format!("there are, among others, {}", others.join(", "))
        };
        Failure { step: "fetch", word: "BackupNotFound", message: format!("no backup {name} in {folder}: {there}") }
    })
}

/// The folder, with nothing in it. It may be a mount, which cannot be removed itself.
fn empty(folder: &FilePath) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }
    Ok(())
}
